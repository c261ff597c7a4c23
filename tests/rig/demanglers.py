"""Other demanglers, and what they show that ours leaves out."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

# What the ABI abbreviates, and binutils write out.
_WRITTEN_OUT = {
    "std::basic_string<char,std::char_traits<char>,std::allocator<char>>": "std::string",
    "std::basic_istream<char,std::char_traits<char>>": "std::istream",
    "std::basic_ostream<char,std::char_traits<char>>": "std::ostream",
    "std::basic_iostream<char,std::char_traits<char>>": "std::iostream",
}
_BEHIND_PARAMETERS = re.compile(r"(?:const|volatile|&)*(?=(?:\[abi:\w+\])?(?:::|[,>]|\Z))")
_FUNCTION = re.compile(r"(?<!operator)(?<!\{lambda)(?<=[\w'>)\]}=<+\-*/%^&|!~])\Z")


def by_llvm(names: Sequence[str], *options: str) -> list[str]:
    """What Microsoft's compilers decorated; "" for what LLVM does not know."""
    told = subprocess.run(
        ["llvm-undname-14", *options],
        input="\n".join([*names, ""]),
        capture_output=True,
        text=True,
        check=False,
    )
    blocks = [block.split("\n") for block in told.stdout.strip().split("\n\n")]
    assert [block[0] for block in blocks] == list(names)
    return ["".join(block[1:]) for block in blocks]


def by_binutils(names: Sequence[str], *options: str) -> list[str]:
    """What gcc, clang and rustc mangled."""
    told = subprocess.run(
        ["c++filt", *options], input="\n".join([*names, ""]), capture_output=True, text=True, check=True
    )
    return told.stdout.splitlines()


def standard_library() -> Path:
    """The C++ library of mingw."""
    gcc = ["x86_64-w64-mingw32-g++-posix", "-print-file-name=libstdc++.a"]
    return Path(subprocess.run(gcc, capture_output=True, text=True, check=True).stdout.strip())


def llvm() -> Path:
    """A large library that clang was made with."""
    return next(Path("/usr/lib/x86_64-linux-gnu").glob("libLLVM-14.so*"))


def without_parameters(shown: str) -> str:
    """A function's name without its parameters and those of functions it is in, without blanks and kinds."""
    text = re.sub(r"\b(class|struct|union|enum) ", "", shown).replace("__cdecl", "").replace("(void)", "()")
    text = re.sub(r"\bctor closure", "constructor closure", text)
    text = re.sub(r"\b(deleting|vbase) dtor", r"\1 destructor", text).replace(" ", "")
    for whole, short in _WRITTEN_OUT.items():
        own = whole[5 : whole.index("<")]
        for mark in ("", "~"):
            text = text.replace(f"{whole}::{mark}{own}", f"{short}::{mark}{short[5:]}")
        text = text.replace(whole, short)
    return "".join(_pieces(text))


def _pieces(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        if text[at] == "(" and not text.startswith("(anonymousnamespace)", at):
            end = _closing(text, at)
            behind = _BEHIND_PARAMETERS.match(text, end)
            if behind and _FUNCTION.search(text[:at]):
                at = behind.end()
                continue
        yield text[at]
        at += 1


def _closing(text: str, at: int) -> int:
    depth = 0
    for end in range(at, len(text)):
        depth += (text[end] == "(") - (text[end] == ")")
        if depth == 0:
            return end + 1
    return len(text)
