"""Chapters of the report over patients: the cohort with its power, and enrichment."""

from __future__ import annotations

import math

import numpy as np

from nicheloop import figures, figures_niche
from nicheloop.report_axes import span
from nicheloop.report_data import Data, cohort_words
from nicheloop.report_nulls import her2_pten_blocks, tissue_blocks
from nicheloop.report_page import Block, Page, bullets, columns, count, heading, interval, listed, note, text
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
        for title, prefix, n_known in (
            ("The loop in the cohort (CD44+/CD24- cells)", "", "n_assessable"),
            ("The same with ALDH1A3-high cells as the second label", "aldh1a3_", "aldh1a3_n_assessable"),
        ):
            share = table[[f"{prefix}n_present", n_known, f"{prefix}present_low", f"{prefix}present_high"]]
            shown = table.assign(
                share=[interval(k / n if n else np.nan, low, high) for k, n, low, high in share.to_numpy(float)],
            )
            blocks.append(heading(title))
            blocks.append(bullets(cohort_words(table, f"{prefix}wording")))
            blocks.append(
                page.table(
                    f"{prefix}loop_cohort",
                    shown,
                    columns(
                        f"axis | n_patients # patients | n_asked # with the cells | {n_known} # assessable | "
                        f"{prefix}n_present # all three arms | share ~ share of assessable | {prefix}p_present # p by "
                        f"chance | {prefix}q # q | {prefix}status = status"
                    ),
                    "Patients with all three arms, by axis.",
                    "With the cells: patients whose forward arm had enough cells, the trials of the binomial. p by "
                    "chance: so many with three arms at the level of the test. q: largest of that p and the coupling "
                    "swaps (chapter Loop), Benjamini-Hochberg over the axes.",
                    path="cohort/loop_cohort.tsv",
                    most=20,
                )
            )
    primary = csc[csc["sample"].isin(d.tumours)]
    if len(primary):
        groups = primary.assign(
            subtype=primary["subtype"].fillna("unknown"), inferred=primary["subtype_source"] == "inferred"
        ).groupby("subtype")
        wide = groups.agg(
            tumours=("sample", "size"),
            inferred=("inferred", "sum"),
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
                    "subtype | tumours # | inferred # subtype inferred | assessable # with an estimate | median % "
                    "median CD44+/CD24- | lowest % | "
                    "highest % | aldh % median ALDH1A3-high"
                ),
                "Stem-cell states by subtype.",
                "CD44+/CD24- is expected to be more frequent in basal-like tumours because it is a subtype marker too.",
            )
        )
    contrasts = d.table("csc_subtypes")
    if len(contrasts):
        told = contrasts.assign(
            outcome=[{"m_csc": "CD44+/CD24-", "aldh1a3": "ALDH1A3-high"}.get(o, o) for o in contrasts["outcome"]],
            odds=[span(r.odds_ratio, r.odds_low, r.odds_high) for r in figures.records(contrasts)],
        )
        blocks.append(
            page.table(
                "csc_subtypes",
                told,
                columns(
                    "outcome: state | chemistry | subtype | n_subtype # tumours | n_others # others | fraction % mean "
                    "fraction | others_fraction % of the others | odds ~ odds ratio | p # | status ="
                ),
                "Does a subtype have more of them?",
                "One primary tumour per patient, within a chemistry. Means and odds ratio from a random-effects model "
                "of logits with the interval of every tumour; p: all divisions of the patients into groups of that "
                f"size. Fewer than {d.config.csc.min_stratum} tumours on a side: no test. Dataset and treatment are "
                "not adjusted for.",
                path="cohort/csc_subtypes.tsv",
            )
        )
    return blocks + her2_pten_blocks(d, page) + tissue_blocks(d, page)


def enrichment_chapter(d: Data, page: Page) -> list[Block]:
    """Pseudobulk contrasts and prerank."""
    table, de = d.table("enrichment"), d.table("de")
    blocks = [
        text(
            "Counts are summed per patient and state and compared within patients. Gene permutation ranks gene sets; "
            "it is not a test between patients."
        )
    ]
    names = {
        "m_csc": "CD44+/CD24- against other malignant cells",
        "aldh1a3": "ALDH1A3-high against ALDH1A3-low malignant cells",
        "tam_m2": "M2-like against M1-like macrophages",
    }
    if not len(table) and not len(de):
        return [*blocks, note("No contrast was made; the chapter 'Not assessable' says why.")]
    for contrast in sorted(set(table["contrast"]) | set(de["contrast"])):
        part, genes = table[table["contrast"] == contrast], de[de["contrast"] == contrast]
        blocks.append(heading(names.get(contrast, contrast)))
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
                    figures_niche.enrichment(table, contrast, names.get(contrast, contrast)),
                    f"Which gene sets lead and trail: {names.get(contrast, contrast)}?",
                    (f"n = {count(n, 'patient')} with both states. " if n == n else "")
                    + "Null: permuted genes. "
                    + "Sets with the largest absolute normalised enrichment score; pale: q of 0.25 or more.",
                    f"Bars of normalised enrichment scores, {names.get(contrast, contrast)}; "
                    f"{int((part['q'] < 0.25).sum())} of {int(part['nes'].notna().sum())} sets have q below 0.25.",
                    part[["gene_set", "size", "nes", "p", "q", "leading_edge"]],
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
        own = sorted(genes.loc[genes["circular"].eq(True), "gene"]) if len(genes) else []
        if len(good):
            good = good.assign(defines=["yes" if v else "–" for v in good["circular"].eq(True)])
            ranked = good.assign(size_abs=good["statistic"].abs()).sort_values(
                ["q", "size_abs", "gene"], ascending=[True, False, True], kind="stable"
            )
            blocks.append(
                page.table(
                    f"de_{contrast}",
                    ranked,
                    columns(
                        "gene | defines: defines the contrast | n_patients # patients | mean_counts # mean counts | "
                        "log2_fold_change # log2 fold | p # | q #"
                    ),
                    "Genes by q.",
                    "Patients as replicates. "
                    + (
                        f"{listed(own, 12)} {'defines' if len(own) == 1 else 'define'} the contrast and "
                        f"{'differs' if len(own) == 1 else 'differ'} by construction; left out of the enrichment."
                        if own
                        else "No gene among these defines the contrast."
                    )
                    + " Genes correlated with the defining ones differ by construction too: the table describes the "
                    "states, it does not confirm them.",
                    path="cohort/de.tsv",
                    most=15,
                )
            )
    return blocks
