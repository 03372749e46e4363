"""Chapters of the report on cells: quality with the data card, map and composition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nicheloop import figures_cells, figures_states, report_map
from nicheloop.figures import type_words
from nicheloop.report_data import Data, find_figure, thresholds, words_of
from nicheloop.report_help import help_for
from nicheloop.report_page import SAMPLES, Block, Page, columns, count, fraction, heading, many, note, number, text

if TYPE_CHECKING:
    import pandas as pd

MAP_COLUMNS = ("cell_id", "sample", "cell_type", "malignancy")


def quality_chapter(d: Data, page: Page) -> list[Block]:
    """Attrition, distributions, guards."""
    import pandas as pd

    qc = d.per_sample("qc")
    order = d.samples[:SAMPLES]
    card = card_blocks(d, page)
    if not len(qc):
        return [*card, note("No sample has a quality table: nothing could be read.")]
    reasons = qc.groupby(["sample", "qc_reason"]).size().unstack(fill_value=0).reindex(order, fill_value=0)
    steps = figures_cells.attrition_steps(reasons)
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
            "qc_waterfall",
            figures_cells.qc_waterfall(steps),
            "How many barcodes does each filter drop?",
            f"n = {total:,} barcodes of {count(len(order), 'sample')}, from the top down in the order of the filters; "
            f"a barcode is counted at the first it fails. Each bar begins where the one above ended.{many(d.samples)}",
            f"Waterfall from {int(steps['left'].iloc[0]):,} barcodes to {int(steps['left'].iloc[-1]):,}; "
            f"most are dropped for {dropped_most(reasons)}.",
            steps,
        ),
        page.figure(
            "qc_attrition",
            figures_cells.qc_attrition(reasons),
            "Which filter dropped the barcodes of each sample?",
            f"n = {total:,} barcodes of {count(len(order), 'sample')}; the first filter that fails is "
            f"counted.{many(d.samples)}",
            f"Stacked bars: {kept:,} of {total:,} barcodes kept over {len(order)} samples; most were dropped for "
            f"{dropped_most(reasons)}.",
            reasons.reset_index(),
        ),
        page.figure(
            "qc_distributions",
            figures_cells.qc_distributions(qc, order, cuts),
            "How deep and how clean is each sample?",
            f"n = {total:,} barcodes before and {kept:,} after filtering. Of each sample the upper, pale bar: all "
            "barcodes, the "
            "lower, dark one: those kept. Bar: middle half; black: median; line: 1st to 99th percentile; dark red: the "
            "threshold in force in that sample (lower limit for UMI and genes, upper limit for mitochondrial share), "
            "where "
            "it was recorded.",
            "Per sample ranges of library size, detected genes and mitochondrial share before and after filtering; "
            "median "
            f"{qc['n_counts'].median():,.0f} UMI and {qc['n_genes'].median():,.0f} genes over all barcodes.",
            quantile_table(qc, order, cuts),
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
    estimates = frame.assign(doublet_share=frame["doublets"] / frame["barcodes"].where(frame["barcodes"] > 0))
    shown = estimates[estimates["sample"].isin(order)]
    blocks.append(
        page.figure(
            "qc_estimates",
            figures_states.measures(
                shown["sample"].tolist(),
                [
                    ("barcodes called doublets", shown["doublet_share"].to_numpy(float)),
                    ("ambient share of a cell's counts", shown["contamination"].to_numpy(float)),
                ],
                "How many doublets, and how much RNA from elsewhere?",
            ),
            "How many doublets, and how much RNA from elsewhere?",
            f"n = {count(len(shown), 'sample')}. Doublets: two cells in one droplet, share of all barcodes; two "
            "cells of one "
            "type are not seen. Ambient: RNA of the soup, from genes that the cell's type cannot make. NA: not "
            "estimated; "
            f"the table above says why.{many(d.samples)}",
            f"Bars of the doublet share (median {fraction(shown['doublet_share'].median())}) and of the ambient share "
            f"(median {fraction(shown['contamination'].median())}) of {count(len(shown), 'sample')}.",
            shown[["sample", "barcodes", "doublets", "doublet_share", "contamination"]],
        )
    )
    return card + blocks + facts_blocks(d, page)


def card_blocks(d: Data, page: Page) -> list[Block]:
    """What came in: the samples as the sheet and the files describe them, and the genes that can be measured at all."""
    import pandas as pd

    wanted = [
        c
        for c in (
            "sample", "patient", "subtype", "tissue", "treatment", "sorting", "chemistry", "dataset", "n_features",
            "n_genes", "n_unresolved", "is_counts",
        )
        if c in d.sheet
    ]  # fmt: skip
    words = {
        "n_features": "features",
        "n_genes": "genes",
        "n_unresolved": "features without a gene",
        "is_counts": "counts",
    }
    sheet = d.sheet.loc[d.samples].reset_index(drop=True)
    figures_of = [c for c in wanted if c.startswith("n_")]
    sheet = sheet.assign(**{c: pd.to_numeric(sheet[c]) for c in figures_of})
    blocks = [
        heading("Data card"),
        page.table(
            "inputs",
            sheet,
            {c: (words.get(c, c.replace("dataset", "data set")), number if c in figures_of else None) for c in wanted},
            "Samples as they came in.",
            "Counts: whether the matrix holds counts; what rests on counting noise needs them.",
            path="cohort/samples.tsv",
        ),
    ]
    guards = [c for c in d.sheet.columns if c.startswith("guard_")]
    if guards:
        blocks.append(
            page.table(
                "guards",
                sheet,
                {"sample": ("sample", None), **{c: (c.removeprefix("guard_"), None) for c in guards}},
                "Are the genes the questions need in each matrix at all?",
                "A gene that is absent from the reference cannot be measured; its zeros say nothing.",
                path="cohort/samples.tsv",
            )
        )
    return [*blocks, heading("Barcodes and cells")]


def dropped_most(reasons: pd.DataFrame) -> str:
    """The filter that dropped most barcodes, in words."""
    lost = reasons.drop(columns="pass", errors="ignore").sum()
    return str(lost.idxmax()).replace("_", " ") if len(lost) and lost.max() > 0 else "nothing"


def quantile_table(qc: pd.DataFrame, order: list[str], cuts: pd.DataFrame) -> pd.DataFrame:
    """What the figure of distributions draws: quantiles per sample and metric, before and after, with the threshold."""
    import pandas as pd

    rows = []
    for name in ("n_counts", "n_genes", "pct_mito"):
        for when, part in (("before", qc), ("after", qc[qc["qc_pass"].astype(bool)])):
            wide = part.groupby("sample")[name].quantile([0.01, 0.25, 0.5, 0.75, 0.99]).unstack()
            wide.columns = ["p1", "p25", "median", "p75", "p99"]
            wide = wide.reindex(order).reset_index().assign(metric=name, when=when)
            rows.append(wide.assign(threshold=[cuts[name].get(s) for s in wide["sample"]]))
    out = pd.concat(rows, ignore_index=True)
    return out[["metric", "when", "sample", "p1", "p25", "median", "p75", "p99", "threshold"]]


def facts_blocks(d: Data, page: Page) -> list[Block]:
    """What papers state of the public data sets, against what was read; nothing where no such data set was used."""
    table = d.table("facts")
    if not len(table):
        return []
    order = {"differ": 0, "not_checked": 1, "pass": 2}
    ranked = table.assign(rank=table["result"].map(order), hard=table["severity"] != "hard")
    ranked = ranked.sort_values(["rank", "hard", "dataset", "fact"], kind="stable")
    n = {r: int((table["result"] == r).sum()) for r in order}
    hard = int(((table["result"] == "differ") & (table["severity"] == "hard")).sum())
    said = (
        f"Of {count(len(table), 'published fact')} about the data sets used, {n['pass']} agree with what was read, "
        f"{n['differ']} differ and {n['not_checked']} could not be checked."
    )
    return [
        heading("Are the data what their papers say?"),
        note(f"{said} {count(hard, 'difference')} of the hard kind: the files may not be the data described.")
        if hard
        else text(said),
        page.table(
            "facts",
            ranked,
            columns("dataset: data set | claim | expected | found | result = | severity | source"),
            "Published facts, checked.",
            "Hard: a difference means other data than described; soft: worth a look. Not checked: only some of the "
            "data set's samples were chosen, or one could not be read. What is checked is what was read, not whether a "
            "claim is true of the tumours.",
            path="cohort/facts.tsv",
            most=60,
        ),
    ]


def map_chapter(d: Data, page: Page) -> list[Block]:
    """The map: as a picture, and to be explored."""
    cells = d.cells
    if "umap_1" not in cells or not cells["umap_1"].notna().any():
        return [note("There is no map: no cells were embedded.")]
    cells = cells[cells["umap_1"].notna()].reset_index(drop=True)
    options = d.config.report
    drawn = report_map.draw(cells, options.max_map_points, d.config.seed, options.rare_type_cells).reset_index(
        drop=True
    )
    whole = len(drawn) == len(cells)
    some = (
        f"{len(cells):,} cells, all of them"
        if whole
        else f"{len(drawn):,} of {len(cells):,} cells, the same share of every sample and type; types of at most "
        f"{options.rare_type_cells:,} cells are drawn whole"
    )
    raw = "umap_raw_1" in cells and bool(cells["umap_raw_1"].notna().any())
    uncomputed = " A map without integration was not computed."
    computed = (("The map", d.config.embed.map_cells), ("The map without integration", d.config.embed.raw_map_cells))
    placed = "".join(
        f" {name} was computed for {most:,} cells drawn at random; the others lie among the nearest of them."
        for name, most in computed[: 1 + raw]
        if len(cells) > most
    )
    beside = " Second panel: the same cells without integration." if raw else uncomputed
    below = " Lower row: the same cells without integration." if raw else uncomputed
    if page.files:
        page.embed("map", report_map.payload(d, drawn, len(cells)))
    why = (
        "Types should meet across samples; malignant cells should separate by patient, because their copy number "
        "differs. A map is for orientation: distances and densities on it are not evidence, and no number of this "
        "report comes from one."
    )
    explorer = Block(
        "explorer",
        title="Explore the map.",
        caption=f"n = {some}.{beside}{placed}",
        alt=f"Interactive map of {len(drawn):,} cells; the figure below shows the same cells",
        help=help_for("map"),
    )
    figure = page.figure(
        "maps",
        figures_cells.maps(drawn, d.samples),
        "Do types meet across samples while malignant cells stay with their patient?",
        f"n = {some}.{below}{placed}",
        f"UMAP of {len(drawn):,} cells of {count(cells['sample'].nunique(), 'sample')} coloured by sample, by cell "
        "type and by malignancy call, " + ("integrated above, not integrated below." if raw else "integrated."),
        drawn[[c for c in (*MAP_COLUMNS, *[c for c in drawn if str(c).startswith("umap_")]) if c in drawn]],
    )
    return [text(why), *([explorer] if page.files else []), figure]


def composition_chapter(d: Data, page: Page) -> list[Block]:
    """What each sample is made of."""
    table = d.composition
    if not len(table):
        return [note("No cell was given a type.")]
    order = d.samples[:SAMPLES]
    n = int(table["n_cells"].sum())
    sizes = table.groupby("cell_type")["n_cells"].sum().sort_values(ascending=False, kind="stable")
    largest = f"{type_words(str(sizes.index[0]))} ({fraction(sizes.iloc[0] / max(n, 1))})"
    return [
        page.figure(
            "composition",
            figures_cells.composition(table, order, {s: d.label(s) for s in order}),
            "What is each sample made of?",
            f"n = {n:,} kept cells; samples by subtype, normal tissue last.{many(d.samples)} Epithelial cells are "
            "split by the malignancy call. Shares sum to one: more of one type means less of the others. Dissociation "
            "loses neutrophils, adipocytes and fragile cells.",
            f"Stacked bars of cell type shares for {len(order)} samples; the largest type over all is {largest}.",
            table[["sample", "cell_type", "n_cells", "fraction"]],
        ),
        page.table(
            "composition_top",
            table.sort_values(["n_cells", "sample"], ascending=[False, True], kind="stable").assign(
                cell_type=lambda t: [type_words(str(v)) for v in t["cell_type"]]
            ),
            columns("sample | cell_type: type | n_cells # cells | fraction % share"),
            "The largest groups.",
            path="cohort/composition.tsv",
            most=12,
        ),
    ]
