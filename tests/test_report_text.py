"""The report's fixed words, and its small computations against oracles."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import nicheloop
from nicheloop import contracts, report_cohort, report_data, report_page, report_text, report_truth, tables


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
        | set(contracts.AXIS_STATUSES)
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
    names = statuses_in_source() | set(contracts.AXIS_STATUSES) | {"arm_b_csc_not_assessable"}
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


def test_a_map_says_how_many_cells_were_laid_out(tmp_path: Path) -> None:
    from fake_results import make
    from nicheloop import report_cells, status
    from nicheloop.config import Config

    status.run_status(tmp_path, make(tmp_path, cells=80), tmp_path / "cohort" / "status.tsv")
    config = Config()
    few = config.model_copy(update={"embed": config.embed.model_copy(update={"raw_map_cells": 100})})
    said = []
    for one in (config, few):
        blocks = report_cells.map_chapter(report_data.Data(tmp_path, one), report_page.Page(tmp_path, files=False))
        said.append(next(b.caption for b in blocks if b.kind == "figure"))
    assert "drawn at random" not in said[0]
    assert said[1].count("The map without integration was computed for 100 cells drawn at random") == 1
    assert "The map was computed" not in said[1]
