"""The names of C++ types and functions as Microsoft's compilers decorate them: ``.?AV?$Cage@VLion@@@zoo@@``.

What comes out is what a debugger shows: ``zoo::Cage<Lion>``, without the words class and struct. A function
is shown by its name alone. Format: as LLVM's demangler (llvm/lib/Demangle) reads
it.
"""

from __future__ import annotations

import re
from typing import TypeVar

from calltrace.pe.cpp import Reader, Type, UnknownError, limited, template

_KEPT = 10  # names and types that a digit can stand for
_DIMENSIONS = 64
_CV = {"A": "", "B": " const", "C": " volatile", "D": " const volatile"}
_MEMBER_CV = dict(zip("QRST", _CV.values()))
_POINTERS = {"A": "&", "B": "&", "P": "*", "Q": "*const", "R": "*volatile", "S": "*const volatile"}
_REFERENCES = {"$$Q": "&&", "$$R": "&&"}
_CONVENTIONS = {
    **dict.fromkeys("AB", "__cdecl"),
    **dict.fromkeys("EF", "__thiscall"),
    **dict.fromkeys("GH", "__stdcall"),
    **dict.fromkeys("IJ", "__fastcall"),
    **dict.fromkeys("QR", "__vectorcall"),
}
_BUILTIN = {
    "X": "void",
    "C": "signed char",
    "D": "char",
    "E": "unsigned char",
    "F": "short",
    "G": "unsigned short",
    "H": "int",
    "I": "unsigned int",
    "J": "long",
    "K": "unsigned long",
    "M": "float",
    "N": "double",
    "O": "long double",
    "_N": "bool",
    "_J": "__int64",
    "_K": "unsigned __int64",
    "_W": "wchar_t",
    "_Q": "char8_t",
    "_S": "char16_t",
    "_U": "char32_t",
    "$$T": "std::nullptr_t",
}
_OPERATORS = dict(
    zip(
        "23456789ACDEFGHIJKLMNOPQRSTUVWXYZ",
        "new delete = >> << ! == != [] -> * ++ -- - + & ->* / % < <= > >= , () ~ ^ | && || *= += -=".split(),
    )
)
_LONG_OPERATORS = {
    **{"_0": "/=", "_1": "%=", "_2": ">>=", "_3": "<<=", "_4": "&=", "_5": "|=", "_6": "^="},
    **{"_U": "new[]", "_V": "delete[]", "__L": "co_await", "__M": "<=>"},
}
# In place of a function's name.
_GENERATED = {
    "_7": "`vftable'",
    "_8": "`vbtable'",
    "_9": "`vcall'",
    "_D": "`vbase destructor'",
    "_E": "`vector deleting destructor'",
    "_F": "`default constructor closure'",
    "_G": "`scalar deleting destructor'",
    "_H": "`vector constructor iterator'",
    "_I": "`vector destructor iterator'",
    "_J": "`vector vbase constructor iterator'",
    "_L": "`eh vector constructor iterator'",
    "_M": "`eh vector destructor iterator'",
    "_N": "`eh vector vbase constructor iterator'",
    "_O": "`copy constructor closure'",
    "_T": "`local vftable constructor closure'",
    "__A": "`managed vector constructor iterator'",
    "__B": "`managed vector destructor iterator'",
    "__C": "`eh vector copy constructor iterator'",
}
_AROUND_MAIN = {"?__E": "`dynamic initializer for '", "?__F": "`dynamic atexit destructor for '"}
_CONSTRUCTOR, _DESTRUCTOR = "{ctor}", "{dtor}"  # until it is known of what
_LOCAL = re.compile(r"\?(\d|[A-P]*@)\?")
_WITH_THIS = frozenset("ABEFIJMNQRUV")  # member functions that are not static
_Kept = TypeVar("_Kept")
_WITHOUT_THIS = frozenset("CDKLSTYZ")


def type_name(decorated: str) -> str | None:
    """What a type descriptor's name says; None if it is none or of a kind that is not known here."""
    if not decorated.startswith(".?A"):
        return None
    return _Reader(decorated[3:]).whole()


def function_name(decorated: str) -> str | None:
    """The name of a function, which begins with ``?``; None if it is none or of a kind that is not known."""
    if not decorated.startswith("?"):
        return None
    reader = _Reader(decorated[1:])
    try:
        return limited(reader.named())
    except UnknownError:
        return None


class _Reader(Reader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._names: list[str] = []
        self._types: list[Type] = []

    def type(self) -> Type:
        """One type, without qualifiers of its own."""
        with self._nested():
            return self._type()

    def _type(self) -> Type:
        if self._take("T") or self._take("U") or self._take("V") or self._take("W4"):
            return Type(self._qualified())
        for code, mark in (*_REFERENCES.items(), *_POINTERS.items()):
            if self._take(code):
                return self._pointer(mark)
        if self._take("$$A6"):
            return self._function(this=False)
        if self._take("$$A8@@"):
            return self._function(this=True)
        if self._take("$$B"):
            return self.type()
        if self._take("$$C"):
            return self._with_cv()
        if self._take("Y"):
            return self._array()
        return Type(self._one_of(_BUILTIN))

    def _pointer(self, mark: str) -> Type:
        if self._take("6"):
            return self._function(this=False).pointed_to(mark)
        if self._take("8"):
            owner = self._qualified()
            return self._function(this=True).pointed_to(f"{owner}::{mark}")
        self._extended()
        if self._peek() in _MEMBER_CV:
            cv = _MEMBER_CV[self._next()]
            owner = self._qualified()
            pointee = self.type()
            return Type(pointee.before + cv, pointee.behind, pointee.convention).pointed_to(
                f"{owner}::{mark}"
            )
        return self._with_cv().pointed_to(mark)

    def _with_cv(self) -> Type:
        cv = self._one_of(_CV)
        return self.type().qualified(cv)

    def _extended(self) -> None:
        """__ptr64, __restrict, __unaligned: not shown."""
        while self._peek() in ("E", "I", "F"):
            self._next()

    def _array(self) -> Type:
        dimensions = [self._number() for _ in range(min(self._number(), _DIMENSIONS))]
        cv = self._one_of(_CV) if self._take("$$C") else ""
        of = self.type()
        sizes = "".join(f"[{size}]" if size else "[]" for size in dimensions)
        return Type(of.before + cv, sizes + of.behind, "")

    def _function(self, *, this: bool) -> Type:
        behind = ""
        if this:
            self._extended()
            reference = "&" if self._take("G") else "&&" if self._take("H") else ""
            behind = self._one_of(_CV) + reference
        convention = self._one_of(_CONVENTIONS)
        result = Type("") if self._take("@") else self._with_cv() if self._take("?") else self.type()
        behind = limited(f"({self._parameters()}){behind}")
        if self._take("_E"):
            behind += " noexcept"
        else:
            self._expect("Z")
        return Type(result.before, behind + result.behind, convention)

    def _parameters(self) -> str:
        if self._take("X"):
            return "void"
        found: list[str] = []
        while True:
            if self._take("@"):
                return ",".join(found)
            if self._take("Z"):
                return ",".join([*found, "..."])
            if self._peek().isdecimal():
                found.append(self._kept(self._types).text)
                continue
            begin = self._at
            each = self.type()
            if self._at - begin > 1 and len(self._types) < _KEPT:
                self._types.append(each)
            found.append(each.text)

    def _qualified(self) -> str:
        """A name with all that it is in, the innermost first."""
        with self._nested():
            pieces = [self._piece()]
            while not self._take("@"):
                pieces.append(self._piece())
            return limited("::".join(reversed(pieces)))

    def _piece(self) -> str:
        if self._peek().isdecimal():
            return self._kept(self._names)
        if self._take("?$"):
            return self._keep(self._template())
        if _LOCAL.match(self._text, self._at):
            return self._local()
        if self._take("?A"):
            self._until_at()
            return self._keep("`anonymous namespace'")
        return self._keep(self._until_at())

    def _template(self) -> str:
        outer = self._names, self._types
        self._names, self._types = [], []
        name = self._special() if self._take("?") else self._keep(self._until_at())
        arguments: list[str] = []
        while not self._take("@"):
            if not any(map(self._take, ("$S", "$$V", "$$$V", "$$Z"))):
                arguments.append(self._argument())
        self._names, self._types = outer
        return template(name, arguments)

    def _argument(self) -> str:
        if self._take("$0"):
            return str(self._number())
        if self._take("$M"):  # of a type that is deduced
            self.type()
            self._expect("0")
            return str(self._number())
        if self._take("$1"):
            return f"&{self._symbol()}"
        if self._take("$E"):
            return self._symbol()
        if self._take("$$Y"):
            return self._qualified()
        return self.type().text

    def _local(self) -> str:
        """A scope within a function."""
        self._expect("?")
        number = self._number()
        self._expect("?")
        return f"`{self._symbol()}'::`{number}'"

    def _symbol(self) -> str:
        """The name of a function or variable, whose type is read over."""
        self._expect("?")
        name = self.named()
        kind = self._next()
        if kind in _WITH_THIS or kind in _WITHOUT_THIS:
            self._function(this=kind in _WITH_THIS)
        elif kind in "01234":
            self.type()
            self._extended()
            self._one_of(_CV)
        elif kind != "9":
            raise UnknownError
        return name

    def named(self) -> str:
        """The name of a function or variable, behind its ``?``; its type is left unread."""
        with self._nested():
            return self._named()

    def _named(self) -> str:
        for code, what in _AROUND_MAIN.items():
            if self._take(code):
                if not self._take("?"):
                    return f"{what}{self._qualified()}''"
                return f"{what}{self.named()}''"
        if self._peek() != "?":
            return self._qualified()
        if self._text.startswith("?$", self._at):
            self._at += 2
            own = self._template()
            if not own.startswith("operator"):
                self._keep(own)
        elif self._take("?B"):
            return self._conversion()
        else:
            self._expect("?")
            own = self._special()
        pieces: list[str] = []
        while not self._take("@"):
            pieces.append(self._piece())
        scope = "::".join(reversed(pieces))
        for mark, sign in ((_CONSTRUCTOR, ""), (_DESTRUCTOR, "~")):
            if own.startswith(mark):
                if not pieces:
                    raise UnknownError
                own = f"{sign}{pieces[0]}{own[len(mark) :]}"
        return f"{scope}::{own}" if scope else own

    def _conversion(self) -> str:
        """An operator that is named by the type it returns."""
        scope = self._qualified()
        kind = self._next()
        if kind not in _WITH_THIS:
            raise UnknownError
        self._extended()
        if self._peek() in ("G", "H"):
            self._next()
        self._one_of(_CV)
        self._one_of(_CONVENTIONS)
        result = self._with_cv() if self._take("?") else self.type()
        return f"{scope}::operator {result.text}"

    def _special(self) -> str:
        """A name that a ``?`` and a code stand for."""
        if self._take("0"):
            return _CONSTRUCTOR
        if self._take("1"):
            return _DESTRUCTOR
        if self._take("__K"):
            return f'operator ""{self._until_at()}'
        for code, name in _GENERATED.items():
            if self._take(code):
                return name
        sign = self._operator()
        return f"operator{' ' if sign[0].isalpha() else ''}{sign}"

    def _operator(self) -> str:
        if self._peek() == "_":
            return self._one_of(_LONG_OPERATORS)
        return self._one_of(_OPERATORS)

    def _number(self) -> int:
        sign = -1 if self._take("?") else 1
        if self._peek().isdecimal():
            return sign * (int(self._next()) + 1)
        digits = self._until_at()
        if not re.fullmatch("[A-P]+", digits):
            raise UnknownError
        value = 0
        for digit in digits:
            value = value * 16 + ord(digit) - ord("A")
        return sign * value

    def _until_at(self) -> str:
        end = self._text.find("@", self._at)
        if end < 0:
            raise UnknownError
        found, self._at = self._text[self._at : end], end + 1
        return found

    def _keep(self, name: str) -> str:
        if len(self._names) < _KEPT and name not in self._names:
            self._names.append(name)
        return name

    def _kept(self, among: list[_Kept]) -> _Kept:
        number = int(self._next())
        if number >= len(among):
            raise UnknownError
        return among[number]
