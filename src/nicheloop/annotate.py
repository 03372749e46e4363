"""Cell types: marker evidence of every cell, then types over the cohort.  See docs/annotate.md.

The evidence of single cells is in `marker_evidence`, what neighbours add in `neighbourhood`, the reading of an
annotation that came with the input in `vocabulary`.  This module decides: a type, its minor type, or the reason there
is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import genes as identity
from nicheloop import io, neighbourhood, vocabulary
from nicheloop.errors import NotAssessable, UserError
from nicheloop.marker_evidence import cell_evidence, kin

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from nicheloop import config_cells, config_states

    Floats = NDArray[np.float64]
    Indices = NDArray[np.int64]

STATES = ("G1S", "G2M", "IFN", "STRESS")
NONE = "unresolved"


def run_evidence(
    counts: str | Path,
    qc: str | Path,
    out: str | Path,
    *,
    options: config_cells.Annotate,
    scoring: config_states.Scoring,
) -> None:
    """Write the marker evidence of one sample's kept cells (contract ``evidence``)."""
    import pandas as pd

    from nicheloop.scoring import score_sets

    source = io.Counts(counts)
    with io.stage_output(out, "evidence", stage="evidence", sample=source.sample) as result:
        source.require(counts=False)
        cells = io.kept_cells(qc)
        if not len(cells):
            raise NotAssessable("no_cells", "no cell passed quality control")
        x = source.matrix(cells=cells)
        names = list(source.genes)
        signatures = identity.signatures()
        sets: dict[str, Sequence[str]] = {f"z_major_{t}": m.positive for t, m in identity.markers("major").items()}
        sets |= {f"z_minor_{t}": m.positive for t, m in identity.markers("minor").items()}
        sets |= {f"z_state_{s}": signatures[s].genes for s in STATES if s in signatures}
        sets |= {f"z_state_{s}": m.positive for s, m in identity.states().items()}
        z = score_sets(
            io.lognormalise(x), names, sets,
            n_bins=scoring.n_bins, min_genes=scoring.min_genes, min_cells=scoring.min_cells,
        )  # fmt: skip
        table = pd.concat([z, cell_evidence(x, names, options)], axis=1)
        table.insert(0, "cell_id", cells)
        table["annotation_input"] = input_annotation(source, cells)
        result.table = table
        result.summary = {"n_cells": len(cells)}


def input_annotation(source: io.Counts, cells: NDArray[Any]) -> NDArray[Any]:
    """(cells,) annotation that came with the input; None where there is none."""
    try:
        values = source.annotation("annotation_input")
    except KeyError:
        return np.full(len(cells), None, dtype=object)
    lookup = dict(zip(source.cell_ids, values, strict=True))
    return np.array([lookup[c] or None for c in cells], dtype=object)


def posterior(evidence: Floats, neighbours: Indices, options: config_cells.Annotate) -> Floats:
    """(cells, types) probabilities from the evidence of cells and neighbours, with the options' settings."""
    return neighbourhood.posterior(
        evidence, neighbours, weight=options.neighbor_weight, doubt=options.misleading, own=options.neighbors_own,
        cells=options.neighbors_own_cells, temperature=options.temperature, rounds=options.max_rounds,
        tolerance=options.tolerance,
    )  # fmt: skip


def among_alike(values: Floats, group: NDArray[np.int64], neighbours: Indices) -> Floats:
    """(cells,) mean of `values` over the neighbours of the same group; -inf where there are fewer than two."""
    padded, groups = np.append(values, 0.0), np.append(group, neighbourhood.NOBODY)
    alike = groups[neighbours] == group[:, None]
    n = alike.sum(axis=1)
    return np.where(n >= 2, np.where(alike, padded[neighbours], 0.0).sum(axis=1) / np.maximum(n, 1), -np.inf)


def call_major(
    llr: Floats, seen: Floats, neighbours: Indices, types: Sequence[str], options: config_cells.Annotate
) -> tuple[pd.DataFrame, Floats]:
    """Major type of every cell.

    Parameters
    ----------
    llr, seen
        (cells, types) evidence in nats and positive markers seen; NaN: no marker of the type in the matrix.
    neighbours
        (cells, k) positions of neighbours; -1: none.
    types
        Names of the columns.

    Returns
    -------
    DataFrame (cells,): cell_type, confidence, margin, runner_up, cell_type_reason; and (cells, types) probabilities.
    Unresolved cells keep the probability of the best type.  Reasons: ``two_lineages`` strong evidence of two unrelated
    types; ``ambient`` enough markers, but no more than ambient RNA explains; ``low_evidence`` otherwise.
    """
    import pandas as pd

    names = np.array(types, dtype=object)
    rows = np.arange(len(llr))
    llr, seen = np.nan_to_num(llr, nan=-np.inf), np.nan_to_num(seen, nan=0.0)
    llr = np.where(np.isneginf(llr).all(axis=1, keepdims=True), 0.0, llr)  # a sample without any marker says nothing
    # Red cells and platelets leak into every droplet: theirs is a cell in which no other type has more than one marker.
    last = np.isin(names, identity.marker_use().last)
    other = llr[:, ~last].max(axis=1, initial=-np.inf) > options.max_marker_evidence
    llr = np.where(last[None, :] & other[:, None], -np.inf, llr)
    p = posterior(llr, neighbours, options)
    order = np.argsort(-p, axis=1, kind="stable")
    best, second = order[:, 0], order[:, 1]
    confidence, margin = p[rows, best], p[rows, best] - p[rows, second]

    own, markers = llr[rows, best], seen[rows, best]
    marked = (markers >= options.min_markers) | (among_alike(markers, best, neighbours) >= options.min_markers / 2)
    supported = np.maximum(own, among_alike(own, best, neighbours)) >= options.min_evidence
    unrelated = np.where(kin(types)[best], -np.inf, llr).max(axis=1, initial=-np.inf)
    two = (unrelated >= options.min_second_evidence) & (unrelated >= options.two_lineages * own)
    resolved = (confidence >= options.min_confidence) & marked & supported & ~two
    many = seen.max(axis=1, initial=0.0) >= options.min_markers
    ambient = many & (llr.max(axis=1, initial=-np.inf) < options.min_evidence)
    reason = np.select([resolved, two, ambient], ["ok", "two_lineages", "ambient"], default="low_evidence")
    table = pd.DataFrame(
        {
            "cell_type": np.where(resolved, names[best], NONE),
            "confidence": confidence,
            "margin": margin,
            "runner_up": names[second],
            "cell_type_reason": reason,
        }
    )
    return table, p


def call_minor(
    llr: Floats, seen: Floats, neighbours: Indices, names: Sequence[str], options: config_cells.Annotate
) -> NDArray[Any]:
    """Minor type of the cells of one major type; '' where the evidence supports none.

    Parameters
    ----------
    llr, seen
        (cells, minor types) evidence in nats and positive markers seen (NaN: not measurable).
    neighbours
        (cells, k) neighbours among these cells; -1: none.
    """
    n, t = llr.shape
    out = np.full(n, "", dtype=object)
    if n < options.min_cells_minor or t == 0:
        return out
    llr = np.nan_to_num(llr, nan=-np.inf)
    # "None of them" stands for just enough evidence.
    p = posterior(np.hstack([llr, np.full((n, 1), options.min_evidence)]), neighbours, options)
    best, rows = p.argmax(axis=1), np.arange(n)
    named = np.minimum(best, t - 1)
    # Subtypes are neighbours: a cell must show the markers itself, others cannot stand in for it.
    own = (np.nan_to_num(seen, nan=0.0)[rows, named] >= options.min_markers) & (llr[rows, named] > 0)
    supported = (best < t) & (p[rows, best] >= options.min_confidence) & own
    out[supported] = np.array(names, dtype=object)[named[supported]]
    return out


def annotate(
    evidence: pd.DataFrame, neighbours: Indices, options: config_cells.Annotate, given: NDArray[Any] | None = None
) -> pd.DataFrame:
    """Types of all cells of the cohort.

    Parameters
    ----------
    evidence
        (cells,) rows of the contract ``evidence``.
    neighbours
        (cells, k) positions of neighbours as `neighbourhood.surroundings` returns them; (cells, 0): every cell alone.
    given
        (cells,) labels to be used instead of what is computed where they are understood.

    Returns
    -------
    DataFrame (cells,): cell_type, cell_type_minor, confidence, margin, runner_up, cell_type_reason, platelet, cycling.
    """
    import pandas as pd

    types = [t for t in identity.markers("major") if f"llr_major_{t}" in evidence]

    def block(prefix: str, names: Sequence[str]) -> Floats:
        # A column that is NA in every sample is dropped when samples are joined.
        return evidence.reindex(columns=[f"{prefix}_{t}" for t in names]).to_numpy(dtype=np.float64)

    table, p = call_major(block("llr_major", types), block("n_major", types), neighbours, types, options)
    minor = table["cell_type"].to_numpy(dtype=object).copy()
    in_use = identity.marker_use().called
    minors = {t: m for t, m in identity.markers("minor").items() if t in in_use and f"llr_minor_{t}" in evidence}
    for major in types:
        names = [t for t, m in minors.items() if m.parent == major]
        index = np.flatnonzero(table["cell_type"] == major)
        if not names or not len(index):
            continue
        near = neighbourhood.within(neighbours, index)
        called = call_minor(block("llr_minor", names)[index], block("n_minor", names)[index], near, names, options)
        minor[index] = np.where(called == "", minor[index], called)
    table.insert(1, "cell_type_minor", minor)
    if given is not None:
        table = vocabulary.use_input(table, given, pd.DataFrame(p, columns=types))

    def above(column: str, cut: float) -> NDArray[np.bool_]:
        # NA: not measurable, so not seen.
        values = evidence[column].to_numpy(dtype=np.float64) if column in evidence else np.full(len(evidence), np.nan)
        return np.asarray(np.nan_to_num(values, nan=-np.inf) >= cut)

    table["platelet"] = above("n_major_platelet", options.platelet_markers)
    table["cycling"] = above("z_state_cycling", options.cycling_z)
    return table


def run_annotate(
    evidence: Sequence[str | Path],
    neighbors: str | Path,
    clusters: str | Path,
    out: str | Path,
    *,
    options: config_cells.Annotate,
) -> None:
    """Write the type of every kept cell of the cohort (contract ``cell_types``).

    Clusters are only passed on: types do not depend on their resolution.
    """
    import pandas as pd

    with io.stage_output(out, "cell_types", stage="annotate") as result:
        tables = [io.read_table(path) for path in evidence]
        tables = [t for t in tables if len(t)]
        if not tables:
            raise NotAssessable("no_cells", "no sample has a cell that passed quality control")
        cells = pd.concat([t.dropna(axis=1, how="all") for t in tables], ignore_index=True)
        order = cells["cell_id"].argsort(kind="stable").to_numpy()  # results do not depend on the order of cells
        cells = cells.iloc[order].reset_index(drop=True)
        ids = cells["cell_id"].to_numpy(dtype=object)
        table = io.read_table(neighbors)
        kept = len(table.columns) - 2
        if kept < min(options.n_neighbors, len(table) - 1):
            raise UserError(
                f"{neighbors}: holds {kept} neighbours of a cell, and annotate.n_neighbors asks for "
                f"{options.n_neighbors}. Run `embed` again with the same configuration."
            )
        near = neighbourhood.surroundings(table, ids, options.n_neighbors)
        # A column that is NA throughout was dropped above.
        missing = np.full(len(cells), None, dtype=object)
        given = cells["annotation_input"].to_numpy(dtype=object) if "annotation_input" in cells else missing
        table = annotate(cells, near, options, given if options.source == "input" else None)
        cluster = io.read_table(clusters, columns=["cell_id", "cluster"]).set_index("cell_id")["cluster"].reindex(ids)
        table.insert(0, "cell_id", ids)
        table.insert(1, "sample", cells["cell_id"].str.rsplit(":", n=1).str[0].to_numpy())
        table.insert(2, "cluster", cluster.fillna("none").to_numpy(dtype=object))
        table["cell_type_input"] = pd.array(given, dtype="string")
        result.table = table.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)
        result.summary = summary(table, options)


def summary(table: pd.DataFrame, options: config_cells.Annotate) -> dict[str, Any]:
    """Figures of the stage: cells per type and reason, barcodes that decide what platelet and neutrophil genes mean."""

    def count(values: pd.Series) -> dict[str, int]:
        return {str(k): int(v) for k, v in values.value_counts().sort_index().items()}

    given = table["cell_type_input"].dropna()
    unread = sorted(label for label in given.unique() if not vocabulary.meaning(str(label))[0])
    return {
        "n_cells": len(table), "cell_types": count(table["cell_type"]), "reasons": count(table["cell_type_reason"]),
        "n_platelet_barcodes": int(table["platelet"].sum()),
        "n_neutrophil": int((table["cell_type_minor"] == "neutrophil").sum()),
        "n_erythrocyte": int((table["cell_type"] == "erythrocyte").sum()),
        "source": options.source, "n_with_input": len(given), "labels_not_understood": unread,
    }  # fmt: skip
