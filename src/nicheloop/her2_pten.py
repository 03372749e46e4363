"""HER2 and PTEN per tumour: the stratum in which an autocrine IL6 loop was described.  See docs/csc.md.

In HER2-amplified tumours that lose PTEN, tumour cells and CSC were seen to make IL6 themselves (Korkaya 2012,
doi 10.1016/j.molcel.2012.06.014).  This lays the pieces side by side; it does not test resistance to treatment.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import stats
from nicheloop.score import MIXED

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_states import Csc

PTEN_REGION = "10q23.3"


def her2_status(checks: Mapping[str, Mapping[str, Any]]) -> str:
    """Amplicon by expression over the clones: amplified, some_clones, not_amplified or not_measurable."""
    said = [c.get("amplified") for c in checks.values()]
    known = [bool(s) for s in said if s is not None]
    if not known:
        return "not_measurable"
    return "amplified" if all(known) else "some_clones" if any(known) else "not_amplified"


def pten_copies(checks: Mapping[str, list[dict[str, Any]]], sizes: Mapping[str, int]) -> tuple[str, float]:
    """What is seen at 10q23.3 in the largest clone, and its log2 difference; ties by name."""
    for name in sorted(checks, key=lambda k: (-sizes.get(k, 0), k)):
        for entry in checks[name]:
            if entry["region"] == PTEN_REGION:
                return str(entry["seen"]), float(entry["log2"]) if entry["log2"] is not None else float("nan")
    return "not_measurable", float("nan")


def rate_of(cells: pd.DataFrame, gene: str) -> tuple[float, float, float]:
    """Counts of a gene, all counts, and counts per 10,000 of some cells; NaN where the gene is not in the reference."""
    column = f"umi_{gene}"
    total = float(cells["n_counts"].sum())
    if column not in cells or not np.isfinite(cells[column].to_numpy(dtype=float)).any():
        return float("nan"), total, float("nan")
    umi = float(cells[column].sum())
    return umi, total, umi / total * 1e4 if total > 0 else float("nan")


def beyond_ambient(cells: pd.DataFrame, gene: str, ambient_rate: float) -> dict[str, float]:
    """Counts of a gene in some cells against those that ambient RNA would bring.

    Parameters
    ----------
    cells
        n_counts, umi_<gene>.
    ambient_rate
        Ambient counts per 10,000; NaN: not estimated.

    Returns
    -------
    umi, rate (per 10,000), fraction (of cells with the gene), upper (bound of that fraction, rule of three where it is
    0), ambient_umi (expected), p (one-sided, Poisson); NaN where the gene is not in the reference, there is no cell,
    or ambient RNA was not estimated.
    """
    from scipy.special import pdtrc

    nan = float("nan")
    umi, total, rate = rate_of(cells, gene)
    out = {"umi": umi, "rate": rate, "fraction": nan, "upper": nan, "ambient_umi": nan, "p": nan}
    if np.isfinite(umi) and len(cells):
        positive = int((cells[f"umi_{gene}"] > 0).sum())
        out["fraction"], out["upper"] = positive / len(cells), stats.upper_bound(positive, len(cells))
        if np.isfinite(ambient_rate):
            out["ambient_umi"] = ambient_rate * total / 1e4
            # pdtrc is P(X > k): k = counts - 1 makes it P(X >= counts)
            p = float(pdtrc(umi - 1, max(out["ambient_umi"], 1e-12))) if umi > 0 else 1.0
            out["p"] = max(p, float(np.finfo(float).tiny))  # never 0: it is smaller than can be written
    return out


def sample_row(
    scores: pd.DataFrame,
    malignancy: Mapping[str, Any],
    clones: Mapping[str, int],
    ambient: Mapping[str, float],
    options: Csc,
) -> dict[str, Any]:
    """Row of the ``her2_pten`` contract of one sample, without who it is, its CSC fractions and what `read_pten` adds.

    Parameters
    ----------
    scores
        Score table: compartment, n_counts, umi_PTEN, umi_IL6.
    malignancy
        Summary of the malignancy stage (her2, arm_checks per clone).
    clones
        Clone name -> cells.
    ambient
        gene -> ambient rate, counts per 10,000; NaN or left out: not estimated.
    """
    cells = scores[scores["compartment"] == "malignant"]
    others = scores[~scores["compartment"].isin(["malignant", MIXED, "epithelial", "unresolved"])]
    nan = float("nan")
    row: dict[str, Any] = {
        "n_malignant": len(cells), "her2_amplicon": her2_status(malignancy.get("her2") or {}),
        "pten_umi": nan, "pten_rate": nan, "pten_rate_others": nan, "pten_ratio": nan,
        "il6_umi": nan, "il6_ambient_umi": nan, "il6_fraction": nan, "il6_upper": nan, "il6_p": nan,
    }  # fmt: skip
    row["pten_10q"], row["pten_10q_log2"] = pten_copies(malignancy.get("arm_checks") or {}, clones)
    enough = len(cells) >= options.min_malignant
    if enough:
        row["pten_umi"], _, row["pten_rate"] = rate_of(cells, "PTEN")
        _, _, row["pten_rate_others"] = rate_of(others, "PTEN")
        il6 = beyond_ambient(cells, "IL6", float(ambient.get("IL6", nan)))
        row |= {f"il6_{name}": il6[name] for name in ("umi", "ambient_umi", "fraction", "upper", "p")}
    row["il6"] = (
        "not_measured"
        if not np.isfinite(row["il6_umi"])
        else "ambient_not_estimated"
        if not np.isfinite(row["il6_p"])
        else "beyond_ambient"
        if row["il6_p"] < options.alpha
        else "not_beyond_ambient"
    )
    return row


def read_pten(table: pd.DataFrame, options: Csc) -> pd.DataFrame:
    """Add what PTEN reads as (``pten``, ``pten_ratio``, ``status``, ``reason``) to the rows of `sample_row`.

    Parameters
    ----------
    table
        Rows of all samples with chemistry (empty: a group of its own) and primary_sample.

    Notes
    -----
    Low: 10q23.3 lost in the largest clone, or PTEN at `pten_low_fold` of the median over the other primary tumours of
    the chemistry, at least `min_stratum` of them.  Stroma and immune cells are no measure: they hold more PTEN than
    epithelium does, lost or not.
    """
    import pandas as pd

    chemistry = table["chemistry"].fillna("unknown").astype(str)
    speaks = table["primary_sample"].astype(bool) & table["pten_rate"].notna()
    rows = []
    for i, row in enumerate(table.to_dict("records")):
        others = table.loc[
            speaks & (chemistry == chemistry.iloc[i]) & (table["patient"] != row["patient"]), "pten_rate"
        ]
        ratio = float("nan")
        if len(others) >= options.min_stratum and float(others.median()) > 0:
            ratio = float(row["pten_rate"]) / float(others.median())
        low = None if not np.isfinite(ratio) else ratio <= options.pten_low_fold
        lost = {"loss": True, "no_change": False, "gain": False}.get(str(row["pten_10q"]))
        known = [v for v in (low, lost) if v is not None]
        row |= {"pten_ratio": ratio, "pten": "unknown" if not known else "low" if any(known) else "not_low"}
        if row["n_malignant"] < options.min_malignant:
            needed = f"{row['n_malignant']} malignant cells, {options.min_malignant} needed"
            row |= {"status": "too_few_malignant", "reason": needed, "pten": "unknown"}
        elif row["pten"] == "unknown":
            why = f"10q cannot be read, and {len(others)} other tumours of the chemistry show PTEN"
            row |= {"status": "pten_not_measurable", "reason": f"{why} ({options.min_stratum} needed)"}
        else:
            told = f"{ratio:.2f} of the median of {len(others)} other tumours" if np.isfinite(ratio) else "not compared"
            umi = f"{row['pten_umi']:.0f} UMI" if np.isfinite(row["pten_umi"]) else "not in the reference"
            row |= {"status": "ok", "reason": f"PTEN in malignant cells: {umi}, {told}; 10q23.3: {row['pten_10q']}"}
        rows.append(row)
    return pd.DataFrame(rows)


def exact_p(values: np.ndarray, group: np.ndarray, *, max_listed: int, n_draws: int, seed: int) -> float:
    """Two-sided p of a difference of means, over all divisions of the patients; `n_draws` of more than `max_listed`."""
    n, k = len(values), int(group.sum())
    observed = values[group].mean() - values[~group].mean()
    total = values.sum()
    if comb(n, k) <= max_listed:
        sums = np.array([values[list(c)].sum() for c in combinations(range(n), k)])
        null = np.abs(sums / k - (total - sums) / (n - k))
        return float((null >= abs(observed) - 1e-12).mean())
    rng = np.random.default_rng(seed)
    sums = np.array([rng.permutation(values)[:k].sum() for _ in range(n_draws)])
    return float(stats.permutation_p(observed, sums / k - (total - sums) / (n - k), alternative="two-sided"))


OUTCOMES = {
    "m_csc_fraction": "CD44+/CD24- fraction", "aldh1a3_fraction": "ALDH1A3-high fraction",
    "il6_excess": "IL6 of malignant cells beyond ambient",
}  # fmt: skip


def stratum_tests(table: pd.DataFrame, *, options: Csc, seed: int) -> pd.DataFrame:
    """PTEN-low against other tumours, in HER2-amplified ones, the others, and all; one row per stratum and outcome.

    Parameters
    ----------
    table
        ``her2_pten`` of primary tumours.

    Returns
    -------
    Rows of the ``her2_pten_tests`` contract.  The patient is the unit; a side with fewer than ``min_stratum`` patients
    gives ``too_few_patients`` and its n.
    """
    import pandas as pd

    excess = (table["il6_umi"] - table["il6_ambient_umi"]) / table["n_malignant"].where(table["n_malignant"] > 0)
    table = table.assign(il6_excess=excess)
    her2 = table["her2_amplicon"].isin(["amplified", "some_clones"])
    strata = {"HER2-amplified": her2, "not amplified": table["her2_amplicon"] == "not_amplified", "all": her2 | True}
    rows = []
    for stratum, members in strata.items():
        for outcome, words in OUTCOMES.items():
            part = table[members & table["pten"].isin(["low", "not_low"]) & table[outcome].notna()]
            low = (part["pten"] == "low").to_numpy(dtype=bool)
            values = part[outcome].to_numpy(dtype=np.float64)
            n_low, n_other = int(low.sum()), int((~low).sum())
            row: dict[str, Any] = {
                "stratum": stratum, "outcome": outcome, "n_stratum": int(members.sum()), "n_low": n_low,
                "n_other": n_other,
                "mean_low": float(values[low].mean()) if n_low else np.nan,
                "mean_other": float(values[~low].mean()) if n_other else np.nan, "p": np.nan,
            }  # fmt: skip
            said = f"{n_low} PTEN-low and {n_other} other tumours of {row['n_stratum']} with a {words}"
            if min(n_low, n_other) < options.min_stratum:
                row |= {"status": "too_few_patients", "reason": f"{said}; {options.min_stratum} of each are needed"}
            else:
                p = exact_p(values, low, max_listed=options.max_listed, n_draws=options.n_label_permutations, seed=seed)
                row |= {
                    "status": "tested",
                    "p": p,
                    "reason": f"{said}; smallest p possible {smallest(n_low, n_other):.2g}",
                }
            rows.append(row)
    return pd.DataFrame(rows)


def smallest(a: int, b: int) -> float:
    """Smallest two-sided p that a division of a + b patients can give."""
    return (2 if a == b else 1) / comb(a + b, a)
