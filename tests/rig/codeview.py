"""Programs whose names are in a program database (PDB) and nowhere else: clang's, linked by LLVM's linker."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path

from rig import targets


def build(name: str) -> Path:
    """The program made of tests/targets/NAME.cpp with the flags that it names, and NAME.pdb beside it.

    Raises AssertionError with the compiler's words.
    """
    folder = targets.BUILT / "codeview" / name
    folder.mkdir(parents=True, exist_ok=True)
    program, source = folder / f"{name}.exe", targets.source_of(name)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        newest = max(file.stat().st_mtime for file in (source, Path(__file__)))
        if not program.is_file() or program.stat().st_mtime < newest:
            gcc = ["x86_64-w64-mingw32-gcc-posix", "-print-libgcc-file-name"]
            libraries = Path(subprocess.run(gcc, capture_output=True, text=True, check=True).stdout).parent
            command = [
                "clang++-14",
                "--target=x86_64-w64-mingw32",
                "-g",
                "-gcodeview",
                *targets.flags_of(name),
            ]
            command += ["-Wall", "-Wextra", "-Werror", "-fuse-ld=lld-14", "-nostdlib++", f"-L{libraries}"]
            command += [f"-Wl,--pdb={folder / name}.pdb", str(source), "-o", str(program)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    return program
