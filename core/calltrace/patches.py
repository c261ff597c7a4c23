"""Changing many places of a module's code at once, and back: fast, checked, and all or nothing."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence

from calltrace.errors import EngineError
from calltrace.ports import Memory, TargetModule

Patch = tuple[int, bytes, bytes]  # RVA, original bytes, new bytes of the same length

_GAP = 0x10000  # untouched bytes between patches that are still moved in one go


def write_patches(memory: Memory, module: TargetModule, patches: Sequence[Patch]) -> None:
    """Replace original by new bytes everywhere, or nowhere if one place cannot be written.

    EngineError, before anything is written, if a place does not hold its original bytes.
    """
    changes = []
    for run in _runs(patches):
        start = run[0][0]
        old = memory.read(module.base + start, _end(run[-1]) - start)
        new = bytearray(old)
        for rva, original, replacement in run:
            place = slice(rva - start, rva - start + len(original))
            if new[place] != original:
                raise EngineError(
                    f"{module.name}+{rva:#x} holds {new[place].hex(' ')} instead of {original.hex(' ')}: "
                    "something else changes this code"
                )
            new[place] = replacement
        changes.append((module.base + start, old, bytes(new)))
    written = []
    try:
        for address, old, new_bytes in changes:
            written.append((address, old))
            memory.write(address, new_bytes)
    except BaseException:
        for address, old in written:
            memory.write(address, old)
        raise


def restore(memory: Memory, module: TargetModule, patches: Sequence[Patch]) -> int:
    """Put original bytes back wherever the new ones still stand; the number of places that hold neither."""
    foreign = 0
    for run in _runs(patches):
        start = run[0][0]
        old = memory.read(module.base + start, _end(run[-1]) - start)
        new = bytearray(old)
        for rva, original, replacement in run:
            place = slice(rva - start, rva - start + len(replacement))
            if new[place] == replacement:
                new[place] = original
            elif new[place] != original:
                foreign += 1
        if new != old:
            memory.write(module.base + start, bytes(new))
    return foreign


def around_threads(
    patches: Sequence[Patch], standing: Mapping[int, int], map_address: Callable[[int], int | None]
) -> tuple[list[Patch], dict[int, int]]:
    """What can be patched while threads stand in the module, and which threads must move.

    `standing` has each thread's RVA. A thread behind the first byte of a patch moves to the VA that
    `map_address` knows for its RVA; where it knows none, the patch is given up. Returns the patches to write
    and {thread: VA}.
    """
    kept = sorted(patches)
    starts = [rva for rva, _, _ in kept]
    moves: dict[int, int] = {}
    given_up = set()
    for thread, rva in standing.items():
        index = bisect.bisect_left(starts, rva) - 1  # the last patch that starts before the thread
        if index < 0 or rva >= _end(kept[index]):
            continue
        address = map_address(rva)
        if address is None:
            given_up.add(index)
        else:
            moves[thread] = address
    if given_up:
        kept = [patch for index, patch in enumerate(kept) if index not in given_up]
    return kept, moves


def _end(patch: Patch) -> int:
    return patch[0] + len(patch[1])


def _runs(patches: Sequence[Patch]) -> Iterator[list[Patch]]:
    """The patches in order, cut where too much lies between them."""
    run: list[Patch] = []
    for patch in sorted(patches):
        if run and patch[0] - _end(run[-1]) > _GAP:
            yield run
            run = []
        run.append(patch)
    if run:
        yield run
