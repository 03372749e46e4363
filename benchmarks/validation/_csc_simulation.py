"""Simulated tumours with a known CD44 x CD24 state, and five ways of counting the CD44+/CD24- cells.

Rates are estimated from the tumour itself: the hardest case, a cohort of one.  The field's rules use no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_states import Csc

Floats = NDArray[np.float64]

# low/low, low/high, high/low, high/high of CD44 x CD24; the middle one is the fraction asked for
TRUTHS: dict[str, tuple[float, float, float, float]] = {
    "0.5 %": (0.045, 0.75, 0.005, 0.20),
    "5 %, independent": (0.15, 0.60, 0.05, 0.20),
    "10 %, associated": (0.10, 0.70, 0.10, 0.10),
    "10 %, independent": (0.15, 0.35, 0.15 * 0.5 / 0.75, 0.40),
    "30 %, associated": (0.10, 0.45, 0.30, 0.15),
}
DEPTHS = (2_000, 5_000, 10_000, 15_000, 20_000, 40_000)
LOW44, HIGH44, LOW24, HIGH24, SHAPE = 0.2, 3.0, 0.2, 4.0, 3.0  # UMI per 10,000, and the gamma shape
METHODS = ("joint", "counts", "product", "score_sd", "score_top")
WORDS = {
    "joint": "nicheloop",
    "counts": "CD44 > 0 and CD24 = 0",
    "product": "product of posteriors",
    "score_sd": "score above mean + 1 SD",
    "score_top": "score in the top 10 %",
}


def weights_of(truth: str) -> Floats:
    """(4,) joint weights; they are scaled to sum to 1."""
    w = np.array(TRUTHS[truth])
    return w / w.sum()


def tumour(weights: Floats, median: float, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Score table of one tumour (SCIENCE-style simulation): library log-normal with sd 0.5, gamma-Poisson counts."""
    import pandas as pd

    umi = np.maximum(np.round(rng.lognormal(np.log(median), 0.5, n)), 1)
    state = rng.choice(4, n, p=weights)
    rate44, rate24 = np.where(state // 2, HIGH44, LOW44), np.where(state % 2, HIGH24, LOW24)
    counts = [rng.poisson(rng.gamma(SHAPE, r / SHAPE) * umi / 1e4).astype(np.float64) for r in (rate44, rate24)]
    return pd.DataFrame(
        {
            "cell_id": [f"s:{i:05d}" for i in range(n)],
            "compartment": "malignant",
            "n_counts": umi,
            "umi_CD44": counts[0],
            "umi_CD24": counts[1],
            "umi_ALDH1A3": np.nan,
            "level_LP_covariate": np.nan,
            "truth": state,
        }
    )


def score(table: pd.DataFrame) -> Floats:
    """(cells,) CD44 less CD24, log-normalised: what a score of the two genes ranks cells by."""
    a, b = (np.log1p(table[f"umi_{g}"] / table["n_counts"] * 1e4).to_numpy(dtype=np.float64) for g in ("CD44", "CD24"))
    return a - b


@dataclass(frozen=True)
class Answer:
    """Fractions by method (NaN: no answer), the interval and status of ours, and ours below the eligible depth."""

    fraction: dict[str, float]
    low: float
    high: float
    status: str
    shallow: float
    odds: float


def answer(table: pd.DataFrame, options: Csc, rng: np.random.Generator) -> Answer:
    """Every way of counting, on one tumour."""
    from nicheloop import csc, csc_patients, csc_rates
    from nicheloop import csc_model as model

    rates = csc_rates.estimate_rates([table], [{}], options=options)
    states, found, _ = csc.call_cells(table, rates, options=options)
    row = csc_patients.summarise(table, states, rates, options=options, rng=rng)
    x44, x24 = table["umi_CD44"].to_numpy(), table["umi_CD24"].to_numpy()
    product = np.nan
    if all(rates[g].rates is not None for g in ("CD44", "CD24")):
        size = csc_rates.size_of(table)
        posteriors = []
        for g, x in (("CD44", x44), ("CD24", x24)):
            log_lik = rates[g].rates.log_lik(x, size)  # type: ignore[union-attr]
            posteriors.append(model.posterior(log_lik, model.fit_weights(log_lik)[0]))
        product = float((posteriors[0][1] * posteriors[1][0]).mean())
    s = score(table)
    fraction = {
        "joint": float(row["m_csc_fraction"]),
        "counts": float(((x44 > 0) & (x24 == 0)).mean()),
        "product": product,
        "score_sd": float((s > s.mean() + s.std()).mean()),
        "score_top": float(np.mean(s >= np.quantile(s, 0.9, method="higher"))),
    }
    shallow = float(found.shallow[0][csc.M_CSC]) if found.shallow is not None else np.nan
    return Answer(
        fraction,
        float(row["m_csc_low"]),
        float(row["m_csc_high"]),
        str(row["status"]),
        shallow,
        float(row["odds_ratio"]),
    )


def grid_point(truth: str, depth: int, repeats: int, n: int, seed: int) -> list[dict[str, Any]]:
    """Repeats of one point of the grid, one row each."""
    from nicheloop.config_states import Csc

    options, w = Csc(), weights_of(truth)
    rows = []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, list(TRUTHS).index(truth), depth, repeat])
        got = answer(tumour(w, depth, n, rng), options, rng)
        rows.append(
            {
                "truth": truth,
                "depth": depth,
                "true": float(w[2]),
                "status": got.status,
                "low": got.low,
                "high": got.high,
                "shallow": got.shallow,
                **got.fraction,
            }
        )
    return rows


def thinned(table: pd.DataFrame, share: float, rng: np.random.Generator) -> pd.DataFrame:
    """Keep each UMI with probability `share`: counts of the genes are part of the library."""
    out = table.copy()
    rest = table["n_counts"] - table["umi_CD44"] - table["umi_CD24"]
    for c in ("umi_CD44", "umi_CD24"):
        out[c] = rng.binomial(table[c].astype(int), share).astype(float)
    out["n_counts"] = np.maximum(rng.binomial(rest.astype(int), share) + out["umi_CD44"] + out["umi_CD24"], 1.0)
    return out


def depth_runs(truth: str, median: int, repeats: int, n: int, seed: int) -> list[dict[str, Any]]:
    """Tumours as they are and with half and a quarter of their UMI: is the fraction inside the first interval."""
    from nicheloop.config_states import Csc

    options, w, rows = Csc(), weights_of(truth), []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, 77, list(TRUTHS).index(truth), median, repeat])
        whole = tumour(w, median, n, rng)
        first = answer(whole, options, rng)
        for share in (1.0, 0.5, 0.25):
            got = first if share == 1.0 else answer(thinned(whole, share, rng), options, rng)
            rows.append(
                {
                    "truth": truth,
                    "median UMI": median,
                    "kept": share,
                    "status": got.status,
                    "joint": got.fraction["joint"],
                    "counts": got.fraction["counts"],
                    "first": first.fraction["joint"],
                    "first counts": first.fraction["counts"],
                    "low": first.low,
                    "high": first.high,
                    "own low": got.low,
                    "own high": got.high,
                }
            )
    return rows


def shuffled(truth: str, median: int, repeats: int, n: int, seed: int) -> list[dict[str, Any]]:
    """CD24 counts exchanged between cells of like depth: the association is gone, margins and depth stay."""
    from nicheloop import csc_pairs
    from nicheloop.config_states import Csc

    options, w, rows = Csc(), weights_of(truth), []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, 78, list(TRUTHS).index(truth), median, repeat])
        table = tumour(w, median, n, rng).sort_values("n_counts", kind="stable").reset_index(drop=True)
        for kind in ("as it is", "shuffled"):
            if kind == "shuffled":
                order = np.concatenate([rng.permutation(b) for b in np.array_split(np.arange(n), max(n // 20, 1))])
                table = table.assign(umi_CD24=table["umi_CD24"].to_numpy()[order])
            rows.append({"labels": kind, "log_odds": _log_odds(table, options, csc_pairs.log_odds)})
    return rows


def _log_odds(table: pd.DataFrame, options: Csc, log_odds: Any) -> float:
    from nicheloop import csc, csc_rates

    rates = csc_rates.estimate_rates([table], [{}], options=options)
    found = csc.assess_m_csc(table, csc_rates.rates_in_sample(table, rates, options=options), options=options)
    return float(log_odds(found.weights, len(table))) if found.weights is not None else float("nan")
