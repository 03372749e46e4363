"""The loop: response contrast, arms, coupling swap, what may be said, circularity."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import sparse
from scipy.stats import binomtest

from nicheloop import attenuation, chain, genes, io, loop, loop_cohort, mixtures
from nicheloop import ligand_receptor as lr
from nicheloop.config_niche import Loop
from small_tumour import FEW, build, inputs

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


def activity_sample(rng, fold, cells=120):
    """Malignant cells whose STAT3 read-out is expressed `fold` times its usual rate, among 800 other genes."""
    readout = list(loop.readouts()[loop.STAT3])
    symbols = np.array([*readout, *[f"B{i:03d}" for i in range(800)]], dtype=object)
    mean = np.concatenate([np.full(len(readout), 1.0), np.exp(np.random.default_rng(1).normal(-1, 1.6, 800))])
    mean[: len(readout)] *= fold
    x = rng.poisson(
        rng.gamma(3, 1 / 3, (cells, len(mean))) * rng.lognormal(0, 0.4, cells)[:, None] * 2000 * mean / mean.sum()
    )
    from test_crosstalk import sample_of

    return sample_of(x, symbols, {"malignant": np.ones(cells, bool), "platelet": np.zeros(cells, bool)})


def test_coupled_activity_of_patients_is_found_and_uncoupled_is_not():
    """Eleven patients: the level of the read-out must carry what the mean z of a compartment cannot."""
    found, by_z, none = [], [], []
    for rep in range(8):
        rng = np.random.default_rng(100 + rep)
        ligand = rng.normal(size=11)
        activity = 0.9 * ligand + 0.436 * rng.normal(size=11)
        level, z = [], []
        for value in activity:
            sample = activity_sample(rng, np.exp(0.7 * value))
            everyone = sample.masks[:, 0]
            level.append(loop.level(sample, loop.readouts()[loop.STAT3], everyone, min_cells=50, min_genes=3))
            z.append(np.nanmean(loop.score_readouts(sample, None)["z_STAT3_core"]))
        found.append(swap(ligand, level, ["er in a"] * 11, rep, n_swaps=999).p)
        by_z.append(swap(ligand, z, ["er in a"] * 11, rep, n_swaps=999).p)
        none.append(swap(rng.normal(size=11), level, ["er in a"] * 11, rep, n_swaps=999).p)
    assert np.mean(np.array(found) <= 0.05) >= 0.85
    assert np.mean(np.array(by_z) <= 0.05) <= 0.5  # what it replaces
    assert np.mean(np.array(none) <= 0.05) <= 0.25


def return_sample(csf1: float, cxcl1: float):
    """Malignant cells, macrophages, monocytes and neutrophils, each with its receptor; the rest are background genes."""
    from nicheloop import populations
    from test_crosstalk import sample_of

    rng = np.random.default_rng(4)
    symbols = ["CSF1", "CSF1R", "CXCL1", "CXCR2", *[f"B{i:03d}" for i in range(80)]]
    types = {"malignant": 80, "macrophage": 40, "monocyte": 40, "neutrophil": 40}
    kind = np.repeat(np.arange(4), list(types.values()))
    mean = np.full((4, len(symbols)), 1.0)
    mean[:, :4] = 0.0
    mean[0, symbols.index("CSF1")], mean[0, symbols.index("CXCL1")] = csf1, cxcl1
    mean[1:3, symbols.index("CSF1R")], mean[3, symbols.index("CXCR2")] = 3.0, 3.0
    x = rng.poisson(mean[kind]).astype(float)
    masks = {name: np.zeros(len(kind), dtype=bool) for name in populations.NAMES}
    for i, name in enumerate(types):
        masks[name] = kind == i
    masks["myeloid"] = kind > 0
    cells = pd.DataFrame({
        "csc_state": np.where(kind == 0, "other", "not_assessable"), "clone": 1.0, "n_counts": x.sum(axis=1),
    })  # fmt: skip
    return sample_of(x, symbols, masks), cells, x, symbols


@pytest.mark.parametrize("cxcl1", [0.0, 30.0])
def test_return_factor_of_the_swap_is_a_ligand_of_monocytes_or_macrophages_only(cxcl1):
    """The response is read in macrophages and monocytes: CXCL1, which calls neutrophils, must not stand in for CSF1."""
    sample, cells, x, symbols = return_sample(0.8, cxcl1)
    arm = loop.loop_arms(sample, cells, genes.axes(), OPTIONS, FEW, 0).set_index(["axis", "arm"])
    malignant = x[:80]
    by_hand = np.log(1e4 * malignant[:, symbols.index("CSF1")].sum() / malignant.sum())
    assert arm.loc[("IL6_classic", "C"), "niche_ligand"] == pytest.approx(by_hand)
    if cxcl1:  # although arm C itself may test it, and it is far stronger
        assert "CXCL1 of malignant" in arm.loc[("IL6_classic", "C"), "what"]


def test_without_a_ligand_of_monocytes_or_macrophages_there_is_no_return_factor():
    sample, cells, _, _ = return_sample(0.0, 30.0)
    arm = loop.loop_arms(sample, cells, genes.axes(), OPTIONS, FEW, 0).set_index(["axis", "arm"])
    row = arm.loc[("IL6_classic", "C")]
    assert row["status"] == "tested" and "CXCL1" in row["what"] and np.isnan(row["niche_ligand"])


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


def run(folder, **kwargs):
    build(folder, run=False, **kwargs)
    files = inputs(folder)
    files.insert(5, folder / "scores.parquet")
    loop.run_loop(*files, folder / "loop.parquet", options=OPTIONS, crosstalk=FEW, seed=3)
    return folder / "loop.parquet"


def test_run_finds_the_planted_loop(tmp_path):
    table = io.read_table(run(tmp_path)).set_index(["axis", "arm"])
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
        pd.read_parquet(run(tmp_path / "a")), pd.read_parquet(run(tmp_path / "b", shuffle=True))
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
    path = run(tmp_path, **kwargs)
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


# ------------------------------------------------------------------------------------------------------------- cohort
def swap(a, b, strata, seed=0, **kwargs):
    return loop_cohort.coupling_swap(
        np.array(a), np.array(b), strata, min_stratum=4, n_swaps=kwargs.get("n_swaps", 199), seed=seed
    )


def test_coupling_swap_has_power_on_planted_coupling_and_is_uniform_without():
    rng = np.random.default_rng(8)
    strata = ["er in a"] * 11 + ["tnbc in a"] * 8
    null, planted = [], []
    for seed in range(200):
        a = rng.normal(size=19) + 3.0 * (np.arange(19) < 11)  # subtypes differ in both factors: no coupling within them
        b = rng.normal(size=19) + 3.0 * (np.arange(19) < 11)
        null.append(swap(a, b, strata, seed).p)
        planted.append(swap(a, 0.8 * a + 0.6 * rng.normal(size=19), strata, seed).p)
    for level in (0.05, 0.2, 0.5):
        k = int((np.array(null) <= level).sum())
        assert binomtest(k, 200, level).pvalue > 0.001, (level, k)
    assert np.mean(np.array(planted) <= 0.05) > 0.85
    found = swap(a, 0.8 * a + 0.6 * b, strata, 0)
    low, median, high = found.null
    assert low < median < high and abs(median) < 0.15  # the band of swapped pairings lies around 0
    assert (found.value > high) == (found.p < 0.0255)


def test_coupling_swap_value_and_strata():
    got = swap([1, 2, 3, 4, np.nan, 9], [2, 4, 6, 8, 1, 9], ["er"] * 5 + ["tnbc"])
    assert got.value == pytest.approx(1.0) and got.n == 4 and got.strata == "er: 4; tnbc: 1 (too small)"
    unknown = swap([1, 2, 3, 4], [1, 2, 3, 4], ["unknown_subtype"] * 4)
    assert np.isnan(unknown.p) and unknown.strata == "unknown_subtype: 4 (not swapped)"
    assert np.isnan(swap([np.nan], [1.0], ["er"]).value)
    assert swap([1, 1, 1, 1], [1, 2, 3, 4], ["er"] * 4).p == 1.0  # a constant factor couples with nothing
    assert loop_cohort.stratum({"subtype": "ER+", "dataset": None}) == "unknown_dataset"


def arms(p=(0.01, 0.01, 0.01), status=("tested",) * 3, ligand=1.0, response=1.0):
    rows = []
    for axis in loop.READOUTS:
        for arm, value, s in zip("ABC", p, status, strict=True):
            ok = s == "tested"
            rows.append({"axis": axis, "arm": arm, "what": "-", "status": s, "reason": "why", "p": value if ok else np.nan,
                         "z": 3.0 if ok else np.nan, "effect": 1.0 if ok else np.nan,
                         "niche_ligand": ligand if arm != "B" else np.nan, "response": response if arm != "B" else np.nan})  # fmt: skip
    return loop._table(rows)


def cohort(n, coupled=True, seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    tables, records = {}, {}
    for i in range(n):
        a = rng.normal()
        tables[f"p{i:02d}"] = arms(ligand=a, response=a if coupled else rng.normal(), **kwargs)
        records[f"p{i:02d}"] = {"sample": f"s{i:02d}", "subtype": "TNBC", "dataset": "d"}
    return loop_cohort.summarise_loop(tables, records, OPTIONS, 0)


def test_verdicts():
    rows = arms((0.01, 0.2, 0.03))
    got = loop_cohort.verdict(rows[rows["axis"] == "IL6_classic"], 0.05)
    assert got["verdict"] == "not present" and got["p"] == 0.2 and "B" in got["reason"]
    rows = arms((0.01, 0.02, 0.03))
    present = loop_cohort.verdict(rows[rows["axis"] == "IL6_classic"], 0.05)
    assert present["verdict"] == "all three arms present"  # and the reason says what that is worth
    assert "a property of the cell types" in present["reason"] and "only the cohort's coupling" in present["reason"]
    assert "property of the cell types" not in got["reason"]
    rows = arms(status=("tested", "too_few_csc", "tested"))
    got = loop_cohort.verdict(rows[rows["axis"] == "IL6_classic"], 0.05)
    assert (
        got["verdict"] == "not assessable"
        and got["status"] == "arm_b_too_few_csc"
        and np.isnan(got["p"])
        and np.isnan(got["score"])
    )


def test_cohort_wording():
    _, big = cohort(12)
    assert big["wording"].str.contains("consistent with a loop").all()
    _, uncoupled = cohort(12, coupled=False, seed=3)
    assert uncoupled["wording"].str.contains("not stronger than between swapped patients").all()
    _, few = cohort(9)
    assert (few["status"] == "too_few_patients").all() and few["wording"].str.startswith("No statement").all()
    _, absent = cohort(12, p=(0.5, 0.5, 0.5))
    assert absent["wording"].str.contains("no statement about a loop").all()
    _, asked = cohort(12)
    tables = {f"p{i:02d}": arms(ligand=float(i), response=float(i)) for i in range(12)}
    for i in range(12, 150):  # had the cells, below the floor: they are trials of the binomial too
        tables[f"p{i:03d}x"] = arms(status=("ligand_not_detected", "tested", "tested"), ligand=np.nan, response=np.nan)
    records = {p: {"sample": p, "subtype": "TNBC", "dataset": "d"} for p in tables}
    _, diluted = loop_cohort.summarise_loop(tables, records, OPTIONS, 0)
    assert (
        diluted["wording"]
        .str.contains("12 of 12 assessable patients (150 had the cells for it), but", regex=False)
        .all()
    )
    assert diluted["wording"].str.contains("no more than the level of the test gives by chance").all()
    assert asked["wording"].str.contains("consistent with a loop").all()
    patients, none = cohort(12, status=("tested", "too_few_csc", "tested"))
    assert (none["status"] == "not_assessable").all() and (patients["verdict"] == "not assessable").all()
    for table in (big, uncoupled, few, absent, none):
        assert not table["wording"].str.contains("drive").any()


def test_second_label_has_its_own_verdict_and_claim():
    tables, records = {}, {}
    for i in range(12):
        rows = arms((0.01, 0.5, 0.01), ligand=float(i), response=float(i))
        second = rows[rows["arm"] == "B"].assign(arm="B_aldh1a3", p=0.01)
        rows = pd.concat([rows, second], ignore_index=True)
        rows.loc[rows["arm"] == "A", "response_aldh1a3"] = float(i)
        tables[f"p{i:02d}"], records[f"p{i:02d}"] = rows, {"sample": f"s{i}", "subtype": "TNBC", "dataset": "d"}
    patients, summary = loop_cohort.summarise_loop(tables, records, OPTIONS, 0)
    assert set(patients["verdict"]) == {"not present"} and set(patients["aldh1a3_verdict"]) == {
        "all three arms present"
    }
    assert (patients["p"] == 0.5).all() and (patients["p_aldh1a3"] == 0.01).all()
    assert not summary["wording"].str.contains("consistent with").any()
    assert summary["aldh1a3_wording"].str.contains("consistent with a loop").all()
    assert (summary["aldh1a3_n_present"] == 12).all() and (summary["n_present"] == 0).all()


def test_the_claim_needs_the_coupling_to_csc_high_cells_where_it_was_measured():
    rng = np.random.default_rng(6)
    tables, records = {}, {}
    for i in range(12):
        rows = arms(ligand=float(i), response=float(i))
        rows.loc[rows["arm"] == "A", "response_high"] = rng.normal()
        tables[f"p{i:02d}"], records[f"p{i:02d}"] = rows, {"sample": f"s{i}", "subtype": "TNBC", "dataset": "d"}
    _, summary = loop_cohort.summarise_loop(tables, records, OPTIONS, 0)
    assert (summary["p_forward"] < 0.05).all() and (summary["p_forward_high"] > 0.05).all()
    assert (
        summary["wording"].str.contains("the forward (to CSC-high cells) coupling is not stronger", regex=False).all()
    )
    assert (summary["n_swapped_forward_high"] == 12).all()
    assert summary["detectable_rho"].iloc[0] == pytest.approx(0.73, abs=0.01)


def levels(ligand, receptor, response):
    return pd.DataFrame({"step": ["ligand", "receptor", "response"], "level": [ligand, receptor, response]})


def chained(n, coupled, seed=0, subtype="TNBC"):
    rng = np.random.default_rng(seed)
    chains, records = {}, {}
    for i in range(n):
        a, b = rng.normal(size=2)
        c = 0.65 * (a + b) + 0.4 * rng.normal() if coupled else rng.normal()
        chains[f"p{i:02d}"] = levels(a, b, c)
        records[f"p{i:02d}"] = {"sample": f"s{i}", "subtype": subtype, "dataset": "d"}
    return chain.summarise_chain(chains, records, OPTIONS, 0).set_index("link")


def test_serial_chain_over_patients():
    planted = chained(14, True)
    row = planted.loc["chain"]
    assert row["p"] < 0.01 and row["rho_low"] > 0 and row["rho"] > 0.6 and "consistent with the chain" in row["wording"]
    assert (planted["n_swapped"] == 14).all()
    p = [chained(14, False, seed).loc["chain", "p"] for seed in range(100)]
    for level in (0.05, 0.2):
        k = int((np.array(p) <= level).sum())
        assert binomtest(k, len(p), level).pvalue > 0.001, (level, k)
    few = chained(8, True)
    assert (few["status"] == "too_few_patients").all() and few["wording"].str.startswith("No statement").all()
    unknown = chained(14, True, subtype=None)
    assert unknown["p"].isna().all() and unknown["rho"].isna().all() and unknown["strata"].str.contains("unknown").all()


def test_chain_levels_of_one_sample(tmp_path):
    build(tmp_path, run=False)
    files = inputs(tmp_path)
    files.insert(5, tmp_path / "scores.parquet")
    paths = tmp_path / "loop.parquet", tmp_path / "chain.parquet"
    loop.run_loop(*files, paths[0], options=OPTIONS, crosstalk=FEW, seed=3, out_chain=paths[1])
    table = io.read_table(paths[1]).set_index("step")
    x, cells = io.Counts(tmp_path / "counts.h5ad"), io.read_table(tmp_path / "cell_types.parquet")
    caf = cells.loc[cells["cell_type"] == "caf", "cell_id"]
    counts = x.matrix(cells=caf)
    umi = float(counts[:, list(x.genes).index("IL6")].sum())
    ambient = io.read_table(tmp_path / "ambient.parquet").set_index("gene").loc["IL6"]
    mean = 1e4 * umi / counts.sum() - 1e4 * 0.02 * ambient["ambient_fraction"]
    assert table.loc["response", "level"] == pytest.approx(np.log2(1 + mean), rel=1e-5)
    assert table.loc["response", "umi"] == umi and (table["status"] == "measured").all()
    build(tmp_path / "no", run=False, drop=("IL1B",), n=45)
    files = inputs(tmp_path / "no")
    files.insert(5, tmp_path / "no" / "scores.parquet")
    loop.run_loop(*files, paths[0], options=OPTIONS, crosstalk=FEW, seed=3, out_chain=paths[1])
    table = io.read_table(paths[1]).set_index("step")
    assert table["status"].to_dict() == {"ligand": "gene_absent_from_reference", "receptor": "too_few_cells",
                                         "response": "too_few_cells"}  # fmt: skip
    assert table["level"].isna().all()


def test_run_cohort(tmp_path):
    paths = [run(tmp_path / s, sample=s, seed=i, **kw) for i, (s, kw) in enumerate([
        ("p1", {}), ("p2", {"is_counts": False}), ("n1", {"tissue": "normal"}), ("p3", {"status": "unreadable", "reason": "x"}),
    ])]  # fmt: skip
    records = [p.parent / "ingest.json" for p in paths]
    loop_cohort.run_loop_cohort(paths, records, tmp_path / "loop.tsv", tmp_path / "cohort.tsv", options=OPTIONS, seed=0)
    table, summary = io.read_table(tmp_path / "loop.tsv"), io.read_table(tmp_path / "cohort.tsv")
    il6 = table[table["axis"] == "IL6_classic"].set_index("patient")
    assert sorted(il6.index) == ["p1", "p2", "p3"]
    assert il6.loc["p1", "verdict"] == "all three arms present" and il6.loc["p2", "status"] == "arm_a_no_counts"
    assert il6.loc["p3", "status"] == "arm_a_unreadable"
    row = summary.set_index("axis").loc["IL6_classic"]
    assert (
        row["n_patients"] == 3
        and row["n_assessable"] == 1
        and row["status"] == "too_few_patients"
        and "unknown_subtype" in row["strata"]
    )
    left = tmp_path / "m1"
    path = run(left, sample="m1", seed=9, tissue="metastasis")
    loop_cohort.run_loop_cohort(
        [*paths, path], [*records, left / "ingest.json"], tmp_path / "loop.tsv", tmp_path / "cohort.tsv",
        options=OPTIONS, seed=0,
    )  # fmt: skip
    table, again = io.read_table(tmp_path / "loop.tsv"), io.read_table(tmp_path / "cohort.tsv")
    m1 = table[table["patient"] == "m1"]
    assert set(m1["status"]) == {"not_primary_tumour"} and set(m1["verdict"]) == {"not assessable"}
    assert m1["reason"].str.contains("metastasis").all() and m1["p"].isna().all()
    pd.testing.assert_frame_equal(again, summary)  # shown, and part of no claim
    loop_cohort.run_loop_cohort(
        paths[2:3], records[2:3], tmp_path / "loop.tsv", tmp_path / "cohort.tsv", options=OPTIONS, seed=0
    )
    assert io.read_table(tmp_path / "loop.tsv").empty


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


def test_a_swap_beyond_what_moves_the_whole_sample():
    """Two factors that share nothing but the patients' stress are coupled raw and not beyond it; a true coupling stays."""
    rng = np.random.default_rng(4)
    strata = ["a"] * 15 + ["b"] * 15
    stress = rng.normal(size=30)
    noise, ligand = 0.4 * rng.normal(size=(2, 30)), rng.normal(size=30)
    options = {"min_stratum": 4, "n_swaps": 999, "seed": 0}
    apart = loop_cohort.coupling_swap(
        stress + noise[0],
        stress + noise[1],
        strata,
        covariates=np.column_stack([stress, np.full(30, np.nan)]),
        **options,
    )
    assert apart.p < 0.01 < 0.05 < apart.p_adjusted
    true = loop_cohort.coupling_swap(ligand + stress, ligand + noise[1], strata, covariates=stress[:, None], **options)
    assert true.p_adjusted <= 0.01
    # too few patients beyond strata and slopes
    few = loop_cohort.coupling_swap(
        stress[:6], ligand[:6], ["a"] * 6, covariates=np.column_stack([stress, noise[0]])[:6], **options
    )
    assert np.isfinite(few.p) and np.isnan(few.p_adjusted)


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


def test_the_claim_counts_patients_that_were_swapped_and_not_those_with_arms_only():
    """Twelve assessable patients of which eight are in a stratum that is swapped: nothing is said of a cohort of ten."""
    tables, records = {}, {}
    for i in range(12):
        tables[f"p{i:02d}"] = arms(ligand=float(i), response=float(i))
        subtype = "TNBC" if i < 8 else f"rare{i}"
        records[f"p{i:02d}"] = {"sample": f"s{i}", "subtype": subtype, "dataset": "d"}
    _, summary = loop_cohort.summarise_loop(tables, records, OPTIONS, 0)
    line = summary.set_index("axis").loc["IL6_classic"]
    assert line["n_assessable"] == 12 and line["n_swapped_forward"] == 8 and line["p_forward"] < 0.05
    assert "no statement about a loop" in line["wording"] and "could not be swapped in 10 patients" in line["wording"]


def test_stress_and_ambient_rna_of_the_patients_make_no_claim():
    """Both factors follow the stress of the patient and nothing else."""
    rng = np.random.default_rng(2)
    tables, records = {}, {}
    for i in range(20):
        stress = float(i)
        rows = arms(ligand=stress + rng.normal(), response=stress + rng.normal())
        rows["stress_level"], rows["ambient_rate"] = stress, rng.random()
        tables[f"p{i:02d}"], records[f"p{i:02d}"] = rows, {"sample": f"s{i}", "subtype": "TNBC", "dataset": "d"}
    _, summary = loop_cohort.summarise_loop(tables, records, OPTIONS, 0)
    assert (summary["p_forward"] < 0.05).all() and (summary["p_forward_adjusted"] > 0.05).all()
    assert not summary["wording"].str.contains("consistent with a loop").any()
