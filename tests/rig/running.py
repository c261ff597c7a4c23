"""Programs that run beside a test until it has seen enough of them."""

from __future__ import annotations

import subprocess

from rig import targets, windows


class Running:
    """A program that says its process id and runs until its input ends."""

    def __init__(self, program: str, *arguments: str) -> None:
        windows.keep_wine_running()
        self._outcome: tuple[str, int] | None = None
        command = ["wine", windows.path(targets.build(program)), *arguments]
        self._process = subprocess.Popen(
            command, env=windows.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout
        self.process_id = int(self._process.stdout.readline().split()[1])

    def end(self) -> tuple[str, int]:
        """Let it end; its last line and exit code."""
        if not self._outcome:
            output, _ = self._process.communicate(timeout=30)
            self._outcome = (output.decode().strip(), self._process.returncode)
        return self._outcome
