"""`calltrace plan`: what tracing a program or a running process would do, found out without touching it.

A program's file is read and not started. A process is opened for reading only; it is never stopped.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from ctypes import c_uint32
from dataclasses import dataclass, replace
from pathlib import Path

from calltrace import preflight
from calltrace.errors import FileMissing, NotTraceable, OutOfSpace
from calltrace.model import FunctionRecord, Module, module_name
from calltrace.patterns import module_matches
from calltrace.pe.image import Image, from_file, from_memory
from calltrace.pe.symbols import add_symbols
from calltrace.plan import ModulePlan
from calltrace.ports import ModuleSymbols, TargetModule
from calltrace.preflight import Finding, Verdict
from calltrace.recorder import NEVER_TRACED, StartRequest

# Where the recorder keeps its state is known once it runs; the code has the same size wherever that is.
_SLOTS = StartRequest(
    cursor=0x1480,
    scratch=(c_uint32 * 3)(0x1488, 0x1490, 0x1498),
    slow_path=0x7FF000000000,
    coarse_clock=0x7FF000001000,
)


@dataclass(frozen=True)
class SurveyOptions:
    """What would be traced; as in calltrace.session.TraceOptions."""

    events: str = "outward"
    clock: str = "none"
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    modules: Sequence[str] = ()
    breakpoints: bool = True
    symbols: Callable[[TargetModule], ModuleSymbols | None] = lambda module: None  # the host's


@dataclass(frozen=True)
class SurveyedModule:
    """What would be done to one module."""

    path: str
    base: int  # VA; of a file the one it prefers
    size: int  # bytes
    findings: tuple[Finding, ...]
    module: Module | None = None  # None: not planned, since something blocks it
    records: tuple[FunctionRecord, ...] = ()
    region_bytes: int = 0

    @property
    def name(self) -> str:
        """The file name without its folder."""
        return module_name(self.path)


@dataclass(frozen=True)
class Survey:
    """What would be done to a program or process. The first module is the program itself."""

    process_id: int | None
    findings: tuple[Finding, ...]  # of the process
    modules: tuple[SurveyedModule, ...]
    notes: tuple[str, ...]  # lines for the user: modules asked for that are not there

    @property
    def verdict(self) -> Verdict:
        """Whether the program can be traced."""
        found = {finding.verdict for finding in (*self.findings, *self.modules[0].findings)}
        return next((each for each in (Verdict.BLOCKS, Verdict.LIMITS) if each in found), Verdict.FINE)


def of_program(name: str, options: SurveyOptions) -> Survey:
    """Survey a program's file, and DLLs beside it that `options.modules` means.

    FileMissing, NotTraceable if it is damaged or of another machine, UsageError for a malformed pattern.
    """
    path = _find(name)
    image = from_file(path)
    program = _survey(image, options)
    if image.library:
        use = f"is a DLL: trace a program that loads it, with --modules {path.name}"
        program = replace(program, findings=(Finding("library", Verdict.LIMITS, use), *program.findings))
    files = [
        other for other in sorted(path.parent.iterdir()) if other.suffix.lower() == ".dll" and other != path
    ]
    beside = {str(file): functools.partial(from_file, file) for file in files}
    others, notes = _survey_others(program, beside, f"beside {path.name}", options)
    return Survey(None, (), (program, *others), notes)


def of_process(process_id: int, options: SurveyOptions, debugged: bool = False) -> Survey:
    """Survey a running process and those of its modules that `options.modules` means. Windows only.

    `debugged`: it is the target of the debugger that we run in.
    TargetLost, AccessRefused, NotTraceable if the program's image is damaged or of another machine.
    """
    from calltrace.win32 import process

    with process.observe(process_id) as observed:
        facts = observed.facts()
        findings = tuple(
            finding for finding in preflight.of_process(facts) if not (debugged and finding.key == "debugger")
        )
        blocked = any(finding.verdict is Verdict.BLOCKS for finding in findings)

        loaded = {
            module.path: functools.partial(from_memory, observed.read, module.base, module.size, module.path)
            for module in facts.modules
        }
        image = loaded.pop(facts.modules[0].path)()
        program = _survey(image, options, plan_it=not blocked)
        others, notes = _survey_others(program, loaded, f"loaded in process {process_id}", options)
    return Survey(process_id, findings, (program, *others), notes)


def _find(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        found = shutil.which(name)
        if found is None:
            raise FileMissing(f"no such program: {name}")
        path = Path(found)
    if path.suffix.lower() in (".bat", ".cmd"):
        raise NotTraceable(f"{path} is a batch file: name the program that it starts")
    return path.absolute()


def _survey(image: Image, options: SurveyOptions, plan_it: bool = True) -> SurveyedModule:
    findings = tuple(preflight.of_module(image))
    surveyed = SurveyedModule(image.path, image.base, image.size, findings)
    if not plan_it or any(finding.verdict is Verdict.BLOCKS for finding in findings):
        return surveyed
    add_symbols(image)
    symbols = options.symbols(TargetModule(image.base, image.size, image.path))
    planned = ModulePlan(image, options.include, options.exclude, symbols)
    region_bytes = planned.lay_out(_SLOTS, options.events, options.clock, 0, 0, options.breakpoints)
    return replace(
        surveyed, module=planned.module(), records=tuple(planned.records()), region_bytes=region_bytes
    )


def _survey_others(
    program: SurveyedModule,
    available: Mapping[str, Callable[[], Image]],  # by path
    where: str,
    options: SurveyOptions,
) -> tuple[list[SurveyedModule], tuple[str, ...]]:
    """Those of the `available` modules that the user asked for; and lines about those that are left out."""
    surveyed: list[SurveyedModule] = []
    notes: list[str] = []
    if not program.module:
        return surveyed, ()
    for pattern in options.modules:
        if not any(module_matches(pattern, module_name(path)) for path in available):
            notes.append(f"no module {where} matches {pattern}")
    for path, read in available.items():
        name = module_name(path)
        if not any(module_matches(pattern, name) for pattern in options.modules):
            continue
        if name.lower() in NEVER_TRACED:
            notes.append(f"{name} is left out: recording itself runs through it")
            continue
        try:
            surveyed.append(_survey(read(), options))
        except (NotTraceable, OutOfSpace) as error:
            notes.append(f"{name} is left out: {error}")
    return surveyed, tuple(notes)
