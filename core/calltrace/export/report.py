"""What `calltrace info` and `calltrace top` say of a trace.

The object that ``info --json`` prints has these keys; they stay as they are, further ones may come:

- ``file``, ``format`` (version), ``size`` (bytes)
- ``state``: ``exited``, ``killed`` (terminated from outside), ``stopped`` (recording ended, the program went
  on) or ``cut`` (the end was not written); ``exit_code`` (or null), ``process_id``
- ``clock``: ``none``, ``tsc`` or ``coarse``; ``policy``: ``block`` or ``drop-oldest``; ``created`` (ISO 8601,
  UTC); ``seconds`` (from beginning to end of recording, or null), ``ticks_per_second`` (or null)
- ``recording``: what the recorder noted: command line, options, versions
- ``modules``: each ``name``, ``path``, ``base`` and ``size`` (bytes), ``timestamp``, ``checksum``, ``pdb``
  (the one that belongs to it: ``path``, ``guid``, ``age``; or null), ``named`` (functions that have a name),
  ``named_by`` (the symbols that names are from, besides the module's own file; or null),
  ``call_sites``, ``plan`` (figures of the planner), ``functions`` (``found``, ``instrumented``, ``refused``,
  ``filtered``, ``thunks``, ``by_source``, ``by_entry``: how the start of each instrumented one leads to its
  copy, ``jump``, ``padding``, ``short_jump`` or ``breakpoint``), ``breakpoints``: the functions of the last
  kind, each entry of which costs microseconds, ``pdata_groups`` (``found``, ``wanted``, ``instrumented``,
  ``share`` of those wanted, or null) and ``refusals``: each ``status``, ``reason``, ``count`` and
  ``functions`` (``name``, ``address`` (VA), ``rva``, ``instruction_rva`` or null)
- ``budget`` (calls of each function and call site that are events, in each thread; or null: all are) and
  ``muted``: ``calls`` (those that were counted, and are no events) and ``functions``: each ``name`` and
  ``calls``, the most first
- ``marks``: what the user named, and where recording was paused and resumed: each ``name``, ``seconds``
  (since recording began, or null) and ``events`` (units that each thread had recorded, by its index)
- ``threads``: each ``index``, ``id``, ``units``, ``lost``
- ``events``: ``total`` and a count by kind; ``frame`` counts the stack pointers recorded beside events
- ``frames``: ``functions``, ``calls``, ``api_functions``, ``api_calls``, ``max_depth``, ``orphans`` (ends
  without a beginning), ``unclosed`` (count by cause)
- ``gaps``: ``count``, ``units_lost``, ``recorder_units_lost`` (the recorder's own count)
- ``health``: ``truncated``, ``damaged_chunks``, ``unknown_chunks``, ``hole_blocks``, ``short_times`` (chunks
  in which a pause outlasted the recorded part of the time stamp counter), ``problems`` (lines of text)

Functions left out by the user's patterns (``filtered``) and import thunks (``thunks``) are neither
instrumented nor refused, and not ``wanted``. Addresses are hexadecimal strings.
"""

from __future__ import annotations

import datetime
import enum
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TextIO

from calltrace.calltree import CallStat, Summary
from calltrace.errors import UsageError
from calltrace.export import units
from calltrace.model import Clock, Entry, Ext, FunctionRecord, Module, NodeKind, Source, State, printable
from calltrace.tracefile import VERSION, TraceFile

STATES = {State.RECORDING: "cut", State.EXITED: "exited", State.STOPPED: "stopped", State.KILLED: "killed"}
_EXT_NAMES = {
    Ext.THREAD_START: "thread_start",
    Ext.THREAD_EXIT: "thread_exit",
    Ext.MARK: "mark",
    Ext.ENTER: "api_enter",
    Ext.EXIT: "api_exit",
    Ext.CALL: "api_call",
    Ext.RET: "api_ret",
    Ext.GOTO: "api_goto",
    Ext.RESET: "reset",
    Ext.STOP: "stop",
}
SOURCE_TEXTS = {
    Source.PDATA: ".pdata",
    Source.CALL: "direct calls",
    Source.EXPORT: "exports",
    Source.ENTRY: "entry point",
    Source.TLS: "TLS callbacks",
    Source.GUARD: "Guard CF table",
    Source.POINTER: "pointers",
    Source.SYMBOL: "symbols",
    Source.JUMP: "jumps",
    Source.HANDLER: "exception data",
    Source.GAP: "gaps between functions",
}


# What is not in a trace of another mode than "trace".
MODE_TEXTS = {
    "graph": "counts by function and by who calls whom, in no order",
    "hits": "only the first entry of each function, by whichever thread, and not who called it; anew if its "
    "module is loaded again",
}


class Order(enum.Enum):
    """What `top` sorts by, the most first."""

    CALLS = "calls"
    SELF = "self"
    TOTAL = "total"


_WIDTH = 17  # of the first column
_MANY_THREADS = 12
_MANY_MUTED = 30


def info(trace: TraceFile, summary: Summary) -> dict[str, Any]:
    """Everything there is to say about a trace, ready for JSON; keys as this module's text lists them."""
    header, muted = trace.header, muted_calls(trace)
    ended = trace.state in (State.EXITED, State.KILLED)
    ticks = header.tsc_end - header.tsc_start if header.tsc_end and header.tsc_hz else 0
    events = {event.name.lower(): number for event, number in summary.events.items()}
    del events["ext"]
    events.update((name, summary.ext[ext]) for ext, name in _EXT_NAMES.items())
    return {
        "file": str(trace.path),
        "format": VERSION,
        "size": trace.index.file_size,
        "state": STATES[trace.state],
        "exit_code": header.exit_code if ended else None,
        "process_id": header.process_id,
        "mode": trace.mode,
        "clock": trace.clock.name.lower(),
        "policy": ("block" if trace.budget else trace.policy.name.lower().replace("_", "-")),
        "created": _created(header.created_ns),
        "seconds": ticks / header.tsc_hz if ticks > 0 else None,
        "ticks_per_second": header.tsc_hz or None,
        "recording": trace.info,
        "modules": [module_info(module, list(trace.functions(module))) for module in trace.modules],
        "budget": trace.budget or None,
        "muted": {
            "calls": sum(calls for _, calls in muted),
            "functions": [{"name": name, "calls": calls} for name, calls in muted],
        },
        "marks": [
            {
                "name": mark.name,
                "seconds": (mark.tsc - header.tsc_start) / header.tsc_hz if header.tsc_hz else None,
                "events": mark.positions,
            }
            for mark in trace.marks
        ],
        "threads": [
            {"index": thread.index, "id": thread.id, "units": thread.units, "lost": thread.lost}
            for thread in trace.threads
        ],
        "events": {"total": sum(events.values()) - events["frame"], **events},
        "frames": {
            "functions": summary.frames[NodeKind.FUNCTION],
            "calls": summary.frames[NodeKind.CALL],
            "api_functions": summary.frames[NodeKind.API_FUNCTION],
            "api_calls": summary.frames[NodeKind.API_CALL],
            "max_depth": summary.max_depth,
            "orphans": summary.orphans,
            "unclosed": {cause.name.lower(): number for cause, number in summary.unclosed.items()},
        },
        "gaps": {"count": summary.gaps, "units_lost": summary.lost, "recorder_units_lost": header.units_lost},
        "health": {
            "truncated": bool(trace.index.truncated),
            "damaged_chunks": trace.index.damaged_chunks,
            "unknown_chunks": trace.index.unknown_chunks,
            "hole_blocks": trace.index.hole_blocks,
            "short_times": summary.short_times,
            "problems": trace.problems,
        },
    }


def muted_calls(trace: TraceFile) -> list[tuple[str, int]]:
    """What was muted by its budget, and how many calls of it, the most first."""
    found = Counter[str]()
    for kind, muted in trace.muted.items():
        for number, calls in muted.items():
            found[trace.node_name(kind, number)] += calls
    return sorted(found.items(), key=lambda one: (-one[1], one[0]))


def muted_text(trace: TraceFile) -> str:
    """What of the calls are no events; empty if all are."""
    if not trace.budget:
        return ""
    muted = muted_calls(trace)
    text = f"recorded with --budget {trace.budget:,}: "
    if trace.graph is None:
        return text + "further calls of a function in a thread are muted; how many is not known"
    calls = units.count(sum(calls for _, calls in muted), "call")
    functions = units.count(len(muted), "function")
    return text + f"{calls} of {functions} muted, which `top`, `callers` and `callees` count"


def _created(nanoseconds: int) -> str | None:
    try:
        moment = datetime.datetime.fromtimestamp(nanoseconds // 10**9, datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return None
    return moment.isoformat()


def module_info(module: Module, records: Sequence[FunctionRecord]) -> dict[str, Any]:
    """What there is to say about a module and its functions, ready for JSON."""
    thunks = sum(record.thunk and not record.filtered for record in records)
    wanted = [record for record in records if not record.filtered and not record.thunk]
    refused = [record for record in wanted if record.status]
    groups = [record for record in records if record.sources & Source.PDATA]
    wanted_groups = [record for record in wanted if record.sources & Source.PDATA]
    instrumented = sum(not record.status for record in wanted_groups)
    entries = Counter(record.entry for record in wanted if not record.status)
    by_sources = Counter(record.sources for record in records)
    return {
        "name": module.name,
        "path": module.path,
        "base": f"{module.base:#x}",
        "size": module.size,
        "timestamp": module.timestamp,
        "checksum": module.checksum,
        "pdb": module.pdb or None,
        "named_by": module.named_by or None,
        "named": sum(record.rva in module.names for record in records),
        "call_sites": module.site_count,
        "plan": module.plan,
        "functions": {
            "found": len(records),
            "instrumented": len(wanted) - len(refused),
            "refused": len(refused),
            "filtered": len(records) - len(wanted) - thunks,
            "thunks": thunks,
            "by_source": {
                source.name.lower(): sum(number for sources, number in by_sources.items() if sources & source)
                for source in SOURCE_TEXTS
                if source.name
            },
            "by_entry": {entry.name.lower(): entries[entry] for entry in Entry},
        },
        "breakpoints": [
            _place(module, record)
            for record in wanted
            if not record.status and record.entry is Entry.BREAKPOINT
        ],
        "pdata_groups": {
            "found": len(groups),
            "wanted": len(wanted_groups),
            "instrumented": instrumented,
            "share": instrumented / len(wanted_groups) if wanted_groups else None,
        },
        "refusals": list(_refusals(module, refused)),
    }


def _refusals(module: Module, refused: list[FunctionRecord]) -> Iterator[dict[str, Any]]:
    """By status, the most frequent first."""
    for status, number in Counter(record.status for record in refused).most_common():
        yield {
            "status": status,
            "reason": module.statuses.get(status) or f"status {status}",
            "count": number,
            "functions": [
                {**_place(module, record), "instruction_rva": _hex(module.refusals.get(record.rva))}
                for record in refused
                if record.status == status
            ],
        }


def _place(module: Module, record: FunctionRecord) -> dict[str, str]:
    return {
        "name": module.place(record.rva),
        "address": f"{module.base + record.rva:#x}",
        "rva": f"{record.rva:#x}",
    }


def _hex(number: int | None) -> str | None:
    return None if number is None else f"{number:#x}"


def write_info_json(trace: TraceFile, summary: Summary, out: TextIO) -> None:
    """Write `info` as JSON."""
    json.dump(info(trace, summary), out, indent=2, ensure_ascii=False)
    out.write("\n")


def write_info(trace: TraceFile, summary: Summary, out: TextIO) -> None:
    """Write what a user wants to know about a trace."""
    told = info(trace, summary)
    write_rows(_info_rows(trace, told, summary), out)


def write_rows(rows: Iterable[tuple[str, str]], out: TextIO) -> None:
    """Write lines of a label and a text."""
    for label, text in rows:
        out.write(f"{label:<{_WIDTH}}{text}".rstrip() + "\n")


def _info_rows(trace: TraceFile, told: dict[str, Any], summary: Summary) -> Iterator[tuple[str, str]]:
    yield "trace", f"{told['file']}, {units.size(told['size'])}"
    yield "ended", ending(trace, told)
    seconds = f", {told['seconds']:,.3f} s" if told["seconds"] is not None else ""
    if trace.mode in MODE_TEXTS:
        yield "mode", f"{trace.mode}: {MODE_TEXTS[trace.mode]}"
    yield "recorded", f"{told['created'] or 'at an unknown time'}{seconds}, clock {told['clock']}"
    for key, value in trace.info.items():
        if isinstance(value, (str, int, float)) and value != "":
            yield printable(key.replace("_", " ")), printable(str(value))
    for module in told["modules"]:
        yield "", ""
        yield from module_rows(module)
    yield "", ""
    yield from _thread_rows(told["threads"])
    by_kind = ", ".join(
        f"{number:,} {kind.replace('_', ' ')}"
        for kind, number in told["events"].items()
        if number and kind not in ("total", "frame")
    )
    yield "events", f"{told['events']['total']:,}" + (f": {by_kind}" if by_kind else "")
    if trace.clock is not Clock.NONE:
        span = units.duration(trace, summary.last_time - summary.first_time)
        yield "time", f"{span} from first to last event"
    yield "deepest", units.count(summary.max_depth, "frame")
    if told["budget"]:
        yield from _budget_rows(told["budget"], told["muted"])
    unclosed = [f"{number:,} {cause.text}" for cause, number in summary.unclosed.items()]
    for mark in told["marks"]:
        after = f", {mark['seconds']:,.3f} s after the beginning" if mark["seconds"] is not None else ""
        yield "mark", f"{mark['name']}{after}"
    yield "unclosed frames", ", ".join(unclosed) or "none"
    if summary.orphans:
        yield "orphans", f"{units.count(summary.orphans, 'end')} without a beginning"
    if told["budget"] and told["gaps"]["recorder_units_lost"]:
        yield (
            "lost",
            f"{units.count(told['gaps']['recorder_units_lost'], 'event')} for which there was no room",
        )
    yield "gaps", f"{summary.gaps:,}, {units.count(summary.lost, 'event')} lost" if summary.gaps else "none"
    yield from _health_rows(told["health"])


def ending(trace: TraceFile, told: dict[str, Any]) -> str:
    """How the recording ended, of what `info` said."""
    if trace.under_way:
        return "not yet: still recording"
    state = told["state"]
    if state == "exited":
        return f"by itself, exit code {told['exit_code']}"
    if state == "killed":
        return f"terminated, exit code {told['exit_code']}"
    if state == "stopped":
        return "recording was stopped, the program went on"
    return "not written: still recording, or cut off"


def module_rows(module: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Label and text of each line about a module, of what `module_info` said."""
    functions, groups = module["functions"], module["pdata_groups"]
    yield "module", f"{module['name']} at {module['base']}, {units.size(module['size'])}"
    yield "  file", f"{printable(module['path'])}, time stamp {module['timestamp']:#010x}"
    if module["pdb"]:
        about = module["pdb"]
        yield "  pdb", printable(f"{about.get('path')}, {about.get('guid')}, age {about.get('age')}")
    sources = ", ".join(
        f"{functions['by_source'][source.name.lower()]:,} {text}"
        for source, text in SOURCE_TEXTS.items()
        if source.name and functions["by_source"][source.name.lower()]
    )
    yield "  functions", f"{functions['found']:,} found" + (f" by {sources}" if sources else "")
    by = f", by {printable(module['named_by'])}" if module["named_by"] else ""
    yield "  named", f"{module['named']:,} of {functions['found']:,}{by}"
    done = functions["instrumented"]
    wanted = done + functions["refused"]
    yield "  instrumented", f"{done:,} of {wanted:,} ({units.share(done, wanted)})"
    for entry in Entry:
        if functions["by_entry"][entry.name.lower()]:
            yield "", f"{functions['by_entry'][entry.name.lower()]:>7,}  {entry.text}"
    done, wanted = groups["instrumented"], groups["wanted"]
    yield "  .pdata groups", f"{done:,} of {wanted:,} ({units.share(done, wanted)})"
    if functions["filtered"]:
        yield "  left out", f"{functions['filtered']:,} by the patterns given"
    if functions["thunks"]:
        yield "  thunks", f"{functions['thunks']:,}, whose calls are recorded where they are made"
    if functions["refused"]:
        yield "  refused", f"{functions['refused']:,}"
    for refusal in module["refusals"]:
        yield "", f"{refusal['count']:>7,}  {refusal['reason']}"


def _thread_rows(threads: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    yield "threads", f"{len(threads):,}"
    for thread in threads[:_MANY_THREADS]:
        lost = f", {thread['lost']:,} lost" if thread["lost"] else ""
        yield f"  {thread['index']}", f"id {thread['id']}, {units.count(thread['units'], 'unit')}{lost}"
    if len(threads) > _MANY_THREADS:
        yield "  ...", f"{len(threads) - _MANY_THREADS:,} more: see --json"


def _budget_rows(budget: int, muted: dict[str, Any]) -> Iterator[tuple[str, str]]:
    functions = muted["functions"]
    yield "budget", f"{units.count(budget, 'call')} of each function or import, in each thread"
    yield "muted", f"{units.count(muted['calls'], 'call')} of {len(functions):,}, which are counted"
    for one in functions[:_MANY_MUTED]:
        yield "", f"{one['calls']:>14,}  {one['name']}"
    if len(functions) > _MANY_MUTED:
        yield "  ...", f"{len(functions) - _MANY_MUTED:,} more: see --json"


def missing(trace: TraceFile) -> Iterator[str]:
    """What is missing from a trace: a line each; nothing if it is whole."""
    if trace.index.truncated:
        yield f"{trace.path} is cut off: what comes later is missing"
    if trace.index.damaged_chunks:
        yield f"{trace.path} is damaged: {units.count(trace.index.damaged_chunks, 'block')} of it left out"
    lost = max(trace.index.lost, trace.header.units_lost if trace.budget else 0)
    if lost:
        yield f"{trace.path}: {units.count(lost, 'event')} lost where there was no room"
    for problem in trace.problems:
        yield f"{trace.path}: {problem}"


def _health_rows(health: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if health["truncated"]:
        yield "truncated", "the file ends before its last chunk does"
    for key, text in (
        ("damaged_chunks", "damaged and left out"),
        ("unknown_chunks", "of an unknown kind, skipped"),
        ("short_times", "in which times are too short by a pause longer than the clock's range"),
    ):
        if health[key]:
            yield "chunks", f"{health[key]:,} {text}"
    for problem in health["problems"]:
        yield "problem", problem


def write_top(
    trace: TraceFile,
    summary: Summary,
    limit: int,
    out: TextIO,
    order: Order | None = None,
    names: units.NameText = units.plain,
) -> None:
    """Write functions and outward calls in this order; none: most time of their own, else most calls, first.

    Raises UsageError for an order by time in a trace without a clock.
    """
    timed = trace.clock is not Clock.NONE
    stats = _ordered(trace, summary, order)
    shown = stats[:limit] if limit else stats
    columns = f"{'calls':>14}"
    if timed:
        columns = f"{'self':>14}{'share':>9}{'total':>14}" + columns
    out.write(f"{columns}  function or call\n")
    whole = sum(stat.self_time for stat in stats)
    for stat in shown:
        row = f"{stat.calls:>14,}"
        if timed:
            own, total = units.duration(trace, stat.self_time), units.duration(trace, stat.total_time)
            row = f"{own:>14}{units.share(stat.self_time, whole):>9}{total:>14}" + row
        out.write(f"{row}  {names(stat.name, stat.address)}\n")
    if len(shown) < len(stats):
        out.write(f"{len(stats) - len(shown):,} more: --limit 0 shows all\n")


def write_top_json(
    trace: TraceFile, summary: Summary, limit: int, out: TextIO, order: Order | None = None
) -> None:
    """Write the same as JSON: ``file``, ``clock``, ``ticks_per_second`` and ``functions``.

    Each function or call has ``name``, ``kind``, ``calls``, ``self`` and ``total`` (both ticks, and null
    without a clock). Raises UsageError as write_top.
    """
    timed = trace.clock is not Clock.NONE
    stats = _ordered(trace, summary, order)
    told = {
        "file": str(trace.path),
        "clock": trace.clock.name.lower(),
        "ticks_per_second": trace.header.tsc_hz or None,
        "functions": [
            {
                "name": stat.name,
                "kind": stat.kind.name.lower(),
                "calls": stat.calls,
                "self": stat.self_time if timed else None,
                "total": stat.total_time if timed else None,
            }
            for stat in (stats[:limit] if limit else stats)
        ],
    }
    json.dump(told, out, indent=2, ensure_ascii=False)
    out.write("\n")


def _ordered(trace: TraceFile, summary: Summary, order: Order | None) -> list[CallStat]:
    timed = trace.clock is not Clock.NONE
    if order is None:
        order = Order.SELF if timed else Order.CALLS
    if order is not Order.CALLS and not timed:
        raise UsageError(f"{trace.path} has no times to sort by: record with --clock, or take --sort calls")
    return sorted(summary.stats, key=_ORDER_KEYS[order])


def _most_calls(stat: CallStat) -> tuple[int, str]:
    return -stat.calls, stat.name


def _most_self_time(stat: CallStat) -> tuple[int, int, str]:
    return -stat.self_time, -stat.calls, stat.name


def _most_total_time(stat: CallStat) -> tuple[int, int, str]:
    return -stat.total_time, -stat.calls, stat.name


_ORDER_KEYS: dict[Order, Callable[[CallStat], tuple[Any, ...]]] = {
    Order.CALLS: _most_calls,
    Order.SELF: _most_self_time,
    Order.TOTAL: _most_total_time,
}
