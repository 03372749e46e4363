"""A small results folder whose tables keep their contracts, with the situations a report must survive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from helpers import record_of, write_counts
from nicheloop import csc_isoforms, io, tables
from nicheloop import genes as shipped
from nicheloop.io import Status

TYPES = ["epithelial", "t_nk", "b_cell", "myeloid", "endothelial", "caf", "pvl", "unresolved"]
SHARES = [0.42, 0.16, 0.05, 0.14, 0.07, 0.09, 0.04, 0.03]
GENES = ["EPCAM", "KRT8", "CD3D", "MS4A1", "LYZ", "PECAM1", "COL1A1", "RGS5", "CD44", "CD24", "IL6", "CXCL8", "PPBP"]
AXES = {
    "IL6_classic": ("forward", "IL6", "IL6R+IL6ST", "malignant"),
    "IL6_trans": ("forward", "IL6", "IL6ST", "malignant"),
    "IL6_autocrine": ("autocrine", "IL6", "IL6R+IL6ST", "csc_high"),
    "CXCL8": ("forward", "CXCL8", "CXCR1", "malignant"),
    "PPBP": ("forward", "PPBP", "CXCR2", "malignant"),
    "CCL2": ("return", "CCL2", "CCR2", "monocyte"),
    "CSF1": ("return", "CSF1", "CSF1R", "macrophage"),
}
SENDERS = ["icaf", "endo_venous", "macrophage", "monocyte", "malignant"]


INPUT = {"epithelial": "Cancer Epithelial", "t_nk": "T-cells", "b_cell": "B-cells", "myeloid": "Myeloid", "caf": "CAFs",
         "endothelial": "Endothelial", "pvl": "Fibroblasts", "plasmablast": "Plasmablasts"}  # fmt: skip


def _check(region: str, expected: str, seen: str) -> dict[str, object]:
    return {
        "region": region,
        "expected": expected,
        "seen": seen,
        "agrees": seen == expected,
        "n_genes": 50,
        "log2": 0.1,
        "z": 3.5,
    }


CLONES = {
    "baseline": "own_normal_epithelium",
    "arm_checks": {
        "clone_1": [_check("1q", "gain", "gain"), _check("16q", "loss", "loss"), _check("9p24", "gain", "loss")],
        "clone_2": [
            _check("1q", "gain", "gain"),
            _check("16q", "loss", "no_change"),
            _check("9p24", "gain", "not_measurable"),
        ],
    },
    "marker_loci": {
        clone: [
            {"gene": "CD44", "locus": "11p13", "arm": "11p", "n_genes": 50, "log2": 0.4, "z": 4.2, "seen": seen},
            {"gene": "CD24", "locus": "6q21", "arm": "6q", "n_genes": 50, "log2": 0.0, "z": 0.1, "seen": "no_change"},
        ]
        for clone, seen in (("clone_1", "gain"), ("clone_2", "no_change"))
    },
    "her2": {
        "clone_1": {"amplified": False, "high": ["STARD3"], "measured": ["ERBB2", "GRB7", "STARD3"]},
        "clone_2": {"amplified": None, "high": [], "measured": ["ERBB2"]},
    },
}


def _write(table: pd.DataFrame, results: Path, name: str, sample: str = "cohort", **status: object) -> None:
    path = results / tables.CONTRACTS[name].path.format(sample=sample)
    for c in tables.CONTRACTS[name].columns:  # a contract may grow: what is not said here is NA, or a plain value
        if not c.pattern and c.name not in table.columns:
            plain = {"str": c.allowed[0] if c.allowed else "ok", "bool": False, "int": 1, "float": c.low or 0.0}[c.kind]
            table = table.assign(**{c.name: pd.NA if c.na and c.kind != "float" else np.nan if c.na else plain})
    io.write_table(table, path, name, Status(name, sample, **status))  # type: ignore[arg-type]


def _sample(results: Path, sample: str, n: int, rng: np.random.Generator, *, tumour: bool, macrophages: bool,
            assessable: bool, chemistry: str, genes: list[str]) -> dict[str, pd.DataFrame]:  # fmt: skip
    ids = [f"{sample}:c{i:05d}" for i in range(n)]
    counts = rng.lognormal(9, 0.5, n).round()
    reason = rng.choice(
        ["pass", "low_counts", "low_genes", "high_mito", "doublet"], n, p=[0.86, 0.04, 0.02, 0.04, 0.04]
    )
    qc = pd.DataFrame({
        "cell_id": ids, "n_counts": counts, "n_genes": (counts / 4).round(), "pct_mito": rng.gamma(3, 2, n).clip(0, 99),
        "pct_ribo": 12.0, "pct_hb": np.nan, "doublet_score": rng.random(n), "doublet": reason == "doublet",
        "qc_pass": reason == "pass", "qc_reason": reason,
    })  # fmt: skip
    _write(qc, results, "qc", sample,
           summary={"n_barcodes": n, "min_counts": 500, "min_genes": 250, "max_mito": 22.5, "doublets": "assessed",
                    "doublet_call": "automatic"})  # fmt: skip
    kept = qc.loc[qc["qc_pass"], "cell_id"].to_numpy()
    m = len(kept)
    types = rng.choice(TYPES, m, p=SHARES)
    if not macrophages:
        types = np.where(types == "myeloid", "t_nk", types)
    epi = types == "epithelial"
    call = np.full(m, "not_epithelial", dtype=object)
    call[epi] = rng.choice(
        ["malignant", "normal", "unassigned"], epi.sum(), p=[0.8, 0.12, 0.08] if tumour else [0, 0.98, 0.02]
    )
    mal = call == "malignant"
    cell_types = pd.DataFrame({
        "cell_id": kept, "sample": sample, "cluster": [str(TYPES.index(t)) for t in types], "cell_type": types,
        "cell_type_minor": types, "confidence": np.where(types == "unresolved", 0.4, rng.beta(20, 2, m)), "margin": 0.5,
        "runner_up": "t_nk", "cell_type_reason": np.where(types == "unresolved", "low_evidence", "ok"), "platelet": False,
        "cycling": rng.random(m) < 0.1, "cell_type_input": [INPUT.get(t, "Other") for t in types] if tumour else pd.NA,
    })  # fmt: skip
    rung = "ok" if tumour else "reference_other_chemistry"
    malignancy = pd.DataFrame({
        "cell_id": kept, "malignancy": call, "malignancy_status": np.where(epi, rung, "not_epithelial"),
        "cna_value": np.where(epi, rng.random(m), np.nan), "cna_correlation": np.where(epi, 0.4, np.nan),
        "clone": pd.array(np.where(mal, rng.integers(1, 3, m), -1), dtype="Int64"),
    })  # fmt: skip
    malignancy.loc[~mal, "clone"] = pd.NA
    _write(malignancy, results, "malignancy", sample, summary={
        "rung": "same_sample", "n_reference": {"t_nk": 120, "endothelial": 30},
        "reference_false_positive_rate": 0.007, "reference_false_positive_upper": 0.03, "n_caf": 20,
        "caf_malignant_share": 0.01, **(CLONES if tumour else {})})  # fmt: skip
    rows = []
    for group, size in (
        (("clone_1", 30), ("clone_2", 12), ("normal_epithelium", 10), ("caf", 15)) if tumour else (("reference", 50),)
    ):
        for chrom in range(1, 23):
            for w in range(6):
                value = 0.25 * (chrom in (1, 8)) - 0.2 * (chrom == 16) if group.startswith("clone") else 0.0
                rows.append((group, size, f"chr{chrom}", w * 10_000_000, w * 10_000_000 + 9_000_000,
                             f"{chrom}{'p' if w < 2 else 'q'}", value + rng.normal(0, 0.03)))  # fmt: skip
    _write(pd.DataFrame(rows, columns=["group", "n_cells", "chromosome", "start", "end", "arm", "value"]), results, "cnv",
           sample, summary={"reference": "same_sample"})  # fmt: skip
    scores = pd.DataFrame({"cell_id": kept, "compartment": np.where(mal, "malignant", types), "n_counts": 9000.0,
                           "foreign_share": np.where(mal, 0.0, np.nan),
                           "z_M1": rng.normal(size=m), "umi_CD44": 1.0})  # fmt: skip
    _write(scores, results, "scores", sample)
    prob = np.where(mal & assessable, rng.beta(0.3, 1.4, m), np.nan)
    state = np.select([prob > 0.8, prob < 0.2], ["m_csc", "other"], "undetermined").astype(object)
    state[np.isnan(prob)] = "not_assessable"
    csc = pd.DataFrame({
        "cell_id": kept, "m_csc_prob": prob, "csc_state": state,
        "csc_status": np.where(~mal, "not_malignant", "ok" if assessable else "not_informative_depth"),
        "cd24_informative": pd.array(np.where(mal, True, None), dtype="boolean"), "aldh1a3_prob": prob,
        "aldh1a3_lp_prob": prob, "aldh1a3_state": np.where(np.isnan(prob), "not_assessable", "low"),
        "aldh1a3_status": np.where(mal, "ok", "not_malignant"),
    })  # fmt: skip
    _write(csc, results, "csc", sample)
    _csc_nulls(results, sample, rng, ok=assessable and tumour)
    mye = kept[types == "myeloid"]
    z = rng.normal(0.5, 1, (len(mye), 2))
    tam = pd.DataFrame({
        "cell_id": mye, "myeloid_class": "macrophage", "m1_z": z[:, 0], "m2_z": z[:, 1],
        "tam_class": [["low", "m2_like", "m1_like", "mixed"][2 * (a > 1) + (b > 1)] for a, b in z],
        "tam_status": "ok", "tam_state": "mixed", "foreign_share": 0.0, "m1_z_adjusted": z[:, 0] - 0.1, "m2_z_adjusted": z[:, 1] - 0.1,
        "tam_class_adjusted": "low",
    })  # fmt: skip
    drawn = pd.DataFrame([{"adjustment": a, "draw": i, "value": v} for a in ("depth", "adjusted")
                          for i, v in enumerate([0.25, *rng.normal(0, 0.15, 60).clip(-1, 1)], start=-1)])  # fmt: skip
    _write(drawn if len(mye) else tables.empty("tam_draws"), results, "tam_draws", sample)
    if len(mye):
        _write(tam, results, "tam", sample)
    else:
        tam = tables.empty("tam")
        _write(tam, results, "tam", sample, status="too_few_macrophages", reason="0 macrophages, 20 needed")
    markers = {"epithelial": ["EPCAM", "KRT8"], "t_nk": ["CD3D"], "b_cell": ["MS4A1"], "myeloid": ["LYZ"],
               "endothelial": ["PECAM1"], "caf": ["COL1A1"], "pvl": ["RGS5"]}  # fmt: skip
    profile = [(g, t, int((types == t).sum()), int((types == t).sum() * (0.9 if g in markers.get(t, []) else 0.05)), 100.0,
                2.0 if g in markers.get(t, []) else 0.1) for t in TYPES for g in GENES if (types == t).any()]  # fmt: skip
    _write(pd.DataFrame(profile, columns=["gene", "cell_type", "n_cells", "n_positive", "sum_counts", "mean_lognorm"]),
           results, "profiles", sample)  # fmt: skip
    _write(tables.empty("ambient"), results, "ambient", sample, summary={"contamination_rate": 0.03})
    rows = []
    for axis, (arm, ligand, receptor, receiver) in AXES.items():
        for k, sender in enumerate(SENDERS):
            status = (
                "platelet_contamination"
                if axis == "PPBP"
                else ["tested", "ligand_not_detected", "too_few_cells"][k % 3]
            )
            if not assessable:
                status = "receptor_not_detected"
            ok = status == "tested"
            rows.append({
                "axis": axis, "arm": arm, "ligand": ligand, "receptor": receptor, "sender": sender, "receiver": receiver,
                "status": status, "reason": "" if ok else f"{ligand}: 2 UMI in {sender}, 10 needed", "n_sender": 25,
                "n_receiver": 180, "ligand_umi": 2.0, "ligand_fraction": 0.02, "ligand_upper": 0.11, "ligand_ambient_umi": 0.5,
                "receptor_umi": 3.0, "receptor_fraction": 0.03, "receptor_upper": 0.12, "receptor_ambient_umi": 0.4,
                "n_platelet": 12, "n_neutrophil": 3,
                **{c: (v if ok else np.nan) for c, v in {"strength": 0.4, "log2_effect": 1.0 + 0.2 * k, "z": 3.0, "p_label": 0.001,
                   "p_pair": 0.002, "p_decoy": 0.002, "p": 0.002, "q": 0.01, "q_usual": 0.005, "specificity": 1.5, "specificity_se": 0.3,
                   "matched_log2_strength": -1.0, "matched_log2_se": 0.4}.items()}, "matched_status": "tested" if ok else None,
            })  # fmt: skip
    crosstalk = pd.DataFrame(rows)
    _write(crosstalk, results, "crosstalk", sample)
    arms = []
    for axis in ("IL6_classic", "CXCL8"):
        for arm in ("A", "B", "C", "B_aldh1a3"):
            ok = axis == "IL6_classic" and assessable and not (arm == "C" and not macrophages)
            value = rng.normal(0.8, 0.4)
            response = arm.startswith("B")
            arms.append({"axis": axis, "arm": arm, "what": f"what {arm} asks of {axis}", "reason": "" if ok else "no receptor counts",
                         "status": "tested" if ok else "receptor_not_detected",
                         **{c: (v if ok else np.nan) for c, v in {
                             "effect": value, "effect_low": value - 0.4, "effect_high": value + 0.4, "z": 2.0, "p": 0.02,
                             **dict.fromkeys(("effect_stress", "effect_ifn", "effect_adjusted"), value - 0.1 if response else np.nan),
                             **dict.fromkeys(("p_raw", "p_stress", "p_ifn", "p_adjusted"), 0.02 if response else np.nan),
                             **dict.fromkeys(("p_label", "p_pair", "p_decoy"), np.nan if response else 0.015),
                             "niche_ligand": 1.0, "response": 0.2, "response_high": np.nan, "response_aldh1a3": np.nan,
                             "stress_level": 1.0, "ambient_rate": 0.02, "effect_beyond_stress": value - 0.1 if response else np.nan,
                             **dict.fromkeys(("p_beyond_stress", "p_stress_differs"), 0.02 if response else np.nan)}.items()}})  # fmt: skip
    loop = pd.DataFrame(arms)
    _write(loop, results, "loop_arms", sample)
    _write(pd.DataFrame([{
        "step": step, "gene": gene, "population": who, "status": "measured" if macrophages else "too_few_cells", "reason": "",
        "n_cells": 40, "umi": 30.0, "fraction": 0.4, "upper": 0.5, "ambient_umi": 1.0, "level": 1.25 if macrophages else np.nan}
        for step, gene, who in (("ligand", "IL1B", "macrophage"), ("receptor", "IL1R1", "caf"), ("response", "IL6", "caf"))]),
        results, "chain", sample)  # fmt: skip
    for name in ("moments", "evidence", "pseudobulk"):
        _write(tables.empty(name), results, name, sample)
    x = rng.poisson(1.0, (n, len(genes)))
    write_counts(results / "samples" / sample, x, genes, sample=sample, record={"chemistry": chemistry})
    return {
        "cell_types": cell_types,
        "malignancy": malignancy,
        "csc": csc,
        "tam": tam,
        "loop": loop,
        "crosstalk": crosstalk,
    }


READOUTS = ("EMT_malignant", "cell_cycle", "angiogenesis", "CXCR4", "CXCL12")
ADJUSTMENTS = ("none", "depth", "stress", "hypoxia", "ifn", "lp", "clone", "all", "all_and_cycle")


def _csc_nulls(results: Path, sample: str, rng: np.random.Generator, *, ok: bool) -> None:
    """Stand-in pairs, read-outs of the states and their null draws; ALDH1A3-high cells are always too few."""
    why = {} if ok else {"status": "not_informative_depth", "reason": "12 % informative, 50 % needed"}
    pairs = pd.DataFrame({
        "first": ["CD44", *[f"A{i}" for i in range(60)]], "second": ["CD24", *[f"B{i}" for i in range(60)]],
        "observed": [True, *[False] * 60], "fraction": [0.15, *rng.beta(2, 30, 60)], "log_odds": [-1.0, *rng.normal(0, 1, 60)],
    })  # fmt: skip
    _write(pairs if ok else tables.empty("csc_pairs"), results, "csc_pairs", sample, **why)
    rows = []
    for state in ("m_csc", "aldh1a3"):
        for readout in READOUTS:
            for adjustment in ADJUSTMENTS:
                tested = ok and state == "m_csc" and (readout, adjustment) != ("cell_cycle", "all_and_cycle")
                effect = rng.normal(0.1, 0.03)
                rows.append({
                    "state": state, "readout": readout, "adjustment": adjustment,
                    "status": "tested" if tested else "too_few_state_cells", "reason": "" if tested else "3 cells in the state; 20 needed",
                    "n_high": 30 if tested else 3, "n_low": 90, "n_genes": 12,
                    **{c: (v if tested else np.nan) for c, v in {
                        "effect": effect, "null_mean": 0.0, "null_sd": 0.02, "null_low": -0.04, "null_high": 0.04, "se": 0.02,
                        "p_sets": 0.002, "p_label": 0.01, "p": 0.01}.items()}})  # fmt: skip
    _write(pd.DataFrame(rows), results, "csc_readouts", sample, **why)
    draws = pd.DataFrame([
        {"what": f"m_csc {r}", "draw": i, "value": v} for r in READOUTS for i, v in enumerate(rng.normal(0, 0.02, 50))
    ])  # fmt: skip
    _write(draws if ok else tables.empty("csc_draws"), results, "csc_draws", sample, **why)


def _csc_cohort(results: Path, csc: list[dict[str, object]]) -> None:
    """Tables of the CSC states over patients, from the rows of the patient table."""
    who = [{k: r[k] for k in ("patient", "sample", "primary_sample", "subtype", "subtype_source")} for r in csc]
    good = [r["status"] == "ok" for r in csc]
    null = {"fraction": 0.15, "null_low": 0.01, "null_median": 0.05, "null_high": 0.1, "p_fraction": 0.016, "log_odds": -1.0,
            "odds_low": -2.0, "odds_median": 0.1, "odds_high": 2.0, "p_odds": 0.3}  # fmt: skip
    _write(pd.DataFrame([
        {**w, "status": r["status"], "reason": r["reason"], "n_pairs": 60 * ok, **{k: (v if ok else np.nan) for k, v in null.items()}}
        for w, r, ok in zip(who, csc, good, strict=True)]), results, "csc_nulls")  # fmt: skip
    _write(pd.DataFrame([{
        "state": s, "readout": r, "adjustment": a, "status": "ok" if s == "m_csc" and any(good) else "too_few_patients", "n_patients": 5,
        "n_assessable": sum(good) * (s == "m_csc"), "n_up": 2, "n_down": 0, "n_significant": 1,
        **{c: (v if s == "m_csc" and any(good) else np.nan) for c, v in {
            "effect": 0.1, "effect_low": 0.05, "effect_high": 0.15, "i2": 0.2}.items()}}
        for s in ("m_csc", "aldh1a3") for r in READOUTS for a in ADJUSTMENTS]), results, "csc_readout_cohort")  # fmt: skip
    _write(pd.DataFrame([
        {"patient": w["patient"], "sample": w["sample"], "score": "m_csc", "gene": g, "clone": f"clone_{k}", "locus": locus,
         "n_cells": 30 // k, "log2": 0.3 / k, "z": 4.0 / k, "seen": "gain" if k == 1 else "no_change",
         "mean": 0.1 * k if ok else np.nan, "se": 0.02 if ok else np.nan}
        for w, ok in zip(who, good, strict=True) if w["primary_sample"] for g, locus in (("CD44", "11p13"), ("CD24", "6q21"))
        for k in (1, 2)]), results, "csc_loci")  # fmt: skip
    _write(pd.DataFrame([
        {"score": "m_csc", "gene": "CD44", "status": "ok", "reason": "between tumours: 3 patients, 5 needed", "n_patients": 3,
         "rho": np.nan, "p": np.nan, "n_within": 2, "slope": -0.3, "slope_low": -0.9, "slope_high": 0.3},
        {"score": "EMT", "gene": "VIM", "status": "not_assessable", "reason": "between tumours: not asked", "n_patients": 0, "rho": np.nan,
         "p": np.nan, "n_within": 0, "slope": np.nan, "slope_low": np.nan, "slope_high": np.nan}]), results, "csc_locus_tests")  # fmt: skip
    strata = []
    for i, (w, r, ok) in enumerate(zip(who, csc, good, strict=True)):
        numbers = {"pten_umi": 150.0, "pten_rate": 0.4, "pten_rate_others": 0.8, "pten_ratio": 0.5, "pten_10q_log2": -0.2, "il6_umi": 9.0,
                   "il6_ambient_umi": 6.0, "il6_fraction": 0.03, "il6_upper": 0.05, "il6_p": 0.2}  # fmt: skip
        strata.append({
            **w, "treatment": None, "status": "ok" if ok else "too_few_malignant", "reason": "PTEN 150 UMI", "n_malignant": 52 * ok,
            "her2_amplicon": "amplified" if i == 2 else "not_amplified" if ok else "not_measurable", "pten": "low" if ok else "unknown",
            "pten_10q": "no_change" if ok else "not_measurable", "il6": "not_beyond_ambient" if ok else "not_measured",
            **{k: (v if ok else np.nan) for k, v in numbers.items()},
            **{k: r[k] for k in ("m_csc_fraction", "m_csc_low", "m_csc_high", "aldh1a3_fraction")}})  # fmt: skip
    _write(pd.DataFrame(strata), results, "her2_pten")
    isoforms = []
    for i, (w, ok) in enumerate(zip(who, good, strict=True)):
        for j, (gene, role) in enumerate(csc_isoforms.ROLES.items()):
            numbers = {
                "umi": 40.0 - j,
                "rate": 0.9,
                "fraction": 0.3 - 0.03 * j,
                "upper": 0.4,
                "ambient_umi": 5.0,
                "p": 1e-4,
            }
            isoforms.append({
                **w, "isoform": gene, "role": role, "n_malignant": 52 * ok,
                "status": "too_few_malignant" if not ok else "beyond_ambient" if i + j < 4 else "ambient_not_exceeded",
                **{k: (v if ok else np.nan) for k, v in numbers.items()}})  # fmt: skip
    _write(pd.DataFrame(isoforms), results, "csc_isoforms")
    _write(pd.DataFrame([
        {"chemistry": "10x", "outcome": o, "subtype": "TNBC", "status": "too_few_patients", "reason": "1 and 1; 3 of each are needed",
         "n_subtype": 1, "n_others": 1, "n_inferred": 0, "fraction": 0.1, "fraction_low": np.nan, "fraction_high": np.nan,
         "others_fraction": 0.2, "odds_ratio": np.nan, "odds_low": np.nan, "odds_high": np.nan, "p": np.nan}
        for o in ("m_csc", "aldh1a3")]), results, "csc_subtypes")  # fmt: skip
    _write(pd.DataFrame([
        {"stratum": s, "outcome": "m_csc_fraction", "status": "too_few_patients", "reason": "1 PTEN-low and 0 other tumours; 3 needed",
         "n_stratum": 1, "n_low": 1, "n_other": 0, "mean_low": 0.1, "mean_other": np.nan, "p": np.nan}
        for s in ("HER2-amplified", "not amplified", "all")]), results, "her2_pten_tests")  # fmt: skip


def _receptors(results: Path, samples: list[str], subtypes: list[str | None]) -> None:
    """Receptor status: the sheet of T1 and the RNA agree, that of the second differs, T4 has no word in the sheet."""
    from nicheloop.receptor_status import MARKERS

    rows = []
    for i, s in enumerate(samples):
        ok, sheet = i < 4, None if i == 3 else subtypes[i % 6]
        na = dict.fromkeys((f"{m}_{c}" for m in MARKERS for c in ("umi", "cpm", "low", "high", "ambient_cpm")), np.nan)
        numbers = {"er_umi": 0.0, "er_cpm": 0.0, "er_low": 0.0, "er_high": 7.4, "er_ambient_cpm": 1.0}
        rows.append({
            "patient": f"P{i}", "sample": s, "status": "ok" if ok else "unreadable" if i == 4 else "normal_tissue",
            "reason": "52 malignant cells", "subtype_sheet": sheet, "subtype_inferred": "TNBC" if ok else "undetermined",
            "subtype_used": sheet or ("TNBC" if ok else None), "subtype_source": "sheet" if sheet else "inferred" if ok else "none",
            "agreement": ("agrees" if sheet == "TNBC" else "differs") if ok and sheet else "not_compared",
            **dict.fromkeys(("er", "pr", "her2"), "negative" if ok else "not_measured"), "basal": "positive" if ok else "not_measured",
            "her2_amplicon": "not_amplified" if ok else "not_measurable", "n_malignant": 52 * ok, "total_umi": 500000.0 * ok,
            "ambient_source": "estimated" if ok else "none", **na, **(numbers if ok else {})})  # fmt: skip
    _write(pd.DataFrame(rows), results, "receptor_status")


def make(results: Path, *, cells: int = 160, assessable: bool = True, seed: int = 0, names: tuple[str, ...] | None = None,
         truth: bool = True, genes: int = 0) -> list[str]:  # fmt: skip
    """Write the folder and return its samples.

    The cohort holds a tumour named ``<script>``, one without macrophages, one too shallow for CD24, one that could
    not be read and a normal breast; with ``assessable=False`` no sample has an answer for CSC, TAM or loop.
    `genes`: as many genes as this, those of the axes among them.
    """
    rng = np.random.default_rng(seed)
    more = [g for axis in shipped.axes() for g in (*axis.ligands, *(s for r in axis.receptors for s in r))]
    names_of_genes = list(dict.fromkeys(GENES + more))[: max(genes, len(GENES))]
    samples = list(names or ("T1", "<script>", "T3", "T4", "T5", "N1"))
    subtypes = ["TNBC", "ER+", "HER2+", "TNBC", "ER+", None]
    per: dict[str, dict[str, pd.DataFrame]] = {}
    for i, s in enumerate(samples):
        chemistry = "10x 3' v3"
        extra = {"site": "A & B", "age": str(40 + i)}
        if i == 4:  # unreadable: every stage ends with an empty table and the reason
            why = {"status": "unreadable", "reason": "matrix.mtx.gz ends in the middle of a line"}
            record = record_of(
                s, 0, 0, patient=f"P{i}", subtype=subtypes[i % 6], tissue="primary tumour", is_counts=False, **why
            )
            for name, contract in tables.CONTRACTS.items():
                if "{sample}" in contract.path and not contract.optional:
                    _write(tables.empty(name), results, name, s, **why)
            write_counts(
                results / "samples" / s,
                np.zeros((0, len(GENES))),
                GENES,
                sample=s,
                record={k: v for k, v in record.items() if k not in ("sample", "n_cells", "n_genes")},
            )
        else:
            ok = assessable and i != 3
            per[s] = _sample(results, s, cells, rng, tumour=i != 5, macrophages=assessable and i != 2, assessable=ok and i != 5,
                             chemistry=chemistry, genes=names_of_genes)  # fmt: skip
            record = record_of(s, cells, len(GENES), patient=f"P{i}", subtype=subtypes[i % 6], chemistry=chemistry, dataset="demo",
                               tissue="normal" if i == 5 else "primary tumour", guards={"CD24": "present", "CD44": "present"},
                               extra=extra)  # fmt: skip
        io.write_json(results / "samples" / s / "ingest.json", record)

    everything = pd.concat([p["cell_types"] for p in per.values()], ignore_index=True)
    _write(everything, results, "cell_types")
    n = len(everything)
    centre = everything["cell_type"].map({t: i for i, t in enumerate(TYPES)}).to_numpy(float)
    shift = everything["sample"].map({s: i for i, s in enumerate(samples)}).to_numpy(float)
    embedding = pd.DataFrame({"cell_id": everything["cell_id"], "sample": everything["sample"]})
    for k in (1, 2, 3):
        embedding[f"pc_{k}"], embedding[f"harmony_{k}"] = rng.normal(size=n), rng.normal(size=n)
    angle = centre / 8 * 2 * np.pi
    embedding["umap_1"], embedding["umap_2"] = (
        6 * np.cos(angle) + rng.normal(size=n),
        6 * np.sin(angle) + rng.normal(size=n),
    )
    embedding["umap_raw_1"], embedding["umap_raw_2"] = embedding["umap_1"] + 2 * shift, embedding["umap_2"] + shift
    _write(embedding, results, "embedding")
    _write(everything[["cell_id", "sample", "cluster"]].assign(leiden_1=everything["cluster"]), results, "clusters",
           summary={"resolution": 1.0})  # fmt: skip
    _write(tables.empty("neighbors"), results, "neighbors")
    _write(tables.empty("hvg"), results, "hvg")
    _write(tables.empty("cnv_reference"), results, "cnv_reference")
    _write(pd.DataFrame([{
        "chemistry": "10x 3' v3", "gene": g, "status": "ok" if assessable else "one_component", "reason": "", "n_cells": 400,
        "low": 0.2, "high": 4.0, "shape": 3.0, "log_low_se": 0.1, "log_high_se": 0.05, "bic_gain": 120.0,
        "bic_gain_samples": -8.0 if g == "CD24" else 60.0, "lp_effect": np.nan, "lp_effect_se": np.nan, "lp_centre": np.nan}
        for g in ("CD44", "CD24", "ALDH1A3")]), results, "csc_rates")  # fmt: skip

    csc, tams, loops, controls = [], [], [], []
    for i, s in enumerate(samples):
        base = {"patient": f"P{i}", "sample": s, "primary_sample": i != 5, "subtype": subtypes[i % 6],
                "subtype_source": "inferred" if i == 3 else "sheet" if subtypes[i % 6] else None}  # fmt: skip
        ok = assessable and i not in (3, 4, 5)
        status = "ok" if ok else {4: "unreadable", 5: "too_few_malignant"}.get(i, "not_informative_depth")
        f = rng.uniform(0.05, 0.2)
        csc.append({
            **base, "chemistry": "10x 3' v3", "treatment": None, "status": status,
            "reason": "" if ok else "12 % of malignant cells informative for CD24, 50 % needed", "n_malignant": 52 * (i < 4), "n_foreign": 3 * (i < 4),
            "informative_fraction": 0.8 if ok else 0.12, "median_umi": 9000.0,
            **{c: (v if ok else np.nan) for c, v in {"m_csc_fraction": f, "m_csc_low": f - 0.04, "m_csc_high": f + 0.06,
               "odds_ratio": 1.5, "naive_fraction": f + 0.08, "aldh1a3_fraction": f / 2, "aldh1a3_low": f / 4, "aldh1a3_high": f,
               "aldh1a3_lp_fraction": f / 3, "overlap_fraction": 0.01, "overlap_expected": 0.012, "emt_z_csc": 0.4,
               "cycling_z_csc": -0.2}.items()},
            "m_csc_wording": "distinguishable from zero" if ok else None, "aldh1a3_status": "ok" if ok else status,
        })  # fmt: skip
        mac = (ok and i != 2) or (assessable and i == 3)
        status = "ok" if mac else "unreadable" if i == 4 else "too_few_macrophages"
        tams.append({
            **base, "status": status, "reason": "" if mac else "0 macrophages, 20 needed", "n_myeloid": 30 * mac,
            "n_macrophage": 24 * mac, "n_monocyte": 5 * mac,
            **{c: (v if mac else np.nan) for c, v in {"m1_median": 0.3, "m2_median": 0.8, "fraction_m1_like": 0.2,
               "fraction_m2_like": 0.4, "fraction_mixed": 0.1, "fraction_low": 0.3, "m1_m2_rho": 0.25, "rho_null_low": -0.3,
               "rho_null_median": 0.0, "rho_null_high": 0.3, "p_rho": 0.1, "m1_m2_rho_adjusted": 0.2, "rho_adjusted_null_median": 0.0,
               "p_rho_adjusted": 0.2, "m1_level": 0.5, "m2_level": 0.6,
               **{f"fraction_{c}{e}": v for c, v in (("m1_like", 0.3), ("m2_like", 0.4), ("mixed", 0.1), ("low", 0.2))
                  for e in ("_z0.5", "_z1.5", "_adjusted")}}.items()},
        })  # fmt: skip
        for axis in ("IL6_classic", "CXCL8"):
            yes = ok and i != 2 and axis == "IL6_classic"
            loops.append({
                **{k: v for k, v in base.items() if k != "primary_sample"}, "axis": axis,
                "status": "assessable" if yes else "arm_c_receptor_not_detected",
                "verdict": ("all three arms present" if i == 0 else "not present") if yes else "not assessable",
                "reason": "" if yes else "arm C: 0 macrophages, 20 needed", "aldh1a3_status": "arm_b_aldh1a3_not_assessable",
                "aldh1a3_verdict": "not assessable", "aldh1a3_reason": "arm B: no ALDH1A3-high cell",
                **dict.fromkeys(("p_b_aldh1a3", "p_aldh1a3", "aldh1a3_score"), np.nan),
                **{c: (v if yes else np.nan) for c, v in {"p_a": 0.01, "p_b": 0.02, "p_c": 0.03, "p": 0.03, "score": 1.9}.items()},
            })  # fmt: skip
        for t, f in (("malignant", 0.1), ("t_nk", 0.7), ("caf", 0.8), ("pvl", 0.5)):
            if i != 4:
                controls.append(
                    {"sample": s, "cell_type": t, "n_cells": 50, "fraction_called": f if assessable else np.nan}
                )
    _write(pd.DataFrame(csc), results, "csc_patients")
    _receptors(results, samples, subtypes)
    _csc_cohort(results, csc)
    _write(pd.DataFrame(tams), results, "tam_patients")
    _write(pd.DataFrame([
        {"sample": t["sample"], "gene": g, "status": "ok" if t["n_macrophage"] else "too_few_macrophages", "n_macrophage": t["n_macrophage"],
         **{c: (v if t["n_macrophage"] else np.nan) for c, v in {"rate": 2.0, "fraction": 0.5, "upper": 0.7}.items()}}
        for t in tams for g in ("CD163", "MRC1", "CD86", "SIGLEC1", "CCL8")]), results, "tam_markers")  # fmt: skip
    _write(pd.DataFrame([
        {"adjustment": a, "status": "ok" if assessable else "too_few_patients", "n_patients": 5, "n_assessable": 2 * assessable,
         **{c: (v if assessable else np.nan) for c, v in {"rho": 0.2, "rho_low": -0.1, "rho_high": 0.5, "excess": 0.1, "excess_low": -0.2,
            "excess_high": 0.4, "i2": 0.1}.items()}} for a in ("depth", "adjusted")]), results, "tam_cohort")  # fmt: skip
    _write(pd.DataFrame(loops), results, "loop")
    _write(pd.DataFrame(controls), results, "csc_controls")
    _write(pd.DataFrame([{
        "axis": a, "n_patients": 5, "n_assessable": 2 * (a == "IL6_classic"), "n_present": int(a == "IL6_classic"),
        "status": "too_few_patients", "wording": "2 of 5 patients are assessable, 10 are needed for a claim about the cohort.",
        "coupling_forward": np.nan, "p_forward": np.nan, "coupling_return": np.nan, "p_return": np.nan,
        "n_asked": 4, "aldh1a3_n_assessable": 0, "aldh1a3_n_present": 0, "aldh1a3_status": "not_assessable",
        "aldh1a3_wording": "No statement about a loop.",
        **dict.fromkeys(("present_low", "present_high", "p_present", "q", "detectable_rho", "coupling_forward_high",
                         "p_forward_high", "coupling_forward_aldh1a3", "p_forward_aldh1a3", "aldh1a3_present_low",
                         "aldh1a3_present_high", "aldh1a3_p_present", "aldh1a3_q"), np.nan),
        **{f"p_{k}_adjusted": np.nan for k in ("forward", "forward_high", "forward_aldh1a3", "return")},
        **{f"n_swapped_{k}": 0 for k in ("forward", "forward_high", "forward_aldh1a3", "return")},
        "strata": "TNBC/demo: 1 (too small)"} for a in ("IL6_classic", "CXCL8")]), results, "loop_cohort")  # fmt: skip
    _write(pd.DataFrame([{
        "axis": a, "arm": AXES[a][0], "sender": s, "receiver": AXES[a][3], "n_patients": 4, "n_assessable": 3 * (k % 3 == 0),
        "n_significant": 2 * (k % 3 == 0), "status": "ok" if k % 3 == 0 else "ligand_not_detected",
        "reason": "3 of 4: ligand not detected", **dict.fromkeys(("effect", "effect_low", "effect_high"), 1.0 if k % 3 == 0 else np.nan),
        "max_upper_ligand": 0.11, "max_upper_receptor": np.nan, "n_matched": 2 * (k % 3 == 0), "n_significant_usual": 3 * (k % 3 == 0), "sign_changes": None, "power": "n = 3",
        **dict.fromkeys(("effect_loo_low", "effect_loo_high", "specificity", "specificity_low", "specificity_high", "i2",
                         "specificity_loo_low", "specificity_loo_high", "detectable_specificity", "detectable_rho",
                         "effect_matched", "effect_matched_low", "effect_matched_high"), np.nan)} for a in AXES for k, s in enumerate(SENDERS)]), results, "axes")  # fmt: skip
    _write(pd.DataFrame([{
        "axis": "IL6_classic", "sender": "icaf", "receiver": "malignant", "subtype": s, "n_patients": 2, "n_inferred": int(s == "TNBC"), "n_assessable": k,
        "n_significant": 1, "effect": -0.5, "effect_low": -1.25, "effect_high": 0.25,
        **dict.fromkeys(("specificity", "specificity_low", "specificity_high"), np.nan)} for k, s in ((2, "TNBC"), (1, "unknown_subtype"))]),
        results, "axis_subtypes")  # fmt: skip
    _write(pd.DataFrame([{
        "control": c, "axis": f"CTRL_{c}", "ligand": c.split("-")[0], "receptor": c.split("-")[1], "sender": "endothelial",
        "receiver": "endothelial", "n_patients": 5, "n_with_cells": k, "n_tested": k, "n_significant": k, "p": 1e-5 if k else np.nan,
        "verdict": "positive" if k else "not assessable", "reason": "significant in " + "every one of the patients with its cells; " * 6}
        for c, k in (("DLL4-NOTCH4", 4), ("CD40LG-CD40", 0))]), results, "axis_controls")  # fmt: skip
    _write(pd.DataFrame([{
        "patient": p, "sample": s, "status": "ok", "reason": f"{n} decoys tested", "n_tested": n, "n_significant": k, "fraction": k / n,
        "fraction_low": k / n / 2, "fraction_high": k / n * 2, "n_significant_usual": u, "fraction_usual": u / n, "p_excess": 0.6,
        "verdict": "no more than the level"}
        for p, s, n, k, u in (("P0", samples[0], 250, 10, 100), ("cohort", "cohort", 250, 10, 100))]), results, "decoys")  # fmt: skip
    _write(pd.DataFrame([{
        "link": k, "what": f"{k} with IL6 of caf", "n_patients": 5, "n_assessable": 4, "n_swapped": 0, "status": "too_few_patients",
        "rho": 0.4, "rho_low": -0.8, "rho_high": 0.9, "coupling": np.nan, "p": np.nan, "strata": "TNBC in demo: 1 (too small)",
        "detectable_rho": 0.99, "wording": "No statement: 4 of 5 patients are assessable, 10 are needed."}
        for k in ("chain", "ligand", "receptor")]), results, "chains")  # fmt: skip
    _write(pd.DataFrame([{
        "contrast": c, "status": "too_few_patients", "reason": "2 patients with both states, 3 needed", "gene": "-", "n_patients": 2, "circular": False,
        **dict.fromkeys(("mean_counts", "log2_fold_change", "statistic", "p", "q"), np.nan)} for c in ("m_csc", "tam_m2")]),
        results, "de")  # fmt: skip
    _write(pd.DataFrame([
        {"contrast": "m_csc", "status": "ok", "reason": "", "gene_set": f"HALLMARK_{k}", "size": 50 + k, "nes": (-1) ** k * (2.5 - k / 10),
         "p": 0.01, "q": 0.02, "leading_edge": "VIM;FN1;CD44"} for k in range(12)]
        + [{"contrast": "tam_m2", "status": "too_few_patients", "reason": "2 patients, 3 needed", "gene_set": "-", "size": pd.NA,
            "nes": np.nan, "p": np.nan, "q": np.nan, "leading_edge": None}]), results, "enrichment")  # fmt: skip
    if truth:
        demo = results / "demo"
        demo.mkdir(parents=True, exist_ok=True)
        mal = pd.concat([p["malignancy"].set_index("cell_id")["malignancy"] for p in per.values()])
        cells_truth = pd.DataFrame({
            "cell_id": everything["cell_id"], "sample": everything["sample"],
            "cell_type": everything["cell_type"].replace("unresolved", "t_nk"),
            "malignant": (mal.reindex(everything["cell_id"]) == "malignant").to_numpy(), "doublet": rng.random(n) < 0.03})  # fmt: skip
        cells_truth["csc_state"] = np.where(cells_truth["malignant"] & (rng.random(n) < 0.15), "m_csc", "other")
        cells_truth.to_csv(
            demo / "truth_cells.tsv.gz", sep="\t", index=False, compression={"method": "gzip", "mtime": 0}
        )
        pd.DataFrame({"sample": samples, "loop_planted": ["yes", "no", "no", "no", "no", "no"], "csc_fraction": [0.15] * 5 + [0.0]}).to_csv(
            demo / "truth_samples.tsv", sep="\t", index=False)  # fmt: skip
    return samples
