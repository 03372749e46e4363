"""CSC fractions of one subtype against the other tumours, the patient as the unit.  See docs/csc.md.

Logit-normal model: the logit of a tumour's fraction has the error of its own interval and a spread between patients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nicheloop import stats
from nicheloop.her2_pten import exact_p

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_states import Csc

Floats = NDArray[np.float64]

OUTCOMES = ("m_csc", "aldh1a3")  # also what the columns fraction, low and high begin with


def logits(table: pd.DataFrame, prefix: str, confidence: float) -> tuple[Floats, Floats]:
    """(patients,) logit of a fraction and its standard error, from the interval; half a cell stands for none."""
    from scipy.special import logit, ndtri

    half = 0.5 / np.maximum(table["n_malignant"].to_numpy(dtype=np.float64), 1.0)
    value, low, high = (
        np.clip(table[f"{prefix}_{end}"].to_numpy(dtype=np.float64), half, 1 - half)
        for end in ("fraction", "low", "high")
    )
    return logit(value), (logit(high) - logit(low)) / (2 * ndtri(0.5 + confidence / 2))


def difference(one: stats.Meta, other: stats.Meta, confidence: float) -> tuple[float, float, float]:
    """Difference of two random-effects means with its interval (Welch); NaN where a side has fewer than two tumours."""
    from scipy.special import stdtrit

    if one.n < 2 or other.n < 2:
        return (float("nan"),) * 3
    df = np.array([one.n - 1, other.n - 1], dtype=np.float64)
    half = np.array([m.high - m.low for m in (one, other)]) / 2
    variance = (half / stdtrit(df, 0.5 + confidence / 2)) ** 2
    welch = variance.sum() ** 2 / (variance**2 / df).sum()
    value = one.effect - other.effect
    reach = float(stdtrit(welch, 0.5 + confidence / 2)) * float(np.sqrt(variance.sum()))
    return value, value - reach, value + reach


def subtype_contrasts(table: pd.DataFrame, *, options: Csc, seed: int) -> pd.DataFrame:
    """Every subtype of a chemistry against its other tumours.

    Parameters
    ----------
    table
        ``csc_patients`` of primary tumours.

    Returns
    -------
    Rows of the ``csc_subtypes`` contract: pooled fractions, odds ratio with interval, and p over all divisions of the
    patients.  Fractions of different chemistries rest on different rates and are not compared.  A side with fewer than
    ``min_stratum`` tumours gives ``too_few_patients``; tumours of unknown subtype are counted and take no part.
    """
    import pandas as pd
    from scipy.special import expit

    chemistry = table["chemistry"].fillna("unknown").astype(str)
    subtype = table["subtype"].astype(object).where(table["subtype"].notna(), "")
    rows = []
    for name in sorted(set(chemistry)):
        for outcome in OUTCOMES:
            here = (chemistry == name) & table[f"{outcome}_fraction"].notna()
            part, kind = table[here & (subtype != "")], subtype[here & (subtype != "")]
            y, se = logits(part, outcome, options.confidence)
            unknown = int(here.sum()) - len(part)
            for group in sorted({str(s) for s in subtype[(chemistry == name) & (subtype != "")]}):
                mine = (kind == group).to_numpy(dtype=bool)
                one, other = (stats.random_effects(y[m], se[m], options.confidence) for m in (mine, ~mine))
                n, m = int(mine.sum()), int((~mine).sum())
                ok = min(n, m) >= options.min_stratum
                odds = difference(one, other, options.confidence) if ok else (np.nan,) * 3
                row: dict[str, Any] = {
                    "chemistry": name, "outcome": outcome, "subtype": group,
                    "status": "tested" if ok else "too_few_patients",
                    "reason": f"{n} tumours of the subtype and {m} others with a fraction"
                    + ("" if ok else f"; {options.min_stratum} of each are needed")
                    + (f"; {unknown} of unknown subtype left out" if unknown else ""),
                    "n_subtype": n, "n_others": m,
                    "n_inferred": int((part["subtype_source"] == "inferred").sum()),
                    "fraction": float(expit(one.effect)), "fraction_low": float(expit(one.low)),
                    "fraction_high": float(expit(one.high)), "others_fraction": float(expit(other.effect)),
                    **dict(zip(("odds_ratio", "odds_low", "odds_high"), (float(np.exp(v)) for v in odds), strict=True)),
                    "p": exact_p(
                        y, mine, max_listed=options.max_listed, n_draws=options.n_label_permutations, seed=seed
                    ) if ok else np.nan,
                }  # fmt: skip
                rows.append(row)
    return pd.DataFrame(rows)
