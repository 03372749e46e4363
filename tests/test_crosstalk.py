"""Axes: the engine against a naive loop, every obstacle, calibration, and the files."""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import binomtest

from nicheloop import axes, detection, genes, io, loop, permuted, stats
from nicheloop import crosstalk as ct
from nicheloop import ligand_receptor as lr
from nicheloop.config_niche import Crosstalk
from small_tumour import FEW as OPTIONS
from small_tumour import build


def sample_of(x, symbols, masks: dict, *, ambient=None, rate=np.nan, platelet_genes=()):
    order = np.argsort(np.asarray(symbols, dtype=str), kind="stable")
    x = sparse.csr_matrix(np.asarray(x, dtype=float)[:, order])
    share = np.zeros(len(symbols)) if ambient is None else np.asarray(ambient, dtype=float)[order]
    return lr.Sample(
        x, np.asarray(x.sum(axis=1)).ravel(), np.asarray(symbols, dtype=object)[order], tuple(masks),
        np.column_stack(list(masks.values())).astype(bool), share, rate, frozenset(platelet_genes),
    )  # fmt: skip


def random_sample(seed=0, cells=120, background=150, planted=True):
    rng = np.random.default_rng(seed)
    symbols = ["LIG", "REC1", "REC2", "DECOY", "PPBP", *[f"B{i:03d}" for i in range(background)]]
    mean = np.concatenate([[0.6, 0.6, 0.6, 0.0, 0.0], rng.gamma(0.6, 1.2, background)])
    x = rng.poisson(rng.lognormal(0, 0.4, cells)[:, None] * mean).astype(float)
    kind = np.arange(cells) % 3
    masks = {
        "a": kind == 0,
        "b": kind == 1,
        "b_part": (kind == 1) & (np.arange(cells) % 2 == 0),
        "platelet": np.zeros(cells, bool),
    }
    if planted:
        x[masks["a"], 0] += rng.poisson(4, masks["a"].sum())
        for column in (1, 2):
            x[masks["b"], column] += rng.poisson(4, masks["b"].sum())
    return x, symbols, masks


@pytest.mark.parametrize("layout", [sparse.csr_matrix, sparse.csc_matrix])
def test_sums_and_detection_are_those_of_the_dense_matrix(layout):
    from scipy.stats import poisson

    x, symbols, masks = random_sample(5)
    x[:, 4] = 0  # PPBP in no cell
    sample = sample_of(x, symbols, masks, ambient=np.full(len(symbols), 1 / len(symbols)), rate=0.4)
    dense = sample.x.toarray()
    sample = dataclasses.replace(sample, x=layout(sample.x))
    options = OPTIONS.model_copy(update={"abundant_fraction": 0.5, "min_umi": 12, "min_positive_cells": 6})
    seen = detection.Detection.of(sample, sample.genes)
    columns = np.array([seen.column[g] for g in sample.genes])
    np.testing.assert_array_equal(sample.sums.everywhere, dense.sum(axis=0))
    np.testing.assert_array_equal(sample.sums.share, (dense > 0).mean(axis=0))
    for i, name in enumerate(sample.names):
        mine = dense[sample.masks[:, i]]
        np.testing.assert_array_equal(sample.sums.umi[i], mine.sum(axis=0))
        np.testing.assert_array_equal(sample.sums.positive[i], (mine > 0).sum(axis=0))
        assert sample.sums.library_size[i] == mine.sum()
        detected, above = [], []
        for g in range(len(symbols)):
            umi, cells = mine[:, g].sum(), (mine[:, g] > 0).sum()
            rare = (dense[:, g] > 0).mean() >= 0.5 and cells < np.ceil(0.5 * len(mine))
            detected.append(umi >= 12 and cells >= 6 and not rare)
            level = 0.4 * mine.sum() / len(symbols)
            above.append(level == 0 or poisson.sf(umi - 1, level) < 0.01)
        assert seen.all_detected(name, columns, options).tolist() == detected
        assert seen.all_above_ambient(name, columns, 0.01).tolist() == above
        assert [seen.detected(name, g, options) for g in sample.genes] == detected
        assert [seen.above_ambient(name, g, 0.01) for g in sample.genes] == above
        assert name == "platelet" or (any(detected) and not all(detected) and any(above) and not all(above))


PAIR = lr.Pair("X", "forward", "LIG", ("REC1", "REC2"), "a", "b")


def naive(x, symbols, masks, pair, ambient=0.0):
    """Strength by the definition, one number at a time."""
    column = {g: i for i, g in enumerate(symbols)}
    total = x.sum(axis=1)

    def mean(population, gene):
        cells = masks[population]
        return max(0.0, 1e4 * x[cells, column[gene]].sum() / total[cells].sum() - ambient)

    return (mean(pair.sender, pair.ligand) * min(mean(pair.receiver, g) for g in pair.receptor)) ** 0.5


@pytest.mark.parametrize(
    "switch", [{"BLOCK": 1000}, {}, {"COMPILED": 0, "LOADED": 0}]
)  # small blocks, one block, compiled loops
def test_strength_and_null_agree_with_a_naive_loop(monkeypatch, switch):
    for name, value in switch.items():
        monkeypatch.setattr(permuted, name, value)
    x, symbols, masks = random_sample()
    pairs = [PAIR, lr.Pair("X", "forward", "LIG", ("REC1",), "b_part", "a")]
    sample = sample_of(x, symbols, masks)
    got = lr.test_pairs(sample, pairs, [], OPTIONS, 5)
    np.testing.assert_allclose(got.strength, [naive(x, symbols, masks, p) for p in pairs])
    # the same permutations, drawn as the engine does
    rng = np.random.default_rng([5, zlib.crc32(b"labels")])
    null = np.empty((OPTIONS.n_permutations, 2))
    seen = np.empty(null.shape, dtype=bool)
    column = {g: i for i, g in enumerate(symbols)}
    for b in range(OPTIONS.n_permutations):
        order = rng.permutation(len(x))
        shuffled = {k: m[order] for k, m in masks.items()}
        null[b] = [naive(x, symbols, shuffled, p) for p in pairs]
        for j, pair in enumerate(pairs):
            sides = [(pair.sender, pair.ligand), *((pair.receiver, g) for g in pair.receptor)]
            values = [x[shuffled[k], column[g]] for k, g in sides]
            seen[b, j] = all(v.sum() >= OPTIONS.min_umi and (v > 0).sum() >= OPTIONS.min_positive_cells for v in values)
    np.testing.assert_allclose(got.label, null)
    np.testing.assert_array_equal(got.label_seen, seen)


def test_compiled_and_plain_sums_are_the_same_bytes(monkeypatch):
    x, symbols, masks = random_sample()
    sample, drawn = sample_of(x, symbols, masks), []
    for limit in (0, 10**12):
        for name in ("COMPILED", "LOADED"):
            monkeypatch.setattr(permuted, name, limit)
        parts = permuted.permuted_sums(sample.x, sample.totals, sample.masks, 100, np.random.default_rng(3))
        drawn.append([np.concatenate(p) for p in zip(*parts, strict=True)])
    for plain, compiled in zip(*drawn, strict=True):
        np.testing.assert_array_equal(plain, compiled)


def test_permutations_keep_sizes_and_overlaps():
    x, _, masks = random_sample()
    m = np.column_stack(list(masks.values()))
    ones = sparse.csr_matrix(np.ones((len(x), 1)))
    both = (m[:, 1] & m[:, 2])[:, None]
    rng = np.random.default_rng(0)
    umi, positive, total = next(permuted.permuted_sums(ones, np.full(len(x), 1e4), m.astype(bool), 20, rng))
    np.testing.assert_allclose(umi[:, :, 0], np.tile(m.sum(axis=0), (20, 1)))  # every population keeps its size
    np.testing.assert_allclose(positive, umi)
    np.testing.assert_allclose(total, umi[:, :, 0] * 1e4)
    assert both.sum() == masks["b_part"].sum()


def test_planted_pair_is_found_and_unexpressed_decoy_is_never_tested():
    x, symbols, masks = random_sample()
    pairs = [PAIR, lr.Pair("D", "decoy", "DECOY", ("REC1",), "a", "b")]
    table = ct.score_axes(sample_of(x, symbols, masks), pairs, OPTIONS, 0)
    assert table["status"].tolist() == ["tested", "ligand_not_detected"]
    assert table.loc[0, "p"] == pytest.approx(1 / 200) and table.loc[0, "log2_effect"] > 0.5 and table.loc[0, "z"] > 3
    assert table.loc[0, "q"] == table.loc[0, "p"]  # one tested row: the decoy is no test
    assert table.loc[1, ["strength", "log2_effect", "z", "p_label", "p_pair", "p", "q"]].isna().all()
    assert table.loc[1, "ligand_upper"] == pytest.approx(1 - 0.05 ** (1 / 40))


def test_pair_null_uses_matched_genes_and_never_axis_genes():
    x, symbols, masks = random_sample()
    sample = sample_of(x, symbols, masks)
    overall = x.sum(axis=0)[np.argsort(symbols)]
    candidates = np.flatnonzero((overall > 0) & np.char.startswith(np.sort(symbols), "B"))
    candidates = candidates[np.argsort(overall[candidates], kind="stable")]
    drawn = lr.matched_genes(overall, candidates, "LIG", 100.0, "ligand", width=20, n=500, seed=0)
    nearest = candidates[
        np.argsort(np.abs(np.searchsorted(overall[candidates], 100.0) - 0.5 - np.arange(len(candidates))))[:20]
    ]
    assert set(drawn) == set(nearest)
    null, seen = lr.pair_null(sample, [PAIR], {"LIG", "REC1", "REC2"}, OPTIONS, 0)
    assert np.isfinite(null).all() and 0 < seen.sum() < seen.size
    nothing, _ = lr.pair_null(sample, [PAIR], set(symbols), OPTIONS, 0)
    assert np.isnan(nothing).all()  # and then p_pair is 1, not small
    lonely = lr.Sample(
        sample.x[:, -5:-1],
        sample.totals,
        sample.genes[-5:-1],
        sample.names,
        sample.masks,
        sample.ambient[-5:-1],
        np.nan,
        frozenset(),
    )
    only = ct.score_axes(lonely, [lr.Pair("X", "f", "LIG", ("REC1",), "a", "b")], OPTIONS, 0)
    assert only["status"].tolist() == ["tested"] and only["p_pair"].tolist() == [1.0]


def statuses(x, symbols, masks, pair=PAIR, options=OPTIONS, **kwargs):
    table = detection.measure(sample_of(x, symbols, masks, **kwargs), [pair], options)
    assert len(table) == 1 and table.loc[0, "reason"]
    return table.loc[0, "status"]


def test_every_obstacle_has_its_status():
    x, symbols, masks = random_sample()
    flat = np.full(len(symbols), 1 / len(symbols))
    assert statuses(x, symbols, masks) == "tested"
    table = detection.measure(sample_of(x, symbols, masks), [PAIR], OPTIONS, is_counts=False)
    assert table["status"].tolist() == ["no_counts"] and table["ligand_umi"].isna().all()
    assert (
        statuses(x, symbols, masks, lr.Pair("X", "f", "LIG", ("REC1", "NOPE"), "a", "b"))
        == "gene_absent_from_reference"
    )
    small = {**masks, "a": masks["a"] & (np.cumsum(masks["a"]) <= 19)}
    assert statuses(x, symbols, small) == "too_few_cells"
    silent = x.copy()
    silent[:, 0] = 0
    assert statuses(silent, symbols, masks) == "ligand_not_detected"
    two = silent.copy()
    two[np.flatnonzero(masks["a"])[:2], 0] = 50  # enough UMI, too few cells
    assert statuses(two, symbols, masks) == "ligand_not_detected"
    heavy = flat.copy()
    heavy[0] = 0.9
    assert statuses(x, symbols, masks, ambient=heavy, rate=0.5) == "ambient_not_exceeded"
    heavy = flat.copy()
    heavy[2] = 0.9
    assert statuses(x, symbols, masks, ambient=heavy, rate=0.5) == "ambient_not_exceeded"
    assert statuses(x, symbols, masks, ambient=flat, rate=0.01) == "tested"
    deaf = x.copy()
    deaf[masks["b"], 2] = 0  # one missing subunit is enough
    assert statuses(deaf, symbols, masks) == "receptor_not_detected"


def test_an_abundant_gene_must_be_in_enough_cells_of_its_type():
    x, symbols, masks = random_sample(cells=300)
    x[:, 0] = 0
    x[masks["b"], 0] = 5  # a third of all cells have it
    x[np.flatnonzero(masks["a"])[:4], 0] = 5  # and four of a hundred senders: the doublets
    assert statuses(x, symbols, masks) == "ligand_not_detected"
    table = detection.measure(sample_of(x, symbols, masks), [PAIR], OPTIONS)
    assert "5 % of them are needed, because 35 % of all cells have it" in table.loc[0, "reason"]
    x[np.flatnonzero(masks["a"])[:6], 0] = 5
    assert statuses(x, symbols, masks) == "tested"
    x[masks["b"], 0] = 0  # rare everywhere: three cells are enough
    x[np.flatnonzero(masks["a"])[3:6], 0] = 0
    assert statuses(x, symbols, masks) == "tested"


def test_trans_signalling_needs_a_source_of_soluble_receptor():
    rng = np.random.default_rng(0)
    symbols = ["IL6", "IL6ST", "IL6R", "ADAM17", *[f"B{i:02d}" for i in range(40)]]
    kind = np.arange(150) % 3
    x = rng.poisson(np.full((150, len(symbols)), 1.0)).astype(float)
    x[:, :4] = 0
    x[kind == 0, 0], x[kind == 1, 1] = 2, 2
    masks = {"icaf": kind == 0, "malignant": kind == 1, "myeloid": kind == 2, "platelet": np.zeros(150, bool)}
    trans = lr.Pair("IL6_trans", "forward", "IL6", ("IL6ST",), "icaf", "malignant")
    assert statuses(x, symbols, masks, trans) == "receptor_not_detected"
    x[kind == 1, 2:4] = 2  # the receiver's own receptor is classic, not trans
    assert statuses(x, symbols, masks, trans) == "receptor_not_detected"
    high = masks | {"csc_high": (kind == 1) & (np.arange(150) % 2 == 0)}
    assert statuses(x, symbols, high, trans) == "receptor_not_detected"  # part of the receivers is no other source
    x[kind == 2, 2] = 2
    assert statuses(x, symbols, masks, trans) == "receptor_not_detected"  # nothing sheds it
    x[kind == 2, 3] = 2
    assert statuses(x, symbols, masks, trans) == "tested"
    drop = [i for i, s in enumerate(symbols) if s != "ADAM17"]
    assert statuses(x[:, drop], [symbols[i] for i in drop], masks, trans) == "gene_absent_from_reference"
    classic = lr.Pair("IL6_classic", "forward", "IL6", ("IL6ST",), "icaf", "malignant")
    assert statuses(x[:, drop], [symbols[i] for i in drop], masks, classic) == "tested"


def test_neutrophils_stand_beside_cxcr_and_platelets_beside_ppbp(tmp_path):
    table = io.read_table(build(tmp_path))
    cxcr = table[table["receptor"].isin(["CXCR1", "CXCR2"])]
    assert len(cxcr) and cxcr["reason"].str.contains("0 neutrophils in the sample").all()
    assert (cxcr["n_neutrophil"] == 0).all()
    ppbp = table[table["ligand"] == "PPBP"]
    assert len(ppbp) and ppbp["reason"].str.contains("0 platelet barcodes in the sample").all()


def test_platelet_contamination():
    x, symbols, masks = random_sample()
    pair = lr.Pair("PPBP", "forward", "PPBP", ("REC1",), "a", "b")
    assert statuses(x, symbols, masks, pair, platelet_genes=["PPBP"]) == "ligand_not_detected"  # nowhere seen
    flagged = np.arange(len(x)) < 6
    x[flagged, 4] = 30
    parted = {k: m & ~flagged for k, m in masks.items()} | {"platelet": flagged}
    assert statuses(x, symbols, parted, pair, platelet_genes=["PPBP"]) == "platelet_contamination"
    sender = lr.Pair("T", "forward", "LIG", ("REC1",), "platelet", "b")
    assert statuses(x, symbols, parted, sender, platelet_genes=["PPBP"]) == "platelet_contamination"
    x[parted["a"], 4] = 30  # made by cells: platelets hold less than half of it
    assert statuses(x, symbols, parted, pair, platelet_genes=["PPBP"]) == "tested"


def test_ambient_is_subtracted():
    x, symbols, masks = random_sample()
    share = np.zeros(len(symbols))
    share[:3] = 0.01
    got = ct.score_axes(sample_of(x, symbols, masks, ambient=share, rate=0.1), [PAIR], OPTIONS, 0)
    assert got.loc[0, "strength"] == pytest.approx(naive(x, symbols, masks, PAIR, ambient=1e4 * 0.1 * 0.01))
    expected = 0.1 * 0.01 * x[masks["a"]].sum()
    assert got.loc[0, "ligand_ambient_umi"] == pytest.approx(expected)


def test_standard_error_agrees_with_a_bootstrap():
    x, symbols, masks = random_sample(cells=300)
    got = ct.score_axes(sample_of(x, symbols, masks), [lr.Pair("X", "f", "LIG", ("REC1",), "a", "b")], OPTIONS, 0)
    rng = np.random.default_rng(0)
    logs = []
    for _ in range(400):
        keep = np.concatenate([rng.choice(np.flatnonzero(masks[k]), masks[k].sum()) for k in ("a", "b")])
        logs.append(
            np.log2(
                naive(
                    x[keep],
                    symbols,
                    {k: m[keep] for k, m in masks.items()},
                    lr.Pair("X", "f", "LIG", ("REC1",), "a", "b"),
                )
            )
        )
    assert got.loc[0, "log2_se"] == pytest.approx(np.std(logs), rel=0.2)


def test_order_of_cells_and_genes_does_not_matter(tmp_path):
    first = pd.read_parquet(build(tmp_path / "one"))
    second = pd.read_parquet(build(tmp_path / "two", shuffle=True))
    pd.testing.assert_frame_equal(first, second)


def test_p_is_super_uniform_under_shuffled_labels():
    """Exact binomial tests at three levels; 600 independent pairs, labels without meaning."""
    rng = np.random.default_rng(11)
    p = []
    for rep in range(20):
        n, width = 150, 30
        symbols = (
            [f"L{i:02d}" for i in range(width)]
            + [f"R{i:02d}" for i in range(width)]
            + [f"B{i:03d}" for i in range(200)]
        )
        x = rng.poisson(rng.lognormal(0, 0.5, n)[:, None] * rng.gamma(1, 0.6, len(symbols))).astype(float)
        label = rng.permutation(n) % 3
        masks = {"a": label == 0, "b": label == 1, "platelet": np.zeros(n, bool)}
        pairs = [lr.Pair("X", "f", f"L{i:02d}", (f"R{i:02d}",), "a", "b") for i in range(width)]
        table = ct.score_axes(
            sample_of(x, symbols, masks), pairs, Crosstalk(n_permutations=99, n_matched_pairs=99), rep
        )
        p.extend(table["p"].dropna())
    assert len(p) > 300
    for level in (0.05, 0.1, 0.2):
        k = int((np.array(p) <= level).sum())
        assert binomtest(k, len(p), level, alternative="greater").pvalue > 0.001, (level, k, len(p))


def test_sparse_ligand_without_effect_is_rarely_tested_and_significant():
    """Every cell follows one law; the floor picks the senders in which chance put the ligand.  Exact binomial test."""
    options = Crosstalk(n_permutations=99, n_matched_pairs=99)
    rng = np.random.default_rng(3)
    senders = [f"s{i}" for i in range(6)]
    kind = np.repeat(np.arange(7), [120, *[60] * 6])
    masks = {"malignant": kind == 0, **{s: kind == i + 1 for i, s in enumerate(senders)}}
    masks["platelet"] = np.zeros(len(kind), bool)
    pairs = [lr.Pair("X", "forward", "L", ("R",), s, "malignant") for s in senders]
    symbols = ["L", "R", *[f"B{i:03d}" for i in range(80)]]
    mean = np.concatenate([[0.09, 0.5], np.full(80, 0.15)])
    arms = rows = old = 0
    n = 200
    for rep in range(n):
        x = rng.poisson(rng.gamma(1, 1, (len(kind), len(mean))) * mean).astype(float)
        sample = sample_of(x, symbols, masks)
        seen = detection.Detection.of(sample, ["L", "R"])
        measurable = np.array([seen.obstacle(p, options, {}) is None for p in pairs])
        if not measurable.any():
            continue
        tested = lr.test_pairs(sample, pairs, ["L", "R"], options, rep)
        found = loop.strongest_arm(sample, pairs, tested, measurable, n_bootstrap=2, confidence=0.95, seed=rep)
        arms += found["p"] <= 0.05
        part = tested.part(np.flatnonzero(measurable))
        old += stats.permutation_p(part.strength.max(), part.label.max(axis=1)) <= 0.05
        rows += int((ct.score_axes(sample, pairs, options, rep)["p"] <= 0.05).sum())
    assert binomtest(arms, n, 0.05, alternative="greater").pvalue > 0.01, arms
    assert binomtest(rows, n * len(pairs), 0.05, alternative="greater").pvalue > 0.01, rows
    assert binomtest(old, n, 0.05, alternative="greater").pvalue < 0.01, old  # the floor under observed labels only


def test_families_of_tests_are_adjusted_apart_and_untested_rows_count():
    x, symbols, masks = random_sample(cells=180)
    quiet = x.copy()
    quiet[:, 3] = 0
    quiet[np.flatnonzero(masks["b"])[:20], 3] = 1  # counted in the sample, below the floor in its sender
    pairs = [PAIR, lr.Pair("C", "positive_control", "LIG", ("REC1",), "a", "b"),
             *[lr.Pair(f"N{i}", arm, "DECOY", ("REC1",), "a", "b") for i, arm in enumerate(("return", "niche", "decoy"))]]  # fmt: skip
    table = ct.score_axes(sample_of(quiet, symbols, masks), pairs, OPTIONS, 0)
    assert table["status"].tolist() == ["tested", "tested", *["ligand_not_detected"] * 3]
    assert table.loc[0, "q"] == pytest.approx(3 * table.loc[0, "p"])  # three claims: forward, return, niche
    assert table.loc[1, "q"] == pytest.approx(table.loc[1, "p"])  # controls apart
    assert table.loc[2:, "q"].isna().all()


def test_a_node_or_metastasis_takes_no_part_in_the_cohort(tmp_path):
    paths = [build(tmp_path / s, sample=s, seed=i, tissue=tissue) for i, (s, tissue) in enumerate(
        [("p1", "tumour"), ("p2", None), ("m1", "metastasis"), ("l1", "lymph_node")])]  # fmt: skip
    records = [p.parent / "ingest.json" for p in paths]
    axes.run_axes(paths, records, tmp_path / "axes.tsv", options=OPTIONS, alpha=0.05)
    table = io.read_table(tmp_path / "axes.tsv")
    assert set(table["n_patients"]) == {2}
    assert (
        table["reason"].str.contains("2 more without a primary tumour sample (not_primary_tumour)", regex=False).all()
    )
    axes.run_axes(paths[2:], records[2:], tmp_path / "axes.tsv", options=OPTIONS, alpha=0.05)
    assert io.read_table(tmp_path / "axes.tsv").empty


def test_log2_effect_follows_composition_and_strength_does_not():
    rng = np.random.default_rng(0)
    pair = lr.Pair("X", "forward", "L", ("R",), "a", "b")
    effect, strength = [], []
    for sizes in ((20, 300, 680), (400, 400, 200)):
        kind = np.repeat(np.arange(3), sizes)
        mean = np.full((len(kind), 62), 0.5)
        mean[:, :2] = 0.02
        mean[kind == 0, 0] = mean[kind == 1, 1] = 3.0
        x = rng.poisson(mean).astype(float)
        masks = {"a": kind == 0, "b": kind == 1, "platelet": np.zeros(len(kind), bool)}
        row = ct.score_axes(
            sample_of(x, ["L", "R", *[f"B{i:02d}" for i in range(60)]], masks), [pair], OPTIONS, 0
        ).iloc[0]
        effect.append(row["log2_effect"])
        strength.append(np.log2(row["strength"]))
    assert abs(strength[0] - strength[1]) < 0.15 and abs(effect[0] - effect[1]) > 0.3  # why strength is pooled


def test_run_keeps_every_row(tmp_path):
    table = io.read_table(build(tmp_path))
    asked = lr.pairs_of_axes(genes.axes())
    assert len(table) == len(asked)
    il6 = table[
        (table["axis"] == "IL6_classic") & (table["sender"] == "icaf") & (table["receiver"] == "malignant")
    ].iloc[0]
    assert il6["status"] == "tested" and il6["p"] < 0.05
    assert set(table.loc[table["axis"].str.startswith("DECOY"), "status"]) == {"ligand_not_detected"}
    assert not (table.loc[table["axis"] == "PPBP", "status"] == "tested").any()
    absent = table[(table["sender"] == "endothelial") | (table["receiver"] == "endothelial")]
    unseen = absent["reason"].str.contains("in none of the")
    assert (absent.loc[~unseen, "status"] == "too_few_cells").all() and (~unseen).any()
    assert set(absent.loc[unseen, "status"]) <= {"ligand_not_detected", "receptor_not_detected"}
    ppbp = table[(table["axis"] == "PPBP") & (table["sender"] == "platelet")].iloc[0]  # no count, no sender either
    assert ppbp["status"] == "ligand_not_detected" and "at most" in ppbp["reason"]
    assert io.read_status(tmp_path / "crosstalk.parquet").summary["n_malignant"] == 80


def test_run_without_counts_keeps_every_row_and_says_so(tmp_path):
    table = io.read_table(build(tmp_path, is_counts=False))
    assert len(table) == len(lr.pairs_of_axes(genes.axes())) and set(table["status"]) == {"no_counts"}
    assert io.read_status(tmp_path / "crosstalk.parquet").status == "no_counts"


def test_run_without_malignant_cells_and_with_missing_gene(tmp_path):
    table = io.read_table(build(tmp_path, malignant=False, drop=("CXCR1",), n=90))
    cxcl8 = table[table["axis"] == "CXCL8"]
    assert set(cxcl8.loc[cxcl8["receptor"] == "CXCR1", "status"]) == {"gene_absent_from_reference"}
    assert (table.loc[table["receiver"] == "malignant", "status"] != "tested").all()


def test_run_on_failed_sample(tmp_path):
    table = io.read_table(build(tmp_path, status="unreadable", reason="truncated"))
    assert table.empty and io.read_status(tmp_path / "crosstalk.parquet").status == "unreadable"
