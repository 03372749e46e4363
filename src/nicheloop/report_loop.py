"""Chapter of the report on the loop: arms with their nulls, coupling over patients, serial chain, circularity."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from nicheloop import figures, figures_niche, figures_patients, figures_states
from nicheloop.report_axes import span
from nicheloop.report_data import Data
from nicheloop.report_page import (
    MAIN_AXES,
    SAMPLES,
    UNCUT,
    Block,
    Page,
    bullets,
    columns,
    count,
    heading,
    listed,
    many,
    note,
    text,
)
from nicheloop.report_text import short_words
from nicheloop.status import GOOD

if TYPE_CHECKING:
    import pandas as pd


def loop_chapter(d: Data, page: Page) -> list[Block]:
    """Three arms per patient with their nulls, then what couples them over patients."""
    arms, loop = d.per_sample("loop_arms"), d.table("loop")
    if not len(arms) and not len(loop):
        return [note("The loop could not be looked at in any sample; the chapter 'Not assessable' says why.")]
    blocks = [
        text(
            "Three arms: A, the niche signals to malignant cells; B, CSC-high malignant cells respond more than "
            "CSC-low ones of the same clone and depth; C, malignant cells signal back. The patient's p is the largest "
            "of the three, and an arm that cannot be measured makes the answer NA, not zero. Of one patient no more is "
            "said than 'all three arms present', 'not present' or 'not assessable'."
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
                f"n = {count(len(tumours), 'tumour')}, one primary sample each. Bar: effect with its interval; dark: p "
                "below 0.05 against the arm's null; A and C: log2 strength over permuted labels, B: read-out z of "
                f"CSC-high minus CSC-low cells. NA: the arm could not be measured.{many(d.tumours, 'tumours')}",
                f"Bars of the arms A, B and C per tumour for {listed([str(a).replace('_', ' ') for a in part])}; "
                f"{int((mine[mine['axis'].isin(part)]['p'] < 0.05).sum())} of {int(mine['axis'].isin(part).sum())} "
                "arms stand out.",
                mine.loc[
                    mine["axis"].isin(part),
                    ["sample", "axis", "arm", "what", "status", "effect", "effect_low", "effect_high", "z", "p"],
                ],
            )
        )
    blocks += verdict_blocks(loop, page)
    blocks += arm_blocks(mine, tumours, page)
    return blocks + coupling_blocks(d, page) + chain_blocks(d, page) + circularity_blocks(page)


def main_first(table: pd.DataFrame, *others: str) -> pd.DataFrame:
    """Rows of the main axes before those of others, then by the columns named."""
    rank = {a: i for i, a in enumerate(MAIN_AXES)}
    ranked = table.assign(_rank=table["axis"].map(rank).fillna(99))
    return ranked.sort_values(["_rank", "axis", *others], kind="stable").drop(columns="_rank")


def joined(reason: str) -> str:
    """``arm A: x; arm B: x`` as ``arms A and B: x``: every reason in full, but said once."""
    parts = re.split(r"(?:^|; )arm ([ABC]): ", reason)
    if len(parts) < 3:
        return reason
    said: dict[str, list[str]] = {}
    for arm, why in zip(parts[1::2], parts[2::2], strict=True):
        said.setdefault(why, []).append(arm)
    return parts[0] + "; ".join(f"arm{'s' if len(a) > 1 else ''} {listed(a)}: {why}" for why, a in said.items())


def verdict_blocks(loop: pd.DataFrame, page: Page) -> list[Block]:
    """What may be said of each patient, for both labels, with the reason in full."""
    if not len(loop):
        return []
    ranked = main_first(loop, "verdict", "patient")
    first = ranked[ranked["axis"].isin(MAIN_AXES)]
    shown = first if len(first) else ranked
    primary = [joined(str(v or "")) for v in shown["reason"]]
    second = [joined(str(v or "")) for v in shown["aldh1a3_reason"]]
    shown = shown.assign(
        reason=primary,
        aldh1a3_reason=["the same" if a == b and "arm" in a else b for a, b in zip(primary, second, strict=True)],
    )
    return [
        page.table(
            "loop",
            shown,
            columns("sample | axis | verdict | p_a # p A | p_b # p B | p_c # p C | p # p (largest) | reason"),
            "What may be said of each patient (CD44+/CD24- cells)?",
            "p B: response of CD44+/CD24- cells. Other axes are in the full table.",
            path="cohort/loop.tsv",
            letters=UNCUT,
            most=40,
        ),
        page.table(
            "loop_aldh1a3",
            shown,
            columns(
                "sample | axis | aldh1a3_verdict: verdict | p_a # p A | p_b_aldh1a3 # p B | p_c # p C | p_aldh1a3 # p "
                "(largest) | aldh1a3_reason: reason"
            ),
            "The same with ALDH1A3-high cells as the second label.",
            "Arms A and C do not depend on the label; 'the same': the reason of the table above. ALDH1A3-high is RNA, "
            "not enzyme activity.",
            path="cohort/loop.tsv",
            letters=UNCUT,
            most=40,
        ),
    ]


def once(arms: pd.DataFrame) -> pd.DataFrame:
    """Arms that several axes share (one return arm, one read-out) in one row, with their axes."""
    every = arms["axis"].nunique()
    same = ["sample", "arm", "what", "effect", "p"]
    grouped = arms.groupby(same, sort=False, dropna=False)["axis"].transform(
        lambda v: "all" if v.nunique() == every > 2 else listed(v, 20)
    )
    return arms.assign(axes=grouped).drop_duplicates(same)


def arm_blocks(arms: pd.DataFrame, tumours: list[str], page: Page) -> list[Block]:
    """Every arm with effect, interval, z and each null; the response arm raw and adjusted, for both labels."""
    if not len(arms):
        return []
    rank = {s: i for i, s in enumerate(tumours)}
    table = main_first(arms.drop(columns="label"))
    table = table.assign(
        size=[span(*v) for v in table[["effect", "effect_low", "effect_high"]].to_numpy(float)],
        _s=table["sample"].map(rank),
    )
    good = table[table["status"].isin(GOOD)]
    ends = once(good[good["arm"].isin(("A", "C"))]).sort_values(["_s", "arm"], kind="stable").drop(columns="_s")
    read = once(good[good["arm"].isin(("B", "B_aldh1a3"))]).sort_values(["_s", "arm"], kind="stable")
    read = read.drop(columns="_s")
    blocks = [heading("The arms and their nulls")]
    if len(ends):
        blocks.append(
            page.table(
                "loop_arms",
                ends,
                columns(
                    "sample | arm | axes: of axis | what | size ~ log2 effect | z # | p_label # p labels | p_pair # p "
                    "matched pairs | p # p | p_decoy # p decoys"
                ),
                "Arms A and C that could be measured.",
                "Effect: log2 strength over permuted labels, with its interval. p: the larger of permuted labels and "
                "expression-matched pairs. p decoys (pairs without a recorded interaction) is shown and is no part of "
                "p: an arm asks whether the signal is there and specific to its types, which unrelated proteins may be "
                "as well, and that alone is no loop. z grows with cells: never compare it between patients.",
                most=60,
                letters=UNCUT,
            )
        )
    if len(read):
        first = read.assign(readout=[re.split(r"[ ,]", str(w))[0] for w in read["what"]]).drop_duplicates("readout")
        names = {str(a): str(r).replace("_", " ") for a, r in zip(first["axis"], first["readout"], strict=True)}
        blocks.append(
            page.figure(
                "responses",
                figures_patients.responses(arms, tumours, names, short_words),
                "Does the response stand when stress and interferon are taken off?",
                f"n = {count(len(tumours), 'tumour')}. Difference of the leave-out read-out within clone and depth "
                "(z), each read-out once; line: interval of the raw one; adjusted versions also for library size; "
                "filled: p below 0.05. Left: the primary label, right: the second one. NA: why there is no answer.",
                "Raw and adjusted response differences per tumour for both labels: "
                + listed(list(names.values()), 8)
                + ".",
                read[
                    [
                        "sample",
                        "axis",
                        "arm",
                        "what",
                        "effect",
                        "effect_low",
                        "effect_high",
                        "effect_stress",
                        "effect_ifn",
                        "effect_adjusted",
                        "p_raw",
                        "p_stress",
                        "p_ifn",
                        "p_adjusted",
                    ]
                ],
            )
        )
        for arm, name, label in (
            ("B", "loop_responses", "CD44+/CD24- against other malignant cells"),
            ("B_aldh1a3", "loop_responses_aldh1a3", "ALDH1A3-high against ALDH1A3-low cells"),
        ):
            mine = read[read["arm"] == arm]
            if not len(mine):
                continue
            blocks.append(
                page.table(
                    name,
                    mine,
                    columns(
                        "sample | axes: of axis | size ~ raw | effect_stress # stress | effect_ifn # IFN | "
                        "effect_adjusted # both | z # | p_raw # p raw | p_stress # p stress | p_ifn # p IFN | "
                        "p_adjusted # p both | effect_beyond_stress # beyond stress | "
                        "p_beyond_stress # p beyond stress | "
                        "p_stress_differs # p stress differs | p # p"
                    ),
                    f"Arm B, raw and adjusted: {label}.",
                    "Difference of the read-out in z, high minus low cells, raw and adjusted for stress, interferon "
                    "(IFN) and both; labels permuted within clone and depth strata. p is the largest of these "
                    "and of p beyond stress (stress without the noise of its genes): a response that stress or "
                    "interferon explains does not count. p stress differs: stress itself between the labels.",
                    most=60,
                )
            )
    return blocks


def coupling_blocks(d: Data, page: Page) -> list[Block]:
    """Do ligand and response belong together within patients: the swap, with its strata."""
    table = main_first(d.table("loop_cohort"))
    if not len(table):
        return []
    asked = ("n_swapped_forward", "n_swapped_return", "p_forward_adjusted", "p_return_adjusted")
    swapped = [c for c in asked if c not in table]
    table = table.reindex(columns=[*table.columns, *swapped])
    return [
        heading("Do the parts belong together within patients?"),
        text(
            "Three arms that are each a property of cell types need no loop. So the pairing of patients is swapped: "
            "coupling is the mean product of ligand and response over patients, standardised within subtype and data "
            "set, and p comes from swapping patients within these strata. Strata with fewer than "
            f"{d.config.loop.min_stratum} patients are not swapped; without a stratum that is large enough the answer "
            "is NA."
        ),
        *swap_figure(table, page),
        page.table(
            "coupling",
            table,
            columns(
                "axis | n_assessable # assessable | n_swapped_forward # swapped, forward | coupling_forward # forward "
                "| p_forward # p | p_forward_adjusted # p beyond stress and ambient RNA | coupling_forward_high "
                "# to CSC-high | p_forward_high # p | coupling_forward_aldh1a3 "
                "# to ALDH1A3-high | p_forward_aldh1a3 # p | n_swapped_return # swapped, return | coupling_return # "
                "return | p_return # p | p_return_adjusted # p beyond stress and ambient RNA"
            ),
            "Coupling swap.",
            "Forward: niche ligand with the response of malignant cells (and of CSC-high, ALDH1A3-high ones). Return: "
            "return ligand with the M2 level of macrophages and monocytes.",
            path="cohort/loop_cohort.tsv",
            most=20,
        ),
        page.table(
            "coupling_strata",
            table[["axis", "strata"]],
            columns("axis | strata: strata and their patients"),
            "Which patients could be swapped with which?",
            path="cohort/loop_cohort.tsv",
            most=20,
            letters=UNCUT,
        ),
    ]


def swap_figure(table: pd.DataFrame, page: Page) -> list[Block]:
    """Coupling of every axis beside its swapped pairings; axes that could not be swapped say so."""
    import pandas as pd

    panels = []
    for name, label in (
        ("forward", "niche ligand x response of malignant cells"),
        ("forward_high", "x response of CSC-high cells"),
        ("return", "return ligand x niche response"),
    ):
        columns_ = {"value": f"coupling_{name}", **{e: f"null_{name}_{e}" for e in ("low", "median", "high")}}
        part = pd.DataFrame(
            {k: table[c].astype(float) if c in table else np.full(len(table), np.nan) for k, c in columns_.items()}
        )
        swapped = table.get(f"n_swapped_{name}", pd.Series(0, index=table.index)).fillna(0)
        part.insert(0, "label", [str(a).replace("_", " ") for a in table["axis"]])
        panels.append((label, part.assign(note=[f"{n:.0f} patients to swap" for n in swapped])))
    if not any(part["value"].notna().any() for _, part in panels):
        return []
    title = "Are ligand and response coupled more than between swapped patients?"
    return [
        page.figure(
            "coupling_swap",
            figures_states.bands(panels, title, (False, False, False)),
            title,
            "Dot: mean product of the two factors over patients, standardised within subtype and data set; grey: 95 % "
            "of the pairings swapped within these strata, tick: their median. Only a dot right of its band speaks "
            "for a coupling; q and what is left beyond stress and ambient RNA are in the table.",
            "Coupling of ligand and response per axis beside swapped pairings of patients; "
            + "; ".join(f"{label}: {int(t['value'].notna().sum())} of {len(t)} axes swapped" for label, t in panels)
            + ".",
            pd.concat([t.assign(factor=label) for label, t in panels], ignore_index=True),
        )
    ]


def chain_blocks(d: Data, page: Page) -> list[Block]:
    """The serial niche chain: levels per tumour and what follows over patients."""
    table, levels = d.table("chains"), d.per_sample("chain")
    levels = levels[levels["sample"].isin(d.tumours)]
    if not len(table) and not len(levels):
        return []
    blocks = [
        heading("Does the niche pass the signal on: IL1B, IL1R1, IL6?"),
        text(
            "The serial chain: IL1B of macrophages, IL1R1 of fibroblasts, IL6 of fibroblasts. It is asked over "
            "patients only. IL1R1 and IL6 are read in the same cells, so that link alone may be the state of the "
            "fibroblasts."
        ),
    ]
    if len(levels):
        rank = {s: i for i, s in enumerate(d.tumours)}
        steps = {"ligand": 0, "receptor": 1, "response": 2}
        ranked = levels.assign(_s=levels["sample"].map(rank), _t=levels["step"].map(steps)).sort_values(["_s", "_t"])
        blocks.append(
            page.table(
                "chain_levels",
                ranked.drop(columns=["_s", "_t"]),
                columns(
                    "sample | gene | population: cells | n_cells # n | umi # UMI | ambient_umi # of them ambient | "
                    "fraction % cells with it | upper % at most | level # log2 level | status ="
                ),
                "Levels of the chain in each tumour.",
                "Level: log2(1 + ambient-corrected counts per 10,000 of the population); 0: not seen.",
                most=90,
            )
        )
    if len(table):
        said = [f"{w}: {v}" for w, v in zip(table["what"], table["wording"], strict=True) if isinstance(v, str)]
        blocks += [
            bullets(said),
            page.table(
                "chains",
                table.assign(rank=[span(*v) for v in table[["rho", "rho_low", "rho_high"]].to_numpy(float)]),
                columns(
                    "what | n_assessable # assessable | n_swapped # swapped | rank ~ rank correlation | coupling # | p "
                    "# | detectable_rho # smallest correlation seen | strata"
                ),
                "The chain over patients.",
                "Rank correlation of levels standardised within subtype and data set; p from swapping patients within "
                "these strata.",
                path="cohort/chains.tsv",
                letters=UNCUT,
            ),
        ]
    return blocks


def circularity_blocks(page: Page) -> list[Block]:
    """Which gene sets of the loop share genes, so that one cannot support the other."""
    from nicheloop.circularity import circularity

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
            "Pairs that need not be apart are covariates, compartments that are called from other cells, or sets that "
            "are never tested against each other.",
        ),
    ]
