"""Matched decoys: the facts they rest on, what stands in, calibration, and what the cohort table says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import binomtest

from benchmarks.validation.crosstalk_tumours import demo_sample
from nicheloop import crosstalk as ct
from nicheloop import decoys, genes, io, simulate
from nicheloop import ligand_receptor as lr
from nicheloop.config_niche import Crosstalk
from nicheloop.roles import roles
from small_tumour import build, inputs

OPTIONS = Crosstalk(n_permutations=99, n_matched_pairs=199, n_decoys=120, min_decoys=60)
AXIS_GENES = frozenset(g for p in lr.pairs_of_axes(genes.axes()) for g in p.genes)


def tumour(seed=0, *, shares=(0.5, 0.2, 0.3), cells=300, background=250, n_roles=110):
    """Cells of three types; every gene is concentrated in a type of its own, secreted and membrane genes most of all."""
    rng = np.random.default_rng(seed)
    facts = roles()
    known = sorted(facts.secreted - AXIS_GENES)[:n_roles] + sorted(facts.membrane - AXIS_GENES)[:n_roles]
    symbols = np.array(
        sorted([*known, "IL6", "IL6R", "IL6ST", *[f"B{i:03d}" for i in range(background)]]), dtype=object
    )
    kind = rng.choice(3, cells, p=shares)
    special = np.isin(symbols, known)
    spread = np.where(special, 1.6, 0.4)
    fold = np.exp(rng.normal(size=(3, len(symbols))) * spread)
    mean = np.exp(rng.normal(-1.5, 1.0, len(symbols)))
    x = rng.poisson(rng.lognormal(0, 0.4, cells)[:, None] * mean * fold[kind]).astype(float)
    names = ("malignant", "caf", "macrophage", "platelet")
    masks = np.column_stack([kind == 0, kind == 1, kind == 2, np.zeros(cells, bool)])
    return lr.Sample(
        sparse.csr_matrix(x), x.sum(axis=1), symbols, names, masks, np.zeros(len(symbols)), np.nan, frozenset()
    )


def test_combinations_with_a_recorded_interaction_are_found():
    sample, facts = tumour(), roles()
    pools = decoys.Pools.of(sample, facts, AXIS_GENES)
    here = np.array([i for i, g in enumerate(sample.genes) if g in pools.seen.column])
    ligands, receptors = (side.ravel() for side in np.meshgrid(here, here))
    expected = [not facts.recorded(sample.genes[a], sample.genes[b]) for a, b in zip(ligands, receptors, strict=True)]
    assert pools.unrecorded(ligands, receptors).tolist() == expected
    assert not all(expected)
    alone = decoys.Pools.of(sample, dataclasses.replace(facts, partners={}), AXIS_GENES)
    assert alone.unrecorded(ligands, receptors).all()


def like(sample):
    """Questions as the axes ask them: any gene of the sample between any two types."""
    rng = np.random.default_rng(1)
    usual = [g for g in sample.genes if g.startswith("B")]
    return [
        lr.Pair("X", "forward", str(rng.choice(usual)), (str(rng.choice(usual)),), a, b)
        for a in ("caf", "macrophage")
        for b in ("malignant", "caf")
        for _ in range(5)
    ]


def test_the_facts_hold_known_proteins():
    facts = roles()
    assert {"IL6", "CXCL8", "CCL2", "SPP1", "VEGFA", "PPBP"} <= facts.secreted
    assert {"CXCR2", "CCR2", "CD44", "NOTCH4", "TGFBR2"} <= facts.membrane
    assert not facts.secreted & facts.membrane
    assert len(facts.secreted) >= 400 and len(facts.membrane) >= 600
    assert facts.recorded("IL6", "IL6ST") and facts.recorded("IL6ST", "IL6") and facts.recorded("VEGFA", "KDR")
    assert not facts.recorded("IL6", "KDR")
    for axis in genes.axes():  # every axis of this package is a recorded interaction too
        assert all(facts.recorded(a, g) for a in axis.ligands for r in axis.receptors for g in r), axis.id
    assert {g for g in facts.partners if genes.resolve(g) not in (g, None)} == set()  # symbols are current


def test_decoys_are_what_they_are_called():
    sample = tumour()
    pools = decoys.Pools.of(sample, roles(), AXIS_GENES)
    chosen = decoys.choose_decoys(pools, like(sample), OPTIONS, 0)
    assert len(chosen) == OPTIONS.n_decoys == len(set(chosen))
    facts = roles()
    for pair in chosen:
        assert pair.ligand in facts.secreted and pair.receptor[0] in facts.membrane
        assert not facts.recorded(pair.ligand, pair.receptor[0])
        assert not AXIS_GENES & set(pair.genes)
        assert pools.seen.detected(pair.sender, pair.ligand, OPTIONS)
        assert pools.seen.detected(pair.receiver, pair.receptor[0], OPTIONS)
    assert chosen == decoys.choose_decoys(pools, like(sample), OPTIONS, 0)
    assert decoys.choose_decoys(pools, [], OPTIONS, 0) == []
    table = ct.score_axes(sample, chosen, OPTIONS, 0, reserved=AXIS_GENES)
    assert (table["status"] == "tested").all()  # really tested


def test_decoys_are_significant_no_more_often_than_the_level_where_usual_nulls_are_fooled():
    """Null: sender and receiver concentrate the pair no more than other secreted and membrane genes seen in them."""
    usual = strict = n = 0
    for seed in range(4):
        sample = tumour(seed)
        pools = decoys.Pools.of(sample, roles(), AXIS_GENES)
        chosen = decoys.choose_decoys(pools, like(sample), OPTIONS, seed)
        table = ct.score_axes(sample, chosen, OPTIONS, seed, reserved=AXIS_GENES)
        n += len(table)
        strict += int((table["p"] <= 0.05).sum())
        usual += int((np.maximum(table["p_label"], table["p_pair"]) <= 0.05).sum())
    assert n >= 400
    # decoys of a sample share genes: a quarter of them is taken as independent
    assert binomtest(strict // 4, n // 4, 0.05, alternative="greater").pvalue > 0.01, (strict, n)
    assert binomtest(usual, n, 0.05, alternative="greater").pvalue < 1e-6, (usual, n)


def test_a_pair_more_concentrated_than_all_others_beats_the_decoys():
    sample = tumour(3)
    x = sample.x.toarray()
    facts, names = roles(), list(sample.genes)
    pools = decoys.Pools.of(sample, facts, AXIS_GENES)
    pair = next(
        p
        for p in decoys.choose_decoys(pools, like(sample), OPTIONS, 0)
        if p.sender == "caf" and p.receiver == "malignant"
    )
    caf, malignant = sample.masks[:, 1], sample.masks[:, 0]
    rng = np.random.default_rng(0)
    for gene, where in ((pair.ligand, caf), (pair.receptor[0], malignant)):
        column = names.index(gene)
        x[:, column] = 0
        x[where, column] = rng.poisson(6, where.sum())
    planted = lr.Sample(
        sparse.csr_matrix(x),
        x.sum(axis=1),
        sample.genes,
        sample.names,
        sample.masks,
        sample.ambient,
        np.nan,
        frozenset(),
    )
    row = ct.score_axes(planted, [pair], OPTIONS, 0, reserved=AXIS_GENES).iloc[0]
    assert row["p_decoy"] <= 0.05 and row["p"] == max(row["p_label"], row["p_pair"], row["p_decoy"])


def test_without_stand_ins_the_answer_is_no_comparison():
    few = tumour(n_roles=3)  # a panel without secreted and membrane genes: the two other nulls stand alone
    pools = decoys.Pools.of(few, roles(), AXIS_GENES)
    usual = sorted((g for g in few.genes if g.startswith("B")), key=lambda g: -few.x[:, few.gene_index[g]].sum())
    pair = lr.Pair("X", "forward", usual[0], (usual[1],), "caf", "malignant")
    assert np.isnan(decoys.decoy_p(pools, [pair], OPTIONS, 0)[0]).all()
    row = ct.score_axes(few, [pair], OPTIONS, 0, reserved=AXIS_GENES).iloc[0]
    assert row["p"] == max(row["p_label"], row["p_pair"]) and np.isnan(row["p_decoy"])
    many = tumour()  # the genes are there, but too few of them can be measured in so few cells
    dim = lr.Sample(many.x, many.totals, many.genes, many.names, many.masks & (np.arange(300) < 30)[:, None], many.ambient,
                    np.nan, frozenset())  # fmt: skip
    strict = OPTIONS.model_copy(update={"min_stand_ins": 100})
    p, words = decoys.decoy_p(decoys.Pools.of(dim, roles(), AXIS_GENES), [pair], strict, 0)
    assert p.tolist() == [1.0] and f"nothing to compare {pair.ligand} with" in words[0]


def test_a_rare_ligand_is_compared_with_genes_of_other_abundance_and_the_row_says_so():
    """No other secreted gene is so rare and so concentrated: that must not read as no evidence at all."""
    sample = tumour(3)
    facts, lookup = roles(), sample.gene_index
    pools = decoys.Pools.of(sample, facts, AXIS_GENES)
    pair = next(
        p
        for p in decoys.choose_decoys(pools, like(sample), OPTIONS, 0)
        if p.sender == "caf" and p.receiver == "malignant"
    )
    x, rng = sample.x.toarray(), np.random.default_rng(0)
    caf, malignant = np.flatnonzero(sample.masks[:, 1]), np.flatnonzero(sample.masks[:, 0])
    x[:, [lookup[g] for g in pair.genes]] = 0
    x[rng.choice(caf, 11, replace=False), lookup[pair.ligand]] = 1  # just above the floor, and nowhere else
    x[malignant, lookup[pair.receptor[0]]] = rng.poisson(6, len(malignant))
    rare = lr.Sample(sparse.csr_matrix(x), x.sum(axis=1), sample.genes, sample.names, sample.masks, sample.ambient,
                     np.nan, frozenset())  # fmt: skip
    strict = OPTIONS.model_copy(update={"min_stand_ins": 30})  # more than are as concentrated
    claim = ct.score_axes(rare, [pair], strict, 0, reserved=AXIS_GENES).iloc[0]  # a claim is never compared so easily
    assert claim["p"] == 1 and f"nothing to compare {pair.ligand} with" in claim["reason"]
    pair = dataclasses.replace(pair, arm="positive_control")
    row = ct.score_axes(rare, [pair], strict, 0, reserved=AXIS_GENES).iloc[0]
    assert row["status"] == "tested" and row["p_decoy"] <= 0.05
    assert f"{pair.ligand} compared with secreted genes of any abundance" in row["reason"]
    n = decoys.Pools.of(rare, facts, AXIS_GENES).measurable("secreted", "caf", OPTIONS).size
    narrow = OPTIONS.model_copy(update={"min_stand_ins": n})  # itself does not count: one too few
    wide = ct.score_axes(rare, [pair], narrow, 0, reserved=AXIS_GENES).iloc[0]
    assert f"{pair.ligand} compared with secreted and membrane genes of any abundance" in wide["reason"]
    # only genes of the two classes ever stand in: others are less specific, and everything would be significant
    found, _ = decoys.Pools.of(rare, facts, AXIS_GENES).stand_ins(pair.ligand, "ligand", "caf", narrow)
    assert {str(rare.genes[i]) for i in found} <= (facts.secreted | facts.membrane) - {pair.ligand}


def test_all_positive_controls_are_positive_in_a_tumour_with_the_rates_of_real_cells():
    axes = {a.id: a for a in genes.axes()}
    controls = [*(a for i, a in axes.items() if i.startswith("CTRL_") and a.arm == "positive_control"), axes["VEGFA"]]
    few = Crosstalk(n_permutations=99, n_matched_pairs=199)
    plan = next(p for p in simulate.PLANS if p.sample == "demo_her2_1")
    table = ct.score_axes(demo_sample(plan, 1), lr.pairs_of_axes(controls), few, 1, reserved=AXIS_GENES)
    best = table.groupby("axis")["p"].min()
    assert len(best) == 5 and (best <= 0.05).all(), best


def test_p_against_decoys_does_not_depend_on_the_order_of_cells_or_on_the_other_pairs():
    sample = tumour(5)
    pools = decoys.Pools.of(sample, roles(), AXIS_GENES)
    chosen = decoys.choose_decoys(pools, like(sample), OPTIONS, 0)[:20]
    p, _ = decoys.decoy_p(pools, chosen, OPTIONS, 7)
    order = np.random.default_rng(0).permutation(sample.x.shape[0])
    moved = lr.Sample(sample.x[order], sample.totals[order], sample.genes, sample.names, sample.masks[order], sample.ambient,
                      np.nan, frozenset())  # fmt: skip
    again, _ = decoys.decoy_p(decoys.Pools.of(moved, roles(), AXIS_GENES), chosen, OPTIONS, 7)
    np.testing.assert_array_equal(p, again)
    np.testing.assert_array_equal(p[3:5], decoys.decoy_p(pools, chosen[3:5], OPTIONS, 7)[0])


def rows(n, k, usual=None):
    p = np.where(np.arange(n) < k, 0.01, 0.5)
    return pd.DataFrame({"p": p, "p_usual": np.where(np.arange(n) < (k if usual is None else usual), 0.01, 0.5)})


def test_cohort_table_of_decoys():
    table = decoys.summarise_decoys(
        [("a", "s1", "ok", "", rows(300, 15, 120)), ("b", "s2", "ok", "", rows(300, 15, 100)),
         ("c", "s3", "too_few_decoys", "12 pairs", rows(12, 0)), ("d", "s4", "no_counts", "TPM", rows(0, 0))],
        alpha=0.05, confidence=0.95, min_decoys=200,
    ).set_index("patient")  # fmt: skip
    assert table.loc["a", "fraction"] == 0.05 and table.loc["a", "fraction_usual"] == 0.4
    assert table.loc["a", "fraction_low"] < 0.05 < table.loc["a", "fraction_high"]
    assert table.loc["a", "verdict"] == "no more than the level"
    assert table.loc["c", "status"] == "too_few_decoys" and np.isnan(table.loc["c", "fraction"])
    assert table.loc["d", "status"] == "no_counts" and table.loc["d", "verdict"] == "not assessable"
    total = table.loc["cohort"]
    assert total["n_tested"] == 600 and total["n_significant"] == 30 and "2 of 4 patients" in total["reason"]
    uneven = decoys.summarise_decoys(
        [("a", "s1", "ok", "", rows(300, 3)), ("b", "s2", "ok", "", rows(300, 60))],
        alpha=0.05, confidence=0.95, min_decoys=200,
    ).set_index("patient")  # fmt: skip
    assert uneven.loc["b", "verdict"].startswith("more than the level")
    width = uneven.loc["cohort", "fraction_high"] - uneven.loc["cohort", "fraction_low"]
    even = decoys.summarise_decoys(
        [("a", "s1", "ok", "", rows(300, 31)), ("b", "s2", "ok", "", rows(300, 32))],
        alpha=0.05, confidence=0.95, min_decoys=200,
    ).set_index("patient")  # fmt: skip
    assert width > 2 * (even.loc["cohort", "fraction_high"] - even.loc["cohort", "fraction_low"])


@pytest.mark.parametrize(("kwargs", "status"), [({}, "too_few_decoys"), ({"is_counts": False}, "no_counts"),
                                                ({"status": "unreadable", "reason": "x"}, "unreadable")])  # fmt: skip
def test_a_sample_without_decoys_says_why(tmp_path, kwargs, status):
    build(tmp_path, run=False, **kwargs)
    options = OPTIONS.model_copy(update={"n_decoys": 2000, "min_decoys": 2000})  # more than it has
    ct.run_crosstalk(
        *inputs(tmp_path),
        tmp_path / "crosstalk.parquet",
        options=options,
        seed=3,
        out_decoys=tmp_path / "decoys.parquet",
    )
    found = io.read_status(tmp_path / "decoys.parquet")
    table = io.read_table(tmp_path / "decoys.parquet")
    assert found.status == status and found.reason and len(table) == (found.summary.get("n_decoys") or 0) < 2000
