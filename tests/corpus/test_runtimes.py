"""Language runtimes that find frames by tables of their own: what is said of real ones, and is true."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from calltrace import preflight, wine
from calltrace.errors import NotTraceable
from calltrace.pe import runtimes
from calltrace.pe.image import from_file
from calltrace.preflight import Verdict
from rig import corpus, targets, tracing, windows

FRAMEWORK = corpus.program("coreclr").parent

# The C++ runtime that pyarrow brings.
WITH_EH_CONTINUATIONS = list(wine.cache_folder().glob("python-win/Lib/site-packages/pyarrow.libs/msvcp*.dll"))


def verdicts(path: Path) -> dict[str, Verdict]:
    """What is said of a module but for what is fine."""
    findings = preflight.of_module(from_file(path))
    return {finding.key: finding.verdict for finding in findings if finding.verdict is not Verdict.FINE}


@pytest.mark.parametrize(
    "path",
    [
        *(corpus.program(name) for name in ("clang-format", "cmake", "dbgeng", "duckdb", "ffmpeg", "ninja")),
        *sorted(set((wine.cache_folder() / "python-win").rglob("*.dll")).difference(WITH_EH_CONTINUATIONS)),
        FRAMEWORK / "clrjit.dll",  # translates, but has no frames on the stack while its code runs
        FRAMEWORK / "clrcompression.dll",
    ],
    ids=lambda path: path.name,
)
def test_native_modules_raise_no_alarm(path: Path) -> None:
    assert verdicts(path) == {}


def test_eh_continuations_are_counted_as_llvm_does() -> None:
    [library] = WITH_EH_CONTINUATIONS
    told = ["llvm-readobj-14", "--coff-load-config", library]
    shown = subprocess.run(told, capture_output=True, text=True, check=True).stdout
    [count] = [line.split()[1] for line in shown.splitlines() if "GuardEHContinuationCount" in line]
    [limit] = [each for each in preflight.of_module(from_file(library)) if each.verdict is Verdict.LIMITS]
    assert f"({int(count):,} addresses)" in limit.text


@pytest.mark.parametrize("name", ["demo", "throws", "calls"])
def test_programs_built_by_gcc_raise_no_alarm(name: str) -> None:
    assert verdicts(targets.build(name)) == {}


@pytest.mark.parametrize(
    ("path", "verdict", "word"),
    [
        (corpus.program("task"), Verdict.BLOCKS, "Go"),
        (corpus.program("coreclr"), Verdict.BLOCKS, "the .NET runtime"),
        (FRAMEWORK / "System.Private.CoreLib.dll", Verdict.BLOCKS, "compiled ahead of time"),
        (corpus.program("dotnet"), Verdict.LIMITS, "host of .NET programs"),
        (corpus.program("node"), Verdict.LIMITS, "V8"),
        (corpus.program("luajit"), Verdict.LIMITS, "LuaJIT"),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else None,
)
def test_runtimes_are_recognised(path: Path, verdict: Verdict, word: str) -> None:
    findings = [each for each in preflight.of_module(from_file(path)) if each.verdict is not Verdict.FINE]
    assert [each.key for each in findings] == ["runtime"]
    assert findings[0].verdict is verdict
    assert word in findings[0].text


def test_an_assembly_for_any_machine_is_dotnet_only() -> None:
    with pytest.raises(NotTraceable, match=r"mscorlib\.dll holds \.NET code only"):
        from_file(FRAMEWORK / "mscorlib.dll")


def test_every_assembly_of_the_framework_is_blocked() -> None:
    assemblies = sorted(FRAMEWORK.glob("System.*.dll"))
    assert len(assemblies) > 100
    assert [path.name for path in assemblies if verdicts(path).get("runtime") is not Verdict.BLOCKS] == []


def test_a_go_program_is_refused_before_it_is_started(tmp_path: Path) -> None:
    trace, program = tmp_path / "go.calltrace", corpus.program("task")
    done = tracing.calltrace("run", "-o", trace, "--", program, "--version")
    assert (done.returncode, done.stdout) == (65, b"")
    assert done.stderr.count(b"\n") == 1
    assert b"task.exe is a Go program: " in done.stderr
    assert not trace.exists()


def test_a_running_go_program_is_refused_and_goes_on(tmp_path: Path) -> None:
    commands = 'echo ready; read line; echo "got $line"'
    (tmp_path / "Taskfile.yml").write_text(f"version: '3'\ntasks: {{default: {{cmds: ['{commands}']}}}}\n")
    with subprocess.Popen(
        ["wine", windows.path(corpus.program("task")), "--silent"],
        cwd=tmp_path,
        env=windows.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stdout.readline().strip() == b"ready"
        done = tracing.calltrace("attach", process_id_of("task.exe"), "--seconds", "1")
        output, _ = process.communicate(b"a line\n", timeout=windows.HANGS)
    assert done.returncode == 65
    assert b"task.exe is a Go program: " in done.stderr
    assert output.strip() == b"got a line"
    assert process.returncode == 0


def process_id_of(name: str) -> str:
    """The Windows id of the one process of that name, waited for if it is not to be seen yet."""
    script = (
        "import ctypes, sys\n"
        "kernel32 = ctypes.windll.kernel32\n"
        "ids = (ctypes.c_uint32 * 4096)()\n"
        "size = ctypes.c_uint32()\n"
        "kernel32.K32EnumProcesses(ids, ctypes.sizeof(ids), ctypes.byref(size))\n"
        "text = ctypes.create_unicode_buffer(1024)\n"
        "for id in ids[:size.value // 4]:\n"
        "    handle = kernel32.OpenProcess(0x1000, 0, id)\n"
        "    length = ctypes.c_uint32(len(text))\n"
        "    if kernel32.QueryFullProcessImageNameW(handle, 0, text, ctypes.byref(length)):\n"
        "        if text.value.lower().endswith('\\\\' + sys.argv[1]): print(id)\n"
    )
    for _ in range(50):
        found = windows.python("-c", script, name).stdout.split()
        if found:
            assert len(found) == 1, f"several processes are {name}"
            return found[0].decode()
        time.sleep(0.1)
    raise AssertionError(f"no process is {name}")


def same_traced(job: tracing.Job, trace: Path, *options: str) -> Any:
    """Assert that a job leaves the same behind traced as plain; what `info` says of the trace."""
    plain = job.plain()
    traced = job.traced(trace, *options)
    assert traced.exit_code == plain.exit_code
    assert traced.stderr.decode() == plain.stderr.decode()
    assert traced.stdout.decode() == plain.stdout.decode()
    assert plain.stdout
    report = tracing.info(trace)
    assert report["gaps"]["count"] == 0
    trace.unlink()
    return report


# Exceptions of JavaScript and of the native stack, garbage collection, compiled code calling back and forth.
_SCRIPT = """
const fs = require('fs'), out = [];
class Node {
  constructor(n) { this.n = n }
  depth() { return this.n > 0 ? new Node(this.n - 1).depth() + 1 : 0 }
}
out.push(new Node(2000).depth());
let sum = 0;
for (let i = 0; i < 3e6; i++) sum += i % 7;
out.push(sum);
try { (function deeper() { deeper() })() } catch (e) { out.push(e.constructor.name) }
for (let i = 0; i < 5000; i++) {
  try { throw new Error('x' + i) } catch (e) { if (i == 4999) out.push(e.stack.length) }
}
let kept = [];
for (let i = 0; i < 100000; i++) {
  kept.push({ i, text: 's' + i });
  if (kept.length > 999) kept = [];
}
out.push(require('crypto').createHash('sha256').update('x'.repeat(1e5)).digest('hex'));
out.push([5, 3, 1].sort((a, b) => a - b).join(), /a+b/.exec('xaaab')[0], JSON.stringify({ z: [{ q: 3 }] }));
function* numbers() { for (let i = 0; i < 1000; i++) yield i }
let total = 0;
for (const n of numbers()) total += n;
out.push(total);
(async () => {
  for (let i = 0; i < 1000; i++) await null;
  // (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add)
  const wasm = Buffer.from('0061736d0100000001070160027f7f017f03020100070701036164640000' +
    '0a09010700200020016a0b', 'hex');
  out.push((await WebAssembly.instantiate(wasm)).instance.exports.add(2, 3));
  fs.writeSync(1, out.join('\\n') + '\\n');
})();
"""


def test_node_runs_the_same_traced_but_for_v8s_builtins(tmp_path: Path) -> None:
    def prepare(folder: Path) -> None:
        (folder / "work.js").write_text(_SCRIPT)

    program = corpus.program("node")
    job = tracing.Job(program, ["work.js"], tmp_path / "work", prepare)
    report = same_traced(job, tmp_path / "node.calltrace", "--events", "functions")
    [module] = report["modules"]
    assert module["functions"]["instrumented"] > 100_000
    assert report["frames"]["functions"] > 100_000
    [left] = [each for each in module["refusals"] if "its runtime" in each["reason"]]
    [(begin, end)] = runtimes.closed_code(from_file(program))
    rvas = [int(function["rva"], 16) for function in left["functions"]]
    assert len(rvas) > 2000
    assert all(begin <= rva < end for rva in rvas)


def test_a_native_program_with_dotnet_in_it_runs_the_same_traced(tmp_path: Path) -> None:
    job = tracing.Job(targets.build("clr_host"), [windows.path(FRAMEWORK)], tmp_path / "work")
    report = same_traced(job, tmp_path / "host.calltrace", "--modules", "clrjit.dll")
    assert [module["name"] for module in report["modules"]] == ["clr_host.exe", "clrjit.dll"]
    assert report["frames"]["functions"] > 10_000


def test_the_dotnet_runtime_itself_is_left_out_with_its_reason(tmp_path: Path) -> None:
    trace = tmp_path / "host.calltrace"
    words = ["run", "-o", trace, "--modules", "coreclr*", "--modules", "System.Private*", "--"]
    done = tracing.calltrace(*words, targets.build("clr_host"), windows.path(FRAMEWORK))
    assert done.returncode == 7
    assert b"coreclr.dll is left out: coreclr.dll holds the .NET runtime" in done.stderr
    assert (
        b"System.Private.CoreLib.dll is left out: System.Private.CoreLib.dll holds .NET code" in done.stderr
    )
    assert [module["name"] for module in tracing.info(trace)["modules"]] == ["clr_host.exe"]


_LUA = """
import sys
sys.path.insert(0, sys.argv[1])
from lupa import luajit21
lua = luajit21.LuaRuntime()
print(lua.execute('''
local sum = 0
for i = 1, 3e6 do sum = sum + i % 7 end
for i = 1, 2000 do pcall(error, 'x') end
local next = coroutine.wrap(function() for i = 1, 1000 do coroutine.yield(i) end end)
for i = 1, 900 do sum = sum + next() end
return sum, jit.status()
'''))
def fail(n):
    raise ValueError(n)
try:
    lua.eval('function(f) for i = 1, 100 do if i == 99 then f(i) end end end')(fail)
except ValueError as error:
    print('caught', error)
"""


def test_what_limits_a_program_is_one_line_before_it_is_started(tmp_path: Path) -> None:
    trace = tmp_path / "host.calltrace"
    done = tracing.calltrace("run", "-o", trace, "--", corpus.program("dotnet"), "--info")
    lines = done.stderr.decode().splitlines()
    assert lines[0] == (
        "calltrace: dotnet.exe is a host of .NET programs: only the host is native code, what it runs is not "
        "traced"
    )
    assert lines[1].startswith("calltrace: dotnet.exe: planning")
    assert b"3.1.23" in done.stdout


def test_luajit_runs_the_same_traced(tmp_path: Path) -> None:
    def prepare(folder: Path) -> None:
        (folder / "work.py").write_text(_LUA)

    library = windows.path(corpus.program("luajit").parent.parent)
    job = tracing.Job(wine.windows_python(), ["work.py", library], tmp_path / "work", prepare)
    report = same_traced(job, tmp_path / "lua.calltrace", "--events", "functions", "--modules", "luajit21*")
    assert len(report["modules"]) == 2
    assert report["frames"]["functions"] > 10_000
