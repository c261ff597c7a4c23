"""The page that `report` writes, in a real browser: read, searched and clicked as a user does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from rig import targets, tracewriter, tracing, windows
from rig.browser import Page, chromium
from rig.commands import run
from rig.simulated import golden_trace
from rig.tracewriter import TraceWriter, Units

FRAMES = "#flame g.frame"
HIGHLIGHT = "#ffd45e"
REPORT = """
import sys
from rig.commands import run
run(f'report "{sys.argv[1]}" "{sys.argv[2]}" -o "{sys.argv[3]}"')
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture(scope="module")
def other_trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another run of the demo."""
    trace = tmp_path_factory.mktemp("other") / "other.calltrace"
    done = tracing.calltrace("run", "--quiet", "-o", trace, "--", targets.build("demo"), "1")
    assert done.returncode == 0, done.stderr
    return trace


@pytest.fixture
def demo(browser: Page, demo_trace: Path, tmp_path: Path) -> Iterator[Page]:
    """The page about a recorded run; whatever is done there, nobody complains and nothing is asked for."""
    yield from opened(browser, tmp_path, demo_trace)


@pytest.fixture
def known(browser: Page, tmp_path: Path) -> Iterator[Page]:
    """The page about two threads whose times are known: main spends 1,000 in itself, 5,000 in slow, and 2,000
    in fast, which is half leaf; other, in the second thread, spends 2,000."""
    writer = TraceWriter(8)
    functions = [(0x1000 + 16 * at, 16, 1, 0, 0, tracewriter.NONE) for at in range(5)]
    names = [[0x1000 + 16 * at, name] for at, name in enumerate(("main", "slow", "fast", "leaf", "other"))]
    writer.module({"name": "known.exe", "names": names}, functions)
    enter, leave = tracewriter.ENTER, tracewriter.LEAVE
    slow = [(enter, 1, 5000), (leave, 1, 0)]
    fast = [(enter, 2, 1000), (enter, 3, 1000), (leave, 3, 0), (leave, 2, 0)]
    stories = [[(enter, 0, 1000), *slow, *fast, (leave, 0, 0)], [(enter, 4, 2000), (leave, 4, 0)]]
    for thread, story in enumerate(stories):
        units = Units(8)
        for event, number, ticks in story:
            units.event(event, number)
            units.now += ticks
        writer.thread(units, thread)
    yield from opened(browser, tmp_path, writer.write(tmp_path / "known.calltrace"))


def opened(browser: Page, folder: Path, *traces: Path) -> Iterator[Page]:
    page = folder / "page.html"
    run("report " + " ".join(f'"{trace}"' for trace in traces) + f' -o "{page}"')
    browser.complaints()
    browser.open(page)
    yield browser
    assert browser.complaints() == []
    assert browser.requests(page) == [page.as_uri()]


def shown(page: Page, rows: str) -> list[list[str]]:
    return page.run(
        "return [...document.querySelectorAll(arguments[0])].map(r => [...r.cells].map(c => c.textContent))",
        rows,
    )


def top(trace: Path) -> list[list[str]]:
    """Rows of `top`: texts of self, share, total, calls and name."""
    lines = run(f'top "{trace}" --limit 0').splitlines()[1:]
    rows = []
    for line in lines:
        words = [word for word in line.split("  ") if word.strip()]
        rows.append([word.strip() for word in words])
    return rows


def test_the_table_says_what_top_says(demo: Page, demo_trace: Path) -> None:
    assert sorted(shown(demo, "#functions .split .body tbody tr")) == sorted(top(demo_trace))


def test_callers_and_callees_are_those_of_the_commands(demo: Page, demo_trace: Path) -> None:
    demo.run("document.querySelector('tr[data-name=\"demo!parse_product\"]').click()")
    assert demo.texts("#chosen") == ["demo!parse_product"]
    for verb, arrow in (("callers", "←"), ("callees", "→")):
        expected = [
            [word.strip() for word in line.replace(arrow, "").split("  ") if word.strip()]
            for line in run(f'{verb} "{demo_trace}" demo!parse_product').splitlines()[2:]
        ]
        found = [
            [text.replace("  by a tail jump", "") for text in row] for row in shown(demo, f"#{verb} tbody tr")
        ]
        assert len(found) > 0
        assert sorted(found) == sorted(row[:4] for row in expected)
    demo.run("document.querySelector('#callers tbody tr').click()")
    assert demo.texts("#chosen") == ["demo!parse_sum"]


def test_keys_lead_from_function_to_caller_and_on(demo: Page) -> None:
    row = demo.all('#functions .split .body tr[data-name="demo!parse_number"]')[0]
    row.send_keys(Keys.ENTER)
    assert demo.texts("#chosen") == ["demo!parse_number"]
    for name in ("demo!parse_factor", "demo!parse_product", "demo!parse_sum"):
        demo.all(f'#callers tr[data-name="{name}"]')[0].send_keys(Keys.ENTER)
        assert demo.texts("#chosen") == [name]
        # The next key goes on from here, not from the page's beginning.
        assert demo.run("return document.activeElement.id") == "chosen"


def test_a_column_sorts_and_sorts_the_other_way(demo: Page) -> None:
    calls = 3

    def sorted_by_calls() -> list[int]:
        demo.all("#functions .split .body th button")[calls].click()
        return [int(row[calls].replace(",", "")) for row in shown(demo, "#functions .split .body tbody tr")]

    down = sorted_by_calls()
    assert down == sorted(down, reverse=True)
    assert down[0] > down[-1]
    up = sorted_by_calls()
    assert up == down[::-1] == sorted(up)


def widths(page: Page) -> dict[str, float]:
    """Names of the frames shown, and how wide the widest of each is."""
    found: dict[str, float] = {}
    for name, width in page.run(
        "return [...document.querySelectorAll(arguments[0])].map("
        "g => [g.getAttribute('name'), g.querySelector('rect').getBoundingClientRect().width])",
        FRAMES,
    ):
        found[name] = max(width, found.get(name, 0.0))
    return found


def click_frame(page: Page, name: str) -> None:
    [frame] = page.run(
        "return [...document.querySelectorAll(arguments[0])].filter("
        "g => g.getAttribute('name') === arguments[1]).slice(0, 1)",
        FRAMES,
        name,
    )
    frame.find_element("css selector", "rect").click()


def test_a_click_on_a_frame_shows_it_alone_and_a_button_all_again(known: Page) -> None:
    before = widths(known)
    whole = before["all threads"]
    click_frame(known, "known!fast")
    known.wait(f"{_width('known!fast')} > {whole - 2}")
    assert {name for name, width in widths(known).items() if width > 1} == {
        "all threads",
        "thread 0 (id 1000)",
        "known!main",
        "known!fast",
        "known!leaf",
    }
    known.all("#reset")[0].click()
    for name, width in before.items():
        known.wait(f"Math.abs({_width(name)} - {width}) < 1")
    assert widths(known).keys() == before.keys()


def _width(name: str) -> str:
    return (
        f"[...document.querySelectorAll('{FRAMES}')].find(g => g.getAttribute('name') === {json.dumps(name)})"
        ".querySelector('rect').getBoundingClientRect().width"
    )


def test_the_flame_graph_is_as_wide_as_the_time(known: Page) -> None:
    drawn = widths(known)
    whole = drawn.pop("all threads")
    assert {name: round(100 * width / whole) for name, width in drawn.items()} == {
        "thread 0 (id 1000)": 80,
        "known!main": 80,
        "known!slow": 50,
        "known!fast": 20,
        "known!leaf": 10,
        "thread 1 (id 1004)": 20,
        "known!other": 20,
    }


def highlighted(page: Page) -> list[str]:
    """The frames in the colour of what was searched for."""
    return list(
        page.run(
            "return [...document.querySelectorAll(arguments[0])]"
            ".filter(g => g.querySelector('rect').getAttribute('fill') === arguments[1])"
            ".map(g => g.getAttribute('name'))",
            FRAMES,
            HIGHLIGHT,
        )
    )


def test_search_highlights_frames_and_tells_their_share(known: Page) -> None:
    assert highlighted(known) == []
    known.search("LEAF")
    assert highlighted(known) == ["known!leaf"]
    assert known.texts("#found") == ["10.00 % in 1 stack"]
    known.search("s")
    assert highlighted(known) == ["known!slow", "known!fast"]
    assert known.texts("#found") == ["70.00 % in 2 stacks"]
    known.search("known!main")
    assert known.texts("#found") == ["80.00 % in 1 stack"]
    known.search("")
    assert highlighted(known) == []
    assert known.texts("#found") == [""]


def test_search_filters_the_table_and_marks_what_matches(demo: Page, demo_trace: Path) -> None:
    every = [row[-1] for row in top(demo_trace)]
    demo.search("CREATEthread")
    rows = shown(demo, "#functions .split .body tbody tr")
    assert [row[-1] for row in rows] == ["KERNEL32.dll!CreateThread"]
    assert demo.texts("#functions tbody mark") == ["CreateThread"]
    demo.search("demo!parse")
    rows = shown(demo, "#functions .split .body tbody tr")
    assert sorted(row[-1] for row in rows) == sorted(name for name in every if "demo!parse" in name)
    assert len(rows) >= 4
    demo.search("no such function")
    assert shown(demo, "#functions .split .body tbody tr") == []
    demo.search("")
    assert len(shown(demo, "#functions .split .body tbody tr")) == len(every)
    assert demo.texts("#found") == [""]


def test_the_time_line_tells_what_is_below_the_pointer(demo: Page) -> None:
    lanes = demo.all("#timeline canvas")
    assert len(lanes) == 2
    painted = demo.run(
        "return arguments[0].getContext('2d').getImageData(0, 0, arguments[0].width, arguments[0].height)"
        ".data.some(v => v)",
        lanes[0],
    )
    assert painted
    demo.run(
        "const box = arguments[0].getBoundingClientRect();"
        "arguments[0].dispatchEvent(new MouseEvent('mousemove',"
        "{clientX: box.left + box.width / 2, clientY: box.top + 20 + 3 + 15, bubbles: true}))",
        lanes[0],
    )
    [text] = demo.texts("#tip")
    assert "demo!__tmainCRTStartup" in text
    assert "call" in text
    # It is as wide at the right side as anywhere.
    sizes = []
    for part in (0.1, 0.999):
        demo.run(
            "const box = arguments[0].getBoundingClientRect();"
            "arguments[0].dispatchEvent(new MouseEvent('mousemove',"
            "{clientX: box.left + box.width * arguments[1], clientY: box.top + 25, bubbles: true}))",
            lanes[0],
            part,
        )
        sizes.append(
            demo.run(
                "const b = document.getElementById('tip').getBoundingClientRect(); return [b.height, b.right]"
            )
        )
    assert sizes[0][0] == sizes[1][0]
    assert sizes[1][1] <= demo.run("return innerWidth")


def test_two_traces_show_what_differs(
    browser: Page, demo_trace: Path, other_trace: Path, tmp_path: Path
) -> None:
    for page in opened(browser, tmp_path, demo_trace, other_trace):
        told = json.loads(_diff(demo_trace, other_trace))
        expected = {(one["name"], *(f"{calls:,}" for calls in one["calls"])) for one in told["found"]}
        while page.all("#differences .more button"):
            page.run("document.querySelector('#differences .more button').click()")
        rows = shown(page, "#differences tbody tr")
        assert {(row[3], row[0], row[1]) for row in rows} == expected
        assert len(rows) == len(expected)
        assert "demo!skip_spaces" in {row[3] for row in rows}
        # The other trace has no clock: its table has no times.
        assert len(page.all("#functions .split .body th")) == 5
        page.all("#sides button")[1].click()
        assert len(page.all("#functions .split .body th")) == 2
        assert sorted(shown(page, "#functions .split .body tbody tr")) == sorted(top(other_trace))
        page.search("parse")
        assert all("parse" in row[3] for row in shown(page, "#differences tbody tr"))


def test_first_entries_are_listed_without_counts_and_stacks(browser: Page, tmp_path: Path) -> None:
    units = Units()
    for number in (1, 0):
        units.event(tracewriter.ENTER, number)
        units.event(tracewriter.LEAVE, number)
    writer = TraceWriter()
    functions = [(0x1000 + 16 * at, 16, 1, 0, 0, tracewriter.NONE) for at in (0, 1)]
    writer.module({"name": "d.exe", "names": [[0x1000, "a"], [0x1010, "b"]]}, functions)
    writer.info({"options": {"mode": "hits"}})
    writer.thread(units)
    for page in opened(browser, tmp_path, writer.write(tmp_path / "t.calltrace")):
        assert shown(page, "#functions .split .body tbody tr") == [["d!a"], ["d!b"]]
        assert page.all("#flame svg") == []
        assert "only the first entry" in page.texts("#notes li")[0]
        page.search("b")
        assert shown(page, "#functions .split .body tbody tr") == [["d!b"]]


def test_counts_without_events_have_a_table_with_callers(browser: Page, tmp_path: Path) -> None:
    trace = tmp_path / "graph.calltrace"
    program = targets.build("demo")
    done = tracing.calltrace(
        "run", "--quiet", "-o", trace, "--mode", "graph", "--clock", "tsc", "--", program, "2 * (3 + 4)"
    )
    assert done.returncode == 0, done.stderr
    for page in opened(browser, tmp_path, trace):
        assert sorted(shown(page, "#functions .split .body tbody tr")) == sorted(top(trace))
        page.run("document.querySelector('tr[data-name=\"demo!parse_product\"]').click()")
        assert [row[-1] for row in shown(page, "#callers tbody tr")] == ["demo!parse_sum"]
        assert page.all("#flame svg, #timeline canvas, #timeline svg") == []
        assert "no stacks and no time line" in page.texts("#notes li")[0]
        assert not any(button.is_displayed() for button in page.all("#flame button, #detail button"))


def test_a_trace_without_any_event_has_a_page(browser: Page, tmp_path: Path) -> None:
    for page in opened(browser, tmp_path, TraceWriter(8).write(tmp_path / "t.calltrace")):
        assert page.texts("#flame .hint") == ["None: no stacks were recorded."]
        assert page.texts("#functions .body p") == ["None."]
        assert not any(button.is_displayed() for button in page.all("#flame button"))


def test_names_that_look_like_html_are_text(browser: Page, tmp_path: Path) -> None:
    names = [
        "</script><script>document.title='taken'</script>",
        "<img src=x onerror=\"document.title='taken'\">",
    ]
    units = Units(8)
    for number in (0, 1):
        units.event(tracewriter.ENTER, number)
        units.now += 1000
    for number in (1, 0):
        units.event(tracewriter.LEAVE, number)
    writer = TraceWriter(8)
    functions = [(0x1000 + 16 * at, 16, 1, 0, 0, tracewriter.NONE) for at in (0, 1)]
    writer.module(
        {"name": "<b>.exe", "names": [[0x1000 + 16 * at, name] for at, name in enumerate(names)]}, functions
    )
    writer.thread(units)
    for page in opened(browser, tmp_path, writer.write(tmp_path / "<u>&.calltrace")):
        assert page.driver.title == "<u>&.calltrace"
        rows = shown(page, "#functions .split .body tbody tr")
        assert sorted(row[-1] for row in rows) == sorted(f"<b>!{name}" for name in names)
        page.run("document.querySelector('#functions tbody tr').click()")
        page.search("<img")
        page.search("")
        assert page.all("main img, main b, main u") == []
        assert len(page.all("script")) == 4
        assert page.driver.title == "<u>&.calltrace"


def test_a_very_long_name_takes_a_few_lines(browser: Page, tmp_path: Path) -> None:
    long = "long<" + "pair<int,std::string>," * 200 + ">"
    units = Units(8)
    for number in (0, 1):
        units.event(tracewriter.ENTER, number)
        units.now += 1000
    writer = TraceWriter(8)
    functions = [(0x1000 + 16 * at, 16, 1, 0, 0, tracewriter.NONE) for at in (0, 1)]
    writer.module({"name": "d.exe", "names": [[0x1000, long], [0x1010, "short"]]}, functions)
    writer.thread(units)
    for page in opened(browser, tmp_path, writer.write(tmp_path / "t.calltrace")):
        page.run("document.querySelector('tr[data-name=\"d!short\"]').click()")
        rows = "[...document.querySelectorAll('tr[data-name^=\"d!long\"]')]"
        heights = page.run(f"return {rows}.map(r => r.offsetHeight)")
        assert len(heights) == 2  # in the list, and as a caller
        assert max(heights) < 80
        assert page.run(f"return {rows}.map(r => r.querySelector('.lines').title)") == [f"d!{long}"] * 2


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_overlaps_or_hangs_out(demo: Page, dark: bool, tmp_path: Path) -> None:
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    demo.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    try:
        for width in (1400, 760, 420):
            demo.driver.set_window_size(width, 1200)
            demo.wait(f"Math.abs(innerWidth - {width}) < 40")
            demo.wait("document.documentElement.scrollWidth <= innerWidth")
            boxes = demo.run(
                "return [...document.querySelectorAll('header, section:not([hidden])')].map("
                "e => e.getBoundingClientRect()).map(b => [b.top, b.bottom]).slice(1)"
            )
            assert all(above[1] <= below[0] for above, below in zip(boxes, boxes[1:]))
            names = "return [...document.querySelectorAll('td.name, canvas')].map(e => e.clientWidth)"
            assert min(demo.run(names)) > 150
        back, text = demo.run(
            "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
        )
        assert (_bright(back) < _bright(text)) is dark
        assert abs(_bright(back) - _bright(text)) > 150
        assert len(demo.driver.get_screenshot_as_png()) > 20_000
    finally:
        demo.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        demo.driver.set_window_size(1400, 1500)


def _bright(colour: str) -> float:
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 3


def test_the_page_is_the_same_on_windows(tmp_path: Path) -> None:
    traces = []
    for name, count, unit_size in (("träce", 2, 8), ("other", 3, 4)):
        traces.append(golden_trace(tmp_path / f"{name}.calltrace", count, unit_size))
    done = windows.python("-c", REPORT, *traces, tmp_path / "there.html")
    assert done.returncode == 0, done.stderr.decode()
    run(f'report "{traces[0]}" "{traces[1]}" -o "{tmp_path / "here.html"}"')
    here = (tmp_path / "here.html").read_bytes()
    assert len(here) > 350_000
    assert (tmp_path / "there.html").read_bytes() == here


def _diff(first: Path, second: Path) -> str:
    done = tracing.calltrace("diff", first, second, "--json")
    return done.stdout.decode()
