"""Normal epithelium must not be called malignant: resampled real cells, hidden normal cells, and a reference that is tumour."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from nicheloop import cnv_cells, genes
from nicheloop.config_malignancy import Malignancy
from test_malignancy import STROMA, call, simulate
from test_malignancy_stage import stage

KNOWN = {"Endothelial cells": "endothelial", "Pericytes": "pvl", "T cell": "t_nk", "NK cells": "t_nk", "Fibroblast": "caf",
         "Epithelial cells": "normal", "Monocytes": "myeloid", "Adipocyte": "adipocyte"}  # fmt: skip


@pytest.fixture(scope="module")
def breast(real_data):
    from scipy.io import mmread

    folder = real_data / "normals/sample1"
    x = sparse.csr_matrix(mmread(folder / "matrix.mtx.gz").T, dtype=np.float32)
    symbols = pd.read_csv(folder / "features.tsv.gz", sep="\t", header=None)[1].to_numpy(dtype=object)
    labels = (
        pd.read_csv(folder.parent / "phenodata_sample1.txt", sep="\t")["celltype"].map(KNOWN).to_numpy(dtype=object)
    )
    unique = ~pd.Series(symbols).duplicated().to_numpy()
    return x[:, unique], symbols[unique], labels


def resampled(breast, seed, *, depth, n_malignant=0, arms=None):
    """Sums of four real normal cells, thinned; malignant ones come from the other half of the epithelium."""
    x, symbols, labels = breast
    rng = np.random.default_rng(seed)
    epithelial = rng.permutation(np.flatnonzero(labels == "normal"))
    arm = genes.table().reindex(symbols)["arm"].map(arms or {}).fillna(1.0).to_numpy()
    top = arm.max()
    per_sum = 4 * np.median(np.asarray(x.sum(axis=1)))
    blocks, truth = [], []
    wanted = [("malignant", epithelial[::2], n_malignant), ("normal", epithelial[1::2], 100 - n_malignant)]
    wanted += [(t, np.flatnonzero(labels == t), 40) for t in sorted(set(labels) - {"normal"})]
    for kind, cells, n in wanted:
        rows = np.array([rng.choice(cells, 4, replace=False) for _ in range(n)]).reshape(n, 4)
        pick = sparse.csr_matrix((np.ones(4 * n), (np.repeat(np.arange(n), 4), rows.ravel())), (n, x.shape[0]))
        whole = sparse.csr_matrix(pick @ x)
        share = np.minimum(1 / top, depth / per_sum) * (arm if kind == "malignant" else np.ones(len(arm)))
        whole.data = rng.binomial(whole.data.astype(int), share[whole.indices]).astype(np.float32)
        blocks.append(whole)
        truth += [kind] * n
    return sparse.csr_matrix(sparse.vstack(blocks)), np.array(truth, dtype=object), symbols


def test_resampled_normal_breast_is_never_malignant(breast):
    """Means of ten real cells follow arms now and then (coherence up to 2.2 against stroma): no ground for a call."""
    said = {s: call(*resampled(breast, s, depth=2000))[0] for s in range(5)}
    assert sum(int((f.call == "malignant").sum()) for f in said.values()) == 0
    assert all(set(f.status[f.call == "unassigned"]) <= {"not_callable", "weak_evidence"} for f in said.values())


@pytest.mark.parametrize("n_malignant", [30, 60])
def test_normal_cells_that_differ_from_stroma_are_the_baseline(breast, n_malignant):
    arms = {"1q": 1.5, "8q": 1.5, "20q": 1.5, "16q": 0.5, "17p": 0.5, "13q": 0.5}
    wrong, missed = [], []
    for seed in range(3):
        x, truth, symbols = resampled(breast, seed, depth=2000, n_malignant=n_malignant, arms=arms)
        found, _ = call(x, truth, symbols)
        wrong.append((found.call[truth == "normal"] == "malignant").mean())
        missed.append((found.call[truth == "malignant"] != "malignant").mean())
    assert max(wrong) <= 0.05 and np.mean(missed) <= 0.05


def test_a_weak_signal_calls_nothing_and_says_so(tmp_path):
    x, truth, symbols = simulate(3, {"malignant": 90, **STROMA}, umi=4000, arms={"1q": 1.25, "16q": 0.75})
    options = Malignancy(min_coherence=1.0, max_coherence_p=0.4, sure_coherence=50)
    table, _, status = stage(tmp_path, x, truth, symbols, options=options)
    epithelial = table["malignancy"] != "not_epithelial"
    assert status.status == "weak_evidence" and "coherence" in status.reason
    assert set(table.loc[epithelial, "malignancy_status"]) == {"weak_evidence"}
    assert set(table.loc[epithelial, "malignancy"]) == {"unassigned"}


def test_a_reference_of_tumour_cells_is_caught_by_the_cafs(tmp_path):
    """Against tumour cells normal epithelium mirrors the changes, and so do CAFs: the negative control fails."""
    x, truth, symbols = simulate(4, {"malignant": 160, "normal": 40, "caf": 40}, umi=6000)
    swapped = truth.copy()
    swapped[np.flatnonzero(truth == "malignant")[:120]] = "t_nk"
    table, _, status = stage(tmp_path, x, swapped, symbols)
    assert status.status == "caf_control_failed" and status.summary["caf_malignant_share"] >= 0.5
    assert not (table["malignancy"] == "malignant").any()
    assert "caf_flagged" in status.summary["warnings"]


def test_a_missing_normal_baseline_is_a_warning():
    x, truth, symbols = simulate(5, {"malignant": 120, **STROMA})
    found, _ = call(x, truth, symbols)
    assert found.summary["warnings"] == ["no_normal_baseline"]
    x, truth, symbols = simulate(5, {"malignant": 120, "normal": 40, **STROMA})
    assert call(x, truth, symbols)[0].summary["warnings"] == []


def test_two_kinds_on_the_axis_are_found_where_they_lie():
    rng = np.random.default_rng(0)
    level = rng.gamma(4.0, 0.25, 300)
    value = np.where(np.arange(300) < 15, 0.4, 1.0) + rng.normal(0, 0.15 * np.sqrt(level))
    found = cnv_cells.two_kinds(value, level, 0.15**2, 0.5)
    assert found.low == pytest.approx(0.4, abs=0.08) and found.high == pytest.approx(1.0, abs=0.02)
    assert found.low_share == pytest.approx(0.05, abs=0.02) and found.gain > 2 * np.log(300)


@pytest.mark.parametrize("seed", range(5))
def test_one_kind_stays_one(seed):
    rng = np.random.default_rng(seed)
    level = rng.gamma(4.0, 0.25, 300)
    value = 1.0 + rng.normal(0, 0.2 * np.sqrt(level))
    assert cnv_cells.two_kinds(value, level, 0.2**2, 0.5).gain < 2 * np.log(300)
    weak = np.where(np.arange(300) < 100, 0.75, 1.0) + rng.normal(0, 0.1 * np.sqrt(level))
    assert cnv_cells.two_kinds(weak, level, 0.1**2, 0.5).low <= 0.5  # a weaker clone is no normal epithelium


def test_too_few_cells_are_one_kind():
    assert cnv_cells.two_kinds(np.array([0.1, 1.0]), np.ones(2), 0.1, 0.5) == cnv_cells.Kinds(0.0, 1.0, 0.0, 0.0)
