"""How much memory commands take: runs each line of standard input, a JSON list, in its own process.

Prints for each the exit code and the largest resident size it had, in KiB.
"""

from __future__ import annotations

import json
import os
import sys

from calltrace import cli


def main() -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.dup2(quiet, sys.stdout.fileno())
            os._exit(cli.main(json.loads(line)))
        _, status, used = os.wait4(child, 0)
        print(os.waitstatus_to_exitcode(status), used.ru_maxrss, flush=True)


if __name__ == "__main__":
    main()
