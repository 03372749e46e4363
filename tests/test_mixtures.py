"""Barcodes that hold RNA of a cell of another type: doublets are found, ambient RNA alone is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import poisson

from nicheloop import mixtures, score
from nicheloop.config_states import Scoring

FOUND = {"leave_out": ("myeloid",), "min_cells": 20, "fold": 5.0, "alpha": 0.001}
CUT = 0.15


def two_kinds(seed: int = 0, kind: str = "myeloid"):
    """200 cells of one kind with 7 % ambient RNA, 20 doublets with the other; names, counts, profiles."""
    rng = np.random.default_rng(seed)
    names = [*[f"M{i}" for i in range(200)], *[f"T{i}" for i in range(200)]]
    own, theirs = np.r_[np.full(200, 1.0), np.full(200, 0.05)], np.r_[np.full(200, 0.01), np.full(200, 1.0)]
    own = 0.93 * own + 0.07 * theirs
    clean, doublets = rng.poisson(own * 5, (200, 400)), rng.poisson((own + theirs) * 2.5, (20, 400))
    x = sparse.csr_matrix(np.vstack([clean, doublets]).astype(np.float32))
    profiles = pd.concat([
        pd.DataFrame({"gene": names, "cell_type": k, "n_cells": n, "sum_counts": counts.sum(axis=0).astype(float)})
        for k, n, counts in ((kind, 220, x.toarray()), ("t_nk", 50, rng.poisson(theirs * 5, (50, 400))))
    ])  # fmt: skip
    return names, x, profiles


def own_share(x: sparse.csr_matrix) -> np.ndarray:
    sums = np.asarray(x.sum(axis=0), dtype=float).ravel()
    return sums / sums.sum()


def test_doublets_are_found_and_ambient_rna_alone_is_not() -> None:
    names, x, profiles = two_kinds()
    share = mixtures.foreign_share(x, names, own_share(x), profiles, spared=set(), **FOUND)
    assert (share[200:] >= CUT).mean() > 0.9
    assert (share[:200] >= CUT).sum() == 0
    few = profiles.assign(n_cells=5)
    assert not mixtures.foreign_share(x, names, own_share(x), few, spared=set(), **FOUND).any()


def test_share_is_the_largest_over_types_taken_one_by_one_from_the_definition() -> None:
    names, x, profiles = two_kinds(5)
    more = pd.DataFrame({"gene": [*names[150:250], "not in the matrix"], "cell_type": "caf", "n_cells": 40,
                         "sum_counts": np.r_[np.arange(100.0), 50.0]})  # fmt: skip
    empty = more.assign(cell_type="pvl", sum_counts=0.0)
    profiles = pd.concat([profiles, more, empty]).sample(frac=1.0, random_state=0)
    spared = set(names[:230:7])
    own, dense = own_share(x), x.toarray().astype(float)
    expected = np.zeros(len(dense))
    for kind in ("t_nk", "caf"):
        mine = profiles[profiles["cell_type"] == kind].set_index("gene")["sum_counts"]
        theirs = mine.reindex(names).fillna(0.0).to_numpy() / mine.sum()
        use = np.array([n not in spared for n in names]) & (theirs > 0) & (theirs >= FOUND["fold"] * own)
        counts, niche, tumour = dense[:, use].sum(axis=1), theirs[use].sum(), own[use].sum()
        library = dense.sum(axis=1)
        p = poisson.sf(counts - 1, library * tumour)
        share = np.clip((counts / library - tumour) / (niche - tumour), 0, 1)
        expected = np.maximum(expected, np.where((counts > 0) & (p < FOUND["alpha"]), share, 0.0))
    found = mixtures.foreign_share(x, names, own, profiles, spared=spared, **FOUND)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert 0 < (found > 0).sum() < len(found)


def test_genes_that_are_asked_for_leave_no_cell_out() -> None:
    names, x, profiles = two_kinds(1)
    spared = {n for n in names if n.startswith("T")}
    assert not mixtures.foreign_share(x, names, own_share(x), profiles, spared=spared, **FOUND).any()
    assert {"CD44", "CD24", "ALDH1A3", "CXCR4", "MKI67"} <= score.spared_genes()


def test_malignant_doublets_take_no_part_in_what_is_said_of_malignant_cells() -> None:
    names, x, profiles = two_kinds(2, kind="epithelial")
    compartment = np.array(["malignant"] * 210 + ["epithelial"] * 10, dtype=object)
    share = score.foreign_shares(x, names, compartment, profiles, Scoring())
    assert np.isnan(share[210:]).all()  # not asked of cells that are not malignant
    assert (share[:200] < Scoring().foreign_share).all()
    assert (share[200:210] >= Scoring().foreign_share).mean() > 0.8
    none = score.foreign_shares(x, names, compartment, profiles.iloc[:0], Scoring())
    assert (none[:210] == 0).all()  # a sample without profiles has no source


def test_a_tumour_that_is_mesenchymal_as_a_whole_keeps_its_cells() -> None:
    names, x, profiles = two_kinds(3, kind="epithelial")
    rng = np.random.default_rng(4)
    theirs = np.r_[np.full(200, 1.0), np.full(200, 0.4)]  # all its cells make the other type's genes
    x = sparse.csr_matrix(rng.poisson(theirs * 4, (200, 400)).astype(np.float32))
    share = score.foreign_shares(x, names, np.array(["malignant"] * 200, dtype=object), profiles, Scoring())
    assert (share >= Scoring().foreign_share).sum() == 0
