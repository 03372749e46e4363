"""Ambient RNA: planted contamination is found, outliers do not pull it, and no answer is given without grounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from helpers import write_counts
from nicheloop import ambient, config_cells, io

OPTIONS = config_cells.Ambient()
MARKERS = {
    "epithelial": ["KRT8", "KRT18", "KRT19", "EPCAM"],
    "t_nk": ["CD3D", "CD3E", "CD3G", "TRAC"],
    "caf": ["COL1A1", "COL1A2", "COL3A1"],
    "myeloid": ["C1QA", "C1QB", "C1QC"],
}
GENES = [*[g for v in MARKERS.values() for g in v], *[f"X{i}" for i in range(80)]]


def soup(rate: float, n: int = 120, seed: int = 0, doublets: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Counts of four types that make nothing of each other's markers, with a share `rate` of ambient RNA."""
    rng = np.random.default_rng(seed)
    types = np.repeat(list(MARKERS), n)
    profile = {}
    for t, own in MARKERS.items():
        p = np.where(np.isin(GENES, own), 30.0, 0.0)
        p[-80:] = 5.0
        profile[t] = p / p.sum()
    clean = np.stack([profile[t] for t in types])
    size = rng.lognormal(7.5, 0.4, len(types))
    pool = (clean * size[:, None]).sum(axis=0) / size.sum()
    counts = rng.poisson(size[:, None] * ((1 - rate) * clean + rate * pool))
    if doublets:
        partner = rng.permutation(len(types))[:doublets]
        counts[:doublets] += counts[partner]
    return counts, types.astype(object)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_planted_rate_is_found(rate):
    counts, types = soup(rate)
    found, summary = ambient.estimate(sparse.csr_matrix(counts), GENES, types, OPTIONS)
    assert found == pytest.approx(rate, rel=0.15)
    assert summary["contamination_low"] < found < summary["contamination_high"]
    assert summary["groups"]["haemoglobin"]["status"] == "gene_absent"


def test_clean_cells_have_rate_zero():
    counts, types = soup(0.0)
    found, summary = ambient.estimate(sparse.csr_matrix(counts), GENES, types, OPTIONS)
    assert found == 0.0 and 0 < summary["contamination_high"] < 0.01


def test_doublets_do_not_pull_the_rate():
    counts, types = soup(0.04, doublets=24)
    found, summary = ambient.estimate(sparse.csr_matrix(counts), GENES, types, OPTIONS)
    assert found == pytest.approx(0.04, rel=0.25)
    assert sum(v.get("n_outliers", 0) for v in summary["groups"].values()) > 0


def test_interval_is_the_exact_poisson_interval():
    low, high = ambient.poisson_interval(7, 100.0, 0.95)
    assert stats.poisson.sf(6, low * 100) == pytest.approx(0.025) and stats.poisson.cdf(7, high * 100) == pytest.approx(
        0.025
    )
    assert ambient.poisson_interval(0, 10.0, 0.95)[0] == 0.0


def test_weighted_median():
    assert ambient.weighted_median([0.3, 0.1, 0.2], [1, 1, 1]) == 2
    assert ambient.weighted_median([0.3, 0.1, 0.2], [5, 1, 1]) == 0


def test_one_type_gives_no_rate():
    counts, types = soup(0.05)
    keep = types == "epithelial"
    found, summary = ambient.estimate(sparse.csr_matrix(counts[keep]), GENES, types[keep], OPTIONS)
    assert np.isnan(found) and all(v["status"] != "ok" for v in summary["groups"].values())


def test_composition_and_profiles():
    counts, types = soup(0.05, n=10)
    x = sparse.csr_matrix(counts.astype(np.float32))
    assert ambient.composition(x).sum() == pytest.approx(1.0)
    assert ambient.composition(sparse.csr_matrix((3, 4))).sum() == 0.0
    table = ambient.profiles(x, GENES, types).set_index(["cell_type", "gene"])
    frame = pd.DataFrame(counts, columns=GENES)
    assert table["sum_counts"].sum() == counts.sum()
    assert table.loc[("caf", "X3"), "sum_counts"] == frame.loc[types == "caf", "X3"].sum()
    assert table.loc[("caf", "X3"), "n_positive"] == (frame.loc[types == "caf", "X3"] > 0).sum()
    lognorm = np.log1p(frame.div(frame.sum(axis=1), axis=0) * 1e4)
    assert table.loc[("caf", "X3"), "mean_lognorm"] == pytest.approx(lognorm.loc[types == "caf", "X3"].mean(), rel=1e-5)
    assert (table["n_cells"] == 10).all() and len(table) == len(GENES) * len(set(types))  # zeros too


def types_table(path: Path, ids: np.ndarray, types: np.ndarray, sample: str = "s1") -> Path:
    table = pd.DataFrame({
        "cell_id": ids, "sample": sample, "cluster": "0", "cell_type": types, "cell_type_minor": types, "confidence": 1.0,
        "margin": 1.0, "runner_up": "unresolved", "cell_type_reason": "ok", "platelet": False, "cycling": False,
        "cell_type_input": pd.array([None] * len(ids), dtype="string"),
    })  # fmt: skip
    io.write_table(table, path, "cell_types")
    return path


def run(tmp_path: Path, counts, types, record=None) -> tuple[pd.DataFrame, pd.DataFrame, io.Status]:
    path = write_counts(tmp_path, counts, GENES, record=record)
    cells = types_table(tmp_path / "types.parquet", io.Counts(path).cell_ids[: len(types)], types)
    out, profiles = tmp_path / "ambient.parquet", tmp_path / "profiles.parquet"
    ambient.run_ambient(path, cells, out, profiles, options=OPTIONS)
    return io.read_table(out), io.read_table(profiles), io.read_status(out)


def test_run_writes_both_tables(tmp_path):
    table, profiles, status = run(tmp_path, *soup(0.05))
    assert status.ok and table["contamination_rate"].nunique() == 1
    assert table["ambient_fraction"].sum() == pytest.approx(1.0) and set(profiles["cell_type"]) == set(MARKERS)


def test_run_without_grounds_keeps_the_composition(tmp_path):
    counts, types = soup(0.05, n=20)
    table, profiles, status = run(tmp_path, counts[:20], types[:20])
    assert status.status == "contamination_not_estimated" and "keratin: too_few_cells" in status.reason
    assert len(table) == len(GENES) and table["contamination_rate"].isna().all() and len(profiles)


@pytest.mark.parametrize(("record", "expected"), [
    ({"is_counts": False}, "no_counts"), ({"status": "unreadable", "reason": "why"}, "unreadable"), ({}, "no_cells"),
])  # fmt: skip
def test_run_says_why_there_is_nothing(tmp_path, record, expected):
    counts, types = soup(0.05, n=5)
    table, profiles, status = run(tmp_path, counts, types[:0] if expected == "no_cells" else types, record)
    assert status.status == expected and table.empty and profiles.empty
