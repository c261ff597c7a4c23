"""Virtual functions of a program without symbols are named by their classes: as its symbols did."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from rig import targets, tracing

_METHOD = re.compile(r"(?:public: virtual int __cdecl )?(non-virtual thunk to )?(.+)::(slot|other)(\d)\(")
# Where gcc puts what Both adds to its first base's vtable, of which its overriding of the second's is one.
_SLOTS_OF_BOTH = {("slot", 3): 4, ("other", 1): 3}
DEMANGLERS = {"virtuals": "llvm-undname-14", "virtuals_gcc": "c++filt"}


def expected(program: str) -> dict[str, str]:
    """By RVA: what each virtual function is to be called, by the compiler's symbols and its own name."""
    found = {}
    for symbol, address in targets.symbols(program).items():
        if not re.match(r"[?_].*(?:slot|other)\d", symbol):
            continue
        plain = subprocess.run([DEMANGLERS[program], symbol], capture_output=True, text=True, check=True)
        method = _METHOD.match(plain.stdout.strip().splitlines()[-1])
        assert method
        thunk, name, base, slot = method[1], method[2].replace(", ", ","), method[3], int(method[4])
        if name == "Both" and base == "other" and (thunk or program == "virtuals"):
            name = "Both{for Other}"
        elif name == "Both" and program == "virtuals_gcc":
            slot = _SLOTS_OF_BOTH.get((base, slot), slot)
        found[f"{address - 0x140000000:#x}"] = f"{program}!{name}::vfunc[{slot}]"
    assert len(found) == 14 + (program == "virtuals_gcc")  # the thunk
    return found


@pytest.mark.parametrize("program", DEMANGLERS)
def test_virtual_functions_are_named_by_their_classes_and_slots(tmp_path: Path, program: str) -> None:
    stripped, trace = targets.stripped(targets.build(program)), tmp_path / "t.calltrace"
    done = tracing.calltrace("run", "--quiet", "-o", trace, "--", stripped)
    assert done.returncode == 0, done.stderr
    shown = {row["rva"]: row["name"] for row in json.loads(tracing.shell("diff", "--json", trace))["found"]}
    wanted = expected(program)
    assert {rva: name for rva, name in shown.items() if rva in wanted} == wanted
    # What two unrelated classes share belongs to neither.
    named = {name for name in shown.values() if "vfunc" in name and "std::" not in name}
    assert named == set(wanted.values())
    tree = tracing.shell("tree", trace, "--function", f"{program}!*Circle::vfunc[1]")
    assert tree.splitlines()[1].split()[0] == f"{program}!zoo::Circle::vfunc[1]"


def test_symbols_come_before_such_names(tmp_path: Path) -> None:
    trace = tmp_path / "t.calltrace"
    tracing.calltrace("run", "--quiet", "-o", trace, "--", targets.build("virtuals"))
    tree = tracing.shell("tree", trace)
    assert "virtuals!Both::slot3" in tree
    assert "vfunc" not in tree
