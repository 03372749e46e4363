"""Chapter of the report on cell types: markers, confidence, unresolved cells, and the annotation of the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nicheloop import figures_cells, vocabulary
from nicheloop.figures import type_words
from nicheloop.report_data import Data, marker_genes
from nicheloop.report_page import SAMPLES, Block, Page, columns, count, fraction, listed, many, note, number, text
from nicheloop.report_text import CALIBRATION, CALIBRATION_CELLS, short_words
from nicheloop.vocabulary import FROM_INPUT, NOT_UNDERSTOOD

if TYPE_CHECKING:
    import pandas as pd


def annotation_chapter(d: Data, page: Page) -> list[Block]:
    """Markers, confidence, unresolved cells."""
    types = d.table("cell_types")
    if not len(types):
        return [note("No cell was given a type.")]
    blocks: list[Block] = []
    markers = marker_genes()
    wanted = sorted({g for genes in markers.values() for g in genes})
    profiles = d.per_sample("profiles", where=[("gene", "in", wanted)])
    if len(profiles):
        part = profiles.assign(weighted=profiles["mean_lognorm"] * profiles["n_cells"])
        pooled = part.groupby(["gene", "cell_type"])[["n_cells", "n_positive", "weighted"]].sum().reset_index()
        pooled["fraction"] = pooled["n_positive"] / pooled["n_cells"]
        pooled["mean_lognorm"] = pooled["weighted"] / pooled["n_cells"]
        blocks.append(
            page.figure(
                "markers",
                figures_cells.marker_dots(pooled, markers),
                "Do the types show their own markers, and only these?",
                f"n = {len(types):,} cells of all samples. Dot area: share of the type's cells with a count; colour: "
                "mean of log1p counts per 10,000. The first markers of every type are drawn; coloured bars above show "
                "which type a gene belongs to.",
                f"Dot plot of marker genes by cell type: {pooled['cell_type'].nunique()} types, "
                f"{pooled['gene'].nunique()} genes.",
                pooled[["gene", "cell_type", "n_cells", "fraction", "mean_lognorm"]],
            )
        )
    minimum = d.config.annotate.min_confidence
    unresolved = types["cell_type"] == "unresolved"
    blocks.append(
        page.figure(
            "confidence",
            figures_cells.confidence(types, d.samples[:SAMPLES], minimum),
            "How sure are the types, and how many cells stay unresolved?",
            f"n = {len(types):,} cells; {int(unresolved.sum()):,} ({fraction(unresolved.mean())}) are unresolved. "
            f"Below a posterior of {minimum:g}, or without enough markers, a cell gets no type: better unknown than "
            f"wrong.{many(d.samples)}",
            f"Histogram of annotation confidence and unresolved share per sample; {fraction(unresolved.mean())} "
            "unresolved "
            "over all.",
            types.assign(confidence_from=np.floor(types["confidence"] * 40) / 40, unresolved=unresolved, cells=1)
            .groupby(["sample", "unresolved", "cell_type_reason", "confidence_from"], as_index=False)["cells"]
            .sum(),
        )
    )
    blocks += [calibration_table(types, page), unresolved_table(d, types, page)]
    minor = types.groupby(["cell_type", "cell_type_minor"]).agg(
        cells=("cell_id", "size"), samples=("sample", "nunique"), confidence=("confidence", "median")
    )
    minor = minor.reset_index().sort_values(["cells", "cell_type_minor"], ascending=[False, True], kind="stable")
    minor = minor.assign(**{c: [type_words(str(v)) for v in minor[c]] for c in ("cell_type", "cell_type_minor")})
    blocks.append(
        page.table(
            "minor_types",
            minor,
            columns(
                "cell_type: type | cell_type_minor: minor type | cells # | samples # | confidence # median confidence"
            ),
            "Types and minor types.",
            "A minor type equal to the major one: no finer evidence.",
            most=40,
        )
    )
    return blocks + input_blocks(d, types, page)


def calibration_table(types: pd.DataFrame, page: Page) -> Block:
    """Cells of this cohort by confidence, beside how often such a confidence was right where labels were known."""
    import pandas as pd

    edges = [*(low for low, _ in CALIBRATION), 1.0]
    band = np.clip(np.searchsorted(edges, types["confidence"].to_numpy(float), side="right") - 1, 0, len(edges) - 2)
    named = (types["cell_type"] != "unresolved").to_numpy()
    rows = []
    for k, (low, right) in reversed(list(enumerate(CALIBRATION))):
        rows.append(
            {
                "confidence": f"{low:g} to {edges[k + 1]:g}" if low else f"below {edges[1]:g}",
                "cells": int((band == k).sum()),
                "share": float((band == k).mean()),
                "typed": int(((band == k) & named).sum()),
                "right": right,
            }
        )
    return page.table(
        "confidence_bands",
        pd.DataFrame(rows),
        columns(
            "confidence: posterior of the type | cells # | share % share of all | typed # given a type | right # share "
            "right where labels were known"
        ),
        "How far can a confidence be trusted?",
        f"n = {count(len(types), 'cell')}. Last column: not from these data, but measured once on "
        f"{CALIBRATION_CELLS:,} cells of other data sets with published labels, every cell named (docs/annotate.md). A "
        "posterior between 0.7 and 0.99 claims somewhat more than it holds.",
    )


def unresolved_table(d: Data, types: pd.DataFrame, page: Page) -> Block:
    """Unresolved cells of every sample with their reasons."""
    import pandas as pd

    bad = types[types["cell_type"] == "unresolved"]
    wide = bad.groupby(["sample", "cell_type_reason"]).size().unstack(fill_value=0)
    wide = wide.reindex(d.samples, fill_value=0)
    total = types.groupby("sample").size().reindex(d.samples, fill_value=0)
    frame = pd.DataFrame({"sample": d.samples, "cells": total.to_numpy(), "unresolved": wide.sum(axis=1).to_numpy()})
    frame["share"] = frame["unresolved"] / frame["cells"].where(frame["cells"] > 0)
    for reason in sorted({*wide.columns, "low_evidence", "two_lineages", "ambient"}):
        frame[reason] = wide[reason].to_numpy() if reason in wide else 0
    reasons = " | ".join(f"{r} # {short_words(str(r))}" for r in frame.columns[4:])
    return page.table(
        "unresolved",
        frame,
        columns(f"sample | cells # | unresolved # | share % unresolved share | {reasons}"),
        "Which cells have no type, and why?",
        "Low evidence: no type has enough markers in the cell and its surroundings. Two lineages: markers of two "
        "unrelated types, most often a missed doublet. Ambient: no more than ambient RNA explains.",
        most=60,
    )


def kappa(first: Sequence[str], second: Sequence[str]) -> float:
    """Cohen's kappa of two labellings of the same cells (DOI 10.1177/001316446002000104); NaN if there is one label."""
    a, b = np.asarray(first, dtype=object), np.asarray(second, dtype=object)
    chance = sum(float((a == name).mean() * (b == name).mean()) for name in sorted(set(a) | set(b)))
    return float(((a == b).mean() - chance) / (1 - chance)) if len(a) and chance < 1 else float("nan")


def taken_words(d: Data, types: pd.DataFrame) -> str:
    """Whether the annotation of the input gave types, and how well the RNA bears it out; empty where it gave none."""
    taken = types[types["cell_type_reason"] == FROM_INPUT]
    if not len(taken):
        return ""
    minimum = d.config.annotate.min_confidence
    doubtful = int((taken["confidence"] < minimum).sum())
    unread = int((types["cell_type_reason"] == NOT_UNDERSTOOD).sum())
    return (
        f"The annotation in the input gave {count(len(taken), 'cell')} of {len(types):,} their type (annotate.source: "
        "input). Their confidence is the computed probability of that type: median "
        f"{number(taken['confidence'].median())}; below {minimum:g} in {count(doubtful, 'cell')} "
        f"({fraction(doubtful / len(taken))}), whose RNA does not bear the label out."
        + (f" {count(unread, 'cell')} kept the computed type because the label names none." if unread else "")
    )


def input_blocks(d: Data, types: pd.DataFrame, page: Page) -> list[Block]:
    """Confusion matrix and kappa against an annotation that came with the input; nothing where there is none."""
    import pandas as pd

    taken = taken_words(d, types)
    blocks = [text(taken)] if taken else []
    given = types[types["cell_type_input"].notna() & (types["cell_type_reason"] != FROM_INPUT)]
    if not len(given):
        return blocks
    labels = given["cell_type_input"].astype(str)
    known = {label: vocabulary.meaning(label)[0] for label in sorted(set(labels))}
    meant = labels.map(known)
    read = given[meant != ""].assign(meant=meant[meant != ""])
    same = read["meant"] == read["cell_type"]
    sure = read[read["cell_type"] != "unresolved"]
    words = "None of its labels names a major type in words known here, so agreement is not given."
    if len(read):
        words = (
            f"Of {count(len(read), 'cell')} whose label names a major type {fraction(same.mean())} agree, Cohen's "
            f"kappa {number(kappa(read['meant'].tolist(), read['cell_type'].tolist()))}"
        )
        if len(sure) < len(read):
            alone = number(kappa(sure["meant"].tolist(), sure["cell_type"].tolist()))
            words += f" with {count(len(read) - len(sure), 'unresolved cell')} as disagreement, {alone} without"
        words += "."
    unread = [label for label, name in known.items() if not name]
    if unread and len(read):
        words += f" Labels that were not understood: {listed(unread)}."
    cross = pd.crosstab(labels, given["cell_type"]).reset_index()
    cross.insert(1, "read as", [type_words(known[v]) for v in cross["cell_type_input"]])
    use = (
        "Only cells that did not take their type from the input are counted."
        if taken
        else "The annotation was not used to give types."
    )
    blocks.append(
        page.table(
            "input_annotation",
            cross,
            {
                "cell_type_input": ("annotation in the input", None),
                "read as": ("read as", None),
                **{c: (type_words(str(c)), number) for c in cross.columns[2:]},
            },
            "How do the types compare with the annotation in the input?",
            f"n = {count(len(given), 'cell')} with an annotation; rows: input, columns: found here. {words} {use}",
        )
    )
    return blocks
