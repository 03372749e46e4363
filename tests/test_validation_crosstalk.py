"""The section on crosstalk and the loop: its nulls are nulls, its judgement judges, and it runs end to end when small."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from benchmarks.validation import crosstalk as section
from benchmarks.validation import crosstalk_calibration as calibration
from benchmarks.validation import crosstalk_cohorts as cohorts
from benchmarks.validation import crosstalk_power as power
from benchmarks.validation import crosstalk_tumours as tumours
from benchmarks.validation.harness import Claim, entry
from nicheloop import detection, genes, io, loop
from nicheloop import ligand_receptor as lr

TYPE_NAMES = list(cohorts.TYPES)


def means(tumour: cohorts.Tumour, gene: str) -> np.ndarray:
    """(types,) counts per 10,000."""
    counts = np.asarray(tumour.sample.x[:, cohorts.panel().at[gene]].todense()).ravel()
    size = len(TYPE_NAMES)
    by_type = np.bincount(tumour.kind, counts, size) / np.bincount(tumour.kind, tumour.sample.totals, size)
    return 1e4 * by_type


def pooled(design: cohorts.Design, gene: str, n: int = 12) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.mean([means(cohorts.draw_tumour(design, rng), gene) for _ in range(n)], axis=0)


def test_without_a_planted_arm_genes_of_the_axes_have_one_share_and_with_it_they_do_not():
    flat = pooled(cohorts.Design(), "IL6")
    assert np.ptp(flat) / flat.mean() < 0.5 and flat.mean() == pytest.approx(cohorts.SHARES["IL6"], rel=0.1)
    planted = pooled(cohorts.Design(arms="A", strength=cohorts.SURE), "IL6", 3)
    assert planted[TYPE_NAMES.index("icaf")] > 20 * planted[TYPE_NAMES.index("malignant")]


def test_library_sizes_do_not_give_types_away_unless_depth_is_unequal():
    rng = np.random.default_rng(1)
    tumour = cohorts.draw_tumour(cohorts.Design(depth={"icaf": 0.3}), rng)
    medians = [np.median(tumour.sample.totals[tumour.kind == k]) for k in range(len(TYPE_NAMES))]
    assert medians[1] < 0.45 * medians[0] and 0.8 < medians[3] / medians[0] < 1.25
    even = cohorts.draw_tumour(cohorts.Design(arms="ABC", strength=cohorts.SURE), rng)
    medians = [np.median(even.sample.totals[even.kind == k]) for k in range(len(TYPE_NAMES))]
    assert max(medians) / min(medians) < 1.35


def test_ambient_rna_carries_il6_to_cells_that_do_not_make_it_and_the_product_is_told_its_share():
    rng = np.random.default_rng(2)
    tumour = cohorts.draw_tumour(cohorts.Design(elsewhere=True, ambient=(0.1, 0.1)), rng)
    assert tumour.sample.rate == pytest.approx(0.1)
    at = tumour.sample.gene_index["IL6"]
    # counts of cells that make none: nothing but ambient RNA (Poisson)
    others = tumour.kind != TYPE_NAMES.index("t_cd4")
    counted = float(tumour.sample.x[others][:, at].sum())
    expected = tumour.sample.ambient_mean()[at] / 1e4 * tumour.sample.totals[others].sum()
    assert counted == pytest.approx(expected, abs=4 * np.sqrt(expected)) and expected > 30


def test_platelet_barcodes_belong_to_no_other_population():
    tumour = cohorts.draw_tumour(cohorts.Design(platelets=0.1), np.random.default_rng(3))
    names = tumour.sample.names
    flagged = tumour.sample.masks[:, names.index("platelet")]
    assert 15 < flagged.sum() < 60
    others = np.delete(tumour.sample.masks, names.index("platelet"), axis=1)
    assert not others[flagged].any() and not flagged[tumour.cells["csc_state"] != "not_assessable"].any()


def test_coupled_patients_have_correlated_factors_and_others_do_not():
    rng = np.random.default_rng(4)
    strong = cohorts.Design(arms="ABC", strength=cohorts.STRENGTHS["strong"], coupled=True)
    both = np.array(
        [[f.ligand, f.response, f.back, f.niche] for f in (cohorts.draw_factors(strong, rng) for _ in range(800))]
    )
    r = np.corrcoef(both.T)
    assert r[0, 1] == pytest.approx(0.9, abs=0.03) and r[2, 3] == pytest.approx(0.9, abs=0.03) and abs(r[0, 2]) < 0.12
    free = np.array(
        [[f.ligand, f.response] for f in (cohorts.draw_factors(strong.but(coupled=False), rng) for _ in range(800))]
    )
    assert abs(np.corrcoef(free.T)[0, 1]) < 0.12


def test_judgement_is_exact_binomial_with_bonferroni_and_spares_what_is_only_stated():
    bad = np.r_[np.full(40, 0.01), np.full(160, 0.5)]
    fair = np.r_[np.full(10, 0.05), np.full(190, 0.5)]
    checks = [calibration.Check("t", "bad", "h", bad), calibration.Check("t", "fair", "h", fair),
              calibration.Check("t", "stated", "h", bad, judged=False)]  # fmt: skip
    table = calibration.judge(checks).set_index(["configuration", "level"])
    assert table.loc[("bad", 0.05), "false positives"] == 40 and not table.loc[("bad", 0.05), "holds"]
    expected = min(1.0, 4 * binomtest(40, 200, 0.05, alternative="greater").pvalue)
    assert table.loc[("bad", 0.05), "p of the excess"] == pytest.approx(expected)
    assert table.loc[("fair", 0.05), "holds"] and table.loc[("fair", 0.05), "rate"] == 0.05  # p of 0.05 counts
    assert table.loc[("stated", 0.05), "holds"] is None
    claim = section.rate_claim("text", table.reset_index())
    assert claim.holds is False and "bad" in claim.measured and "stated" not in claim.measured
    uneven = calibration.Check("t", "uneven", "h", fair, randomised=np.random.default_rng(0).random(500) ** 2)
    even = calibration.Check("t", "even", "h", fair, randomised=np.random.default_rng(0).random(500))
    assert calibration.uniformity([uneven, even, checks[0]], 2)["holds"].tolist() == [False, True]


def test_axis_nulls_are_drawn_from_what_they_say():
    null = next(n for n in calibration.AXIS_NULLS if n.name == "labels, complex of two")
    rng = np.random.default_rng(5)
    sums = np.zeros(3)
    for _ in range(30):
        sample, pair = calibration.axis_sample(null, rng)
        assert len(pair.receptor) == 2
        at = sample.gene_index[pair.ligand]
        sums += [np.asarray(sample.x[sample.masks[:, k], at].sum()) for k in range(3)]
    assert sums / 30 == pytest.approx(null.umi, rel=0.12)  # the same in every type
    shallow = next(n for n in calibration.AXIS_NULLS if n.name == "unequal depth, labels")
    sample, _ = calibration.axis_sample(shallow, rng)
    assert sample.totals[sample.masks[:, 0]].mean() < 0.4 * sample.totals[sample.masks[:, 1]].mean()


def test_axis_tests_keep_their_level_on_a_few_samples():
    for null in calibration.AXIS_NULLS[:1]:
        p = calibration.axis_batch((1, null, 0, 40))
        assert (
            np.all(p[:, 2] >= p[:, 0])
            and binomtest(int((p[:, 2] <= 0.05).sum()), 40, 0.05, alternative="greater").pvalue > 1e-3
        )


def test_a_ligand_that_is_merely_specific_to_fibroblasts_is_no_loop():
    null = calibration.ArmNull("x", cohorts.Design(arms="A", strength=cohorts.SURE), "-", "BC")
    table = calibration.arm_batch((1, null, 0, 8))
    mine = table[table["axis"] == "IL6_classic"]
    assert (mine["A"] <= 0.05).mean() > 0.7 and (mine["p"] <= 0.05).sum() <= 3
    assert (table.loc[table["axis"] == "PPBP", "status_A"] == "not_measurable").all()


def test_batches_depend_on_their_name_and_not_on_the_pool():
    task = (1, calibration.AXIS_NULLS[0], 0, 5)
    np.testing.assert_array_equal(calibration.axis_batch(task), calibration.axis_batch(task))
    other = calibration.axis_batch((1, calibration.AXIS_NULLS[0], 1, 5))
    assert not np.array_equal(other, calibration.axis_batch(task))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_cell_test_agrees_with_liana():
    """The comparison must be fair: statistic and p of CellPhoneDB as liana computes them."""
    liana = pytest.importorskip("liana")
    import anndata as ad

    rng = np.random.default_rng(6)
    tumour = cohorts.draw_tumour(cohorts.Design(arms="C", strength=cohorts.STRENGTHS["weak"]), rng)
    x = io.lognormalise(tumour.sample.x)[:, [cohorts.panel().at[g] for g in power.CELL_GENES]]
    adata = ad.AnnData(x, obs=pd.DataFrame({"kind": pd.Categorical(np.array(TYPE_NAMES)[tumour.kind])}),
                       var=pd.DataFrame(index=list(power.CELL_GENES)))  # fmt: skip
    adata.obs_names = [f"c{i}" for i in range(adata.n_obs)]
    pairs = pd.DataFrame([{"ligand": g, "receptor": "_".join(c)} for _, g, _, c in power.CELL_PAIRS]).drop_duplicates()
    liana.mt.cellphonedb(adata, groupby="kind", resource=pairs, expr_prop=0.1, use_raw=False, n_perms=500, verbose=False,
                         return_all_lrs=True, seed=1)  # fmt: skip
    theirs = adata.uns["liana_res"].set_index(["source", "ligand_complex", "target", "receptor_complex"])
    ours = power.cell_test(x.toarray(), tumour.kind, np.random.default_rng(0), 500)
    for p, (s, g, r, c) in zip(ours, power.CELL_PAIRS, strict=True):
        expected = float(theirs.loc[(s, g, r, "_".join(c)), "cellphone_pvals"])
        # a complex keeps its limiting subunit in liana's null; Monte-Carlo error of 500 permutations otherwise
        assert p == pytest.approx(expected, abs=0.08), (g, p, expected)


def test_cohorts_without_a_loop_share_no_patient_and_resampled_ones_hold_each_once():
    patients = list(range(25))
    apart = power.disjoint(patients, 10)
    assert apart == [list(range(10)), list(range(10, 20))]
    for cohort in power.resampled(patients, 10, 3, np.random.default_rng(0)):
        assert len(set(cohort)) == 10


def test_five_patients_are_too_few_and_cells_cannot_tell():
    bank = power.draw_patients(
        1, {"x": (power.WITHOUT["IL6 specific to fibroblasts and venules, no more"], 10)}, None, "t"
    )["x"]
    answer = power.cohort_answer(power.CohortTask(1, "x", 5, tuple(bank[:5]), 0, True))
    assert answer["status"] == "too_few_patients" and not answer["nicheloop"]
    assert answer["cells pooled: IL6 axis"]


def test_planted_level_is_what_the_product_measures():
    rng = np.random.default_rng(7)
    axes = [a for a in genes.axes() if a.id in cohorts.AXES]
    tumour = cohorts.draw_tumour(cohorts.Design(arms="ABC", strength=cohorts.SURE), rng)
    rows = loop.loop_arms(tumour.sample, tumour.cells, axes, calibration.LOOP, calibration.CROSSTALK, 0).set_index(
        ["axis", "arm"]
    )
    assert (rows.loc["IL6_classic"].loc[list("ABC"), "status"] == "tested").all()
    expected = np.log(means(tumour, "IL6")[1:3].max())
    assert rows.loc[("IL6_classic", "A"), "niche_ligand"] == pytest.approx(expected, abs=0.05)


def test_controls_count_the_best_pair_of_a_tumour():
    rows = pd.DataFrame({
        "axis": ["CTRL_DLL4_NOTCH"] * 3, "sample": ["a", "a", "b"], "status": ["tested", "tested", "too_few_cells"],
        "p": [0.2, 0.01, np.nan],
    })  # fmt: skip
    row = tumours.control_table(rows).iloc[0]
    assert (row["tumours"], row["tested"], row["positive (p at most 0.05)"], row["elsewhere"]) == (
        2,
        1,
        1,
        "too_few_cells",
    )
    assert section.control_claim(tumours.control_table(rows)).holds is False  # the others were never tested


def test_demo_tumour_holds_the_cells_of_the_controls():
    from nicheloop import simulate

    sample = tumours.demo_sample(simulate.PLANS[0], 1)
    seen = detection.Detection.of(sample, ["PDGFB", "PDGFRB"])
    assert seen.cells("b_cell") >= 20 and seen.cells("pvl") >= 20
    pair = next(p for p in lr.pairs_of_axes(genes.axes()) if p.axis == "CTRL_PDGFB_PDGFRB")
    assert seen.obstacle(pair, tumours.OPTIONS, {}) is None


def test_section_runs_end_to_end(tmp_path, monkeypatch):
    monkeypatch.delenv("NICHELOOP_REAL_DATA", raising=False)
    monkeypatch.setattr(section, "real_data", lambda: None)
    monkeypatch.setattr(calibration, "AXIS_NULLS", tuple(replace(n) for n in calibration.AXIS_NULLS[:2]))
    monkeypatch.setattr(tumours, "demo_tumours", lambda seed, pool: fake_demo())
    monkeypatch.setattr(calibration, "ARM_NULLS", calibration.ARM_NULLS[-1:] + calibration.ARM_NULLS[:1])
    monkeypatch.setattr(power, "SIZES", (5, 10, 26))
    monkeypatch.setattr(power, "LOOPS", dict(list(power.LOOPS.items())[-1:]))
    monkeypatch.setattr(calibration, "COHORT_NULLS", calibration.COHORT_NULLS[:1])
    monkeypatch.setattr(power, "BETWEEN", dict(list(power.BETWEEN.items())[:1]))
    size = section.Size(
        axis=50, swap=250, decoys=1, arms=10, cohorts=10, loops=30, without=30, between=20, resampled=1, cells=1
    )
    result = section.run(full=False, work=tmp_path, seed=3, size=size, workers=1)
    stored = entry(result, seed=3, full=False)
    assert {p["file"] for p in stored["plots"]} >= {"crosstalk_power.png", "crosstalk_false_positives.png"}
    assert all(isinstance(c, Claim) for c in result.claims) and len(result.claims) >= 15
    assert any(c.holds is None and "no real data" in c.measured for c in result.claims)
    assert stored["figures"]["comparisons"] > 20


def fake_demo() -> tuple[pd.DataFrame, pd.DataFrame]:
    controls = pd.DataFrame({"axis": list(tumours.CONTROLS), "sample": "s", "status": "tested", "p": 0.01})
    return controls, pd.DataFrame({"sample": "s", "p": np.linspace(0.01, 1, 40)})


@pytest.mark.real
def test_rows_of_real_tumours(tmp_path):
    from benchmarks.validation.harness import real_data

    results = tumours.ROOT / "results-real"
    if real_data() is None or not (results / "samples" / "tenx_idc" / "crosstalk.parquet").exists():
        pytest.skip("needs NICHELOOP_REAL_DATA and the results of `make real`")
    rows = tumours.real_rows(results)
    asked = tumours.asked_of(rows)
    assert set(asked["axis"]) == {"IL6_classic", "IL6_trans", "IL6_autocrine", "CXCL8", "PPBP"}
    claims = section.real_claims(rows, len(lr.pairs_of_axes(genes.axes())))
    assert claims[0].holds and claims[1].holds
