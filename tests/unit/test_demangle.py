"""Names of functions, held against other demanglers: of what linkers, compilers and real programs have."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calltrace.pe import mangled, rust, undecorate
from calltrace.pe.demangle import readable
from rig import corpus
from rig.demanglers import by_binutils, by_llvm, llvm, standard_library, without_parameters

_ONLY_NAMES = ("access-specifier", "calling-convention", "member-type", "return-type", "variable-type")
# What LLVM shows as less than they are: functions as types; data, and scopes within functions.
_NOT_ASKED = re.compile(r"\$\$A[68]|[PQ]6|@@[34]|@@6B|\?(\d|[A-P]*@)\?\?")
_HASH = re.compile(r"(?<=\w)\[[0-9a-f]{1,16}\]")  # of a crate
_KIND = re.compile(r": (usize|u8|i32|bool)\b")  # of a number, where it says nothing new
RUST = """
_RNvCs1234_7mycrate3foo
_RNvC6_123foo3bar
_RNCNCNgCs6DXkGYLi8lr_2cc5spawn00B5_
_RNvMs2_NtCs6TQ7BcJpWCa_9measureme8countersNtB5_24InstructionsMinusRaw04203new
_RNvXs1v_NtCseQVuubCcFDg_12simd_adler324hashAhj5d_NtB8_11Adler32Hash4hash
_RNvXs_NtNtCsbuAQ7POY9C8_10serde_core3ser3fmtQNtNtCs8NwYtU1Mohg_4core3fmt9FormatterNtB6_10Serializer12serialize_u8
_RNvXsd_NtCsIfCcvQnfy6_12tracing_core5fieldDNtNtCs8NwYtU1Mohg_4core5error5ErrorNtNtBJ_6marker4SyncEL_NtB5_5Value6record
_RNvXs2_NtNtNtNtCsi4IsKQVxMg0_3std2os4unix3net6streamRNtB5_10UnixStreamNtNtBd_2io4Read8read_buf
_RNvNCNKNvNCNvNtCsaWJV4NmYLqe_18rustc_attr_parsing7context17ATTRIBUTE_PARSERS0s3_12STATE_OBJECT0s_023___RUST_STD_INTERNAL_VAL
_RINvNtCs8NwYtU1Mohg_4core9panicking13assert_failedNtNtB4_3cmp8OrderingBM_ECs50vtQ9z3K53_16rustc_const_eval
_RINbNbCskIICzLVDPPb_5alloc5alloc8box_freeDINbNiB4_5boxed5FnBoxuEp6OutputuEL_ECs1iopQbuBiw2_3std
_RINvC1a1fFG_RL0_hOmEuE
_RINvC1a1fFUKCTPxzEbEuKb1_Kln5_E
_RNvNvNvMs0_NtCsb3h5E4eLUA4_9rustc_abi6layoutINtB9_16LayoutCalculatorpE10univariant10___CALLSITE4META
_RNqCs4fqI2P2rA04_11utf8_identsu30____7hkackfecea1cbdathfdh9hlq6y
_ZN4core3fmt9Formatter3pad17h0123456789abcdefE
_ZN60_$LT$alloc..string..String$u20$as$u20$core..fmt..Display$GT$3fmt17h0123456789abcdefE
_ZN4core3ptr85drop_in_place$LT$std..rt..lang_start$LT$$LP$$RP$$GT$..$u7b$$u7b$closure$u7d$$u7d$$GT$17h0123456789abcdefE
""".split()


def symbols(library: Path) -> list[str]:
    """The mangled names of a library's functions."""
    which = ["-D"] if ".so" in library.name else []
    told = subprocess.run(["nm", *which, library], capture_output=True, text=True, check=False).stdout
    lines = (line.split() for line in told.splitlines())
    found = {line[2].partition("@")[0] for line in lines if len(line) == 3 and line[1] in "TtWwi"}
    return sorted(name for name in found if name.startswith("_Z"))


@pytest.mark.parametrize(("library", "least", "step"), [(standard_library, 4500, 1), (llvm, 3500, 8)])
def test_functions_are_named_as_binutils_name_them(
    library: Callable[[], Path], least: int, step: int
) -> None:
    names = symbols(library())[::step]
    told = {name: without_parameters(text) for name, text in zip(names, by_binutils(names, "-p"))}
    ours = {name: mangled.function_name(name) for name in names}
    known = {name: without_parameters(text) for name, text in ours.items() if text}
    assert known == {name: told[name] for name in known}
    assert len(known) >= least
    assert len(known) > 0.99 * len(names)


@pytest.mark.parametrize(("program", "least"), [("duckdb", 1500), ("clang-format", 0)])
def test_exports_of_microsofts_compiler_are_named_as_llvm_names_them(program: str, least: int) -> None:
    raw = corpus.program(program).read_bytes()
    found = {name.decode() for name in re.findall(rb"(?<=\0)\?[!-~]+@[A-Z0-9][!-~]*(?=\0)", raw)}
    names = sorted(name for name in found if "@@" in name and not _NOT_ASKED.search(name))
    told = dict(zip(names, by_llvm(names, *(f"--no-{part}" for part in _ONLY_NAMES))))
    told = {name: text for name, text in told.items() if text and not text.startswith("const ")}
    ours = {name: without_parameters(str(undecorate.function_name(name))) for name in told}
    assert ours == {name: without_parameters(text) for name, text in told.items()}
    assert len(told) >= least


def test_functions_of_rust_are_named_as_binutils_name_them() -> None:
    for name, told in zip(RUST, by_binutils(RUST)):
        assert told != name
        expected = re.sub(r"::h[0-9a-f]{16}\Z", "", _KIND.sub("", _HASH.sub("", told)))
        assert str(rust.function_name(name)).replace(" ", "") == expected.replace(" ", ""), name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("main", "main"),
        ("_Z", "_Z"),
        ("_Zone", "_Zone"),
        ("_Zcloud", "_Zcloud"),
        ("_RtlCompare", "_RtlCompare"),
        ("_RNG_init", "_RNG_init"),
        ("?", "?"),
        ("?eat", "?eat"),
        ("_ZN3zoo4Lion3eatEi", "zoo::Lion::eat"),
        ("_ZN3zoo5Löwe6frißtEi", "zoo::Löwe::frißt"),
        ("_ZN3zoo5Löwe4frißEi", "_ZN3zoo5Löwe4frißEi"),
        ("_ZN3zoo4Lion3eatEi.part.0", "zoo::Lion::eat.part.0"),
        ("_ZN3zoo4CageINS_4LionEEC2ERKS2_", "zoo::Cage<zoo::Lion>::Cage"),
        ("_ZZN3zoo4Lion3eatEiENKUliE_clEi", "zoo::Lion::eat::{lambda(int)#1}::operator()"),
        ("_ZThn8_N3zoo4Lion3eatEi", "non-virtual thunk to zoo::Lion::eat"),
        ("_ZNK3zoo4LioncvbEv", "zoo::Lion::operator bool"),
        ("?eat@Lion@zoo@@QEAAHH@Z", "zoo::Lion::eat"),
        ("??0?$Cage@VLion@@@zoo@@QEAA@XZ", "zoo::Cage<Lion>::Cage<Lion>"),
        ("??$?0H@Lion@zoo@@QEAA@H@Z", "zoo::Lion::Lion<int>"),
        ("??1Lion@zoo@@UEAA@XZ", "zoo::Lion::~Lion"),
        ("??BLion@zoo@@QEBA_NXZ", "zoo::Lion::operator bool"),
        ("??_GLion@zoo@@UEAAPEAXI@Z", "zoo::Lion::`scalar deleting destructor'"),
        ("??__Ethe_lion@zoo@@YAXXZ", "`dynamic initializer for 'zoo::the_lion''"),
        ("??2@YAPEAX_K@Z", "operator new"),
        ("_RNvCs1234_7mycrate3foo.llvm.8", "mycrate::foo"),
        ("_ZN3zoo3eat17h0123456789abcdefE.llvm.42", "zoo::eat"),
    ],
)
def test_a_name_is_readable_or_left_as_it_is(name: str, shown: str) -> None:
    assert readable(name) == shown


def base62(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return (base62(number // 62) if number >= 62 else "") + digits[number % 62]


@pytest.mark.parametrize(("first", "doubled"), [("C1a", "T{0}{0}E"), ("C1a", "M{0}{0}")])
def test_what_refers_to_itself_again_and_again_is_refused(first: str, doubled: str) -> None:
    """Each argument has the one before twice: much to show, or much that is read and not shown."""
    text, place = "INvC1a1f", 8
    text += first
    for _ in range(50):
        reference = f"B{base62(place - 1)}_"
        place = len(text)
        text += doubled.format(reference)
    assert rust.function_name(f"_R{text}E") is None


BEGINNINGS = (
    "_Z _ZZ _ZN1aI _ZN1aIX _ZN1aIXcl _ZN1aIXpl _ZN1acv _Z1fIU1a _ZNUl _R _RNv _RINvC1a1f _RINvC1a1fT _RXC1a "
    "? ?? ??__E ??__E? ??$ ?f@ ?a@?1?? ??$f@P6A ??$f@$1"
).split()
PIECES = (
    "Z N 1aI I X cl pl cv S_ T_ Dp P1a UlE_ Nv B_ T M X RL_ S ? ?? ?$a@ ?1?? $1? PEA V?$a@ P6A ??__E Y00"
).split()


@pytest.mark.parametrize("begin", BEGINNINGS)
def test_what_is_nested_without_end_is_left_soon(begin: str) -> None:
    for piece in PIECES:
        name = begin + piece * 5000
        assert readable(name)


@settings(max_examples=300)
@given(
    st.sampled_from(
        [
            "_ZN",
            "_Z",
            "_ZZ1fvEN",
            "_Z1fI",
            "_ZN1aIX",
            "_RNv",
            "_RINvC1a1f",
            "_RXC1a",
            "?",
            "??",
            "??$",
            "?a@?1??",
        ]
    ),
    st.text(alphabet="1234NSIEPKFLJtsa_ivTXZCDMRQOGBUpcdlrw?$@AHVY056h", max_size=60),
)
def test_whatever_is_mangled_is_read_or_left(begin: str, rest: str) -> None:
    assert readable(begin + rest)
