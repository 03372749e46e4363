"""The loop over patients: coupling swap, verdicts, the serial chain, what may be said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from nicheloop import chain, genes, io, loop, loop_cohort
from nicheloop.config_niche import Loop
from small_tumour import FEW, build, inputs, run_loop

OPTIONS = Loop(n_bootstrap=60, n_swaps=499)


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
    paths = [run_loop(tmp_path / s, OPTIONS, sample=s, seed=i, **kw) for i, (s, kw) in enumerate([
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
    path = run_loop(left, OPTIONS, sample="m1", seed=9, tissue="metastasis")
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
