"""Virtual functions of a program without symbols are named by their classes: as its symbols did."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from rig import targets, tracing

_METHOD = re.compile(r"public: virtual int __cdecl (.+)::(slot|other)(\d)\(void\)")


def expected() -> dict[str, str]:
    """By RVA: what each virtual function is to be called, by the compiler's symbols and its own name."""
    program = targets.build("virtuals")
    told = subprocess.run(["x86_64-w64-mingw32-nm", program], capture_output=True, text=True, check=True)
    found = {}
    for address, symbol in re.findall(r"^(\w+) [tT] (\?(?:slot|other).*)", told.stdout, re.MULTILINE):
        plain = subprocess.run(["llvm-undname-14", symbol], capture_output=True, text=True, check=True)
        method = _METHOD.search(plain.stdout)
        assert method
        name = method[1].replace(", ", ",")
        if name == "Both" and method[2] == "other":
            name = "Both{for Other}"
        found[f"{int(address, 16) - 0x140000000:#x}"] = f"virtuals!{name}::vfunc[{method[3]}]"
    assert len(found) == 14
    return found


def test_virtual_functions_are_named_by_their_classes_and_slots(tmp_path: Path) -> None:
    program, trace = targets.stripped(targets.build("virtuals")), tmp_path / "t.calltrace"
    done = tracing.calltrace("run", "--quiet", "-o", trace, "--", program)
    assert done.returncode == 0, done.stderr
    shown = {row["rva"]: row["name"] for row in json.loads(tracing.shell("diff", "--json", trace))["found"]}
    wanted = expected()
    assert {rva: name for rva, name in shown.items() if rva in wanted} == wanted
    # What two unrelated classes share belongs to neither.
    assert [name for name in shown.values() if "vfunc" in name and name not in wanted.values()] == []
    told = tracing.shell("tree", trace, "--function", "virtuals!*Circle::vfunc[1]")
    assert told.splitlines()[1].split()[0] == "virtuals!zoo::Circle::vfunc[1]"


def test_symbols_come_before_such_names(tmp_path: Path) -> None:
    trace = tmp_path / "t.calltrace"
    tracing.calltrace("run", "--quiet", "-o", trace, "--", targets.build("virtuals"))
    tree = tracing.shell("tree", trace)
    assert "?slot3@Both@@UEAAHXZ" in tree
    assert "vfunc" not in tree
