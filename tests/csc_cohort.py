"""Score tables of simulated tumours with a known joint state, and the rates they are drawn from."""

from __future__ import annotations

import numpy as np
import pandas as pd

from nicheloop.config_states import Csc
from nicheloop.csc_model import Rates
from nicheloop.csc_rates import GeneRates

KNOWN = {
    "CD44": GeneRates("ok", "", 0, Rates(0.2, 3.0, 3.0)),
    "CD24": GeneRates("ok", "", 0, Rates(0.2, 4.0, 3.0)),
    "ALDH1A3": GeneRates("ok", "", 0, Rates(0.1, 4.0, 3.0)),
}
ASSOCIATED = np.array([0.10, 0.70, 0.10, 0.10])  # low/low, low/high, high/low, high/high
INDEPENDENT = np.outer([0.75, 0.25], [0.2, 0.8]).ravel()  # high/low 5 %
HALF_PERCENT = np.array([0.045, 0.75, 0.005, 0.20])
OPTIONS = Csc(n_bootstrap=60)


def counts(rng: np.random.Generator, rate: np.ndarray, size: np.ndarray, shape: float = 3.0) -> np.ndarray:
    return rng.poisson(rng.gamma(shape, rate / shape) * size).astype(float)


def simulate(
    seed: int,
    *,
    n: int = 400,
    weights: np.ndarray = ASSOCIATED,
    median: float = 11000,
    sample: str = "s1",
    aldh: float = 0.3,
    others: int = 0,
    lp: float = 0.0,
    lp_shift: float = 0.0,
    lp_spread: float = 1.0,
    aldh_low: float = 0.1,
    rates: tuple[float, float, float, float] = (0.2, 3.0, 0.2, 4.0),
) -> pd.DataFrame:
    """Score table of one tumour; column ``truth`` is the joint state.

    `rates`: low and high of CD44, low and high of CD24.  `lp_shift`: luminal-progenitor level of the whole tumour.
    """
    rng = np.random.default_rng(seed)
    umi = np.round(rng.lognormal(np.log(median), 0.5, n))
    size, state = umi / 1e4, rng.choice(4, n, p=weights)
    z = lp_shift + lp_spread * rng.standard_normal(n)
    high = rng.random(n) < aldh
    table = pd.DataFrame({
        "cell_id": [f"{sample}:c{i:04d}" for i in range(n)], "compartment": "malignant", "n_counts": umi, "foreign_share": 0.0,
        "umi_CD44": counts(rng, np.where(state // 2, rates[1], rates[0]), size),
        "umi_CD24": counts(rng, np.where(state % 2, rates[3], rates[2]), size),
        "umi_ALDH1A3": counts(rng, np.where(high, 4.0, aldh_low) * np.exp(lp * z), size),
        "level_LP_covariate": np.maximum(5.0 + z, 0.0), "z_EMT_malignant": np.where(state == 2, 2.0, 0.0), "z_G2M": 0.0, "truth": state,
    })  # fmt: skip
    parts = [table]
    for kind, rate in (("t_nk", 3.0), ("caf", 3.0), ("pvl", 0.2)):
        if others:
            s = np.full(others, 0.9)
            parts.append(pd.DataFrame({
                "cell_id": [f"{sample}:{kind}{i}" for i in range(others)], "compartment": kind, "n_counts": 9000.0, "foreign_share": np.nan,
                "umi_CD44": counts(rng, np.full(others, rate), s), "umi_CD24": counts(rng, np.full(others, 0.05), s),
                "umi_ALDH1A3": 0.0, "level_LP_covariate": 0.1, "z_EMT_malignant": np.nan, "z_G2M": 0.0, "truth": -1,
            }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def without(table: pd.DataFrame, gene: str) -> pd.DataFrame:
    return table.assign(**{f"umi_{gene}": np.nan})
