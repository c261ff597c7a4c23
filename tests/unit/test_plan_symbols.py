"""What a host calls functions is what patterns mean, plans show and traces keep."""

from __future__ import annotations

from collections.abc import Sequence

from calltrace.plan import ModulePlan
from calltrace.ports import ModuleSymbols
from calltrace.recorder import StartRequest
from rig import images

CODE = """
function first
    ret
end
    .space 16, 0xcc
function second
    nop
    ret
end
    .space 16, 0xcc
"""


def symbols(names: dict[int, str], asked: list[int] | None = None) -> ModuleSymbols:
    def find(rvas: Sequence[int]) -> dict[int, str]:
        if asked is not None:
            asked.extend(rvas)
        return {rva: names[rva] for rva in rvas if rva in names}

    return ModuleSymbols("program.pdb", find)


def test_the_functions_found_are_asked_for_and_named() -> None:
    program = images.build(CODE)
    first, second = program.symbols["first"], program.symbols["second"]
    program.image.names = {first: "?first@@YAXXZ", second: "second"}
    asked: list[int] = []
    plan = ModulePlan(program.image, symbols=symbols({first: "first(void)"}, asked))
    assert asked == sorted(function.rva for function in plan.functions)
    assert {first, second} <= set(asked)
    plan.lay_out(StartRequest(), "all", "none", 0, 0)
    assert plan.module().names == {first: "first(void)", second: "second"}
    assert plan.module().named_by == "program.pdb"


def test_patterns_mean_the_names_of_the_host() -> None:
    program = images.build(CODE)
    first, second = program.symbols["first"], program.symbols["second"]
    named = symbols({first: "zoo::Cage<Lion>::feed", second: "zoo::operator!="})
    for pattern, meant in (
        ("zoo::Cage<*", [first]),
        ("zoo::operator!=", [second]),
        ("zoo::*", [first, second]),
    ):
        plan = ModulePlan(program.image, [pattern], symbols=named)
        plan.lay_out(StartRequest(), "all", "none", 0, 0)
        assert [record.rva for record in plan.records() if not record.filtered] == meant
        assert plan.chosen == len(meant)
