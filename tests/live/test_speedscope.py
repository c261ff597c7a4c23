"""What speedscope itself, in a real browser, makes of the exports that it opens."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rig import readers
from rig.browser import Page, chromium
from rig.commands import run


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


def rows(browser: Page, trace: Path, form: str, folder: Path) -> list[list[str]]:
    """Total, self and name of each function of the first profile that speedscope lists.

    Of Chrome's format that is the thread with the lowest id, which need not be the main one.
    """
    out = folder / f"trace.{form}"
    run(f'export {form} "{trace}" -o "{out}"')
    # As speedscope's own command line hands a file over.
    script = folder / f"{form}.js"
    data = base64.b64encode(out.read_bytes()).decode()
    script.write_text(f"speedscope.loadFileFromBase64({out.name!r}, {data!r})", encoding="utf-8")
    browser.driver.get("about:blank")
    page = readers.speedscope_page()
    browser.driver.get(f"{page.as_uri()}#view=sandwich&localProfilePath={script}")
    # Of more than fit upon the screen it makes rows as one scrolls there.
    browser.driver.set_window_size(1400, 4000)
    browser.wait("[...document.querySelectorAll('td')].some(cell => cell.textContent.includes('demo!'))")
    found: list[list[str]] = browser.run(
        "return [...document.querySelectorAll('tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    head = next(at for at, row in enumerate(found) if row[-1] == "Symbol Name")
    return found[head + 1 :]


def top(trace: Path) -> dict[str, Any]:
    return {one["name"]: one for one in json.loads(run(f'top "{trace}" --limit 0 --json'))["functions"]}


def test_folded_stacks_are_read_as_top_has_them(browser: Page, demo_trace: Path, tmp_path: Path) -> None:
    expected = {name: (one["total"], one["self"]) for name, one in top(demo_trace).items() if one["total"]}
    found = {
        name: tuple(int(text.split(" ")[0].replace(",", "")) for text in (total, own))
        for total, own, name in rows(browser, demo_trace, "folded", tmp_path)
        if not name.startswith("thread ")
    }
    assert len(found) > 30
    assert found == expected


@pytest.mark.parametrize("form", ["speedscope", "chrome"])
def test_a_time_line_has_each_function_once(
    browser: Page, demo_trace: Path, tmp_path: Path, form: str
) -> None:
    names = [name for _, _, name in rows(browser, demo_trace, form, tmp_path)]
    assert len(names) == len(set(names))
    assert len(names) > 1
    assert set(names) <= set(top(demo_trace))
    if form == "speedscope":
        assert {"demo!main", "demo!parse_number", "msvcrt.dll!printf"} <= set(names)
