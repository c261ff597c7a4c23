"""Prototypes of functions and COM methods: what their arguments are, and which of them draw or make objects.

A list has sections, `[module.dll]` of exported functions and `[Interface]` or `[Interface : Base]` of
methods, each of which has its slot in the vtable before its name:

    [d3d11.dll]
    D3D11CreateDevice(ptr adapter, UINT driver, ..., out ID3D11Device device)
    [ID3D11DeviceContext]
    13 draw void Draw(UINT vertices, UINT start)
    enum COLOR { RED, GREEN = 4, BLUE }

`draw` marks what draws; `out X` is a pointer to where an X is put, `X[16]` one to 16 bytes that are shown.
`this` is not written for a method. What is returned need not be said, and is not shown then. The constants of
an `enum`, which stands before where it is used, are shown by name. Lines that begin with # say nothing.
Slots: Microsoft's headers d3d9.h, d3d11.h, d3d12.h, dxgi.h, dxgi1_2.h.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from calltrace.errors import AccessRefused, UsageError
from calltrace.ports import Registers

_SECTION = re.compile(r"\[(\w[\w.-]*)(?:\s*:\s*(\w+))?\]\Z")
_FUNCTION = re.compile(r"(?:(\d+)\s+)?(draw\s+)?((?:[\w*]+\s+)*?)([A-Za-z_]\w*)\s*\((.*)\)\s*;?\Z")
_ENUM = re.compile(r"enum\s+(\w+)\s*\{(.*)\}\s*;?\Z")
_BYTES = re.compile(r"(\w+)\[(\d+)\]\Z")
_REGISTERS = ("rcx", "rdx", "r8", "r9")
_FLOATS = {"float": "<f", "FLOAT": "<f", "GLfloat": "<f", "double": "<d", "DOUBLE": "<d", "GLdouble": "<d"}
_STRINGS = {
    "LPSTR": "str",
    "LPCSTR": "str",
    "PCSTR": "str",
    "LPWSTR": "wstr",
    "LPCWSTR": "wstr",
    "PCWSTR": "wstr",
}
_CHARACTERS = {"char": "str", "CHAR": "str", "wchar_t": "wstr", "WCHAR": "wstr"}
_NO_TYPES = {
    "const",
    "struct",
    "IN",
    "OUT",
    "extern",
    "static",
    "inline",
    "virtual",
    "__fastcall",
    "__stdcall",
}
_NO_TYPES |= {"__cdecl", "WINAPI", "APIENTRY", "CALLBACK", "STDMETHODCALLTYPE"}
_MOST_BYTES = 1024
_LONGEST_STRING = 64
_SIGNED = {"int": 4, "long": 4, "INT": 4, "LONG": 4, "BOOL": 4, "HRESULT": 4, "short": 2, "INT64": 8}
_UNSIGNED = {"UINT": 4, "DWORD": 4, "ULONG": 4, "unsigned": 4, "GLenum": 4, "GLuint": 4, "enum": 4}
_UNSIGNED.update({"uint32_t": 4, "BYTE": 1, "WORD": 2, "USHORT": 2, "UINT64": 8, "SIZE_T": 8, "size_t": 8})
_SIGNED.update({"GLint": 4, "GLsizei": 4, "int32_t": 4, "int64_t": 8})

Read = Callable[[int, int], bytes]
Vectors = Callable[[], bytes]


@dataclass(frozen=True)
class Parameter:
    """One argument."""

    kind: str  # its type, as written; "ptr" for whatever is a pointer
    name: str
    out: bool = False  # a pointer to where one of these is put
    size: int = 0  # bytes that are shown of what it points to
    names: tuple[tuple[int, str], ...] = ()  # of the constants of an enum

    @property
    def is_float(self) -> bool:
        """Is it passed in a vector register?"""
        return self.kind in _FLOATS and not self.out and not self.size


@dataclass(frozen=True)
class Prototype:
    """A function, or a method of an interface."""

    owner: str  # module file or interface; empty: any
    name: str
    parameters: tuple[Parameter, ...]
    slot: int | None = None  # in the vtable; None: an exported function
    draws: bool = False
    returns: Parameter | None = None  # None: nothing, or it was not said

    def values(self, registers: Registers, read: Read, vectors: Vectors) -> dict[str, str]:
        """The arguments of a call whose thread stands at the function's start, by name, as text.

        `vectors` gives the thread's registers XMM0 to XMM15, 16 bytes each.
        """
        found = {}
        for position, parameter in enumerate(self.parameters):
            try:
                if parameter.is_float and position < len(_REGISTERS):
                    value = int.from_bytes(vectors()[16 * position : 16 * position + 8], "little")
                else:
                    value = raw(registers, read, position)
                found[parameter.name] = _text(parameter, value, read)
            except AccessRefused:
                found[parameter.name] = "?"
        return found

    def result(self, registers: Registers, read: Read, vectors: Vectors) -> str:
        """What a call has returned whose thread stands behind it, as text."""
        assert self.returns
        try:
            value = int.from_bytes(vectors()[:8], "little") if self.returns.is_float else registers.rax
            return _text(self.returns, value, read)
        except AccessRefused:
            return "?"


def raw(registers: Registers, read: Read, position: int) -> int:
    """The 64 bits in which argument `position` is passed, of a thread at a function's start."""
    if position < len(_REGISTERS):
        return int(getattr(registers, _REGISTERS[position]))
    return int.from_bytes(read(registers.rsp + 8 + 8 * position, 8), "little")


def _text(parameter: Parameter, value: int, read: Read) -> str:
    kind = parameter.kind
    if parameter.out:
        return f"{value:#x}"
    if parameter.size:
        return read(value, parameter.size).hex(" ") if value else "0x0"
    if parameter.names:
        return dict(parameter.names).get(value & 0xFFFFFFFF, f"{value & 0xFFFFFFFF}")
    if kind in _FLOATS:
        size = struct.calcsize(_FLOATS[kind])
        (number,) = struct.unpack(_FLOATS[kind], value.to_bytes(8, "little")[:size])
        return f"{number:.9g}" if size == 4 else repr(number)
    if kind == "HRESULT" and value & 0x80000000:
        return f"{value & 0xFFFFFFFF:#x}"
    if kind in _SIGNED:
        size = 8 * _SIGNED[kind]
        value &= (1 << size) - 1
        return str(value - (1 << size) if value >> size - 1 else value)
    if kind in _UNSIGNED:
        return str(value & (1 << 8 * _UNSIGNED[kind]) - 1)
    if kind == "str" and value:
        return repr(_string(read, value, 1).decode("utf-8", "replace"))
    if kind == "wstr" and value:
        return repr(_string(read, value, 2).decode("utf-16-le", "replace"))
    if kind == "first" and value:  # of an array of pointers: what tells one from another
        return f"{int.from_bytes(read(value, 8), 'little'):#x}"
    return f"{value:#x}"


def _string(read: Read, address: int, width: int) -> bytes:
    text = b""
    while len(text) < _LONGEST_STRING * width:
        character = read(address + len(text), width)
        if not any(character):
            break
        text += character
    return text


Enums = Mapping[str, "tuple[tuple[int, str], ...]"]


def parse_one(text: str, owner: str = "", enums: Enums = MappingProxyType({})) -> Prototype:
    """The prototype that a line states. UsageError if it states none."""
    parts = _FUNCTION.match(text.strip().replace("*", " * "))
    if not parts:
        raise UsageError(f"{text.strip()}: write NAME(TYPE NAME, ...) as a prototype")
    slot, draws, result, name, arguments = parts.groups()
    parameters = [
        _parameter(each, text, enums) for each in arguments.split(",") if each.strip(" ") not in ("", "void")
    ]
    if slot is not None:
        parameters.insert(0, Parameter("ptr", "this"))
    kind = " ".join(word for word in result.split() if word not in _NO_TYPES)
    returns = None if kind in ("", "void") else _parameter(f"{kind} returns", text, enums)
    number = None if slot is None else int(slot)
    return Prototype(owner, name, tuple(parameters), number, bool(draws), returns)


def _parameter(text: str, line: str, enums: Enums) -> Parameter:
    words = text.split()
    out = words[0] == "out"
    is_read = "const" in words  # what it points to, and not written
    words = [word for word in words[out:] if word not in _NO_TYPES]
    if words == ["this"]:
        return Parameter("ptr", "this")
    if len(words) < 2:
        raise UsageError(f"{line.strip()}: write a type and a name for each argument")
    name, kind = words[-1], words[0] if words[-2] == "*" or words[0] == "unsigned" else words[-2]
    if words[-3:-1] == ["long", "long"]:
        kind = "UINT64" if words[0] == "unsigned" else "INT64"
    shown = _BYTES.match(kind)
    if shown:
        if not 0 < int(shown[2]) <= _MOST_BYTES:
            raise UsageError(f"{line.strip()}: 1 to {_MOST_BYTES:,} bytes can be shown")
        return Parameter(shown[1], name, size=int(shown[2]))
    if "*" in words and not out:
        return Parameter(_CHARACTERS.get(kind, "ptr") if is_read and words.count("*") == 1 else "ptr", name)
    return Parameter(_STRINGS.get(kind, kind), name, out, names=enums.get(kind, ()))


def _parse_enum(line: str, text: str) -> tuple[tuple[int, str], ...]:
    """The constants of an enum. UsageError if one has no number that can be read."""
    found, following = [], 0
    for each in filter(None, map(str.strip, text.split(","))):
        name, _, number = each.partition("=")
        try:
            following = int(number, 0) if number else following
        except ValueError:
            raise UsageError(f"{line.strip()}: {number.strip()} is no number") from None
        found.append((following & 0xFFFFFFFF, name.strip()))
        following += 1
    return tuple(found)


class Prototypes:
    """A list of them."""

    def __init__(self, lines: Iterable[str]) -> None:
        """UsageError for a line that is none."""
        self.functions: list[Prototype] = []
        self._bases: dict[str, str] = {}
        self._enums: dict[str, tuple[tuple[int, str], ...]] = {}
        owner = ""
        for line in map(str.strip, lines):
            section, enum = _SECTION.match(line), _ENUM.match(line)
            if section:
                owner = section[1]
                if section[2]:
                    self._bases[owner] = section[2]
            elif enum:
                self._enums[enum[1]] = _parse_enum(line, enum[2])
            elif line and not line.startswith("#"):
                self.functions.append(parse_one(line, owner, self._enums))

    def parse(self, text: str) -> Prototype:
        """A prototype beside the list, with its enums. UsageError if it is none."""
        return parse_one(text, enums=self._enums)

    def kinds(self, interface: str) -> list[str]:
        """An interface and those that it is derived from."""
        found = [interface]
        while found[-1] in self._bases:
            found.append(self._bases[found[-1]])
        return found

    def methods(self, interface: str) -> list[Prototype]:
        """The methods of an interface that are known, with those of its bases."""
        kinds = self.kinds(interface)
        return [each for each in self.functions if each.owner in kinds and each.slot is not None]

    def method(self, text: str) -> Prototype | None:
        """The method that is written Interface::Method, whatever stands before it; None if none is known."""
        interface, colons, name = text.rpartition("!")[2].partition("::")
        return next((each for each in self.methods(interface) if colons and each.name == name), None)

    def makers(self) -> list[Prototype]:
        """Those that make objects of interfaces whose methods are known."""
        owners = {each.owner for each in self.functions if each.slot is not None} | set(self._bases)
        return [each for each in self.functions if any(p.out and p.kind in owners for p in each.parameters)]

    def exported(self) -> Sequence[Prototype]:
        """The exported functions."""
        return [each for each in self.functions if each.slot is None]


KNOWN = """
[d3d11.dll]
D3D11CreateDevice(ptr adapter, UINT driver, ptr software, UINT flags, ptr levels, UINT level_count, UINT sdk, out ID3D11Device device, ptr level, out ID3D11DeviceContext context)
D3D11CreateDeviceAndSwapChain(ptr adapter, UINT driver, ptr software, UINT flags, ptr levels, UINT level_count, UINT sdk, ptr about, out IDXGISwapChain chain, out ID3D11Device device, ptr level, out ID3D11DeviceContext context)
[ID3D11Device]
27 CreateDeferredContext(UINT flags, out ID3D11DeviceContext context)
40 GetImmediateContext(out ID3D11DeviceContext context)
[ID3D11DeviceContext]
9 PSSetShader(ptr shader, ptr instances, UINT count)
11 VSSetShader(ptr shader, ptr instances, UINT count)
12 draw DrawIndexed(UINT indices, UINT start, INT base)
13 draw Draw(UINT vertices, UINT start)
20 draw DrawIndexedInstanced(UINT indices, UINT instances, UINT start, INT base, UINT first)
21 draw DrawInstanced(UINT vertices, UINT instances, UINT start, UINT first)
33 OMSetRenderTargets(UINT count, first targets, ptr depth)
38 draw DrawAuto()
39 draw DrawIndexedInstancedIndirect(ptr buffer, UINT offset)
40 draw DrawInstancedIndirect(ptr buffer, UINT offset)
41 Dispatch(UINT x, UINT y, UINT z)
50 ClearRenderTargetView(ptr target, FLOAT[16] color)
53 ClearDepthStencilView(ptr view, UINT flags, float depth, BYTE stencil)
[dxgi.dll]
CreateDXGIFactory(ptr id, out IDXGIFactory2 factory)
CreateDXGIFactory1(ptr id, out IDXGIFactory2 factory)
CreateDXGIFactory2(UINT flags, ptr id, out IDXGIFactory2 factory)
[IDXGIFactory2]
10 CreateSwapChain(ptr device, ptr about, out IDXGISwapChain chain)
15 CreateSwapChainForHwnd(ptr device, ptr window, ptr about, ptr fullscreen, ptr output, out IDXGISwapChain1 chain)
[IDXGISwapChain]
8 HRESULT Present(UINT sync, UINT flags)
[IDXGISwapChain1 : IDXGISwapChain]
22 HRESULT Present1(UINT sync, UINT flags, ptr parameters)
[d3d9.dll]
Direct3DCreate9Ex(UINT sdk, out IDirect3D9 d3d)
[IDirect3D9]
16 CreateDevice(UINT adapter, UINT type, ptr window, UINT flags, ptr parameters, out IDirect3DDevice9 device)
[IDirect3DDevice9]
17 HRESULT Present(ptr from, ptr to, ptr window, ptr dirty)
41 BeginScene()
42 EndScene()
81 draw DrawPrimitive(UINT type, UINT start, UINT count)
82 draw DrawIndexedPrimitive(UINT type, INT base, UINT lowest, UINT vertices, UINT start, UINT count)
83 draw DrawPrimitiveUP(UINT type, UINT count, ptr vertices, UINT stride)
[d3d12.dll]
D3D12CreateDevice(ptr adapter, UINT level, ptr id, out ID3D12Device device)
[ID3D12Device]
8 CreateCommandQueue(ptr about, ptr id, out ID3D12CommandQueue queue)
12 CreateCommandList(UINT nodes, UINT type, ptr allocator, ptr state, ptr id, out ID3D12GraphicsCommandList list)
[ID3D12CommandQueue]
10 ExecuteCommandLists(UINT count, first lists)
[ID3D12GraphicsCommandList]
12 draw DrawInstanced(UINT vertices, UINT instances, UINT start, UINT first)
13 draw DrawIndexedInstanced(UINT indices, UINT instances, UINT start, INT base, UINT first)
14 Dispatch(UINT x, UINT y, UINT z)
[opengl32.dll]
enum GLprimitive { GL_POINTS, GL_LINES, GL_LINE_LOOP, GL_LINE_STRIP, GL_TRIANGLES, GL_TRIANGLE_STRIP, GL_TRIANGLE_FAN, GL_QUADS, GL_QUAD_STRIP, GL_POLYGON }
draw glBegin(GLprimitive mode)
glClearColor(float red, float green, float blue, float alpha)
glVertex2f(float x, float y)
draw glDrawArrays(GLprimitive mode, GLint first, GLsizei count)
draw glDrawElements(GLprimitive mode, GLsizei count, GLenum type, ptr indices)
draw glCallList(GLuint list)
BOOL wglSwapBuffers(ptr device)
[gdi32.dll]
BOOL SwapBuffers(ptr device)
[vulkan-1.dll]
int vkQueuePresentKHR(ptr queue, ptr about)
vkQueueSubmit(ptr queue, UINT count, ptr submits, ptr fence)
draw vkCmdDraw(ptr commands, UINT vertices, UINT instances, UINT start, UINT first)
draw vkCmdDrawIndexed(ptr commands, UINT indices, UINT instances, UINT start, INT base, UINT first)
"""  # noqa: E501 - one prototype a line
