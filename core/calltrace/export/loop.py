"""What the loop tracer found, as text for a reader and as JSON for a program."""

from __future__ import annotations

import json
from typing import Any, TextIO

from calltrace.export.units import count
from calltrace.loop.places import Places
from calltrace.loop.result import Candidate, Found, Level, Loop
from calltrace.loop.tracing import Climb
from calltrace.loop.watch import Outcome

_METHODS = {"unwind": "by unwinding", "returns": "by returns"}
_FRAME = "  <- frame function"


def write_loop(climb: Climb, out: TextIO) -> None:
    """Write it as text."""
    out.write(f"{climb.api}: {summary(climb)}\n")
    for found in climb.found:
        for loop in found.loops:
            _write_loop(climb, found, loop, out)
        for thread, chain in found.chains.items():
            out.write(f"{_METHODS[found.method]}, thread {thread}: not seen in a loop\n")
            for site, function in chain:
                out.write(f"  called by {climb.places.name(function)} at {_site(climb.places, site)}\n")
        for note in found.notes:
            out.write(f"{_METHODS[found.method]}: {note}\n")
    for difference in climb.differences:
        out.write(f"the methods differ: {difference}\n")


def summary(climb: Climb) -> str:
    """How it went, in one line."""
    if not climb.address:
        return "its module was not loaded" + _until(climb)
    hits = max((found.hits for found in climb.found), default=0)
    if not hits:
        return "not called" + _until(climb)
    told = f"{count(hits, 'hit')} in {climb.seconds:.1f} s"
    if any(found.loops for found in climb.found):
        return told
    return told + "; no loop has come round" + _until(climb)


def _until(climb: Climb) -> str:
    if climb.outcome is Outcome.ENDED:
        return " before the program ended"
    return f" within {climb.seconds:.1f} s"


def _write_loop(climb: Climb, found: Found, loop: Loop, out: TextIO) -> None:
    places = climb.places
    out.write(f"{_METHODS[found.method]}, thread {loop.thread}: {count(loop.turns, 'whole turn')}\n")
    edges = ", ".join(
        f"{places.place(source)} -> {places.place(target)}" for source, target in loop.back_edges
    )
    closed = f", closed by {edges}" if edges else ", by what jump was not seen"
    out.write(f"  loop of {places.name(loop.function)}{closed}\n")
    frame = next((each for each in loop.candidates if each.chosen), None)
    for level in loop.levels:
        _write_level(places, level, loop, frame, 2, out)
    for site, function in loop.outer:
        out.write(f"  called by {places.name(function)} at {_site(places, site)}\n")
    for function in loop.outer_loops:
        out.write(f"  inside a loop of {places.name(function)}\n")
    for function, times in loop.inner.items():
        out.write(f"  has a loop inside: {places.name(function)}, run {count(times, 'time')}\n")
    if loop.candidates:
        out.write("  calls of one turn:\n")
        for each in loop.candidates:
            name = _called(places, each.function, each.entered)
            out.write(f"    {_site(places, each.site)}  {name}: {each.why}{_FRAME * each.chosen}\n")


def _write_level(
    places: Places, level: Level, loop: Loop, frame: Candidate | None, depth: int, out: TextIO
) -> None:
    share = len(level.turns) / loop.turns if loop.turns else 0
    name = _called(places, level.function, level.entered)
    chosen = depth == 2 and frame is not None and frame.site == level.site
    out.write(
        f"{'  ' * depth}{_site(places, level.site)}  {name}  {_per_turn(level.calls, loop)} calls, "
        f"{_per_turn(level.hits, loop)} hits per turn, in {share:.0%} of turns{_FRAME * chosen}\n"
    )
    for below in level.below:
        _write_level(places, below, loop, frame, depth + 1, out)


def _per_turn(number: int, loop: Loop) -> str:
    return f"{number / loop.turns:.3g}" if loop.turns else "?"


def _called(places: Places, function: int, entered: int) -> str:
    if not function:
        return "?"
    return f"{places.name(entered)} tail -> {places.name(function)}" if entered else places.name(function)


def _site(places: Places, site: int) -> str:
    return places.place(site) if site else "jump"


def write_loop_json(climb: Climb, out: TextIO) -> None:
    """Write all of it as one JSON object; addresses are numbers, VAs, with their places beside them."""
    places = climb.places
    data = {
        "api": climb.api,
        "address": climb.address,
        "outcome": climb.outcome.name.lower(),
        "summary": summary(climb),
        "seconds": climb.seconds,
        "differences": climb.differences,
        "methods": [
            {
                "method": found.method,
                "hits": found.hits,
                "notes": found.notes,
                "loops": [_loop(places, loop) for loop in found.loops],
                "chains": [
                    {
                        "thread": thread,
                        "callers": [
                            {"site": _address(places, site), "function": _function(places, function)}
                            for site, function in chain
                        ],
                    }
                    for thread, chain in found.chains.items()
                ],
            }
            for found in climb.found
        ],
    }
    json.dump(data, out, indent=1)
    out.write("\n")


def _loop(places: Places, loop: Loop) -> dict[str, Any]:
    frame = next((each for each in loop.candidates if each.chosen), None)
    return {
        "thread": loop.thread,
        "owner": _function(places, loop.function),
        "site": _address(places, loop.site),
        "turns": loop.turns,
        "hits": loop.hits,
        "back_edges": [[_address(places, end) for end in edge] for edge in loop.back_edges],
        "frame_function": _function(places, frame.entered or frame.function) if frame else None,
        "levels": [_level(places, level, loop) for level in loop.levels],
        "outer": [
            {"site": _address(places, site), "function": _function(places, function)}
            for site, function in loop.outer
        ],
        "outer_loops": [_function(places, function) for function in loop.outer_loops],
        "inner_loops": [
            {"function": _function(places, function), "times": times}
            for function, times in loop.inner.items()
        ],
        "candidates": [
            {
                "site": _address(places, each.site),
                "function": _function(places, each.function),
                "entered": _function(places, each.entered),
                "calls": each.calls,
                "hits": each.hits,
                "draws": each.draws,
                "chosen": each.chosen,
                "why": each.why,
            }
            for each in loop.candidates
        ],
    }


def _level(places: Places, level: Level, loop: Loop) -> dict[str, Any]:
    return {
        "site": _address(places, level.site),
        "function": _function(places, level.function),
        "entered": _function(places, level.entered),
        "calls": level.calls,
        "hits": level.hits,
        "turns": len(level.turns),
        "share": len(level.turns) / loop.turns if loop.turns else None,
        "below": [_level(places, below, loop) for below in level.below],
    }


def _function(places: Places, address: int) -> dict[str, Any] | None:
    return {**_address(places, address), "name": places.name(address)} if address else None


def _address(places: Places, address: int) -> dict[str, Any]:
    return {"address": address, "place": places.place(address) if address else ""}
