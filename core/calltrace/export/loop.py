"""What the loop tracer found, as text for a reader and as JSON for a program."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from calltrace.export.units import count
from calltrace.loop.result import Level, Loop
from calltrace.loop.tracing import Climb, Names
from calltrace.loop.watch import Outcome

Link = Callable[[str, int], str]

_METHODS = {"unwind": "by unwinding", "returns": "by returns", "recorded": "as recorded"}
_FRAME = "  <- frame function"


def write_loop(climb: Climb, out: TextIO, link: Link) -> None:
    """Write it as text, with each name and place as `link` makes it of its text and VA."""
    text = _Text(climb.places, out, link)
    out.write(f"{climb.api}: {summary(climb)}\n")
    for found in climb.found:
        method = _METHODS[found.method]
        for loop in found.loops:
            turns = count(loop.turns, "whole turn")
            out.write(f"{method}, thread {loop.thread}: {turns} that led to it\n")
            text.write_loop(loop)
        for thread, chain in found.chains.items():
            out.write(f"{method}, thread {thread}: not seen in a loop\n")
            text.write_callers(chain)
        for note in found.notes:
            out.write(f"{method}: {note}\n")
    for values in climb.arguments:
        out.write(f"arguments: {', '.join(f'{name} {value}' for name, value in values.items())}\n")
    for difference in climb.differences:
        out.write(f"the methods differ: {difference}\n")


def summary(climb: Climb) -> str:
    """How it went, in one line."""
    if climb.recorded:
        hits = climb.found[0].hits
        told = f"{count(hits, 'hit')} recorded"
        return told if climb.loops else told + "; no loop has come round"
    if not climb.address and climb.interface:
        return f"no {climb.interface} was made{_until(climb)}; for one made earlier name the method's address"
    if not climb.address:
        return "its module was not loaded" + _until(climb)
    hits = max((found.hits for found in climb.found), default=0)
    if not hits:
        return "not called" + _until(climb)
    told = f"{count(hits, 'hit')} in {climb.seconds:.1f} s"
    if climb.loops:
        return told
    return told + "; no loop has come round" + _until(climb)


def _until(climb: Climb) -> str:
    if climb.outcome is Outcome.ENDED:
        return " before the program ended"
    return f" within {climb.seconds:.1f} s"


class _Text:
    def __init__(self, places: Names, out: TextIO, link: Link) -> None:
        self._places, self._out, self._link = places, out, link

    def write_loop(self, loop: Loop) -> None:
        places = [f"{self._place(source)} -> {self._place(target)}" for source, target in loop.back_edges]
        closed = f", closed by {', '.join(places)}" if places else ", by what jump was not seen"
        self._out.write(f"  loop of {self._name(loop.function)}{closed}\n")
        frame = next((each.site for each in loop.candidates if each.chosen), 0)
        for level in loop.levels:
            self._write_level(level, loop, frame, 2)
        for group, levels in loop.groups.items():
            self._out.write(f"  of these with {group}:\n")
            for level in levels:
                self._write_level(level, loop, frame, 2)
        self.write_callers(loop.outer)
        for function in loop.outer_loops:
            self._out.write(f"  inside a loop of {self._name(function)}\n")
        for function, times in loop.inner.items():
            self._out.write(f"  has a loop inside: {self._name(function)}, run {count(times, 'time')}\n")
        if loop.candidates:
            self._out.write("  calls of one turn:\n")
        for each in loop.candidates:
            called = self._called(each.function, each.entered)
            self._out.write(f"    {self._place(each.site)}  {called}: {each.why}{_FRAME * each.chosen}\n")

    def write_callers(self, callers: Sequence[tuple[int, int]]) -> None:
        for site, function in callers:
            self._out.write(f"  called by {self._name(function)} at {self._place(site)}\n")

    def _write_level(self, level: Level, loop: Loop, frame: int, depth: int) -> None:
        called = self._called(level.function, level.entered)
        mark = _FRAME if depth == 2 and level.site == frame else ""
        turns = loop.turns
        told = (
            f"{level.calls / turns:.3g} calls, {level.hits / turns:.3g} hits per turn, "
            f"in {len(level.turns) / turns:.0%} of turns"
        )
        self._out.write(f"{'  ' * depth}{self._place(level.site)}  {called}  {told}{mark}\n")
        for below in level.below:
            self._write_level(below, loop, frame, depth + 1)

    def _called(self, function: int, entered: int) -> str:
        if not function:
            return "?"
        return f"{self._name(entered)} tail -> {self._name(function)}" if entered else self._name(function)

    def _name(self, function: int) -> str:
        text = self._places.name(function)
        return self._link(text, function) if function > 0 else text

    def _place(self, address: int) -> str:
        if address <= 0:
            return self._places.place(address) if address else "jump"
        return self._link(self._places.place(address), address)


def write_loop_json(climb: Climb, out: TextIO, link: Link) -> None:
    """Write all of it as one JSON object, without links; addresses are VAs, with their places beside them."""
    places = climb.places
    data = {
        "api": climb.api,
        "address": climb.address if climb.address > 0 else None,
        "outcome": climb.outcome.name.lower(),
        "summary": summary(climb),
        "seconds": climb.seconds,
        "differences": climb.differences,
        "arguments": climb.arguments,
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


def _loop(places: Names, loop: Loop) -> dict[str, Any]:
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
        "groups": [
            {"value": group, "levels": [_level(places, level, loop) for level in levels]}
            for group, levels in loop.groups.items()
        ],
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
                "draws_elsewhere": each.draws_elsewhere,
                "chosen": each.chosen,
                "why": each.why,
            }
            for each in loop.candidates
        ],
    }


def _level(places: Names, level: Level, loop: Loop) -> dict[str, Any]:
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


def _function(places: Names, address: int) -> dict[str, Any] | None:
    return {**_address(places, address), "name": places.name(address)} if address else None


def _address(places: Names, address: int) -> dict[str, Any]:
    known = address if address >= 0 else None
    return {"address": known, "place": places.place(address) if address else ""}
