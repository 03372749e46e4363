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
from nicheloop import io, report, report_text, status, tables
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
    assert "T4: not informative depth" in words


def test_same_tables_same_bytes(folder: Path, page: str) -> None:
    before = (folder / "provenance.json").read_bytes()
    config = Config()
    report.run_report(folder, folder / "report.html", options=config.report, config=config)
    assert (folder / "report.html").read_text(encoding="utf-8") == page
    assert (folder / "provenance.json").read_bytes() == before
    assert not list(folder.rglob("*.tmp"))


def test_provenance(folder: Path) -> None:
    record = io.read_json(folder / "provenance.json")
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


def test_limits_are_not_worded_causally() -> None:
    said = " ".join([*report_text.STATUS_WORDS.values(), *report_text.METHOD_NOTES.values()]).lower()
    assert not re.search(r"\b(drives|proves|causes)\b", said)


# ------------------------------------------------------------------------------------------------------------- small
def test_power_matches_the_published_points() -> None:
    assert round(report.smallest_rho(26), 2) == 0.53 and round(report.smallest_rho(10), 2) == 0.79
    assert np.isnan(report.smallest_rho(3))
    assert "0.53" in report.power_statement(2) and "no correlation can be judged" in report.power_statement(2)


def test_smallest_rho_by_simulation() -> None:
    rng, n = np.random.default_rng(5), 26
    rho = report.smallest_rho(n)
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
    assert report.macro_f1(truth.tolist(), found.tolist())[0] == pytest.approx(expected)
    a, b = rng.random(100) < 0.3, rng.random(100) < 0.5
    assert report.balanced_accuracy(a, b) == pytest.approx(balanced_accuracy_score(a, b))
    assert np.isnan(report.balanced_accuracy(np.ones(3, dtype=bool), np.ones(3, dtype=bool)))


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
    assert report.number(value) == expected


def test_find_figure() -> None:
    summary = {"n_caf": 20, "caf_malignant_share": 0.01, "reference_false_positive_upper": 0.03, "flag": True}
    assert report.find_figure(summary, "caf", "malignant") == 0.01
    assert report.find_figure(summary, "positive", "upper") == 0.03
    assert np.isnan(report.find_figure(summary, "flag"))
