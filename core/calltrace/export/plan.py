"""What `calltrace plan` says.

The object that ``plan --json`` prints has these keys; they stay as they are, further ones may come:

- ``program`` (path), ``process_id`` (or null), ``verdict`` (``blocks``, ``limits`` or ``fine``)
- ``findings``: of the process; each ``key``, ``verdict`` (``blocks``, ``limits``, ``unknown``, ``fine``),
  ``text`` (what follows the name of what it is about)
- ``modules``: the program, then those asked for; each ``name``, ``path``, ``base``, ``size``, ``findings``
  and ``planned``, and if that is true all that ``info --json`` has for a module, ``region_bytes`` (memory
  beside the module) and ``records``: of each function ``name``, ``rva``, ``address``, ``size`` (bytes),
  ``sources``, ``status``, ``reason`` (why it is not instrumented, or null), ``entry`` (how its start would
  lead to its copy, or null)
- ``notes``: lines about modules that were asked for and left out
- ``memory``: ``copies`` (bytes beside the modules), ``buffers`` (bytes of the trace that are mapped),
  ``thread`` (bytes of them that a thread takes up at a time)

Sizes are bytes; addresses are hexadecimal strings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from calltrace.export import units
from calltrace.export.report import SOURCE_TEXTS, module_info, module_rows, write_rows
from calltrace.model import printable
from calltrace.preflight import Finding, Verdict
from calltrace.recorder import SLOTS
from calltrace.survey import Survey, SurveyedModule
from calltrace.tracefile import BLOCK

_ANSWERS = {Verdict.BLOCKS: "no", Verdict.LIMITS: "yes, with limits", Verdict.FINE: "yes"}


def plan_info(survey: Survey) -> dict[str, Any]:
    """Everything there is to say, ready for JSON; keys as this module's text lists them."""
    return {
        "program": survey.modules[0].path,
        "process_id": survey.process_id,
        "verdict": survey.verdict.value,
        "findings": _findings(survey.findings),
        "modules": [_module(surveyed) for surveyed in survey.modules],
        "notes": list(survey.notes),
        "memory": {
            "copies": sum(surveyed.region_bytes for surveyed in survey.modules),
            "buffers": SLOTS * BLOCK,
            "thread": BLOCK,
        },
    }


def _findings(findings: Sequence[Finding]) -> list[dict[str, str]]:
    return [{"key": each.key, "verdict": each.verdict.value, "text": each.text} for each in findings]


def _module(surveyed: SurveyedModule) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": surveyed.name,
        "path": surveyed.path,
        "base": f"{surveyed.base:#x}",
        "size": surveyed.size,
        "findings": _findings(surveyed.findings),
        "planned": surveyed.module is not None,
    }
    if surveyed.module is None:
        return told
    module = surveyed.module
    return {
        **told,
        **module_info(module, surveyed.records),
        "region_bytes": surveyed.region_bytes,
        "records": [
            {
                "name": module.place(record.rva),
                "rva": f"{record.rva:#x}",
                "address": f"{module.base + record.rva:#x}",
                "size": record.size,
                "sources": [
                    source.name.lower() for source in SOURCE_TEXTS if source.name and record.sources & source
                ],
                "status": record.status,
                "reason": module.statuses.get(record.status),
                "entry": None if record.status else record.entry.name.lower(),
            }
            for record in surveyed.records
        ],
    }


def write_plan_json(survey: Survey, out: TextIO) -> None:
    """Write `plan_info` as JSON."""
    json.dump(plan_info(survey), out, indent=2, ensure_ascii=False)
    out.write("\n")


def write_plan(survey: Survey, list_refused: bool, out: TextIO) -> None:
    """Write what a user wants to know; with `list_refused` each function that cannot be instrumented."""
    write_rows(_rows(survey, list_refused), out)


def _rows(survey: Survey, list_refused: bool) -> Iterator[tuple[str, str]]:
    process = f"process {survey.process_id}, " if survey.process_id is not None else ""
    yield "program", process + printable(survey.modules[0].path)
    yield "can be traced", _ANSWERS[survey.verdict]
    if survey.process_id is not None:
        yield from _finding_rows("process", survey.findings)
    for surveyed in survey.modules:
        yield "", ""
        yield from _module_rows(surveyed, list_refused)
    if survey.modules[0].module:
        copies = units.size(sum(surveyed.region_bytes for surveyed in survey.modules))
        yield "", ""
        yield (
            "memory",
            (
                f"{copies} beside the modules; trace buffers of {units.size(SLOTS * BLOCK)}, "
                f"of which a thread takes {units.size(BLOCK)} at a time"
            ),
        )
    for note in survey.notes:
        yield "note", printable(note)


def _finding_rows(name: str, findings: Sequence[Finding]) -> Iterator[tuple[str, str]]:
    """One line for each that matters, and one for all that are fine."""
    for verdict in (Verdict.BLOCKS, Verdict.LIMITS, Verdict.UNKNOWN):
        for finding in findings:
            if finding.verdict is verdict:
                yield f"  {verdict.value}", printable(f"{name} {finding.text}")
    fine = ", ".join(finding.text for finding in findings if finding.verdict is Verdict.FINE)
    if fine:
        yield "  fine", printable(fine)


def _module_rows(surveyed: SurveyedModule, list_refused: bool) -> Iterator[tuple[str, str]]:
    if surveyed.module is None:
        yield "module", f"{printable(surveyed.name)} at {surveyed.base:#x}, {units.size(surveyed.size)}"
        yield from _finding_rows(surveyed.name, surveyed.findings)
        return
    told = module_info(surveyed.module, surveyed.records)
    first, *rest = module_rows(told)
    yield first
    yield from _finding_rows(surveyed.name, surveyed.findings)
    yield from rest
    figures = surveyed.module.plan
    copies, data, code = (figures[key] for key in ("copy_bytes", "data_bytes", "executable_bytes"))
    yield (
        "  copies",
        f"{units.size(copies)}, x{copies / code:.2f} of its code; {units.size(data)} of unwind data and maps",
    )
    yield "  planned in", f"{figures['milliseconds']:,.0f} ms"
    if list_refused:
        for refusal in told["refusals"]:
            for function in refusal["functions"]:
                yield "", f"{function['address']}  {printable(function['name'])}  {refusal['reason']}"
