"""A display for Windows programs that draw: Xvfb, and a Wine prefix that shows its windows there.

The rig's own prefix may have no display: Wine chooses its driver when the first program in a prefix starts.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import os
import shutil
import subprocess

from calltrace import wine
from rig import windows

_MADE_FROM = ".update-timestamp"  # Wine writes it when it makes a prefix


@functools.cache
def environment() -> dict[str, str]:
    """What a Windows program needs in its environment to draw, beside that of `windows.environment`."""
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "800x600x24", "-nolisten", "tcp"],
        pass_fds=[writing],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading) as told:
        number = told.readline().strip()
    assert number, "Xvfb does not start: run `make setup`"
    changes = {"DISPLAY": f":{number}", "WINEPREFIX": str(_prefix())}
    atexit.register(server.wait)
    atexit.register(server.terminate)
    windows.keep_wine_running(*changes.items())
    return changes


def _prefix() -> str:
    """A copy of the rig's prefix, whose files are links: all but the registry's, which Wine replaces."""
    folder = wine.cache_folder() / "wine-display"
    with open(wine.cache_folder() / "wine-display.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = windows.PREFIX / _MADE_FROM
        if not (folder / _MADE_FROM).is_file() or (folder / _MADE_FROM).read_bytes() != stamp.read_bytes():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run(["cp", "-al", str(windows.PREFIX), str(folder)], check=True)
            for file in folder.glob("*.reg"):
                file.unlink()
                shutil.copyfile(windows.PREFIX / file.name, file)
    return str(folder)
