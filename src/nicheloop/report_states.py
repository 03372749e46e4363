"""Chapters of the report on states: cancer stem cells and macrophages, per tumour."""

from __future__ import annotations

from nicheloop import figures, figures_niche
from nicheloop.report_data import Data, flagged
from nicheloop.report_isoforms import isoform_blocks
from nicheloop.report_nulls import (
    locus_blocks,
    null_blocks,
    posterior_blocks,
    readout_blocks,
    tam_blocks,
)
from nicheloop.report_page import (
    PANELS,
    SAMPLES,
    Block,
    Page,
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
from nicheloop.status import GOOD


def csc_chapter(d: Data, page: Page) -> list[Block]:
    """CD44/CD24 and ALDH1A3, per tumour."""
    table = d.table("csc_patients")
    if not len(table):
        return [note("There is no table of cancer stem cell states.")]
    rank = {s: i for i, s in enumerate(d.samples)}
    table = table.assign(rank=table["sample"].map(rank)).sort_values("rank", kind="stable")
    primary = table[table["sample"].isin(d.tumours)]
    good = primary["m_csc_fraction"].notna()
    sets = d.config.csc
    blocks = [
        text(
            "Malignant cells only. A zero for CD24 means 'low' only in a cell that would show CD24 if it were high; "
            "the fraction comes from a joint model of both genes with the depth of every cell, and its interval "
            "carries the uncertainty of the rates. CD44+/CD24- and ALDH1A3-high are two states and are not averaged. "
            "CD44+/CD24- is also a marker of basal and mesenchymal subtypes: read fractions beside the subtype."
        )
    ]
    shown = primary.head(SAMPLES)
    rows = shown.assign(
        label=[d.label(s) for s in shown["sample"]],
        value=shown["m_csc_fraction"],
        low=shown["m_csc_low"],
        high=shown["m_csc_high"],
        note=[
            f"{fraction(r.m_csc_fraction)}, n = {r.n_malignant:,.0f}"
            if r.m_csc_fraction == r.m_csc_fraction
            else f"{short_words(str(r.status))} (n = {r.n_malignant:,.0f})"
            for r in figures.records(shown)
        ],
    )
    if len(rows):
        blocks.append(
            page.figure(
                "csc_forest",
                figures_niche.forest(
                    rows,
                    f"In {int(good.sum())} of {len(primary)} tumours the CD44+/CD24- fraction can be estimated",
                    "CD44+/CD24- share of malignant cells",
                    "naive_fraction",
                ),
                f"In {int(good.sum())} of {len(primary)} tumours the CD44+/CD24- fraction can be estimated.",
                f"n = {int(primary['n_malignant'].sum()):,} malignant cells of {count(len(primary), 'tumour')}, one "
                "primary sample per patient. Dot and line: estimate and 95 % interval. Cross: the simple rule CD44 "
                f"> 0 and CD24 = 0, shown to be distrusted. NA: fewer than {sets.min_malignant} malignant cells, "
                f"fewer than {fraction(sets.min_informative)} of them informative for CD24, or another reason as "
                f"given.{many(list(primary['sample']), 'tumours')}",
                f"Forest plot of CD44+/CD24- fractions; {int(good.sum())} tumours with an estimate, "
                f"{int((~good).sum())} without.",
                rows[["sample", "subtype", "n_malignant", "value", "low", "high", "naive_fraction", "status"]],
            )
        )
    blocks.append(
        page.table(
            "csc_patients",
            flagged(table),
            columns(
                "sample | subtype | n_malignant # cells | n_foreign # doublets left out | "
                "median_umi # median UMI | informative_fraction % CD24 "
                "informative | m_csc_fraction % CD44+/CD24- | m_csc_low % low | m_csc_high % high | m_csc_wording: "
                "may be said | odds_ratio # odds ratio | status ="
            ),
            "CD44+/CD24- per sample.",
            "Cells: malignant ones that take part; doublets with a cell of another type do not. "
            "Odds ratio: association of CD44 high and CD24 high. Samples that do not speak for a tumour are listed "
            "too. EMT and cell cycle of the state are below, against matched sets.",
            path="cohort/csc_patients.tsv",
        )
    )
    blocks += posterior_blocks(d, page) + rates_blocks(d, page)
    blocks += null_blocks(d, page) + readout_blocks(d, page) + locus_blocks(d, page)
    controls = d.table("csc_controls")
    blocks.append(heading("What if all cells were scored?"))
    if controls["fraction_called"].notna().any():
        pooled = controls.dropna(subset=["fraction_called"])
        wide = pooled.groupby("cell_type").agg(
            samples=("sample", "nunique"),
            cells=("n_cells", "sum"),
            median=("fraction_called", "median"),
            highest=("fraction_called", "max"),
        )
        wide = wide.reset_index().assign(cell_type=lambda t: [figures.type_words(str(v)) for v in t["cell_type"]])
        wide = wide.sort_values(["median", "cell_type"], ascending=[False, True], kind="stable")
        blocks.append(
            page.figure(
                "csc_controls",
                figures_niche.controls(controls),
                "What if all cells were scored?",
                f"n = {int(pooled['n_cells'].sum()):,} cells of {count(pooled['sample'].nunique(), 'sample')}. Dot: "
                "a sample; bar: the median of samples. The same caller applied to every type. T cells, fibroblasts "
                "and perivascular cells express CD44 and no CD24 by nature: without the restriction to malignant "
                "cells most 'stem cells' would be stroma.",
                f"Share of cells of each type that the CD44/CD24 caller would take; most in "
                f"{wide['cell_type'].iloc[0]} (median {fraction(wide['median'].iloc[0])}).",
                pooled[["sample", "cell_type", "n_cells", "fraction_called"]],
            )
        )
        blocks.append(
            page.table(
                "csc_controls",
                wide,
                columns("cell_type: cells | samples # | cells # n | median % median share called | highest %"),
                "The CD44/CD24 caller on every type.",
                path="cohort/csc_controls.tsv",
            )
        )
    else:
        blocks.append(
            text("Not available: the rates of the two states were not estimated, so no cell of any type can be called.")
        )
    blocks.append(heading("ALDH1A3"))
    aldh = primary.head(SAMPLES)
    ok = aldh["aldh1a3_fraction"].notna()
    if ok.any():
        rows = aldh.assign(
            label=[d.label(s) for s in aldh["sample"]],
            value=aldh["aldh1a3_fraction"],
            low=aldh["aldh1a3_low"],
            high=aldh["aldh1a3_high"],
            note=[
                f"{fraction(r.aldh1a3_fraction)}, LP-adjusted {fraction(r.aldh1a3_lp_fraction)}"
                if r.aldh1a3_fraction == r.aldh1a3_fraction
                else short_words(str(r.aldh1a3_status))
                for r in figures.records(aldh)
            ],
        )
        blocks.append(
            page.figure(
                "aldh1a3_forest",
                figures_niche.forest(
                    rows,
                    f"In {int(ok.sum())} of {len(aldh)} tumours an ALDH1A3-high fraction can be estimated",
                    "ALDH1A3-high share of malignant cells",
                ),
                f"In {int(ok.sum())} of {len(aldh)} tumours an ALDH1A3-high fraction can be estimated.",
                f"n = {int(aldh['n_malignant'].sum()):,} malignant cells of {count(len(aldh), 'tumour')}. RNA, not "
                "enzyme activity: never read it as ALDEFLUOR-positive. LP-adjusted: the expected rate follows "
                "luminal-progenitor likeness, because normal progenitors express ALDH1A3.",
                f"Forest plot of ALDH1A3-high fractions; {int(ok.sum())} of {len(aldh)} tumours have one.",
                rows[
                    [
                        "sample",
                        "subtype",
                        "n_malignant",
                        "value",
                        "low",
                        "high",
                        "aldh1a3_lp_fraction",
                        "aldh1a3_status",
                    ]
                ],
            )
        )
    blocks.append(
        page.table(
            "aldh1a3",
            flagged(table),
            columns(
                "sample | subtype | n_malignant # malignant cells | aldh1a3_fraction % ALDH1A3-high | aldh1a3_low % "
                "low | aldh1a3_high % high | aldh1a3_lp_fraction % LP-adjusted | overlap_fraction % in both states | "
                "overlap_expected % if independent | aldh1a3_status = status"
            ),
            "ALDH1A3-high per sample.",
            "In both states: CD44+/CD24- and ALDH1A3-high, beside what independence would give.",
            path="cohort/csc_patients.tsv",
        )
    )
    return blocks + isoform_blocks(d, page)


def rates_blocks(d: Data, page: Page) -> list[Block]:
    """Rates of the two states, and whether they are states of cells or differences between samples."""
    rates = d.table("csc_rates")
    if not len(rates):
        return []
    between = rates["bic_gain_samples"] < 0
    shown = rates.assign(
        fold=rates["high"] / rates["low"].where(rates["low"] > 0),
        said=[
            "samples differ more than the cells within them: do not read as two states of cells"
            if b
            else "two states within samples"
            if good and g == g
            else "not compared with samples"
            if good
            else short_words(str(status))
            for b, good, g, status in zip(
                between, rates["status"].isin(GOOD), rates["bic_gain_samples"], rates["status"], strict=True
            )
        ],
    )
    return [
        heading("Are there two states at all?"),
        page.table(
            "csc_rates",
            shown,
            columns(
                "chemistry | gene | n_cells # cells | low # low rate | high # high rate | fold # fold | shape # | "
                "bic_gain # gain over one state | bic_gain_samples # gain over samples | said: may be read as"
            ),
            "Rates of the low and the high state per gene and chemistry.",
            "Rates in UMI per 10,000, from malignant cells of all samples of the chemistry; shape: gamma shape "
            "within a state (small: cells of one state differ much). Gain: BIC of one state, or of one rate per "
            "sample, minus that of two states; below 0 two states are not supported.",
        ),
    ]


def tam_chapter(d: Data, page: Page) -> list[Block]:
    """M1 and M2 as two axes."""
    import pandas as pd

    table = d.table("tam_patients")
    if not len(table):
        return [note("There is no table of macrophages.")]
    rank = {s: i for i, s in enumerate(d.samples)}
    table = table.assign(rank=table["sample"].map(rank)).sort_values("rank", kind="stable")
    cells = d.per_sample("tam")
    macrophages = cells[cells["m1_z"].notna() & cells["m2_z"].notna()]
    panels = []
    for s in d.samples:
        mine = macrophages[macrophages["sample"] == s]
        if len(mine):
            panels.append((f"{s}, n = {len(mine):,}", mine))
    good = table[table["sample"].isin(d.tumours) & table["status"].isin(GOOD)]
    cut = d.config.tam.class_z
    blocks = [
        text(
            "M1 and M2 are two axes: a macrophage can be high on both (mixed) or on neither (low). Monocytes are "
            f"split off first. Macrophages could be assessed in {len(good)} of {count(len(d.tumours), 'tumour')}."
        )
    ]
    drawn = {s for s in d.samples if (macrophages["sample"] == s).any()}
    bare = [s for s in d.samples if s not in drawn]
    left_out = f" Not drawn, because no macrophage was scored: {listed(bare)}." if bare else ""
    if len(panels) > 3 * PANELS:
        left_out += f" Only the first {3 * PANELS} of {len(panels)} samples with macrophages are drawn."
    for i, part in enumerate(figures.chunks(panels[: 3 * PANELS], PANELS), start=1):
        blocks.append(
            page.figure(
                f"tam_{i}",
                figures_niche.tam_planes(part, cut),
                "Where do the macrophages of each sample lie between M1 and M2?",
                f"n = {sum(len(p[1]) for p in part):,} macrophages of {count(len(part), 'sample')}; z against "
                f"expression-matched nulls; dashed: the class cut at z = {cut:g}."
                " Sets without secreted genes, so that the axes share nothing with the crosstalk chapter." + left_out,
                "Scatter of M1 against M2 z for " + listed([p[0] for p in part], 20) + ".",
                pd.concat([p[1][["sample", "cell_id", "m1_z", "m2_z", "tam_class"]] for p in part]),
            )
        )
    if not panels:
        blocks.append(note("No sample has scored macrophages."))
    blocks.append(
        page.table(
            "tam_patients",
            flagged(table),
            columns(
                "sample | subtype | n_macrophage # macrophages | n_monocyte # monocytes | m1_median # median M1 z | "
                "m2_median # median M2 z | fraction_m1_like % M1-like | fraction_m2_like % M2-like | fraction_mixed "
                "% mixed | fraction_low % low | m1_m2_rho # rho | status ="
            ),
            "Macrophages per sample.",
            f"Classes at z = {cut:g}; the full table has the shares at other cuts. Rho: correlation of the two axes "
            "beyond depth. z is relative to the sample's own macrophages: z and shares are not comparable between "
            "samples (levels in the full table are, within a chemistry). A ratio of M1 to M2 is not given.",
            path="cohort/tam_patients.tsv",
        )
    )
    return blocks + tam_blocks(d, page)
