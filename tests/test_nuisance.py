"""What is no signal must not become one: depth, ambient RNA, platelets and doublets.  Exact binomial tests."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from nicheloop import crosstalk as ct
from nicheloop import ligand_receptor as lr
from nicheloop.config_niche import Crosstalk
from test_crosstalk import sample_of

OPTIONS = Crosstalk(n_permutations=99, n_matched_pairs=99)
SYMBOLS = [*[f"L{i}" for i in range(6)], *[f"R{i}" for i in range(6)], *[f"B{i:03d}" for i in range(120)]]


def claimed(sample, pairs, seed, options=OPTIONS):
    table = ct.score_axes(sample, pairs, options, seed)
    return int((table["p"] <= 0.05).sum())


@pytest.mark.parametrize("ratio", [1.0, 6.0])
def test_unequal_depth_between_types_is_no_signal(ratio):
    """Null: every cell draws its counts from one composition; types differ in library size only."""
    rng = np.random.default_rng(20 + int(ratio))
    pairs = [lr.Pair("X", "forward", f"L{i}", (f"R{i}",), "a", "b") for i in range(6)]
    hits = n = 0
    for rep in range(60):
        kind = np.repeat([0, 1, 2], [50, 60, 70])
        depth = rng.lognormal(0, 0.4, 180) * np.where(kind == 1, ratio, 1.0)
        mean = np.concatenate([np.full(12, 0.5), rng.gamma(1, 0.6, 120)])
        x = rng.poisson(depth[:, None] * mean * rng.gamma(2, 0.5, (180, len(mean)))).astype(float)
        masks = {"a": kind == 0, "b": kind == 1, "c": kind == 2, "platelet": np.zeros(180, bool)}
        hits += claimed(sample_of(x, SYMBOLS, masks), pairs, rep)
        n += len(pairs)
    assert binomtest(hits, n, 0.05, alternative="greater").pvalue > 0.01, (hits, n)


def with_ambient(rng, *, kind, own, rate, platelet=None):
    """Counts of cells that make `own` (cells, genes) rates, with a share `rate` from the pool of all of them."""
    made = rng.poisson(own).astype(float)
    pool = made.sum(axis=0) / made.sum()
    soup = rng.poisson(rate / (1 - rate) * made.sum(axis=1)[:, None] * pool)
    return made + soup, pool


def test_ambient_il6_is_no_autocrine_il6():
    """Null: fibroblasts make the ligand, malignant cells carry it from the soup; their receptor is real."""
    rng = np.random.default_rng(31)
    pair = lr.Pair("IL6_autocrine", "autocrine", "L0", ("R0",), "malignant", "malignant")
    hits = n = 0
    for rep in range(120):
        kind = np.repeat([0, 1, 2], [150, 60, 60])
        own = np.tile(np.concatenate([np.zeros(6), np.full(6, 0.02), rng.gamma(1, 0.6, 120)]), (270, 1))
        own[kind == 1, 0], own[kind == 0, 6] = 12.0, 1.5
        x, pool = with_ambient(rng, kind=kind, own=own, rate=0.08)
        masks = {"malignant": kind == 0, "caf": kind == 1, "other": kind == 2, "platelet": np.zeros(270, bool)}
        assert x[kind == 0, 0].sum() >= 10  # it is there, and it is soup
        hits += claimed(sample_of(x, SYMBOLS, masks, ambient=pool, rate=0.08), [pair], rep)
        n += 1
    assert binomtest(hits, n, 0.05, alternative="greater").pvalue > 0.01, (hits, n)


def test_platelet_debris_is_no_ppbp_of_the_tumour():
    """Null: PPBP sits in platelet barcodes and in their debris on other cells."""
    rng = np.random.default_rng(41)
    symbols = ["PPBP", *SYMBOLS]
    for rep in range(25):
        kind = np.repeat([0, 1, 2, 3], [120, 60, 60, 10])
        own = np.tile(np.concatenate([[0.0], np.full(12, 0.5), rng.gamma(1, 0.6, 120)]), (250, 1))
        own[kind == 3, 0] = 60.0
        x, pool = with_ambient(rng, kind=kind, own=own, rate=0.05)
        masks = {"malignant": kind == 0, "icaf": kind == 1, "neutrophil": kind == 2, "platelet": kind == 3}
        sample = sample_of(x, symbols, masks, ambient=pool, rate=0.05, platelet_genes=["PPBP"])
        pairs = [lr.Pair("PPBP", "forward", "PPBP", ("R0",), s, "malignant") for s in ("icaf", "platelet")]
        table = ct.score_axes(sample, pairs, OPTIONS, rep)
        assert set(table["status"]) == {"platelet_contamination"} and (table["n_platelet"] == 10).all()
        assert table["reason"].str.contains("10 platelet barcodes").all()


def test_doublets_of_sender_and_receiver_are_no_receiver():
    """Null: only fibroblasts make ligand and receptor; three in a hundred malignant barcodes hold a fibroblast as well."""
    rng = np.random.default_rng(51)
    pair = lr.Pair("X", "forward", "L0", ("R0",), "caf", "malignant")
    blind = OPTIONS.model_copy(update={"abundant_fraction": 1.0})
    hits = n = without = 0
    for rep in range(60):
        kind = np.repeat([0, 1, 2], [300, 22, 128])
        own = np.tile(np.concatenate([np.zeros(12), rng.gamma(1, 0.6, 120)]), (450, 1))
        own[kind == 1, 0], own[kind == 1, 6] = 8.0, 4.0
        x = rng.poisson(own).astype(float)
        x[:9] += rng.poisson(own[kind == 1][:9])
        masks = {"malignant": kind == 0, "caf": kind == 1, "other": kind == 2, "platelet": np.zeros(450, bool)}
        sample = sample_of(x, SYMBOLS, masks)
        hits += claimed(sample, [pair], rep)
        without += claimed(sample, [pair], rep, blind)
        n += 1
    assert binomtest(hits, n, 0.05, alternative="greater").pvalue > 0.01, (hits, n)
    # the floor for abundant genes is what keeps them out
    assert binomtest(without, n, 0.05, alternative="greater").pvalue < 0.001, (without, n)
