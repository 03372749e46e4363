"""The report: one offline page, everything said, nothing executed."""

from __future__ import annotations

import ast
import base64
import gzip
import hashlib
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

import nicheloop
from nicheloop import (
    figures,
    io,
    provenance,
    report,
    report_data,
    report_embed,
    report_map,
    report_samples,
    tables,
)
from nicheloop.config import Config, load_config
from report_pages import HEADINGS, build, read, said_by
from repository import ROOT


def test_chapters_in_order(report_html: str) -> None:
    reader = read(report_html)
    assert reader.headings == HEADINGS
    targets = {a["id"] for _, a in reader.tags if a.get("id")}
    assert all(a["href"][1:] in targets for t, a in reader.tags if t == "a" and (a["href"] or "").startswith("#"))  # type: ignore[index]


def test_nothing_is_fetched_and_only_its_own_scripts_run(report_html: str) -> None:
    reader = read(report_html)
    assert not {t for t, _ in reader.tags} & {"link", "iframe", "object", "embed", "base", "form"}
    for tag, attrs in reader.tags:
        assert not any(k.startswith("on") for k in attrs), (tag, attrs)
        for key in ("src", "href"):
            value = attrs.get(key) or ""
            assert not re.match(r"(https?:)?//|javascript:|file:", value), value
            if key == "src" and value:
                assert value.startswith("data:image/png;base64,")
    style = report_html[report_html.index("<style>") : report_html.index("</style>")]
    assert "url(" not in style and "@import" not in style
    policy = next(a["content"] or "" for t, a in reader.tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.split("style-src")[0]
    run = re.findall(r"<script>(.*?)</script>", report_html, re.S)
    assert len(run) == 2
    for text in run:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    held = [a for t, a in reader.tags if t == "script" and a]
    assert held and all(a["type"] == "application/gzip" for a in held)


def test_sample_names_are_escaped(report_html: str) -> None:
    assert "&lt;script&gt;" in report_html
    assert "<script>" in "".join(read(report_html).text)


def test_links_lead_to_files(report_results: Path, report_html: str) -> None:
    links = {a["href"] for t, a in read(report_html).tags if t == "a" and not (a["href"] or "").startswith("#")}
    assert len(links) > 20
    assert all((report_results / unquote(str(link))).is_file() for link in links)


class Tables(HTMLParser):
    """Every table of a page: id -> columns of its file, path, rows of (text, value)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, dict[str, Any]] = {}
        self.name, self.cell = "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        a = dict(attrs)
        if tag == "div" and (a.get("id") or "").startswith("table-"):
            self.name = (a["id"] or "").removeprefix("table-")
            self.found[self.name] = {"columns": [], "numeric": [], "rows": [], "path": ""}
        elif tag == "th":
            self.found[self.name]["columns"].append(a["data-column"])
            self.found[self.name]["numeric"].append(a.get("class") == "num")
        elif tag == "tr" and self.found[self.name]["columns"]:
            self.found[self.name]["rows"].append([])
        elif tag == "td":
            self.found[self.name]["rows"][-1].append(["", a.get("data-order")])
            self.cell = True
        elif tag == "a" and self.name and not self.found[self.name]["path"]:
            self.found[self.name]["path"] = unquote(a["href"] or "")

    def handle_endtag(self, tag: str) -> None:
        self.cell = self.cell and tag != "td"
        if tag == "section":
            self.name = ""

    def handle_data(self, data: str) -> None:
        if self.cell:
            self.found[self.name]["rows"][-1][-1][0] += data


def test_numbers_on_the_page_are_those_of_the_tables(report_results: Path, report_html: str) -> None:
    import pandas as pd

    reader = Tables()
    reader.feed(report_html)
    rows = numbers = 0
    for name, shown in reader.found.items():
        table = pd.read_csv(report_results / shown["path"], sep="\t", na_values=["NA"], keep_default_na=False)
        table = table.assign(**{c: table[c].astype(float) for c in table if table[c].dtype == bool})
        columns = zip(shown["columns"], shown["numeric"], strict=True)
        held = [c for c, numeric in columns if numeric and c in table and table[c].dtype.kind in "fi"]
        where = [shown["columns"].index(c) for c in held]
        written = {tuple("" if v != v else f"{v:.6g}" for v in r) for r in table[held].astype(float).to_numpy()}
        for row in shown["rows"]:
            values = []
            for k in where:
                text, value = row[k]
                values.append(f"{float(value):.6g}" if value else "")
                if text == "NA" or not value:
                    assert not value, (name, row)
                    continue
                numbers += 1
                said = float(text.removesuffix("\u00a0%").replace(",", "")) / (100 if text.endswith("%") else 1)
                assert said == pytest.approx(float(value), rel=0.051, abs=0.0051 if text.endswith("%") else 1e-12), (
                    name,
                    row,
                )
            rows += 1
            assert not held or tuple(values) in written, (name, row)
    assert rows > 300 and numbers > 800


def test_first_screen_is_that_of_the_tables(report_results: Path, report_html: str) -> None:
    said = said_by(report_html)
    qc = [io.read_table(p) for p in sorted((report_results / "samples").glob("*/qc.parquet"))]
    total, kept = sum(len(t) for t in qc), sum(int(t["qc_pass"].sum()) for t in qc)
    assert f"Of {total:,} barcodes {kept:,} (" in said
    types = io.read_table(report_results / "cohort" / "cell_types.parquet")
    typed = int((types["cell_type"] != "unresolved").sum())
    assert f"{typed:,} of {len(types):,} cells were given a type" in said
    calls = [io.read_table(p) for p in sorted((report_results / "samples").glob("*/malignancy.parquet"))]
    malignant = sum(int((t["malignancy"] == "malignant").sum()) for t in calls)
    assert f"malignant cells were called ({malignant:,} cells)" in said
    csc = io.read_table(report_results / "cohort" / "csc_patients.tsv")
    tumours = csc[csc["primary_sample"].astype(bool)]
    assert f"In {tumours['m_csc_fraction'].notna().sum()} of {len(tumours)} tumours the CD44+/CD24- fraction" in said
    assert f"{tumours['aldh1a3_fraction'].notna().sum()} of {len(tumours)} tumours; median" in said


def test_figures_carry_help_data_and_files(report_results: Path, report_html: str) -> None:
    figures_ = re.findall(r'<figure id="figure-([^"]+)">(.*?)</figure>', report_html, re.S)
    assert len(figures_) > 15
    for name, body in figures_:
        assert 'aria-label="Help: ' in body, f"{name} has no words for a newcomer"
        for kind in ("png", "svg", "pdf", "csv"):
            path = report_results / "figures" / f"{name}.{kind}"
            assert path.stat().st_size > 20, name
        assert (report_results / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        held = re.search(f'id="held-csv-{name}">([^<]+)<', report_html)
        assert (
            held
            and gzip.decompress(base64.b64decode(held[1])) == (report_results / "figures" / f"{name}.csv").read_bytes()
        )
    assert len(set(re.findall(r'<img [^>]*alt="([^"]+)"', report_html))) == len(figures_)


def test_csv_files_run_nothing_in_a_spreadsheet() -> None:
    import pandas as pd

    table = pd.DataFrame({"=x": ["=1+1", "+cmd", "-2", "@a", "\tb", "plain"], "n": [-1.5, 2, 3, 4, 5, np.nan]})
    assert report_embed.csv_bytes(table).decode().splitlines() == [
        "'=x,n", "'=1+1,-1.5", "'+cmd,2", "-2,3", "'@a,4", "'\tb,5", "plain,NA",
    ]  # fmt: skip


def test_map_holds_rare_types_whole_and_decodes_to_what_went_in() -> None:
    import json

    import pandas as pd

    cells = pd.DataFrame(
        {"sample": ["a"] * 800 + ["b"] * 200, "cell_type": (["caf"] * 780 + ["mast"] * 20) + ["caf"] * 200}
    )
    cells["cell_id"] = [f"c{i}" for i in range(1000)]
    drawn = report_map.draw(cells, 300, 0, 50)
    assert len(drawn) <= 300 and (drawn["cell_type"] == "mast").sum() == 20
    shares = drawn[drawn["cell_type"] == "caf"]["sample"].value_counts(normalize=True)
    assert shares["b"] == pytest.approx(200 / 980, abs=0.01)
    assert drawn["cell_id"].is_unique and list(drawn["cell_id"]) == list(report_map.draw(cells, 300, 0, 50)["cell_id"])
    values = np.array([0.0, np.nan, 3.5, 7.0])
    data, low, high = report_map.quantised(values)
    codes = np.frombuffer(data, np.uint8)
    assert codes[1] == report_map.MISSING and (low, high) == (0.0, 7.0)
    back = low + codes[[0, 2, 3]] / report_map.STEPS * (high - low)
    assert np.abs(back - values[[0, 2, 3]]).max() <= (high - low) / report_map.STEPS / 2 + 1e-9
    assert json.loads(report_embed.json_bytes({"a": [1]})) == {"a": [1]}


def test_images_have_words(report_html: str) -> None:
    images = [a for t, a in read(report_html).tags if t == "img"]
    assert len(images) >= 12
    assert all(len(a["alt"] or "") > 15 and a["width"] and a["height"] for a in images)
    assert report_html.count("<figcaption>") == len(images)
    assert all("n = " in c or "Mean log ratio" in c for c in re.findall(r"<figcaption>.*?</figcaption>", report_html))


def test_same_tables_same_bytes(report_results: Path, report_html: str) -> None:
    config = load_config({"report": {"sample_pages": False}})
    report.run_report(report_results, report_results / "report.html", config=config)
    assert (report_results / "report.html").read_text(encoding="utf-8") == report_html
    assert not list(report_results.rglob("*.tmp"))


def test_pages_are_the_same_whatever_the_processes(report_results: Path, tmp_path: Path) -> None:
    import shutil

    written = []
    for threads in (1, 3):
        results = tmp_path / str(threads)
        shutil.copytree(report_results, results, ignore=shutil.ignore_patterns("report*", "figures"))
        report.run_report(results, results / "report.html", config=Config(), threads=threads)
        written.append({p.relative_to(results): p.read_bytes() for p in results.rglob("*") if p.is_file()})
    assert sum(p.parent.name == "report" for p in written[0]) == len(report_data.Data(report_results, Config()).samples)
    assert written[0] == written[1]


def test_a_page_leaves_no_figures_to_the_next(
    report_results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gc

    from matplotlib.figure import Figure

    drawn: list[bytes] = []
    render = figures.render
    monkeypatch.setattr(figures, "render", lambda *given: drawn.append(render(*given)) or drawn[-1])

    def alive() -> int:
        return sum(isinstance(o, Figure) for o in gc.get_objects())

    gc.collect()
    before = alive()
    shutil.copytree(report_results, tmp_path, ignore=shutil.ignore_patterns("report*", "figures"), dirs_exist_ok=True)
    data = report_data.Data(tmp_path, load_config({}))
    for sample in [data.samples[0]] * 3:
        report.write_sample_page(data, sample)
    assert len(drawn) > 3
    assert alive() - before <= len(drawn) / 3  # those of one page may still be there, not those of three


def test_whether_a_table_has_rows_is_known_without_reading_it(
    report_results: Path, tmp_path: Path, monkeypatch
) -> None:
    def unread(*_: Any, **__: Any) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(io, "read_table", unread)
    data = report_data.Data(report_results, load_config({}))
    assert data.has_rows("scores") and data.has_rows("embedding") and not data.has_rows("screen")
    (tmp_path / "samples").mkdir()
    shutil.copytree(report_results / "cohort", tmp_path / "cohort")
    io.write_table(tables.empty("embedding"), tmp_path / "cohort" / "embedding.parquet", "embedding")
    empty = report_data.Data(tmp_path, load_config({}))
    assert not empty.has_rows("scores") and not empty.has_rows("embedding")


def test_a_sample_sees_its_own_rows_of_every_table(report_results: Path) -> None:
    data = report_data.Data(report_results, load_config({}))
    for sample in data.samples:
        mine = report_samples.OneSample(data, sample)
        for name in ("cell_types", "axes", "loop", "embedding"):
            whole = data.table(name)
            own = whole[whole["sample"] == sample] if "sample" in whole else whole.iloc[:0]
            assert_frame_equal(mine.table(name), own.reset_index(drop=True), check_dtype=False)
        assert_frame_equal(
            mine.cells, data.cells[data.cells["sample"] == sample].reset_index(drop=True), check_dtype=False
        )


def test_provenance() -> None:
    record = provenance.describe(Config())
    assert record["nicheloop"] == nicheloop.__version__ and record["seed"] == 0
    assert load_config(record["config"]) == Config()
    import numpy

    assert record["packages"]["numpy"] == numpy.__version__
    assert not {"date", "time", "platform", "host", "user"} & set(record)


def test_cohort_without_any_answer(tmp_path: Path) -> None:
    words = " ".join("".join(read(build(tmp_path, cells=60, assessable=False, truth=False)).text).split())
    assert "In none of 5 tumours could the CD44+/CD24- fraction of malignant cells be estimated." in words
    assert "Macrophages could be assessed in none of 5 tumours." in words
    assert "Demo truth" not in words
    assert "nan" not in re.findall(r"[A-Za-z]+", words)


def test_empty_results(tmp_path: Path) -> None:
    io.write_text(
        tmp_path / "cohort" / "samples.tsv", "sample\tpatient\tstatus\treason\na\ta\tunreadable\tempty file\n"
    )
    config = Config()
    report.run_report(tmp_path, tmp_path / "report.html", config=config)
    reader = read((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert reader.headings == [h for h in HEADINGS if h != "Demo truth"]
    assert "a: empty file." in " ".join(reader.text)


def test_title_and_options_are_used(tmp_path: Path) -> None:
    config = load_config(
        {"report": {"title": "A & B <i>", "max_map_points": 100, "sample_pages": False}, "csc": {"min_malignant": 60}}
    )
    page = build(tmp_path, config, cells=60, truth=False)
    assert "<title>A &amp; B &lt;i&gt;</title>" in page
    assert "the same share of every sample" in page
    assert "60 cells (default 50)" in page


def test_every_figure_has_a_chapter_in_snakemakes_own_report(report_html: str) -> None:
    rules = (ROOT / "workflow" / "rules" / "common.smk").read_text()
    block = re.search(r"FIGURE_CHAPTERS = (\{.*?\n\})", rules, re.S)
    assert block
    starts = tuple(ast.literal_eval(block[1]))
    names = set(re.findall(r'<figure id="figure-([^"]+)">', report_html))
    assert {"aldh_isoforms", "qc_waterfall"} <= names
    assert sorted(n for n in names if not n.startswith(starts)) == []
