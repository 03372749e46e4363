"""Copy-number profiles and malignancy calls against infercnvpy, brute force and simulated or real tumours of known truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from nicheloop import cnv, genes, io, malignancy
from nicheloop.config_malignancy import Malignancy

STROMA = {"t_nk": 50, "endothelial": 40, "pvl": 20, "b_cell": 15, "caf": 40}
ARMS = {"1q": 1.5, "16q": 0.5, "8q": 1.5, "8p": 0.5, "17p": 0.5, "20q": 1.5}


def simulate(seed, n, *, umi=10_000, arms=ARMS, n_genes=9000, her2=1.0):
    """Gamma-Poisson counts: every type has its own programme, malignant cells share the epithelial one and carry `arms`."""
    rng = np.random.default_rng(seed)
    table = genes.table()
    table = table[table["chromosome"].isin(cnv.AUTOSOMES) & table["arm"].notna()]
    amplicon = ["ERBB2", "GRB7", "PGAP3", "MIEN1", "STARD3"]
    chosen = np.union1d(rng.choice(len(table), n_genes, replace=False), table.index.get_indexer(amplicon))
    table = table.iloc[chosen]
    n_genes = len(table)

    def programme(sd, share):
        out = rng.normal(0, sd, n_genes)
        own = rng.random(n_genes) < share
        out[own] += rng.normal(0.5, 1.8, own.sum())
        return out

    level = np.exp(rng.normal(0, 1.6, n_genes))
    level[table.index.isin(amplicon)] = np.median(level) * 3
    of = {t: programme(0.35, 0.08) for t in ("epithelial", *STROMA)}
    ratio = table["arm"].map(arms).fillna(1.0).to_numpy(copy=True)
    ratio[table.index.isin(amplicon)] *= her2
    blocks, truth = [], []
    for kind, cells in n.items():
        lineage = "epithelial" if kind in ("malignant", "normal") else kind
        mean = level * np.exp(of[lineage]) * (ratio if kind == "malignant" else 1)
        depth = umi * (1 if lineage == "epithelial" else 0.5) * np.exp(rng.normal(0, 0.35, cells))
        rate = depth[:, None] * (mean / mean.sum()) * rng.gamma(2.0, 0.5, (cells, n_genes))
        blocks.append(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
        truth += [kind] * cells
    return sparse.vstack(blocks).tocsr(), np.array(truth, dtype=object), table.index.to_numpy(dtype=object)


def types_of(truth):
    return np.where(np.isin(truth, ["malignant", "normal"]), "epithelial", truth).astype(object)


def call(x, truth, symbols, *, options=None, normal=None, order=None):
    options = options or Malignancy()
    ids = np.array([f"s:{i:05d}" for i in range(len(truth))], dtype=object)
    order = np.arange(len(truth)) if order is None else order
    x, truth, ids = x[order], truth[order], ids[order]
    types = types_of(truth)
    reference = malignancy.choose_reference(types, {}, None, options)
    found = malignancy.assess(
        io.lognormalise(x), ids, types, malignancy.gene_positions(symbols), reference, normal, options=options, seed=0
    )
    return found, ids


def balanced(found, truth):
    """Mean of sensitivity and specificity; unassigned cells count as wrong."""
    return (
        np.mean(found.call[truth == "malignant"] == "malignant") + np.mean(found.call[truth == "normal"] == "normal")
    ) / 2


@pytest.fixture(scope="module")
def tumour():
    x, truth, symbols = simulate(1, {"malignant": 150, "normal": 40, **STROMA}, her2=8.0)
    return x, truth, symbols, call(x, truth, symbols)[0]


# -------------------------------------------------------------------------------------------------- calls
def test_simulated_tumour(tumour):
    _, truth, _, found = tumour
    assert balanced(found, truth) >= 0.97
    summary = found.summary
    assert summary["reference_false_positive_rate"] < summary["reference_false_positive_upper"] < 0.06
    assert summary["caf_malignant_share"] <= 0.05 and not summary["caf_flag"]
    assert summary["baseline"] == "own_normal_epithelium"
    seen = {c["region"]: c["seen"] for c in summary["arm_checks"]["clone_1"]}
    assert seen["1q"] == "gain" and seen["16q"] == "loss" and seen["17p"] == "loss" and seen["3q"] == "no_change"
    assert summary["her2"]["clone_1"]["amplified"] is True
    json.dumps(io._plain(summary))


def test_shallow_tumour():
    x, truth, symbols = simulate(2, {"malignant": 120, "normal": 40, **STROMA}, umi=2500)
    found, _ = call(x, truth, symbols)
    assert balanced(found, truth) >= 0.9
    assert np.mean(found.call[truth == "normal"] == "malignant") <= 0.05


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_lineage_alone_is_never_malignant(seed):
    x, truth, symbols = simulate(seed, {"normal": 80, **STROMA}, umi=6000)
    found, _ = call(x, truth, symbols)
    assert not (found.call == "malignant").any()
    assert set(found.status[truth == "normal"]) == {"not_callable"} and not found.summary["callable"]
    assert np.isnan(found.value).all() and np.isnan(found.summary["reference_false_positive_rate"])
    pool, _, _ = simulate(seed, {"normal": 120}, umi=6000)  # the same programme, other cells
    mean = np.asarray(io.lognormalise(pool).mean(axis=0)).ravel()
    found, _ = call(x, truth, symbols, normal=malignancy.Pool(mean, 120))
    assert np.mean(found.call[truth == "normal"] == "normal") > 0.9


def test_without_normal_cells_the_tumour_is_still_malignant():
    x, truth, symbols = simulate(3, {"malignant": 100, **STROMA})
    found, _ = call(x, truth, symbols)
    assert np.mean(found.call[truth == "malignant"] == "malignant") > 0.95
    assert found.summary["baseline"] == "reference" and found.summary["her2"]["clone_1"]["amplified"] is False


def test_calls_ignore_the_order_of_genes_and_cells(tumour):
    x, truth, symbols, found = tumour
    rng = np.random.default_rng(9)
    cells, columns = rng.permutation(x.shape[0]), rng.permutation(x.shape[1])
    other, _ = call(x[:, columns], truth, symbols[columns], order=cells)
    np.testing.assert_array_equal(other.call, found.call[cells])
    np.testing.assert_array_equal(other.clone, found.clone[cells])
    np.testing.assert_allclose(other.correlation, found.correlation[cells], atol=1e-4)


@pytest.mark.filterwarnings("ignore::anndata.OldFormatWarning")
def test_real_oligodendroglioma():
    import infercnvpy

    tumour = infercnvpy.datasets.oligodendroglioma()  # Tirosh 2016, ships with infercnvpy
    label = tumour.obs["cell_type"].astype(str).to_numpy()
    x, kind = malignancy.log_values(sparse.csr_matrix(tumour.X), is_counts=False)
    assert kind == "linear"
    normal = np.flatnonzero(~np.char.startswith(label.astype(str), "malignant"))
    types = np.full(len(label), "epithelial", dtype=object)
    types[normal[::2]] = "t_nk"  # 21 reference cells, the other half is to be found normal
    symbols = tumour.var_names.to_numpy(dtype=object)
    found = malignancy.assess(
        x, tumour.obs_names.to_numpy(dtype=object), types, malignancy.gene_positions(symbols),
        malignancy.choose_reference(types, {}, None, Malignancy(min_reference_cells=20)), None,
        options=Malignancy(min_reference_cells=20), seed=0,
    )  # fmt: skip
    truth = np.where(
        types == "t_nk", "reference", np.where(np.isin(np.arange(len(label)), normal), "normal", "malignant")
    )
    assert (types == "t_nk").sum() >= 20
    assert balanced(found, truth) >= 0.95
    patients = pd.crosstab(label[truth == "malignant"], found.clone[truth == "malignant"])
    assert patients.shape[1] >= 3 and patients.max(axis=0).sum() / patients.to_numpy().sum() > 0.8


def test_fresh_reference_cells_pass_as_often_as_reported():
    passed = n = fresh = n_fresh = 0
    for seed in (21, 22, 23):
        x, truth, symbols = simulate(seed, {"malignant": 60, "t_nk": 25, "endothelial": 25}, umi=5000, n_genes=4000)
        rng = np.random.default_rng(seed)
        more = np.flatnonzero(np.isin(truth, ["t_nk", "endothelial"]))
        thin = x[rng.choice(more, 300)].copy()  # other molecules of such cells, hidden under a type that sets no cut
        thin.data = rng.poisson(thin.data).astype(np.float32)
        found, _ = call(sparse.vstack([x, thin]).tocsr(), np.r_[truth, np.full(300, "caf")].astype(object), symbols)
        assert found.summary["n_null"] == 50
        passed, n = passed + found.summary["reference_false_positive_rate"] * 50, n + 50
        fresh, n_fresh = fresh + found.summary["caf_malignant_share"] * 300, n_fresh + 300
    table = [[round(passed), n - round(passed)], [round(fresh), n_fresh - round(fresh)]]
    assert stats.fisher_exact(table).pvalue > 0.001


def _real(name: str) -> Path:
    import os

    folder = Path(os.environ.get("NICHELOOP_REAL_DATA", "data/real")) / "normals" / name
    if not folder.exists():
        pytest.skip(f"real data not found at {folder} (set NICHELOOP_REAL_DATA)")
    return folder


@pytest.mark.parametrize("name", ["sample1", "sample2"])
def test_real_normal_breast_has_no_malignant_cell(name):
    from scipy.io import mmread

    folder = _real(name)
    x = sparse.csr_matrix(mmread(folder / "matrix.mtx.gz").T, dtype=np.float32)
    symbols = pd.read_csv(folder / "features.tsv.gz", sep="\t", header=None)[1].to_numpy(dtype=object)
    labels = pd.read_csv(folder.parent / f"phenodata_{name}.txt", sep="\t")["celltype"]
    known = {"Endothelial cells": "endothelial", "Pericytes": "pvl", "T cell": "t_nk", "NK cells": "t_nk", "Fibroblast": "caf",
             "Epithelial cells": "normal", "Monocytes": "myeloid", "Adipocyte": "adipocyte"}  # fmt: skip
    unique = ~pd.Series(symbols).duplicated().to_numpy()
    found, _ = call(
        x[:, unique],
        labels.map(known).to_numpy(dtype=object),
        symbols[unique],
        options=Malignancy(min_reference_cells=40),
    )
    assert not (found.call == "malignant").any() and found.summary["caf_malignant_share"] <= 0.05
