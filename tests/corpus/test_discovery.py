"""Functions are found without symbols as well as the symbols say: in programs of gcc's and clang's."""

from __future__ import annotations

import pytest

from calltrace.pe.image import from_file
from rig import measured

REQUIRED = 0.999


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    measured.build_all(measured.BUILDS)


def check(score: measured.Score) -> None:
    told = [f"{rva:#x} {score.truth.functions.get(rva, 'is none')}" for rva in score.missed + score.false]
    assert score.recall >= REQUIRED, told
    assert score.precision >= REQUIRED, told


@pytest.mark.parametrize("build", measured.BUILDS, ids=str)
def test_functions_found_are_those_that_the_symbols_name(build: measured.Build) -> None:
    program = measured.build(build)
    image = from_file(program)
    truth = measured.truth_of(program, image)
    assert len(truth.functions) > 300
    check(measured.measure(truth, image))
    if build.compiler == "gcc":
        bare = measured.without_leaf_entries(image)
        score = measured.measure(truth, bare)
        assert score.leaves > 100
        check(score)
