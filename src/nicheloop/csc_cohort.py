"""CSC states over patients: nulls, read-outs, copy number at the markers' loci, HER2 and PTEN.  See docs/csc.md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import csc_isoforms, csc_loci, csc_subtypes, her2_pten, io, patients, state_readouts, stats
from nicheloop.csc_rates import read_ambient

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_states import Csc


def null_row(pairs: pd.DataFrame, status: io.Status, confidence: float) -> dict[str, Any]:
    """Row of the ``csc_nulls`` contract of one sample: the observed pair within its stand-ins.

    p_fraction: one-sided, as many CD44-high/CD24-low cells as that; p_odds: two-sided, genes that go together or apart
    as far as that.
    """
    row: dict[str, Any] = {"status": status.status, "reason": status.reason, "n_pairs": 0}
    names = (
        "fraction",
        "null_low",
        "null_median",
        "null_high",
        "p_fraction",
        "log_odds",
        "odds_low",
        "odds_median",
        "odds_high",
        "p_odds",
    )
    row |= dict.fromkeys(names, np.nan)
    if not len(pairs):
        return row
    own, null = pairs[pairs["observed"]].iloc[0], pairs[~pairs["observed"]]
    tails = [(1 - confidence) / 2, 0.5, (1 + confidence) / 2]
    fraction, odds = null["fraction"].to_numpy(dtype=np.float64), null["log_odds"].to_numpy(dtype=np.float64)
    low, median, high = np.quantile(fraction, tails)
    odds_low, odds_median, odds_high = np.quantile(odds, tails)
    return row | {
        "reason": str(status.summary.get("pairs_reason", "")), "n_pairs": len(null), "fraction": float(own["fraction"]),
        "null_low": low, "null_median": median, "null_high": high,
        "p_fraction": float(stats.permutation_p(float(own["fraction"]), fraction)), "log_odds": float(own["log_odds"]),
        "odds_low": odds_low, "odds_median": odds_median, "odds_high": odds_high,
        "p_odds": state_readouts.two_sided(float(own["log_odds"]), odds),
    }  # fmt: skip


def pool_readouts(rows: pd.DataFrame, *, confidence: float, alpha: float) -> pd.DataFrame:
    """Rows of the ``csc_readout_cohort`` contract: each read-out of each state over patients, raw and adjusted.

    Parameters
    ----------
    rows
        ``csc_readouts`` of primary tumours with a column sample.
    """
    import pandas as pd

    out = []
    for state in state_readouts.STATES:
        for readout in state_readouts.READOUTS:
            for adjustment in state_readouts.ADJUSTMENTS:
                part = rows[
                    (rows["state"] == state) & (rows["readout"] == readout) & (rows["adjustment"] == adjustment)
                ]
                tested = part[part["status"] == "tested"]
                meta = stats.random_effects(tested["effect"] - tested["null_mean"], tested["se"], confidence)
                sign = np.sign(tested["effect"] - tested["null_mean"])
                out.append({
                    "state": state, "readout": readout, "adjustment": adjustment, "n_patients": len(part),
                    "n_assessable": len(tested), "n_up": int((sign > 0).sum()), "n_down": int((sign < 0).sum()),
                    "n_significant": int((tested["p"] < alpha).sum()), "effect": meta.effect,
                    "effect_low": meta.low, "effect_high": meta.high, "i2": meta.i2,
                    "status": "ok" if meta.n > 1 else "too_few_patients",
                })  # fmt: skip
    return pd.DataFrame(out)


def run_csc_cohort(
    csc: list[Path],
    scores: list[Path],
    malignancy: list[Path],
    ambient: list[Path],
    pairs: list[Path],
    readouts: list[Path],
    records: list[Path],
    csc_patients: str | Path,
    out: str | Path,
    out_readouts: str | Path,
    out_loci: str | Path,
    out_locus_tests: str | Path,
    out_her2_pten: str | Path,
    out_her2_pten_tests: str | Path,
    out_isoforms: str | Path,
    out_subtypes: str | Path,
    *,
    options: Csc,
    seed: int,
) -> None:
    """Gather what the CSC calls are worth, per patient and over patients; the ``csc-cohort`` stage."""
    import pandas as pd

    also: dict[str, str | Path] = {
        "csc_readout_cohort": out_readouts, "csc_loci": out_loci, "csc_locus_tests": out_locus_tests,
        "her2_pten": out_her2_pten, "her2_pten_tests": out_her2_pten_tests, "csc_isoforms": out_isoforms,
        "csc_subtypes": out_subtypes,
    }  # fmt: skip
    with io.stage_output(out, "csc_nulls", stage="csc-cohort", also=also) as result:
        table = io.read_table(csc_patients)
        known = [io.read_json(r) for r in records]
        about = ["patient", "sample", "primary_sample", "subtype", "subtype_source", "treatment"]
        fractions = ["m_csc_fraction", "m_csc_low", "m_csc_high", "aldh1a3_fraction"]
        said = {str(r["sample"]): r for r in table.to_dict("records")}
        nulls, loci, strata, effects, without_counts, isoforms = [], [], [], [], [], []
        for i, record in enumerate(known):
            sample = str(record["sample"])
            row = said[sample]
            who = {k: row[k] for k in about}
            primary = bool(row["primary_sample"])
            nulls.append(
                {
                    **{k: who[k] for k in about[:5]},
                    **null_row(io.read_table(pairs[i]), io.read_status(pairs[i]), options.confidence),
                }
            )
            if primary:
                effects.append(io.read_table(readouts[i]).assign(sample=sample))
            cells, calls = io.read_table(scores[i]), io.read_table(malignancy[i], columns=["cell_id", "clone"])
            summary = io.read_status(malignancy[i]).summary
            cells = cells.astype({c: float for c in cells.columns if c not in ("cell_id", "compartment")})
            states = io.read_table(csc[i])[["cell_id", "m_csc_prob", "aldh1a3_prob"]]
            malignant = (
                cells[cells["compartment"] == "malignant"]
                .merge(states, on="cell_id", how="left")
                .merge(calls, on="cell_id", how="left")
            )
            clones = {f"clone_{int(k)}": int(n) for k, n in malignant["clone"].value_counts().items()}
            if patients.is_normal(record):
                continue
            if primary:
                found = csc_loci.clone_rows(malignant, summary.get("marker_loci") or {})
                loci += [{"patient": who["patient"], "sample": sample, **f} for f in found]
            rates = read_ambient(ambient[i], ("IL6", *csc_isoforms.ROLES))
            found = csc_isoforms.isoform_rows(cells, rates, is_counts=bool(record["is_counts"]), options=options)
            isoforms += [{**{k: who[k] for k in about[:5]}, **f} for f in found]
            strata.append(
                {
                    **who,
                    "chemistry": row["chemistry"],
                    **her2_pten.sample_row(cells, summary, clones, rates, options),
                    **{k: row[k] for k in fractions},
                }
            )
            if not record["is_counts"]:
                without_counts.append(sample)
        if nulls:
            result.table = pd.DataFrame(nulls)
        loci_table = pd.DataFrame(loci) if loci else pd.DataFrame(columns=["sample", "score", "gene", "mean", "log2"])
        if loci:
            result.extra["csc_loci"] = loci_table
        result.extra["csc_locus_tests"] = csc_loci.locus_tests(
            loci_table,
            n_permutations=options.n_label_permutations,
            confidence=options.confidence,
            seed=seed,
            min_patients=options.min_correlation,
        )
        if effects:
            result.extra["csc_readout_cohort"] = pool_readouts(
                pd.concat(effects, ignore_index=True), confidence=options.confidence, alpha=options.alpha
            )
        tumours = {str(r["sample"]) for r in known if not patients.is_normal(r)}
        speaking = table[table["primary_sample"].astype(bool) & table["sample"].isin(tumours)]
        if contrasts := csc_subtypes.subtype_contrasts(speaking, options=options, seed=seed).to_dict("records"):
            result.extra["csc_subtypes"] = pd.DataFrame(contrasts)
        if isoforms:
            result.extra["csc_isoforms"] = pd.DataFrame(isoforms)
        if strata:
            read = her2_pten.read_pten(pd.DataFrame(strata), options)
            read.loc[read["sample"].isin(without_counts), ["status", "reason"]] = (
                "no_counts", "the matrix holds normalised values (such as TPM), not counts",
            )  # fmt: skip
            result.extra["her2_pten"] = read
            chosen = result.extra["her2_pten"].loc[lambda t: t["primary_sample"].astype(bool)]
            result.extra["her2_pten_tests"] = her2_pten.stratum_tests(chosen, options=options, seed=seed)
        result.summary = {"n_samples": len(nulls), "n_with_null": sum(n["status"] == "ok" for n in nulls)}
