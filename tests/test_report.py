"""The report: one offline page, everything said, nothing executed."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nicheloop
from fake_results import make
from nicheloop import (
    io,
    provenance,
    report,
    report_cells,
    report_cohort,
    report_data,
    report_niche,
    report_page,
    report_text,
    report_truth,
    status,
    tables,
)
from nicheloop.config import Config, load_config

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
        if "style" not in self.stack:
            self.text.append(data)


def build(results: Path, config: Config | None = None, **kwargs: Any) -> str:
    samples = make(results, **kwargs)
    status.run_status(results, samples, results / "cohort" / "status.tsv")
    config = config or Config()
    report.run_report(results, results / "report.html", options=config.report, config=config)
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


def test_nothing_is_fetched_or_executed(page: str) -> None:
    reader = read(page)
    assert not {t for t, _ in reader.tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attrs in reader.tags:
        assert not any(k.startswith("on") for k in attrs), (tag, attrs)
        for key in ("src", "href"):
            value = attrs.get(key) or ""
            assert not re.match(r"(https?:)?//|javascript:|file:", value), value
            if key == "src" and value:
                assert value.startswith("data:image/png;base64,")
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style and "@import" not in style


def test_sample_names_are_escaped(page: str) -> None:
    assert "<script" not in page.lower()
    assert "&lt;script&gt;" in page
    assert "<script>" in "".join(read(page).text)


def test_links_lead_to_files(folder: Path, page: str) -> None:
    links = {a["href"] for t, a in read(page).tags if t == "a" and not (a["href"] or "").startswith("#")}
    assert len(links) > 20
    assert all((folder / str(link)).is_file() for link in links)


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
    assert report_cells.her2_words({"clone_1": {"amplified": None, "high": [], "measured": []}}) == "NA"


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
    meant = given["cell_type_input"].astype(str).map(report_cells.type_of_input)
    known = given[meant.notna()]
    expected = cohen_kappa_score(meant[meant.notna()].astype(str), known["cell_type"].astype(str))
    assert f"Of {len(known):,} cells whose label names a major type" in words
    assert f"agree, Cohen's kappa {report_page.number(expected)}. " in words and 0.5 < expected < 1
    assert "Labels that were not understood: Other." in words


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("Cancer LumA SC", "epithelial"), ("T cells CD8+", "t_nk"), ("NK", "t_nk"), ("Plasma B cells", "plasmablast"),
        ("B cells Memory", "b_cell"), ("myCAF-like", "caf"), ("Endothelial ACKR1", "endothelial"), ("PVL Differentiated", "pvl"),
        ("cDC2", "myeloid"), ("Macrophage", "myeloid"), ("Mast_cells", "mast"), ("cluster 7", None),
    ],
)  # fmt: skip
def test_type_of_input(label: str, expected: str | None) -> None:
    assert report_cells.type_of_input(label) == expected


def test_kappa_is_nan_with_one_label() -> None:
    assert np.isnan(report_cells.kappa(["a", "a"], ["a", "a"])) and np.isnan(report_cells.kappa([], []))


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
        "CXCL8: CXCR1/CXCR2 not detected in malignant cells of 1 of 1 tumour (at most 1.2\u00a0% of the cells of any tumour, "
        "n = 300 cells)."
    )
    tested = {**row, "status": "tested", "receptor_umi": 50.0, "receptor_fraction": 0.2}
    assert report_niche.towards_malignant(One(row, tested), "CXCL8") == ""  # type: ignore[arg-type]
    assert report_niche.towards_malignant(One(neutrophil), "CXCL8") == ""  # type: ignore[arg-type]
    absent = {**row, "status": "gene_absent_from_reference", "receptor_umi": np.nan, "receptor_fraction": np.nan}
    assert "gene absent from reference" in report_niche.towards_malignant(One(absent), "CXCL8")  # type: ignore[arg-type]


def test_same_tables_same_bytes(folder: Path, page: str) -> None:
    config = Config()
    report.run_report(folder, folder / "report.html", options=config.report, config=config)
    assert (folder / "report.html").read_text(encoding="utf-8") == page
    assert not list(folder.rglob("*.tmp"))


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
    report.run_report(tmp_path, tmp_path / "report.html", options=config.report, config=config)
    reader = read((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert reader.headings == [h for h in HEADINGS if h != "Demo truth"]
    assert "a: empty file." in " ".join(reader.text)


def test_title_and_options_are_used(tmp_path: Path) -> None:
    config = load_config({"report": {"title": "A & B <i>", "max_map_points": 100}, "csc": {"min_malignant": 60}})
    page = build(tmp_path, config, cells=60, truth=False)
    assert "<title>A &amp; B &lt;i&gt;</title>" in page
    assert "the same share of every sample" in page
    assert "60 cells (default 50)" in page


# -------------------------------------------------------------------------------------------------------------- text
def statuses_in_source() -> set[str]:
    """Names the source gives to what cannot be assessed."""
    found: set[str] = set()
    root = Path(nicheloop.__file__).parent
    patterns = (
        r'NotAssessable\(\s*"(\w+)"', r'"status": "(\w+)"', r'(?:GeneRates|Assessment)\(\s*"(\w+)"', r'\bstatus(?:, reason)? = "(\w+)"',
        r'_status"?\]? = "(\w+)"', r'status=\s*"(\w+)"', r'\brung(?:, mean)? = "(\w+)"', r'Reference\(\s*"(\w+)"', r'_unanswered\(\s*\w+, "(\w+)"',
    )  # fmt: skip
    for path in root.glob("*.py"):
        if path.name not in ("report_text.py", "io.py"):
            for pattern in patterns:
                found |= set(re.findall(pattern, path.read_text(encoding="utf-8")))
    return found


def test_every_status_has_plain_words() -> None:
    names = (
        statuses_in_source()
        | set(tables.AXIS_STATUSES)
        | {"unknown_subtype", "arm_b_too_few_csc", "cd24_absent_from_reference"}
    )
    reasons = {c.allowed for n in ("cell_types",) for c in tables.CONTRACTS[n].columns if c.name == "cell_type_reason"}
    names |= set(*reasons)
    assert len(names) > 15
    missing = sorted(n for n in names if not report_text.explained(n))
    assert not missing


def test_explain_takes_names_apart() -> None:
    assert "response arm (B)" in report_text.explain("arm_b_too_few_csc") and "CSC-high" in report_text.explain(
        "arm_b_too_few_csc"
    )
    assert report_text.explain("cd24_absent_from_reference").startswith("CD24 ")
    assert "subtype" in report_text.explain("unknown_subtype")
    assert report_text.explain("brand_new").startswith("Brand new") and not report_text.explained("brand_new")


def test_short_words() -> None:
    assert report_text.short_words("arm_a_ligand_not_detected") == "arm A: ligand not detected"
    assert report_text.short_words("arm_c_too_few_cells") == "arm C: too few cells"
    assert report_text.short_words("cd24_absent_from_reference") == "CD24 absent from reference"
    assert report_text.short_words("ambient") == "ambient"
    names = statuses_in_source() | set(tables.AXIS_STATUSES) | {"arm_b_csc_not_assessable"}
    assert not [n for n in names if "_" in report_text.short_words(n)]


def test_limits_are_not_worded_causally() -> None:
    said = " ".join([*report_text.STATUS_WORDS.values(), *report_text.METHOD_NOTES.values()]).lower()
    assert not re.search(r"\b(drives|proves|causes)\b", said)


# ------------------------------------------------------------------------------------------------------------- small
def test_power_matches_the_published_points() -> None:
    assert round(report_cohort.smallest_rho(26), 2) == 0.53 and round(report_cohort.smallest_rho(10), 2) == 0.79
    assert np.isnan(report_cohort.smallest_rho(3))
    assert "0.53" in report_cohort.power_statement(
        2
    ) and "no correlation can be judged" in report_cohort.power_statement(2)


def test_smallest_rho_by_simulation() -> None:
    rng, n = np.random.default_rng(5), 26
    rho = report_cohort.smallest_rho(n)
    x = rng.normal(size=(4000, n))
    y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=(4000, n))
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(x, y, strict=True)]
    t = np.abs(r) * np.sqrt((n - 2) / (1 - np.square(r)))
    from scipy import stats

    power = float((stats.t.sf(t, n - 2) * 2 < 0.05).mean())
    assert 0.75 < power < 0.85


def test_macro_f1_and_balanced_accuracy_against_sklearn() -> None:
    from sklearn.metrics import balanced_accuracy_score, f1_score

    rng = np.random.default_rng(0)
    truth, found = rng.choice(list("abc"), 200), rng.choice(list("abcd"), 200)
    expected = f1_score(truth, found, average="macro", labels=list("abc"))
    assert report_truth.macro_f1(truth.tolist(), found.tolist())[0] == pytest.approx(expected)
    a, b = rng.random(100) < 0.3, rng.random(100) < 0.5
    assert report_truth.balanced_accuracy(a, b) == pytest.approx(balanced_accuracy_score(a, b))
    assert np.isnan(report_truth.balanced_accuracy(np.ones(3, dtype=bool), np.ones(3, dtype=bool)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "NA"),
        (float("nan"), "NA"),
        (0, "0"),
        (1234.4, "1,234"),
        (0.0001234, "1.2e-04"),
        (0.12345, "0.123"),
        (12.0, "12"),
    ],
)
def test_number(value: float | None, expected: str) -> None:
    assert report_page.number(value) == expected


def test_find_figure() -> None:
    summary = {"n_caf": 20, "caf_malignant_share": 0.01, "reference_false_positive_upper": 0.03, "flag": True}
    assert report_data.find_figure(summary, "caf", "malignant") == 0.01
    assert report_data.find_figure(summary, "positive", "upper") == 0.03
    assert np.isnan(report_data.find_figure(summary, "flag"))
