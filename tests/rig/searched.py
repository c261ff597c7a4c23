"""Runs of `calltrace loop`, and what the linker says of their programs."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pefile

from rig import display, targets, windows
from rig.tracing import calltrace

PRESENT, DRAW = "IDXGISwapChain::Present", "ID3D11DeviceContext::Draw"
FRAMES = "14"


class Searched:
    """A run of `calltrace loop`: what it found, and what the program said."""

    def __init__(
        self,
        api: str,
        program: Path,
        *arguments: str,
        options: Sequence[str],
        env: Mapping[str, str] | None,
    ) -> None:
        output = (
            program.parent
            / f"{program.stem}.{'.'.join(each.rpartition(chr(92))[2] for each in arguments)}.json"
        )
        output.unlink(missing_ok=True)
        done = calltrace("loop", api, "--json", "-o", output, *options, "--", program, *arguments, env=env)
        self.exit_code, self.said, self.told = done.returncode, done.stdout, done.stderr.decode()
        self.found: Any = json.loads(output.read_text()) if output.exists() else None

    @property
    def methods(self) -> list[dict[str, Any]]:
        return list(self.found["methods"])


def search(
    api: str, program: str, *arguments: str, options: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Searched:
    both = () if "--method" in options else ("--method", "both")
    return Searched(
        api if "!" in api or "::" in api else f"{program}!{api}",
        targets.build(program),
        *arguments,
        options=(*both, *options),
        env=env,
    )


def plain(program: str, *arguments: str, env: Mapping[str, str] | None = None) -> bytes:
    return windows.run([targets.build(program), *arguments], env=env).stdout


@dataclass(frozen=True)
class Renderer:
    """A program that draws in a loop; its source says which function owns it, and which makes a frame."""

    owner: str
    frame: str | None  # None: there is none
    arguments: tuple[str, ...] = ()  # before the number of frames
    program: str = "loop_d3d11"
    module: str = ""  # that has the loop, if not the program itself
    api: str = PRESENT
    bare: bool = False  # does it come without its symbols?

    @property
    def file(self) -> Path:
        """The program."""
        built = targets.build(self.program)
        return targets.stripped(built) if self.bare else built

    @property
    def command(self) -> list[Path | str]:
        """With its arguments."""
        library = [windows.path(targets.build(self.module))] if self.module else []
        return [self.file, *library, *self.arguments, FRAMES]

    def counter(self) -> str:
        """Where it counts its frames, as a debugger's command takes it."""
        module = self.module or self.program
        return f"{module}+{symbols(module)['frames']:#x}"

    def plain(self) -> bytes:
        """What it says untraced."""
        return _said(self)


@functools.cache
def _said(renderer: Renderer) -> bytes:
    return windows.run(renderer.command, env=display.environment()).stdout


RENDERERS = {
    "main": Renderer("render_loop", "frame", ("main",)),
    "thread": Renderer("render_loop", "frame", ("thread",)),
    "jobs": Renderer("render_loop", "frame", ("jobs",)),
    "tail": Renderer("tail_loop", "tail_frame", ("tail",)),
    "apart": Renderer("apart_loop", None, ("apart",)),
    "release": Renderer("render_loop", "frame", ("main",), "loop_release", bare=True),
    "library": Renderer("render_loop", "frame", ("main",), "loop_game", "loop_engine"),
    "opengl": Renderer("draw_loop", "draw_frame", (), "loop_opengl", api="gdi32!SwapBuffers"),
}


# What tests/targets/loop_shapes.c states: the API, the loop's owner, the frame function.
SHAPES = {
    "tail": ("api", "tail_owner", "tail_frame"),
    "pointer": ("api", "pointer_owner", "pointer_frame"),
    "recursive": ("api", "recursive_owner", "dive"),
    "late": ("api", "late_owner", "step"),
    "reentrant": ("calls_back", "reentrant_owner", "reenter"),
}


@functools.cache
def symbols(program: str) -> dict[str, int]:
    """What a program or library has of names, RVAs, as the linker's own tool reads them."""
    base = pefile.PE(str(targets.build(program)), fast_load=True).OPTIONAL_HEADER.ImageBase
    return {symbol: address - base for symbol, address in targets.symbols(program).items()}


def name(place: dict[str, Any] | None) -> str | None:
    """The function that begins there: by the linker, if it is in a program of ours, else as it was told."""
    if place is None:
        return None
    module, _, rva = place["place"].partition("+")
    told: str = place["name"].partition("!")[2]
    if not any(module == source.stem for source in targets.SOURCES.iterdir()):
        return told
    begins = symbols(module).items()
    names = [known for known, at in begins if at == int(rva, 16) and not known.startswith(".")]
    assert told in names or not told, place
    return told or next(iter(names), None)


def tree(levels: list[dict[str, Any]]) -> list[Any]:
    """Names, calls per turn, hits per turn and what is below, of each level; loops that ran n turns."""
    return [
        (
            name(level["function"]),
            level["calls"] / level["turns"],
            level["hits"] / level["turns"],
            tree(level["below"]),
        )
        for level in levels
    ]


def assert_loop(method: dict[str, Any], owner: str, frame: str | None, program: str) -> Any:
    """The one loop of a method, which is that of `owner` with the frame function `frame`, in `program`."""
    [loop] = method["loops"]
    assert name(loop["owner"]) == owner, method
    assert loop["owner"]["place"] == f"{program}+{symbols(program)[owner]:#x}"
    assert name(loop["frame_function"]) == frame, method
    [[back, header], *_] = loop["back_edges"]
    assert loop["owner"]["address"] <= header["address"] <= loop["site"]["address"] < back["address"]
    return loop


def passes(levels: list[dict[str, Any]]) -> dict[str | None, float]:
    """Hits per turn of each function that draws by itself."""
    found: dict[str | None, float] = {}
    for level in levels:
        if any(not below["below"] for below in level["below"]):
            found[name(level["function"])] = level["hits"] / level["turns"]
        found.update(passes(level["below"]))
    return found
