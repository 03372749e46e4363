"""Chapter of the report on the screen of a whole ligand-receptor resource; only where one was run."""

from __future__ import annotations

from nicheloop.report_data import Data
from nicheloop.report_page import Block, Page, columns, count, fraction, note, text
from nicheloop.report_text import short_words

NULLS = {
    "strength": "p comes from permuted type labels only: there is no matched-pair and no decoy null as for the axes, "
    "so unrelated proteins that are specific to their types pass as well",
    "cellphonedb": "p comes from permuted type labels only, and a mean of two means is large when one side is, so a "
    "pair can be significant because its ligand alone is specific",
}


def has_screen(d: Data) -> bool:
    """Whether any sample was screened."""
    return any(d.path("screen", s).exists() for s in d.samples)


def screen_chapter(d: Data, page: Page) -> list[Block]:
    """Rows per sample, and the pairs that stand out in most samples."""
    import pandas as pd

    options, level = d.config.screen, d.config.loop.alpha
    rows = d.per_sample("screen")
    blocks = [
        text(
            f"Exploration: every pair of a resource ('{options.resource}') between every two cell types, method "
            f"'{options.method}'. {NULLS[options.method]}. A row is not evidence that the pair exists or that anything "
            "is secreted, and rows of one sample share cells and genes. The axes are the question; this is not."
        )
    ]
    if not len(rows):
        return [*blocks, note("No row: the screen had nothing to work with in any sample.")]
    per = []
    for s in d.samples:
        mine = rows[rows["sample"] == s]
        bad = mine[mine["status"] != "tested"]["status"].value_counts()
        why = sorted(bad.items(), key=lambda kv: (-kv[1], kv[0]))
        per.append(
            {
                "sample": s,
                "rows": len(mine),
                "tested": int((mine["status"] == "tested").sum()),
                "significant": int((mine["q"] < level).sum()),
                "usual": int((mine["q_tested"] < level).sum()),
                "why": ", ".join(f"{short_words(str(k))} ({v:,})" for k, v in why) or "none",
            }
        )
    blocks.append(
        page.table(
            "screen_samples",
            pd.DataFrame(per),
            columns(
                "sample | rows # | tested # | significant # q below the level | usual # over tested rows only | "
                "why: obstacles (rows)"
            ),
            "What could be screened?",
            f"Level: {level:g}, Benjamini-Hochberg over all rows of the sample that could have been tested (those "
            "below the threshold with p = 1); beside it over the tested rows only, as other tools do.",
            most=60,
        )
    )
    tumours = rows[rows["sample"].isin(d.tumours) & (rows["status"] == "tested")]
    if not len(tumours):
        return [*blocks, note("No pair could be tested in a tumour.")]
    keys = ["ligand", "receptor", "sender", "receiver"]
    pooled = (
        tumours.assign(hit=tumours["q"] < level)
        .groupby(keys, sort=True)
        .agg(tested=("sample", "nunique"), hits=("hit", "sum"), score=("score", "median"), p=("p_upper", "max"))
        .reset_index()
        .sort_values(["hits", "score", *keys], ascending=[False, False, True, True, True, True], kind="stable")
    )
    some = int((pooled["hits"] > 0).sum())
    blocks.append(
        page.table(
            "screen_top",
            pooled,
            columns(
                "ligand | receptor | sender | receiver | tested # tumours tested | hits # q below the level | score # "
                "median score | p # largest bound of p"
            ),
            "The pairs that stand out in most tumours.",
            f"Of {count(len(pooled), 'tested pair')} of genes and types {some:,} ({fraction(some / len(pooled))}) "
            "stand out in some tumour. Bound of p: exact upper bound of the p that infinitely many permutations would "
            "give.",
            most=25,
        )
    )
    table = d.table("agreement")
    if len(table):
        blocks.append(
            page.table(
                "agreement",
                table,
                columns(
                    "sample | pairs | status = | n_ours # rows here | n_liana # rows of liana | n_common # common | "
                    "max_score_difference # largest score difference | max_p_difference # largest p difference | "
                    "same_call % same side of 0.05"
                ),
                "Beside liana's cellphonedb.",
                "Single genes: equal but for drawing. Complexes: liana fixes the limiting subunit in its null.",
                path="cohort/agreement.tsv",
            )
        )
    return blocks
