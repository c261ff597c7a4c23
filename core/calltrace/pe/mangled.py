"""The names of C++ types and functions as gcc and clang mangle them: ``N3zoo4CageI4LionEE``.

What comes out is what a debugger shows: ``zoo::Cage<Lion>``; a function without its parameters. Format: the
Itanium C++ ABI, 5.1, "External Names".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from calltrace.pe.cpp import Reader, Type, UnknownError, limited, template

_BUILTIN = {
    "v": "void",
    "w": "wchar_t",
    "b": "bool",
    "c": "char",
    "a": "signed char",
    "h": "unsigned char",
    "s": "short",
    "t": "unsigned short",
    "i": "int",
    "j": "unsigned int",
    "l": "long",
    "m": "unsigned long",
    "x": "long long",
    "y": "unsigned long long",
    "n": "__int128",
    "o": "unsigned __int128",
    "f": "float",
    "d": "double",
    "e": "long double",
    "g": "__float128",
    "z": "...",
    "Di": "char32_t",
    "Ds": "char16_t",
    "Du": "char8_t",
    "Dn": "decltype(nullptr)",
    "Da": "auto",
    "Dc": "decltype(auto)",
}
_LIBRARY = {
    "Sa": "std::allocator",
    "Sb": "std::basic_string",
    "Ss": "std::string",
    "Si": "std::istream",
    "So": "std::ostream",
    "Sd": "std::iostream",
}
_QUALIFIERS = {"r": " restrict", "V": " volatile", "K": " const"}
_POINTERS = {"P": "*", "R": "&", "O": "&&"}
_SUFFIXES = {"i": "", "j": "u", "l": "l", "m": "ul", "x": "ll", "y": "ull"}  # of numbers
_ANONYMOUS = re.compile(r"_GLOBAL_[._$]N")
_LENGTH = re.compile(r"\d{1,5}")
_SIZE = re.compile(r"(\d*)_")
_SEQUENCE = re.compile(r"S([0-9A-Z]*)_")
_VALUE = re.compile(r"(n?[0-9a-f]*)E")
_OPERATORS = dict(
    zip(
        "nw na dl da aw ps ng ad de co pl mi ml dv rm an or eo aS pL mI mL dV rM aN oR eO ls rs lS rS eq ne "
        "lt gt le ge ss nt aa oo pp mm cm pm pt cl ix".split(),
        "new new[] delete delete[] co_await + - & * ~ + - * / % & | ^ = += -= *= /= %= &= |= ^= << >> <<= "
        ">>= == != < > <= >= <=> ! && || ++ -- , ->* -> () []".split(),
    )
)
_UNARY = ("ps", "ng", "ad", "de", "co", "nt", "pp_", "mm_", "pp", "mm", "sz", "az", "nx", "sp", "tw", "te")
_SPECIAL = {
    "TV": "vtable for",
    "TT": "VTT for",
    "TI": "typeinfo for",
    "TS": "typeinfo name for",
}
_OF_NAMES = {
    "TW": "TLS wrapper function for",
    "TH": "TLS init function for",
    "GV": "guard variable for",
}
_OFFSET = re.compile(r"h?n?\d*_|v?n?\d*_n?\d*_")
_NUMBER = re.compile(r"(\d*)_")
_DISCRIMINATOR = re.compile(r"_\d|__\d+_|")
_PARAMETER = re.compile(r"T(L\d*_)?\d*_")
_FUNCTION_PARAMETER = re.compile(r"f(L\d+)?p[rVK]*\d*_|fpT")
_STRUCTOR = re.compile(r"C[1-5]|D[0-5]|CI[12]")
_DECLARED = re.compile(r"T[yp]")  # a parameter of a template lambda


def type_name(mangled: str) -> str | None:
    """What a type's mangled name says; None if it is none or of a kind that is not known here."""
    name = _Reader(_bytes_of(mangled)).whole()
    return None if name is None else _text_of(name)


def function_name(mangled: str) -> str | None:
    """The name of a function, which begins with ``_Z``; None if it is none or of a kind that is not known."""
    if not mangled.startswith("_Z"):
        return None
    reader = _Reader(_bytes_of(mangled[2:]))
    try:
        name = reader.encoding()
        while not reader.ended():  # the parameters: else it is a name of C's that happens to begin so
            reader.type()
        return _text_of(limited(name))
    except UnknownError:
        return None


def _bytes_of(text: str) -> str:
    """A character for each byte of UTF-8, which is what lengths in a name count."""
    return text if text.isascii() else text.encode(errors="replace").decode("latin-1")


def _text_of(characters: str) -> str:
    return characters if characters.isascii() else characters.encode("latin-1").decode(errors="replace")


class _Reader(Reader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._known: list[Type] = []  # what S_, S0_, S1_ ... stand for

    def encoding(self) -> str:
        """The name of a function or variable; its type is left unread."""
        with self._nested():
            for code, what in _SPECIAL.items():
                if self._take(code):
                    return f"{what} {self.type().text}"
            for code, what in _OF_NAMES.items():
                if self._take(code):
                    return f"{what} {self._entity()}"
            if self._take("Tc"):
                self._matched(_OFFSET)
                self._matched(_OFFSET)
                return f"covariant return thunk to {self.encoding()}"
            if self._take("T"):
                kind = "virtual" if self._peek() == "v" else "non-virtual"
                self._matched(_OFFSET)
                return f"{kind} thunk to {self.encoding()}"
            return self._entity()

    def type(self) -> Type:
        """One type."""
        with self._nested():
            for code, name in _BUILTIN.items():
                if self._take(code):
                    return Type(name)
            return self._compound() or self._named()

    def _compound(self) -> Type | None:
        """A type made of others."""
        for code, mark in _POINTERS.items():
            if self._take(code):
                return self._keep(self.type().pointed_to(mark))
        if self._take("M"):
            owner = self.type().text
            return self._keep(self.type().pointed_to(f"{owner}::*"))
        if self._take("Dp"):
            return self._keep(self.type())
        if self._take("Dt") or self._take("DT"):
            kind = Type(f"decltype({self._expression()})")
            self._expect("E")
            return self._keep(kind)
        if self._take("Dv"):
            size = self._matched(_NUMBER)[1]
            return self._keep(Type(f"{self.type().text} __vector({size})"))
        for code in ("C", "G"):
            if self._take(code):
                return self._keep(self.type().qualified(" _Complex" if code == "C" else " _Imaginary"))
        if self._take("U"):
            mark = self._source()
            if self._take("I"):
                mark = template(mark, list(self._until_end()))
            return self._keep(self.type().qualified(f" {mark}"))
        if self._take("u"):
            return self._keep(Type(self._source()))
        parameter = self._parameter()
        if parameter:
            kept = self._keep(parameter)
            return self._keep(self._arguments(kept)) if self._take("I") else kept
        for code in ("Ts", "Tu", "Te"):
            if self._take(code):
                return self._named()
        qualifiers = ""
        while self._peek() in _QUALIFIERS:
            qualifiers = _QUALIFIERS[self._next()] + qualifiers
        if qualifiers:
            of = self.type()
            if of.convention is not None and of.behind.startswith("("):  # a member function's
                return self._keep(of._replace(behind=of.behind + qualifiers))
            return self._keep(of.qualified(qualifiers))
        is_noexcept = self._take("Do")
        if is_noexcept and self._peek() != "F":
            raise UnknownError
        if self._take("F"):
            self._take("Y")
            result = self.type()
            return self._keep(Type(result.before, f"({self._parameters()}){result.behind}", ""))
        if self._take("A"):
            size = self._matched(_SIZE)[1]
            of = self.type()
            return self._keep(Type(of.before, f"[{size}]{of.behind}", ""))
        return None

    def _parameters(self) -> str:
        found = []
        while not self._take("E"):
            if self._take("R") or self._take("O"):  # a member function's own, if nothing is behind it
                if self._take("E"):
                    break
                self._at -= 1
            found.append(self.type().text)
        return "" if found == ["void"] else ",".join(found)

    def _parameter(self) -> Type | None:
        """A template's parameter; what it stands for is not looked for."""
        found = _PARAMETER.match(self._text, self._at)
        if not found:
            return None
        self._at = found.end()
        return Type("auto")

    def _entity(self) -> str:
        """The name of a function or variable, which by itself stands in no sequence of known names."""
        with self._nested():
            return self._any_entity()

    def _any_entity(self) -> str:
        if self._take("N"):
            return self._nested_name(is_type=False).text
        if self._take("Z"):
            return self._local()
        if self._peek() == "S" and self._text[self._at : self._at + 2] != "St":
            return self._arguments_behind(self._substitution())
        scope = "std::" if self._take("St") else ""
        name = Type(scope + self._unqualified(""))
        if self._peek_or_end() != "I":
            return name.text
        return self._arguments_behind(self._keep(name))

    def _arguments_behind(self, of: Type) -> str:
        self._expect("I")
        return self._arguments(of).text

    def _peek_or_end(self) -> str:
        return "" if self.ended() else self._peek()

    def _local(self) -> str:
        """What is within a function."""
        scope = self.encoding()
        while not self._take("E"):
            self.type()
        if self._take("s"):
            name = f"{scope}::string literal"
        elif self._take("d"):
            self._matched(_NUMBER)
            name = f"{scope}::{{default arg}}::{self._entity()}"
        else:
            name = f"{scope}::{self._entity()}"
        self._matched(_DISCRIMINATOR)
        return limited(name)

    def _named(self) -> Type:
        if self._take("N"):
            return self._nested_name()
        if self._take("Z"):
            name = self._keep(Type(self._local()))
            return self._keep(self._arguments(name)) if self._take("I") else name
        if self._take("St"):
            name = self._keep(Type(f"std::{self._source()}"))
        elif self._peek() == "S":
            name = self._substitution()
        else:
            name = self._keep(Type(self._unqualified("")))
        return self._keep(self._arguments(name)) if self._take("I") else name

    def _nested_name(self, is_type: bool = True) -> Type:
        name = Type("")
        if not is_type:
            while self._peek() in "rVKRO":
                self._next()
        known = len(self._known)
        while not self._take("E"):
            known = len(self._known)
            if self._take("St"):
                name = Type("std")
            elif self._peek() == "S":
                name = self._substitution()
            elif self._take("I"):
                name = self._keep(self._arguments(name))
            elif self._text.startswith(("Dt", "DT", "T"), self._at):
                name = self._compound() or self._named()
            else:
                inner = self._unqualified(name.text)
                name = self._keep(Type(f"{name.text}::{inner}" if name.before else inner))
                self._take("M")  # of what initializes a member
        if not is_type and len(self._known) > known:
            self._known.pop()  # a function is referred to by nobody
        return name

    def _unqualified(self, scope: str) -> str:
        """The innermost piece of a name; `scope` is what it is in."""
        self._take("L")  # of one source file
        structor = _STRUCTOR.match(self._text, self._at)
        if self._peek().isdecimal():
            return self._source()
        if structor:
            self._at = structor.end()
            if structor[0].startswith("CI"):
                self.type()
            name = f"{'~' if structor[0][0] == 'D' else ''}{_own_name(scope)}"
        elif self._take("Ut"):
            name = f"{{unnamed type#{self._ordinal()}}}"
        elif self._take("Ul"):
            name = self._lambda()
        elif self._take("DC"):
            found = []
            while not self._take("E"):
                found.append(self._source())
            name = f"[{','.join(found)}]"
        elif self._take("cv"):
            name = f"operator {self.type().text}"
        elif self._take("li"):
            name = f'operator"" {self._source()}'
        else:
            sign = self._one_of(_OPERATORS)
            name = f"operator{' ' if sign[0].isalpha() else ''}{sign}"
        return name + self._versions()

    def _lambda(self) -> str:
        while _DECLARED.match(self._text, self._at):
            self._at += 2
        parameters = self._parameters()
        return f"{{lambda({parameters})#{self._ordinal()}}}"

    def _ordinal(self) -> int:
        digits = self._matched(_NUMBER)[1]
        return int(digits) + 2 if digits else 1

    def _source(self) -> str:
        """A name with its length in front."""
        length = int(self._matched(_LENGTH)[0])
        name = self._text[self._at : self._at + length]
        if not length or len(name) < length:
            raise UnknownError
        self._at += length
        name = "(anonymous namespace)" if _ANONYMOUS.match(name) else name
        return name + self._versions()

    def _versions(self) -> str:
        """What tells apart two versions of the same."""
        if not self._take("B"):
            return ""
        with self._nested():
            return f"[abi:{self._source()}]"

    def _substitution(self) -> Type:
        for code, name in _LIBRARY.items():
            if self._take(code):
                return Type(name)
        digits = self._matched(_SEQUENCE)[1]
        number = int(digits, 36) + 1 if digits else 0
        if number >= len(self._known):
            raise UnknownError
        return self._known[number]

    def _arguments(self, of: Type) -> Type:
        return Type(template(of.text, list(self._until_end())))

    def _until_end(self) -> Iterator[str]:
        while not self._take("E"):
            if self._take("J"):  # several in place of one
                with self._nested():
                    yield from self._until_end()
            elif self._peek() == "L":
                yield self._literal()
            elif self._take("X"):
                yield self._expression()
                self._expect("E")
            else:
                yield self.type().text

    def _literal(self) -> str:
        self._expect("L")
        if self._take("_Z") or self._take("Z"):
            name = self.encoding()
            while not self._take("E"):
                self.type()
            return name
        code = self._peek()
        kind = self.type().text
        if kind == _BUILTIN["Dn"]:
            self._take("0")
            self._expect("E")
            return "nullptr"
        value = self._matched(_VALUE)[1].replace("n", "-")
        if code == "b":
            return "true" if value == "1" else "false"
        return value + _SUFFIXES[code] if code in _SUFFIXES else f"({kind}){value}"

    def _expression(self) -> str:
        """What is computed from a template's parameters; of what is seldom met no more than what it is."""
        with self._nested():
            return limited(self._any_expression())

    def _any_expression(self) -> str:
        if self._peek() == "L":
            return self._literal()
        parameter = self._parameter()
        if parameter:
            return parameter.text
        if _FUNCTION_PARAMETER.match(self._text, self._at):
            self._matched(_FUNCTION_PARAMETER)
            return "parameter"
        for code in ("st", "at", "ti"):
            if self._take(code):
                return f"{'alignof' if code == 'at' else 'sizeof'} ({self.type().text})"
        if self._take("sZ"):
            return f"sizeof...({self._expression()})"
        if self._take("gs"):
            return self._expression()
        if self._take("sr"):
            return self._unresolved()
        if self._take("on"):
            return self._member()
        for code in ("sc", "dc", "cc", "rc"):
            if self._take(code):
                kind = self.type().text
                return f"({kind}){self._expression()}"
        if self._take("cv"):
            kind = self.type().text
            return f"{kind}({', '.join(self._expressions()) if self._take('_') else self._expression()})"
        if self._take("tl"):
            return f"{self.type().text}{{{','.join(self._expressions())}}}"
        if self._take("il"):
            return f"{{{','.join(self._expressions())}}}"
        if self._take("cl") or self._take("cp"):
            called, *given = self._expressions()
            return f"{called}({','.join(given)})"
        if self._take("dt") or self._take("pt"):
            return f"{self._expression()}.{self._member()}"
        if self._take("qu"):
            return f"{self._expression()}?{self._expression()}:{self._expression()}"
        if self._peek().isdecimal():
            return self._member()
        for code in _UNARY:
            if self._take(code):
                return f"{_OPERATORS.get(code[:2], code + ' ')}{self._expression()}"
        sign = self._one_of(_OPERATORS)
        return f"({self._expression()}){sign}({self._expression()})"

    def _unresolved(self) -> str:
        """A name in what only the template's parameters tell: a type, or scopes up to an E, or both."""
        scope: list[str] = []
        begins_with_type = self._take("N")
        has_scopes = begins_with_type or self._peek().isdecimal()
        if begins_with_type or not has_scopes:
            scope.append(self.type().text)
        while has_scopes and not self._take("E"):
            scope.append(self._member())
        return "::".join([*scope, self._member()])

    def _expressions(self) -> Iterator[str]:
        while not self._take("E"):
            yield self._expression()

    def _member(self) -> str:
        """A name within what is known only when the template is used."""
        self._take("on")
        name = self._unqualified("")
        return self._arguments(Type(name)).text if self._take("I") else name

    def _keep(self, name: Type) -> Type:
        limited(name.text)
        self._known.append(name)
        return name


def _own_name(scope: str) -> str:
    """The last piece of a class's name, without its arguments."""
    depth, end = 0, len(scope)
    for at in range(len(scope) - 1, -1, -1):
        if scope[at] in ">)}]":
            depth += 1
        elif scope[at] in "<({[":
            depth -= 1
            if depth == 0 and scope[at] in "<[":
                end = at
        elif depth == 0 and scope[at] == ":":
            return scope[at + 1 : end]
    return scope[:end]
