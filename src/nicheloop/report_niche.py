"""Chapters of the report on signals: crosstalk axes and the loop, per tumour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nicheloop import figures, figures_niche
from nicheloop.report_data import Data
from nicheloop.report_page import (
    MAIN_AXES,
    SAMPLES,
    Block,
    Page,
    bullets,
    columns,
    count,
    fraction,
    heading,
    listed,
    many,
    note,
    text,
)
from nicheloop.report_text import short_words
from nicheloop.status import GOOD, summarise

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config import Crosstalk as Floor

CELL_WORDS = {"csc_high": "CSC-high", "icaf": "iCAF", "mycaf": "myCAF", "caf": "CAF", "pvl": "PVL", "t_nk": "T and NK"}


def below_floor(rows: pd.DataFrame, side: str, cells: str, floor: Floor) -> np.ndarray:
    """(rows,) whether ligand or receptor (`side`) is below the detection floor in enough `cells`; gene absent: no."""
    positive = (rows[f"{side}_fraction"] * rows[cells]).round()
    few = (rows[f"{side}_umi"] < floor.min_umi) | (positive < floor.min_positive_cells)
    return (few & rows[f"{side}_umi"].notna() & (rows[cells] >= floor.min_cells)).to_numpy(dtype=bool)


def towards_malignant(d: Data, axis: str) -> str:
    """Why an axis cannot be tested towards malignant cells, with upper bounds; empty where it was or nobody asked."""
    rows = d.per_sample("crosstalk")
    rows = rows[(rows["axis"] == axis) & (rows["receiver"] == "malignant") & rows["sample"].isin(d.tumours)]
    if not len(rows) or (rows["status"] == "tested").any():
        return ""
    floor, n, name = d.config.crosstalk, rows["sample"].nunique(), axis.replace("_", " ")
    rows = rows.assign(
        hidden=below_floor(rows, "receptor", "n_receiver", floor),
        quiet=below_floor(rows, "ligand", "n_sender", floor) | (rows["n_sender"] < floor.min_cells),
    )
    parts = []
    hidden = rows.groupby("sample").filter(lambda g: bool(g["hidden"].all()))
    if len(hidden):
        cells = int(hidden.groupby("sample")["n_receiver"].max().sum())
        parts.append(
            f"{'/'.join(sorted(set(hidden['receptor'])))} not detected in malignant cells of "
            f"{hidden['sample'].nunique()} of {count(n, 'tumour')} (at most "
            f"{fraction(hidden['receptor_upper'].max())} of the cells of any tumour, n = {count(cells, 'cell')})"
        )
    debris = rows[rows["status"] == "platelet_contamination"]["sample"].nunique()
    quiet = rows.groupby("sample").filter(lambda g: bool(g["quiet"].all()))
    looked = quiet[quiet["n_sender"] >= floor.min_cells]
    if len(looked):
        parts.append(
            f"{'/'.join(sorted(set(looked['ligand'])))} not detected in "
            f"{listed(dict.fromkeys(CELL_WORDS.get(s, s.replace('_', ' ')) for s in sorted(set(looked['sender']))))} "
            f"cells of {looked['sample'].nunique()} of {count(n, 'tumour')} (at most "
            f"{fraction(looked['ligand_upper'].max())})"
        )
    if debris:
        ligands = "/".join(sorted(set(rows["ligand"])))
        parts.append(f"{ligands} counts are platelet contamination in {debris} of {count(n, 'tumour')}")
    rest = rows[
        ~rows["sample"].isin([*hidden["sample"], *looked["sample"]]) & (rows["status"] != "platelet_contamination")
    ]
    if len(rest):
        left = count(rest["sample"].nunique(), "tumour")
        why = short_words(summarise(list(rest["status"]))[0])
        parts.append(f"the commonest obstacle in {'the other ' if parts else ''}{left} is '{why}'")
    if not parts:
        parts.append(f"the commonest obstacle is '{short_words(summarise(list(rows['status']))[0])}'")
    return f"{name}: {'; '.join(parts)}."


def crosstalk_chapter(d: Data, page: Page) -> list[Block]:
    """Measurability first, then the axes."""
    import pandas as pd

    rows = d.per_sample("crosstalk")
    axes = d.table("axes")
    if not len(rows):
        return [note("No axis could be looked at in any sample; the chapter 'Not assessable' says why.")]
    main = rows[rows["axis"].isin(MAIN_AXES) & rows["sample"].isin(d.tumours)]
    table = []
    for axis in [a for a in MAIN_AXES if a in set(main["axis"])]:
        part = main[main["axis"] == axis]
        testable = part[part["status"] == "tested"]["sample"].nunique()
        asked = part[part["receiver"] == "malignant"] if (part["receiver"] == "malignant").any() else part
        obstacle = asked[asked["status"] != "tested"]["status"].value_counts()
        top = sorted(obstacle.items(), key=lambda kv: (-kv[1], kv[0]))[0] if len(obstacle) else ("", 0)
        hidden = asked[below_floor(asked, "receptor", "n_receiver", d.config.crosstalk)]["receptor_upper"]
        quiet = asked[below_floor(asked, "ligand", "n_sender", d.config.crosstalk)]["ligand_upper"]
        table.append(
            {
                "axis": axis,
                "genes": f"{part['ligand'].iloc[0]} to {part['receptor'].iloc[0]}"
                + (" …" if part["receptor"].nunique() > 1 or part["ligand"].nunique() > 1 else ""),
                "samples": part["sample"].nunique(),
                "testable": testable,
                "pairs": len(part),
                "pairs_tested": int((part["status"] == "tested").sum()),
                "obstacle": f"{short_words(str(top[0]))} ({top[1]})" if top[0] else "none",
                "ligand_upper": quiet.max() if len(quiet) else np.nan,
                "receptor_upper": hidden.max() if len(hidden) else np.nan,
            }
        )
    said = [s for s in (towards_malignant(d, a) for a in MAIN_AXES) if s]
    guards = main.groupby("sample")[["n_platelet", "n_neutrophil"]].max().reset_index()
    guard_words = listed(
        [f"{r.sample} {r.n_platelet:.0f} and {r.n_neutrophil:.0f}" for r in figures.records(guards)], 12
    )
    blocks = [
        text(
            "First, can the axis be seen at all? A pair of types is tested only where the ligand and every receptor "
            "subunit pass the detection floor and the ambient expectation. 'Not detected' comes with the upper bound "
            "of how many cells may still express the gene: it is not proof of absence."
        ),
        page.table(
            "measurability",
            pd.DataFrame(
                table,
                columns=[
                    "axis",
                    "genes",
                    "samples",
                    "testable",
                    "pairs",
                    "pairs_tested",
                    "obstacle",
                    "ligand_upper",
                    "receptor_upper",
                ],
            ),
            columns(
                "axis | genes | samples # tumours | testable # testable in | pairs # pairs of types | pairs_tested # "
                "pairs tested | obstacle: commonest obstacle (pairs) | ligand_upper % hidden ligand, at most | "
                "receptor_upper % hidden receptor, at most"
            ),
            "Which axes can be measured?",
            "Obstacle and bounds are those of pairs with malignant cells as receivers, where the axis has them. "
            "Hidden, at most: largest fraction of cells that may express the gene where it stays below the detection "
            "floor (rule of three or exact); NA: above the floor wherever it was looked for.",
        ),
        *([bullets(said)] if said else []),
        text(
            f"Platelet barcodes and neutrophils per tumour: {guard_words}. PPBP (CXCL7) RNA marks platelets, and "
            "CXCR1/CXCR2 belong to neutrophils, which droplet data lose: both axes are expected to be 'not "
            "measurable'."
        ),
    ]
    shown = [a for a in MAIN_AXES if a in set(axes["axis"])]
    for i, names in enumerate((shown[:4], shown[4:]), start=1):
        if names:
            n = int(axes["n_patients"].max())
            blocks.append(
                page.figure(
                    f"axes_{i}",
                    figures_niche.axis_dots(axes, names),
                    f"Who can talk to whom over {listed([a.replace('_', ' ') for a in names])}?",
                    f"n = {count(n, 'tumour')}, one primary sample each. Circle: tested; size: patients in whom it "
                    "was tested; colour: mean log2 strength in counts per 10,000 (random effects, two patients "
                    "or more; hollow: one patient); numbers: significant of assessable patients. Other marks: the "
                    "commonest reason why the pair could not be tested.",
                    "Sender by receiver dots for " + listed(list(names)) + ".",
                )
            )
    ranked = axes.sort_values(
        ["n_significant", "effect", "axis", "sender", "receiver"],
        ascending=[False, False, True, True, True],
        kind="stable",
    )
    ranked = ranked[ranked["n_assessable"] > 0]
    if len(ranked):
        blocks.append(
            page.table(
                "axes",
                ranked,
                columns(
                    "axis | arm: role | sender | receiver | n_assessable # assessable patients | n_significant # "
                    "significant | effect # log2 strength | effect_low # low | effect_high # high | status ="
                ),
                "The strongest measurable pairs.",
                "Strength: counts per 10,000, geometric mean of ligand and receptor. Significant: q below alpha within "
                "the patient's sample; rows below the detection floor count as tests that failed. Positive controls "
                "should be present; the decoys are silent (not expressed), so they show no more than that.",
                path="cohort/axes.tsv",
                most=20,
            )
        )
    kinds = axes[axes["arm"].isin(("positive_control", "decoy"))]
    if len(kinds):
        pooled = (
            kinds.groupby(["arm", "axis"])
            .agg(pairs=("sender", "size"), assessable=("n_assessable", "sum"), significant=("n_significant", "sum"))
            .reset_index()
        )
        blocks.append(
            page.table(
                "axis_controls",
                pooled,
                columns("arm: kind | axis | pairs # | assessable # patient tests | significant #"),
                "Positive controls and decoys.",
                "A positive control that is never significant, or a decoy that is, warns of the whole chapter.",
            )
        )
    return blocks + circularity_blocks(page)


def circularity_blocks(page: Page) -> list[Block]:
    """Which gene sets of the loop share genes, so that one cannot support the other."""
    from nicheloop.loop_cohort import circularity

    table = circularity()
    kept, shared = table[table["clean"]], table[table["n_overlap"] > 0]
    broken = int((kept["n_overlap"] > 0).sum())
    shown = shared.assign(
        genes=[str(v).replace(";", ", ") for v in shared["overlap"]],
        must=["yes" if v else "no" for v in shared["clean"]],
        note=[v or "–" for v in shared["note"]],
    ).sort_values(["clean", "n_overlap", "set_a", "set_b"], ascending=[False, False, True, True], kind="stable")
    return [
        heading("Do the sets share genes?"),
        text(
            f"A set that shares genes with another cannot support it. Of {count(len(table), 'pair')} of gene sets in "
            f"use {len(kept)} must not overlap, and {broken or 'none'} of these {'does' if broken == 1 else 'do'}; "
            f"{count(len(shared), 'pair')} with a shared gene {'is' if len(shared) == 1 else 'are'} listed."
        ),
        page.table(
            "circularity",
            shown,
            columns(
                "set_a: set | set_b: other set | n_overlap # shared | genes: shared genes | must: must be apart | note"
            ),
            "Circularity.",
            "Pairs that need not be apart are covariates, compartments that are called from other cells, or sets "
            "that are never tested against each other.",
        ),
    ]


def loop_chapter(d: Data, page: Page) -> list[Block]:
    """Three arms per patient."""
    arms, loop = d.per_sample("loop_arms"), d.table("loop")
    if not len(arms) and not len(loop):
        return [note("The loop could not be looked at in any sample; the chapter 'Not assessable' says why.")]
    blocks = [
        text(
            "Three arms: A, the niche signals to malignant cells; B, CSC-high malignant cells respond more than "
            "CSC-low ones of the same clone and depth; C, malignant cells signal back. The patient's p is the "
            "largest of the three, and an arm that cannot be measured makes the answer NA, not zero. Of one patient "
            "no more is said than 'all three arms present', 'not present' or 'not assessable'."
        )
    ]
    tumours = d.tumours[:SAMPLES]
    mine = arms[arms["sample"].isin(tumours)].assign(label=lambda t: t["sample"])
    names = [a for a in MAIN_AXES if a in set(mine["axis"])] + sorted(set(mine["axis"]) - set(MAIN_AXES))
    measured = set(mine.loc[mine["status"].isin(GOOD), "axis"])
    names = [a for a in names if a in MAIN_AXES or a in measured][:6]
    for i, part in enumerate(figures.chunks(names, 3 if len(tumours) < 16 else 1), start=1):
        blocks.append(
            page.figure(
                f"loop_{i}",
                figures_niche.loop_arms(mine, tumours, part, short_words),
                f"Which arms stand out in which tumour: {listed([a.replace('_', ' ') for a in part])}?",
                f"n = {count(len(tumours), 'tumour')}, one primary sample each. Bar: effect with its interval; dark: "
                "p below 0.05 against the arm's null; A and C: log2 strength over permuted labels, B: read-out z of "
                f"CSC-high minus CSC-low cells. NA: the arm could not be measured.{many(d.tumours, 'tumours')}",
                "Bars of the arms A, B and C per tumour for " + listed(list(part)) + ".",
            )
        )
    if len(loop):
        order = {a: i for i, a in enumerate(MAIN_AXES)}
        ranked = loop.assign(rank=loop["axis"].map(order).fillna(99)).sort_values(
            ["rank", "axis", "verdict", "patient"], kind="stable"
        )
        first = ranked[ranked["axis"].isin(MAIN_AXES)]
        blocks.append(
            page.table(
                "loop",
                first if len(first) else ranked,
                columns("sample | axis | verdict | p_a # p A | p_b # p B | p_c # p C | p # p (largest) | reason"),
                "What may be said of each patient.",
                "Scores are not comparable between patients.",
                path="cohort/loop.tsv",
            )
        )
    return blocks
