"""Gene-set scores of every cell within its own compartment, and counts of marker genes.  See docs/score.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import io
from nicheloop.errors import NotAssessable

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from nicheloop import config_states

# Genes whose counts later stages read one by one.
MARKERS = (
    "CD44", "CD24", "ALDH1A3", "ALDH1A1", "ALDH2", "ALDH1A2", "ALDH3A1", "ALDH4A1", "ALDH6A1", "ALDH7A1", "IL6",
    "IL6R", "IL6ST", "CXCL8", "CXCR1", "CXCR2", "PPBP", "PTEN", "ERBB2", "ESR1", "PGR", "GRB7", "PGAP3", "MIEN1",
    "STARD3", "KRT5", "KRT14", "KRT17", "CD163", "MRC1", "CD86", "SIGLEC1", "CCL8", "CXCR4", "EPCAM", "PTPRC",
)  # fmt: skip
# Sets whose amount is compared between samples: a z is relative to the cells of its own sample.
LEVELS = ("LP_covariate", "M1", "M2", "STAT3_core")
UNRESOLVED = "unresolved"  # not a population: no compartment to be matched in
MIXED = "malignant_mixed"  # holds RNA of a cell of another type: takes no part in what is said of malignant cells
NOT_SOURCES = ("epithelial", UNRESOLVED, "platelet")


def compartments(cell_type: NDArray[Any], malignancy: NDArray[Any]) -> NDArray[Any]:
    """(cells,) ``malignant`` where the call says so, else the major type."""
    called = np.asarray(malignancy, dtype=object)
    return np.where(called == "malignant", "malignant", np.asarray(cell_type, dtype=object))


def spared_genes() -> frozenset[str]:
    """Genes by which no malignant cell is left out: markers of the CSC states, their read-outs and covariates."""
    from nicheloop import genes as identity
    from nicheloop import state_readouts as readouts

    sets = identity.signatures()
    covariates = {g for name in (*readouts.SCORES.values(), *readouts.CYCLE) for g in sets[name].genes}
    read = {g for members in readouts.readout_genes().values() for g in members}
    return frozenset(covariates | read | set(MARKERS))


def foreign_shares(
    x: csr_matrix,
    genes: Sequence[str],
    compartment: NDArray[Any],
    profiles: pd.DataFrame,
    options: config_states.Scoring,
) -> NDArray[np.float64]:
    """Share of each malignant cell's RNA that would have to come from a niche cell of its sample.

    Parameters
    ----------
    x
        (cells, genes) UMI of all cells.
    compartment
        (cells,) as from `compartments`.
    profiles
        Summed counts per gene and major type (contract ``profiles``).

    Returns
    -------
    (cells,) share; NaN for other cells.
    """
    from nicheloop import mixtures

    out = np.full(x.shape[0], np.nan)
    malignant = compartment == "malignant"
    if malignant.any():
        cells = x[malignant]
        own = np.asarray(cells.sum(axis=0), dtype=np.float64).ravel()
        out[malignant] = mixtures.foreign_share(
            cells, genes, own / max(own.sum(), 1.0), profiles, leave_out=NOT_SOURCES, spared=spared_genes(),
            min_cells=options.min_cells, fold=options.foreign_fold, alpha=options.foreign_alpha,
        )  # fmt: skip
    return out


def score_compartments(
    x: csr_matrix,
    genes: Sequence[str],
    sets: Mapping[str, Sequence[str]],
    compartment: NDArray[Any],
    options: config_states.Scoring,
) -> pd.DataFrame:
    """Score sets in each compartment against nulls matched there; NaN where a compartment has too few cells.

    Parameters
    ----------
    x
        (cells, genes) log-normalised expression.
    compartment
        (cells,) names.

    Returns
    -------
    DataFrame (cells, sets), z.
    """
    import pandas as pd

    from nicheloop import scoring

    # Aliases are resolved once, not once per compartment.
    present = scoring.resolve_sets(sets, genes)
    out = np.full((x.shape[0], len(sets)), np.nan)
    for name in sorted(set(compartment.tolist()) - {UNRESOLVED, MIXED}):
        index = np.flatnonzero(compartment == name)
        if len(index) >= options.min_cells:
            out[index] = scoring.score_sets(
                x[index],
                genes,
                present,
                n_bins=options.n_bins,
                min_genes=options.min_genes,
                min_cells=options.min_cells,
                normal=True,
            ).to_numpy()
    return pd.DataFrame(out, columns=list(sets))


def marker_counts(counts: csr_matrix, genes: Sequence[str], guards: Mapping[str, str]) -> pd.DataFrame:
    """Give counts of `MARKERS`: (cells, markers) ``umi_<gene>``; NaN where the gene is absent or its guard says so."""
    import pandas as pd

    from nicheloop import genes as identity

    lookup = {g: i for i, g in enumerate(genes)}
    found = identity.match(MARKERS, lookup)
    shown = {
        j: lookup[hit] for j, g in enumerate(MARKERS) if (hit := found[g]) and guards.get(g, "present") == "present"
    }
    out = np.full((counts.shape[0], len(MARKERS)), np.nan)
    out[:, list(shown)] = counts[:, list(shown.values())].toarray()
    return pd.DataFrame(out, columns=[f"umi_{g}" for g in MARKERS])


def malignancy_words(cell_type: pd.Series, calls: pd.DataFrame, status: io.Status) -> dict[str, Any]:
    """Sum up what the malignancy stage said, so that later stages can name the cause of too few malignant cells.

    Returns
    -------
    ``status`` of the stage, and ``epithelial``: epithelial cells by call and reason (``unassigned (not_callable)``).
    """
    epithelial = calls[(cell_type == "epithelial").to_numpy(dtype=bool)]
    said = epithelial["malignancy"].where(epithelial["malignancy"] != "", "without a call")
    why = epithelial["malignancy_status"]
    words = said.where(why == "", said + " (" + why + ")").value_counts().sort_index()
    return {"status": status.status, "epithelial": {str(k): int(v) for k, v in words.items()}}


def run_score(
    counts: str | Path,
    cell_types: str | Path,
    malignancy: str | Path,
    profiles: str | Path,
    out: str | Path,
    *,
    options: config_states.Scoring,
) -> None:
    """Write one sample's scores (contract ``scores``).

    A matrix of values that are not counts is scored; its library sizes and marker counts are values, so they are NA,
    and RNA of other types is not looked for.
    """
    import pandas as pd

    from nicheloop import genes as identity
    from nicheloop import mixtures, scoring

    source = io.Counts(counts)
    with io.stage_output(out, "scores", stage="score", sample=source.sample) as result:
        source.require(counts=False)
        cells = io.read_cells(cell_types, source.sample, columns=["cell_type"])
        if not len(cells):
            raise NotAssessable("no_cells", "no cell passed quality control")
        calls = io.read_table(malignancy, columns=["cell_id", "malignancy", "malignancy_status"]).set_index("cell_id")
        # No row: the malignancy stage gave no answer for the sample.
        calls = calls.reindex(cells.index).astype("string").fillna("")
        called = calls["malignancy"].to_numpy(dtype=object)
        compartment = compartments(cells["cell_type"].to_numpy(dtype=object), called)
        names = list(source.genes)
        x = source.matrix(cells=cells.index)
        foreign = np.full(len(cells), np.nan)
        if source.record["is_counts"] and (compartment == "malignant").any():
            foreign = foreign_shares(x, names, compartment, io.read_table(profiles, mixtures.PROFILE), options)
            compartment = np.where(foreign >= options.foreign_share, MIXED, compartment)
        # Aliases are resolved once: to find those of a gene, all names of the matrix are looked up.
        sets = scoring.resolve_sets({name: s.genes for name, s in identity.signatures().items()}, names)
        logged = io.lognormalise(x)
        z = score_compartments(logged, names, sets, compartment, options).add_prefix("z_")
        level = scoring.set_levels(logged, names, {n: sets[n] for n in LEVELS}, min_genes=options.min_genes)
        umi = marker_counts(x, names, source.record.get("guards") or {})
        if not source.record["is_counts"]:
            umi[:] = np.nan
        n_counts = np.asarray(x.sum(axis=1), dtype=np.float64).ravel()
        head = pd.DataFrame({"cell_id": cells.index.to_numpy(), "compartment": compartment, "n_counts": n_counts})
        head["foreign_share"] = foreign
        result.table = pd.concat([head, z, level.add_prefix("level_"), umi], axis=1)
        names_, sizes = np.unique(compartment.astype(str), return_counts=True)
        scored = (sizes >= options.min_cells) & ~np.isin(names_, (UNRESOLVED, MIXED))
        result.summary = {
            "n_cells": len(cells),
            "scored": names_[scored].tolist(),
            "not_scored": dict(zip(names_[~scored].tolist(), sizes[~scored].tolist(), strict=True)),
            "n_foreign": int((compartment == MIXED).sum()),
            "malignancy": malignancy_words(cells["cell_type"], calls, io.read_status(malignancy)),
        }
