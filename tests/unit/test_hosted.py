"""A command line inside a debugger, with a debugger made of lists."""

from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from calltrace import commands, hosted
from calltrace.calltree import CallStat
from calltrace.commands import CallersOf, Command, Console, Request
from calltrace.errors import EngineError


class Fake:
    """A debugger that remembers what was shown, and is interrupted once `interrupt` is set."""

    name = "!calltrace"

    def __init__(self, links: bool = False) -> None:
        self.shown: list[str] = []
        self.errors: list[str] = []
        self.links = links
        self.interrupt = threading.Event()

    def show(self, text: str) -> None:
        self.shown.append(text)

    def show_functions(self, stats: Sequence[CallStat], callers: CallersOf, first_only: bool) -> None:
        raise AssertionError

    def show_note(self, line: str) -> None:
        self.shown.append(line + "\n")

    def set_breakpoint(self, address: int) -> None:
        raise AssertionError

    def set_label(self, address: int, name: str) -> None:
        raise AssertionError

    def show_error(self, line: str) -> None:
        self.errors.append(line)

    def has_links(self) -> bool:
        return self.links

    def disassembly(self, address: int) -> str:
        return f"u {address:#x}"

    def interrupted(self) -> bool:
        if not self.interrupt.is_set():
            return False
        self.interrupt.clear()
        return True


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Console], Any]], None]:
    """Puts a command `do` into the table."""

    def put(do: Callable[[Console], Any]) -> None:
        def handler(request: Request, console: Console) -> int:
            do(console)
            return 0

        monkeypatch.setattr(commands, "COMMANDS", (Command("do", "", "", (), handler),))

    return put


def test_help_has_links_where_the_debugger_shows_them() -> None:
    plain, linked = Fake(), Fake(links=True)
    hosted.run("", plain)
    hosted.run("help", linked)
    assert "\x1b" not in "".join(plain.shown)
    assert "\x1b]8;;help tree\x1b\\tree\x1b]8;;\x1b\\" in "".join(linked.shown)


def test_commands_are_called_as_the_user_calls_them_here() -> None:
    debugger = Fake()
    for line in ("help tree", "nosuch", "tree"):
        hosted.run(line, debugger)
    assert "usage: !calltrace tree" in debugger.shown[0]
    assert "example: !calltrace tree demo.calltrace" in debugger.shown[0]
    assert debugger.errors == [
        "calltrace: no command nosuch: `!calltrace help` lists them",
        "calltrace: tree: the following arguments are required: FILE; `!calltrace help tree` tells more",
    ]


def test_what_makes_a_target_of_its_own_is_left_to_the_shell() -> None:
    debugger = Fake()
    hosted.run("", debugger)
    assert " run " not in "".join(debugger.shown)
    hosted.run("run -- x.exe", debugger)
    hosted.run("attach 4711", debugger)
    assert debugger.errors == [
        "calltrace: run makes a target of its own: use it in a shell",
        "calltrace: attach makes a target of its own: use it in a shell",
    ]


def test_what_anyone_prints_is_shown_in_order(verb: Callable[[Callable[[Console], Any]], None]) -> None:
    def do(console: Console) -> None:
        print("one")
        console.out.write("two\n")
        console.progress("three")
        print("four", file=sys.stderr)
        raise EngineError("five")

    verb(do)
    debugger = Fake()
    before = sys.stdout
    hosted.run("do", debugger)
    assert sys.stdout is before
    assert debugger.shown == ["one\ntwo\n", "calltrace: three\n", "four\n"]  # progress does not wait
    assert debugger.errors == ["calltrace: five"]


def test_long_output_is_shown_as_it_comes(verb: Callable[[Callable[[Console], Any]], None]) -> None:
    verb(lambda console: [console.out.write("x" * 99 + "\n") for _ in range(1000)])
    debugger = Fake()
    hosted.run("do", debugger)
    assert len(debugger.shown) > 5
    assert "".join(debugger.shown) == ("x" * 99 + "\n") * 1000


@pytest.mark.parametrize("error", [RuntimeError("broken\nin two"), SystemExit(3), MemoryError()])
def test_nothing_that_goes_wrong_leaves_a_command(
    verb: Callable[[Callable[[Console], Any]], None], error: BaseException
) -> None:
    def do(console: Console) -> None:
        raise error

    verb(do)
    debugger = Fake()
    hosted.run("do", debugger)
    [line] = debugger.errors
    assert line.startswith(f"calltrace: internal error: {type(error).__name__}: ")
    assert "test_hosted.py:" in line
    assert "\n" not in line


def test_a_missing_package_is_told_with_the_way_out(
    verb: Callable[[Callable[[Console], Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, *rest: Any) -> Any:
        if name == "pefile":
            raise ModuleNotFoundError("No module named 'pefile'", name="pefile")
        return genuine(name, *rest)

    genuine = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", refuse)
    verb(lambda console: __import__("pefile"))
    debugger = Fake()
    hosted.run("do", debugger)
    [line] = debugger.errors
    assert "No module named 'pefile'" in line
    assert sys.prefix in line
    assert "pip install" in line


def test_an_interrupt_ends_a_command(verb: Callable[[Callable[[Console], Any]], None]) -> None:
    debugger = Fake()

    def do(console: Console) -> None:
        console.out.write("begun")
        debugger.interrupt.set()
        while True:
            pass

    verb(do)
    hosted.run("do", debugger)
    assert debugger.shown == ["begun\n"]
    assert debugger.errors == ["calltrace: interrupted"]


def test_an_interrupt_from_before_the_command_is_not_for_it(
    verb: Callable[[Callable[[Console], Any]], None],
) -> None:
    debugger = Fake()
    debugger.interrupt.set()
    passes = threading.Event()
    # Longer than several looks for an interrupt take.
    verb(lambda console: [passes.wait(0.02) for _ in range(20)])
    hosted.run("do", debugger)
    assert debugger.errors == []


def test_an_interrupt_is_held_where_a_command_must_not_be_cut(
    verb: Callable[[Callable[[Console], Any]], None],
) -> None:
    debugger = Fake()
    steps = []

    def do(console: Console) -> None:
        with hosted.interrupts_held():
            debugger.interrupt.set()
            while debugger.interrupt.is_set():  # until it was seen
                pass
            for _ in range(1000):
                steps.append("held")
        while True:
            pass

    verb(do)
    hosted.run("do", debugger)
    assert steps == ["held"] * 1000
    assert debugger.errors == ["calltrace: interrupted"]
    with hosted.interrupts_held():
        pass


def test_no_thread_is_left_of_a_command(verb: Callable[[Callable[[Console], Any]], None]) -> None:
    before = threading.active_count()
    verb(lambda console: None)
    for _ in range(20):
        hosted.run("do", Fake())
        assert threading.active_count() == before
