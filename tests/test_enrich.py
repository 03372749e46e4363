"""Pseudobulk sums, the paired model, enrichment, and what happens when there is too little."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest, norm

from helpers import record_of
from nicheloop import enrich, genes, io
from nicheloop.config_niche import Enrich
from small_tumour import build

OPTIONS = Enrich(n_permutations=200)


def pseudobulk(folder, options=OPTIONS, **kwargs):
    build(folder, run=False, **kwargs)
    enrich.run_pseudobulk(
        folder / "counts.h5ad", folder / "csc.parquet", folder / "tam.parquet", folder / "pb.parquet", options=options
    )
    return folder / "pb.parquet"


def test_pseudobulk_sums(tmp_path):
    path = pseudobulk(tmp_path)
    table = io.read_table(path)
    assert set(table["state"]) == {"m_csc_m_csc", "m_csc_other"}  # no M1-like macrophage: that contrast is left out
    counts, csc = io.Counts(tmp_path / "counts.h5ad"), io.read_table(tmp_path / "csc.parquet")
    for side in ("m_csc", "other"):
        ids = csc.loc[csc["csc_state"] == side, "cell_id"]
        got = table[table["state"] == f"m_csc_{side}"].set_index("gene")
        expected = np.asarray(counts.matrix(cells=ids).sum(axis=0)).ravel()
        np.testing.assert_allclose(got.loc[list(counts.genes), "counts"], expected)
        assert set(got["n_cells"]) == {len(ids)}
    assert "0 tam_m2_m1_like" in io.read_status(path).summary["tam_m2"]


@pytest.mark.parametrize(
    ("kwargs", "status"),
    [
        ({"is_counts": False}, "no_counts"),
        ({"malignant": False}, "too_few_cells"),
        ({"status": "unreadable", "reason": "x"}, "unreadable"),
    ],
)
def test_pseudobulk_that_cannot_answer(tmp_path, kwargs, status):
    path = pseudobulk(tmp_path, **kwargs)
    assert io.read_table(path).empty and io.read_status(path).status == status


def simulated(n_patients=3, n_genes=400, effect=2.0, seed=0, name="P"):
    """Pseudobulks of patients; the first half of the first hallmark set is up in CSC-high cells."""
    rng = np.random.default_rng(seed)
    hallmark = genes.hallmark()
    first = sorted(hallmark)[0]
    symbols = sorted(
        {*hallmark[first][:60], "CD44", "CD24", *[g for s in sorted(hallmark)[1:4] for g in hallmark[s][:100]]}
    )[:n_genes]
    mean = rng.gamma(1.0, 100, len(symbols)) + 20
    fold = np.where(np.isin(symbols, hallmark[first][:60]), effect, 1.0)
    rows = []
    for i in range(n_patients):
        own = mean * rng.lognormal(0, 0.5, len(symbols))
        for side, factor in (("m_csc", fold), ("other", np.ones(len(symbols)))):
            rows.append(pd.DataFrame({
                "contrast": "m_csc", "state": f"m_csc_{side}", "n_cells": 20, "gene": symbols,
                "counts": rng.poisson(own * factor * rng.gamma(30, 1 / 30, len(symbols))).astype(float), "patient": f"{name}_{i}-x",
            }))  # fmt: skip
    return pd.concat(rows, ignore_index=True), first, dict(zip(symbols, fold, strict=True))


def test_contrast_finds_planted_genes_and_set():
    rows, first, fold = simulated(6)
    de, sets = enrich.contrast_tables(rows, "m_csc", genes.hallmark(), OPTIONS, 0)
    assert set(de["status"]) == {"ok"} and de["n_patients"].unique().tolist() == [6]
    planted = de["gene"].map(fold) > 1
    assert de.loc[planted, "log2_fold_change"].median() == pytest.approx(1.0, abs=0.3)
    assert de.loc[~planted, "log2_fold_change"].median() == pytest.approx(0.0, abs=0.3)
    assert de.loc[planted, "q"].median() < 0.05 < de.loc[~planted, "q"].median()
    top = sets.sort_values("nes").iloc[-1]
    assert top["gene_set"] == first and top["p"] >= 1 / 201
    assert sets["reason"].str.contains("CD24, CD44").all()
    assert set(de.loc[de["circular"], "gene"]) == {"CD24", "CD44"}  # shown, and marked
    assert not sets["leading_edge"].str.contains(r"(?:^|;)CD(?:44|24)(?:;|$)").any()
    again = enrich.contrast_tables(rows.sample(frac=1, random_state=1), "m_csc", genes.hallmark(), OPTIONS, 0)
    pd.testing.assert_frame_equal(de, again[0])  # the order of the rows does not matter
    pd.testing.assert_frame_equal(sets, again[1])


def test_defining_genes_leave_sets_and_ranking():
    ranking = pd.Series(np.linspace(3, -3, 60), index=[f"G{i:02d}" for i in range(60)])
    sets = {"big": [f"G{i:02d}" for i in range(20)], "small": [f"G{i:02d}" for i in range(12)], "empty": ["NOPE"]}
    got = enrich.enrichment(ranking, sets, [f"G{i:02d}" for i in range(4)], OPTIONS, 0)
    assert got["gene_set"].tolist() == ["big"] and got["size"].tolist() == [
        16
    ]  # 'small' fell to 8, below the smallest size
    assert got["nes"].iloc[0] > 1
    assert enrich.enrichment(ranking, {"none": ["X"]}, [], OPTIONS, 0).empty


def test_wide_keeps_paired_patients_and_shared_genes():
    rows, _, _ = simulated(3, 50)
    rows = rows[~((rows["patient"] == "P_2-x") & (rows["state"] == "m_csc_other"))]  # one side only
    rows = rows[~((rows["patient"] == "P_0-x") & (rows["gene"] == "CD44"))]  # a reference without the gene
    counts, metadata = enrich.wide(rows, "m_csc", 10)
    assert (
        metadata["patient"].tolist() == ["p0", "p0", "p1", "p1"] and metadata["state"].tolist() == ["high", "low"] * 2
    )
    assert "CD44" not in counts and counts.to_numpy().min() >= 0


def cohort(folder, n, options=OPTIONS, tissue=None):
    rows, _, _ = simulated(n)
    paths, records = [], []
    for i, (_, part) in enumerate(rows.groupby("patient")):
        path = folder / f"s{i}.parquet"
        io.write_table(part.drop(columns="patient"), path, "pseudobulk", io.Status("pseudobulk", f"s{i}"))
        record = folder / f"s{i}.json"
        record.write_text(json.dumps(record_of(f"s{i}", 40, 50, tissue=tissue)))
        paths.append(path)
        records.append(record)
    enrich.run_enrich(paths, records, folder / "de.tsv", folder / "enrichment.tsv", options=options, seed=0)
    return io.read_table(folder / "de.tsv"), io.read_table(folder / "enrichment.tsv")


def test_run_enrich(tmp_path):
    de, sets = cohort(tmp_path, 3)
    assert (de.loc[de["contrast"] == "m_csc", "status"] == "ok").all() and len(de) > 100
    m2 = de[de["contrast"] == "tam_m2"]
    assert m2["gene"].tolist() == ["-"] and m2["status"].tolist() == ["too_few_patients"]
    assert sets.loc[sets["contrast"] == "tam_m2", "gene_set"].tolist() == ["-"]
    assert (sets.loc[sets["contrast"] == "m_csc", "status"] == "ok").all()


@pytest.mark.parametrize(("n", "tissue"), [(2, None), (3, "normal")])
def test_run_enrich_with_too_few_patients(tmp_path, n, tissue):
    de, sets = cohort(tmp_path, n, tissue=tissue)
    assert set(de["status"]) == set(sets["status"]) == {"too_few_patients"}
    assert len(de) == len(sets) == len(enrich.CONTRASTS) and not de["circular"].any()
    assert de["reason"].str.contains("3 are needed").all()


def test_run_enrich_without_a_gene_that_is_counted_enough(tmp_path):
    de, _ = cohort(tmp_path, 3, options=Enrich(min_counts=10**9))
    assert de["status"].tolist() == ["too_few_genes", *["too_few_patients"] * (len(enrich.CONTRASTS) - 1)]


def enrichment_score(values, inside):
    """The running sum of GSEA with weight 1, by its definition; (..., genes) `inside`."""
    weight = np.abs(values) * inside
    steps = weight / weight.sum(axis=-1, keepdims=True) - ~inside / (~inside).sum(axis=-1, keepdims=True)
    path = steps.cumsum(axis=-1)
    high, low = path.max(axis=-1), path.min(axis=-1)
    return np.where(high >= -low, high, low)


def test_enrichment_p_is_that_of_a_hand_permutation():
    rng = np.random.default_rng(2)
    values = np.sort(rng.normal(size=500))[::-1]
    ranking = pd.Series(values, index=[f"G{i:03d}" for i in range(500)])
    shifts = {"up": 3.0, "down": -3.0, "weak": 0.6, "none": 0.0, "low": -0.5}
    sets = {}
    for name, shift in shifts.items():
        weight = np.exp(shift * values)
        sets[name] = sorted(rng.choice(ranking.index, 25, replace=False, p=weight / weight.sum()))
    options = Enrich(n_permutations=1000)
    got = enrich.enrichment(ranking, sets, [], options, 0).set_index("gene_set")
    drawn = np.zeros((4000, 500), dtype=bool)
    np.put_along_axis(drawn, rng.random(drawn.shape).argsort(axis=1)[:, :25], True, axis=1)
    null = enrichment_score(values, drawn)
    for name, members in sets.items():
        score = float(enrichment_score(values, ranking.index.isin(members)))
        same = null[np.sign(null) == np.sign(score)]
        by_hand = ((np.abs(same) >= abs(score)).sum() + 1) / (len(same) + 1)
        n_same = 1000 * len(same) / len(null)
        error = np.sqrt(by_hand * (1 - by_hand) / n_same + by_hand * (1 - by_hand) / len(same))
        assert got.loc[name, "p"] == pytest.approx(by_hand, abs=4 * error + 1.5 / n_same), name
    extreme = got.loc[["up", "down"]]
    assert (extreme["p"] > 1 / 1001).all()  # the permutations of one sign are about half of them
    assert (extreme["p"] < 1 / 300).all() and (extreme["q"] >= extreme["p"]).all()
    smallest = enrich.signed_p(ranking.sort_index().sort_values(ascending=False, kind="stable"), sets, options, 0)[1]
    n = 1 / pd.Series(smallest) - 1  # permutations with the sign of the observed score
    b = got["p"] * (n[got.index] + 1) - 1
    assert np.allclose(n, n.round()) and (n < 700).all() and np.allclose(b, b.round(), atol=1e-6)  # p = (b+1)/(n+1)


def test_a_metastasis_is_no_replicate(tmp_path):
    de, sets = cohort(tmp_path, 3, tissue="metastasis")
    assert set(de["status"]) == {"too_few_patients"}
    assert de["reason"].str.contains("3 more without a primary tumour sample (not_primary_tumour)", regex=False).all()
    assert sets["reason"].str.contains("not_primary_tumour").all()


def test_the_fit_is_pydeseq2_called_by_hand():
    """The same numbers from PyDESeq2 on a matrix and design built here, and signs of the plain paired log ratio."""
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.default_inference import DefaultInference
    from pydeseq2.ds import DeseqStats

    rows, _, _ = simulated(4, 60)
    counts, metadata = enrich.wide(rows, "m_csc", 10)
    got = enrich.paired_de(counts, metadata).set_index("gene")
    table = rows.pivot_table(index=["patient", "state"], columns="gene", values="counts").astype(int)
    design = table.index.to_frame(index=False)
    design = pd.DataFrame({"patient": design["patient"].str.replace("[_-]", "", regex=True),
                           "state": np.where(design["state"] == "m_csc_m_csc", "high", "low")})  # fmt: skip
    matrix = table.reset_index(drop=True)
    matrix.index = design.index = [f"x{i}" for i in range(len(matrix))]
    inference = DefaultInference(n_cpus=1)
    with enrich._quiet():
        data = DeseqDataSet(counts=matrix, metadata=design, design="~patient + state", inference=inference, quiet=True)
        data.deseq2()
        test = DeseqStats(data, contrast=["state", "high", "low"], inference=inference, quiet=True)
        test.summary()
    want = test.results_df.loc[got.index]
    for mine, theirs in (("log2_fold_change", "log2FoldChange"), ("statistic", "stat"), ("p", "pvalue"), ("q", "padj")):
        np.testing.assert_allclose(got[mine], want[theirs], rtol=1e-6, err_msg=mine)
    # by hand: mean over patients of the log ratio of counts scaled by library size
    share = matrix.div(matrix.sum(axis=1), axis=0) * 1e6
    high, low = (np.log2(share[(design["state"] == s).to_numpy()].to_numpy() + 1) for s in ("high", "low"))
    by_hand = pd.Series((high - low).mean(axis=0), index=matrix.columns)[got.index]
    by_hand -= by_hand.median() - got["log2_fold_change"].median()  # the scale of the libraries
    assert np.corrcoef(by_hand, got["log2_fold_change"])[0, 1] > 0.97


def test_patients_without_a_difference_give_few_hits():
    """Null: both states are drawn from one law within each patient."""
    rows, _, _ = simulated(6, 300, effect=1.0, seed=11)
    de, _ = enrich.contrast_tables(rows, "m_csc", {}, OPTIONS, 0)
    assert (de["p"] <= 0.05).mean() < 0.12 and (de["q"] < 0.05).sum() <= 3


@pytest.mark.parametrize("contrast", list(enrich.CONTRASTS))
def test_defining_genes_are_those_of_the_call(contrast):
    defining = enrich.defining_genes(contrast)
    signatures = genes.signatures()
    expected = {
        "m_csc": {"CD44", "CD24"},
        "aldh1a3": {"ALDH1A3"},
        "tam_m2": {*signatures["M1"].genes, *signatures["M2"].genes},
    }
    assert set(defining) == expected[contrast]


def test_aldh1a3_is_a_contrast_of_its_own(tmp_path):
    build(tmp_path, run=False)
    csc = io.read_table(tmp_path / "csc.parquet")
    malignant = csc["csc_state"] != "not_assessable"
    number = csc["cell_id"].str[-5:].astype(int)
    csc["aldh1a3_state"] = np.where(~malignant, "not_assessable", np.where(number % 4 == 0, "high", "low"))
    io.write_table(csc, tmp_path / "csc.parquet", "csc")
    enrich.run_pseudobulk(
        tmp_path / "counts.h5ad",
        tmp_path / "csc.parquet",
        tmp_path / "tam.parquet",
        tmp_path / "pb.parquet",
        options=OPTIONS,
    )
    table = io.read_table(tmp_path / "pb.parquet")
    assert {"aldh1a3_high", "aldh1a3_low"} <= set(table["state"])
    high = table[table["state"] == "aldh1a3_high"]
    assert set(high["n_cells"]) == {int((csc["aldh1a3_state"] == "high").sum())}


def paired(n_patients: int, n_genes: int = 150, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pseudobulks of two states per patient: 30 genes differ by a factor of 1.6, patients differ more than that."""
    rng = np.random.default_rng(seed)
    base = rng.lognormal(4, 1, n_genes) * rng.lognormal(0, 0.8, (n_patients, n_genes))
    change = np.where(np.arange(n_genes) < 30, np.where(np.arange(n_genes) % 2, 1.6, 1 / 1.6), 1.0)
    mean = np.stack([base * change, base], axis=1).reshape(2 * n_patients, n_genes)
    counts = rng.poisson(mean * rng.gamma(10, 0.1, mean.shape))
    index = [f"b{i}" for i in range(2 * n_patients)]
    metadata = pd.DataFrame(
        {"patient": np.repeat([f"p{i}" for i in range(n_patients)], 2), "state": ["high", "low"] * n_patients},
        index=index,
    )
    return pd.DataFrame(counts, index=index, columns=[f"G{i:03d}" for i in range(n_genes)]), metadata


def test_patients_in_parts_give_what_one_fit_of_all_gives():
    counts, metadata = paired(24)
    whole = enrich.paired_de(counts, metadata).set_index("gene")
    parts = enrich.parts_of(metadata, 9)
    assert [p["patient"].nunique() for p in parts] == [8, 8, 8]
    assert sorted(i for p in parts for i in p.index) == sorted(metadata.index)
    fits = [enrich.paired_de(counts.loc[p.index], p) for p in parts]
    pooled = enrich.pooled_de(fits, [8, 8, 8]).set_index("gene")
    assert list(pooled.index) == list(whole.index)
    assert np.corrcoef(pooled["log2_fold_change"], whole["log2_fold_change"])[0, 1] > 0.98
    assert np.abs(pooled["log2_fold_change"] - whole["log2_fold_change"]).max() < 0.25
    assert (pooled["standard_error"] / whole["standard_error"]).between(0.7, 1.4).mean() > 0.9
    for found in (whole, pooled):
        assert (found["q"][:30] < 0.05).mean() > 0.8
    null = pooled["p"][30:]
    assert kstest(null, "uniform").pvalue > 0.001 and (null < 0.05).mean() < 0.15


def test_pooled_fold_changes_by_hand():
    def fit(effect, error, counts=10.0):
        return pd.DataFrame(
            {"gene": ["A", "B"], "mean_counts": counts, "log2_fold_change": effect, "standard_error": error}
        )

    got = enrich.pooled_de([fit([1.0, np.nan], [1.0, np.nan]), fit([4.0, np.nan], [2.0, np.nan], 40.0)], [1, 2])
    a, b = got.iloc[0], got.iloc[1]
    assert a["log2_fold_change"] == pytest.approx((1 / 1 + 4 / 4) / (1 + 1 / 4))
    assert a["standard_error"] == pytest.approx((1 + 1 / 4) ** -0.5) and a["mean_counts"] == pytest.approx(30)
    assert a["statistic"] == pytest.approx(a["log2_fold_change"] / a["standard_error"])
    assert a["q"] == a["p"] == pytest.approx(2 * norm.sf(a["statistic"]))  # the only gene with a p
    assert b[["log2_fold_change", "statistic", "p", "q"]].isna().all()
    alone = enrich.pooled_de([fit([1.0, 2.0], [1.0, 1.0]), fit([4.0, np.nan], [2.0, np.nan])], [1, 1])
    assert alone["log2_fold_change"][1] == 2.0  # a fit without a count of it has no say


def test_few_patients_are_one_fit():
    _, metadata = paired(7)
    assert [len(p) for p in enrich.parts_of(metadata, 7)] == [14]
    assert [p["patient"].nunique() for p in enrich.parts_of(metadata, 3)] == [3, 2, 2]
