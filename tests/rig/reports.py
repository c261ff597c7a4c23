"""What is in a page that `calltrace report` wrote, read without a browser."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


@dataclass
class Report:
    """A page."""

    text: str
    scripts: list[str] = field(default_factory=list)  # those that are run
    data: Any = None
    policy: str = ""
    addresses: list[str] = field(default_factory=list)  # that elements refer to

    @property
    def trace(self) -> Any:
        """What it says of its first trace."""
        return self.data["traces"][0]

    def names(self, numbers: list[int]) -> list[str]:
        return [self.trace["names"][number] for number in numbers]

    def functions(self) -> list[tuple[str, int, int, int]]:
        """Each with its calls, self and total, in their order."""
        return [(self.trace["names"][row[0]], *row[1:]) for row in self.trace["functions"]]

    def edges(self) -> list[tuple[str | None, str, bool, int, int, int]]:
        """Each caller and callee, whether by a tail jump, calls, self and total."""
        names = self.trace["names"]
        return [
            (names[row[0]] if row[0] >= 0 else None, names[row[1]], bool(row[2]), *row[3:])
            for row in self.trace["edges"]
        ]

    def stacks(self) -> dict[tuple[str, ...], tuple[int, int, int]]:
        """Own weight, hidden weight and calls of each stack."""
        told = self.trace["stacks"]
        paths: list[tuple[str, ...]] = []
        for parent, name in zip(told["parent"], self.names(told["name"])):
            paths.append((*(paths[parent] if parent >= 0 else ()), name))
        return dict(zip(paths, zip(told["self"], told["hidden"], told["calls"])))


class _Parser(HTMLParser):
    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report
        self._in: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag == "script":
            self._in = told.get("type") or "script"
            if self._in == "script":
                self._report.scripts.append("")
        if told.get("http-equiv") == "Content-Security-Policy":
            self._report.policy = told["content"] or ""
        self._report.addresses += [told[name] or "" for name in ("src", "href", "action") if name in told]

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._in = None

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self._report.scripts[-1] += data
        elif self._in:
            self._report.data = json.loads(data)


def read(path: Path) -> Report:
    """The page in that file."""
    report = Report(path.read_bytes().decode("utf-8"))
    parser = _Parser(report)
    parser.feed(report.text)
    parser.close()
    return report
