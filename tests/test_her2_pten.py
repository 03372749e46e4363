"""HER2, PTEN and IL6 per tumour, and copy number at the markers' loci: readings, strata with their n, exact p."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from nicheloop import csc_cohort, csc_loci, her2_pten
from nicheloop.config_states import Csc
from nicheloop.io import Status

OPTIONS = Csc(n_label_permutations=499)


def scores(pten: float, il6: float, n: int = 100) -> pd.DataFrame:
    kinds = ["malignant"] * n + ["caf"] * n + ["epithelial"] * 10
    return pd.DataFrame({"compartment": kinds, "n_counts": 10000.0, "umi_PTEN": [pten] * n + [1.0] * n + [0.0] * 10,
                         "umi_IL6": [il6] * n + [2.0] * n + [0.0] * 10})  # fmt: skip


def calls(amplified: bool | None, ten_q: str) -> dict[str, object]:
    return {
        "her2": {"clone_1": {"amplified": amplified}},
        "arm_checks": {"clone_1": [{"region": "10q23.3", "seen": ten_q, "log2": -0.2}]},
    }


def cohort(pten: float, ten_q: str, *, others: int = 4, gene: bool = True) -> pd.Series:
    """What PTEN reads as in one tumour beside others at 1 UMI per 10,000, with a relapse of its own that must not count."""
    rows = []
    for i, level in enumerate([pten, *[1.0] * others, 0.01]):
        table = scores(level, 0) if gene else scores(level, 0).drop(columns="umi_PTEN")
        row = her2_pten.sample_row(table, calls(True, ten_q), {"clone_1": 100}, {"IL6": 0.01}, OPTIONS)
        relapse = i == others + 1
        rows.append(
            {
                "patient": f"p{0 if relapse else i}",
                "sample": f"s{i}",
                "primary_sample": not relapse,
                "chemistry": None,
                **row,
            }
        )
    return her2_pten.read_pten(pd.DataFrame(rows), OPTIONS).iloc[0]


@pytest.mark.parametrize(
    ("pten", "ten_q", "expected"),
    [
        (0.4, "no_change", "low"),
        (0.9, "no_change", "not_low"),
        (0.9, "loss", "low"),
        (0.9, "not_measurable", "not_low"),
    ],
)
def test_pten_is_low_by_expression_or_by_copy_number(pten: float, ten_q: str, expected: str) -> None:
    row = cohort(pten, ten_q)
    assert row["pten"] == expected
    assert row["pten_ratio"] == pytest.approx(pten)
    assert row["her2_amplicon"] == "amplified"
    assert row["status"] == "ok"


def test_without_other_tumours_only_copy_number_speaks() -> None:
    assert cohort(0.1, "no_change", others=2)["pten"] == "not_low"
    unknown = cohort(0.1, "not_measurable", others=2)
    assert (unknown["pten"], unknown["status"]) == ("unknown", "pten_not_measurable")
    assert "2 other tumours" in unknown["reason"]
    assert cohort(1, "not_measurable", gene=False)["status"] == "pten_not_measurable"


def test_il6_must_exceed_what_ambient_rna_gives() -> None:
    found = {
        il6: her2_pten.sample_row(scores(1, il6), calls(False, "gain"), {}, {"IL6": 0.9}, OPTIONS)["il6"]
        for il6 in (1.0, 2.0)
    }
    assert found == {1.0: "not_beyond_ambient", 2.0: "beyond_ambient"}
    assert her2_pten.sample_row(scores(1, 2), calls(None, "gain"), {}, {}, OPTIONS)["il6"] == "ambient_not_estimated"


def test_too_few_cells_are_said() -> None:
    few = her2_pten.sample_row(scores(1, 0, n=10), {}, {}, {}, OPTIONS)
    table = pd.DataFrame([{"patient": "p", "sample": "s", "primary_sample": True, "chemistry": None, **few}])
    row = her2_pten.read_pten(table, OPTIONS).iloc[0]
    assert (row["status"], row["pten"], row["il6"]) == ("too_few_malignant", "unknown", "not_measured")


def test_strata_say_their_n_and_p_is_exact() -> None:
    table = pd.DataFrame({
        "her2_amplicon": ["amplified"] * 6 + ["not_amplified"] * 2, "pten": ["low", "low", "low", "not_low", "not_low", "not_low", "low", "unknown"],
        "m_csc_fraction": [0.3, 0.4, 0.5, 0.1, 0.2, 0.1, 0.2, 0.9], "aldh1a3_fraction": np.nan, "n_malignant": 100, "il6_umi": 5.0,
        "il6_ambient_umi": np.nan})  # fmt: skip
    tests = her2_pten.stratum_tests(table, options=OPTIONS, seed=1).set_index(["stratum", "outcome"])
    row = tests.loc[("HER2-amplified", "m_csc_fraction")]
    assert (row["status"], row["n_low"], row["n_other"]) == ("tested", 3, 3)
    values, n = table["m_csc_fraction"].to_numpy()[:6], 0
    differences = [np.mean(v[:3]) - np.mean(v[3:]) for v in permutations(values)]
    n = np.mean(np.abs(differences) >= abs(differences[0]) - 1e-12)
    assert row["p"] == pytest.approx(n)
    assert row["p"] == pytest.approx(her2_pten.smallest(3, 3))
    assert tests.at[("not amplified", "m_csc_fraction"), "status"] == "too_few_patients"
    assert "1 PTEN-low and 0 other" in tests.at[("not amplified", "m_csc_fraction"), "reason"]
    assert tests.at[("all", "il6_excess"), "status"] == "too_few_patients"


def test_p_is_drawn_where_there_are_too_many_divisions_to_list() -> None:
    values, low = np.random.default_rng(0).normal(size=10), np.arange(10) < 4
    exact = her2_pten.exact_p(values, low, max_listed=210, n_draws=99, seed=1)  # 210 divisions of 4 and 6
    drawn = her2_pten.exact_p(values, low, max_listed=209, n_draws=20_000, seed=1)
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000))


def loci(n: int, follows: float, differ: bool) -> pd.DataFrame:
    rng = np.random.default_rng(n)
    rows = []
    for i in range(n):
        for k, log2 in enumerate((0.0, 0.5) if differ else (0.2, 0.2)):
            entries = {
                f"clone_{k + 1}": [
                    {
                        "gene": "CD44",
                        "locus": "11p13",
                        "log2": log2,
                        "z": 1.0,
                        "seen": "gain" if log2 > 0.3 else "no_change",
                    }
                ]
            }
            cells = pd.DataFrame(
                {"clone": k + 1.0, "n_counts": 1e4, "umi_CD44": rng.poisson(3 + follows * log2 + 0.1 * i, 200)}
            )
            rows += [{"sample": f"s{i}", "patient": f"p{i}", **r} for r in csc_loci.clone_rows(cells, entries)]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("follows", "covers"), [(0.0, True), (4.0, False)])
def test_expression_that_follows_its_locus_is_seen_within_tumours(follows: float, covers: bool) -> None:
    tests = csc_loci.locus_tests(loci(6, follows, True), n_permutations=99, confidence=0.95, seed=1, min_patients=5)
    row = tests.set_index(["score", "gene"]).loc[("CD44 expression", "CD44")]
    assert row["n_within"] == 6
    assert (row["slope_low"] <= 0 <= row["slope_high"]) == covers
    other = tests.set_index(["score", "gene"]).loc[("m_csc", "CD44")]
    assert other["status"] == "not_assessable"
    assert other["n_patients"] == 0


def test_few_patients_and_like_clones_are_said() -> None:
    row = csc_loci.locus_tests(loci(3, 0, False), n_permutations=99, confidence=0.95, seed=1, min_patients=5).iloc[2]
    assert row["status"] == "not_assessable"
    assert "3 patients, 5 needed" in row["reason"]
    assert "no tumour has clones that differ" in row["reason"]


def test_null_of_a_sample_without_pairs_keeps_its_reason() -> None:
    row = csc_cohort.null_row(
        pd.DataFrame({"observed": []}), Status("csc-nulls", "s", "not_informative_depth", "shallow"), 0.95
    )
    assert (row["status"], row["reason"], row["n_pairs"]) == ("not_informative_depth", "shallow", 0)
    assert np.isnan(row["p_fraction"])
