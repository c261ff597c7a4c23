"""Names as people read them, whatever a compiler or linker has made of them."""

from __future__ import annotations

from calltrace.pe import mangled, rust, undecorate


def readable(name: str) -> str:
    """A function's name without its decoration, and without parameters; as it is if that is not understood.

    What gcc makes of parts of a function keeps what tells them apart: ``zoo::Lion::eat.part.0``.
    """
    if name.startswith("?"):
        return undecorate.function_name(name) or name
    if not name.startswith(("_Z", "_R")):
        return name
    found = rust.function_name(name)
    if found:
        return found
    whole, dot, behind = name.partition(".")
    found = mangled.function_name(whole)
    return f"{found}{dot}{behind}" if found else name
