"""Copy-number profiles and malignancy calls against infercnvpy, brute force and simulated or real tumours of known truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from helpers import write_counts
from nicheloop import cnv, cnv_cells, cnv_groups, genes, io, malignancy
from nicheloop.config import Malignancy
from nicheloop.errors import NotAssessable

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


# ------------------------------------------------------------------------------------------------ profiles
@pytest.mark.parametrize("n_references", [1, 3])
def test_profiles_equal_infercnvpy_number_by_number(n_references):
    import anndata as ad
    import infercnvpy

    rng = np.random.default_rng(0)
    n_genes, n_cells = 1500, 37
    chromosome = np.array(
        [*["chr1"] * 700, *["chr2"] * 450, *["chr10"] * 260, *["chr21"] * 60, *["chrX"] * 30], dtype=object
    )
    start = rng.permutation(n_genes) * 1000
    var = pd.DataFrame(
        {"chromosome": chromosome, "start": start, "end": start + 500}, index=[f"g{i}" for i in range(n_genes)]
    )
    x = sparse.random(
        n_cells, n_genes, density=0.3, random_state=1, format="csr", data_rvs=lambda n: rng.gamma(2, 2.0, n)
    )
    reference = rng.gamma(1, 1.0, (n_references, n_genes))
    position, expected, _ = infercnvpy.tl.infercnv(
        ad.AnnData(x, var=var), reference=reference, n_jobs=1, inplace=False, window_size=100, step=10
    )
    where = cnv.layout(var.assign(arm="1p"), 100, 10)
    found = cnv.denoise(cnv.smooth(x, reference, where, 3.0), 1.5)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected.toarray(), atol=2e-6)
    firsts = {c: int(np.flatnonzero(where.chromosome == c)[0]) for c in dict.fromkeys(where.chromosome)}
    assert firsts == {k: int(v) for k, v in position.items()}


def test_windows_keep_their_place():
    table = pd.DataFrame(
        {"chromosome": ["chr2", "chr1", "chr1", "chrY", ""], "start": [5.0, 9.0, 1.0, 1.0, np.nan], "end": [6.0, 10.0, 2.0, 2.0, np.nan],
         "arm": ["2p", "1q", "1p", "Yp", None]}, index=list("abcde"))  # fmt: skip
    where = cnv.layout(table, window=10, step=1)
    assert list(where.columns) == [2, 1, 0]
    assert list(where.start) == [1, 5] and list(where.end) == [10, 6]
    assert list(where.chromosome) == ["chr1", "chr2"]
    np.testing.assert_allclose(np.asarray(where.weights.sum(axis=0)).ravel(), 1)
    for which in (0, 1):
        totals = np.asarray(cnv.half(where, which).weights.sum(axis=0)).ravel()
        assert set(np.round(totals, 12)) <= {0.0, 1.0}


def test_blocks_do_not_change_profiles(monkeypatch):
    rng = np.random.default_rng(2)
    table = pd.DataFrame({"chromosome": "chr1", "start": np.arange(300.0), "end": np.arange(300.0) + 1, "arm": "1p"})
    table.index = table.index.astype(str)
    x = sparse.csr_matrix(rng.poisson(0.5, (53, 300)).astype(np.float32))
    where, reference = cnv.layout(table, 50, 5), rng.random(300)
    whole = cnv.smooth(x, reference, where, 3.0)
    monkeypatch.setattr(cnv, "BLOCK", 7)
    monkeypatch.setattr(cnv.blocks, "__defaults__", (7,))
    np.testing.assert_array_equal(whole, cnv.smooth(x, reference, where, 3.0))


def test_a_cell_is_never_compared_with_itself():
    rng = np.random.default_rng(3)
    profiles = rng.normal(size=(40, 300))
    members = np.zeros(40, dtype=bool)
    members[:5] = True
    found = cnv.correlation(profiles, members)
    for i in (0, 3, 20):
        others = members.copy()
        others[i] = False
        assert found[i] == pytest.approx(np.corrcoef(profiles[i], profiles[others].mean(axis=0))[0, 1])
    assert abs(found[:5].mean()) < 0.1  # pure noise; with the cell itself in the mean this would be about 0.45


def test_amplitude_is_one_for_a_typical_member_at_any_depth():
    rng = np.random.default_rng(4)
    signal = rng.normal(size=400)
    noise = rng.normal(size=(300, 400)) * np.repeat([0.3, 2.0, 2.0], 100)[:, None]
    carries = np.repeat([1.0, 1.0, 0.0], 100)
    found = cnv.amplitude(carries[:, None] * signal + noise, carries > 0)
    assert np.median(found[:100]) == pytest.approx(1, abs=0.05)
    assert np.median(found[100:200]) == pytest.approx(1, abs=0.1)
    assert np.median(found[200:]) == pytest.approx(0, abs=0.1)


def test_two_means_finds_the_best_border():
    rng = np.random.default_rng(5)
    values = rng.normal(size=25)
    best = min((np.var(np.sort(values)[:k]) * k + np.var(np.sort(values)[k:]) * (25 - k), k) for k in range(1, 25))[1]
    upper = cnv_groups.two_means(values)
    assert upper.sum() == 25 - best and values[upper].min() > values[~upper].max()
    assert not cnv_groups.two_means(np.ones(6)).any()


def test_uneven_groups_are_told_apart():
    rng = np.random.default_rng(6)
    truth = np.arange(400) < 30
    profiles = truth[:, None] * rng.normal(0, 0.5, 200) + rng.normal(size=(400, 200))
    start = truth.copy()
    start[30:120] = True  # an even split, as two means would give
    assert (cnv_groups.refine(profiles, start) == truth).mean() > 0.99


@pytest.mark.parametrize(("rate", "expected"), [(0.01, 100.0), (0.02, 99.0), (0.5, 51.0)])
def test_cut_lets_no_more_than_the_rate_pass(rate, expected):
    null = np.random.default_rng(0).permutation(np.arange(1, 101)).astype(float)
    assert cnv.cut_at(null, rate - 1e-9) == expected
    assert (null > cnv.cut_at(null, rate)).mean() <= rate


@pytest.mark.parametrize("rate", [0.01, 0.1])
@pytest.mark.parametrize("n", [2, 7, 50, 230])
def test_held_out_cuts_by_brute_force(n, rate):
    null = np.random.default_rng(n).integers(0, 40, n).astype(float)  # with ties
    expected = [np.sort(np.delete(null, i))[::-1][int(n * rate)] for i in range(n)]
    np.testing.assert_array_equal(cnv.held_out_cuts(null, rate), expected)
    assert cnv.held_out_cuts(null[:1], rate) == [-np.inf]


@pytest.mark.parametrize("n", [30, 50, 300])
def test_reported_error_rate_is_that_of_fresh_reference_cells(n):
    rng, options, repeats, n_fresh = np.random.default_rng(n), Malignancy(), 400, 400
    reported, fresh = [], []
    for _ in range(repeats):
        common = rng.normal(size=n + n_fresh)
        r = common + 0.3 * rng.normal(size=len(common))
        v = 1 + common + 0.3 * rng.normal(size=len(common))
        cut_r, cut_v = (cnv.cut_at(m[:n], options.max_reference_fpr) for m in (r, v))
        assert ((r[:n] > cut_r) & (v[:n] > cut_v)).mean() <= options.max_reference_fpr  # counting these says nothing
        fresh.append(((r[n:] > cut_r) & (v[n:] > max(cut_v, options.min_signal))).mean())
        reported.append(cnv_cells.held_out_passes(r[:n], v[:n], options).mean())
    expected = np.mean(fresh)
    assert expected > 0.005
    assert abs(np.mean(reported) - expected) < 3.5 * np.sqrt(
        expected * (1 - expected) * (1 / n + 1 / n_fresh) / repeats
    )


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


def test_folds_follow_ids_not_order():
    ids = np.array([f"c{i}" for i in range(23)], dtype=object)
    shuffled = np.random.default_rng(0).permutation(23)
    np.testing.assert_array_equal(cnv.folds(ids, 5)[shuffled], cnv.folds(ids[shuffled], 5))
    assert np.ptp(np.bincount(cnv.folds(ids, 5))) <= 1


# ---------------------------------------------------------------------------------------------- coherence
def test_coherence_holds_its_level_without_arms_and_sees_a_shifted_arm():
    rng = np.random.default_rng(7)
    arms = np.repeat([f"{i}{a}" for i in range(1, 13) for a in "pq"], 120)
    neighbours = lambda: rng.normal(size=len(arms)) + np.repeat(rng.normal(0, 0.7, len(arms) // 5), 5)  # noqa: E731
    p = [
        cnv_groups.coherence(neighbours(), arms, n_permutations=199, min_genes=30, block=20, clip=1.0, seed=s).p
        for s in range(120)
    ]
    assert stats.binomtest(sum(v <= 0.05 for v in p), len(p), 0.05, alternative="greater").pvalue > 0.001
    shifted = neighbours() + 0.6 * (arms == "1q") - 0.9 * (arms == "8p")
    found = cnv_groups.coherence(shifted, arms, n_permutations=199, min_genes=30, block=20, clip=1.0, seed=0)
    assert found.p == 1 / 200 and found.ratio > 1.75
    assert cnv_groups.coherence(
        shifted[:20], arms[:20], n_permutations=99, min_genes=30, block=20, clip=1.0, seed=0
    ) == cnv_groups.Coherence(1.0, 1.0)


def test_lineage_genes_are_outliers_among_neighbours_and_arms_are_not():
    rng = np.random.default_rng(8)
    chromosome = np.repeat(["1p", "1q"], 400)
    difference = rng.normal(0, 0.2, 800) + 0.6 * (chromosome == "1q")
    difference[[10, 500]] += 3
    out = cnv_groups.lineage_genes(difference, chromosome, 100, 3.0)
    assert out[[10, 500]].all() and out.mean() < 0.02


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


# ------------------------------------------------------------------------------------------------- ladder
def pool(n):
    return malignancy.Pool(np.ones(3), n)


@pytest.mark.parametrize(
    ("n", "pools", "chemistry", "rung"),
    [
        ({"t_nk": 60, "pvl": 40}, {}, "v3", "same_sample"),
        ({"t_nk": 99, "caf": 500}, {}, "v3", "few_reference_cells"),
        (
            {"t_nk": 5, "myeloid": 40},
            {"chemistry:v3": pool(300), "chemistry:v2": pool(900)},
            "v3",
            "pooled_same_chemistry",
        ),
        ({"t_nk": 5, "myeloid": 40}, {"chemistry:unknown": pool(300)}, None, "pooled_same_chemistry"),
        ({"t_nk": 5, "myeloid": 40}, {"chemistry:unknown": pool(300)}, "v3", "reference_other_chemistry"),
        (
            {"t_nk": 5, "myeloid": 40},
            {"chemistry:v3": pool(60), "normal_epithelium": pool(300)},
            "v3",
            "reference_other_chemistry",
        ),
    ],
)
def test_ladder(n, pools, chemistry, rung):
    types = np.repeat(np.array([*n, "epithelial"], dtype=object), [*n.values(), 50])
    found = malignancy.choose_reference(types, pools, chemistry, Malignancy())
    assert found.rung == rung
    assert not (found.null & np.isin(types, ["caf", "epithelial"])).any()


@pytest.mark.parametrize(
    ("n", "pools", "status"),
    [
        ({"t_nk": 29, "caf": 400}, {}, "insufficient_reference_cells"),
        ({"t_nk": 29}, {"chemistry:v3": pool(99)}, "insufficient_reference_cells"),
        ({"t_nk": 5, "caf": 400, "unresolved": 90}, {"chemistry:v3": pool(300)}, "no_null_cells"),
        ({"t_nk": 5, "myeloid": 14}, {"normal_epithelium": pool(300)}, "no_null_cells"),
        ({}, {"chemistry:v2": pool(300)}, "no_null_cells"),
    ],
)
def test_ladder_ends(n, pools, status):
    types = np.repeat(np.array([*n, "epithelial"], dtype=object), [*n.values(), 50])
    with pytest.raises(NotAssessable) as caught:
        malignancy.choose_reference(types, pools, "v3", Malignancy())
    assert caught.value.status == status


def test_twenty_normal_cells_of_any_type_serve_a_pooled_reference():
    types = np.repeat(np.array(["t_nk", "myeloid", "mast", "caf", "epithelial"], dtype=object), [4, 10, 6, 30, 50])
    found = malignancy.choose_reference(types, {"chemistry:v3": pool(300)}, "v3", Malignancy())
    assert found.rung == "pooled_same_chemistry" and found.null.sum() == 20


def test_log_values():
    tpm = sparse.csr_matrix([[0, 900.0, 100.0]])
    x, kind = malignancy.log_values(tpm, False)
    assert kind == "linear" and x[0, 1] == pytest.approx(np.log1p(9000))
    logged, kind = malignancy.log_values(sparse.csr_matrix([[0, 9.0, 2.0]]), False)
    assert kind == "log" and logged[0, 1] == 9
    with pytest.raises(NotAssessable):
        malignancy.log_values(sparse.csr_matrix([[0, -1.0]]), False)


# -------------------------------------------------------------------------------------------------- stages
def stage(tmp_path, x, truth, symbols, *, record=None, pools=None, options=None):
    path = write_counts(tmp_path, x, symbols, record=record)
    ids = io.Counts(path).cell_ids
    kept = len(ids) if truth is None else len(truth)
    cells = pd.DataFrame(
        {"cell_id": ids[:kept], "sample": "s1", "cell_type": types_of(truth) if truth is not None else "caf"}
    )
    extra = pd.DataFrame({"cell_id": ["other:1"], "sample": ["other"], "cell_type": ["caf"]})
    (pd.concat([cells, extra]) if truth is not None else extra).to_parquet(tmp_path / "cell_types.parquet")
    if pools is None:
        pools = pd.DataFrame({"pool": pd.Series(dtype=str), "gene": pd.Series(dtype=str), "n_cells": pd.Series(dtype=int),
                              "n_samples": pd.Series(dtype=int), "mean_lognorm": pd.Series(dtype=float)})  # fmt: skip
    io.write_table(pools, tmp_path / "reference.parquet", "cnv_reference")
    out, out_cnv = tmp_path / "malignancy.parquet", tmp_path / "cnv.parquet"
    malignancy.run_malignancy(
        path, tmp_path / "cell_types.parquet", tmp_path / "reference.parquet", out, out_cnv,
        options=options or Malignancy(), seed=0,
    )  # fmt: skip
    return io.read_table(out), io.read_table(out_cnv), io.read_status(out)


def test_stage_writes_every_kept_cell(tmp_path, tumour):
    x, truth, symbols, found = tumour
    table, profile, status = stage(tmp_path, x, truth, symbols)
    assert status.ok and len(table) == len(truth)
    np.testing.assert_array_equal(table["malignancy"], found.call)
    assert set(table.loc[truth == "caf", "malignancy_status"]) == {"not_epithelial"}
    assert (table["clone"].notna() == (table["malignancy"] == "malignant")).all()
    assert status.summary["rung"] == "same_sample" and status.summary["n_epithelial"] == 190
    assert status.summary["n_malignant"] == (found.call == "malignant").sum()
    assert {"clone_1", "normal_epithelium", "caf", "reference"} <= set(profile["group"])
    arms = profile[profile["group"] == "clone_1"].groupby("arm")["value"].mean()
    assert arms["1q"] > 0.03 and arms["16q"] < -0.03
    reference = profile[profile["group"] == "reference"]
    assert reference["value"].abs().max() < profile[profile["group"] == "clone_1"]["value"].abs().max() / 2


def test_pooled_reference(tmp_path):
    x, truth, symbols = simulate(4, {"malignant": 90, "normal": 30, **STROMA})
    lognorm = io.lognormalise(x)
    keep = ~np.isin(truth, ["t_nk", "endothelial", "pvl"]) | (np.arange(len(truth)) % 5 == 0)
    own = np.isin(truth, malignancy.REFERENCE_TYPES)
    pools = pd.DataFrame({"pool": "chemistry:other", "gene": symbols, "n_cells": int(own.sum()), "n_samples": 2,
                          "mean_lognorm": np.asarray(lognorm[own].mean(axis=0)).ravel()})  # fmt: skip
    keep |= truth == "b_cell"
    extra = np.where(truth[keep] == "b_cell", "myeloid", truth[keep]).astype(object)
    table, _, status = stage(tmp_path, x[keep], extra, symbols, pools=pools)
    assert status.summary["rung"] == "reference_other_chemistry"
    assert set(table.loc[table["malignancy"] == "malignant", "malignancy_status"]) == {"reference_other_chemistry"}
    assert (table["malignancy"].to_numpy()[truth[keep] == "malignant"] == "malignant").mean() > 0.9


@pytest.mark.parametrize(("n_null", "expected"), [(20, "ok"), (19, "no_null_cells"), (0, "no_null_cells")])
def test_sorted_tumour_with_a_pooled_reference(tmp_path, n_null, expected):
    x, truth, symbols = simulate(4, {"malignant": 90, "normal": 30, "t_nk": 80, "endothelial": 80})
    own = np.isin(truth, malignancy.REFERENCE_TYPES)
    pools = pd.DataFrame({"pool": "chemistry:unknown", "gene": symbols, "n_cells": int(own.sum()), "n_samples": 2,
                          "mean_lognorm": np.asarray(io.lognormalise(x)[own].mean(axis=0)).ravel()})  # fmt: skip
    kept = np.flatnonzero(own)
    kept = np.r_[np.flatnonzero(~own), kept[np.linspace(0, len(kept) - 1, n_null).astype(int)]]
    labels = np.where(own, "myeloid", truth)[kept].astype(object)
    table, _, status = stage(tmp_path, x[kept], labels, symbols, pools=pools)
    assert status.status == expected
    if expected == "ok":
        found = table["malignancy"].to_numpy()
        assert status.summary["rung"] == "pooled_same_chemistry" and status.summary["n_null"] == 20
        assert (found[labels == "malignant"] == "malignant").mean() > 0.9
        assert (found[labels == "normal"] == "malignant").mean() < 0.1
        assert status.summary["reference_false_positive_upper"] > 0.15  # twenty cells prove little
    else:
        assert set(table.loc[~np.isin(labels, "myeloid"), "malignancy_status"]) == {"no_null_cells"}
        assert "pooled reference exists" in status.reason


@pytest.mark.parametrize(
    ("n", "record", "expected"),
    [
        ({"malignant": 6, **STROMA}, {}, "too_few_epithelial_cells"),
        ({"malignant": 60, "t_nk": 20, "caf": 10}, {}, "insufficient_reference_cells"),
        (dict(STROMA), {}, "too_few_epithelial_cells"),
        ({"malignant": 90}, {}, "insufficient_reference_cells"),
        ({"malignant": 90, **STROMA}, {"status": "unreadable", "reason": "x"}, "unreadable"),
    ],
)
def test_stage_names_what_it_cannot_do(tmp_path, n, record, expected):
    x, truth, symbols = simulate(5, n, umi=3000, n_genes=2000)
    table, profile, status = stage(tmp_path, x, truth, symbols, record=record)
    assert status.status == expected and profile.empty
    assert not (table["malignancy"] == "malignant").any()
    if expected == "unreadable":
        assert table.empty
    else:
        assert len(table) == len(truth)
        wanted = types_of(truth) == "epithelial"
        assert set(table.loc[wanted, "malignancy_status"]) <= {expected}
        assert set(table.loc[wanted, "malignancy"]) <= {"unassigned"}


def test_no_cell_passed_quality_control(tmp_path):
    x, _, symbols = simulate(5, {"malignant": 20}, umi=3000, n_genes=2000)
    table, _, status = stage(tmp_path, x, None, symbols)
    assert table.empty and status.status == "no_cells"


@pytest.mark.parametrize("n", [{"malignant": 40}, {"malignant": 60, "t_nk": 110}])
def test_assumed_by_user(tmp_path, n):
    x, truth, symbols = simulate(6, n, umi=4000, n_genes=5000)
    table, profile, status = stage(tmp_path, x, truth, symbols, record={"malignancy": "assumed"})
    assert status.ok and status.summary["n_malignant"] == n["malignant"]
    rows = table[table["malignancy"] == "malignant"]
    assert len(rows) == n["malignant"] and set(rows["malignancy_status"]) == {"assumed_by_user"}
    assert rows["clone"].notna().all()
    assert profile.empty == ("t_nk" not in n)


def test_assumed_overrides_the_look_of_a_cell_but_not_immune_or_endothelial_cells(tmp_path):
    kinds = {"caf": 25, "pvl": 5, "unresolved": 10, "adipocyte": 2, "malignant": 4, "t_nk": 6, "endothelial": 3, "b_cell": 1,
             "myeloid": 2, "plasmablast": 1, "mast": 1, "erythrocyte": 1, "platelet": 1}  # fmt: skip
    truth = np.repeat(np.array([*kinds], dtype=object), [*kinds.values()])
    x = sparse.csr_matrix(np.random.default_rng(0).poisson(1.0, (len(truth), 50)))
    symbols = [f"G{i}" for i in range(50)]
    table, _, status = stage(tmp_path, x, truth, symbols, record={"malignancy": "assumed"})
    meant = np.isin(truth, ["caf", "pvl", "unresolved", "adipocyte", "malignant"])
    assert status.ok and (table["malignancy"].to_numpy() == np.where(meant, "malignant", "not_epithelial")).all()
    assert set(table.loc[meant, "malignancy_status"]) == {"assumed_by_user"} and table.loc[meant, "clone"].eq(1).all()
    assert status.summary["n_type_overridden"] == 42 and status.summary["n_reference"]["pvl"] == 0
    table, _, status = stage(tmp_path, x, truth, symbols)
    assert not (table["malignancy"] == "malignant").any() and "n_type_overridden" not in status.summary


def test_tissue_normal_is_no_shortcut(tmp_path, tumour):
    x, truth, symbols, found = tumour
    table, _, _ = stage(tmp_path, x, truth, symbols, record={"tissue": "normal"})
    np.testing.assert_array_equal(table["malignancy"], found.call)


def test_values_without_counts_still_serve(tmp_path, tumour):
    x, truth, symbols, _ = tumour
    totals = np.asarray(x.sum(axis=1)).ravel()
    tpm = sparse.csr_matrix(sparse.diags_array(1e6 / totals) @ x)
    table, _, status = stage(tmp_path, tpm, truth, symbols, record={"is_counts": False})
    assert status.ok and status.summary["values"] == "linear"
    assert (table["malignancy"].to_numpy()[truth == "malignant"] == "malignant").mean() > 0.97


def test_pools_weigh_by_cells_and_keep_chemistries_apart(tmp_path):
    def write(name, rows, **record):
        table = pd.DataFrame(rows, columns=["gene", "cell_type", "n_cells", "mean_lognorm"]).assign(
            n_positive=1, sum_counts=1.0
        )
        io.write_table(table, tmp_path / f"{name}.parquet", "profiles")
        io.write_json(tmp_path / f"{name}.json", {"chemistry": None, "tissue": "tumour", **record})
        return tmp_path / f"{name}.parquet", tmp_path / f"{name}.json"

    pairs = [
        write("a", [("G1", "t_nk", 30, 1.0), ("G1", "caf", 90, 9.0), ("G1", "epithelial", 50, 4.0)], chemistry="v3"),
        write(
            "b",
            [("G1", "pvl", 10, 2.0), ("G1", "epithelial", 20, 0.5), ("G2", "pvl", 10, 1.0)],
            chemistry="v3",
            tissue="normal",
        ),
        write("c", [("G1", "b_cell", 5, 3.0)]),
        write("d", []),
        write(
            "e",
            [("G1", "pvl", 90, 9.0), ("G1", "epithelial", 90, 9.0), ("G1", "b_cell", 5, 3.0)],
            malignancy="assumed",
            tissue="normal",
        ),  # a cell line: its "PVL" and "normal epithelium" are tumour
    ]
    malignancy.run_cnv_reference([p for p, _ in pairs], [r for _, r in pairs], tmp_path / "out.parquet")
    table = io.read_table(tmp_path / "out.parquet").set_index(["pool", "gene"])
    assert table.loc[("chemistry:v3", "G1"), "mean_lognorm"] == pytest.approx((30 * 1 + 10 * 2) / 40)
    assert table.loc[("chemistry:v3", "G1"), "n_samples"] == 2 and table.loc[("chemistry:v3", "G2"), "n_cells"] == 10
    assert table.loc[("chemistry:unknown", "G1"), "mean_lognorm"] == 3
    assert table.loc[("normal_epithelium", "G1"), "mean_lognorm"] == 0.5  # never the tumour's epithelium
    malignancy.run_cnv_reference([pairs[3][0]], [pairs[3][1]], tmp_path / "none.parquet")
    assert io.read_status(tmp_path / "none.parquet").status == "no_reference_cells"


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
