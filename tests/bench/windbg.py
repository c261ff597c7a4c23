"""How long `!calltrace start` and `stop` take on cmake in the real WinDbg engine, and which part how long.

From the command to the next prompt, by the debugger's clock; the first command also starts Python. Of three
sessions the quickest is shown. bench/hosted times the parts inside.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from datetime import datetime
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent / "core")]

from rig import corpus, windbg, windows  # noqa: E402

RUNS = 3
ROOTS = (TESTS / "bench" / "hosted", TESTS.parent / "core", TESTS.parent / "windbg_ext")
TIME = re.compile(r"time: \w+ (\w+ +\d+ [\d:.]+ \d+) \(UTC ([+-]) (\d+):(\d+)\)")


class Command:
    """What one command took, in seconds."""

    def __init__(self, begun: float, ended: float, told: dict) -> None:
        self.seconds = ended - begun
        self.processor = told["ended"][1] - told["before"]
        self.parts = {part: tuple(seconds) for part, seconds in told["parts"].items()}
        if not told["before"]:
            self.parts["start Python"] = (told["started"][0] - begun, told["started"][1])
        known = list(self.parts.values())
        self.parts["the rest"] = (
            self.seconds - sum(wall for wall, _ in known),
            self.processor - sum(processor for _, processor in known),
        )

    def show(self, name: str) -> None:
        print(f"{name:40}{self.seconds:7.2f} s{'processor':>16}")
        for part, (wall, processor) in sorted(self.parts.items(), key=lambda item: -item[1][0]):
            print(f"  {part:38}{wall:7.2f} s {wall / self.seconds:4.0%}{processor:8.2f} s")
        print(f"  {'all of the debugger':53}{self.processor:7.2f} s")


def session(folder: Path) -> tuple[Command, Command]:
    """Start and stop a recording of cmake."""
    trace, parts = folder / "bench.calltrace", folder / "parts"
    start = f"!calltrace start -o {windows.path(trace)}"
    env = {"PYTHONPATH": ";".join(map(windows.path, ROOTS)), "CALLTRACE_PARTS": windows.path(parts)}
    script = [windbg.LOAD, ".echotime", start, ".echotime", "!calltrace stop", ".echotime"]
    shown = windbg.run(script, [corpus.program("cmake"), "--version"], env=env)
    assert "functions instrumented" in shown.said(start), shown.said(start)
    times = [moment(said) for given, said in shown.commands if given == ".echotime"]
    started, stopped = (json.loads(line) for line in parts.read_text(encoding="utf-8").splitlines())
    for path in (trace, parts):
        path.unlink()
    started["before"], stopped["before"] = 0.0, started["ended"][1]
    return Command(times[0], times[1], started), Command(times[1], times[2], stopped)


def moment(said: str) -> float:
    """What `.echotime` printed, in seconds since 1970."""
    text, sign, hours, minutes = TIME.search(said).groups()
    zone = f"{sign}{int(hours):02}{minutes}"
    return datetime.strptime(f"{text} {zone}", "%b %d %H:%M:%S.%f %Y %z").timestamp()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        sessions = [session(Path(name)) for _ in range(RUNS)]
    for index, command in enumerate(("start", "stop")):
        min((each[index] for each in sessions), key=lambda each: each.seconds).show(
            f"!calltrace {command}, cmake"
        )


if __name__ == "__main__":
    main()
