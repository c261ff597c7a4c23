"""The debugger's own stack walk through copies: what it shows untraced is what it must show traced."""

from __future__ import annotations

import fcntl
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from rig import corpus, targets, windbg

SOURCE = Path(__file__).with_name("walk.c")
FLAGS = (
    "-O1 -g -gcodeview -fno-inline -fms-extensions -fno-optimize-sibling-calls -mno-stack-arg-probe "
    "-D__USE_MINGW_ANSI_STDIO=0 -Wall -Wextra -Werror"
)
START, STOP = "!calltrace start -o walk.calltrace", "!calltrace stop"
UNTRACED = "bp kernel32!MulDiv"  # where walk.c stops, in a function that is not traced
FRAME = re.compile(r"^(?:\d\d )?([0-9a-f]{8}`[0-9a-f]{8}) ([0-9a-f]{8}`[0-9a-f]{8}) (.*)$", re.MULTILINE)
THREAD = re.compile(r"^[.#]? *\d+ +Id: .*$", re.MULTILINE)
STEPS = 260  # of a traced thread: more than `walk!middle` takes to call and to be called
STEPS_UNTRACED = 40


@dataclass(frozen=True)
class Frame:
    """A line of `k`."""

    above: int  # its stack pointer, counted from the innermost frame's
    returns_to: str
    name: str


def build(database: bool) -> Path:
    """tests/windbg/walk.c with a program database beside it, or without one and thus without names."""
    folder = targets.BUILT / ("walk" if database else "bare")
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "walk.exe"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.is_file() or program.stat().st_mtime < SOURCE.stat().st_mtime:
            gcc = ["x86_64-w64-mingw32-gcc-posix", "-print-libgcc-file-name"]
            libraries = Path(subprocess.run(gcc, capture_output=True, text=True, check=True).stdout).parent
            linking = ["-fuse-ld=lld-14", f"-L{libraries}"]
            linking.append(f"-Wl,--pdb={folder / 'walk.pdb'}" if database else "-Wl,--strip-all")
            command = ["clang-14", "--target=x86_64-w64-mingw32", *FLAGS.split(), str(SOURCE), *linking]
            done = subprocess.run([*command, "-o", str(program)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    return program


def type_in(tmp_path: Path, program: Sequence[str | Path], *script: str) -> windbg.Transcript:
    return windbg.run([windbg.LOAD, *script], program, cwd=tmp_path)


def stacks(transcript: windbg.Transcript, command: str) -> list[list[Frame]]:
    """What each `command` of the script printed."""
    return [frames(said) for given, said in transcript.commands if given == command]


def frames(said: str) -> list[Frame]:
    found = FRAME.findall(said)
    addresses = [int(pointer.replace("`", ""), 16) for pointer, _, _ in found]
    return [
        Frame(address - addresses[0], returns_to, name)
        for address, (_, returns_to, name) in zip(addresses, found)
    ]


def shown(stack: Sequence[Frame]) -> list[tuple[int, str]]:
    return [(frame.above, frame.name) for frame in stack]


def assert_same(traced: Sequence[list[Frame]], untraced: Sequence[list[Frame]], through: int) -> None:
    """Equal stacks, at least `through` of whose frames return into copies in the traced program."""
    assert [shown(stack) for stack in traced] == [shown(stack) for stack in untraced]
    pairs = [pair for ours, theirs in zip(traced, untraced) for pair in zip(ours, theirs)]
    assert sum(ours.returns_to != theirs.returns_to for ours, theirs in pairs) >= through


@pytest.mark.parametrize(
    ("what", "stops", "through"),
    [("calls", 1, 5), ("deep", 1, 62), ("callback", 1, 4), ("exception", 4, 18)],
)
def test_k_below_traced_frames_is_that_of_the_untraced_program(
    tmp_path: Path, what: str, stops: int, through: int
) -> None:
    script = [UNTRACED, *["g", "k 100"] * stops, "g"]
    untraced = type_in(tmp_path, [build(True), what], *script)
    traced = type_in(tmp_path, [build(True), what], START, *script)
    expected = stacks(untraced, "k 100")
    assert len(expected) == stops
    assert all(any(frame.name.startswith("walk!main+") for frame in stack) for stack in expected)
    assert_same(stacks(traced, "k 100"), expected, through)
    assert (traced.stdout, traced.has_target) == (untraced.stdout, False)


def test_k_while_frames_are_unwound_and_in_a_catch_block(tmp_path: Path) -> None:
    program, script = targets.build("walk_catches"), [UNTRACED, "g", "k", "g", "k", "g"]
    untraced = stacks(type_in(tmp_path, [program], *script), "k")
    traced = stacks(type_in(tmp_path, [program], START, *script), "k")
    names = [[frame.name.partition("!")[2].partition("+")[0] for frame in stack] for stack in untraced]
    assert names[0][:2] == ["MulDiv", "stop"]
    assert names[0][3:6] == ["thrower", "catcher", "caller"]
    assert names[1][:4] == ["MulDiv", "stop", "catcher", "caller"]
    assert_same([with_names(stack) for stack in traced], [with_names(stack) for stack in untraced], 9)


def with_names(stack: Sequence[Frame]) -> list[Frame]:
    """Without frames outside exported functions: see the test of programs without names."""
    return [frame for frame in stack if "!" in frame.name and "!+" not in frame.name]


def test_frames_of_a_program_without_names(tmp_path: Path) -> None:
    script = [UNTRACED, "g", "k"]
    [untraced] = stacks(type_in(tmp_path, [build(False), "calls"], *script), "k")
    [traced] = stacks(type_in(tmp_path, [build(False), "calls"], START, *script), "k")
    assert sum(frame.name.startswith("walk+0x") for frame in untraced) >= 6
    # The engine puts a ! before every symbol, and cannot be told an offset without one.
    assert [name.replace("walk!+0x", "walk+0x") for _, name in shown(traced)] == [
        name for _, name in shown(untraced)
    ]


def test_every_thread_s_stack(tmp_path: Path) -> None:
    script = [UNTRACED, "g", "~*k 40"]
    untraced = by_thread(type_in(tmp_path, [build(True), "threads"], *script).said("~*k 40"))
    traced = by_thread(type_in(tmp_path, [build(True), "threads"], START, *script).said("~*k 40"))
    ours = [stack for stack in traced if not any(frame.name.startswith("calltrace!") for frame in stack)]
    assert len(untraced) == 4
    assert [sum(frame.name.startswith("walk!waits+") for frame in stack) for stack in untraced] == [
        0,
        3,
        5,
        7,
    ]
    assert_same(ours, untraced, 4 + 3 + 5 + 7)


def by_thread(said: str) -> list[list[Frame]]:
    return [frames(part) for part in THREAD.split(said)[1:]]


def test_k_after_every_step_through_copies(tmp_path: Path) -> None:
    def steps(count: int) -> list[str]:
        return ["bp walk!middle", "g", *["k 20", "t"] * count]

    program = [build(True), "calls"]
    untraced = stacks(type_in(tmp_path, program, *steps(STEPS_UNTRACED)), "k 20")
    traced = stacks(type_in(tmp_path, program, START, *steps(STEPS)), "k 20")
    expected = {stack[0].name: [shown(stack)] for stack in untraced}
    for stack in untraced:  # a place may be come to with different stacks
        expected[stack[0].name].append(shown(stack))
    seen = set()
    for stack in traced:
        name = stack[0].name
        if name in expected:
            assert shown(stack) in expected[name]
            seen.add(name)
    steps_in = [name for name in expected if re.match(r"walk!(middle|leaf|inner)\b", name)]
    assert {name.partition("+")[0] for name in steps_in} == {"walk!middle", "walk!leaf", "walk!inner"}
    assert len(steps_in) > 15
    assert seen >= set(steps_in)


def test_variables_of_a_frame(tmp_path: Path) -> None:
    script = [UNTRACED, "g"]
    for number in (2, 3, 4, 5, 1):
        script += [f".frame {number}", "dv"]
    script += ["gu", "gu", "dv", "r rip"]
    untraced = type_in(tmp_path, [build(True), "calls"], *script)
    traced = type_in(tmp_path, [build(True), "calls"], START, *script)

    def told(transcript: windbg.Transcript) -> list[object]:
        return [
            shown(frames(said)) if given.startswith(".frame") else said
            for given, said in transcript.commands
            if given.startswith((".frame", "dv"))
        ]

    assert 'text = char [64] "word 17"' in untraced.commands[-2][1]
    assert "local = 0n15" in str(told(untraced))
    assert told(traced) == told(untraced)
    assert traced.said("r rip") != untraced.said("r rip")  # `dv` was asked for in a copy, too


def test_names_mean_the_originals_alone(tmp_path: Path) -> None:
    asked = ["x walk!*", "bp walk!leaf", "? walk!inner", "bm walk!mid*", "bl", "ln walk!deep", "lm m msvcrt"]
    script = [UNTRACED, "g", "k", "bc *", *asked]
    untraced = type_in(tmp_path, [build(True), "calls"], *script)
    traced = type_in(tmp_path, [build(True), "calls"], START, *script)
    for command in asked:
        assert traced.said(command) == untraced.said(command), command
    assert "walk!leaf" in untraced.said("x walk!*")


@pytest.mark.parametrize("reload", [".reload", ".reload /f walk.exe", ".sympath+ c:\\windows", ".lines"])
def test_names_outlive_what_the_user_does_to_symbols(tmp_path: Path, reload: str) -> None:
    script = [UNTRACED, "g", reload, "k", "? walk!leaf", "bc *", "lm m walk", "~0s", "k 3"]
    untraced = type_in(tmp_path, [build(True), "calls"], *script)
    traced = type_in(tmp_path, [build(True), "calls"], START, *script)
    assert_same(stacks(traced, "k"), stacks(untraced, "k"), 5)
    assert_same(stacks(traced, "k 3"), stacks(untraced, "k 3"), 2)
    found = untraced.said("? walk!leaf").splitlines()[-1]
    assert found.startswith("Evaluate expression")
    assert found in traced.said("? walk!leaf").splitlines()


def test_modules_of_copies_are_gone_when_they_are(tmp_path: Path) -> None:
    script = ["lm", START, "lm m walk", STOP, "lm m walk", "ln walk!leaf", "g"]
    transcript = type_in(tmp_path, [build(True), "calls"], *script)
    during, after = (said for given, said in transcript.commands if given == "lm m walk")
    assert len(re.findall("calltrace's copies", during)) == 1
    assert "calltrace" not in after
    assert len(after.strip().splitlines()) == 2


def test_k_after_stop_with_frames_still_in_copies(tmp_path: Path) -> None:
    script = [UNTRACED, "g", "k", STOP, "k 50", ".reload", "k 60", "gu", "gu", "k 70", "g"]
    untraced = [command for command in script if command != STOP]
    expected = type_in(tmp_path, [build(True), "calls"], *untraced)
    stopped = type_in(tmp_path, [build(True), "calls"], START, *script)
    for command in ("k", "k 50", "k 60", "k 70"):
        assert_same(stacks(stopped, command), stacks(expected, command), 3)
    assert (stopped.stdout, stopped.has_target) == (expected.stdout, False)


def test_k_in_cmake(tmp_path: Path) -> None:
    (tmp_path / "write.cmake").write_text(
        "foreach(i RANGE 3)\n  file(WRITE written.txt ${i})\nendforeach()\n"
    )
    program, script = [corpus.program("cmake"), "-P", "write.cmake"], ["bp kernelbase!WriteFile", "g", "k 60"]
    untraced = stacks(type_in(tmp_path, program, *script), "k 60")
    traced = stacks(type_in(tmp_path, program, START, *script), "k 60")
    assert_same(traced, untraced, 25)
    assert untraced[0][-1].name.startswith("ntdll!RtlUserThreadStart")


def test_names_of_copies_after_the_extension_was_unloaded_and_loaded_again(tmp_path: Path) -> None:
    script = [UNTRACED, "g", "k", "g"]
    untraced = stacks(type_in(tmp_path, [build(True), "calls"], *script), "k")
    again = [START, ".unload calltrace_windbg", windbg.LOAD, "!calltrace status", *script]
    assert_same(stacks(type_in(tmp_path, [build(True), "calls"], *again), "k"), untraced, 5)
