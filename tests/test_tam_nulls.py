"""Correlation of the macrophage axes: against scipy, among matched sets, over donors; cells that hold foreign RNA."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from nicheloop import genes, io, tam_nulls, tam_patients

SETS = {n: genes.signatures()[n].genes for n in ("M1", "M2")}
NAMES = [*SETS["M1"], *SETS["M2"], *[f"X{i}" for i in range(600)]]


def macrophages(seed: int, *, n: int = 120, together: float = 0.0) -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """Counts in which both axes follow one factor with strength `together`, and depth everything."""
    rng = np.random.default_rng(seed)
    size, factor = rng.lognormal(0, 0.5, n), rng.normal(size=n)
    mean = np.outer(size, rng.lognormal(0, 0.7, len(NAMES)))
    k = len(SETS["M1"]) + len(SETS["M2"])
    mean[:, :k] *= np.exp(together * factor)[:, None]
    x = sparse.csr_matrix(rng.poisson(mean).astype(np.float32))
    cells = pd.DataFrame(
        {"n_counts": np.asarray(x.sum(axis=1)).ravel(), "z_IFN": rng.normal(size=n), "z_STRESS": np.nan}
    )
    return io.lognormalise(x), cells


def draws(seed: int, n_sets: int = 199, **how: float) -> dict[str, tuple[float, np.ndarray]]:
    x, cells = macrophages(seed, **how)
    everyone = np.ones(len(cells), dtype=bool)
    return tam_nulls.rho_draws(x, NAMES, everyone, cells, SETS, n_sets=n_sets, n_bins=10, min_genes=3, seed=1)


def test_correlation_against_scipy_and_beyond_covariates() -> None:
    rng = np.random.default_rng(0)
    depth = rng.normal(size=(200, 1))
    x, y = rng.normal(size=(2, 200, 3))
    y += 0.5 * x
    expected = [
        stats.spearmanr(*(v - s.slope * depth[:, 0] for v, s in ((a, stats.linregress(depth[:, 0], a)), (b, stats.linregress(depth[:, 0], b))))).statistic
        for a, b in zip(x.T, y.T, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(tam_nulls.correlations(x, y, depth), expected, atol=1e-12)
    np.testing.assert_allclose(tam_nulls.correlations(x + 5 * depth, y + 5 * depth, depth), expected, atol=1e-12)
    assert np.isnan(tam_nulls.correlations(np.ones((50, 1)), y[:50, :1], depth[:50])).all()


def test_axes_that_go_together_stand_out_among_matched_sets() -> None:
    found = draws(0, together=0.4)
    assert set(found) == {"depth", "adjusted"}
    for rho, null in found.values():
        assert rho > 0.5
        assert rho > np.quantile(null, 0.99)


def test_unrelated_axes_keep_the_level() -> None:
    p = []
    for seed in range(60):
        rho, null = draws(100 + seed, n_sets=99)["depth"]
        p.append((1 + (null >= rho).sum()) / (1 + len(null)))
    assert np.mean(np.array(p) <= 0.05) <= 0.17  # exact binomial bound of 5 % at n = 60, p < 0.001


def test_order_of_genes_does_not_matter() -> None:
    x, cells = macrophages(3)
    order = np.random.default_rng(0).permutation(len(NAMES))
    everyone = np.ones(len(cells), dtype=bool)
    how = {"n_sets": 50, "n_bins": 10, "min_genes": 3, "seed": 1}
    one = tam_nulls.rho_draws(x, NAMES, everyone, cells, SETS, **how)["depth"]
    other = tam_nulls.rho_draws(x[:, order], [NAMES[i] for i in order], everyone, cells, SETS, **how)["depth"]
    assert one[0] == pytest.approx(other[0])
    np.testing.assert_allclose(one[1], other[1], atol=1e-9)


def table_of(rho: float, null: np.ndarray, n: int) -> pd.DataFrame:
    table = pd.DataFrame({"adjustment": "depth", "draw": np.arange(-1, len(null)), "value": [rho, *null]})
    table.attrs["n"] = n
    return table


def test_donors_are_pooled_by_fisher_z() -> None:
    rng = np.random.default_rng(0)
    donors = {f"s{i}": table_of(0.3, np.tanh(rng.normal(0.1, 0.1, 500)), 50) for i in range(6)}
    row = tam_patients.pool(donors, 7, 0.95).set_index("adjustment").loc["depth"]
    assert (row["n_patients"], row["n_assessable"], row["status"]) == (7, 6, "ok")
    assert row["rho"] == pytest.approx(0.3)
    assert row["excess"] == pytest.approx(np.arctanh(0.3) - 0.1, abs=0.01)
    half = stats.t.ppf(0.975, 5) * 1.03 / np.sqrt(47) / np.sqrt(6)
    assert row["rho_high"] == pytest.approx(np.tanh(np.arctanh(0.3) + half))
    alone = tam_patients.pool({"s0": donors["s0"]}, 1, 0.95).set_index("adjustment")
    assert alone.loc["depth", "status"] == "too_few_patients"
    assert np.isnan(alone.loc["depth", "rho_low"])
    assert alone.loc["adjusted", "n_assessable"] == 0
