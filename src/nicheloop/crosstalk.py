"""Ligand-receptor axes within one sample, measurability first.  See docs/crosstalk.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nicheloop import io, populations, stats
from nicheloop.detection import Detection, measure
from nicheloop.errors import NotAssessable
from nicheloop.ligand_receptor import Floats, Ints, Pair, Sample, pairs_of_axes, summarise_null, test_pairs

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config import Crosstalk


def score_axes(
    sample: Sample,
    pairs: Sequence[Pair],
    options: Crosstalk,
    seed: int,
    *,
    is_counts: bool = True,
    notes: dict[str, str] | None = None,
) -> pd.DataFrame:
    """Measure every pair and test those that can be tested; returns the rows of the ``crosstalk`` contract."""
    table = measure(sample, pairs, options, is_counts=is_counts, notes=notes)
    results = ["strength", "log2_effect", "log2_se", "z", "p_label", "p_pair", "p", "q"]
    table[results] = np.nan
    chosen = np.flatnonzero((table["status"] == "tested").to_numpy())
    if chosen.size:
        reserved = {g for p in pairs for g in p.genes}
        tested = test_pairs(sample, [pairs[int(i)] for i in chosen], reserved, options, seed)
        effect, z = summarise_null(tested.strength, tested.label)
        p_label = stats.permutation_p(tested.strength, np.where(tested.label_seen, tested.label, 0.0))
        p_pair = stats.permutation_p(tested.strength, tested.pair)
        p = np.maximum(p_label, p_pair)
        q = adjusted_within_families(sample, pairs, chosen, p, options)
        columns = [tested.strength, effect, tested.log2_se, z, p_label, p_pair, p, q]
        # ambient RNA above the observed mean leaves a strength of 0 without a log: no standard error
        table.loc[chosen, results] = np.where(np.isfinite(np.column_stack(columns)), np.column_stack(columns), np.nan)
    return table


def family(arm: str) -> str:
    """Family of tests of an axis: the claims together; positive controls and decoys each on their own."""
    return arm if arm in ("positive_control", "decoy") else "claim"


def adjusted_within_families(
    sample: Sample, pairs: Sequence[Pair], chosen: Ints, p: Floats, options: Crosstalk
) -> Floats:
    """Benjamini-Hochberg of tested pairs within their family; a pair that could have been tested counts with p = 1.

    Parameters
    ----------
    chosen, p
        (tested,) positions in `pairs` and p-values.
    """
    seen = Detection.of(sample, {g for pair in pairs for g in pair.genes})
    asked = np.array([1.0 if seen.candidate(pair, options) else np.nan for pair in pairs])
    asked[chosen] = p
    families = np.array([family(pair.arm) for pair in pairs], dtype=object)
    q = np.full(len(pairs), np.nan)
    for name in set(families):
        q[families == name] = stats.bh(asked[families == name])
    return q[chosen]


# -------------------------------------------------------------------------------------------------------------- files
def load(
    counts: str | Path,
    cell_types: str | Path,
    malignancy: str | Path,
    csc: str | Path,
    tam: str | Path,
    ambient: str | Path,
    names: Iterable[str] = populations.NAMES,
) -> tuple[io.Counts, pd.DataFrame, Sample, dict[str, str]]:
    """Read one sample for the axes.

    Returns
    -------
    The counts, the cells (sorted by id, with type, malignancy, clone, csc_state, myeloid_class), the `Sample`, and for
    populations that have no cells because an earlier stage gave no answer, that answer.

    Raises
    ------
    NotAssessable
        If ingest or annotation gave nothing for this sample.
    """
    import pandas as pd

    from nicheloop import genes

    reader = io.Counts(counts)
    reader.require(counts=False)
    cells = io.read_cells(cell_types, reader.sample, ["cell_type", "cell_type_minor", "platelet"]).sort_index()
    if cells.empty:
        raise NotAssessable("no_cells", "no cell of this sample passed quality control and annotation")
    notes = {}
    for path, columns, affected in (
        (malignancy, ["malignancy", "clone"], ("malignant", "csc_high")),
        (csc, ["csc_state"], ("csc_high",)),
        (tam, ["myeloid_class"], ("macrophage", "monocyte")),
    ):
        part = io.read_table(path, columns=["cell_id", *columns]).set_index("cell_id")
        cells = cells.join(part)
        status = io.read_status(path)
        if not status.ok:
            notes.update({name: f"{status.stage}: {status.status}" for name in affected if name not in notes})
    order = np.argsort(reader.genes.astype(str), kind="stable")
    x = reader.matrix(cells=cells.index)[:, order].astype(np.float64).tocsr()
    symbols = reader.genes[order]
    profile = io.read_table(ambient)
    share = pd.Series(profile["ambient_fraction"].to_numpy(dtype=float), index=profile["gene"].astype(str))
    rate = float(profile["contamination_rate"].iloc[0]) if len(profile) else np.nan
    sample = Sample(
        x=x,
        totals=np.asarray(x.sum(axis=1)).ravel(),
        genes=symbols,
        names=tuple(names),
        masks=np.column_stack([populations.members(name, cells) for name in names]),
        ambient=share.reindex(symbols).fillna(0.0).to_numpy(),
        rate=rate,
        platelet_genes=frozenset(genes.platelet_genes()),
    )
    return reader, cells, sample, notes


def run_crosstalk(
    counts: str | Path,
    cell_types: str | Path,
    malignancy: str | Path,
    csc: str | Path,
    tam: str | Path,
    ambient: str | Path,
    out: str | Path,
    *,
    options: Crosstalk,
    seed: int,
) -> None:
    """Write every axis x sender x receiver of one sample, testable or not."""
    from nicheloop import genes

    sample_name = io.Counts(counts).sample
    with io.stage_output(out, "crosstalk", stage="crosstalk", sample=sample_name) as result:
        reader, cells, sample, notes = load(counts, cell_types, malignancy, csc, tam, ambient)
        is_counts = bool(reader.record["is_counts"])
        result.table = score_axes(sample, pairs_of_axes(genes.axes()), options, seed, is_counts=is_counts, notes=notes)
        result.summary = {
            "n_cells": len(cells),
            "n_malignant": int(sample.masks[:, sample.names.index("malignant")].sum()),
            "statuses": dict(sorted(Counter(result.table["status"]).items())),
            "ambient_rate": sample.rate,
        }
        reader.require(counts=True)  # rows are written, and the stage's status says no_counts
