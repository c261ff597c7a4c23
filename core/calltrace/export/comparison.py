"""What `calltrace diff` and `calltrace new` say.

The object that ``--json`` prints has these keys; they stay as they are, further ones may come:

- ``parts``: each ``text`` (as its user wrote it), ``file``, ``functions`` (how many different ones, imports
  among them; with ``--edges`` calls by different callers) and ``calls``
- ``notes``: lines of text: what the numbers do not mean
- ``found``: of a comparison what is in one part only, or another number of times; of an expression what is
  in the set. Each ``name``, ``address`` (VA in the trace that has it) and ``rva``, hexadecimal or null,
  ``calls``: one number for each part, and ``untraced``: for each part whether its trace would not show it if
  it ran. With ``--edges`` also ``caller``, and ``tail`` (whether it is a jump that leads to it, not a call)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, TextIO

from calltrace.comparison import Counts, Item, Key
from calltrace.export import units
from calltrace.export.units import NameText

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def is_different(counts: Counts, key: Key) -> bool:
    """Whether something was called another number of times in the second of two parts."""
    first, second = (calls.get(key, 0) for calls in counts.calls)
    if any(counts.first_only):
        return bool(first) != bool(second)
    return first != second


def write_difference(counts: Counts, limit: int, out: TextIO, names: NameText) -> bool:
    """Write what is in one of two parts only, and what is in both but not alike. False if there is nothing.

    Of each of the three up to `limit` lines; 0: all.
    """
    _write_parts(counts, out)
    first, second = counts.ran()
    groups = (
        ("only in A", [key for key in counts.items if key in first and key not in second]),
        ("only in B", [key for key in counts.items if key in second and key not in first]),
        ("in both, another number of times", _by_difference(counts, first & second)),
    )
    for title, keys in groups:
        out.write(f"\n{title}: {_count(counts, keys)}\n")
        if keys:
            columns = [number for number in (0, 1) if any(key in counts.calls[number] for key in keys)]
            _write_items(counts, keys, columns, limit, out, names)
    return any(keys for _, keys in groups)


def write_set(counts: Counts, keys: set[Key], limit: int, out: TextIO, names: NameText) -> None:
    """Write the members of a set, in the order in which they were first called, thread by thread."""
    _write_parts(counts, out)
    ordered = [key for key in counts.items if key in keys]
    columns = [number for number, calls in enumerate(counts.calls) if any(key in calls for key in ordered)]
    out.write(f"\n{_count(counts, ordered)}\n")
    if ordered:
        _write_items(counts, ordered, columns, limit, out, names)


def _write_parts(counts: Counts, out: TextIO) -> None:
    for letter, part, calls in zip(_LETTERS, counts.parts, counts.calls):
        told = f"{_count(counts, calls)}, {units.count(sum(calls.values()), 'call')}"
        out.write(f"{letter}  {part.text or '.'}: {told}\n")


def _count(counts: Counts, found: Sized) -> str:
    return units.count(len(found), "edge" if counts.callers else "function") if found else "nothing"


def _by_difference(counts: Counts, keys: set[Key]) -> list[Key]:
    first, second = counts.calls
    found = [key for key in counts.items if key in keys and is_different(counts, key)]
    return sorted(found, key=lambda key: -abs(first[key] - second[key]))


def _write_items(
    counts: Counts, keys: Sequence[Key], columns: Sequence[int], limit: int, out: TextIO, names: NameText
) -> None:
    what = "caller → function" if counts.callers else "function"
    out.write("".join(f"{_LETTERS[number]:>14}" for number in columns) + f"  {what}\n")
    shown = keys[:limit] if limit else keys
    for key in shown:
        row = "".join(f"{counts.calls[number].get(key, 0):>14,}" for number in columns)
        out.write(f"{row}  {'  '.join([_text(counts.items[key], names), *_notes(counts, key)])}\n")
    if len(shown) < len(keys):
        out.write(f"{len(keys) - len(shown):,} more: --limit 0 shows all\n")


def _notes(counts: Counts, key: Key) -> Iterator[str]:
    for letter, calls, untraced in zip(_LETTERS, counts.calls, counts.untraced):
        if key in untraced:
            yield f"in {letter} only calls by traced code" if key in calls else f"not traced in {letter}"


def _text(item: Item, names: NameText) -> str:
    name = names(item.name, item.address)
    if item.caller is None:
        return name
    return f"{names(item.caller, None)} → {name}{'  by a tail jump' if item.tail else ''}"


def write_json(counts: Counts, files: Sequence[str], keys: Iterable[Key], out: TextIO) -> None:
    """Write the same as JSON: the items of `keys`, in the order in which they were first called."""
    chosen = set(keys)
    told = {
        "parts": [
            {"text": part.text, "file": file, "functions": len(calls), "calls": sum(calls.values())}
            for part, file, calls in zip(counts.parts, files, counts.calls)
        ],
        "notes": list(counts.notes),
        "found": [_told(counts, key) for key in counts.items if key in chosen],
    }
    json.dump(told, out, indent=2, ensure_ascii=False)
    out.write("\n")


def _told(counts: Counts, key: Key) -> dict[str, Any]:
    item = counts.items[key]
    return {
        "name": item.name,
        "address": None if item.address is None else f"{item.address:#x}",
        "rva": None if item.rva is None else f"{item.rva:#x}",
        "calls": [calls.get(key, 0) for calls in counts.calls],
        "untraced": [key in keys for keys in counts.untraced],
        **({"caller": item.caller, "tail": item.tail} if counts.callers else {}),
    }
