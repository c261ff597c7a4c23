"""Pausing a recording of another process: what is said if that does not do it."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import pytest

from calltrace import pausing
from calltrace.errors import BadTrace, EngineError, UsageError
from calltrace.model import Pause, State
from calltrace.recorder import TraceFile
from rig import tracewriter
from rig.tracewriter import TraceWriter


def under_way(path: Path, pause: Pause) -> Path:
    return TraceWriter(4, state=tracewriter.RECORDING, pause=pause).write(path)


def state_of(path: Path) -> int:
    file = TraceFile.join(path)
    try:
        return int(file.header.pause)
    finally:
        file.close()


@pytest.mark.parametrize("pause", [Pause.NONE, Pause.PAUSED])
def test_a_recorder_that_does_not_answer_is_told_and_not_asked_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause: Pause
) -> None:
    monkeypatch.setattr(pausing, "_SECONDS", 0.05)
    path = under_way(tmp_path / "t", pause)
    with pytest.raises(EngineError, match="nobody answers: a debugger records it"):
        (pausing.resume if pause is Pause.PAUSED else pausing.pause)(path)
    assert state_of(path) == pause


@pytest.mark.parametrize(
    ("answer", "end", "error"),
    [(Pause.NONE, False, EngineError), (Pause.WANTED, True, UsageError), (Pause.PAUSED, False, None)],
)
def test_the_answer_is_waited_for(
    tmp_path: Path, answer: Pause, end: bool, error: type[Exception] | None
) -> None:
    path = under_way(tmp_path / "t", Pause.NONE)

    def answering() -> None:
        file = TraceFile.join(path)
        while file.header.pause != Pause.WANTED:
            pass
        if end:
            file.header.state = State.EXITED
        file.header.pause = answer
        file.close()

    other = Thread(target=answering)
    other.start()
    try:
        if error:
            with pytest.raises(error):
                pausing.pause(path)
        else:
            pausing.pause(path)
    finally:
        other.join()


def test_what_is_no_recording_is_told(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"x" * 5000)
    with pytest.raises(BadTrace, match="is not a calltrace trace"):
        pausing.pause(foreign)
    assert foreign.read_bytes() == b"x" * 5000
