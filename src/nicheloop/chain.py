"""The serial niche chain IL1B (TAM) to IL1R1 (CAF) to IL6 (CAF), at patient level only.  See docs/loop.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import ligand_receptor as lr
from nicheloop import stability, stats
from nicheloop.coupling import Coupling, coupling_swap, from_rna, standard, stratum
from nicheloop.detection import Detection

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_niche import Crosstalk, Loop


@dataclass(frozen=True)
class Step:
    """One step of the chain: a gene in a population."""

    name: str
    gene: str
    population: str


STEPS = (Step("ligand", "IL1B", "macrophage"), Step("receptor", "IL1R1", "caf"), Step("response", "IL6", "caf"))
LINKS = {
    "chain": ("ligand", "receptor"),  # both together with the response
    "ligand": ("ligand",),
    "receptor": ("receptor",),
}
COLUMNS = (
    "step", "gene", "population", "status", "reason", "n_cells", "umi", "fraction", "upper", "ambient_umi", "level",
)  # fmt: skip


def unmeasured(status: str, reason: str) -> pd.DataFrame:
    """Every step with the one reason why none was measured."""
    import pandas as pd

    rows = [
        {"step": s.name, "gene": s.gene, "population": s.population, "status": status, "reason": reason, "n_cells": 0}
        for s in STEPS
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def measure_chain(sample: lr.Sample, options: Crosstalk) -> pd.DataFrame:
    """Measure the level of every step in one sample.

    Returns
    -------
    Rows of the ``chain`` contract.  Level: log2(1 + counts per 10,000 less the ambient part), counts summed over the
    population; a gene that is not seen in enough cells has level 0, not NA.
    """
    import pandas as pd

    seen = Detection.of(sample, {s.gene for s in STEPS})
    lookup, ambient = sample.gene_index, sample.ambient_mean()
    rows = []
    for step in STEPS:
        n = seen.cells(step.population)
        row: dict[str, Any] = {"step": step.name, "gene": step.gene, "population": step.population, "n_cells": n}
        if step.gene not in seen.column:
            row |= {"status": "gene_absent_from_reference", "reason": f"{step.gene} not in this matrix"}
        else:
            values = seen.numbers(step.population, step.gene, options.confidence)
            row |= dict(zip(("umi", "fraction", "upper", "ambient_umi"), values, strict=True))
            said = seen.words(step.population, step.gene)
            total = float(sample.totals[sample.masks[:, sample.names.index(step.population)]].sum())
            if n < options.min_cells or total <= 0:
                row |= {"status": "too_few_cells", "reason": f"{said}; {options.min_cells} cells are needed"}
            else:
                mean = max(lr.PER * values[0] / total - float(ambient[lookup[step.gene]]), 0.0)
                row |= {"status": "measured", "reason": said, "level": float(np.log2(1 + mean))}
        rows.append(row)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = ["umi", "fraction", "upper", "ambient_umi", "level"]
    table[numbers] = table[numbers].astype(float)
    return table


def summarise_chain(
    chains: Mapping[str, pd.DataFrame], records: Mapping[str, dict[str, Any]], options: Loop, seed: int
) -> pd.DataFrame:
    """Ask over patients whether IL6 of fibroblasts follows IL1B of macrophages and IL1R1 of fibroblasts.

    Parameters
    ----------
    chains, records
        Patient -> ``chain`` rows and ingest record of the sample that speaks for the patient.

    Returns
    -------
    Rows of the ``chains`` contract.  The chain itself is the mean of the standardised levels of ligand and receptor
    against the response; then each of the two alone.  Levels are standardised, and pairings permuted, within subtype x
    data set (`coupling_swap`); the Spearman correlation is over the patients of those strata.
    """
    import pandas as pd

    patients = sorted(chains)
    value: dict[str, dict[str, float]] = {}
    for p in patients:
        table = chains[p]
        value[p] = dict(zip(table["step"], table["level"].astype(float), strict=True)) if len(table) else {}
    response = np.array([value[p].get("response", np.nan) for p in patients], dtype=float)
    strata = [stratum(records[p]) for p in patients]
    inferred = from_rna(records[p] for p in patients)
    names = np.array(strata, dtype=object)
    rows = []
    for link, parts in LINKS.items():
        sides = np.array([[value[p].get(part, np.nan) for p in patients] for part in parts], dtype=float)
        use = np.isfinite(sides).all(axis=0) & np.isfinite(response)
        joint = np.full(len(patients), np.nan)
        for name in sorted(set(names[use])):
            mine = use & (names == name)
            joint[mine] = np.mean([standard(side[mine]) for side in sides], axis=0)
        n = int(use.sum())
        swap = coupling_swap(
            joint, response, strata, min_stratum=options.min_stratum, n_swaps=options.n_swaps, seed=seed
        )
        # within strata that are large enough to be standardised; in one of two patients every level is 1 or -1
        large = [s for s in sorted(set(names[use])) if (use & (names == s)).sum() >= options.min_stratum]
        large = [s for s in large if not str(s).startswith("unknown_")]
        left, right = (
            np.concatenate([standard(side[use & (names == s)]) for s in large]) if large else np.empty(0)
            for side in (joint, response)
        )
        rho = stats.spearman(left, right)
        low, high = fisher_interval(rho, len(left), options.confidence)
        rows.append({
            "link": link,
            "what": " and ".join(f"{s.gene} of {s.population}" for s in STEPS if s.name in parts)
            + f" with {STEPS[-1].gene} of {STEPS[-1].population}",
            "n_patients": len(patients), "n_assessable": n, "n_swapped": swap.n,
            "status": "not_assessable" if not n else "ok" if n >= options.min_patients else "too_few_patients",
            "rho": rho, "rho_low": low, "rho_high": high, "coupling": swap.value, "p": swap.p,
            "strata": swap.strata + inferred,
            "detectable_rho": stability.detectable_rho(n, options.alpha),
            "wording": chain_wording(len(patients), n, swap, options),
        })  # fmt: skip
    return pd.DataFrame(rows)


def fisher_interval(rho: float, n: int, confidence: float) -> tuple[float, float]:
    """Approximate interval of a rank correlation (Fisher z, error 1.03 / sqrt(n - 3)); NaN below 4 patients or at 1."""
    from scipy.special import ndtri

    if not abs(rho) < 1 or n < 4:  # ranks that agree in full have no such interval
        return np.nan, np.nan
    half = float(ndtri(0.5 + confidence / 2)) * 1.03 / np.sqrt(n - 3)
    centre = float(np.arctanh(rho))
    return float(np.tanh(centre - half)), float(np.tanh(centre + half))


def chain_wording(n_patients: int, n: int, swap: Coupling, options: Loop) -> str:
    """Write what may be said of the chain, and of no single patient."""
    if n < options.min_patients:
        return f"No statement: {n} of {n_patients} patients are assessable, {options.min_patients} are needed."
    if np.isnan(swap.p):
        return "No statement: no stratum of subtype and data set is large enough to swap patients."
    if not swap.p < options.alpha:
        return (
            f"IL6 of fibroblasts does not follow the earlier steps more than between swapped patients (p {swap.p:.2g})."
        )
    return f"IL6 of fibroblasts follows the earlier steps within patients (p {swap.p:.2g}): consistent with the chain."
