"""Chapters of the report on cells: quality, map, composition, annotation and malignancy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import figures, figures_cells
from nicheloop.report_data import Data, find_figure, marker_genes, rung, thresholds, words_of
from nicheloop.report_page import (
    PANELS,
    SAMPLES,
    Block,
    Page,
    columns,
    count,
    fraction,
    listed,
    many,
    note,
    number,
    text,
)
from nicheloop.report_text import short_words

if TYPE_CHECKING:
    import pandas as pd


def quality_chapter(d: Data, page: Page) -> list[Block]:
    """Attrition, distributions, guards."""
    import pandas as pd

    qc = d.per_sample("qc")
    order = d.samples[:SAMPLES]
    if not len(qc):
        return [note("No sample has a quality table: nothing could be read.")]
    reasons = qc.groupby(["sample", "qc_reason"]).size().unstack(fill_value=0).reindex(order, fill_value=0)
    cuts = pd.DataFrame({s: thresholds(d.summary("qc", s)) for s in order}).T
    section = d.config.qc
    total, kept = len(qc), int(qc["qc_pass"].sum())
    rows = []
    for s in d.samples:
        mine = qc[qc["sample"] == s]
        cut = thresholds(d.summary("qc", s))
        contamination = find_figure(d.summary("ambient", s), "contamination", "rate")
        if not np.isfinite(contamination):
            contamination = find_figure(d.summary("ambient", s), "contamination")
        rows.append(
            {
                "sample": s,
                "status": d.sheet_value(s, "status"),
                "barcodes": len(mine),
                "kept": int(mine["qc_pass"].sum()),
                "median_umi": mine.loc[mine["qc_pass"].astype(bool), "n_counts"].median(),
                "median_genes": mine.loc[mine["qc_pass"].astype(bool), "n_genes"].median(),
                "min_counts": cut["n_counts"],
                "min_genes": cut["n_genes"],
                "max_mito": cut["pct_mito"],
                "doublets": float(mine["doublet"].eq(True).sum())
                if len(mine) and mine["doublet"].notna().any()
                else np.nan,
                "doublet_call": words_of(d.summary("qc", s), "doublet_call", "doublets"),
                "contamination": contamination,
            }
        )
    frame = pd.DataFrame(rows)
    blocks = [
        text(
            f"Of {total:,} barcodes {kept:,} ({fraction(kept / total)}) were kept. Thresholds are set per sample: "
            f"median and {section.n_mads:g} scaled MAD, with the count threshold held between "
            f"{section.min_counts_floor:,} and {section.min_counts_cap:,} UMI, the gene threshold between "
            f"{section.min_genes_floor:,} and {section.min_genes_cap:,} and the mitochondrial one between "
            f"{section.max_mito_floor:g} and {section.max_mito_cap:g} %."
        ),
        page.figure(
            "qc_attrition",
            figures_cells.qc_attrition(reasons),
            "Which filter dropped the barcodes of each sample?",
            f"n = {total:,} barcodes of {count(len(order), 'sample')}; the first filter that fails is "
            f"counted.{many(d.samples)}",
            f"Stacked bars: {kept} of {total} barcodes kept over {len(order)} samples.",
        ),
        page.figure(
            "qc_distributions",
            figures_cells.qc_distributions(qc, order, cuts),
            "How deep and how clean is each sample?",
            f"n = {total:,} barcodes before filtering. Bar: middle half; black: median; line: 1st to 99th "
            "percentile; dark red: the threshold in force in that sample (lower limit for UMI and genes, upper "
            "limit for mitochondrial share), where it was recorded.",
            "Per sample ranges of library size, detected genes and mitochondrial share with thresholds.",
        ),
        page.table(
            "quality",
            frame,
            columns(
                "sample | status = | barcodes # | kept # | median_umi # median UMI | median_genes # median genes | "
                "min_counts # min UMI | min_genes # min genes | max_mito # max mito % | doublets # | doublet_call: "
                "doublet call | contamination % ambient share"
            ),
            "Quality per sample.",
            "Doublet call: how the threshold was found, or why doublets were not looked for. Medians of kept cells; "
            "ambient share: counts of a cell that are ambient RNA, from genes its type cannot make.",
        ),
    ]
    guards = [c for c in d.sheet.columns if c.startswith("guard_")]
    if guards:
        blocks.append(
            page.table(
                "guards",
                d.sheet.loc[d.samples].reset_index(drop=True),
                {"sample": ("sample", None), **{c: (c.removeprefix("guard_"), None) for c in guards}},
                "Are the genes the questions need in each matrix at all?",
                "A gene that is absent from the reference cannot be measured; its zeros say nothing.",
                path="cohort/samples.tsv",
            )
        )
    return blocks


def map_chapter(d: Data, page: Page) -> list[Block]:
    """The map."""
    cells = d.cells
    if "umap_1" not in cells or not cells["umap_1"].notna().any():
        return [note("There is no map: no cells were embedded.")]
    cells = cells[cells["umap_1"].notna()]
    drawn = figures_cells.stratified(cells, "sample", d.config.report.max_map_points, d.config.seed)
    some = (
        f"{len(cells):,} cells"
        if len(drawn) == len(cells)
        else f"{len(drawn):,} of {len(cells):,} cells, the same share of every sample"
    )
    raw = "umap_raw_1" in cells and bool(cells["umap_raw_1"].notna().any())
    beside = (
        " Lower row: the same cells without integration." if raw else " A map without integration was not computed."
    )
    return [
        page.figure(
            "maps",
            figures_cells.maps(drawn, d.samples),
            "Do types meet across samples while malignant cells stay with their patient?",
            f"n = {some}.{beside} Malignant cells should separate by patient: their copy number differs. A map is "
            "for orientation; distances and densities on it are not evidence.",
            f"UMAP of {len(drawn)} cells coloured by sample, by cell type and by malignancy call, "
            + ("integrated above, not integrated below." if raw else "integrated."),
        )
    ]


def composition_chapter(d: Data, page: Page) -> list[Block]:
    """What each sample is made of."""
    table = d.composition
    if not len(table):
        return [note("No cell was given a type.")]
    order = d.samples[:SAMPLES]
    n = int(table["n_cells"].sum())
    return [
        page.figure(
            "composition",
            figures_cells.composition(table, order, {s: d.label(s) for s in order}),
            "What is each sample made of?",
            f"n = {n:,} kept cells; samples by subtype, normal tissue last.{many(d.samples)} Epithelial cells are "
            "split by the malignancy call. Shares sum to one: more of one type means less of the others. "
            "Dissociation loses neutrophils, adipocytes and fragile cells.",
            f"Stacked bars of cell type shares for {len(order)} samples.",
        ),
        page.table(
            "composition_top",
            table.sort_values(["n_cells", "sample"], ascending=[False, True], kind="stable"),
            columns("sample | cell_type: type | n_cells # cells | fraction % share"),
            "The largest groups.",
            path="cohort/composition.tsv",
            most=12,
        ),
    ]


def annotation_chapter(d: Data, page: Page) -> list[Block]:
    """Markers, confidence, unresolved cells."""
    types = d.table("cell_types")
    if not len(types):
        return [note("No cell was given a type.")]
    blocks: list[Block] = []
    profiles = d.per_sample("profiles")
    markers = marker_genes()
    if len(profiles) and markers:
        wanted = {g for genes in markers.values() for g in genes}
        part = profiles[profiles["gene"].isin(wanted)].assign(weighted=lambda t: t["mean_lognorm"] * t["n_cells"])
        pooled = part.groupby(["gene", "cell_type"])[["n_cells", "n_positive", "weighted"]].sum().reset_index()
        pooled["fraction"] = pooled["n_positive"] / pooled["n_cells"]
        pooled["mean_lognorm"] = pooled["weighted"] / pooled["n_cells"]
        blocks.append(
            page.figure(
                "markers",
                figures_cells.marker_dots(pooled, markers),
                "Do the types show their own markers, and only these?",
                f"n = {len(types):,} cells of all samples. Dot area: share of the type's cells with a count; colour: "
                "mean of log1p counts per 10,000. The first markers of every type are drawn; coloured bars above "
                "show which type a gene belongs to.",
                "Dot plot of marker genes by cell type.",
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
            "Histogram of annotation confidence and unresolved share per sample.",
        )
    )
    minor = types.groupby(["cell_type", "cell_type_minor"]).agg(
        cells=("cell_id", "size"), samples=("sample", "nunique"), confidence=("confidence", "median")
    )
    minor = minor.reset_index().sort_values(["cells", "cell_type_minor"], ascending=[False, True], kind="stable")
    blocks.append(
        page.table(
            "minor_types",
            minor,
            columns(
                "cell_type: type | cell_type_minor: minor type | cells # | samples # | confidence # median confidence"
            ),
            "Types and minor types.",
            "A minor type equal to the major one: no finer evidence.",
            most=25,
        )
    )
    blocks += input_blocks(types, page)
    return blocks


# The first pattern found in an annotation of the input names its major type: 'plasma B cell' is a plasmablast.
INPUT_WORDS = (
    (r"endothel", "endothelial"),
    (r"pericyte|perivascular|\bpvl\b|smooth muscle|mural", "pvl"),
    (r"fibroblast|\bi?m?y?cafs?\b|stromal", "caf"),
    (r"plasma", "plasmablast"),
    (r"\bmast\b", "mast"),
    (r"platelet|megakaryo", "platelet"),
    (r"erythro|red blood", "erythrocyte"),
    (r"adipo", "adipocyte"),
    (r"myeloid|macrophage|monocyte|dendritic|\bc?p?dcs?\d?\b|neutrophil|\btams?\b", "myeloid"),
    (r"\bb[ -]?cells?\b", "b_cell"),
    (r"\bt[ -]?cells?\b|\bt[ -]?nk\b|\bnkt?\b|\bcd[48]\b|\btregs?\b|natural killer", "t_nk"),
    (r"epitheli|malignant|cancer|tumou?r|carcinoma|luminal|basal|myoepi", "epithelial"),
)


def type_of_input(label: str) -> str | None:
    """Major type an annotation of the input names; None where its words are not known."""
    words = label.lower().replace("_", " ")
    return next((name for pattern, name in INPUT_WORDS if re.search(pattern, words)), None)


def kappa(first: Sequence[str], second: Sequence[str]) -> float:
    """Cohen's kappa of two labellings of the same cells (DOI 10.1177/001316446002000104); NaN if there is one label."""
    a, b = np.asarray(first, dtype=object), np.asarray(second, dtype=object)
    chance = sum(float((a == name).mean() * (b == name).mean()) for name in sorted(set(a) | set(b)))
    return float(((a == b).mean() - chance) / (1 - chance)) if len(a) and chance < 1 else float("nan")


def input_blocks(types: pd.DataFrame, page: Page) -> list[Block]:
    """Confusion matrix and kappa against an annotation that came with the input; nothing where there is none."""
    import pandas as pd

    given = types[types["cell_type_input"].notna() & (types["cell_type_reason"] != "from_input")]
    if not len(given):
        return []
    labels = given["cell_type_input"].astype(str)
    meant = labels.map({label: type_of_input(label) for label in labels.unique()})
    read = given[meant.notna()].assign(meant=meant[meant.notna()])
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
    unread = sorted(set(labels[meant.isna()]))
    if unread and len(read):
        words += f" Labels that were not understood: {listed(unread)}."
    cross = pd.crosstab(labels, given["cell_type"]).reset_index()
    cross.insert(1, "read as", [str(type_of_input(v) or "").replace("_", " ") for v in cross["cell_type_input"]])
    return [
        page.table(
            "input_annotation",
            cross,
            {
                "cell_type_input": ("annotation in the input", None),
                "read as": ("read as", None),
                **{c: (str(c).replace("_", " "), number) for c in cross.columns[2:]},
            },
            "How do the types compare with the annotation in the input?",
            f"n = {count(len(given), 'cell')} with an annotation; rows: input, columns: found here. {words} The "
            "annotation was not used to give types.",
        )
    ]


BASELINES = {
    "own_normal_epithelium": "normal epithelium of the sample",
    "normal_epithelium": "pooled normal epithelium",
    "own_epithelium": "all epithelium of the sample",
    "reference": "reference cells",
}


def clone_table(d: Data) -> pd.DataFrame:
    """Clones of every sample with the expected copy-number changes found in them, and the HER2 check."""
    import pandas as pd

    calls = d.per_sample("malignancy", ["cell_id", "clone"]).dropna(subset=["clone"])
    rows = []
    for s in d.samples:
        summary = d.summary("malignancy", s)
        checks, her2 = summary.get("arm_checks") or {}, summary.get("her2") or {}
        if not checks:
            continue
        sizes = calls.loc[calls["sample"] == s, "clone"].value_counts().sort_index()
        events, other = region_words(checks, agrees=True), region_words(checks, agrees=False)
        looked = {c["region"] for v in checks.values() for c in v if c["seen"] != "not_measurable"}
        rows.append(
            {
                "sample": s,
                "subtype": d.sheet_value(s, "subtype"),
                "clones": f"{len(checks)} ({', '.join(f'{n:,}' for n in sizes)})",
                "against": BASELINES.get(str(summary.get("baseline")), words_of(summary, "baseline")),
                "events": ", ".join(events) or "none",
                "n_events": f"{len(events)} of {len(looked)}",
                "other": ", ".join(other) or "none",
                "her2": her2_words(her2),
            }
        )
    return pd.DataFrame(rows)


def region_words(checks: Mapping[str, Sequence[Mapping[str, Any]]], *, agrees: bool) -> list[str]:
    """``1q gain``, ``8q24 gain (2)``: changes seen in any clone, in or against the expected direction."""
    seen: dict[str, list[str]] = {}
    for clone, regions in checks.items():
        for r in regions:
            if r["seen"] in ("gain", "loss") and bool(r["agrees"]) == agrees:
                seen.setdefault(f"{r['region']} {r['seen']}", []).append(clone.removeprefix("clone_"))
    return [k if len(v) == len(checks) else f"{k} ({', '.join(v)})" for k, v in seen.items()]


def her2_words(checks: Mapping[str, Mapping[str, Any]]) -> str:
    """``amplified (7 of 7 genes)``; the clone in which most genes stand out speaks; NA where too few are measured."""
    known = [c for c in checks.values() if c.get("amplified") is not None]
    if not known:
        return "NA"
    best = max(known, key=lambda c: (bool(c["amplified"]), len(c["high"])))
    genes = f"{len(best['high'])} of {len(best['measured'])} genes"
    return f"{'amplified' if best['amplified'] else 'not amplified'} ({genes})"


def malignancy_chapter(d: Data, page: Page) -> list[Block]:
    """Three-way call, false-positive rate, copy-number heat maps."""
    import pandas as pd

    calls = d.per_sample("malignancy", ["cell_id", "malignancy", "malignancy_status"])
    rows = []
    for s in d.samples:
        mine = calls[calls["sample"] == s]["malignancy"].value_counts()
        summary = d.summary("malignancy", s)
        status = d.statuses[(d.statuses["stage"] == "malignancy") & (d.statuses["sample"] == s)]["status"]
        own = summary.get("n_reference")
        n_reference = float(sum(own.values())) if isinstance(own, dict) else find_figure(summary, "n_reference")
        central = {k: v for k, v in summary.items() if "upper" not in k}
        rows.append(
            {
                "sample": s,
                "epithelial": int(mine.drop("not_epithelial", errors="ignore").sum()),
                **{c: int(mine.get(c, 0)) for c in ("malignant", "normal", "unassigned")},
                "reference": rung(d, s, calls) if len(mine) else "",
                "n_reference": n_reference,
                "fpr": find_figure(central, "reference", "positive"),
                "fpr_upper": find_figure(summary, "reference", "positive", "upper"),
                "caf_malignant": find_figure(summary, "caf", "malignant"),
                "status": str(status.iloc[0]) if len(status) else "not_run",
            }
        )
    frame = pd.DataFrame(rows)
    n_epithelial = int(frame["epithelial"].sum())
    blocks = [
        text(
            f"Of {n_epithelial:,} epithelial cells {int(frame['malignant'].sum()):,} were called malignant, "
            f"{int(frame['normal'].sum()):,} normal and {int(frame['unassigned'].sum()):,} unassigned. Unassigned "
            "cells are left out of everything that is said about malignant cells."
        ),
        page.table(
            "malignancy",
            frame,
            {
                "sample": ("sample", None),
                "epithelial": ("epithelial cells", number),
                "malignant": ("malignant", number),
                "normal": ("normal", number),
                "unassigned": ("unassigned", number),
                "reference": ("reference", short_words),
                "n_reference": ("cells of it", number),
                "fpr": ("false positive", fraction),
                "fpr_upper": ("at most", fraction),
                "caf_malignant": ("CAF malignant", fraction),
                "status": ("status", short_words),
            },
            "Three-way call per sample.",
            "Reference: where the normal cells of the comparison come from, and how many they are. False positive: "
            "share of held-out reference cells above the cut, with its upper bound. CAF are a negative control: they "
            "must not look malignant. In normal tissue every malignant call is an error.",
        ),
    ]
    found = clone_table(d)
    if len(found):
        blocks.append(
            page.table(
                "clones",
                found,
                columns(
                    "sample | subtype | clones | against: compared with | events: expected changes found | n_events: "
                    "found | other: the other way | her2: HER2 amplicon"
                ),
                "Do the clones carry changes that breast tumours carry?",
                "Clones: malignant cells of each, largest first. Expected: recurrent gains and losses of the shipped "
                "list, found where the mean over the region stands out in the expected direction; in brackets the "
                "clones, where not all have it. The other way: a gain where a loss is expected, or the reverse. HER2 "
                "amplicon: by expression alone, ERBB2 and its neighbours beyond the level of 17q; beside it the "
                "genes that stand out.",
            )
        )
    table = d.per_sample("cnv")
    panels = []
    for s in d.samples:
        profile = table[table["sample"] == s]
        if len(profile):
            panels.append(
                (f"{figures.short(d.label(s), 40)}; reference: {rung(d, s, calls).replace('_', ' ')}", profile)
            )
    for i, part in enumerate(figures.chunks(panels[: 4 * PANELS], PANELS), start=1):
        more = f" The first {4 * PANELS} of {len(panels)} samples are drawn." if len(panels) > 4 * PANELS else ""
        blocks.append(
            page.figure(
                f"cnv_{i}",
                figures_cells.cnv(part),
                "Does the genome of malignant cells differ from the reference?",
                "Mean log ratio to the reference per group (n cells in brackets) along the chromosomes 1 to 22; "
                "red: gain, blue: loss; all panels share one scale. The title names the reference rung. Normal "
                f"epithelium and CAF should be pale.{more}",
                "Copy-number heat maps of " + listed([p[0].split(";")[0] for p in part], 20) + ".",
            )
        )
    if not panels:
        blocks.append(note("No sample has a copy-number profile."))
    return blocks
