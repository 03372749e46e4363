"""Ligand-receptor axes within one sample, measurability first.  See docs/crosstalk.md."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nicheloop import comparable, decoys, io, populations, stats
from nicheloop.detection import Detection, measure, wanted_genes
from nicheloop.errors import NotAssessable
from nicheloop.ligand_receptor import Floats, Ints, Pair, Sample, pairs_of_axes, summarise_null, test_pairs
from nicheloop.roles import roles

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_niche import Crosstalk


def score_axes(
    sample: Sample,
    pairs: Sequence[Pair],
    options: Crosstalk,
    seed: int,
    *,
    is_counts: bool = True,
    notes: dict[str, str] | None = None,
    reserved: Iterable[str] | None = None,
) -> pd.DataFrame:
    """Measure every pair and test those that can be tested; returns the rows of the ``crosstalk`` contract.

    Parameters
    ----------
    reserved
        Genes that stand in for no other; those of `pairs` without it.
    """
    table = measure(sample, pairs, options, is_counts=is_counts, notes=notes)
    results = ["strength", "log2_effect", "log2_se", "z", "p_label", "p_pair", "p_decoy", "p", "q", "q_usual"]
    results += ["specificity", "specificity_se", "matched_log2_strength", "matched_log2_se"]
    table[results] = np.nan
    table["matched_status"] = None
    chosen = np.flatnonzero((table["status"] == "tested").to_numpy())
    if chosen.size:
        reserved = {g for p in pairs for g in p.genes} if reserved is None else set(reserved)
        asked = [pairs[int(i)] for i in chosen]
        tested = test_pairs(sample, asked, reserved, options, seed)
        effect, z = summarise_null(tested.strength, tested.label)
        p_label = stats.permutation_p(tested.strength, np.where(tested.label_seen, tested.label, 0.0))
        p_pair = stats.permutation_p(tested.strength, tested.pair)
        p_decoy, compared = decoys.decoy_p(decoys.Pools.of(sample, roles(), reserved), asked, options, seed)
        p = np.fmax(np.maximum(p_label, p_pair), p_decoy)  # without stand-ins the decoys say nothing
        q = adjusted_within_families(sample, pairs, chosen, p, options)
        q_usual = adjusted_within_families(sample, pairs, chosen, np.maximum(p_label, p_pair), options)
        matched, matched_strength, matched_se = comparable.at_equal_depth(sample, asked, options, seed)
        columns = [tested.strength, effect, tested.log2_se, z, p_label, p_pair, p_decoy, p, q, q_usual]
        columns += [*comparable.specificity(sample, asked, options), matched_strength, matched_se]
        # ambient RNA above the observed mean leaves a strength of 0 without a log: no standard error
        table.loc[chosen, results] = np.where(np.isfinite(np.column_stack(columns)), np.column_stack(columns), np.nan)
        table.loc[chosen, "matched_status"] = matched
        table.loc[chosen, "reason"] += [f"; {said}" if said else "" for said in compared]
    return table


def score_decoys(sample: Sample, options: Crosstalk, seed: int, notes: dict[str, str] | None = None) -> pd.DataFrame:
    """Test expressed secreted x membrane pairs without a recorded interaction as if they were axes.

    Returns
    -------
    Rows of the ``decoy_pairs`` contract, all of them tested; fewer than ``n_decoys`` where fewer can be measured.
    """
    from nicheloop import genes
    from nicheloop.tables import empty

    pairs = [p for p in pairs_of_axes(genes.axes()) if family(p.arm) == "claim"]
    reserved = wanted_genes(pairs_of_axes(genes.axes()))
    pools = decoys.Pools.of(sample, roles(), reserved)
    seen = Detection.of(sample, wanted_genes(pairs))
    like = [p for p in pairs if seen.obstacle(p, options, notes or {}) is None]
    like = like or [p for p in pairs if seen.candidate(p, options)]  # no axis is measurable: where one could have been
    chosen = decoys.choose_decoys(pools, like, options, seed)
    if not chosen:
        return empty("decoy_pairs")
    table = score_axes(sample, chosen, options, seed, notes=notes, reserved=reserved)
    table = table[table["status"] == "tested"].assign(p_usual=lambda t: np.maximum(t["p_label"], t["p_pair"]))
    names = ["ligand", "receptor", "sender", "receiver", "strength", "p_label", "p_pair", "p_decoy", "p_usual", "p"]
    return table[names].reset_index(drop=True)


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
    seen = Detection.of(sample, wanted_genes(pairs))
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
    The counts, the cells (sorted by id, with type, malignancy, clone, states, myeloid_class), the `Sample`, and for
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
        (csc, ["csc_state", "aldh1a3_state"], ("csc_high",)),
        (tam, ["myeloid_class"], ("macrophage", "monocyte")),
    ):
        part = io.read_table(path, columns=["cell_id", *columns]).set_index("cell_id")
        cells = cells.join(part)
        status = io.read_status(path)
        if not status.ok:
            notes.update({name: f"{status.stage}: {status.status}" for name in affected if name not in notes})
    order = np.argsort(reader.genes.astype(str), kind="stable")
    x = reader.matrix(cells=cells.index).tocsc()[:, order].astype(np.float64)  # questions are about genes
    symbols = reader.genes[order]
    profile = io.read_table(ambient)
    share = pd.Series(profile["ambient_fraction"].to_numpy(dtype=float), index=profile["gene"].astype(str))
    rate = float(profile["contamination_rate"].iloc[0]) if len(profile) else np.nan
    sample = Sample(
        x=x,
        totals=np.asarray(x.sum(axis=1)).ravel(),
        genes=symbols,
        names=tuple(names),
        masks=populations.masks(names, cells),
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
    out_decoys: str | Path | None = None,
) -> None:
    """Write every axis x sender x receiver of one sample, testable or not; with `out_decoys` also tested decoys."""
    from nicheloop import genes

    sample_name = io.Counts(counts).sample
    read = functools.cache(lambda: load(counts, cell_types, malignancy, csc, tam, ambient))  # a failure is not kept
    if out_decoys is not None:
        with io.stage_output(out_decoys, "decoy_pairs", stage="decoys", sample=sample_name) as found:
            reader, _, sample, notes = read()
            reader.require(counts=True)
            found.table = score_decoys(sample, options, seed, notes)
            found.summary = {"n_decoys": len(found.table)}
            if len(found.table) < options.min_decoys:
                raise NotAssessable(
                    "too_few_decoys",
                    f"{len(found.table)} secreted x membrane pairs without a recorded interaction can be tested; "
                    f"{options.min_decoys} are needed",
                )
    with io.stage_output(out, "crosstalk", stage="crosstalk", sample=sample_name) as result:
        reader, cells, sample, notes = read()
        is_counts = bool(reader.record["is_counts"])
        result.table = score_axes(sample, pairs_of_axes(genes.axes()), options, seed, is_counts=is_counts, notes=notes)
        result.summary = {
            "n_cells": len(cells),
            "n_malignant": int(sample.masks[:, sample.names.index("malignant")].sum()),
            "statuses": dict(sorted(Counter(result.table["status"]).items())),
            "ambient_rate": sample.rate,
        }
        reader.require(counts=True)  # rows are written, and the stage's status says no_counts
