"""Chapters of the report over patients: the cohort with its power, and enrichment."""

from __future__ import annotations

import math

import numpy as np

from nicheloop import figures, figures_niche
from nicheloop.report_data import Data, cohort_words
from nicheloop.report_page import Block, Page, bullets, columns, count, heading, note, text
from nicheloop.report_text import explain


def smallest_rho(n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest correlation that `n` patients show with this power (Fisher z, two-sided); NaN below 4 patients."""
    from scipy.stats import norm

    if n < 4:
        return float("nan")
    return math.tanh(float(norm.ppf(1 - alpha / 2) + norm.ppf(power)) / math.sqrt(n - 3))


def power_statement(n: int) -> str:
    """What a cohort of `n` assessable patients could show, beside two fixed points."""
    fixed = "26 patients show a correlation with 80 % power only from |rho| = 0.53 on, 10 patients from 0.79 on."
    if n < 4:
        return f"Power: {fixed} With {count(n, 'assessable patient')} no correlation can be judged."
    return f"Power: {fixed} The {n} assessable patients of this cohort: from {smallest_rho(n):.2f} on."


def cohort_chapter(d: Data, page: Page) -> list[Block]:
    """What may be said of the cohort, and with what power."""
    table = d.table("loop_cohort")
    csc = d.table("csc_patients")
    n_csc = int(csc[csc["sample"].isin(d.tumours)]["m_csc_fraction"].notna().sum())
    n_loop = int(table["n_assessable"].max()) if len(table) else 0
    blocks = [
        text("The patient is the unit. One primary sample speaks for a patient; others are shown and never pooled."),
        note(
            power_statement(n_csc)
            + f" A claim about the loop needs {d.config.loop.min_patients} assessable patients; here there are at "
            f"most {n_loop}."
        ),
    ]
    if len(table):
        swapped = bool(table[["coupling_forward", "coupling_return"]].notna().any(axis=None))
        blocks.append(bullets(cohort_words(table)))
        blocks.append(
            page.table(
                "loop_cohort",
                table,
                columns(
                    "axis | n_patients # patients | n_assessable # assessable | n_present # all three arms | "
                    "coupling_forward # coupling A-B | p_forward # p | coupling_return # coupling C | p_return # p | "
                    "status =" + (" | strata" if swapped else "")
                ),
                "The loop in the cohort.",
                "Coupling: mean product of ligand and response over patients, standardised within subtype and data "
                "set; p from swapping patients within these strata. Strata with fewer than "
                f"{d.config.loop.min_stratum} patients are not swapped."
                + ("" if swapped else " No stratum is large enough here; the full table lists them."),
                path="cohort/loop_cohort.tsv",
            )
        )
    primary = csc[csc["sample"].isin(d.tumours)]
    if len(primary):
        groups = primary.assign(subtype=primary["subtype"].fillna("unknown")).groupby("subtype")
        wide = groups.agg(
            tumours=("sample", "size"),
            assessable=("m_csc_fraction", "count"),
            median=("m_csc_fraction", "median"),
            lowest=("m_csc_fraction", "min"),
            highest=("m_csc_fraction", "max"),
            aldh=("aldh1a3_fraction", "median"),
        ).reset_index()
        blocks.append(
            page.table(
                "csc_by_subtype",
                wide,
                columns(
                    "subtype | tumours # | assessable # with an estimate | median % median CD44+/CD24- | lowest % | "
                    "highest % | aldh % median ALDH1A3-high"
                ),
                "Stem-cell states by subtype.",
                "Descriptive; no test. CD44+/CD24- is expected to be more frequent in basal-like tumours because it "
                "is a subtype marker too.",
            )
        )
    return blocks


def enrichment_chapter(d: Data, page: Page) -> list[Block]:
    """Pseudobulk contrasts and prerank."""
    table, de = d.table("enrichment"), d.table("de")
    blocks = [
        text(
            "Counts are summed per patient and state and compared within patients. Gene permutation ranks gene sets; "
            "it is not a test between patients."
        )
    ]
    names = {"m_csc": "CD44+/CD24- against other malignant cells", "tam_m2": "M2-like against other macrophages"}
    if not len(table) and not len(de):
        return [*blocks, note("No contrast was made; the chapter 'Not assessable' says why.")]
    for contrast in sorted(set(table["contrast"]) | set(de["contrast"])):
        part, genes = table[table["contrast"] == contrast], de[de["contrast"] == contrast]
        blocks.append(heading(f"{contrast}: {names.get(contrast, 'high against low state')}"))
        bad = part[part["nes"].isna()]
        if len(part) == len(bad):
            source = bad if len(bad) else genes
            blocks.append(
                text(
                    f"Not assessable: {explain(str(source['status'].iloc[0]))} {source['reason'].iloc[0] or ''}".strip()
                    + "."
                )
            )
        else:
            n = genes["n_patients"].max() if len(genes) else np.nan
            blocks.append(
                page.figure(
                    f"enrichment_{contrast}",
                    figures_niche.enrichment(table, contrast),
                    f"Which gene sets lead and trail in {contrast}?",
                    (f"n = {count(n, 'patient')} with both states. " if n == n else "")
                    + "Sets with the largest absolute normalised enrichment score; pale: q of 0.25 or more.",
                    f"Bars of normalised enrichment scores for {contrast}.",
                )
            )
            ranked = (
                part.assign(size_abs=part["nes"].abs())
                .sort_values(["q", "size_abs"], ascending=[True, False], kind="stable")
                .drop(columns="size_abs")
            )
            ranked = ranked.assign(
                lead=[figures.short(str(v).replace(";", ", "), 70) if v else "" for v in ranked["leading_edge"]]
            )
            blocks.append(
                page.table(
                    f"enrichment_{contrast}",
                    ranked,
                    columns("gene_set: gene set | size # genes | nes # NES | p # | q # | lead: leading genes"),
                    "Gene sets by q.",
                    path="cohort/enrichment.tsv",
                    most=15,
                )
            )
        good = genes[genes["log2_fold_change"].notna()]
        if len(good):
            ranked = good.assign(size_abs=good["statistic"].abs()).sort_values(
                ["q", "size_abs", "gene"], ascending=[True, False, True], kind="stable"
            )
            blocks.append(
                page.table(
                    f"de_{contrast}",
                    ranked,
                    columns(
                        "gene | n_patients # patients | mean_counts # mean counts | log2_fold_change # log2 fold | p "
                        "# | q #"
                    ),
                    "Genes by q.",
                    "Genes that define a state rank high by construction (CD44 and CD24 in m_csc).",
                    path="cohort/de.tsv",
                    most=15,
                )
            )
    return blocks
