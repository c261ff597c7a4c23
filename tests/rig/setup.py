"""Make everything calltrace needs outside its source tree, in the cache folder; each step only once.

Run by setup.sh with Debian's own Python, standard library only. Every archive is pinned by version and
SHA-256: those from PyPI in requirements/*.txt, the two from Debian bullseye below.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

RIG = Path(__file__).resolve().parent
TREE = RIG.parent.parent
REQUIREMENTS = RIG / "requirements"
sys.path.insert(0, str(TREE / "core"))

from calltrace import wine  # noqa: E402

CACHE = wine.cache_folder()
DOWNLOADS = CACHE / "downloads"
VENV = CACHE / "venv"
PYTHON_WIN = CACHE / "python-win"
CORPUS = CACHE / "corpus"
ZIG = CACHE / "zig"
READERS = CACHE / "readers"

# The .py files of the standard library: Windows' python39.dll comes without them.
BULLSEYE = {
    "libpython3.9-minimal=3.9.2-1": "594283526d67e03e3c4e96534f6bfe5da1bf41da5d49360553c9b79fbf08c4ab",
    "libpython3.9-stdlib=3.9.2-1": "32ac64d959ac2dbc5bb289532fc9834dab8f671b5455695a3a9315aad973c65b",
}

# npm's packages with the schema of speedscope's files, and with the trace engine of Chrome's DevTools.
NODE_PACKAGES = {
    "speedscope@1.25.0": "2831f1e0d26df914b477e522d78b8485511495a6af81a0b88158f8b48f9e0d03",
    "@paulirish/trace_engine@0.0.65": "bd819996886a9887ff9d8944f6b304b0909a0db997089a32cc31e2e49a8019fe",
}
# Packages that the trace engine wants, but not for what is read of ours.
UNUSED = ("third-party-web", "legacy-javascript")

WEB_PACKAGES = TREE / "core" / "calltrace" / "export" / "web" / "packages.json"

# By LLVM, and by Zig's own code generator and linker, which make no unwind data.
ZIG_PROGRAMS = {"llvm": ["-OReleaseSafe"], "self-hosted": ["-ODebug", "-fno-llvm", "-fno-lld"]}


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command of a step and return what it printed; its output is shown only if it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"setup: {command[0]} failed with exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def fresh(folder: Path) -> Path:
    """`folder`, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def step(what: str, inputs: Iterable[Path | str], make: Callable[[], None]) -> None:
    """Do `make` unless it was done before with the same inputs (files by their content)."""
    digest = hashlib.sha256()
    for item in inputs:
        digest.update(item.read_bytes() if isinstance(item, Path) else item.encode())
        digest.update(b"\0")
    stamp = CACHE / "stamps" / what.replace(" ", "-")
    if stamp.is_file() and stamp.read_text() == digest.hexdigest():
        return
    print(f"setup: {what} ...", flush=True)
    begin = time.monotonic()
    stamp.unlink(missing_ok=True)
    make()
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(digest.hexdigest())
    print(f"setup: {what}: done in {time.monotonic() - begin:.0f} s", flush=True)


def pip_download(requirements: Path, *options: str) -> list[Path]:
    """The archives named by a requirements file with hashes, downloaded without their dependencies."""
    with tempfile.TemporaryDirectory(dir=DOWNLOADS) as folder:
        pip: list[str | Path] = [
            VENV / "bin" / "python",
            "-m",
            "pip",
            "--disable-pip-version-check",
            "download",
            "--quiet",
        ]
        run(*pip, "--no-deps", "--require-hashes", "--dest", folder, *options, "--requirement", requirements)
        return [archive.replace(DOWNLOADS / archive.name) for archive in sorted(Path(folder).iterdir())]


def windows_wheels(requirements: Path) -> list[Path]:
    """The same, as wheels for Windows' CPython 3.9."""
    return pip_download(requirements, "--only-binary=:all:", "--platform=win_amd64", "--python-version=3.9")


def unpack_wheels(wheels: Iterable[Path], folder: Path) -> None:
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)


def make_venv() -> None:
    run(sys.executable, "-m", "venv", "--clear", VENV)
    pip: list[str | Path] = [
        VENV / "bin" / "python",
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
    ]
    run(*pip, "--require-hashes", "--requirement", REQUIREMENTS / "linux.txt")


def make_prefix() -> None:
    wine.ensure_prefix(CACHE / "wine")


def debian_mirrors() -> list[str]:
    """The addresses apt gets Debian from on this machine; none before its first `apt-get update`."""
    debian = ["Created-By: Packages", "Origin: Debian", "Label: Debian", "Component: main"]
    return run("apt-get", "indextargets", "--format", "$(REPO_URI)", *debian).split()


def bullseye_packages() -> list[Path]:
    """Two packages of Debian 11, by apt from this machine's own mirror but apart from its package state."""
    mirrors = debian_mirrors()
    if not mirrors:
        run(*([] if os.geteuid() == 0 else ["sudo"]), "apt-get", "-q", "update")
        mirrors = debian_mirrors()
    if not mirrors:
        sys.exit("setup: apt knows no mirror of Debian: add one to its sources")
    apt = fresh(DOWNLOADS / "apt")
    for folder in ("lists/partial", "archives/partial", "sources.list.d"):
        (apt / folder).mkdir(parents=True)
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (apt / "sources.list").write_text(f"deb [signed-by={keyring}] {mirrors[0]} bullseye main\n")
    (apt / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{apt}/sources.list";\n'
        f'Dir::Etc::sourceparts "{apt}/sources.list.d";\n'
        f'Dir::State "{apt}";\n'
        'Dir::State::status "/dev/null";\n'
        f'Dir::Cache "{apt}";\n'
        'APT::Sandbox::User "root";\n'
        'Acquire::Languages "none";\n'
    )
    private = {**os.environ, "APT_CONFIG": str(apt / "apt.conf")}
    run("apt-get", "-q", "update", env=private)
    run("apt-get", "-q", "download", *BULLSEYE, cwd=apt, env=private)
    packages = []
    for name, pinned in BULLSEYE.items():
        [package] = apt.glob(name.replace("=", "_") + "_*.deb")
        found = hashlib.sha256(package.read_bytes()).hexdigest()
        if found != pinned:
            sys.exit(f"setup: {package.name} has SHA-256 {found}, not {pinned}")
        packages.append(package.replace(DOWNLOADS / package.name))
    shutil.rmtree(apt)
    return packages


def make_windows_python() -> None:
    home = fresh(PYTHON_WIN)
    (home / "DLLs").mkdir()
    [panda3d] = windows_wheels(REQUIREMENTS / "panda3d.txt")
    with zipfile.ZipFile(panda3d) as wheel:
        for name in wheel.namelist():
            folder, _, file = name.rpartition("/")
            # Wine brings the api-ms-* forwarders itself.
            if folder == "deploy_libs" and not file.startswith("api-ms-"):
                beside_exe = file.lower() in ("python39.dll", "vcruntime140.dll")
                (home / file if beside_exe else home / "DLLs" / file).write_bytes(wheel.read(name))
    with tempfile.TemporaryDirectory(dir=DOWNLOADS) as folder:
        for package in bullseye_packages():
            run("dpkg", "-x", package, folder)
        library = Path(folder, "usr/lib/python3.9")
        (library / "sitecustomize.py").unlink()
        shutil.copytree(library, home / "Lib", ignore=shutil.ignore_patterns("lib-dynload"))
    unpack_wheels(windows_wheels(REQUIREMENTS / "windows.txt"), home / "Lib" / "site-packages")


def make_python_exe() -> None:
    compile_it = ["x86_64-w64-mingw32-gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-municode"]
    run(*compile_it, "-o", PYTHON_WIN / "python.exe", RIG / "python.c", PYTHON_WIN / "python39.dll")
    prefix = wine.ensure_prefix(CACHE / "wine")
    bare = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    check = "import capstone, ctypes, duckdb, json, keystone, pefile, pyarrow.parquet, struct"
    run("wine", PYTHON_WIN / "python.exe", "-c", check, env=wine.environment(prefix, bare))


def make_capstone_source() -> None:
    [archive] = pip_download(REQUIREMENTS / "capstone.txt", "--no-binary=:all:", "--no-build-isolation")
    with tarfile.open(archive) as sources, tempfile.TemporaryDirectory(dir=CACHE) as folder:
        sources.extractall(folder)
        [unpacked] = Path(folder).glob("capstone-*/src")
        (CACHE / "src").mkdir(exist_ok=True)
        shutil.rmtree(CACHE / "src" / "capstone", ignore_errors=True)
        unpacked.replace(CACHE / "src" / "capstone")


def make_measured_sources() -> None:
    """What rig.measured builds: of each archive the folder that holds the program's own source."""
    folders = {
        "fasttext": "src",
        "quickjs": "upstream-quickjs",
        "zstd": "zstd",
    }
    archives = pip_download(REQUIREMENTS / "measured.txt", "--no-binary=:all:", "--no-build-isolation")
    for archive, (name, folder) in zip(archives, folders.items()):
        with tarfile.open(archive) as sources, tempfile.TemporaryDirectory(dir=CACHE) as unpacked:
            sources.extractall(unpacked)
            [source] = Path(unpacked).glob(f"*/{folder}")
            shutil.rmtree(CACHE / "src" / name, ignore_errors=True)
            source.replace(CACHE / "src" / name)


def make_corpus() -> None:
    unpack_wheels(windows_wheels(REQUIREMENTS / "corpus.txt"), fresh(CORPUS))
    for program in ("ripgrep-14.1.0.data/scripts", "ruff-0.1.8.data/scripts"):
        library = CORPUS / program / "bcryptprimitives.dll"
        compile_it = ["x86_64-w64-mingw32-gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared"]
        run(*compile_it, "-o", library, RIG / "bcryptprimitives.c", "-ladvapi32")


def make_zig_programs() -> None:
    """Zig's resource compiler for Windows, made by both of Zig's code generators from the wheel's sources."""
    [wheel] = pip_download(REQUIREMENTS / "zig.txt", "--only-binary=:all:")
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        unpack_wheels([wheel], Path(folder))
        zig, sources = Path(folder, "ziglang", "zig"), Path(folder, "ziglang", "lib", "compiler")
        zig.chmod(0o755)
        # A module's files lie in its root file's folder: resinator's are in two.
        (sources / "rc.zig").write_text('pub const main = @import("resinator/main.zig").main;\n')
        (sources / "options.zig").write_text("pub const enable_tracy = false;\n")
        command = [zig, "build-exe", "-target", "x86_64-windows-gnu", "--name", "rc"]
        modules = ["--dep", "aro", f"-Mroot={sources}/rc.zig", "--dep", "build_options"]
        modules += [f"-Maro={sources}/aro/aro.zig", f"-Mbuild_options={sources}/options.zig"]
        caches = dict.fromkeys(("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"), folder)
        for name, choices in ZIG_PROGRAMS.items():
            run(*command, *choices, *modules, cwd=fresh(ZIG / name), env={**os.environ, **caches})


def unpack_node_package(package: str, pinned: str, folder: Path) -> None:
    """One of npm's packages, without those that it requires."""
    with tempfile.TemporaryDirectory(dir=DOWNLOADS) as packed:
        run("npm", "pack", "--silent", package, cwd=Path(packed))
        [archive] = Path(packed).iterdir()
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != pinned:
            sys.exit(f"setup: {package} has SHA-256 {found}, not {pinned}")
        with tarfile.open(archive) as files, tempfile.TemporaryDirectory(dir=CACHE) as unpacked:
            files.extractall(unpacked)
            Path(unpacked, "package").replace(folder)


def make_readers() -> None:
    """Packages that read exports; what these require themselves is not needed for it."""
    unpack_wheels(pip_download(REQUIREMENTS / "readers.txt", "--only-binary=:all:"), fresh(READERS))
    for package, pinned in NODE_PACKAGES.items():
        unpack_node_package(package, pinned, READERS / re.sub(r"^@\w+/|@[\d.]+$", "", package))
    for name in UNUSED:
        unused = READERS / "trace_engine" / "node_modules" / name
        unused.mkdir(parents=True)
        (unused / "package.json").write_text('{"type": "module", "main": "index.js"}')
        (unused / "index.js").write_text("export default {};")


def make_web_packages() -> None:
    """What the pages of `report` are built on, as its packages have it."""
    folder = fresh(CACHE / "web")
    for told in json.loads(WEB_PACKAGES.read_text(encoding="utf-8")):
        unpack_node_package(told["package"], told["sha256"], folder / told["package"].partition("@")[0])


def main() -> None:
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "setup.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        step("Python tools", [REQUIREMENTS / "linux.txt", sys.version], make_venv)
        step("Capstone source", [REQUIREMENTS / "capstone.txt"], make_capstone_source)
        step("sources to measure", [REQUIREMENTS / "measured.txt"], make_measured_sources)
        step("Wine prefix", [], make_prefix)
        pins: list[Path | str] = [REQUIREMENTS / "panda3d.txt", REQUIREMENTS / "windows.txt", *BULLSEYE]
        step("Windows Python", pins, make_windows_python)
        step("Windows python.exe", [*pins, RIG / "python.c"], make_python_exe)
        step("test corpus", [REQUIREMENTS / "corpus.txt", RIG / "bcryptprimitives.c"], make_corpus)
        step(
            "readers of exports", [REQUIREMENTS / "readers.txt", repr((NODE_PACKAGES, UNUSED))], make_readers
        )
        step("packages of web pages", [WEB_PACKAGES], make_web_packages)
        step("Zig programs", [REQUIREMENTS / "zig.txt", repr(ZIG_PROGRAMS)], make_zig_programs)
    print(f"setup: ready in {CACHE}")


if __name__ == "__main__":
    main()
