"""The loop of one sample: response contrast, arms, levels, circularity."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import sparse
from scipy.stats import binomtest

from nicheloop import attenuation, genes, io, loop, loop_cohort, mixtures
from nicheloop import ligand_receptor as lr
from nicheloop.config_niche import Loop
from small_tumour import FEW, run_loop

OPTIONS = Loop(n_bootstrap=60, n_swaps=499)
DRAW = {"n_permutations": 199, "n_bootstrap": 60, "confidence": 0.95}


def test_stratified_difference_is_the_coefficient_of_a_regression_with_strata():
    rng = np.random.default_rng(0)
    strata, label = rng.integers(0, 4, 200), rng.random(200) < 0.3
    y = strata + 0.5 * label + rng.normal(size=200)
    got = loop.stratified_difference(y, label, strata, **DRAW, seed=0)
    fit = sm.OLS(y, np.column_stack([label, pd.get_dummies(strata)]).astype(float)).fit()
    assert got.effect == pytest.approx(fit.params[0])
    assert got.low < got.effect < got.high
    assert (got.high - got.low) / (2 * 1.96) == pytest.approx(fit.bse[0], rel=0.4)
    assert got.z == pytest.approx(fit.tvalues[0], rel=0.25)


def test_strata_alone_are_no_effect_and_p_is_super_uniform():
    rng = np.random.default_rng(1)
    p = []
    for seed in range(300):
        strata = rng.integers(0, 3, 60)
        label = rng.random(60) < (strata + 1) / 5  # label and read-out both follow the stratum, and nothing else
        got = loop.stratified_difference(
            5.0 * strata + rng.normal(size=60),
            label,
            strata,
            n_permutations=99,
            n_bootstrap=2,
            confidence=0.95,
            seed=seed,
        )
        p.append(got.p)
    for level in (0.05, 0.2):
        k = int((np.array(p) <= level).sum())
        assert binomtest(k, len(p), level).pvalue > 0.001, (level, k)


def test_no_common_stratum():
    assert (
        loop.stratified_difference(np.ones(4), np.array([1, 1, 0, 0], bool), np.array([0, 0, 1, 1]), **DRAW, seed=0)
        is None
    )


def tumour(n_high=60, n_low=90, shift=1.0, stress=0.0, seed=0):
    rng = np.random.default_rng(seed)
    high = np.arange(n_high + n_low) < n_high
    s = rng.normal(size=len(high)) + stress * high
    return pd.DataFrame({
        "csc_state": np.where(high, "m_csc", "other"), "clone": 1.0, "n_counts": rng.lognormal(9, 0.4, len(high)),
        "z_STAT3_core": s * (stress > 0) + shift * high + rng.normal(size=len(high)), "z_STRESS": s, "z_IFN": rng.normal(size=len(high)),
    })  # fmt: skip


def arm_b(cells, readout="STAT3_core"):
    return loop.response_arm(cells, readout, OPTIONS, 199, 0)


def test_response_arm():
    found = arm_b(tumour())
    assert found["status"] == "tested" and found["p"] == pytest.approx(1 / 200) and found["effect"] > 0.5
    null = arm_b(tumour(shift=0.0, seed=3))
    assert null["p"] > 0.05
    assert "a response that follows stress as a whole cannot be told from it" in found["reason"]  # the test's limit


def test_response_that_is_only_stress_does_not_pass():
    found = arm_b(tumour(shift=0.0, stress=1.5, seed=1))
    assert found["effect"] > 0.8 and abs(found["effect_adjusted"]) < 0.5 and found["p"] > 0.05


@pytest.mark.parametrize(
    ("cells", "readout", "status"),
    [
        (tumour(10, 20), "STAT3_core", "too_few_malignant"),
        (tumour(10, 90), "STAT3_core", "too_few_csc"),
        (tumour().assign(csc_state="not_assessable"), "STAT3_core", "csc_not_assessable"),
        (tumour().assign(csc_state=None), "STAT3_core", "csc_not_assessable"),
        (tumour().assign(z_STAT3_core=np.nan), "STAT3_core", "readout_not_measurable"),
        (tumour().drop(columns="z_STAT3_core"), "STAT3_core", "readout_not_measurable"),
        (tumour(), None, "no_readout"),
    ],
)
def test_response_arm_obstacles(cells, readout, status):
    found = arm_b(cells, readout)
    assert found["status"] == status and found["reason"] and "p" not in found


def with_doublets(rng, n_doublets, readout=3.0, cells=300):
    """Null of arm B: label and read-out are unrelated; doublets with fibroblasts, which have more of the read-out, are
    nearly all called CSC-high."""
    names = [*loop.readouts()["STAT3_core"], *[f"C{i:02d}" for i in range(30)], *[f"B{i:03d}" for i in range(150)]]
    names = np.array(sorted(names), dtype=object)
    kind = np.repeat([0, 1, 2], [cells, 60, 60])  # malignant, fibroblasts, macrophages
    rate = np.tile(rng.gamma(1.0, 0.6, len(names)), (len(kind), 1))
    is_readout = np.isin(names, loop.readouts()["STAT3_core"])
    is_caf = np.array([g.startswith("C") for g in names])
    rate[:, is_caf] = np.where(kind == 1, 2.0, 0.02)[:, None]
    rate[:, is_readout] = np.where(kind == 1, readout, 0.8)[:, None]
    x = rng.poisson(rate).astype(float)
    x[:n_doublets] = rng.poisson((rate[:n_doublets] + rate[kind == 1][:n_doublets]) / 2)  # as deep as any other cell
    masks = {"malignant": kind == 0, "csc_high": np.zeros(len(kind), bool), "caf": kind == 1, "macrophage": kind == 2,
             "monocyte": np.zeros(len(kind), bool), "platelet": np.zeros(len(kind), bool)}  # fmt: skip
    sample = lr.Sample(sparse.csr_matrix(x), x.sum(axis=1), names, tuple(masks), np.column_stack(list(masks.values())),
                       np.zeros(len(names)), np.nan, frozenset())  # fmt: skip
    high = rng.random(len(kind)) < np.where(np.arange(len(kind)) < n_doublets, 0.9, 0.3)
    cells = pd.DataFrame({"csc_state": np.where(kind == 0, np.where(high, "m_csc", "other"), "not_assessable"), "clone": 1.0,
                          "n_counts": sample.totals, **loop.score_readouts(sample, None)})  # fmt: skip
    return sample, cells


def test_doublets_with_a_niche_cell_are_no_response():
    hits = blind = n = 0
    few = FEW.model_copy(update={"n_permutations": 99})
    for seed in range(24):
        sample, cells = with_doublets(np.random.default_rng([7, seed]), 21, readout=6.0)
        table = loop.loop_arms(sample, cells, [a for a in genes.axes() if a.id == "IL6_classic"], OPTIONS, few, seed)
        row = table.set_index("arm").loc["B"]
        hits += row["p"] <= 0.05
        blind += loop.response_arm(cells[:300], "STAT3_core", OPTIONS, 99, seed)["p"] <= 0.05
        n += 1
    assert binomtest(int(hits), n, 0.05, alternative="greater").pvalue > 0.01, (hits, n)
    # leaving them out is what keeps the level
    assert binomtest(int(blind), n, 0.05, alternative="greater").pvalue < 0.001, (blind, n)


def test_mixed_cells_are_the_doublets_and_are_counted_by_state():
    sample, cells = with_doublets(np.random.default_rng(3), 12)
    mixed = mixtures.mixed_cells(sample, loop.spared_genes(), OPTIONS)
    assert mixed[:12].all() and mixed[12:].sum() <= 3 and not mixed[300:].any()
    table = loop.loop_arms(sample, cells, [a for a in genes.axes() if a.id == "IL6_classic"], OPTIONS, FEW, 0)
    n_high = int((cells["csc_state"][mixed] == "m_csc").sum())
    said = f"left out: {n_high} CSC-high and {int(mixed.sum()) - n_high} other cells that hold RNA of a niche cell"
    assert said in table.set_index("arm").at["B", "reason"]
    # a read-out is never the reason to leave a cell out, and neither is ambient RNA that all cells carry
    none, _ = with_doublets(np.random.default_rng(4), 0, readout=30.0)
    assert mixtures.mixed_cells(none, loop.spared_genes(), OPTIONS).sum() <= 3
    soup = none.x.toarray()
    soup[:, np.char.startswith(none.genes.astype(str), "C")] += np.random.default_rng(5).poisson(1.0, (420, 30))
    carried = dataclasses.replace(none, x=sparse.csr_matrix(soup), totals=soup.sum(axis=1))
    assert mixtures.mixed_cells(carried, loop.spared_genes(), OPTIONS).sum() <= 3
    empty = dataclasses.replace(none, masks=np.zeros_like(none.masks))
    assert not mixtures.mixed_cells(empty, loop.spared_genes(), OPTIONS).any()


def test_share_of_a_niche_cell_by_hand():
    counts, library = np.array([0.0, 5.0, 50.0, 200.0]), np.array([1000.0, 1000.0, 1000.0, 0.0])
    w = mixtures.niche_share(counts, library, 0.005, 0.095, alpha=0.001)
    # 5 in 1,000 is what malignant cells have; 50 are halfway between 5 and 95
    assert w.tolist() == pytest.approx([0.0, 0.0, 0.5, 0.0])


def test_the_three_numbers_are_the_regressions_they_are_called():
    """Raw, stress- and interferon-adjusted: each is least squares on the residuals of its own covariates."""
    cells = tumour(shift=0.6, stress=1.0, seed=5)
    cells["z_IFN"] += 0.8 * (cells["csc_state"] == "m_csc")
    cells["z_STAT3_core"] += 0.7 * cells["z_IFN"]
    found = arm_b(cells)
    y, high = cells["z_STAT3_core"].to_numpy(), (cells["csc_state"] == "m_csc").to_numpy()
    depth = np.log(cells["n_counts"].to_numpy())
    strata = pd.get_dummies(
        loop.strata_of(cells["clone"].to_numpy(), cells["n_counts"].to_numpy(), OPTIONS.depth_strata)
    )
    for key, names in (("effect", None), ("effect_stress", ["z_STRESS"]), ("effect_ifn", ["z_IFN"]),
                       ("effect_adjusted", ["z_STRESS", "z_IFN"])):  # fmt: skip
        value = y
        if names is not None:
            value = sm.OLS(y, sm.add_constant(np.column_stack([depth, cells[names]]))).fit().resid
        fit = sm.OLS(value, np.column_stack([high, strata]).astype(float)).fit()
        assert found[key] == pytest.approx(fit.params[0]), key
    assert found["p"] == max(found[k] for k in ("p_raw", "p_stress", "p_ifn", "p_adjusted"))


def test_the_second_label_has_its_own_arm():
    cells = tumour().assign(csc_state="not_assessable")
    high = np.arange(len(cells)) < 60  # where the response was planted
    cells["aldh1a3_state"] = np.where(high, "high", "low")
    found = loop.response_arm(cells, "STAT3_core", OPTIONS, 199, 0, "aldh1a3")
    assert found["status"] == "tested" and found["p"] < 0.02 and "ALDH1A3-high minus ALDH1A3-low" in found["what"]
    few = loop.response_arm(cells.assign(aldh1a3_state="low"), "STAT3_core", OPTIONS, 199, 0, "aldh1a3")
    assert few["status"] == "too_few_csc" and "0 ALDH1A3-high" in few["reason"]
    without = loop.response_arm(cells.drop(columns="aldh1a3_state"), "STAT3_core", OPTIONS, 199, 0, "aldh1a3")
    assert without["status"] == "aldh1a3_not_assessable"


def test_a_label_is_never_tested_against_its_own_gene(monkeypatch):
    from nicheloop import genes

    axes = genes.axes()
    pairs = [p for some in loop.forward_pairs(axes).values() for p in some]
    assert pairs and not {"CD44", "CD24", "ALDH1A3"} & {g for p in pairs for g in p.genes}
    monkeypatch.setitem(loop.READOUTS, "SPP1_CD44", None)
    monkeypatch.setitem(loop.READOUTS, "HA_CD44", None)
    found = loop.forward_pairs(axes)
    assert {g for p in found["SPP1_CD44"] for g in p.receptor} == {"ITGAV", "ITGB1", "ITGB3", "ITGB5"}  # integrins only
    assert {p.receptor for p in found["HA_CD44"]} == {("HMMR",)}


def test_arm_c_asks_every_return_axis_of_the_design():
    assert set(loop.RETURN) == {"CCL2", "CSF1", "CSF2", "CXCL1_2_3_5_6"} and loop.RETURN["CCL2"] == ("monocyte",)


def test_response_arm_without_covariates_says_so():
    found = arm_b(tumour().drop(columns=["z_IFN"]))
    assert found["status"] == "tested" and "not adjusted for IFN" in found["reason"]


def test_response_that_follows_depth_within_a_stratum_is_no_response():
    """No effect of the label; the score follows depth, and deep cells are called CSC-high more often."""
    rng = np.random.default_rng(0)
    hits = raw = 0
    n = 200
    for rep in range(n):
        depth = rng.lognormal(np.log(9000), 0.6, 300)
        label = rng.random(300) < 1 / (1 + np.exp(-2 * (np.log(depth) - np.log(9000)) + 1.5))
        cells = pd.DataFrame({"csc_state": np.where(label, "m_csc", "other"), "clone": 1.0, "n_counts": depth,
                              "z_STAT3_core": np.log(depth) + rng.normal(size=300), "z_STRESS": rng.normal(size=300),
                              "z_IFN": rng.normal(size=300)})  # fmt: skip
        found = loop.response_arm(cells, "STAT3_core", Loop(n_bootstrap=20), 199, rep)
        hits += found["p"] <= 0.05
        raw += float(found["reason"].split("; p ")[1].split()[0]) <= 0.05
    assert binomtest(hits, n, 0.05, alternative="greater").pvalue > 0.01, hits
    assert binomtest(raw, n, 0.05, alternative="greater").pvalue < 0.01, raw  # the strata alone leak


def test_level_by_hand_and_when_it_is_not_measurable():
    from test_crosstalk import sample_of

    x = np.array([[1, 0, 3, 6], [1, 2, 1, 6], [5, 5, 5, 5]])
    mask = np.array([True, True, False])
    sample = sample_of(x, ["A", "B", "C", "D"], {"m": mask})
    expected = np.mean(np.log2(1 + np.array([2, 2, 4]) * 1e4 / 20))
    assert loop.level(sample, ["A", "B", "C", "NOPE"], mask, min_cells=2, min_genes=3) == pytest.approx(expected)
    assert np.isnan(loop.level(sample, ["A", "B", "NOPE"], mask, min_cells=2, min_genes=3))
    assert np.isnan(loop.level(sample, ["A", "B", "C"], mask, min_cells=3, min_genes=3))


def test_a_response_to_il6_alone_is_none_to_tnf():
    """STAT3 genes are up in CSC-high cells, all of them; the NF-kB read-out must not see it."""
    from nicheloop import genes

    rng = np.random.default_rng(4)
    sets = genes.signatures()
    full, nfkb = set(sets[loop.STAT3].genes), set(sets[loop.NFKB].genes)
    symbols = np.array(sorted({*full, *nfkb, *[f"B{i:03d}" for i in range(600)]}), dtype=object)
    mean = np.exp(rng.normal(-0.5, 1.0, len(symbols)))
    mean[np.isin(symbols, list(full))] = 1.0
    high = np.arange(200) < 80
    fold = np.where(np.isin(symbols, list(full))[None, :] & high[:, None], 2.5, 1.0)
    x = rng.poisson(rng.gamma(3, 1 / 3, fold.shape) * mean * fold).astype(float)
    from test_crosstalk import sample_of

    sample = sample_of(x, symbols, {"malignant": np.ones(200, bool), "platelet": np.zeros(200, bool)})
    cells = pd.DataFrame({"csc_state": np.where(high, "m_csc", "other"), "clone": 1.0, "n_counts": sample.totals,
                          **loop.score_readouts(sample, None)})  # fmt: skip
    assert arm_b(cells, loop.STAT3)["p"] < 0.01 and arm_b(cells, loop.NFKB)["p"] > 0.05


def test_run_finds_the_planted_loop(tmp_path):
    table = io.read_table(run_loop(tmp_path, OPTIONS)).set_index(["axis", "arm"])
    assert len(table) == len(loop.ARMS) * len(loop.READOUTS)
    second = table.xs("B_aldh1a3", level="arm")
    assert set(second.loc["IL6_classic", ["status"]]) == {"aldh1a3_not_assessable"} and second["p"].isna().all()
    il6 = table.loc["IL6_classic"].drop(index="B_aldh1a3")
    assert (il6["status"] == "tested").all() and (il6["p"] < 0.05).all()
    b = il6.loc["B"]
    assert b["p"] == b[["p_raw", "p_stress", "p_ifn", "p_adjusted"]].max()
    assert b[["effect", "effect_stress", "effect_ifn", "effect_adjusted"]].notna().all()
    for arm in "AC":
        assert il6.loc[arm, "p"] == il6.loc[arm, ["p_label", "p_pair"]].max()
        assert "unrelated proteins often pass both" in il6.loc[arm, "reason"]
    assert il6.loc["A", "response_high"] > il6.loc["A", "response"]  # planted in CSC-high cells
    assert (il6["effect_low"] < il6["effect"]).all() and (il6["effect"] < il6["effect_high"]).all()
    assert (
        il6.loc["A", "what"] == "IL6 of icaf to IL6R+IL6ST of malignant" and "CSF1 of malignant" in il6.loc["C", "what"]
    )
    assert il6.loc[["A", "C"], ["niche_ligand", "response"]].notna().all(axis=None)
    assert (table.loc["PPBP", "status"] == "not_measurable").all()
    cxcl8 = table.loc[("CXCL8", "A")]
    assert cxcl8["status"] == "not_measurable" and "0 CXCR1 UMI in 0 of 80 malignant cells (at most" in cxcl8["reason"]
    assert table.loc[("TGFB1", "B"), "status"] == "no_readout"
    unmeasured = table[table["status"] != "tested"]
    assert unmeasured[["effect", "z", "p"]].isna().all(axis=None)  # NA, never 0


def test_run_does_not_depend_on_the_order_of_the_files(tmp_path):
    pd.testing.assert_frame_equal(
        pd.read_parquet(run_loop(tmp_path / "a", OPTIONS)),
        pd.read_parquet(run_loop(tmp_path / "b", OPTIONS, shuffle=True)),
    )


@pytest.mark.parametrize(
    ("kwargs", "status", "arm_status"),
    [
        ({"is_counts": False}, "no_counts", "no_counts"),
        ({"status": "unreadable", "reason": "truncated"}, "unreadable", "unreadable"),
        ({"malignant": False}, "ok", "too_few_cells"),
        ({"n": 90}, "ok", "too_few_cells"),
        ({"drop": ("IL6",)}, "ok", "gene_absent_from_reference"),
    ],
)
def test_run_that_cannot_answer(tmp_path, kwargs, status, arm_status):
    path = run_loop(tmp_path, OPTIONS, **kwargs)
    table = io.read_table(path).set_index(["axis", "arm"])
    assert io.read_status(path).status == status
    row = table.loc[("IL6_classic", "A")]
    assert row["status"] == arm_status and np.isnan(row["p"]) and np.isnan(row["effect"])


def test_forward_arm_takes_its_maximum_anew_in_every_permutation():
    """Three interchangeable senders without effect: the best of them must not look significant more often than it should."""
    from test_crosstalk import sample_of

    rng = np.random.default_rng(5)
    p = []
    for rep in range(150):
        label = rng.permutation(120) % 4
        symbols = ["L1", "R1", *[f"B{i:03d}" for i in range(60)]]
        x = rng.poisson(rng.gamma(1, 1, len(symbols)) + 0.5, (120, len(symbols))).astype(float)
        masks = {k: label == i for i, k in enumerate(("a", "b", "c", "malignant"))} | {"platelet": np.zeros(120, bool)}
        sample = sample_of(x, symbols, masks)
        pairs = [lr.Pair("X", "f", "L1", ("R1",), s, "malignant") for s in "abc"]
        tested = lr.test_pairs(
            sample, pairs, [], FEW.model_copy(update={"n_permutations": 99, "n_matched_pairs": 99}), rep
        )
        every = np.ones(3, dtype=bool)
        p.append(loop.strongest_arm(sample, pairs, tested, every, n_bootstrap=20, confidence=0.95, seed=rep)["p"])
    k = int((np.array(p) <= 0.1).sum())
    assert binomtest(k, len(p), 0.1, alternative="greater").pvalue > 0.001


def test_sets_that_must_not_overlap_do_not():
    table = loop_cohort.circularity()
    clean = table[table["clean"]]
    assert len(clean) >= 30 and set(clean["n_overlap"]) == {0}, clean[clean["n_overlap"] > 0]
    own = loop.readouts()
    assert not set(own[loop.STAT3]) & set(own[loop.NFKB]) and len(own[loop.STAT3]) >= 10
    pair = table[(table["set_a"] == loop.STAT3) & (table["set_b"] == loop.NFKB)
                 | (table["set_a"] == loop.NFKB) & (table["set_b"] == loop.STAT3)]  # fmt: skip
    assert len(pair) == 1 and pair["clean"].all() and pair["n_overlap"].tolist() == [0]
    for readout in {r for r in loop.READOUTS.values() if r} | {loop.RETURN_READOUT}:
        against = (
            clean.loc[(clean["set_a"] == readout) | (clean["set_b"] == readout), ["set_a", "set_b"]].to_numpy().ravel()
        )
        assert {"CSC call", "ligands", "receptors of the loop's axes"} <= set(against), readout
    shown = table[table["n_overlap"] > 0]
    assert (
        (shown["set_a"] == "CSC call") & (shown["overlap"] == "CD44")
    ).any()  # SPP1, MIF and HA share CD44: shown, not used


def test_a_constant_covariate_changes_nothing():
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(2, 12))
    options = {"min_stratum": 4, "n_swaps": 199, "seed": 0}
    one = loop_cohort.coupling_swap(a, b, ["s"] * 12, covariates=np.full((12, 2), 0.1), **options)
    assert one.p_adjusted == one.p == loop_cohort.coupling_swap(a, b, ["s"] * 12, **options).p


def noisy_cells(rng, *, differs, slope, response, n=240):
    """Read-out, two noisy halves of stress, label and strata of the cells of a tumour."""
    label = rng.random(n) < 0.4
    stress = rng.normal(size=n) + differs * label
    y = slope * stress + response * label + rng.normal(size=n)
    return y, stress[:, None] + rng.normal(size=(n, 2)), label, rng.integers(0, 3, n)


def test_a_noisy_covariate_is_taken_off_as_a_whole():
    """A regression on the noisy mean leaves a third of the bias; the test beyond it keeps its level and its power."""
    rng = np.random.default_rng(8)
    options = {"n_bootstrap": 200, "alpha": 0.05, "seed": 0}
    null = [
        attenuation.beyond_noisy(*noisy_cells(rng, differs=1.0, slope=1.0, response=0.0), **options) for _ in range(200)
    ]
    assert binomtest(sum(b.p <= 0.05 for b in null), len(null), 0.05, alternative="greater").pvalue > 0.001
    assert abs(np.mean([b.effect for b in null])) < 0.05
    assert np.mean([b.follows for b in null]) > 0.95
    planted = [
        attenuation.beyond_noisy(*noisy_cells(rng, differs=0.0, slope=1.0, response=1.0), **options) for _ in range(60)
    ]
    assert np.mean([b.p <= 0.05 for b in planted]) > 0.9
    assert np.mean([b.follows for b in planted]) < 0.2


def test_halves_that_do_not_agree_give_no_slope():
    rng = np.random.default_rng(9)
    y, halves, label, strata = noisy_cells(rng, differs=0.0, slope=0.0, response=1.0)
    found = attenuation.beyond_noisy(
        y, rng.normal(size=halves.shape), label, strata, n_bootstrap=200, alpha=0.05, seed=0
    )
    assert np.isnan(found.p) and np.isnan(found.effect) and not found.follows
    assert (
        attenuation.beyond_noisy(y, halves, np.zeros(240, dtype=bool), strata, n_bootstrap=20, alpha=0.05, seed=0)
        is None
    )


def test_autocrine_pairs_come_from_malignant_cells_and_no_other_axis_does():
    from nicheloop import genes

    pairs = loop.forward_pairs(genes.axes())
    assert {p.sender for p in pairs["IL6_autocrine"]} == {"malignant", "csc_high"}
    assert not {"malignant", "csc_high"} & {
        p.sender for name, of in pairs.items() if name != "IL6_autocrine" for p in of
    }


def test_the_stress_covariate_shares_no_gene_with_what_is_coupled():
    from nicheloop import genes

    stress = set(loop.stress_genes())
    assert len(stress) >= 20
    assert not stress & {g for members in loop.readouts().values() for g in members}
    assert not stress & {g for axis in genes.axes() for g in (*axis.ligands, *(u for r in axis.receptors for u in r))}
