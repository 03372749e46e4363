"""Blocks of the crosstalk chapter over patients: consistency, subtypes, power, positive controls and decoys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nicheloop import figures, figures_patients, patients
from nicheloop.axes import strongest
from nicheloop.detection import furthest
from nicheloop.report_data import Data
from nicheloop.report_page import (
    MAIN_AXES,
    SAMPLES,
    UNCUT,
    Block,
    Page,
    columns,
    count,
    fraction,
    heading,
    interval,
    listed,
    many,
    note,
    number,
    text,
)
from nicheloop.report_text import short_words

if TYPE_CHECKING:
    import pandas as pd

CHECKS = ("positive_control", "decoy")  # roles of axes that are no question of their own
MALIGNANT = ("malignant", "csc_high")
FORESTS = 8  # axes whose patients are drawn


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """The table with senders and receivers as a reader writes them."""
    return table.assign(**{c: [figures.type_words(str(v)) for v in table[c]] for c in ("sender", "receiver")})


def span(value: float, low: float, high: float) -> str:
    """``0.38 (-0.78 to 1.6)``; NA without a value."""
    return "NA" if value != value else f"{number(value)} ({number(low)} to {number(high)})"


def between(low: float, high: float) -> str:
    """``0.25 to 0.74``; NA without values."""
    return "NA" if low != low else f"{number(low)} to {number(high)}"


def pair_words(rows: pd.DataFrame) -> list[str]:
    """``icaf to malignant`` for every row."""
    return [
        f"{figures.type_words(str(a))} to {figures.type_words(str(b))}"
        for a, b in zip(rows["sender"], rows["receiver"], strict=True)
    ]


def speaking(d: Data) -> list[str]:
    """Samples that speak in the tables over patients: primary tumours, one per patient."""
    return [s for s in d.tumours if patients.tissue_rank(d.sheet_value(s, "tissue") or None) == 0]


def best_pairs(axes: pd.DataFrame) -> pd.DataFrame:
    """One pair of types per claim axis: with malignant cells, most assessable patients, most significant, strongest."""
    table = axes[~axes["arm"].isin(CHECKS) & (axes["n_assessable"] > 0)]
    mine = table["sender"].isin(MALIGNANT) | table["receiver"].isin(MALIGNANT)
    ranked = (
        table.assign(mine=mine)
        .sort_values(
            ["mine", "n_assessable", "n_significant", "n_significant_usual", "effect", "sender", "receiver"],
            ascending=[False, False, False, False, False, True, True],
            kind="stable",
        )
        .drop_duplicates("axis")
    )
    rank = {a: i for i, a in enumerate(MAIN_AXES)}
    ranked = ranked.assign(rank=ranked["axis"].map(rank).fillna(99))
    return ranked.sort_values(["rank", "n_assessable"], ascending=[True, False], kind="stable").drop(
        columns=["rank", "mine"]
    )


def patient_values(rows: pd.DataFrame, pair: pd.Series, order: list[str], level: float) -> pd.DataFrame:
    """Strength and specificity of one pair of types in every tumour, with intervals; NA rows say why.

    Parameters
    ----------
    rows
        Rows of contract ``crosstalk`` with ``sample``.
    pair
        ``axis``, ``sender``, ``receiver``.
    order
        Tumours, in the order of the rows that come back.
    level
        Half width of an interval in standard errors.
    """
    import pandas as pd

    mine = rows[(rows["axis"] == pair["axis"]) & (rows["sender"] == pair["sender"])]
    mine = mine[mine["receiver"] == pair["receiver"]]
    best = strongest(mine.assign(patient=mine["sample"])).set_index("sample")
    out = []
    for s in order:
        if s in best.index:
            r = best.loc[s]
            value, se = float(np.log2(r["strength"])) if r["strength"] > 0 else np.nan, float(r["log2_se"])
            out.append(
                {
                    "label": s, "status": "tested", "q": r["q"], "effect": value, "effect_low": value - level * se,
                    "effect_high": value + level * se, "specificity": r["specificity"],
                    "specificity_low": r["specificity"] - level * r["specificity_se"],
                    "specificity_high": r["specificity"] + level * r["specificity_se"],
                }
            )  # fmt: skip
        else:
            here = mine.loc[mine["sample"] == s, "status"]
            out.append({"label": s, "status": furthest(here) if len(here) else "not_run"})
    ends = [f"{name}{end}" for name in ("effect", "specificity") for end in ("", "_low", "_high")]
    return pd.DataFrame(out).reindex(columns=["label", "status", "q", *ends])


def consistency_blocks(d: Data, page: Page) -> list[Block]:
    """Do the patients agree: effects with intervals, leave-one-out range, subtypes, power."""
    import pandas as pd
    from scipy.special import ndtri

    axes, rows = d.table("axes"), d.per_sample("crosstalk")
    blocks = [heading("Do the tumours agree?")]
    chosen = best_pairs(axes)
    if not len(chosen):
        return [*blocks, note("No pair of types could be tested in any tumour: there is nothing to compare.")]
    if int(chosen["n_assessable"].max()) < 2:
        blocks.append(note("No pair of types could be tested in two tumours: there is nothing to compare yet."))
    confidence = d.config.crosstalk.confidence
    level, alpha = float(ndtri(0.5 + confidence / 2)), d.config.loop.alpha
    everyone = speaking(d)
    order = everyone[:SAMPLES]
    panels = [(pair, patient_values(rows, pair, order, level)) for _, pair in chosen.head(FORESTS).iterrows()]
    for i, part in enumerate(figures.chunks(panels, 3 if len(order) < 16 else 1), start=1):
        names = listed([str(p["axis"]).replace("_", " ") for p, _ in part])
        blocks.append(
            page.figure(
                f"patients_{i}",
                figures_patients.axis_forest(part, short_words, alpha),
                f"How strong is each axis in each tumour: {names}?",
                f"n = {count(len(order), 'tumour')}, one primary sample each; of every axis the pair of types, with "
                "malignant cells where there is one, that most tumours can be asked about. Dot and line: a tumour with "
                f"its {fraction(confidence)} interval from the spread between cells; filled: q below {alpha:g} in that "
                "tumour. Diamond: random-effects mean with its interval; grey band: range of the mean when each tumour "
                "is left out. Strength is a level, so 0 has no meaning there; specificity 0 means no more than in "
                f"other types. NA: why the tumour has no value.{many(everyone, 'tumours')}",
                f"Forest plots of strength and specificity per tumour for {names}.",
                pd.concat(
                    [t.assign(axis=p["axis"], sender=p["sender"], receiver=p["receiver"]) for p, t in part],
                    ignore_index=True,
                ),
            )
        )
    tested = axes[~axes["arm"].isin(CHECKS) & (axes["n_assessable"] > 0)]
    ranked = tested.sort_values(
        ["n_significant", "n_assessable", "effect", "axis", "sender", "receiver"],
        ascending=[False, False, False, True, True, True],
        kind="stable",
    )
    ranked = ranked.assign(
        pair=pair_words(ranked),
        strength=[span(*v) for v in ranked[["effect", "effect_low", "effect_high"]].to_numpy(float)],
        own=[span(*v) for v in ranked[["specificity", "specificity_low", "specificity_high"]].to_numpy(float)],
    )
    blocks.append(
        page.table(
            "axes",
            ranked,
            columns(
                "axis | pair: from, to | n_assessable # assessable tumours | n_significant # significant | "
                "n_significant_usual # without the decoy null | strength ~ log2 strength | own ~ specificity"
            ),
            "The most significant pairs of the axes asked about.",
            f"Significant: q below {alpha:g} within the tumour's sample, p being the largest of three (permuted "
            "labels, expression-matched pairs, pairs without a recorded interaction); rows below the detection floor "
            "count as tests that failed. Without the decoy null: labels and matched pairs alone, which unrelated "
            "proteins pass as well. Strength (log2 counts per 10,000) and specificity (log2 fold over the other "
            "types): random-effects means with intervals.",
            path="cohort/axes.tsv",
            most=20,
        )
    )
    stable = chosen.assign(
        pair=pair_words(chosen),
        mean=[span(*v) for v in chosen[["effect", "effect_low", "effect_high"]].to_numpy(float)],
        loo=[between(*v) for v in chosen[["effect_loo_low", "effect_loo_high"]].to_numpy(float)],
        own=[span(*v) for v in chosen[["specificity", "specificity_low", "specificity_high"]].to_numpy(float)],
        own_loo=[between(*v) for v in chosen[["specificity_loo_low", "specificity_loo_high"]].to_numpy(float)],
        equal=[
            span(*v) for v in chosen[["effect_matched", "effect_matched_low", "effect_matched_high"]].to_numpy(float)
        ],
    )
    blocks.append(
        page.table(
            "axis_stability",
            stable,
            columns(
                "axis | pair: from, to | mean ~ log2 strength | loo ~ one left out | own ~ specificity | own_loo ~ one "
                "left out | sign_changes # sign hangs on"
            ),
            "How far does a mean hang on one tumour?",
            "The pairs of the figures. Sign hangs on: tumours without which the specificity would change its sign.",
            most=40,
        )
    )
    blocks.append(
        page.table(
            "axis_power",
            stable,
            columns(
                "axis | pair: from, to | n_assessable # assessable tumours | i2 % spread between tumours | power: what "
                "this number could show | n_matched # at equal cells and depth | equal ~ log2 strength there"
            ),
            "What could so few tumours show, and what is left at equal cells and depth?",
            "Spread between tumours: share of the spread of strength that is not noise of the cells. At equal cells "
            "and depth: tumours in which the pair is still tested when every sample is cut to the same cells and "
            "counts.",
            most=40,
            letters=UNCUT,
        )
    )
    return blocks + subtype_blocks(d, chosen, page)


def subtype_blocks(d: Data, chosen: pd.DataFrame, page: Page) -> list[Block]:
    """The drawn pairs by subtype; nothing where the table was not written."""
    table = d.table("axis_subtypes")
    if not len(table):
        return []
    keys = ["axis", "sender", "receiver"]
    rank = {tuple(k): i for i, k in enumerate(chosen[keys].to_numpy().tolist())}
    where = [rank.get(tuple(k), -1) for k in table[keys].to_numpy().tolist()]
    part = table.assign(rank=where)
    part = part[part["rank"] >= 0].sort_values(["rank", "subtype"], kind="stable")
    part = part.assign(
        who=[short_words(str(v)) for v in part["subtype"]],
        mean=[span(*v) for v in part[["effect", "effect_low", "effect_high"]].to_numpy(float)],
        own=[span(*v) for v in part[["specificity", "specificity_low", "specificity_high"]].to_numpy(float)],
    )
    return [
        page.table(
            "axis_subtypes",
            in_words(part),
            columns(
                "axis | sender | receiver | who: subtype | n_patients # tumours | n_inferred # subtype inferred | "
                "n_assessable # assessable | n_significant # significant | mean ~ log2 strength | own ~ specificity"
            ),
            "The same pairs by subtype.",
            "Descriptive: no test between subtypes. NA: fewer than two assessable tumours of the subtype.",
            path="cohort/axis_subtypes.tsv",
            most=36,
        )
    ]


def control_blocks(d: Data, page: Page) -> list[Block]:
    """Positive controls with their verdicts, then decoys."""
    blocks = [heading("Would a known signal be found, and a made-up one be turned down?")]
    controls = d.table("axis_controls")
    if len(controls):
        verdict = {"positive": 0, "not positive": 1, "not assessable": 2}
        best = controls.assign(rank=controls["verdict"].map(verdict)).sort_values(
            ["rank", "n_significant", "control"], ascending=[True, False, True], kind="stable"
        )
        found = best.drop_duplicates("control").groupby("verdict")["control"].apply(list)
        parts = [f"{v}: {listed(found[v])}" for v in verdict if v in found]
        blocks += [
            text(f"Positive controls (by their best receptor and pair of types) {'; '.join(parts)}."),
            page.table(
                "axis_controls",
                in_words(best.drop(columns="rank")),
                columns(
                    "control | receptor | sender | receiver | n_with_cells # tumours with the cells | n_tested # "
                    "tested | n_significant # significant | p # | verdict | reason"
                ),
                "Positive controls: present where their cells are?",
                f"Pairs that are known to signal in tissue. Significant: p at most {d.config.loop.alpha:g}; p: "
                "binomial, so many or more if each tumour with the cells had that chance. Not positive where the cells "
                "are there warns of the whole chapter.",
                path="cohort/axis_controls.tsv",
                letters=UNCUT,
                most=40,
            ),
        ]
    return blocks + decoy_blocks(d, page)


def decoy_blocks(d: Data, page: Page) -> list[Block]:
    """Share of tested decoys at the level, with and without the third null, per tumour and over the cohort."""
    table, alpha = d.table("decoys"), d.config.loop.alpha
    silent = d.per_sample("crosstalk")
    silent = silent[(silent["arm"] == "decoy") & silent["sample"].isin(d.tumours)]
    tested = int((silent["status"] == "tested").sum())
    words = (
        f"{', '.join(sorted(set(silent['ligand'])))} are not expressed in breast tissue: {tested} of {len(silent)} of "
        "their rows could be tested, which shows only that nothing is made up from ambient RNA."
        if len(silent)
        else ""
    )
    if not len(table):
        return [note("Matched decoys were not tested in this run. " + words)]
    total = table[table["patient"] == "cohort"]
    blocks = []
    if len(total) and np.isfinite(total["fraction"].iloc[0]):
        row = total.iloc[0]
        with_decoys = int((table["n_tested"] > 0).sum()) - 1
        share = interval(row["fraction"], row["fraction_low"], row["fraction_high"])
        blocks.append(
            text(
                f"Matched decoys: of {count(row['n_tested'], 'expressed pair')} of a secreted and a membrane protein "
                f"without a recorded interaction, {row['n_significant']:,.0f} have p of {alpha:g} or less: {share}; "
                f"that is {row['verdict']}. By permuted labels and expression-matched pairs alone it would be "
                f"{row['n_significant_usual']:,.0f} ({fraction(row['fraction_usual'])}), because unrelated proteins "
                f"are specific to cell types too. {words}"
            )
        )
        blocks.append(
            page.figure(
                "decoys",
                figures_patients.decoy_shares(table, alpha),
                "How many made-up pairs would be called significant?",
                f"n = {count(row['n_tested'], 'decoy')} in {count(with_decoys, 'tumour')}. Dot and line: "
                f"share with p of {alpha:g} or less by all three nulls, with its interval; cross: by labels and "
                "matched pairs alone; dashed: the level.",
                f"Share of significant decoys per tumour; {fraction(row['fraction'])} over the cohort, "
                f"{fraction(row['fraction_usual'])} without the decoy null.",
                table[
                    [
                        "patient",
                        "n_tested",
                        "n_significant",
                        "fraction",
                        "fraction_low",
                        "fraction_high",
                        "fraction_usual",
                    ]
                ],
            )
        )
    else:
        blocks.append(note(f"Too few decoys could be tested for a share over the cohort. {words}"))
    blocks.append(
        page.table(
            "decoys",
            table.assign(
                share=[interval(*v) for v in table[["fraction", "fraction_low", "fraction_high"]].to_numpy(float)]
            ),
            columns(
                "patient | n_tested # decoys tested | n_significant # significant | share ~ share | "
                "n_significant_usual # without the decoy null | fraction_usual % share | p_excess # p of an excess | "
                "verdict | reason"
            ),
            "Matched decoys.",
            "Null hypothesis: sender and receiver concentrate the pair no more than other secreted and membrane genes "
            "that are measurable in them. Interval of the cohort: widened by the spread between samples.",
            path="cohort/decoys.tsv",
            letters=UNCUT,
            most=61,
        )
    )
    return blocks
