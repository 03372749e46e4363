"""Headless Chromium of the system for the tests of the report; nothing is downloaded."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


def executable() -> str | None:
    """Path of the system's Chromium, or None."""
    return next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)


def missing() -> str:
    """Why the browser cannot be driven here; empty where it can."""
    if executable() is None:
        return "no chromium on this machine (apt-get install chromium)"
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed (make env)"
    return ""


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser with a profile of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable(), args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page opened in Chromium, with everything it said or asked for on the way."""

    # the browser's own words, not the page's: a driver for the GPU is not there
    HARMLESS = ("GPU stall", "GL Driver", "WebGL")

    def __init__(self, browser: Any, path: Path, **context: Any):
        self.context = browser.new_context(accept_downloads=True, **context)
        self.tab = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.tab.on("console", lambda m: self._heard(m.type, m.text))
        self.tab.on("pageerror", lambda e: self.errors.append(str(e)))
        self.tab.on("dialog", lambda d: (self.dialogs.append(d.message), d.dismiss()))
        self.tab.on("request", lambda r: self._asked(r.url, path.as_uri()))
        self.tab.goto(path.as_uri())

    def _heard(self, kind: str, text: str) -> None:
        if kind == "error" or (kind == "warning" and not any(w in text for w in self.HARMLESS)):
            self.errors.append(text)

    def _asked(self, url: str, own: str) -> None:
        if url != own and not url.startswith(("data:", "blob:")):
            self.requests.append(url)

    def drawn(self) -> str:
        """Bring the map into view and wait until it is drawn; returns how often it was."""
        self.tab.locator("#explorer").scroll_into_view_if_needed()
        self.tab.wait_for_selector("#explorer[data-drawn]")
        return str(self.tab.get_attribute("#explorer", "data-drawn"))

    def change(self, act: Any) -> None:
        """Do something to the map and wait until it is drawn anew."""
        before = self.drawn()
        act()
        self.tab.wait_for_function("n => document.getElementById('explorer').dataset.drawn !== n", arg=before)

    def table(self, name: str) -> Any:
        """A table, made sortable."""
        box = self.tab.locator(f"#table-{name}")
        box.scroll_into_view_if_needed()
        self.tab.wait_for_selector(f"#table-{name}[data-ready=true]")
        return box

    def saved(self, act: Any) -> bytes:
        """The file that a click gives."""
        with self.tab.expect_download() as waiting:
            act()
        return Path(waiting.value.path()).read_bytes()

    def axe(self) -> list[str]:
        """Serious and critical findings of axe-core, each with the first element."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.tab, options={"resultTypes": ["violations"]}).response["violations"]
        return [
            f"{v['id']}: {v['nodes'][0]['target']} ({len(v['nodes'])}) {v['nodes'][0].get('failureSummary', '')[:200]}"
            for v in found
            if v["impact"] in ("serious", "critical")
        ]


CHAPTERS = (
    "Summary", "Quality", "Map", "Composition", "Annotation", "Malignancy", "Cancer stem cells (CD44/CD24 and ALDH1A3)",
    "Macrophages (M1/M2)", "Crosstalk (IL6, CXCL8, PPBP)", "Loop", "Cohort", "Enrichment", "Not assessable", "Limitations",
    "Methods", "Provenance",
)  # fmt: skip


def check_report(path: Path, browser: Any = None) -> None:
    """What holds for every report: all chapters, headings in order, nothing fetched, no error, nothing inaccessible."""
    with chromium() if browser is None else contextlib.nullcontext(browser) as browser:
        visit = Visit(browser, path, viewport={"width": 1300, "height": 900}, color_scheme="light")
        tab = visit.tab
        found = tab.eval_on_selector_all("h2", "e => e.map(x => x.textContent)")
        assert [h for h in found if h in CHAPTERS] == list(CHAPTERS)
        levels = tab.eval_on_selector_all("h1, h2, h3", "e => e.map(x => Number(x.tagName[1]))")
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
        if tab.locator("#explorer").count():
            visit.drawn()
            visit.change(lambda: tab.select_option("#map-colour", "sample"))
        for box in tab.locator(".table").all():
            box.scroll_into_view_if_needed()
        tab.wait_for_function("() => [...document.querySelectorAll('.table')].every(t => t.dataset.ready)")
        assert not tab.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert visit.axe() == []
        tab.click("#theme")
        assert tab.get_attribute("html", "data-theme") == "dark"
        assert visit.axe() == []
        assert (visit.errors, visit.requests, visit.dialogs) == ([], [], [])
