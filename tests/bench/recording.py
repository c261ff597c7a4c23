"""What recording costs: ratios to the untraced run of the same program, and nanoseconds per call.

tests/targets/calls.c times its own calls, so nothing but the calls is in its figures: best of five rounds
there, best of three runs here. Of cmake and duckdb, which time nothing themselves, a run that does next to
nothing is subtracted: what remains is the program's own work, without starting it and without planning.

Of cmake other modes than recording every call are measured too, a recording that is paused before the
program begins, and what first entries cost once most of them are over.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent / "core")]

from rig import corpus, targets, tracing, windows  # noqa: E402

CALLS = "5000000"
RUNS = 3
CLOCKS = ("none", "tsc", "coarse")

CMAKE_WORK = """
set(sum 0)
foreach(i RANGE 1 20000)
  math(EXPR sum "${sum} + ${i} * 2")
  string(REGEX REPLACE "([0-9])" "<\\\\1>" text "${sum}")
endforeach()
message("${text}")
"""
# Tells how many microseconds the same work takes behind its first second.
CMAKE_LATER = """
string(TIMESTAMP begin "%s%f")
set(warm 0)
while(warm LESS 1000000)
  string(REGEX REPLACE "([0-9])" "<\\\\1>" text "${warm}")
  string(TIMESTAMP now "%s%f")
  math(EXPR warm "${now} - ${begin}")
endwhile()
foreach(i RANGE 1 100000)
  math(EXPR sum "${i} * 2")
  string(REGEX REPLACE "([0-9])" "<\\\\1>" text "${sum}")
endforeach()
string(TIMESTAMP end "%s%f")
math(EXPR took "${end} - ${now}")
message(STATUS "took ${took}")
"""
DUCKDB_WORK = (
    "SET threads = 1; SELECT sum(hash(i) % 1000), count(DISTINCT i % 5003) FROM range(20000000) t(i);"
)
FUNCTIONS = ("--events", "functions")
CHOICES = {
    "functions": FUNCTIONS,
    "functions, coarse": (*FUNCTIONS, "--clock", "coarse"),
    "functions, tsc": (*FUNCTIONS, "--clock", "tsc"),
    "outward": (),
}
MODES = {
    "graph, functions": ("--mode", "graph", *FUNCTIONS),
    "graph, outward": ("--mode", "graph"),
    "hits": ("--mode", "hits"),
}
TRACE = "bench.calltrace"
PAUSED = TESTS / "bench" / "hosted" / "paused_main.py"


def per_call(output: bytes) -> dict[str, float]:
    """Nanoseconds by kind of call, as calls.exe prints them."""
    pairs = (line.split(":") for line in output.decode().splitlines() if ":" in line)
    return {kind: float(nanoseconds) for kind, nanoseconds in pairs}


def best(run: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The least figure of each kind over several runs."""
    runs = [run() for _ in range(RUNS)]
    return {kind: min(figures[kind] for figures in runs) for kind in runs[0]}


def bench_calls(folder: Path) -> None:
    """Print what entry and exit add to each kind of call, per clock."""
    program = targets.build("calls")
    plain = best(lambda: per_call(windows.run([program, CALLS]).stdout))
    print(f"{'entry + exit':18}{'plain':>9}", *(f"{clock:>26}" for clock in CLOCKS), sep="")
    rows = {kind: f"{kind:18}{nanoseconds:6.2f} ns" for kind, nanoseconds in plain.items()}
    for clock in CLOCKS:
        options = ("--events", "functions", "--clock", clock)
        figures = best(lambda options=options: per_call(traced(folder, program, [CALLS], *options)))
        for kind, nanoseconds in figures.items():
            added = nanoseconds - plain[kind]
            rows[kind] += f"{nanoseconds:9.2f} ns {added:+6.2f} x{nanoseconds / plain[kind]:<5.1f}"
    print(*rows.values(), sep="\n")


def traced(folder: Path, program: Path, arguments: Sequence[str], *options: str) -> bytes:
    """The output of a program that is recorded."""
    words = ("run", "--quiet", "-o", folder / TRACE, *options, "--", program, *arguments)
    done = tracing.calltrace(*words, timeout=600, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def paused(folder: Path, program: Path, arguments: Sequence[str]) -> None:
    """Run a program whose recording is paused before it begins."""
    done = windows.python(PAUSED, folder / TRACE, program, *arguments, timeout=600, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()


def seconds(folder: Path, work: Callable[[], object]) -> float:
    """The least time of several runs, none of which has to give back what the one before has written."""
    times = []
    for _ in range(RUNS):
        (folder / TRACE).unlink(missing_ok=True)
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def bench_program(
    folder: Path, name: str, work: Sequence[str], nothing: Sequence[str], modes: Mapping[str, Sequence[str]]
) -> None:
    """Print what recording a real program costs: each choice of events and clock, and some `modes`."""
    program = corpus.program(name)

    def added(run: Callable[[Sequence[str]], object]) -> float:
        return seconds(folder, lambda: run(work)) - seconds(folder, lambda: run(nothing))

    def tell(label: str, cost: float, of: str = "") -> None:
        every = f", x{cost / costs[of]:.2f} of {of}" if of else ""
        print(f"  {label:18}{cost * 1000:8,.0f} ms x{cost / own:.2f}{every}")

    own = added(lambda arguments: windows.run([program, *arguments], cwd=folder, timeout=600))
    print(f"{name:20}{own * 1000:8,.0f} ms plain")
    costs = {}
    for label, options in {**CHOICES, **modes}.items():
        costs[label] = added(lambda arguments, options=options: traced(folder, program, arguments, *options))
        mode, _, events = label.partition(", ")
        tell(label, costs[label], events if mode == "graph" else "")
    if modes:
        tell("paused", added(lambda arguments: paused(folder, program, arguments)))


def bench_later(folder: Path) -> None:
    """Print what is left of the cost of first entries after cmake's first second."""
    program, work = corpus.program("cmake"), ["-P", "later.cmake"]
    (folder / "later.cmake").write_text(CMAKE_LATER)

    def took(run: Callable[[], bytes]) -> float:
        return min(int(run().partition(b"took ")[2]) / 1000 for _ in range(RUNS))

    own = took(lambda: windows.run([program, *work], cwd=folder, timeout=600).stdout)
    hits = took(lambda: traced(folder, program, work, "--mode", "hits"))
    print(f"cmake, after 1 s    {own:8,.0f} ms plain")
    print(f"  {'hits':18}{hits:8,.0f} ms x{hits / own:.2f}")


def bench_planning(folder: Path, name: str, arguments: Sequence[str]) -> None:
    """Print how long planning a real program takes, and how large its copies are."""
    trace = folder / TRACE
    figures = []
    for _ in range(RUNS):
        tracing.calltrace(
            "run", "--quiet", "--events", "functions", "-o", trace, "--", corpus.program(name), *arguments
        )
        [module] = tracing.info(trace)["modules"]
        figures.append(module["plan"]["milliseconds"])
    plan = module["plan"]
    print(
        f"planning {name:14}{min(figures):8,.0f} ms, {module['functions']['found']:,} functions, "
        f"copies x{plan['copy_bytes'] / plan['executable_bytes']:.2f} of the code, "
        f"their data x{plan['data_bytes'] / plan['executable_bytes']:.2f}"
    )


def main() -> None:
    """Run all of it in a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench_calls(folder)
        for program in ("ninja", "cmake", "duckdb"):
            bench_planning(folder, program, ["--version"])
        (folder / "work.cmake").write_text(CMAKE_WORK)
        bench_program(folder, "cmake", ["-P", "work.cmake"], ["--version"], MODES)
        bench_later(folder)
        bench_program(folder, "duckdb", ["-c", DUCKDB_WORK], ["-c", "SELECT 1"], {})


if __name__ == "__main__":
    main()
