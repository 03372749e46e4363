"""Block of the stem-cell chapter on the ALDH isoforms: each by itself, beside what ambient RNA would bring."""

from __future__ import annotations

from nicheloop import figures_states
from nicheloop.csc_isoforms import ROLES
from nicheloop.report_data import Data
from nicheloop.report_page import Block, Page, columns, count, heading, note


def isoform_blocks(d: Data, page: Page) -> list[Block]:
    """Detection of every isoform in malignant cells, tumour by tumour; no sum of them."""
    table = d.table("csc_isoforms")
    table = table[table["sample"].isin(d.tumours)]
    shown = table[table["fraction"].notna()]
    blocks: list[Block] = [heading("ALDH isoforms, one by one")]
    if not len(shown):
        return [*blocks, note("No isoform can be judged in any tumour: see the statuses in cohort/csc_isoforms.tsv.")]
    above = shown[(shown["isoform"] == "ALDH1A3") & (shown["status"] == "beyond_ambient")]["sample"].nunique()
    n = shown["sample"].nunique()
    title = f"ALDH1A3 exceeds ambient RNA in {above} of {count(n, 'tumour')}; the other isoforms are shown beside it"
    blocks.append(
        page.figure(
            "aldh_isoforms",
            figures_states.isoforms(shown, list(ROLES)),
            title + ".",
            f"n = {count(n, 'tumour')} with enough malignant cells, one dot each. Filled: more counts than ambient RNA "
            f"would bring (one-sided Poisson p < {d.config.csc.alpha:g}); open: not, or ambient RNA was not estimated. "
            "The isoforms are never added up: the sum would be that of ALDH2 and other housekeeping enzymes. ALDH1A1 "
            "of a tumour is mostly that of fibroblasts and perivascular cells.",
            "Share of malignant cells with a count of each ALDH isoform, a dot per tumour; "
            + "; ".join(
                f"{gene} median {100 * float(part['fraction'].median()):.0f} %"
                for gene in ROLES
                if len(part := shown[shown["isoform"] == gene])
            )
            + ".",
            shown[["sample", "isoform", "role", "status", "n_malignant", "fraction", "rate", "ambient_umi", "p"]],
        )
    )
    blocks.append(
        page.table(
            "aldh_isoforms",
            table,
            columns(
                "sample | isoform | role | n_malignant # malignant cells | umi # UMI | rate # per 10,000 | fraction % "
                "cells with a count | upper % upper bound | ambient_umi # UMI of ambient RNA | p # | status ="
            ),
            "ALDH isoforms in malignant cells.",
            "One row per tumour and isoform; upper bound: rule of three where no cell has a count.",
            path="cohort/csc_isoforms.tsv",
        )
    )
    return blocks
