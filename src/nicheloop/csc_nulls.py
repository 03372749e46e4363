"""Nulls of one sample's CSC calls: pairs of genes like CD44 and CD24, read-outs of the states.  See docs/csc.md."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import csc_pairs, io, patients, state_readouts
from nicheloop.csc import assess_m_csc
from nicheloop.csc_rates import GENES, chemistry_of, rates_in_sample, rates_of, read_ambient, read_scores, size_of
from nicheloop.errors import NotAssessable

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_states import Csc, Scoring


def stream(seed: int, sample: str) -> int:
    """Seed of a sample's own stream, so that its numbers do not depend on the other samples."""
    return int(np.random.SeedSequence([seed, zlib.crc32(sample.encode())]).generate_state(1)[0])


def arms_of(symbols: np.ndarray) -> np.ndarray:
    """(genes,) chromosome arm; empty for genes that are not on an autosome or not placed."""
    from nicheloop import cnv, genes

    table = genes.table().reindex(symbols)
    placed = table["chromosome"].isin(cnv.AUTOSOMES) & table["arm"].notna()
    return np.where(placed, table["arm"].astype(object), "")


def pair_null(
    source: io.Counts, sample: pd.DataFrame, rates: dict[str, Any], *, options: Csc, seed: int
) -> csc_pairs.Pairs:
    """Pairs of stand-ins in a sample, or why they cannot be had: the reasons of the CD44+/CD24- call come first.

    Parameters
    ----------
    sample
        Score table of the sample.
    rates
        gene -> `GeneRates` as they hold in the sample.
    """
    found = assess_m_csc(sample, rates, options=options)
    if not found.ok:
        return csc_pairs.Pairs(found.status, found.reason)
    cells = sample[sample["compartment"] == "malignant"].sort_values("cell_id", kind="stable")
    if len(cells) > options.max_null_cells:
        chosen = np.random.default_rng(seed).choice(len(cells), options.max_null_cells, replace=False)
        cells = cells.iloc[np.sort(chosen)]
    counts = source.matrix(cells=cells["cell_id"]).tocsc()
    pair = (rates["CD44"].rates, rates["CD24"].rates)
    return csc_pairs.matched_pairs(
        counts, list(source.genes), list(arms_of(source.genes)), size_of(cells), pair, n_pairs=options.n_matched_pairs,
        n_genes=options.n_matched_genes, fold=options.match_fold, seed=seed, leave_out=GENES,
    )  # fmt: skip


def pairs_table(found: csc_pairs.Pairs) -> pd.DataFrame | None:
    """Rows of the csc_pairs contract: the observed pair first, then its stand-ins; None where there are none."""
    import pandas as pd

    if found.fraction is None or found.log_odds is None:
        return None
    return pd.DataFrame({
        "first": ["CD44", *found.first], "second": ["CD24", *found.second],
        "observed": [True, *[False] * len(found.first)],
        "fraction": [found.observed_fraction, *found.fraction],
        "log_odds": [found.observed_log_odds, *found.log_odds],
    })  # fmt: skip


def run_csc_nulls(
    counts: str | Path,
    scores: str | Path,
    csc: str | Path,
    malignancy: str | Path,
    rates: str | Path,
    ambient: str | Path,
    out: str | Path,
    out_readouts: str | Path,
    out_draws: str | Path,
    *,
    options: Csc,
    scoring: Scoring,
    seed: int,
) -> None:
    """Nulls of one sample (contracts ``csc_pairs``, ``csc_readouts``, ``csc_draws``); the ``csc-nulls`` stage."""
    import pandas as pd

    source = io.Counts(counts)
    also: dict[str, str | Path] = {"csc_readouts": out_readouts, "csc_draws": out_draws}
    with io.stage_output(out, "csc_pairs", stage="csc-nulls", sample=source.sample, also=also) as result:
        source.require(counts=True)
        if patients.is_normal(source.record):
            raise NotAssessable("normal_tissue", "normal tissue, not a tumour")
        sample, states = read_scores(scores), io.read_table(csc)
        if sample.empty:
            upstream = io.read_status(scores)
            raise NotAssessable(upstream.status if not upstream.ok else "no_cells", upstream.reason or "no cell")
        seed = stream(seed, source.sample)
        z = io.read_table(scores)
        cells = z[z["compartment"] == "malignant"].sort_values("cell_id", kind="stable")
        clone = io.read_table(malignancy, columns=["cell_id", "clone"]).set_index("cell_id")["clone"]
        cells = cells.assign(clone=clone.reindex(cells["cell_id"]).to_numpy(dtype=float, na_value=np.nan))
        cells = cells.merge(states[["cell_id", "csc_state", "aldh1a3_state"]], on="cell_id", how="left")
        if len(cells):
            logged = io.lognormalise(source.matrix(cells=cells["cell_id"]))
            rows, draws = [], []
            for state in state_readouts.STATES:
                found, nulls = state_readouts.contrasts(
                    logged, list(source.genes), cells, state, options=options, scoring_options=scoring, seed=seed
                )
                rows += found
                draws.append(state_readouts.null_table(state, nulls))
            result.extra["csc_readouts"] = pd.DataFrame(rows)
            result.extra["csc_draws"] = pd.concat(draws, ignore_index=True)
        here = rates_in_sample(
            sample,
            rates_of(io.read_table(rates), chemistry_of(source.record)),
            options=options,
            ambient=read_ambient(ambient),
        )
        pairs = pair_null(source, sample, here, options=options, seed=seed)
        result.table = pairs_table(pairs)
        result.summary = {"pairs_status": pairs.status, "pairs_reason": pairs.reason}
        if pairs.status != "ok":
            raise NotAssessable(pairs.status, pairs.reason)
