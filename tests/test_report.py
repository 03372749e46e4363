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
from fake_results import make
from nicheloop import (
    genes,
    io,
    provenance,
    report,
    report_annotation,
    report_axes,
    report_cells,
    report_cohort,
    report_data,
    report_embed,
    report_loop,
    report_malignancy,
    report_map,
    report_niche,
    report_page,
    report_samples,
    report_summary,
    report_text,
    resources,
    status,
    tables,
    vocabulary,
)
from nicheloop.config import Config, load_config
from repository import ROOT

HEADINGS = [
    "Summary", "Quality", "Map", "Composition", "Annotation", "Malignancy", "Cancer stem cells (CD44/CD24 and ALDH1A3)",
    "Macrophages (M1/M2)", "Crosstalk (IL6, CXCL8, PPBP)", "Loop", "Cohort", "Enrichment", "Demo truth", "Not assessable",
    "Limitations", "Methods", "Provenance",
]  # fmt: skip


class Reader(HTMLParser):
    """Headings, tags, links, images and text of a page; unbalanced tags are an error."""

    VOID = ("meta", "img", "br", "hr", "link", "input")

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "h2":
            self.headings.append("")
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack[-1] == tag, f"</{tag}> closes {self.stack[-3:]}"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] == "h2":
            self.headings[-1] += data
        if not {"style", "script"} & set(self.stack):
            self.text.append(data)


def build(results: Path, config: Config | None = None, **kwargs: Any) -> str:
    samples = make(results, **kwargs)
    status.run_status(results, samples, results / "cohort" / "status.tsv")
    config = config or load_config({"report": {"sample_pages": False}})
    report.run_report(results, results / "report.html", config=config)
    return (results / "report.html").read_text(encoding="utf-8")


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.stack
    return reader


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    build(results, cells=80)
    return results


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_chapters_in_order(page: str) -> None:
    reader = read(page)
    assert reader.headings == HEADINGS
    targets = {a["id"] for _, a in reader.tags if a.get("id")}
    assert all(a["href"][1:] in targets for t, a in reader.tags if t == "a" and (a["href"] or "").startswith("#"))  # type: ignore[index]


def test_nothing_is_fetched_and_only_its_own_scripts_run(page: str) -> None:
    reader = read(page)
    assert not {t for t, _ in reader.tags} & {"link", "iframe", "object", "embed", "base", "form"}
    for tag, attrs in reader.tags:
        assert not any(k.startswith("on") for k in attrs), (tag, attrs)
        for key in ("src", "href"):
            value = attrs.get(key) or ""
            assert not re.match(r"(https?:)?//|javascript:|file:", value), value
            if key == "src" and value:
                assert value.startswith("data:image/png;base64,")
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style and "@import" not in style
    policy = next(a["content"] or "" for t, a in reader.tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.split("style-src")[0]
    run = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(run) == 2
    for text in run:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    held = [a for t, a in reader.tags if t == "script" and a]
    assert held and all(a["type"] == "application/gzip" for a in held)


def test_sample_names_are_escaped(page: str) -> None:
    assert "&lt;script&gt;" in page
    assert "<script>" in "".join(read(page).text)


def test_links_lead_to_files(folder: Path, page: str) -> None:
    links = {a["href"] for t, a in read(page).tags if t == "a" and not (a["href"] or "").startswith("#")}
    assert len(links) > 20
    assert all((folder / unquote(str(link))).is_file() for link in links)


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


def test_numbers_on_the_page_are_those_of_the_tables(folder: Path, page: str) -> None:
    import pandas as pd

    reader = Tables()
    reader.feed(page)
    rows = numbers = 0
    for name, shown in reader.found.items():
        table = pd.read_csv(folder / shown["path"], sep="\t", na_values=["NA"], keep_default_na=False)
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


def test_first_screen_is_that_of_the_tables(folder: Path, page: str) -> None:
    said = said_by(page)
    qc = [io.read_table(p) for p in sorted((folder / "samples").glob("*/qc.parquet"))]
    total, kept = sum(len(t) for t in qc), sum(int(t["qc_pass"].sum()) for t in qc)
    assert f"Of {total:,} barcodes {kept:,} (" in said
    types = io.read_table(folder / "cohort" / "cell_types.parquet")
    typed = int((types["cell_type"] != "unresolved").sum())
    assert f"{typed:,} of {len(types):,} cells were given a type" in said
    calls = [io.read_table(p) for p in sorted((folder / "samples").glob("*/malignancy.parquet"))]
    malignant = sum(int((t["malignancy"] == "malignant").sum()) for t in calls)
    assert f"malignant cells were called ({malignant:,} cells)" in said
    csc = io.read_table(folder / "cohort" / "csc_patients.tsv")
    tumours = csc[csc["primary_sample"].astype(bool)]
    assert f"In {tumours['m_csc_fraction'].notna().sum()} of {len(tumours)} tumours the CD44+/CD24- fraction" in said
    assert f"{tumours['aldh1a3_fraction'].notna().sum()} of {len(tumours)} tumours; median" in said


def test_figures_carry_help_data_and_files(folder: Path, page: str) -> None:
    figures_ = re.findall(r'<figure id="figure-([^"]+)">(.*?)</figure>', page, re.S)
    assert len(figures_) > 15
    for name, body in figures_:
        assert 'aria-label="Help: ' in body, f"{name} has no words for a newcomer"
        for kind in ("png", "svg", "pdf", "csv"):
            path = folder / "figures" / f"{name}.{kind}"
            assert path.stat().st_size > 20, name
        assert (folder / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        held = re.search(f'id="held-csv-{name}">([^<]+)<', page)
        assert held and gzip.decompress(base64.b64decode(held[1])) == (folder / "figures" / f"{name}.csv").read_bytes()
    assert len(set(re.findall(r'<img [^>]*alt="([^"]+)"', page))) == len(figures_)


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


def test_methods_say_what_ran_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    from nicheloop.report_methods import methods_chapter

    d = report_data.Data(folder, Config())
    headings = {b.text for b in methods_chapter(d, report_page.Page(tmp_path)) if b.kind == "heading"}
    assert {"qc", "csc", "crosstalk", "loop"} <= headings and "screen" not in headings
    io.write_text(tmp_path / "cohort" / "samples.tsv", "sample\tpatient\tstatus\treason\na\ta\tunreadable\tempty\n")
    nothing = methods_chapter(report_data.Data(tmp_path, Config()), report_page.Page(tmp_path))
    assert not [b for b in nothing if b.kind == "heading"]
    assert any("Not run, or without any answer" in b.text for b in nothing)


def test_inhibitors_have_sources_and_known_axes() -> None:
    known = {a.id for a in genes.axes()}
    for drug in resources.yaml("inhibitors.yaml"):
        assert re.fullmatch(r"10\.\d{4,9}/\S+", drug["doi"]) and set(drug["axes"]) <= known, drug["drug"]


def test_images_have_words(page: str) -> None:
    images = [a for t, a in read(page).tags if t == "img"]
    assert len(images) >= 12
    assert all(len(a["alt"] or "") > 15 and a["width"] and a["height"] for a in images)
    assert page.count("<figcaption>") == len(images)
    assert all("n = " in c or "Mean log ratio" in c for c in re.findall(r"<figcaption>.*?</figcaption>", page))


def test_first_screen_counts(page: str) -> None:
    words = " ".join("".join(read(page).text).split())
    assert "In 3 of 5 tumours the CD44+/CD24- fraction of malignant cells could be estimated" in words
    assert "6 samples of 6 patients came in, 1 of them normal tissue. 1 sample could not be read." in words
    assert "T5: matrix.mtx.gz ends in the middle of a line." in words
    assert "CD44+/CD24- fraction, 2 of 5 tumours: too shallow for a zero to mean low (T4); unreadable (T5)." in words


def cell_texts(page: str, table: str) -> list[list[str]]:
    """Body cells of one table of the page."""
    body = page[page.index(f'id="table-{table}"') :]
    body = body[body.index("<tbody>") : body.index("</tbody>")]
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in body.split("</tr>")[:-1]]


def test_clones_and_expected_changes(page: str) -> None:
    rows = {r[0]: r for r in cell_texts(page, "clones")}
    assert set(rows) == {"T1", "&lt;script&gt;", "T3", "T4"}  # neither the unreadable sample nor normal tissue
    _, subtype, clones, against, events, found, other, her2 = rows["T1"]
    assert subtype == "TNBC" and clones.startswith("2 (") and against == "normal epithelium of the sample"
    assert events == "1q gain, 16q loss (1)" and found == "2 of 3" and other == "9p24 loss (1)"
    assert her2 == "not amplified (1 of 3 genes)"
    assert report_malignancy.her2_words({"clone_1": {"amplified": None, "high": [], "measured": []}}) == "NA"


def test_rates_that_differ_between_samples_are_said_in_words(page: str) -> None:
    said = {r[1]: r[-1] for r in cell_texts(page, "csc_rates")}
    assert said["CD24"].startswith("samples differ more than the cells within them")
    assert said["CD44"] == said["ALDH1A3"] == "two states within samples"


def test_panels_left_out_are_named(page: str) -> None:
    words = " ".join("".join(read(page).text).split())
    assert "Not drawn, because no macrophage was scored: T5 and T3." in words


def test_circularity_is_shown(page: str) -> None:
    rows = cell_texts(page, "circularity")
    assert rows and all(int(r[2]) == len(r[3].split(", ")) for r in rows)
    assert all(r[4] == "no" for r in rows)  # no pair that must be apart shares a gene


def test_input_annotation_is_compared(page: str, folder: Path) -> None:
    from sklearn.metrics import cohen_kappa_score

    words = " ".join("".join(read(page).text).split())
    types = io.read_table(folder / "cohort" / "cell_types.parquet")
    given = types[types["cell_type_input"].notna()]
    meant = given["cell_type_input"].astype(str).map(lambda v: vocabulary.meaning(v)[0])
    known = given[meant != ""]
    expected = cohen_kappa_score(meant[meant != ""].astype(str), known["cell_type"].astype(str))
    assert f"Of {len(known):,} cells whose label names a major type" in words
    assert f"agree, Cohen's kappa {report_page.number(expected)}. " in words and 0.5 < expected < 1
    assert "Labels that were not understood: Other." in words


def test_kappa_is_nan_with_one_label() -> None:
    assert np.isnan(report_annotation.kappa(["a", "a"], ["a", "a"])) and np.isnan(report_annotation.kappa([], []))


def test_obstacle_of_malignant_receivers(tmp_path: Path) -> None:
    import pandas as pd

    row = {"ligand": "CXCL8", "receptor": "CXCR1", "sender": "macrophage", "receiver": "malignant", "axis": "CXCL8",
           "arm": "forward", "reason": "", "status": "receptor_not_detected", "n_sender": 30, "n_receiver": 300,
           "ligand_umi": 90.0, "ligand_fraction": 0.9, "ligand_upper": 0.97, "receptor_umi": 0.0, "receptor_fraction": 0.0,
           "receptor_upper": 0.01, "n_platelet": 0, "n_neutrophil": 0}  # fmt: skip
    neutrophil = {**row, "receiver": "neutrophil", "status": "too_few_cells", "n_receiver": 0, "receptor_upper": np.nan}

    class One:
        config, tumours = Config(), ["T1"]

        def __init__(self, *rows: dict[str, Any]) -> None:
            self.rows = pd.DataFrame(rows).assign(sample="T1")

        def per_sample(self, name: str) -> pd.DataFrame:
            return self.rows

    said = report_niche.towards_malignant(
        One(row, {**row, "receptor": "CXCR2", "receptor_upper": 0.012}, neutrophil), "CXCL8"
    )  # type: ignore[arg-type]
    assert said == (
        "CXCL8: CXCR1/CXCR2 not detected in malignant cells of 1 of 1 tumour (at most 1.2\u00a0% of the cells of any "
        "tumour, "
        "n = 300 cells)."
    )
    others = [
        {**row, "status": s, "sample": f"T{i}", "receptor_umi": 50.0, "receptor_fraction": 0.2, "n_sender": 0}
        for i, s in enumerate(("gene_absent_from_reference", "ambient_not_exceeded", "ambient_not_exceeded"), start=2)
    ]
    cohort = One(row)
    cohort.tumours, cohort.rows = ["T1", "T2", "T3", "T4"], pd.concat([cohort.rows, pd.DataFrame(others)])
    assert report_niche.towards_malignant(cohort, "CXCL8").endswith(  # type: ignore[arg-type]
        "not above ambient RNA in 2 of 4 tumours; gene absent from reference in 1 of 4 tumours."
    )
    tested = {**row, "status": "tested", "receptor_umi": 50.0, "receptor_fraction": 0.2}
    assert report_niche.towards_malignant(One(row, tested), "CXCL8") == ""  # type: ignore[arg-type]
    assert report_niche.towards_malignant(One(neutrophil), "CXCL8") == ""  # type: ignore[arg-type]
    absent = {**row, "status": "gene_absent_from_reference", "receptor_umi": np.nan, "receptor_fraction": np.nan}
    assert "gene absent from reference" in report_niche.towards_malignant(One(absent), "CXCL8")  # type: ignore[arg-type]


def said_by(page: str) -> str:
    return " ".join("".join(read(page).text).split())


def test_annotation_of_the_input_that_gave_the_types_is_said_so() -> None:
    import pandas as pd

    types = pd.DataFrame({
        "cell_id": list("abcd"), "cell_type": ["caf", "caf", "t_nk", "t_nk"], "confidence": [0.9, 0.2, 0.99, 0.99],
        "cell_type_reason": ["from_input", "from_input", "label_not_understood", "ok"],
        "cell_type_input": ["CAFs", "CAFs", "?", None]})  # fmt: skip

    class One:
        config = Config()

    written: list[pd.DataFrame] = []

    class Paper:
        def table(self, name: str, table: pd.DataFrame, shown: Any, title: str, caption: str) -> report_page.Block:
            written.append(table)
            return report_page.Block("table", caption=caption)

    blocks = report_annotation.input_blocks(One(), types, Paper())  # type: ignore[arg-type]
    assert "gave 2 cells of 4 their type" in blocks[0].text and "below 0.5 in 1 cell (50" in blocks[0].text
    assert "1 cell kept the computed type" in blocks[0].text
    assert "was not used" not in blocks[1].caption and "n = 1 cell with" in blocks[1].caption
    untouched = types.assign(cell_type_reason="ok")
    assert "was not used to give types" in report_annotation.input_blocks(One(), untouched, Paper())[0].caption  # type: ignore[arg-type]


def test_calibration_words_are_those_of_the_documentation() -> None:
    text = (Path(__file__).parents[1] / "docs" / "annotate.md").read_text(encoding="utf-8")
    line = " ".join(text.split())
    line = line[line.index("Confidence against the share that is right (") :]
    assert f"({report_text.CALIBRATION_CELLS:,} cells" in line
    numbers = [float(v) for v in re.findall(r": (0\.\d+)", line[: line.index("It is somewhat")])]
    assert numbers == [right for _, right in report_text.CALIBRATION]


def test_unresolved_cells_have_their_reasons(page: str, folder: Path) -> None:
    types = io.read_table(folder / "cohort" / "cell_types.parquet")
    for sample, cells, unresolved, share, ambient, low, two in cell_texts(page, "unresolved"):
        mine = types[types["sample"] == sample.replace("&lt;", "<").replace("&gt;", ">")]
        bad = mine[mine["cell_type"] == "unresolved"]
        assert (int(cells), int(unresolved)) == (len(mine), len(bad))
        assert [int(ambient), int(low), int(two)] == [
            int((bad["cell_type_reason"] == r).sum()) for r in ("ambient", "low_evidence", "two_lineages")
        ]
        assert share == ("NA" if not len(mine) else report_page.fraction(len(bad) / len(mine)))
    bands = cell_texts(page, "confidence_bands")
    assert sum(int(r[1].replace(",", "")) for r in bands) == len(types)


def test_three_way_call_names_its_reasons(page: str, folder: Path) -> None:
    found = {tuple(r[:2]): int(r[3]) for r in cell_texts(page, "malignancy_reasons")}
    calls = io.read_table(folder / "samples" / "T1" / "malignancy.parquet")["malignancy"].value_counts()
    assert {k[1]: v for k, v in found.items() if k[0] == "T1"} == {
        c: calls[c] for c in ("malignant", "normal", "unassigned") if c in calls
    }
    loci = cell_texts(page, "marker_loci")
    assert loci[0][0] == "CD44" and loci[0][4] == "gain" and loci[-1][4] == "no change"
    checks = cell_texts(page, "arm_checks")
    assert ["T1", "1", "9p24", "gain", "loss", "no", "50", "0.1", "3.5"] in checks


def test_measurability_comes_first_and_decoys_are_counted(page: str) -> None:
    chapter = page[page.index('<section id="crosstalk') : page.index('<section id="loop"')]
    order = re.findall(r'id="((?:table|figure)-[\w]+)"', chapter)
    assert order[0] == "table-measurability"
    assert order.index("figure-axes_1") < order.index("figure-patients_1") < order.index("table-axis_controls")
    assert {"table-axis_subtypes", "table-axis_power", "table-barcode_guards", "table-decoys"} <= set(order)
    words = said_by(page)
    assert (
        "of 250 expressed pairs of a secreted and a membrane protein without a recorded interaction, 10 have p of 0.05"
        in words
    )
    assert "4.0 % (2.0 to 8.0 %)" in words and "it would be 100 (40 %)" in words
    assert "silent" not in words
    guards = cell_texts(page, "barcode_guards")
    assert len(guards) == 4 and all(r[1:] == ["12", "3"] for r in guards)
    subtype = {r[3]: r for r in cell_texts(page, "axis_subtypes")}
    assert subtype["TNBC"][5] == "1" and subtype["TNBC"][8] == "-0.5 (-1.25 to 0.25)" and "unknown subtype" in subtype


def test_reasons_are_not_cut(page: str) -> None:
    reason = next(r for r in cell_texts(page, "axis_controls") if r[0] == "DLL4-NOTCH4")[-1]
    assert len(reason) > report_page.LETTERS and not reason.endswith("…")


def test_patient_values_are_those_of_the_pooled_table() -> None:
    import pandas as pd

    base = {
        "axis": "X",
        "sender": "caf",
        "receiver": "malignant",
        "ligand": "L",
        "specificity": 1.0,
        "specificity_se": 0.5,
    }
    rows = pd.DataFrame([
        {**base, "sample": "a", "receptor": "R1", "status": "tested", "strength": 2.0, "log2_se": 0.25, "q": 0.01},
        {**base, "sample": "a", "receptor": "R2", "status": "tested", "strength": 8.0, "log2_se": 0.5, "q": 0.2},
        {**base, "sample": "b", "receptor": "R1", "status": "too_few_cells"},
        {**base, "sample": "b", "receptor": "R2", "status": "receptor_not_detected"},
    ])  # fmt: skip
    found = report_axes.patient_values(rows, pd.Series(base), ["a", "b", "c"], 2.0)
    assert found["effect"].tolist()[0] == 3.0 and found["q"].tolist()[0] == 0.2  # by strength, never by p
    assert (found["effect_low"][0], found["effect_high"][0]) == (2.0, 4.0)
    assert (found["specificity_low"][0], found["specificity_high"][0]) == (0.0, 2.0)
    assert (
        found["status"].tolist() == ["tested", "receptor_not_detected", "not_run"] and found["effect"].isna().sum() == 2
    )


def test_pair_that_is_drawn_holds_malignant_cells() -> None:
    import pandas as pd

    row = {"axis": "IL6_classic", "arm": "forward", "n_significant": 0, "n_significant_usual": 0, "effect": 0.0}
    table = pd.DataFrame([
        {**row, "sender": "endothelial", "receiver": "t_cd4", "n_assessable": 5},
        {**row, "sender": "icaf", "receiver": "malignant", "n_assessable": 3},
        {**row, "sender": "pvl", "receiver": "malignant", "n_assessable": 2},
        {**row, "axis": "DECOY", "arm": "decoy", "sender": "a", "receiver": "malignant", "n_assessable": 5},
    ])  # fmt: skip
    assert report_axes.best_pairs(table)[["sender", "receiver"]].to_numpy().tolist() == [["icaf", "malignant"]]


def test_loop_shows_both_labels_and_what_is_shared_once(page: str, folder: Path) -> None:
    import pandas as pd

    arms = io.read_table(folder / "samples" / "T1" / "loop.parquet").set_index(["axis", "arm"])
    shown = {(r[0], r[1]): r for r in cell_texts(page, "loop_arms")}
    assert shown["T1", "A"][5] == report_page.number(arms.loc[("IL6_classic", "A"), "z"])
    assert shown["T1", "C"][6:] == ["0.015", "0.015", "0.02", "0.015"]
    first = {r[0]: r for r in cell_texts(page, "loop_responses")}["T1"]
    assert first[3] == report_page.number(arms.loc[("IL6_classic", "B"), "effect_stress"]) and first[-1] == "0.02"
    assert cell_texts(page, "loop_responses_aldh1a3")
    shared = pd.DataFrame(
        {
            "axis": ["a", "b", "c", "a", "b", "c"],
            "arm": list("CCCAAA"),
            "sample": "s",
            "what": list("xxxyyz"),
            "effect": 1.0,
            "p": 0.1,
        }
    )
    assert report_loop.once(shared)["axes"].tolist() == ["all", "a and b", "c"]
    assert (
        report_loop.joined("arm A: no cells; arm B: no cells; arm C: no gene")
        == "arms A and B: no cells; arm C: no gene"
    )
    assert report_loop.joined("the weakest arm is B (p 0.3)") == "the weakest arm is B (p 0.3)"
    chain = {(r[0], r[1]): r[8] for r in cell_texts(page, "chain_levels")}
    assert chain["T1", "IL1B"] == "1.25" and chain["T3", "IL6"] == "NA"


def test_facts_failures_and_receptors_where_their_tables_exist(tmp_path: Path) -> None:
    import pandas as pd

    samples = make(tmp_path, cells=60, truth=False)
    fact = {
        "dataset": "D<1>",
        "claim": "26 patients",
        "expected": "26",
        "found": "25",
        "severity": "hard",
        "source": "paper",
    }
    facts = [{**fact, "fact": "a", "result": "pass"}, {**fact, "fact": "b", "result": "differ"}]
    io.write_table(pd.DataFrame(facts), tmp_path / "cohort" / "facts.tsv", "facts")
    io.write_table(
        tables.empty("tam"),
        tmp_path / "samples" / "T3" / "tam.parquet",
        "tam",
        io.Status("tam", "T3", "failed", "no memory"),
    )
    status.run_status(tmp_path, samples, tmp_path / "cohort" / "status.tsv")
    d, paper = report_data.Data(tmp_path, Config()), report_page.Page(tmp_path)
    first, *rest = report_summary.summary_chapter(d)
    assert first.kind == "warnings"
    said = [(w.text, w.anchor) for w in first.entries]
    assert said[0][0].startswith("1 of 6 samples was not finished because a job failed: T3.")
    assert said[1] == ("1 sample could not be read: T5.", "not-assessable")
    assert (
        "1 published fact of the hard kind differs from what was read: the files may not be the data described.",
        "quality",
    ) in said
    assert next(b for b in rest if b.kind == "bullets" and "T3: the stage tam failed" in b.entries[0].text)
    _, said, table = report_cells.facts_blocks(d, paper)
    assert said.kind == "note" and "1 agree with what was read, 1 differ and 0 could not be checked" in said.text
    assert [r[4] for r in table.rows] == ["differ", "pass"]
    words, receptors = report_malignancy.receptor_blocks(d, paper)
    assert "agree in 1 of 3 patients compared" in words.text and "for P3, whose sheet gives none" in words.text
    rows = {r[0]: r for r in receptors.rows}
    assert rows["P0"][1:7] == ["T1", "TNBC", "TNBC", "agrees", "TNBC", "sheet"] and rows["P1"][4] == "differs"
    assert rows["P3"][2:7] == ["NA", "TNBC", "not compared", "TNBC", "inferred"]
    assert rows["P0"][9] == "0 (0 to 7.4)" and rows["P0"][11] == "NA"
    html = report.render_page("t", "l", [report_page.Chapter("c", [first, said, table])])
    assert "D&lt;1&gt;" in html and "D<1>" not in html


@pytest.mark.parametrize("method", ["strength", "cellphonedb"])
def test_screen_chapter_only_where_it_was_run(tmp_path: Path, method: str) -> None:
    import pandas as pd

    from nicheloop.report_screen import has_screen, screen_chapter

    io.write_text(tmp_path / "cohort" / "samples.tsv", "sample\tpatient\tstatus\treason\na\ta\tok\t\nb\tb\tok\t\n")
    config = load_config({"screen": {"resource": "pairs.tsv", "method": method}})
    assert not has_screen(report_data.Data(tmp_path, config))
    row = {"ligand": "CSF1", "receptor": "CSF1R", "sender": "malignant", "status": "tested", "obstacle": None, "n_sender": 30,
           "n_receiver": 30, "ligand_fraction": 0.5, "receptor_fraction": 0.5, "ligand_mean": 1.0, "receptor_mean": 1.0, "score": 1.0,
           "n_extreme": 0, "p": 0.001, "p_upper": 0.004, "q": 0.01, "q_tested": 0.01}  # fmt: skip
    none = dict.fromkeys(("score", "p", "p_upper", "q", "q_tested"), np.nan) | {"n_extreme": pd.NA}
    screen = pd.DataFrame([
        {**row, "receiver": "myeloid"}, {**row, "receiver": "t_nk", "q": 0.5},
        {**row, **none, "receiver": "caf", "status": "too_few_cells", "obstacle": "caf"},
    ])  # fmt: skip
    io.write_table(screen, tmp_path / "samples" / "a" / "screen.parquet", "screen", io.Status("screen", "a"))
    d = report_data.Data(tmp_path, config)
    blocks = screen_chapter(d, report_page.Page(tmp_path))
    assert has_screen(d) and ("no matched-pair and no decoy null" in blocks[0].text) == (method == "strength")
    assert blocks[1].rows == [["a", "3", "2", "1", "2", "too few cells (1)"], ["b", "0", "0", "0", "0", "no row"]]
    assert blocks[2].rows[0] == ["CSF1", "CSF1R", "malignant", "myeloid", "1", "1", "1", "0.004"]


def test_enrichment_marks_what_is_circular(tmp_path: Path) -> None:
    import pandas as pd

    row = {"contrast": "aldh1a3", "status": "ok", "reason": "", "n_patients": 4, "mean_counts": 10.0, "log2_fold_change": 2.0,
           "statistic": 9.0, "p": 1e-9, "q": 1e-8}  # fmt: skip
    de = pd.DataFrame(
        [{**row, "gene": "ALDH1A3", "circular": True}, {**row, "gene": "KRT5", "circular": False, "q": 0.5}]
    )
    io.write_table(de, tmp_path / "cohort" / "de.tsv", "de")
    blocks = report_cohort.enrichment_chapter(report_data.Data(tmp_path, Config()), report_page.Page(tmp_path))
    assert any("ALDH1A3-high against ALDH1A3-low" in b.text for b in blocks if b.kind == "heading")
    table = next(b for b in blocks if b.kind == "table")
    assert [r[:2] for r in table.rows] == [["ALDH1A3", "yes"], ["KRT5", "–"]]
    assert "ALDH1A3 defines the contrast and differs by construction" in table.caption


def test_same_tables_same_bytes(folder: Path, page: str) -> None:
    config = load_config({"report": {"sample_pages": False}})
    report.run_report(folder, folder / "report.html", config=config)
    assert (folder / "report.html").read_text(encoding="utf-8") == page
    assert not list(folder.rglob("*.tmp"))


def test_pages_are_the_same_whatever_the_processes(folder: Path, tmp_path: Path) -> None:
    import shutil

    written = []
    for threads in (1, 3):
        results = tmp_path / str(threads)
        shutil.copytree(folder, results, ignore=shutil.ignore_patterns("report*", "figures"))
        report.run_report(results, results / "report.html", config=Config(), threads=threads)
        written.append({p.relative_to(results): p.read_bytes() for p in results.rglob("*") if p.is_file()})
    assert sum(p.parent.name == "report" for p in written[0]) == len(report_data.Data(folder, Config()).samples)
    assert written[0] == written[1]


def test_a_page_leaves_no_figures_to_the_next(folder: Path) -> None:
    import gc

    from matplotlib.figure import Figure

    def alive() -> int:
        return sum(isinstance(o, Figure) for o in gc.get_objects())

    gc.collect()
    before = alive()
    data = report_data.Data(folder, load_config({}))
    counts = []
    for sample in [data.samples[0]] * 3:
        report.write_sample_page(data, sample)
        counts.append(alive() - before)
    assert counts[0] > 0 and counts[2] <= counts[0]  # those of one page are still there, not those of three


def test_whether_a_table_has_rows_is_known_without_reading_it(folder: Path, tmp_path: Path, monkeypatch) -> None:
    def unread(*_: Any, **__: Any) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(io, "read_table", unread)
    data = report_data.Data(folder, load_config({}))
    assert data.has_rows("scores") and data.has_rows("embedding") and not data.has_rows("screen")
    (tmp_path / "samples").mkdir()
    shutil.copytree(folder / "cohort", tmp_path / "cohort")
    io.write_table(tables.empty("embedding"), tmp_path / "cohort" / "embedding.parquet", "embedding")
    empty = report_data.Data(tmp_path, load_config({}))
    assert not empty.has_rows("scores") and not empty.has_rows("embedding")


def test_a_sample_sees_its_own_rows_of_every_table(folder: Path) -> None:
    data = report_data.Data(folder, load_config({}))
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


def test_every_figure_has_a_chapter_in_snakemakes_own_report(page: str) -> None:
    rules = (ROOT / "workflow" / "rules" / "common.smk").read_text()
    block = re.search(r"FIGURE_CHAPTERS = (\{.*?\n\})", rules, re.S)
    assert block
    starts = tuple(ast.literal_eval(block[1]))
    names = set(re.findall(r'<figure id="figure-([^"]+)">', page))
    assert {"aldh_isoforms", "qc_waterfall"} <= names
    assert sorted(n for n in names if not n.startswith(starts)) == []
