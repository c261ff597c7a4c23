"""A recording driven by commands, with a target and a tracer made of Python objects."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calltrace import session
from calltrace.errors import EngineError, TargetLost, UsageError
from calltrace.export.status import Status
from calltrace.live import LiveSession
from calltrace.model import State
from calltrace.ports import Registers, TargetModule
from calltrace.session import TraceOptions
from calltrace.tracefile import TraceFile
from contract.fake import FakePort

PROGRAM = TargetModule(0x1_4000_0000, 0x10000, r"C:\demo.exe")
LIBRARIES = [
    TargetModule(0x1_8000_0000, 0x10000, r"C:\windows\kernel32.dll"),
    TargetModule(0x1_9000_0000, 0x10000, r"C:\plugins\shapes.dll"),
]


class Port(FakePort):
    """A target of a debugger."""

    def __init__(self, process_id: int) -> None:
        super().__init__()
        self.process_id = process_id
        for module in (PROGRAM, *LIBRARIES):
            self.map(module, b"MZ")
        self.add_thread(8, Registers(PROGRAM.base, 0), self.allocate(0x1000), 0x1000)
        self.is_debugged = True
        self.closed = False

    def ended_with(self) -> int | None:
        return 3 if self.ended else None

    def debugged(self) -> bool:
        return self.is_debugged

    def exit_code(self) -> int:
        return 3

    def close(self) -> None:
        self.closed = True


class LivePort:
    """`ended` is a method here, and a field of the fake."""

    def __init__(self, port: Port) -> None:
        self._port = port

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def ended(self) -> int | None:
        return self._port.ended_with()


class Debugger:
    """A live session's host that stands at one process after the other."""

    def __init__(self) -> None:
        self.targets: list[Port] = []
        self.calls: list[str] = []

    def attach(self) -> Port:
        self.targets.append(Port(100 + len(self.targets)))
        return self.targets[-1]

    @contextlib.contextmanager
    def port(self, known: Any) -> Iterator[Any]:
        if not self.targets:
            raise EngineError("there is no target")
        target = self.targets[-1]
        yield known if known and known.process_id == target.process_id else LivePort(target)

    def thread_id(self, name: str) -> int:
        return 8

    def uninterrupted(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def follow_copies(self, port: Any, copied: Any) -> None:
        self.calls.append(f"copies of {port.process_id}: {copied}" if port else "nothing more")


class Tracing:
    """A tracer that notes what it is told."""

    made: list[Tracing] = []  # noqa: RUF012
    matching = 5
    failure: BaseException | None = None

    def __init__(self, port: Any, progress: Any) -> None:
        self.port, self.progress = port, progress
        self.calls: list[str] = []
        self.copied: list[str] = []
        self.options = TraceOptions()
        self.made.append(self)

    def prepare(self, options: TraceOptions) -> int:
        self.options = options
        return self.matching

    def start(self, options: TraceOptions, file: Any) -> None:
        self.calls.append("start")
        self.copied = ["copy"]
        self.file = file
        if self.failure:
            raise self.failure

    def stop(self) -> None:
        self.calls.append("stop")
        self.copied = []

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    def write_counts(self) -> None:
        pass

    def end_undebugged(self, process_id: int) -> None:
        self.calls.append(f"end {process_id}")
        if self.failure:
            raise self.failure

    def discard(self) -> None:
        self.calls.append("discard")
        self.file.discard()

    def finish(self, state: State, exit_code: int = 0) -> Path:
        self.calls.append(f"finish {state.name} {exit_code}")
        path: Path = self.file.path
        self.file.finish(state, exit_code)
        return path


@pytest.fixture
def debugger(monkeypatch: pytest.MonkeyPatch) -> Debugger:
    monkeypatch.setattr(session, "Tracing", Tracing)
    monkeypatch.setattr(Tracing, "made", [])
    monkeypatch.setattr(Tracing, "failure", None)
    made = Debugger()
    made.attach()
    return made


@pytest.fixture
def told() -> list[str]:
    return []


def begin(live: LiveSession, folder: Path, told: list[str], *patterns: str, **options: Any) -> None:
    file = folder / f"{len(list(folder.iterdir()))}.calltrace"
    live.start(TraceOptions(output=file, **options), patterns, (), told.append)


@pytest.mark.parametrize(
    ("patterns", "options", "ignored", "program", "modules"),
    [
        ([], {}, [], True, []),
        ([], {"modules": ["shapes", "nosuch"]}, [], True, ["shapes.dll"]),
        (["main"], {}, [], True, []),
        (["demo!f", "demo+0x10"], {}, [], True, []),
        (["Shapes!*"], {}, [], False, ["shapes.dll"]),
        (["*!draw"], {}, [], True, ["kernel32.dll", "shapes.dll"]),
        (["*!draw"], {}, ["KERNEL32.dll", "demo"], False, ["shapes.dll"]),
        (["0x190000010"], {}, [], False, ["shapes.dll"]),
        (["0x140000010"], {"modules": ["kernel*"]}, [], True, ["kernel32.dll"]),
        (["shapes!a", "f"], {"include": ["g"]}, [], True, ["shapes.dll"]),
    ],
)
def test_patterns_choose_the_modules(
    debugger: Debugger,
    tmp_path: Path,
    patterns: list[str],
    options: dict[str, Any],
    ignored: list[str],
    program: bool,
    modules: list[str],
) -> None:
    live = LiveSession(debugger)
    wanted = TraceOptions(output=tmp_path / "a", **options)
    live.start(wanted, patterns, ignored, lambda line: None)
    [tracing] = Tracing.made
    assert (tracing.options.program, list(tracing.options.modules)) == (program, modules)
    assert tracing.options.include == [*options.get("include", []), *patterns]
    live.stop(lambda line: None)


def test_a_recording_that_cannot_begin_leaves_nothing_behind(
    debugger: Debugger, tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveSession(debugger)
    monkeypatch.setattr(Tracing, "failure", EngineError("not now"))
    with pytest.raises(EngineError, match="not now"):
        begin(live, tmp_path, told)
    assert Tracing.made[0].calls == ["start", "stop", "discard"]
    assert not live.recording
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="nothing has been recorded"):
        live.trace(told.append)
    monkeypatch.setattr(Tracing, "failure", None)
    begin(live, tmp_path, told)
    assert live.recording
    assert debugger.calls == ["copies of 100: []", "copies of 100: ['copy']"]
    live.stop(told.append)
    assert debugger.calls[2:] == ["copies of 100: []"]


def test_patterns_that_mean_nothing_touch_nothing(
    debugger: Debugger, tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tracing, "matching", 0)
    with pytest.raises(UsageError, match="no function matches f, g"):
        begin(LiveSession(debugger), tmp_path, told, "g", include=["f"])
    assert Tracing.made[0].calls == []
    assert list(tmp_path.iterdir()) == []


def test_one_target_is_recorded_time_after_time_by_one_tracer(
    debugger: Debugger, tmp_path: Path, told: list[str]
) -> None:
    live = LiveSession(debugger)
    for number in range(2):
        begin(live, tmp_path, told)
        live.pause(told.append)
        live.resume(told.append)
        assert live.stop(told.append) == tmp_path / f"{number}.calltrace"
    [tracing] = Tracing.made
    assert tracing.calls == ["start", "pause", "resume", "stop", "finish STOPPED 0"] * 2
    with TraceFile(tmp_path / "1.calltrace") as trace:
        assert trace.state == State.STOPPED
        assert [mark.name for mark in trace.marks] == ["paused", "resumed"]


def test_a_target_that_has_ended_is_noticed_by_whatever_comes_next(
    debugger: Debugger, tmp_path: Path, told: list[str]
) -> None:
    live, file = LiveSession(debugger), tmp_path / "0.calltrace"
    begin(live, tmp_path, told)
    live.pause(told.append)
    told.clear()
    debugger.targets[0].ended = True
    assert live.trace(told.append) == file
    assert told == [f"the recorded program has ended; its trace is {file}"]
    assert Tracing.made[0].calls[-1] == "finish KILLED 3"
    assert debugger.targets[0].closed
    assert debugger.calls[-1] == "nothing more"
    assert not live.paused
    with pytest.raises(UsageError, match="no recording is under way"):
        live.stop(told.append)
    debugger.attach()
    begin(live, tmp_path, told)
    assert len(Tracing.made) == 2
    live.stop(told.append)


def test_a_target_that_says_itself_that_it_ends_has_ended(
    debugger: Debugger, tmp_path: Path, told: list[str]
) -> None:
    live = LiveSession(debugger)
    begin(live, tmp_path, told)
    Tracing.made[0].file.header.state = State.EXITED  # the recorder's last word, before the last debug event
    with pytest.raises(UsageError, match="no recording is under way"):
        live.stop(told.append)
    assert Tracing.made[0].calls == ["start", "finish KILLED 3"]
    with TraceFile(tmp_path / "0.calltrace") as trace:
        assert (trace.state, trace.header.exit_code) == (State.EXITED, 3)


@pytest.mark.parametrize(
    ("failure", "lines"),
    [
        (None, ["the recorded program was let go by the debugger; its trace is {}"]),
        (
            EngineError("it does not stop"),
            [
                "the program could not be left as it was: it does not stop",
                "the recorded program was let go by the debugger; its trace is {}",
            ],
        ),
        (
            TargetLost("gone"),
            ["the recorded program was let go by the debugger; its trace is {}"],
        ),
    ],
)
def test_a_target_that_the_debugger_let_go_is_left_as_it_was(
    debugger: Debugger,
    tmp_path: Path,
    told: list[str],
    failure: BaseException | None,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = LiveSession(debugger)
    begin(live, tmp_path, told)
    told.clear()
    debugger.targets[0].is_debugged = False
    monkeypatch.setattr(Tracing, "failure", failure)
    assert live.status(told.append) == Status(tmp_path / "0.calltrace", None)
    assert Tracing.made[0].calls == ["start", "end 100", "finish KILLED 0"]
    assert told == [line.format(tmp_path / "0.calltrace") for line in lines]


def test_another_process_of_the_debugger_is_not_the_recorded_one(
    debugger: Debugger, tmp_path: Path, told: list[str]
) -> None:
    live = LiveSession(debugger)
    begin(live, tmp_path, told)
    debugger.attach()
    with pytest.raises(
        EngineError, match="process 100 is being recorded, but the debugger stands at process 101"
    ):
        live.stop(told.append)
    assert live.recording
    debugger.targets.pop()
    live.stop(told.append)


def test_a_trace_named_by_its_user_is_replaced_and_that_is_said(
    debugger: Debugger, tmp_path: Path, told: list[str]
) -> None:
    live, file = LiveSession(debugger), tmp_path / "a.calltrace"
    for _ in range(2):
        live.start(TraceOptions(output=file), (), (), told.append)
        live.stop(told.append)
    assert told == [f"recording into {file}", f"replacing {file}", f"recording into {file}"]


def test_a_trace_that_nobody_named_replaces_none(
    debugger: Debugger, tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    live = LiveSession(debugger)
    for _ in range(3):
        live.start(TraceOptions(), (), (), told.append)
        live.stop(told.append)
    folder = tmp_path / "calltrace"
    names = ["demo.calltrace", "demo-2.calltrace", "demo-3.calltrace"]
    assert told == [f"recording into {folder / name}" for name in names]
    assert {file.name for file in folder.iterdir()} == set(names)


def test_a_saved_trace_is_complete_and_recording_goes_on(
    debugger: Debugger, tmp_path: Path, told: list[str]
) -> None:
    live, saved = LiveSession(debugger), tmp_path / "saved"
    begin(live, tmp_path, told)
    live.mark("here", told.append)
    live.save(saved, told.append)
    with TraceFile(saved) as trace:
        assert trace.state == State.STOPPED
        assert trace.header.tsc_end
        assert [mark.name for mark in trace.marks] == ["here"]
    with TraceFile(live.trace(told.append)) as trace:
        assert trace.state == State.RECORDING
    with pytest.raises(UsageError, match="exists already"):
        live.save(saved, told.append)
    live.stop(told.append)
    live.save(tmp_path / "stopped", told.append)
    assert (tmp_path / "stopped").read_bytes() == live.trace(told.append).read_bytes()
