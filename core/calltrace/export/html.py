"""One self-contained page about a trace, or two: `calltrace report`.

The page holds all it needs: its data as JSON, its style, and the scripts that draw it. d3 and d3-flame-graph
are those of their packages, unchanged (web/README.md). It asks for nothing from anywhere, and its content
security policy lets it run those scripts only.

What is in it does not grow with the trace: the stacks, functions, calls and threads that weigh most, with a
word about what was left out. The same trace gives the same bytes, wherever it lies.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from calltrace import comparison
from calltrace.calltree import CallStat, Summary, summarize
from calltrace.edges import NOBODY_NAME, Caller, largest_calls
from calltrace.export import report, units
from calltrace.export.comparison import is_different
from calltrace.model import NOBODY, Clock
from calltrace.parts import Part
from calltrace.profile import Cell, Limits, Profile, Stack, profile
from calltrace.tracefile import TraceFile

_WEB = Path(__file__).parent / "web"
_SCRIPTS = {"d3": "d3.min.js", "flamegraph": "d3-flamegraph.min.js", "page": "page.js"}
_LETTERS = "AB"
_EIGHTHS = 8  # that a column is filled to


class Bounds(NamedTuple):
    """How much of a trace a page shows."""

    stacks: int = 15_000
    functions: int = 20_000
    edges: int = 60_000
    threads: int = 40
    marks: int = 200
    differences: int = 10_000  # of each kind


_BOUNDS, _LIMITS = Bounds(), Limits()


def page(
    traces: Sequence[TraceFile],
    bounds: Bounds = _BOUNDS,
    limits: Limits = _LIMITS,
) -> str:
    """The page about one trace, or about two and their differences.

    Can be interrupted. Raises EngineError if memory runs out.
    """
    told: dict[str, Any] = {"traces": [], "differences": None}
    for letter, trace in zip(_LETTERS, traces):
        told["traces"].append({"letter": letter, **_Page(trace, bounds, limits).told()})
    if len(traces) > 1:
        told["differences"] = _differences(traces, bounds)
    title = " and ".join(trace.name for trace in traces)
    scripts = {name: _text(file) for name, file in _SCRIPTS.items()}
    licences = (_text(file) for file in ("d3.LICENSE", "d3-flamegraph.LICENSE"))
    places = {
        "title": html.escape(title),
        "policy": _policy(scripts.values()),
        "style": _text("page.css"),
        "licences": html.escape("\n\n".join(licences)),
        "data": _json(told),
        **scripts,
    }
    # In one go: nothing that was put in is looked at again.
    return re.sub(r"@(\w+)@", lambda place: places[place[1]], _text("page.html"))


def _text(file: str) -> str:
    return (_WEB / file).read_text(encoding="utf-8")


def _policy(scripts: Iterable[str]) -> str:
    """Nothing may be loaded, and nothing run but these scripts. d3-flame-graph adds a style sheet."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'"
    )


def _json(told: dict[str, Any]) -> str:
    """As JSON that can stand within a script element: it cannot end it, nor begin a comment."""
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    # What is no character, but half of one, UTF-8 cannot say.
    return text.encode("utf-8", "backslashreplace").decode()


class _Names:
    """Names by number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers))

    def told(self) -> list[str]:
        return list(self._numbers)


class _Page:
    """What the page says of one trace."""

    def __init__(self, trace: TraceFile, bounds: Bounds, limits: Limits) -> None:
        self._trace = trace
        self._bounds = bounds
        self._limits = limits
        self._names = _Names()
        self._timed = trace.clock is not Clock.NONE
        self._hits = trace.mode == "hits"
        self._counts_only = trace.counts_only
        self._stackless = self._hits or self._counts_only

    def told(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        trace = self._trace
        summary = summarize(trace)
        shown = self._busiest()
        span = (summary.first_time, max(summary.first_time, summary.last_time))
        found = Profile((), (), (), 1)
        if not self._counts_only:
            found = profile(trace, shown, span, not self._timed, self._limits)
        stacks, stacks_told = self._stacks(found.stacks)
        functions, functions_told, ids = self._functions(summary)
        edges, edges_told = self._edges(ids)
        return {
            "file": trace.name,
            "notes": list(self._notes()),
            "summary": list(self._summary(summary)),
            "timed": self._timed,
            "stackless": self._stackless,
            "first_only": self._hits,
            "ticks_per_second": trace.header.tsc_hz if self._timed else 0,
            "span": max(1, span[1] - span[0]),
            "columns": self._limits.columns,
            "column_ticks": found.column_ticks,
            "marks": self._marks(span[0]),
            "threads": self._threads(found, shown),
            "stacks": stacks,
            "functions": functions,
            "edges": edges,
            "nobody": NOBODY_NAME,
            "told": {
                "threads": self._threads_told(len(shown)),
                "stacks": stacks_told,
                "functions": f"{functions_told} {edges_told}".strip(),
            },
            "names": self._names.told(),
        }

    # ---- what it is ----

    def _notes(self) -> list[str]:
        trace = self._trace
        notes = [line.replace(str(trace.path), trace.name) for line in report.missing(trace)]
        if trace.under_way:
            notes.append("It was still being recorded: what came later is not here.")
        if self._hits:
            notes.append(
                "Recorded by --mode hits: only the first entry of each function. Counts of calls, callers "
                "and stacks are not known."
            )
        if self._counts_only:
            notes.append(
                "Recorded by --mode graph: counts and times only. There are no stacks and no time line."
            )
        if trace.budget:
            muted = sum(calls for _, calls in report.muted_calls(trace))
            notes.append(
                f"Recorded by --budget {trace.budget:,}: {units.count(muted, 'call')} were muted. Functions, "
                "callers and callees have all calls; time line and stacks only the others, with the time of "
                "the muted ones in their callers."
            )
        return notes

    def _summary(self, summary: Summary) -> list[tuple[str, str]]:
        trace, header = self._trace, self._trace.header
        told = report.info(trace, summary)
        rows = [("program", str(trace.info.get("command_line") or ""))]
        seconds = f", {told['seconds']:,.3f} s" if told["seconds"] is not None else ""
        rows.append(
            ("recorded", f"{told['created'] or 'at an unknown time'}{seconds}, clock {told['clock']}")
        )
        rows.append(("ended", report.ending(trace, told)))
        rows.append(("process", str(header.process_id)))
        for module in told["modules"]:
            functions = module["functions"]
            done = functions["instrumented"]
            rows.append(
                (
                    "module",
                    f"{module['name']}: {done:,} of {done + functions['refused']:,} functions traced, "
                    f"{units.count(module['named'], 'name')}",
                )
            )
        rows.append(("threads", f"{len(trace.threads):,}"))
        rows.append(("events", f"{told['events']['total']:,}"))
        rows.append(("calls", f"{sum(stat.calls for stat in summary.stats):,}"))
        if self._timed:
            rows.append(("time", units.duration(trace, summary.last_time - summary.first_time)))
        rows.append(("deepest", units.count(summary.max_depth, "frame")))
        return [(label, text) for label, text in rows if text]

    def _marks(self, first_time: int) -> list[tuple[str, int]]:
        if not self._timed:
            return []  # each thread has a position of its own
        marks = self._trace.marks[: self._bounds.marks]
        return [(mark.name, max(0, mark.tsc - first_time)) for mark in marks]

    # ---- time line ----

    def _busiest(self) -> list[int]:
        """Threads that the time line shows, by their positions."""
        threads = [] if self._counts_only else self._trace.threads
        order = sorted(range(len(threads)), key=lambda at: (-threads[at].units, at))
        return sorted(order[: self._bounds.threads])

    def _threads_told(self, shown: int) -> str:
        if self._counts_only:
            return "None: only counts and times were recorded."
        limits = self._limits
        text = (
            f"Above, calls begun in each of {limits.columns} equal parts of the time; below, the outermost "
            f"{limits.levels} levels: what filled most of each part."
            if self._timed
            else f"Above, calls begun in each of {limits.columns} equal parts of what was recorded; below, "
            f"the outermost {limits.levels} levels. Without a clock a thread's own events are its time: "
            "threads cannot be held against each other."
        )
        if shown < len(self._trace.threads):
            text += f" The {shown:,} busiest of {len(self._trace.threads):,} threads."
        return text

    def _threads(self, found: Profile, shown: Sequence[int]) -> list[dict[str, Any]]:
        activity: dict[int, list[tuple[int, int]]] = {}
        for column in found.columns:
            activity.setdefault(column.thread, []).append((column.column, column.calls))
        levels: dict[int, list[list[list[int]]]] = {}
        for cell in found.cells:
            lanes = levels.setdefault(cell.thread, [[] for _ in range(self._limits.levels)])
            self._add_cell(lanes[cell.level], cell, found.column_ticks)
        told = []
        for at in shown:
            thread = self._trace.threads[at]
            lanes = levels.get(at, [])
            while lanes and not lanes[-1]:
                lanes.pop()
            calls = activity.get(at, [])
            told.append(
                {
                    "index": thread.index,
                    "id": thread.id,
                    "calls": sum(number for _, number in calls),
                    "lost": thread.lost,
                    "activity": calls,
                    "levels": lanes,
                }
            )
        return told

    def _add_cell(self, runs: list[list[int]], cell: Cell, ticks: int) -> None:
        """Runs of columns that belong to the same: first column, columns, name, how full they are."""
        name = self._names.number(self._trace.node_name(cell.kind, cell.id))
        full = min(_EIGHTHS, -(-cell.time * _EIGHTHS // ticks))
        last = runs[-1] if runs else None
        if last and last[2:] == [name, full] and last[0] + last[1] == cell.column:
            last[1] += 1
        else:
            runs.append([cell.column, 1, name, full])

    # ---- stacks ----

    def _stacks(self, found: Sequence[Stack]) -> tuple[dict[str, list[int]], str]:
        """Those that weigh most. Sites that call the same thing are one to the user."""
        merged: dict[tuple[int, int], int] = {}
        parents: list[int] = []
        names: list[int] = []
        sums: list[list[int]] = []  # own, hidden, calls
        places: list[int] = []
        for stack in found:
            parent = -1 if stack.parent is None else places[stack.parent]
            key = (parent, self._names.number(self._stack_name(stack)))
            place = merged.setdefault(key, len(parents))
            if place == len(parents):
                parents.append(parent)
                names.append(key[1])
                sums.append([0, 0, 0])
            places.append(place)
            for at, value in enumerate((stack.self_weight, stack.hidden, stack.calls)):
                sums[place][at] += value
        wholes = [own + hidden for own, hidden, _ in sums]
        for at in range(len(parents) - 1, -1, -1):
            if parents[at] >= 0:
                wholes[parents[at]] += wholes[at]
        # A stack weighs at least what those within it do, and comes before them.
        kept = sorted(sorted(range(len(parents)), key=lambda at: (-wholes[at], at))[: self._bounds.stacks])
        position = {at: number for number, at in enumerate(kept)}
        for at in range(len(parents)):
            if at not in position and parents[at] in position:
                sums[parents[at]][1] += wholes[at]
        told = {
            "parent": [position.get(parents[at], -1) for at in kept],
            "name": [names[at] for at in kept],
            "self": [sums[at][0] for at in kept],
            "hidden": [sums[at][1] for at in kept],
            "calls": [sums[at][2] for at in kept],
        }
        return told, self._stacks_told(len(kept), len(parents), sum(sums[at][1] for at in kept))

    def _stack_name(self, stack: Stack) -> str:
        if stack.kind != NOBODY:
            return self._trace.node_name(stack.kind, stack.id)
        thread = self._trace.threads[stack.id]
        return f"thread {thread.index} (id {thread.id})"

    def _stacks_told(self, kept: int, count: int, hidden: int) -> str:
        if self._stackless or not kept:
            return "None: no stacks were recorded."
        text = (
            "As wide as the time spent on each stack, callers above callees."
            if self._timed
            else "As wide as the number of calls made on each stack, callers above callees: there was no "
            "clock."
        )
        text += " Click one to see it alone."
        if hidden:
            much = units.duration(self._trace, hidden) if self._timed else units.count(hidden, "call")
            of = f" of {count:,}" if count > kept else ""
            text += (
                f" The {kept:,} largest stacks{of}, {self._limits.depth} frames deep at most; {much} in "
                "others count for the caller, without being told apart."
            )
        return text

    # ---- functions ----

    def _functions(self, summary: Summary) -> tuple[list[list[int]], str, set[int]]:
        """Name, calls, self and total of each, as `top` has them."""
        stats = sorted(summary.stats, key=self._weight)
        kept = stats[: self._bounds.functions]
        rows = [[self._names.number(stat.name), stat.calls, stat.self_time, stat.total_time] for stat in kept]
        text = f"{len(stats):,} functions, and calls of what was not traced."
        if len(kept) < len(stats):
            text = f"The first {len(kept):,} of {text}"
        return rows, text, {row[0] for row in rows}

    def _weight(self, stat: CallStat) -> tuple[int, int, str, int]:
        return -stat.self_time, -stat.calls, stat.name, stat.kind

    def _edges(self, known: set[int]) -> tuple[list[list[int]], str]:
        """Caller, callee, by a jump, calls, self and total of each, as `callers` has them."""
        if self._hits:
            return [], ""
        found, count = largest_calls(self._trace, self._bounds.edges)
        rows = [self._edge(one) for one in found if self._names.number(one.name) in known]
        left = count - len(rows)
        text = f"Of {count:,} calls by different callers the {left:,} smallest are left out."
        return rows, text if left else ""

    def _edge(self, one: Caller) -> list[int]:
        caller = -1 if one.caller == NOBODY_NAME else self._names.number(one.caller)
        times = (one.self_time, one.total_time) if self._timed else (0, 0)
        return [caller, self._names.number(one.name), int(one.tail), one.calls, *times]


def _differences(traces: Sequence[TraceFile], bounds: Bounds) -> dict[str, Any]:
    """What `diff` says: functions that are in one trace only, or in both another number of times."""
    named = [Part(trace.name, trace.path, None) for trace in traces]
    counts = comparison.count(named, traces, callers=False)
    first, second = counts.ran()
    different = [key for key in counts.items if is_different(counts, key)]
    groups = (
        ("only-a", "Only in A", [key for key in different if key not in second]),
        ("only-b", "Only in B", [key for key in different if key not in first]),
        (
            "other-count",
            "In both, another number of times",
            [key for key in different if key in first and key in second],
        ),
    )
    told = []
    for name, title, keys in groups:
        rows: list[list[Any]] = []
        for key in keys:
            calls = [each.get(key, 0) for each in counts.calls]
            missing = [letter for letter, absent in zip(_LETTERS, counts.untraced) if key in absent]
            note = f"not traced in {', '.join(missing)}" if missing else ""
            rows.append([counts.items[key].name, *calls, note])
        rows.sort(key=lambda row: (-abs(row[2] - row[1]), row))
        left = f"The {bounds.differences:,} largest." if len(rows) > bounds.differences else ""
        told.append(
            {
                "id": name,
                "title": title,
                "count": len(rows),
                "left": left,
                "rows": rows[: bounds.differences],
            }
        )
    return {"notes": list(counts.notes), "groups": told}
