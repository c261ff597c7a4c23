"""The first Python code that runs in a debugger: it finds our package and hands the command line over.

It is compiled into the plugin's DLL, since the package cannot be imported before it is found.
"""

from __future__ import annotations

import importlib
import os
import site
import sys
from types import ModuleType


def run(
    version: str, module: str, folder: str, library: str, python: str, packages: str, handle: int, line: str
) -> str:
    """Run a command line; "", or one line on why that was not possible.

    `version` is the plugin's, `library` its DLL and `handle` that as a module of this process; `module` is
    the one to answer, which a source tree has in `folder`; `python` is the DLL of Python, and `packages` the
    site-packages of a virtual environment, or "".
    """
    if packages and packages not in sys.path:
        site.addsitedir(packages)
    roots = _roots(library, folder)
    try:
        calltrace, host = _import(["calltrace", module], roots)
        theirs = getattr(calltrace, "__version__", "unknown")
        if theirs != version:
            where = os.path.dirname(calltrace.__file__ or "")
            return (
                f"calltrace: {library} is version {version}, but the Python package {where} is version "
                f"{theirs}: use both of one installation\n"
            )
        host.run(handle, line)
    except ModuleNotFoundError as error:
        if error.name not in ("calltrace", module.partition(".")[0]):
            return _broken(error)
        return (
            f"calltrace: the package {error.name} is neither in {' nor in '.join(roots)} nor installed for "
            f"{python}: install calltrace there, or name the folder it lies in in the environment variable "
            "CALLTRACE_PACKAGE\n"
        )
    except BaseException as error:  # nothing may reach the debugger
        return _broken(error)
    return ""


def _roots(library: str, folder: str) -> list[str]:
    """The folders our packages lie in: an installation has both in one, a source tree each in its own."""
    named = os.environ.get("CALLTRACE_PACKAGE")
    if named:
        return named.split(os.pathsep)
    root = os.path.dirname(os.path.dirname(os.path.dirname(library)))
    roots = [root, os.path.join(os.path.dirname(root), folder)]
    return [root for root in roots if os.path.isdir(root)]


def _import(modules: list[str], roots: list[str]) -> list[ModuleType]:
    """The modules, from `roots` if those have them.

    In the search path the roots come last afterwards: site-packages of another Python may be among them.
    """
    missing = [root for root in roots if root not in sys.path]
    sys.path[:0] = missing
    try:
        return [importlib.import_module(name) for name in modules]
    finally:
        for root in missing:
            sys.path.remove(root)
            sys.path.append(root)


def _broken(error: BaseException) -> str:
    return f"calltrace: the package cannot be used: {type(error).__name__}: {' '.join(str(error).split())}\n"
