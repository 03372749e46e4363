"""Blocks of the stem-cell chapter that hold the calls against chance: posteriors, nulls, adjustments, copy number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nicheloop import figures, figures_states
from nicheloop.her2_pten import OUTCOMES
from nicheloop.report_data import Data, flagged
from nicheloop.report_page import SAMPLES, Block, Page, columns, count, heading, many, text
from nicheloop.report_text import short_words

if TYPE_CHECKING:
    pass

SCORE_WORDS = {"m_csc": "CD44+/CD24- probability", "aldh1a3": "ALDH1A3-high probability"}
STATE_WORDS = {"m_csc": "CD44+/CD24- cells", "aldh1a3": "ALDH1A3-high cells"}
MOST_PANELS = 32
ADJUSTMENTS = {
    "none": "nothing",
    "ifn": "interferon",
    "lp": "luminal progenitor",
    "all_and_cycle": "all and cell cycle",
}


def posterior_blocks(d: Data, page: Page) -> list[Block]:
    """How sure the model is of single cells."""
    import pandas as pd

    cells = d.per_sample("csc", ["cell_id", "m_csc_prob", "csc_state"])
    cells = cells[cells["m_csc_prob"].notna()]
    tumours = [s for s in d.tumours if (cells["sample"] == s).any()]
    if not tumours:
        return []
    panels = []
    for s in tumours[:MOST_PANELS]:
        values = cells.loc[cells["sample"] == s, "m_csc_prob"].to_numpy(float)
        panels.append((f"{s}, n = {len(values):,}", values))
    rows = [
        {"sample": s, "from": low, "to": high, "cells": int(n)}
        for s, (_, values) in zip(tumours, panels, strict=False)
        for low, high, n in zip(
            figures_states.BINS[:-1], figures_states.BINS[1:], np.histogram(values, figures_states.BINS)[0], strict=True
        )
    ]
    cut = d.config.csc
    low, high = cut.negative, cut.positive
    mine = cells[cells["sample"].isin(tumours)]
    open_share = float((mine["csc_state"] == "undetermined").mean())
    more = f" The first {MOST_PANELS} of {len(tumours)} tumours are drawn." if len(tumours) > MOST_PANELS else ""
    return [
        page.figure(
            "csc_posterior",
            figures_states.posteriors(panels, low, high),
            "How sure is the model of single cells?",
            f"n = {count(len(mine), 'malignant cell')} of {count(len(tumours), 'tumour')} with an estimate. "
            "Probability of "
            f"CD44 high and CD24 low given the counts and the depth of the cell; grey, from {low:g} to {high:g}: no "
            "state "
            f"is given ({figures.percent(open_share)} of these cells).{more}",
            f"Histograms of the posterior for {count(len(tumours), 'tumour')}; {figures.percent(open_share)} of "
            "cells lie "
            "between the cuts.",
            pd.DataFrame(rows),
        )
    ]


def null_blocks(d: Data, page: Page) -> list[Block]:
    """CD44 and CD24 among pairs of genes like them."""
    table = d.table("csc_nulls")
    table = table[table["sample"].isin(d.tumours)]
    if not len(table):
        return []
    rank = {s: i for i, s in enumerate(d.samples)}
    table = table.assign(_r=table["sample"].map(rank)).sort_values("_r", kind="stable").drop(columns="_r")
    shown = table.head(SAMPLES)
    panels = []
    for label, value, low, median, high in (
        ("CD44 high, CD24 low (share)", "fraction", "null_low", "null_median", "null_high"),
        ("log odds of CD44 high and CD24 high", "log_odds", "odds_low", "odds_median", "odds_high"),
    ):
        part = shown.assign(
            label=[d.label(s) for s in shown["sample"]],
            value=shown[value],
            low=shown[low],
            median=shown[median],
            high=shown[high],
            note=[short_words(str(s)) for s in shown["status"]],
        )
        panels.append((label, part[["label", "value", "low", "median", "high", "note"]]))
    known = table[table["fraction"].notna() & table["null_high"].notna()]
    beyond = int((known["p_fraction"] < 0.05).sum())
    words = (
        f"In {beyond} of {count(len(known), 'tumour')} more cells are CD44 high and CD24 low than in pairs of genes "
        "like them."
        if len(known)
        else "In no tumour could pairs of genes like CD44 and CD24 be made."
    )
    return [
        heading("Is it more than two genes of this kind would show?"),
        text(words + " A share within the band is what any two genes of like expression give and is no state."),
        page.figure(
            "csc_nulls",
            figures_states.bands(panels, "Would other pairs of genes show the same?", (True, False)),
            "Would other pairs of genes show the same?",
            f"n = {count(len(shown), 'tumour')}. Dot: CD44 and CD24; grey: 95 % of the pairs of stand-ins (like them "
            "in mean "
            "and detection, on other chromosome arms), tick: their median, all by the same model."
            + many(list(table["sample"]), "tumours"),
            f"Shares and odds of CD44 and CD24 beside pairs of stand-ins; beyond them in {beyond} of {len(known)} "
            "tumours.",
            shown,
        ),
        page.table(
            "csc_nulls",
            flagged(table),
            columns(
                "sample | subtype | n_pairs # pairs | fraction % share | null_low % pairs, low | null_median % "
                "median | "
                "null_high % high | p_fraction # p | log_odds # log odds | odds_median # pairs, median | p_odds # p "
                "odds | "
                "status ="
            ),
            "CD44 and CD24 among pairs of genes like them.",
            "p: one-sided for the share, two-sided for the odds; the smallest possible is one over the number of "
            "pairs.",
            path="cohort/csc_nulls.tsv",
        ),
    ]


def readout_blocks(d: Data, page: Page) -> list[Block]:
    """Read-outs of the states over patients, before and after each adjustment."""
    table = d.table("csc_readout_cohort")
    if not len(table):
        return []
    blocks = [
        heading("What else do the cells show, before and after adjustment?"),
        text(
            "Gene sets that share no gene with the state, in cells of the state against other malignant cells of the "
            "same "
            "tumour, less what random sets of like expression give. What disappears with an adjustment is explained by "
            "what was adjusted for: depth, cell cycle, stress, interferon or subtype programmes."
        ),
    ]
    names = [ADJUSTMENTS.get(str(v), str(v)) for v in dict.fromkeys(table["adjustment"])]
    for state, part in table.groupby("state", sort=True):
        known = part[part["effect"].notna()]
        title = f"What else do {STATE_WORDS.get(str(state), str(state))} show?"
        if len(known):
            rows = part.assign(
                row=part["readout"], version=[ADJUSTMENTS.get(str(v), str(v)) for v in part["adjustment"]]
            )
            rows = rows[rows["row"].isin(set(known["readout"]))]
            blocks.append(
                page.figure(
                    f"csc_adjusted_{state}",
                    figures_states.versions(
                        rows, names, title, "difference less matched sets (log1p counts per 10,000), mean over tumours"
                    ),
                    title,
                    f"n = up to {count(known['n_assessable'].max(), 'tumour')}. Mark and line: random-effects mean "
                    "over "
                    "tumours with its interval (from two tumours on; the table holds the others), one mark per "
                    "adjustment.",
                    f"Read-outs of {STATE_WORDS.get(str(state), state)} by adjustment: {known['readout'].nunique()} "
                    "read-outs.",
                    rows[["state", "readout", "adjustment", "n_assessable", "effect", "effect_low", "effect_high"]],
                )
            )
    blocks.append(
        page.table(
            "csc_readouts",
            table.assign(
                state=[STATE_WORDS.get(str(s), str(s)) for s in table["state"]],
                readout=[str(v).replace("_", " ") for v in table["readout"]],
                adjustment=[ADJUSTMENTS.get(str(v), str(v).replace("_", " ")) for v in table["adjustment"]],
            ),
            columns(
                "state | readout: read-out | adjustment: adjusted for | n_assessable # tumours | n_up # higher | "
                "n_down # "
                "lower | n_significant # p below the level | effect # difference | effect_low # low | effect_high # "
                "high | "
                "status ="
            ),
            "Read-outs of the states over tumours.",
            "Higher, lower: tumours in which the state differs from matched sets in that direction. 'all': "
            "everything but "
            "the cell cycle.",
            path="cohort/csc_readouts.tsv",
            most=24,
        )
    )
    return blocks


def locus_blocks(d: Data, page: Page) -> list[Block]:
    """Whether a score follows the copy number at its own locus."""
    tests, table = d.table("csc_locus_tests"), d.table("csc_loci")
    if not len(tests) and not len(table):
        return []
    blocks = [heading("Does a score follow the copy number of its own gene?")]
    changed = table[table["seen"].isin(("gain", "loss"))]
    if len(table):
        blocks.append(
            text(
                f"Of {len(table):,} looks at a marker's locus in a clone {len(changed):,} show a gain or loss. A clone "
                "that gained the gene may look 'high' without any change of state."
            )
        )
    if len(tests):
        blocks.append(
            page.table(
                "csc_locus_tests",
                tests.assign(score=[SCORE_WORDS.get(str(s), str(s)) for s in tests["score"]]),
                columns(
                    "score | gene | n_patients # tumours | rho # rank correlation | p # | n_within # tumours with "
                    "clones "
                    "that differ | slope # slope within | slope_low # low | slope_high # high | status = | reason"
                ),
                "Do scores follow copy number over tumours, and between clones of a tumour?",
                "p: patients permuted. Slope: score per log2 copy number between clones, random-effects mean.",
                path="cohort/csc_locus_tests.tsv",
            )
        )
    if len(table):
        blocks.append(
            page.table(
                "csc_loci",
                table.assign(
                    _c=~table["seen"].isin(("gain", "loss")),
                    clone=table["clone"].str.removeprefix("clone_").astype(int),
                )
                .sort_values(["_c", "score", "sample", "clone"], kind="stable")[list(table.columns)]
                .assign(score=lambda t: [SCORE_WORDS.get(str(s), str(s)) for s in t["score"]]),
                columns(
                    "sample | score | gene | clone | locus | n_cells # cells | seen = copy number | log2 # log2 | "
                    "mean # "
                    "mean score | se # SE"
                ),
                "Scores beside copy number, clone by clone.",
                "Gains and losses first.",
                path="cohort/csc_loci.tsv",
                most=12,
            )
        )
    return blocks


def her2_pten_blocks(d: Data, page: Page) -> list[Block]:
    """The HER2 and PTEN stratum, where its table exists."""
    table, tests = d.table("her2_pten"), d.table("her2_pten_tests")
    table = table[table["sample"].isin(d.tumours)]
    if not len(table):
        return []
    her2 = {"amplified": "HER2 amplified", "some_clones": "HER2 in some clones", "not_amplified": "HER2 not amplified"}
    strata = table.assign(
        group=[
            f"{her2.get(str(h), 'HER2 not measurable')}, PTEN "
            f"{'low' if p == 'low' else 'not low' if p == 'not_low' else '?'}"
            for h, p in zip(table["her2_amplicon"], table["pten"], strict=True)
        ]
    ).sort_values("group", kind="stable")
    panels = [
        (label, strata[["group"]].assign(value=strata[column].to_numpy(float)))
        for label, column in (
            ("CD44+/CD24- share", "m_csc_fraction"),
            ("ALDH1A3-high share", "aldh1a3_fraction"),
            ("malignant cells with IL6", "il6_fraction"),
        )
    ]
    blocks = [
        heading("HER2 and PTEN"),
        text(
            "In HER2-positive models with PTEN lost, an IL6 loop of the tumour cells themselves was described "
            "(Korkaya 2012, "
            "DOI 10.1016/j.molcel.2012.06.014). Here PTEN is low where its RNA is low or 10q23.3 is lost, and IL6 "
            "counts "
            "only beyond ambient RNA."
        ),
        page.figure(
            "strata_her2_pten",
            figures_states.groups(panels, "Do HER2-amplified, PTEN-low tumours differ?"),
            "Do HER2-amplified, PTEN-low tumours differ?",
            f"n = {count(len(table), 'tumour')}. Dots: tumours; tick: median; at the right how many of the group "
            "have a value. "
            "Groups of few tumours are described, not compared.",
            f"Dots of three outcomes by HER2 and PTEN group of {len(table)} tumours.",
            strata[["sample", "group", "m_csc_fraction", "aldh1a3_fraction", "il6_fraction"]],
        ),
        page.table(
            "her2_pten",
            flagged(table),
            columns(
                "sample | subtype | n_malignant # malignant cells | her2_amplicon = HER2 amplicon | pten = PTEN | "
                "pten_ratio # "
                "PTEN over other tumours | pten_10q = 10q23.3 | il6 = IL6 of malignant cells | il6_umi # IL6 UMI | "
                "il6_ambient_umi # of them ambient | il6_upper % cells with IL6, at most | m_csc_fraction % "
                "CD44+/CD24- | status ="
            ),
            "HER2, PTEN and IL6 of malignant cells.",
            path="cohort/her2_pten.tsv",
        ),
    ]
    if len(tests):
        blocks.append(
            page.table(
                "her2_pten_tests",
                tests.assign(outcome=[OUTCOMES.get(str(v), str(v)) for v in tests["outcome"]]),
                columns(
                    "stratum | outcome | n_stratum # tumours | n_low # PTEN-low | n_other # others | mean_low # mean "
                    "low | "
                    "mean_other # mean others | p # | status = | reason"
                ),
                "PTEN-low against other tumours.",
                "The patient is the unit; p over divisions of the patients.",
                path="cohort/her2_pten_tests.tsv",
            )
        )
    return blocks


def tissue_blocks(d: Data, page: Page) -> list[Block]:
    """Primary against metastatic tissue; nothing where only one kind of tissue came in."""
    table = d.table("csc_patients")
    table = table[~table["sample"].isin([s for s in d.samples if d.is_normal(s)])]
    tissue = [d.sheet_value(s, "tissue") or "not said" for s in table["sample"]]
    if len(set(tissue)) < 2:
        return []
    table = table.assign(tissue=tissue)
    macro = d.table("tam_patients").set_index("sample")
    panels = [
        ("CD44+/CD24- share", table[["tissue"]].assign(value=table["m_csc_fraction"])),
        ("ALDH1A3-high share", table[["tissue"]].assign(value=table["aldh1a3_fraction"])),
        (
            "macrophages high on both axes",
            table[["tissue"]].assign(
                value=macro["fraction_mixed"].reindex(table["sample"]).to_numpy(float) if len(macro) else np.nan
            ),
        ),
    ]
    panels = [(label, part.rename(columns={"tissue": "group"})) for label, part in panels]
    return [
        heading("Primary and metastatic tissue"),
        page.figure(
            "strata_tissue",
            figures_states.groups(panels, "Do primary tumours and metastases differ?"),
            "Do primary tumours and metastases differ?",
            f"n = {count(len(table), 'sample')} of {count(table['patient'].nunique(), 'patient')}. Dots: samples; "
            "tick: median; "
            "at the right how many have a value. Descriptive: samples of one patient are not independent, and "
            "tissues differ "
            "in how they were taken and handled.",
            f"Dots of three outcomes by tissue for {len(table)} samples.",
            table[["sample", "patient", "tissue", "m_csc_fraction", "aldh1a3_fraction"]],
        ),
        page.table(
            "tissue",
            flagged(table.sort_values(["patient", "tissue"], kind="stable")),
            columns(
                "patient | sample | tissue | subtype | n_malignant # malignant cells | m_csc_fraction % CD44+/CD24- "
                "| m_csc_low "
                "% low | m_csc_high % high | aldh1a3_fraction % ALDH1A3-high | status ="
            ),
            "Samples of each patient by tissue.",
            path="cohort/csc_patients.tsv",
        ),
    ]


def tam_blocks(d: Data, page: Page) -> list[Block]:
    """States of macrophages per sample, the correlation of the axes against matched sets, single genes."""
    import pandas as pd

    blocks: list[Block] = []
    cells = d.per_sample("tam", ["cell_id", "tam_state"])
    states = cells[cells["tam_state"].notna()]
    if len(states):
        wide = states.groupby(["sample", "tam_state"]).size().unstack(fill_value=0)
        order = [s for s in d.samples if s in set(wide.index)][:SAMPLES]
        names = list(states["tam_state"].value_counts().sort_index().sort_values(ascending=False, kind="stable").index)
        spare = [c for c in figures.SAMPLE_COLOURS if c != "#BBBBBB"]
        palette = {n: "#D5D5D5" if n == "mixed" else spare[i % len(spare)] for i, n in enumerate(sorted(names))}
        blocks.append(
            page.figure(
                "tam_states",
                figures_states.shares(
                    wide.loc[order], palette, "Which states do the macrophages take?",
                    "share of the sample's macrophages",
                    [f"n = {v:,.0f}" for v in wide.loc[order].sum(axis=1)],
                ),
                "Which states do the macrophages take?",
                f"n = {count(len(states), 'macrophage')} of {count(len(order), 'sample')}. A state (Ma 2022) is "
                "given only where "
                "it leads the next by a margin; the sets overlap, so many macrophages stay mixed.",
                f"Stacked bars of macrophage states; the commonest over all cells is {names[0]}.".replace("_", " "),
                wide.loc[order].reset_index(),
            )
        )  # fmt: skip
    table = d.table("tam_patients")
    rank = {s: i for i, s in enumerate(d.samples)}
    table = table[table["sample"].isin(d.tumours)].sort_values("sample", key=lambda v: v.map(rank), kind="stable")
    if len(table) and table["m1_m2_rho"].notna().any() and "rho_null_median" in table:
        rows = pd.DataFrame({
            "label": [d.label(s) for s in table["sample"]], "value": table["m1_m2_rho"].to_numpy(float),
            "low": table["rho_null_low"].to_numpy(float), "median": table["rho_null_median"].to_numpy(float),
            "high": table["rho_null_high"].to_numpy(float), "note": [short_words(str(s)) for s in table["status"]],
        }).head(SAMPLES)  # fmt: skip
        cohort = d.table("tam_cohort")
        said = ""
        for r in figures.records(cohort[cohort["rho"].notna()]):
            said += (
                f" Over {count(r.n_assessable, 'tumour')}, beyond "
                f"{'depth' if r.adjustment == 'depth' else 'depth, interferon and stress'}: "
                f"mean {r.rho:.2f} ({r.rho_low:.2f} to {r.rho_high:.2f})."
            )
        blocks.append(
            page.figure(
                "tam_donors",
                figures_states.bands(
                    [("rank correlation of M1 and M2 beyond depth", rows)],
                    "Do M1 and M2 go together within tumours?",
                    (False,),
                ),
                "Do M1 and M2 go together within tumours?",
                f"n = {count(len(rows), 'tumour')}. Dot: correlation over the macrophages of a tumour; grey: 95 % of "
                "pairs of "
                f"random gene sets of like expression.{said}",
                f"Correlation of M1 and M2 in {int(rows['value'].notna().sum())} of {len(rows)} tumours beside "
                "random sets.",
                rows,
            )
        )
    genes = d.table("tam_markers")
    if len(genes):
        blocks.append(
            page.table(
                "tam_markers",
                genes,
                columns(
                    "sample | gene | n_macrophage # macrophages | rate # counts per 10,000 | fraction % with a count "
                    "| upper % at "
                    "most | status ="
                ),
                "Single genes of macrophages, shown and not summed.",
                path="cohort/tam_markers.tsv",
                most=18,
            )
        )
    return blocks
