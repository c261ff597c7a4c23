"""``python -m calltrace``: the command line."""

from __future__ import annotations

import sys

from calltrace.cli import main

sys.exit(main())
