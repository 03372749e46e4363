"""Chapter of the report on crosstalk: what can be measured, then who can talk to whom.  See also `report_axes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nicheloop import figures, figures_niche
from nicheloop.detection import furthest
from nicheloop.report_axes import CHECKS, consistency_blocks, control_blocks
from nicheloop.report_data import Data
from nicheloop.report_drugs import drug_blocks
from nicheloop.report_page import (
    MAIN_AXES,
    Block,
    Page,
    bullets,
    columns,
    count,
    fraction,
    heading,
    listed,
    note,
    text,
)
from nicheloop.report_text import short_words

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_niche import Crosstalk as Floor

THEMES = (
    ("The IL6 family", ("IL6_classic", "IL6_trans", "IL6_autocrine", "OSM", "LIF", "IL11")),
    ("CXCL8 and PPBP: neutrophils and platelets", ("CXCL8", "CXCL1_2_3_5_6", "PPBP")),
    (
        "Recruitment of monocytes, and macrophages",
        ("CCL2", "CSF1", "CSF2", "CCL5", "CCL18", "MIF", "SPP1_CD44", "IL10", "IL4_IL13"),
    ),
    ("Fibroblasts", ("IL1B", "TNF", "TGFB1", "HA_CD44", "THY1_ITGAM", "CXCL12", "GAS6_AXL", "EGF_HBEGF_AREG")),
    ("Endothelium and angiogenesis", ("VEGFA", "JAG_NOTCH", "EFNA_EPHA4")),
)
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
            f"{hidden['sample'].nunique()} of {count(n, 'tumour')} (at most {fraction(hidden['receptor_upper'].max())} "
            f"of the cells of any tumour, n = {count(cells, 'cell')})"
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
        parts += obstacles_by_tumour(rest, n)
    if not parts:
        parts = obstacles_by_tumour(rows, n)
    return f"{name}: {'; '.join(parts)}."


def obstacles_by_tumour(rows: pd.DataFrame, n: int) -> list[str]:
    """``ligand not detected in 2 of 5 tumours``: the obstacle of the pair that came furthest, each with its tumours."""
    found: dict[str, int] = {}
    for _, mine in rows.groupby("sample"):
        status = furthest(mine["status"])
        found[status] = found.get(status, 0) + 1
    ranked = sorted(found.items(), key=lambda kv: (-kv[1], kv[0]))
    return [f"{short_words(status)} in {k} of {count(n, 'tumour')}" for status, k in ranked]


def crosstalk_chapter(d: Data, page: Page) -> list[Block]:
    """Measurability first, then the axes."""
    rows = d.per_sample("crosstalk")
    axes = d.table("axes")
    if not len(rows):
        return [note("No axis could be looked at in any sample; the chapter 'Not assessable' says why.")]
    mine = rows[rows["sample"].isin(d.tumours)]
    said = [s for s in (towards_malignant(d, a) for a in MAIN_AXES) if s]
    return [
        text(
            "First, can the axis be seen at all? A pair of types is tested only where the ligand and every receptor "
            "subunit pass the detection floor and the ambient expectation. 'Not detected' comes with the upper bound "
            "of how many cells may still express the gene: it is not proof of absence."
        ),
        measurability_table(d, mine, page),
        *([bullets(said)] if said else []),
        *barcode_blocks(mine, page),
        *dot_blocks(axes, page),
        *consistency_blocks(d, page),
        *control_blocks(d, page),
        *drug_blocks(d, page),
    ]


def measurability_table(d: Data, rows: pd.DataFrame, page: Page) -> Block:
    """Every claim axis with the tumours and pairs in which it can be tested, its obstacles and upper bounds."""
    import pandas as pd

    floor = d.config.crosstalk
    claims = rows[~rows["arm"].isin(CHECKS)]
    if not len(claims):
        return note("No tumour has a row of an axis.")
    table = []
    for axis in ranked_axes(claims):
        part = claims[claims["axis"] == axis]
        tested = part["status"] == "tested"
        asked = part[part["receiver"] == "malignant"] if (part["receiver"] == "malignant").any() else part
        obstacles = asked[asked["status"] != "tested"]["status"].value_counts()
        ranked = sorted(obstacles.items(), key=lambda kv: (-kv[1], kv[0]))
        hidden = asked[below_floor(asked, "receptor", "n_receiver", floor)]["receptor_upper"]
        quiet = asked[below_floor(asked, "ligand", "n_sender", floor)]["ligand_upper"]
        table.append(
            {
                "axis": axis,
                "genes": f"{listed(dict.fromkeys(part['ligand']), 3)} to {listed(dict.fromkeys(part['receptor']), 3)}",
                "samples": part["sample"].nunique(),
                "testable": part[tested]["sample"].nunique(),
                "pairs": len(part),
                "pairs_tested": int(tested.sum()),
                "obstacle": ", ".join(f"{short_words(str(k))} ({v})" for k, v in ranked) or "none",
                "ligand_upper": quiet.max() if len(quiet) else np.nan,
                "receptor_upper": hidden.max() if len(hidden) else np.nan,
            }
        )
    return page.table(
        "measurability",
        pd.DataFrame(table),
        columns(
            "axis | genes | samples # tumours | testable # testable in | pairs # rows | pairs_tested # rows tested | "
            "obstacle: obstacles (rows) | ligand_upper % hidden ligand, at most | receptor_upper % hidden receptor, at "
            "most"
        ),
        "Which axes can be measured?",
        "A row is a ligand, a receptor, a sender and a receiver in one tumour. Obstacles and bounds are those of rows "
        "with malignant cells as receivers, where the axis has them. Hidden, at most: largest fraction of cells that "
        "may express the gene where it stays below the detection floor (rule of three or exact); NA: above the floor "
        "wherever it was looked for.",
        most=40,
    )


def ranked_axes(rows: pd.DataFrame) -> list[str]:
    """Axes of a table: the main ones first, then by the share of tested rows and name."""
    found = set(rows["axis"])
    tested = (rows["status"] == "tested").groupby(rows["axis"]).mean()
    rest = sorted(found - set(MAIN_AXES), key=lambda a: (-tested[a], a))
    return [a for a in MAIN_AXES if a in found] + rest


def barcode_blocks(rows: pd.DataFrame, page: Page) -> list[Block]:
    """Platelet barcodes and neutrophils of every tumour: they decide what PPBP and CXCR1/2 can mean."""
    guards = rows.groupby("sample", sort=False)[["n_platelet", "n_neutrophil"]].max().reset_index()
    return [
        page.table(
            "barcode_guards",
            guards,
            columns("sample | n_platelet # platelet barcodes | n_neutrophil # neutrophils"),
            "Platelet barcodes and neutrophils.",
            f"n = {count(len(guards), 'tumour')}. PPBP (CXCL7) RNA marks platelets, and CXCR1/CXCR2 belong to "
            "neutrophils, which droplet data lose: both axes are expected to be 'not measurable', and few neutrophils "
            "here do not mean few in the tumour.",
            most=60,
        )
    ]


def dot_blocks(axes: pd.DataFrame, page: Page) -> list[Block]:
    """Sender by receiver plots, axes by theme; an axis that no tumour could be tested for shows why."""
    claims = axes[~axes["arm"].isin(CHECKS)]
    n = int(axes["n_patients"].max()) if len(axes) else 0
    there = set(claims["axis"])
    themes = [(title, [a for a in names if a in there]) for title, names in THEMES]
    known = {a for _, names in THEMES for a in names}
    themes.append(("Other axes", sorted(there - known)))
    blocks = []
    drawn = [(title, part) for title, names in themes for part in figures.chunks(names, 6)]
    for i, (title, names) in enumerate(drawn, start=1):
        if i == 1 or drawn[i - 2][0] != title:
            blocks.append(heading(title))
        blocks.append(
            page.figure(
                f"axes_{i}",
                figures_niche.axis_dots(axes, names),
                f"Who can talk to whom over {listed([a.replace('_', ' ') for a in names])}?",
                f"n = {count(n, 'tumour')}, one primary sample each. Circle: tested; size: patients in whom it was "
                "tested; colour: mean log2 strength in counts per 10,000 (random effects, two patients or more; "
                "hollow: one patient); numbers: significant of assessable patients. Other marks: the commonest reason "
                "why the pair could not be tested.",
                f"Sender by receiver dots for {listed([str(n).replace('_', ' ') for n in names])}: "
                f"{int((claims[claims['axis'].isin(names)]['n_assessable'] > 0).sum())} of "
                f"{int(claims['axis'].isin(names).sum())} pairs of types could be tested in some tumour.",
                axes.loc[
                    axes["axis"].isin(names),
                    ["axis", "sender", "receiver", "n_patients", "n_assessable", "n_significant", "status", "effect"],
                ],
            )
        )
    return blocks
