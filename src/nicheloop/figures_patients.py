"""Figures of the report on agreement between patients: axes, response arms and decoys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nicheloop.figures import ACCENT, GREY, INK, label_rows, new_figure, records, rows_height, short, styled, type_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLAIN = {"facecolor": "white", "lw": 0, "pad": 0.8}  # behind words that would cross a line
COLUMNS = (("effect", "log2 strength (counts per 10,000)"), ("specificity", "specificity (log2 fold over other types)"))


@styled
def axis_forest(panels: Sequence[tuple[pd.Series, pd.DataFrame]], words: Callable[[str], str], alpha: float) -> Figure:
    """Strength and specificity of one pair of types per row of panels, tumour by tumour, with the pooled mean.

    Parameters
    ----------
    panels
        (row of contract ``axes``, table of `report_axes.patient_values`).
    words
        A few words for a status.
    alpha
        Tumours with q below it are drawn filled.
    """
    heights = [0.2 * (len(t) + 1) + 0.3 for _, t in panels]
    fig = new_figure(sum(heights) + 0.5 * len(panels) + 0.3)
    axes = fig.subplots(len(panels), 2, squeeze=False, sharey="row", height_ratios=heights)
    for row, (pair, table) in zip(axes, panels, strict=True):
        for ax, (name, label) in zip(row, COLUMNS, strict=True):
            _patients(ax, table, name, words, alpha)
            _mean(ax, pair, name, len(table))
            ax.set_xlabel(label, fontsize=7.5)
            ax.tick_params(axis="x", labelsize=7)
            ax.grid(axis="x", color="#EEEEEE", lw=0.6)
        row[1].axvline(0, color="#777777", lw=0.8)
        label_rows(row[0], [*table["label"], "mean"], 7)
        who = f"{type_words(str(pair['sender']))} to {type_words(str(pair['receiver']))}"
        row[0].set_title(short(f"{str(pair['axis']).replace('_', ' ')}: {who}", 70), fontsize=8.5)
        row[0].axhline(len(table) - 0.5, color="#BBBBBB", lw=0.6)
        row[1].axhline(len(table) - 0.5, color="#BBBBBB", lw=0.6)
    return fig


def _patients(ax: Axes, table: pd.DataFrame, name: str, words: Callable[[str], str], alpha: float) -> None:
    for i, r in enumerate(records(table)):
        value, low, high = (getattr(r, f"{name}{end}") for end in ("", "_low", "_high"))
        if not np.isfinite(value):
            why = "no other type to compare with" if r.status == "tested" else words(r.status)
            ax.text(
                0.02, i, f"NA: {short(why, 46)}", transform=ax.get_yaxis_transform(), fontsize=6.5, va="center",
                color="#666666", style="italic", bbox=PLAIN,
            )  # fmt: skip
            continue
        if np.isfinite(low) and np.isfinite(high):
            ax.plot([low, high], [i, i], color=ACCENT, lw=1.3)
        ax.plot(value, i, "o", ms=4.5, color=ACCENT, mfc=ACCENT if r.q < alpha else "white")


def _mean(ax: Axes, pair: pd.Series, name: str, y: int) -> None:
    value, low, high = (float(pair[f"{name}{end}"]) for end in ("", "_low", "_high"))
    first, last = float(pair[f"{name}_loo_low"]), float(pair[f"{name}_loo_high"])
    if np.isfinite(first) and np.isfinite(last):
        ax.barh(y, max(last - first, 1e-9), left=first, height=0.6, color="#CFCFCF", lw=0)
    if not np.isfinite(value):
        ax.text(0.02, y, "NA: fewer than two", transform=ax.get_yaxis_transform(), fontsize=6.5, va="center",
                color="#666666", style="italic", bbox=PLAIN)  # fmt: skip
        return
    ax.plot([low, high], [y, y], color=INK, lw=1.3)
    ax.plot(value, y, "D", ms=5, color=INK)


VERSIONS = (
    ("effect", "p_raw", "raw", "o", "#882255"),
    ("effect_stress", "p_stress", "adjusted for stress", "s", "#DDCC77"),
    ("effect_ifn", "p_ifn", "adjusted for interferon", "^", "#44AA99"),
    ("effect_adjusted", "p_adjusted", "adjusted for both", "D", "#332288"),
)
LABELS = {"B": "CD44+/CD24- against other cells", "B_aldh1a3": "ALDH1A3-high against -low cells"}


@styled
def responses(
    arms: pd.DataFrame, order: Sequence[str], names: Mapping[str, str], words: Callable[[str], str]
) -> Figure:
    """Response arm with its adjusted versions, for both labels; an arm without an answer says why in its place.

    `arms`: contract ``loop_arms`` with ``label`` (row); `names`: axis -> read-out; `words`: words for a status.
    """
    from matplotlib.lines import Line2D

    fig = new_figure(sum(0.3 * max(len(order), 1) + 0.7 for _ in names) + 0.6)
    axes = fig.subplots(max(len(names), 1), 2, squeeze=False, sharey=True)
    lookup = {(r.axis, r.arm, r.label): r for r in records(arms)}
    for row, (name, readout) in zip(axes, names.items(), strict=False):
        for ax, (arm, label) in zip(row, LABELS.items(), strict=True):
            ax.axvline(0, color="#777777", lw=0.8)
            for i, who in enumerate(order):
                r = lookup.get((name, arm, who))
                if r is None or not np.isfinite(r.effect):
                    why = "no row" if r is None else words(r.status)
                    why = why.replace("CSC-high", "ALDH1A3-high") if arm == "B_aldh1a3" else why
                    ax.text(0.02, i, f"NA: {short(why, 52)}", transform=ax.get_yaxis_transform(), fontsize=6.5,
                            va="center", color="#666666", style="italic", bbox=PLAIN)  # fmt: skip
                    continue
                if np.isfinite(r.effect_low) and np.isfinite(r.effect_high):
                    ax.plot([r.effect_low, r.effect_high], [i - 0.27, i - 0.27], color=VERSIONS[0][4], lw=1.2)
                for k, (column, p, _, mark, colour) in enumerate(VERSIONS):
                    value = getattr(r, column)
                    if np.isfinite(value):
                        fill = colour if getattr(r, p) < 0.05 else "white"
                        ax.plot(value, i - 0.27 + 0.18 * k, mark, ms=3.6, mec=colour, mfc=fill, mew=1.0)
            ax.set_title(short(f"{readout}: {label}", 58), fontsize=8.5)
            ax.tick_params(axis="x", labelsize=7, labelbottom=True)
            ax.grid(axis="x", color="#EEEEEE", lw=0.6)
        label_rows(row[0], list(order), 7)
    axes[-1][0].set_xlabel("difference of the read-out (z)", fontsize=7.5)
    axes[-1][1].set_xlabel("difference of the read-out (z)", fontsize=7.5)
    marks = [Line2D([], [], marker=m, ls="", ms=4.5, mec=c, mfc=c, label=words_) for _, _, words_, m, c in VERSIONS]
    fig.legend(handles=marks, loc="outside upper left", ncols=4, fontsize=7.5)
    return fig


@styled
def decoy_shares(table: pd.DataFrame, alpha: float) -> Figure:
    """Share of significant decoys; `table`: contract ``decoys``, the cohort last."""
    fig = new_figure(rows_height(len(table), 0.25, 1.2))
    ax = fig.subplots()
    for i, r in enumerate(records(table)):
        if not np.isfinite(r.fraction):
            ax.text(0.0, i, f" NA: {r.n_tested:,.0f} decoys tested", va="center", fontsize=7.5, color="#666666",
                    style="italic", bbox=PLAIN, zorder=3)  # fmt: skip
            continue
        colour = INK if r.patient == "cohort" else ACCENT
        ax.plot([r.fraction_low, r.fraction_high], [i, i], color=colour, lw=2, solid_capstyle="butt")
        ax.plot(r.fraction, i, "D" if r.patient == "cohort" else "o", color=colour, ms=5)
        ax.plot(r.fraction_usual, i, "x", color=GREY, ms=5)
    ax.axvline(alpha, color=GREY, lw=1, ls="--")
    label_rows(ax, list(table["patient"]))
    ax.set_xlim(left=-0.005)
    ax.xaxis.set_major_formatter(lambda v, _: f"{100 * v:g} %")
    ax.grid(axis="x", color="#E5E5E5", lw=0.6)
    ax.set_xlabel(f"decoys with p of {alpha:g} or less (cross: without the decoy null)")
    ax.set_title("How many made-up pairs would be called significant?")
    return fig
