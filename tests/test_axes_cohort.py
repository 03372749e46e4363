"""Axes over patients: the cohort's rows, strata, controls and files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nicheloop import axes, io, stats, tables
from small_tumour import FEW as OPTIONS
from small_tumour import build


def test_axes_over_patients(tmp_path):
    paths = [
        build(tmp_path / "p1", sample="p1", seed=1),
        build(tmp_path / "p2", sample="p2", seed=2),
        build(tmp_path / "p3", sample="p3", seed=3, is_counts=False),
        build(tmp_path / "n1", sample="n1", seed=4, tissue="normal"),
        build(tmp_path / "p4", sample="p4", seed=5, status="unreadable", reason="x"),
    ]
    records = [p.parent / "ingest.json" for p in paths]
    axes.run_axes(paths, records, tmp_path / "axes.tsv", options=OPTIONS, alpha=0.05)
    table = io.read_table(tmp_path / "axes.tsv").set_index(["axis", "sender", "receiver"])
    row = table.loc[("IL6_classic", "icaf", "malignant")]
    assert row["n_patients"] == 4 and row["n_assessable"] == 2 and row["status"] == "ok"  # the normal speaks for nobody
    one = io.read_table(paths[0])
    one = one[(one["axis"] == "IL6_classic") & (one["sender"] == "icaf") & (one["receiver"] == "malignant")]
    assert row["effect_low"] < row["effect"] < row["effect_high"]
    assert row["effect"] == pytest.approx(np.log2(one["strength"].max()), abs=0.5)  # pooled is the strength
    assert "1 no counts" in row["reason"] and "1 unreadable" in row["reason"]
    ppbp = table.loc[("PPBP", "icaf", "malignant")]
    assert ppbp["status"] == "ligand_not_detected" and np.isnan(ppbp["effect"]) and 0 < ppbp["max_upper_ligand"] < 0.1


def cohort_rows(n=6, patients_with_rows=6):
    """Six patients of two subtypes: one axis whose specificity hangs on the first patient."""
    rng = np.random.default_rng(0)
    specificity = np.array([6.0, -0.5, -0.6, -0.4, -0.7, -0.5])
    return pd.DataFrame({
        "patient": [f"p{i}" for i in range(n)], "axis": "X", "arm": "forward", "sender": "a", "receiver": "b", "ligand": "L",
        "receptor": "R", "status": "tested", "strength": 2.0 ** rng.normal(1, 0.5, n), "log2_se": 0.2, "p": 0.01, "q": 0.2,
        "q_usual": 0.01, "ligand_upper": 1.0, "receptor_upper": 1.0, "specificity": specificity, "specificity_se": 0.2,
        "matched_status": ["tested", "tested", "too_few_cells"] * 2, "matched_log2_strength": [1.0, 1.4, np.nan] * 2,
        "matched_log2_se": [0.3, 0.3, np.nan] * 2,
    })  # fmt: skip


def test_cohort_row_says_how_far_it_can_be_trusted():
    rows = cohort_rows()
    row = axes.summarise_axes(rows, 8, confidence=0.95, alpha=0.05, not_run={"p7": "no_counts"}).iloc[0]
    y, s = rows["specificity"].to_numpy(), rows["specificity_se"].to_numpy()
    assert row["specificity"] == pytest.approx(stats.random_effects(y, s).effect)
    left = [stats.random_effects(np.delete(y, i), np.delete(s, i)).effect for i in range(6)]
    assert row["specificity_loo_low"] == pytest.approx(min(left)) and row["specificity_loo_high"] == pytest.approx(
        max(left)
    )
    assert row["sign_changes"] == 1  # without the first patient it is negative
    assert row["n_significant"] == 0 and row["n_significant_usual"] == 6
    assert row["n_matched"] == 4 and row["effect_matched"] == pytest.approx(1.2)
    assert row["detectable_rho"] == pytest.approx(0.92, abs=0.01) and "n = 6" in row["power"] and "0.92" in row["power"]
    assert row["effect_loo_low"] <= row["effect"] <= row["effect_loo_high"]
    alone = axes.summarise_axes(rows[:1], 8, confidence=0.95, alpha=0.05, not_run={}).iloc[0]
    assert np.isnan(alone["specificity"]) and np.isnan(alone["detectable_rho"]) and "no mean" in alone["power"]


def test_subtypes_are_summarised_apart():
    rows = cohort_rows()
    subtype = {f"p{i}": "TNBC" if i < 3 else "ER+" for i in range(6)} | {"p9": "unknown_subtype"}
    table = axes.summarise_subtypes(rows, subtype, confidence=0.95, alpha=0.05, inferred=["p0", "p9"])
    table = table.set_index("subtype")
    assert table["n_inferred"].to_dict() == {"ER+": 0, "TNBC": 1, "unknown_subtype": 1}
    assert table["n_patients"].to_dict() == {"ER+": 3, "TNBC": 3, "unknown_subtype": 1}
    mine = rows[3:]
    assert table.loc["ER+", "specificity"] == pytest.approx(
        stats.random_effects(mine["specificity"], mine["specificity_se"]).effect
    )
    assert table.loc["unknown_subtype", "n_assessable"] == 0 and np.isnan(table.loc["unknown_subtype", "effect"])


def test_positive_controls_have_a_verdict():
    def row(axis, ligand, receptor, sender, receiver, status="tested", p=0.01, n=50, patient="p0"):
        return {"patient": patient, "axis": axis, "ligand": ligand, "receptor": receptor, "sender": sender, "receiver": receiver,
                "status": status, "p": p if status == "tested" else np.nan, "n_sender": n, "n_receiver": n}  # fmt: skip

    rows = pd.DataFrame(
        [row("CTRL_PDGFB_PDGFRB", "PDGFB", "PDGFRB", "endothelial", "pvl", patient=f"p{i}") for i in range(3)]
        + [
            row("CTRL_DLL4_NOTCH", "DLL4", "NOTCH4", "endothelial", "endothelial", p=0.4, patient=f"p{i}")
            for i in range(3)
        ]
        + [
            row("CTRL_CXCL13_CXCR5", "CXCL13", "CXCR5", "tfh", "b_cell", "too_few_cells", n=2, patient=f"p{i}")
            for i in range(3)
        ]
        + [
            row("CTRL_CD40LG_CD40", "CD40LG", "CD40", "t_cd4", "b_cell", "ligand_not_detected", patient=f"p{i}")
            for i in range(3)
        ]
        + [
            row("VEGFA", "VEGFA", r, "malignant", "endothelial", patient=f"p{i}")
            for r in ("KDR", "FLT1")
            for i in range(3)
        ]
    )
    table = axes.summarise_controls(rows, 3, alpha=0.05, min_cells=20).set_index("control")
    assert table["verdict"].to_dict() == {
        "DLL4-NOTCH": "not positive", "CD40LG-CD40": "not positive", "CXCL13-CXCR5": "not assessable",
        "PDGFB-PDGFRB": "positive", "VEGFA-KDR": "positive",
    }  # fmt: skip
    assert table.loc["VEGFA-KDR", "receptor"] == "KDR"  # and one row of it
    assert "3 too few cells" in table.loc["CXCL13-CXCR5", "reason"]
    assert table.loc["CD40LG-CD40", "n_with_cells"] == 3  # cells without the ligand count against it


def test_cohort_files_and_one_choice_of_sample_for_all(tmp_path):
    paths = [build(tmp_path / s, sample=s, seed=i, patient=p, n=n, subtype=t) for i, (s, p, n, t) in enumerate(
        [("a1", "A", 240, "ER+"), ("a2", "A", 300, "ER+"), ("b1", "B", 240, "TNBC")])]  # fmt: skip
    files = {k: [p.parent / f for p in paths] for k, f in (("records", "ingest.json"), ("scores", "scores.parquet"))}
    out = {f"out_{k}": tmp_path / f"{k}.tsv" for k in ("subtypes", "controls", "decoys")}
    found = [p.parent / "decoys.parquet" for p in paths]
    for path, p in zip(found, paths, strict=True):
        io.write_table(
            tables.empty("decoy_pairs"),
            path,
            "decoy_pairs",
            io.Status("decoys", p.parent.name, "too_few_decoys", "few"),
        )
    axes.run_axes(
        paths, files["records"], tmp_path / "axes.tsv", options=OPTIONS, alpha=0.05, scores=files["scores"],
        decoy_pairs=found, **out,
    )  # fmt: skip
    decoys = io.read_table(out["out_decoys"])
    assert decoys["sample"].tolist() == ["a2", "b1", "cohort"]  # the sample with more malignant cells speaks for A
    assert set(decoys["status"]) == {"too_few_decoys"} and set(decoys["verdict"]) == {"not assessable"}
    subtypes = io.read_table(out["out_subtypes"])
    assert set(subtypes["subtype"]) == {"ER+", "TNBC"} and set(subtypes["n_patients"]) == {1}
    controls = io.read_table(out["out_controls"])
    assert set(controls["control"]) == set(axes.CONTROLS) and set(controls["verdict"]) == {"not assessable"}


def test_axes_without_any_sample(tmp_path):
    path = build(tmp_path / "n1", sample="n1", tissue="normal")
    axes.run_axes([path], [path.parent / "ingest.json"], tmp_path / "axes.tsv", options=OPTIONS, alpha=0.05)
    assert io.read_table(tmp_path / "axes.tsv").empty


def test_strongest_pair_is_chosen_by_strength_not_by_p():
    rows = pd.DataFrame({
        "patient": "p", "axis": "X", "arm": "f", "sender": "a", "receiver": "b", "ligand": ["L1", "L2"], "receptor": "R",
        "status": "tested", "strength": [5.0, 1.0], "log2_effect": [0.5, 2.0], "log2_se": 0.1, "p": [0.2, 0.001], "q": [0.2, 0.002],
        "ligand_upper": 1.0, "receptor_upper": 1.0,
    })  # fmt: skip
    rows = pd.concat([rows, rows.assign(patient="q")])
    got = axes.summarise_axes(rows, 2, confidence=0.95, alpha=0.05, not_run={})
    assert got.loc[0, "effect"] == pytest.approx(np.log2(5.0)) and got.loc[0, "n_significant"] == 0
