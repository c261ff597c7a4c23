"""Prototypes: what they state, and the arguments that they find in registers, on the stack and elsewhere."""

from __future__ import annotations

import struct

import pytest

from calltrace.errors import AccessRefused, UsageError
from calltrace.loop.prototypes import Parameter, Prototypes, parse_one
from calltrace.ports import Registers

STACK = 0x1000


def values(
    prototype: str, memory: dict[int, bytes], vectors: bytes = bytes(256), **registers: int
) -> dict[str, str]:
    def read(address: int, size: int) -> bytes:
        for base, data in memory.items():
            if base <= address and address + size <= base + len(data):
                return data[address - base : address - base + size]
        raise AccessRefused(f"{address:#x}")

    return parse_one(prototype).values(Registers(0, STACK, **registers), read, lambda: vectors)


def test_floating_arguments_are_in_the_vector_register_of_their_position() -> None:
    vectors = bytearray(256)
    struct.pack_into("<f", vectors, 0, 0.5)
    struct.pack_into("<d", vectors, 32, -1.25)
    stack = bytes(0x28) + struct.pack("<d", 1e100) + struct.pack("<f", 3.5) + b"\xee" * 4
    found = values(
        "float __fastcall f(float a, int b, double c, int d, double e, float f)",
        {STACK: stack},
        bytes(vectors),
        rdx=0xFFFFFFFFFFFFFFFE,
        r9=7,
    )
    assert found == {"a": "0.5", "b": "-2", "c": "-1.25", "d": "7", "e": "1e+100", "f": "3.5"}


def test_only_the_float_s_own_bytes_count() -> None:
    assert values("f(float a)", {}, struct.pack("<f", 2.0) + b"\xff" * 252) == {"a": "2"}


def test_strings_enums_and_bytes_are_read_where_they_lie() -> None:
    lines = Prototypes(["enum COLOR { RED, GREEN = 4, BLUE, LAST = 0x10 }"])
    prototype = lines.parse("f(COLOR a, COLOR b, const char *c, LPCWSTR d, RECT[6] e)")
    memory = {
        STACK: bytes(0x28) + struct.pack("<Q", 0x4000),
        0x2000: b"text\0",
        0x3000: "wide\0".encode("utf-16-le"),
        0x4000: bytes(range(6)),
    }

    def read(address: int, size: int) -> bytes:
        base = max(each for each in memory if each <= address)
        return memory[base][address - base : address - base + size]

    registers = Registers(0, STACK, rcx=5, rdx=0xAAAAAAAA00000003, r8=0x2000, r9=0x3000)
    assert prototype.values(registers, read, lambda: bytes(256)) == {
        "a": "BLUE",
        "b": "3",
        "c": "'text'",
        "d": "'wide'",
        "e": "00 01 02 03 04 05",
    }


def test_what_cannot_be_read_is_told_as_such() -> None:
    assert values("f(const char *a, X[4] b)", {}, rcx=0x5000, rdx=0) == {"a": "?", "b": "0x0"}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("f(int a)", None),
        ("void f(int a)", None),
        ("void WINAPI f()", None),
        ("int f(void)", "int"),
        ("static unsigned int __stdcall f(int a)", "unsigned"),
        ("double f(int a);", "double"),
        ("char *f(int a)", "ptr"),
        ("const char * f(int a)", "ptr"),
        ("unsigned long long f()", "UINT64"),
        ("8 HRESULT Present(UINT sync, UINT flags)", "HRESULT"),
        ("draw BOOL f(int a)", "BOOL"),
    ],
)
def test_what_a_function_returns(line: str, kind: str | None) -> None:
    returns = parse_one(line).returns
    assert (returns.kind if returns else None) == kind


@pytest.mark.parametrize(
    ("returns", "rax", "xmm0", "text"),
    [
        ("int", 0xFFFFFFFFFFFFFFFF, b"", "-1"),
        ("BYTE", 0x1FF, b"", "255"),
        ("INT64", 0xFFFFFFFFFFFFFFFE, b"", "-2"),
        ("HRESULT", 0x80070057, b"", "0x80070057"),
        ("HRESULT", 1, b"", "1"),
        ("double", 0, struct.pack("<d", 0.1), "0.1"),
        ("float", 0, struct.pack("<f", 0.1), "0.100000001"),
    ],
)
def test_what_was_returned_is_told(returns: str, rax: int, xmm0: bytes, text: str) -> None:
    prototype = parse_one(f"{returns} f()")

    def read(address: int, size: int) -> bytes:
        raise AssertionError

    assert prototype.result(Registers(0, 0, rax=rax), read, lambda: xmm0.ljust(256, b"\0")) == text


@pytest.mark.parametrize(
    "line", ["f", "f(int)", "enum A { B = x }", "f(X[0] a)", "f(X[9999] a)", "[a b]", "int 5f()", "f(int a"]
)
def test_what_is_no_prototype_is_refused(line: str) -> None:
    with pytest.raises(UsageError):
        Prototypes([line])


def test_a_method_s_object_is_its_first_argument() -> None:
    assert parse_one("13 draw Draw(UINT vertices, UINT start)").parameters[0] == Parameter("ptr", "this")
