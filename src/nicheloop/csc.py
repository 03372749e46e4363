"""CD44+/CD24- and ALDH1A3-high cells: a depth-aware posterior for every malignant cell.  See docs/csc.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import csc_model as model
from nicheloop import io
from nicheloop.csc_model import Array
from nicheloop.csc_rates import (
    GENES,
    GeneRates,
    absent_status,
    chemistry_of,
    covariate_of,
    estimate_rates,
    rates_in_sample,
    rates_of,
    read_ambient,
    read_scores,
    size_of,
    umi_of,
)
from nicheloop.errors import NotAssessable, UserError
from nicheloop.score import MIXED

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from nicheloop.config_states import Csc

M_CSC = 2  # CD44 high, CD24 low among low/low, low/high, high/low, high/high


@dataclass(frozen=True)
class Assessment:
    """What the model says of one sample's malignant cells; arrays are (cells,) and None where not assessable."""

    status: str
    reason: str
    informative: np.ndarray | None = None
    weights: Array | None = None
    prob: Array | None = None
    log_lik: Array | None = None
    shallow: tuple[Array, Array] | None = None  # weights and probability below the eligible depth: not an answer

    @property
    def ok(self) -> bool:
        """Whether there is a posterior."""
        return self.status == "ok"

    @property
    def informative_fraction(self) -> float:
        """Share of informative cells; NaN where rates are not estimated or no cell is there."""
        known = self.informative is not None and len(self.informative) > 0
        return float(np.mean(self.informative)) if known else float("nan")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------- per sample
def _obstacle(
    genes: tuple[str, ...], sample: pd.DataFrame, n: int, rates: dict[str, GeneRates], options: Csc
) -> tuple[str, str] | None:
    """Status and reason that stand before any fit; None where there is none."""
    for gene in genes:
        if len(sample) and not np.isfinite(umi_of(sample, gene)).any():
            return absent_status(gene), f"{gene} is not in the reference of this sample"
    if n < options.min_malignant:
        return "too_few_malignant", f"{n} malignant cells, {options.min_malignant} needed"
    for gene in genes:
        found = rates.get(gene)
        if found is None:
            return "rates_not_estimated", f"no rates of {gene} for this chemistry"
        if found.rates is None:
            status = found.status if found.status == "not_bimodal" else "rates_not_estimated"
            return status, found.reason
    return None


def _sample_obstacle(genes: tuple[str, ...], rates: dict[str, GeneRates]) -> tuple[str, str] | None:
    """Status and reason of `rates_in_sample` that forbid an answer; None where there is none."""
    found = [rates[g] for g in genes if rates[g].status != "ok"]
    return (found[0].status, "; ".join(f.reason for f in found)) if found else None


def _assess(
    genes: tuple[str, ...], state: int, sample: pd.DataFrame, rates: dict[str, GeneRates], options: Csc
) -> Assessment:
    cells = sample[sample["compartment"] == "malignant"]
    size, last = size_of(cells), genes[-1]
    informative = None
    found = rates.get(last)
    if found is not None and found.rates is not None and (not len(sample) or np.isfinite(umi_of(sample, last)).any()):
        informative = model.zero_probability(size, found.rates.high, found.rates.shape) <= options.informative_zero
    obstacle = _obstacle(genes, sample, len(cells), rates, options)
    if obstacle is not None:
        return Assessment(*obstacle, informative)
    assert informative is not None
    if informative.mean() < options.min_informative:
        reason = (
            f"{int(informative.sum())} of {len(cells)} malignant cells are so deep that no {last} count means low "
            f"(P(0 | high) <= {options.informative_zero:g}); {options.min_informative:.0%} needed"
        )
        log_lik = log_lik_of(genes, cells, size, rates)
        weights, _ = model.fit_weights(log_lik)
        below = weights, model.posterior(log_lik, weights)[state]
        return Assessment("not_informative_depth", reason, informative, shallow=below)
    obstacle = _sample_obstacle(genes, rates)
    if obstacle is not None:
        return Assessment(*obstacle, informative)
    log_lik = log_lik_of(genes, cells, size, rates)
    weights, _ = model.fit_weights(log_lik)
    prob = model.posterior(log_lik, weights)[state]
    reason = f"{len(cells)} malignant cells, {informative.mean():.0%} informative"
    reason = "; ".join([reason, *(rates[g].reason for g in genes if rates[g].note)])
    return Assessment("ok", reason, informative, weights, prob, log_lik)


def log_lik_of(genes: tuple[str, ...], cells: pd.DataFrame, size: Array, rates: dict[str, GeneRates]) -> Array:
    parts = []
    for gene in genes:
        found = rates[gene].rates
        assert found is not None
        parts.append(found.log_lik(umi_of(cells, gene), size))
    return parts[0] if len(parts) == 1 else model.joint_log_likelihood(parts[0], parts[1])


def assess_m_csc(sample: pd.DataFrame, rates: dict[str, GeneRates], *, options: Csc) -> Assessment:
    """Fit the four joint CD44 x CD24 weights of a sample's malignant cells and give P(CD44 high, CD24 low | counts).

    Parameters
    ----------
    sample
        Score table of the sample, all cells (compartment, n_counts, umi_CD44, umi_CD24).
    rates
        gene -> `GeneRates` of the sample's chemistry.
    """
    return _assess(("CD44", "CD24"), M_CSC, sample, rates, options)


def assess_aldh1a3(sample: pd.DataFrame, rates: dict[str, GeneRates], *, options: Csc) -> Assessment:
    """Fit the weight of the ALDH1A3-high state and give P(ALDH1A3 high | counts); arguments as `assess_m_csc`."""
    return _assess(("ALDH1A3",), 1, sample, rates, options)


def lp_adjusted(sample: pd.DataFrame, rates: dict[str, GeneRates]) -> tuple[Array, Array, Array]:
    """P(ALDH1A3 high) with the expected rate multiplied by the effect of luminal-progenitor likeness.

    The covariate is the level of the set, centred on the malignant cells of the chemistry: a tumour that is
    luminal-progenitor-like as a whole is adjusted, not only its cells among each other.

    Returns
    -------
    The probability (cells,), the weights (2,) of the low and the high state, and the adjusted library sizes (cells,);
    all NaN where the effect is not estimated or the covariate is not measurable in the sample.
    """
    cells = sample[sample["compartment"] == "malignant"]
    found, covariate = rates["ALDH1A3"].rates, covariate_of(cells)
    if found is None or not np.isfinite(found.effect) or not np.isfinite(covariate).any():
        missing = np.full(len(cells), np.nan)
        return missing, np.full(2, np.nan), missing
    size = found.adjusted_size(size_of(cells), covariate)
    log_lik = found.log_lik(umi_of(cells, "ALDH1A3"), size)
    weights, _ = model.fit_weights(log_lik)
    return np.where(np.isfinite(covariate), model.posterior(log_lik, weights)[1], np.nan), weights, size


def _states(prob: Array, high: str, low: str, options: Csc) -> np.ndarray:
    return np.where(prob > options.positive, high, np.where(prob < options.negative, low, "undetermined"))


def call_cells(
    sample: pd.DataFrame, rates: dict[str, GeneRates], *, options: Csc, ambient: dict[str, float] | None = None
) -> tuple[pd.DataFrame, Assessment, Assessment]:
    """State of every cell of a sample: one row per row of `sample`, in its order, as the csc contract says.

    `rates` are those of the chemistry, `ambient` gene -> ambient rate of the sample; see `rates_in_sample`.
    """
    import pandas as pd

    rates = rates_in_sample(sample, rates, options=options, ambient=ambient)
    malignant = (sample["compartment"] == "malignant").to_numpy(dtype=bool)
    n = len(sample)
    out: dict[str, Any] = {"cell_id": sample["cell_id"].to_numpy()}
    m_csc, aldh = assess_m_csc(sample, rates, options=options), assess_aldh1a3(sample, rates, options=options)

    def spread(values: np.ndarray | None, dtype: Any = float, missing: Any = np.nan) -> np.ndarray:
        full = np.full(n, missing, dtype=dtype)
        if values is not None:
            full[malignant] = values
        return full

    for found, prob, state, status, names in (
        (m_csc, "m_csc_prob", "csc_state", "csc_status", ("m_csc", "other")),
        (aldh, "aldh1a3_prob", "aldh1a3_state", "aldh1a3_status", ("high", "low")),
    ):
        called = None if found.prob is None else _states(found.prob, *names, options)
        out[prob], out[state] = spread(found.prob), spread(called, object, "not_assessable")
        out[status] = np.where(malignant, found.status, "not_malignant").astype(object)
        out[status][(sample["compartment"] == MIXED).to_numpy(dtype=bool)] = "foreign_rna"
    out["cd24_informative"] = spread(m_csc.informative, object, pd.NA)
    out["aldh1a3_lp_prob"] = spread(lp_adjusted(sample, rates)[0] if aldh.ok else None)
    return pd.DataFrame(out), m_csc, aldh


# ------------------------------------------------------------------------------------------------------------ files
def cause_of(status: str, reason: str, upstream: dict[str, Any]) -> str:
    """Add to the words for too few malignant cells what the malignancy stage said, from the summary of the scores."""
    said = upstream.get("malignancy") or {}
    if status != "too_few_malignant" or not said:
        return reason
    counts = ", ".join(f"{n} epithelial cells {name}" for name, n in sorted(said.get("epithelial", {}).items()))
    why = [said["status"] if said["status"] != "ok" else "", counts or "no epithelial cell"]
    return f"{reason} (malignancy: {'; '.join(w for w in why if w)})"


def run_csc(
    scores: str | Path, rates: str | Path, record: str | Path, ambient: str | Path, out: str | Path, *, options: Csc
) -> None:
    """Call every cell of one sample; the ``csc`` stage.  One row per row of `scores`."""
    import pandas as pd

    known = io.read_json(record)
    with io.stage_output(out, "csc", stage="csc", sample=str(known["sample"])) as result:
        if known["status"] != "ok":
            raise NotAssessable(known["status"], known["reason"])
        table, upstream = read_scores(scores), io.read_status(scores)
        if table.empty:
            reason = upstream.reason or "no cell passed quality control"
            raise NotAssessable("no_cells" if upstream.ok else upstream.status, reason)
        if not known["is_counts"]:
            malignant = table["compartment"] == "malignant"
            status = np.where(malignant, "no_counts", "not_malignant")
            result.table = pd.DataFrame({
                "cell_id": table["cell_id"], "m_csc_prob": np.nan, "csc_state": "not_assessable", "csc_status": status,
                "cd24_informative": pd.NA, "aldh1a3_prob": np.nan, "aldh1a3_lp_prob": np.nan,
                "aldh1a3_state": "not_assessable", "aldh1a3_status": status,
            })  # fmt: skip
            raise NotAssessable("no_counts", "the matrix holds normalised values (such as TPM), not counts")
        found = rates_of(io.read_table(rates), chemistry_of(known))
        own = read_ambient(ambient)
        result.table, m_csc, aldh = call_cells(table, found, options=options, ambient=own)
        result.summary = {
            "n_malignant": int((table["compartment"] == "malignant").sum()),
            "n_foreign": int((table["compartment"] == MIXED).sum()),
            "n_m_csc": int((result.table["csc_state"] == "m_csc").sum()),
            "informative_fraction": m_csc.informative_fraction,
            "aldh1a3_status": aldh.status,
            # NaN: not estimated; the low rate of the chemistry holds alone
            "ambient_rate": {g: own.get(g, float("nan")) for g in GENES},
        }
        if not m_csc.ok:
            raise NotAssessable(m_csc.status, cause_of(m_csc.status, m_csc.reason, upstream.summary))


# ---------------------------------------------------------------------------------------------------------- AnnData
def score(
    adata: AnnData, *, rates: pd.DataFrame | None = None, malignant: str | None = None, chemistry: str = "unknown",
    layer: str | None = None, options: Csc | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Call CD44+/CD24- and ALDH1A3-high cells of an AnnData object with raw counts; see docs/csc.md.

    Parameters
    ----------
    adata
        (cells, genes) raw counts in ``X`` (or `layer`); genes by symbol or Ensembl id.
    rates
        A csc_rates table; estimated from these cells when not given.
    malignant
        Boolean column of ``obs``; all cells are taken as malignant when not given.
    chemistry
        Row group of `rates` to use.
    layer
        Layer with raw counts.
    options
        Csc section of the configuration; defaults when not given.

    Returns
    -------
    One row per cell, indexed as ``adata.obs_names``, with the columns of the csc contract but ``cell_id``.  NA means
    not malignant or not assessable; the status columns say which.

    Raises
    ------
    UserError
        If the matrix does not hold counts.
    """
    import pandas as pd

    from nicheloop import genes
    from nicheloop.config_states import Csc

    options = options or Csc()
    x = adata.X if layer is None else adata.layers[layer]
    values = x.data if hasattr(x, "tocsr") else np.asarray(x)
    if values.size and (np.any(values != np.round(values)) or np.min(values) < 0):
        raise UserError("csc.score needs raw counts; the matrix holds other values.  Name the layer with counts.")
    known = genes.resolve_features(list(adata.var_names))
    table = pd.DataFrame({"cell_id": np.asarray(adata.obs_names, dtype=object)})
    table["compartment"] = "malignant"
    if malignant is not None:
        table.loc[~adata.obs[malignant].to_numpy(dtype=bool), "compartment"] = "other"
    table["n_counts"] = np.asarray(x.sum(axis=1), dtype=np.float64).ravel()
    for gene in GENES:
        columns = np.flatnonzero(np.asarray(known.symbols) == gene)
        total = np.asarray(x[:, columns].sum(axis=1), dtype=np.float64).ravel()
        table[f"umi_{gene}"] = total if len(columns) else np.nan
    found = rates_of(rates, chemistry) if rates is not None else estimate_rates([table], [{}], options=options)
    out, _, _ = call_cells(table, found, options=options)
    return out.set_index("cell_id")
