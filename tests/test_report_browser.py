"""The report in a browser: what people click, and what must not happen."""

from __future__ import annotations

import csv
import gzip
import io as text_io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import browser
from fake_results import make
from nicheloop import io, report, status
from nicheloop.config import Config, load_config

WHY = browser.missing()
pytestmark = [pytest.mark.skipif(bool(WHY), reason=WHY), pytest.mark.xdist_group("browser")]

HOSTILE = ("T1", "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "=HYPERLINK(1)", "T5", "N1")


def build(folder: Path, **kwargs: object) -> Path:
    config = load_config({"report": {"sample_pages": False}})
    samples = make(folder, cells=80, truth=False, genes=60, **kwargs)  # type: ignore[arg-type]
    status.run_status(folder, samples, folder / "cohort" / "status.tsv")
    report.run_report(folder, folder / "report.html", config=config)
    return folder / "report.html"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = tuple(n.replace("/", "_") for n in HOSTILE)  # a sample is a folder
    return build(tmp_path_factory.mktemp("cohort"), names=names)


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    with browser.chromium() as one:
        yield one


@pytest.fixture(scope="module")
def visit(path: Path, opened: Any) -> browser.Visit:
    return browser.Visit(opened, path, viewport={"width": 1300, "height": 900})


def test_every_chapter_nothing_fetched_nothing_inaccessible(path: Path, opened: Any) -> None:
    browser.check_report(path, opened)


def test_a_cohort_where_almost_nothing_can_be_assessed(tmp_path: Path, opened: Any) -> None:
    browser.check_report(build(tmp_path, assessable=False), opened)


def test_colour_filter_facets(visit: browser.Visit) -> None:
    tab = visit.tab
    visit.drawn()
    assert tab.locator("#map-panels canvas").count() >= 2  # integrated and not integrated
    visit.change(lambda: tab.select_option("#map-colour", "malignancy"))
    assert "malignant (" in tab.inner_text("#map-legend")
    visit.change(lambda: tab.select_option("#map-colour", "IL6"))
    assert tab.inner_text("#map-legend").startswith("IL6: 0.00")
    tab.select_option("#map-filter", "cell_type")
    visit.change(lambda: tab.select_option("#map-value", "t_nk"))
    said = tab.inner_text("#map-said")
    types = io.read_table(Path(tab.url.removeprefix("file://")).parent / "cohort" / "cell_types.parquet")
    assert said.startswith(f"{(types['cell_type'] == 't_nk').sum()} of the {len(types)} cells")
    visit.change(lambda: tab.select_option("#map-facet", "sample"))
    assert tab.locator("#map-facets .bk-Figure").count() == 5  # one of six could not be read
    visit.change(lambda: tab.select_option("#map-facet", ""))
    visit.change(lambda: tab.select_option("#map-filter", ""))


def test_lasso_counts_the_cells_it_holds(visit: browser.Visit) -> None:
    tab = visit.tab
    visit.drawn()
    tab.click("#map-lasso")
    box = tab.locator("#map-panels .bk-Figure").first.bounding_box()
    corners = [(0.05, 0.1), (0.97, 0.1), (0.97, 0.97), (0.05, 0.97), (0.05, 0.1)]
    for i, (x, y) in enumerate(corners):
        tab.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=6)
        if not i:
            tab.mouse.down()
    tab.mouse.up()
    tab.wait_for_selector("#map-picked table")
    n = int(tab.get_attribute("#map-lasso", "aria-pressed") == "true")
    words = tab.inner_text("#map-picked")
    held, of = (
        int(v.replace(",", "")) for v in re.findall(r"([\d,]+) cells under the lasso \(of ([\d,]+) cells", words)[0]
    )
    assert n == 1 and 0.5 * of < held <= of
    first = tab.locator("#map-picked table").first.locator("tbody td.num:nth-child(2)").all_inner_texts()
    assert sum(int(v.replace(",", "")) for v in first) == held
    saved = visit.saved(lambda: tab.click("#map-picked button:has-text('CSV')")).decode()
    assert len(list(csv.reader(text_io.StringIO(saved)))) == held + 1
    tab.click("#map-picked button:has-text('Clear')")


def test_hover_names_the_cell_and_runs_nothing(visit: browser.Visit) -> None:
    tab = visit.tab
    visit.drawn()
    tab.click("#map-lasso") if tab.get_attribute("#map-lasso", "aria-pressed") == "true" else None
    box = tab.locator("#map-panels .bk-Figure").first.bounding_box()
    for k in range(20, 380):
        tab.mouse.move(box["x"] + 40 + (k * 37) % (box["width"] - 60), box["y"] + 60 + (k * 23) % (box["height"] - 80))
        if tab.locator(".bk-Tooltip", has_text="sample").count():
            break
    assert tab.locator(".bk-Tooltip", has_text="sample").count() and not tab.locator(".bk-Tooltip img").count()
    assert visit.dialogs == []


def test_tables_sort_filter_page_and_save(visit: browser.Visit) -> None:
    from playwright.sync_api import expect

    tab = visit.tab
    box = visit.table("quality")
    column = box.locator("thead th").nth(2)
    for order in ("ascending", "descending"):  # the library sorts after the click
        column.click()
        expect(column).to_have_attribute("aria-sort", order)
    shown = [int(v.replace(",", "")) for v in box.locator("tbody td:nth-child(3)").all_inner_texts() if v != "NA"]
    assert shown == sorted(shown, reverse=True) and len(shown) == 6
    box.locator("input[type=search]").fill("N1")
    expect(box.locator("tbody tr")).to_have_count(1)  # the library waits for the typing to end
    box.locator("input[type=search]").fill("")
    expect(box.locator("tbody tr")).not_to_have_count(1)
    long = visit.table("composition_top")
    assert long.locator("tbody tr").count() == 12 and long.locator(".dt-paging button").count() > 2
    saved = visit.saved(lambda: box.locator("button:has-text('CSV')").click()).decode()
    rows = list(csv.reader(text_io.StringIO(saved)))
    assert {r[0] for r in rows[1:]} >= {"'=HYPERLINK(1)", "T1"}
    assert all(not r[0].startswith("=") for r in rows)
    box.locator("button:has-text('Copy')").click()
    tab.wait_for_selector("#table-quality button:has-text('Copied')")


def test_figures_are_saved_from_the_page_alone(visit: browser.Visit, path: Path) -> None:
    tab = visit.tab
    for label, begins in (("PNG", b"\x89PNG"), ("SVG", b"<?xml"), ("data CSV", b"sample,")):
        link = tab.locator("#figure-qc_attrition .tools a", has_text=re.compile(f"^{label}$"))
        data = visit.saved(link.click)
        assert data.startswith(begins)
        kind = label.split()[-1].lower()
        assert data == (path.parent / "figures" / f"qc_attrition.{kind}").read_bytes()
    assert visit.saved(lambda: tab.click("#map-png")).startswith(b"\x89PNG")


def test_hostile_names_do_nothing(visit: browser.Visit) -> None:
    tab = visit.tab
    visit.drawn()
    visit.change(lambda: tab.select_option("#map-colour", "sample"))
    assert "<script>alert(1)" in tab.inner_text("#map-legend")
    assert tab.locator("main img[onerror], main script").count() == 0
    assert (visit.errors, visit.requests, visit.dialogs) == ([], [], [])


def test_without_javascript_figures_and_tables_are_there(path: Path, opened: Any) -> None:
    visit = browser.Visit(opened, path, java_script_enabled=False)
    tab = visit.tab
    assert tab.locator("figure img").count() > 12 and tab.locator("table tbody tr").count() > 80
    assert tab.locator("#figure-maps img").is_visible() and not tab.locator("#explorer").is_visible()
    assert tab.locator(".shown").first.is_visible()


def test_keyboard_reaches_controls_and_help(visit: browser.Visit) -> None:
    from playwright.sync_api import expect

    tab = visit.tab
    help_ = tab.locator("#figure-qc_attrition details.help summary")
    help_.focus()
    tab.keyboard.press("Enter")
    assert tab.locator("#figure-qc_attrition details.help p").is_visible()
    tab.locator("#table-quality thead th .dt-column-order").first.focus()
    tab.keyboard.press("Enter")
    expect(tab.locator("#table-quality thead th").first).to_have_attribute("aria-sort", re.compile("^(a|de)scending$"))


def test_narrow_page_does_not_scroll_sideways(path: Path, opened: Any) -> None:
    tab = browser.Visit(opened, path, viewport={"width": 390, "height": 800}).tab
    assert not tab.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


def test_prints_without_controls(path: Path, opened: Any) -> None:
    tab = browser.Visit(opened, path, color_scheme="dark").tab
    tab.emulate_media(media="print")
    assert not tab.locator("nav").is_visible() and not tab.locator("#explorer").is_visible()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.pdf(format="A4").startswith(b"%PDF")


def test_size_of_a_page_stays_small(path: Path) -> None:
    assert path.stat().st_size < 6e6
    assert len(gzip.compress(path.read_bytes())) > 1e6  # the libraries are in it


def test_single_sample_pages_are_static(tmp_path: Path, opened: Any) -> None:
    config = Config()
    samples = make(tmp_path, cells=60, truth=False)
    status.run_status(tmp_path, samples, tmp_path / "cohort" / "status.tsv")
    report.run_report(tmp_path, tmp_path / "report.html", config=config)
    visit = browser.Visit(opened, tmp_path / "report.html")
    visit.tab.click("ul.links a:has-text('T1')")
    assert visit.tab.inner_text("h1").endswith(": T1")
    assert visit.tab.locator("script").count() == 0 and visit.tab.locator("figure img").count() > 5
    assert visit.axe() == []
    assert sorted(p.stem for p in (tmp_path / "report").iterdir()) == sorted(samples)
