"""A headless Chromium without any network, driven by selenium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

_SECONDS = 60.0  # under any load
_SWITCHES = (
    "--headless=new",
    "--no-sandbox",  # which root may not use
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--window-size=1400,1500",
    "--force-prefers-reduced-motion",
)


class Page:
    """A page that is open, and what a user does with it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, path: Path) -> None:
        """Open a file, and wait until it is drawn."""
        self.driver.get(path.as_uri())
        self.wait("document.documentElement.dataset.ready === 'true'")

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements, as they are in the page."""
        return list(self.run(f"return [...document.querySelectorAll({selector!r})].map(e => e.textContent)"))

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: str) -> None:
        """Wait until a condition holds, written in JavaScript."""
        told = f"never held: {condition}"
        WebDriverWait(self.driver, _SECONDS, 0.05).until(lambda _: self.run(f"return {condition}"), told)

    def search(self, text: str) -> None:
        """Type into the search field, in place of what was there."""
        [field] = self.all("#search")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(Keys.BACKSPACE, text)
        self.wait(f"document.documentElement.dataset.search === {json.dumps(text.strip().lower())}")

    def complaints(self) -> list[str]:
        """What the console has of errors and warnings, since the last time."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self, path: Path) -> list[str]:
        """The addresses that the page of this file asked for since the last time, whatever became of it."""
        found = []
        for entry in self.driver.get_log("performance"):
            told = json.loads(entry["message"])["message"]
            about = told["params"]
            if told["method"] == "Network.requestWillBeSent" and about["documentURL"] == path.as_uri():
                found.append(about["request"]["url"])
        return found


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A browser with a new profile in that folder."""
    options = Options()
    options.binary_location = "/usr/bin/chromium"
    for switch in (*_SWITCHES, f"--user-data-dir={profile}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield Page(driver)
    finally:
        driver.quit()
