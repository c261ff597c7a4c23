"""cmake (MSVC, static runtime): a script with recursion, text work, files, a warning and a fatal error."""

from __future__ import annotations

from pathlib import Path

from rig import corpus, tracing

_SCRIPT = r"""
cmake_minimum_required(VERSION 3.20)
function(fibonacci n result)
  if(n LESS 2)
    set(${result} ${n} PARENT_SCOPE)
    return()
  endif()
  math(EXPR a "${n} - 1")
  math(EXPR b "${n} - 2")
  fibonacci(${a} x)
  fibonacci(${b} y)
  math(EXPR sum "${x} + ${y}")
  set(${result} ${sum} PARENT_SCOPE)
endfunction()
fibonacci(11 f)
message("fibonacci: ${f}")

set(words)
foreach(i RANGE 200)
  string(SHA256 hash "word ${i}")
  string(SUBSTRING "${hash}" 0 8 short)
  string(REGEX REPLACE "([0-9]+)([a-f])" "<\\1|\\2>" short "${short}")
  list(APPEND words "${short}")
endforeach()
list(SORT words)
list(FILTER words INCLUDE REGEX "^<[1-5]")
list(JOIN words "\n" text)
file(WRITE words.txt "${text}\n")

set(json "{}")
foreach(i RANGE 10)
  string(JSON json SET "${json}" "key${i}" "[${i}, {\"deep\": ${i}}]")
endforeach()
string(JSON deep GET "${json}" key7 1 deep)
file(CONFIGURE OUTPUT out.json CONTENT "@json@" @ONLY)
message(STATUS "deep: ${deep}")
message(WARNING "after a warning the script goes on")
message(FATAL_ERROR "and ends here")
"""


def prepare(folder: Path) -> None:
    (folder / "script.cmake").write_text(_SCRIPT)


def test_runs_a_script_the_same_three_times_traced(tmp_path: Path) -> None:
    job = tracing.Job(corpus.program("cmake"), ["-P", "script.cmake"], tmp_path / "work", prepare)
    plain = tracing.runs_the_same_three_times_traced(job, tmp_path / "cmake.calltrace")
    assert plain.exit_code == 1
    assert b"fibonacci: 89" in plain.stderr
    assert b"deep: 7" in plain.stdout
    assert b"after a warning the script goes on" in plain.stderr
    assert b"and ends here" in plain.stderr
    assert plain.files["words.txt"].startswith(b"<1")
