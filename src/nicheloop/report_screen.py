"""Chapter of the report on the screen of a whole ligand-receptor resource; only where one was run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nicheloop.report_data import Data
from nicheloop.report_page import Block, Page, columns, count, fraction, note, text
from nicheloop.report_text import short_words

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["ligand", "receptor", "sender", "receiver"]
NULLS = {
    "strength": "p comes from permuted type labels only: there is no matched-pair and no decoy null as for the axes, "
    "so unrelated proteins that are specific to their types pass as well",
    "cellphonedb": "p comes from permuted type labels only, and a mean of two means is large when one side is, so a "
    "pair can be significant because its ligand alone is specific",
}


def has_screen(d: Data) -> bool:
    """Whether any sample was screened."""
    return any(d.path("screen", s).exists() for s in d.samples)


def tested_rows(path: Path) -> pd.DataFrame:
    """The tested rows of one sample's screen: a whole screen has half a million, most of them not testable."""
    import pyarrow.parquet as pq

    wanted = [*KEYS, "score", "p_upper", "q", "q_tested"]
    rows = pq.read_table(path, columns=wanted, filters=[("status", "==", "tested")], read_dictionary=KEYS)
    return rows.to_pandas()


def statuses(path: Path) -> dict[str, int]:
    """How many rows of one sample's screen have each status."""
    import pyarrow.parquet as pq

    counts = pq.read_table(path, columns=["status"], read_dictionary=["status"])["status"].value_counts()
    return {str(c["values"]): int(c["counts"]) for c in counts.to_pylist()}


def pooled_rows(tumours: list[pd.DataFrame], level: float) -> pd.DataFrame:
    """One row per pair and types tested in some tumour: tumours tested and with q below `level`, what stands out first.

    Names (categories) become numbers first: a cohort has millions of rows.
    """
    import numpy as np
    import pandas as pd

    names: dict[str, dict[str, int]] = {key: {} for key in KEYS}
    parts = []
    for one in tumours:
        coded = {}
        for key, to in names.items():
            numbers = np.array([to.setdefault(v, len(to)) for v in one[key].cat.categories], dtype="int32")
            coded[key] = numbers[one[key].cat.codes]
        parts.append(one.assign(**coded, hit=one["q"] < level))
    pooled = (
        pd.concat(parts, ignore_index=True)
        .groupby(KEYS, sort=False)
        .agg(tested=("hit", "size"), hits=("hit", "sum"), score=("score", "median"), p=("p_upper", "max"))
        .reset_index()
    )
    for key in KEYS:
        pooled[key] = pd.Categorical.from_codes(pooled[key].to_numpy(), list(names[key])).astype(object)
    down = [False, False, *[True] * len(KEYS)]
    return pooled.sort_values(["hits", "score", *KEYS], ascending=down, kind="stable", ignore_index=True)


def screen_chapter(d: Data, page: Page) -> list[Block]:
    """Rows per sample, and the pairs that stand out in most samples."""
    import pandas as pd

    options, level = d.config.screen, d.config.loop.alpha
    blocks = [
        text(
            f"Exploration: every pair of a resource ('{options.resource}') between every two cell types, method "
            f"'{options.method}'. {NULLS[options.method]}. A row is not evidence that the pair exists or that anything "
            "is secreted, and rows of one sample share cells and genes. The axes are the question; this is not."
        )
    ]
    per, tumours = [], []
    for name in d.samples:
        path = d.path("screen", name)
        status = statuses(path) if path.exists() else {}
        if not status:
            per.append({"sample": name, "rows": 0, "tested": 0, "significant": 0, "usual": 0, "why": "no row"})
            continue
        mine = tested_rows(path)
        why = sorted(((k, v) for k, v in status.items() if k != "tested"), key=lambda kv: (-kv[1], kv[0]))
        per.append(
            {
                "sample": name,
                "rows": sum(status.values()),
                "tested": len(mine),
                "significant": int((mine["q"] < level).sum()),
                "usual": int((mine["q_tested"] < level).sum()),
                "why": ", ".join(f"{short_words(str(k))} ({v:,})" for k, v in why) or "none",
            }
        )
        if name in d.tumours and len(mine):
            tumours.append(mine)
    if not any(row["rows"] for row in per):
        return [*blocks, note("No row: the screen had nothing to work with in any sample.")]
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
    if not tumours:
        return [*blocks, note("No pair could be tested in a tumour.")]
    pooled = pooled_rows(tumours, level)
    some = int((pooled["hits"] > 0).sum())
    blocks.append(
        page.table(
            "screen_top",
            pooled[pooled["hits"] > 0] if some else pooled,
            columns(
                "ligand | receptor | sender | receiver | tested # tumours tested | hits # q below the level | score # "
                "median score | p # largest bound of p"
            ),
            "The pairs that stand out in most tumours.",
            f"Of {count(len(pooled), 'tested pair')} of genes and types {some:,} ({fraction(some / len(pooled))}) "
            f"stand out in some tumour{' and are listed' if some else ''}; every row of a sample is in its "
            "screen.parquet. Bound of p: exact upper bound of the p that infinitely many permutations would give.",
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
