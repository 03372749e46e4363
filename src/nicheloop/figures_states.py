"""Figures of the report on states: calls, posteriors, what chance or an adjustment gives, groups of tumours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop.figures import (
    ACCENT,
    GREY,
    INK,
    MALIGNANCY_COLOURS,
    label_rows,
    new_figure,
    percent,
    records,
    rows_height,
    short,
    styled,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NA_STYLE: dict[str, Any] = {"fontsize": 7.5, "color": "#666666", "style": "italic", "va": "center"}
MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
MARK_COLOURS = ("#882255", "#332288", "#44AA99", "#DDCC77", "#88CCEE", "#117733", "#EE7733", "#999933", "#6699CC")
BINS = np.linspace(0, 1, 21)


@styled
def shares(table: pd.DataFrame, palette: Mapping[str, str], title: str, label: str, totals: Sequence[str]) -> Figure:
    """Stacked bars; `table`: (rows, parts) counts, `totals`: the words at the end of each row."""
    fig = new_figure(rows_height(len(table), base=1.55))
    ax = fig.subplots()
    n = table.sum(axis=1).to_numpy(float)
    left = np.zeros(len(table))
    for name, colour in palette.items():
        if name not in table:
            continue
        share = table[name].to_numpy(float) / np.where(n > 0, n, 1)
        words = name.replace("_", " ")
        ax.barh(range(len(table)), share, left=left, color=colour, label=words, edgecolor="white", lw=0.4)
        left += share
    for i, words in enumerate(totals):
        ax.text(1.005 if n[i] else 0.005, i, words, va="center", fontsize=7.5)
    label_rows(ax, list(table.index))
    ax.set_yticks(range(len(table)), [short(str(s), 34) for s in table.index])
    ax.set_xlim(0, 1.18)
    ax.set_xticks(np.linspace(0, 1, 6), [f"{v:.0f} %" for v in np.linspace(0, 100, 6)])
    ax.set_xlabel(label)
    shown = sum(name in table for name in palette)
    ax.set_title(title, pad=12 + 12 * -(-shown // 6))  # room for the rows of the legend
    ax.legend(ncols=6, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, fontsize=7.5, columnspacing=1.0)
    return fig


def malignancy_calls(table: pd.DataFrame) -> Figure:
    """Epithelial cells per sample by call; `table`: (samples, calls) counts."""
    palette = {k: v for k, v in MALIGNANCY_COLOURS.items() if k != "not_epithelial"}
    n = table.sum(axis=1)
    return shares(
        table, palette, "Which epithelial cells are malignant?", "share of the sample's epithelial cells",
        [f"n = {v:,.0f}" if v else "no epithelial cell" for v in n],
    )  # fmt: skip


@styled
def posteriors(panels: Sequence[tuple[str, np.ndarray]], low: float, high: float) -> Figure:
    """Posterior of CD44+/CD24- of the malignant cells of every sample; between `low` and `high` no state is given."""
    columns = 4
    rows = -(-len(panels) // columns)
    fig = new_figure(1.45 * rows + 0.5)
    axes = fig.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for ax, (title, values) in zip(axes, panels, strict=False):
        ax.axvspan(low, high, color="#EEEEEE", lw=0)
        ax.hist(values[np.isfinite(values)], bins=list(BINS), color=ACCENT)
        ax.set_title(short(title, 32), fontsize=8)
        ax.tick_params(labelsize=7, labelbottom=True)
        ax.set_xlim(0, 1)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    fig.supxlabel("probability that a malignant cell is CD44+/CD24- (grey: no state is given)", fontsize=8.5)
    fig.supylabel("malignant cells", fontsize=8.5)
    return fig


@styled
def bands(panels: Sequence[tuple[str, pd.DataFrame]], title: str, percent: Sequence[bool]) -> Figure:
    """What was found (dot) beside what chance gives (grey band, tick: median), one row per tumour or axis; NA says why.

    A panel is (label, table with ``label``, ``value``, ``low``, ``median``, ``high``, ``note``).
    """
    n = max(len(t) for _, t in panels)
    fig = new_figure(rows_height(n, 0.27, 1.25))
    axes = fig.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (label, table), share in zip(axes, panels, percent, strict=True):
        for i, r in enumerate(records(table)):
            if not np.isfinite(r.value):
                words = short(f"NA: {r.note}", 110 // len(panels))
                ax.text(0.02, i, words, transform=ax.get_yaxis_transform(), **NA_STYLE)
                continue
            if np.isfinite(r.low) and np.isfinite(r.high):
                ax.barh(i, r.high - r.low, left=r.low, height=0.55, color="#CFCFCF", lw=0)
                ax.plot([r.median, r.median], [i - 0.27, i + 0.27], color=INK, lw=1.2)
            ax.plot(r.value, i, "o", ms=5.5, color=ACCENT)
        if share:
            ax.xaxis.set_major_formatter(lambda v, _: f"{100 * v:g} %")
        ax.set_xlabel(label)
        ax.grid(axis="x", color="#E5E5E5", lw=0.6)
    label_rows(axes[0], list(panels[0][1]["label"]))
    axes[0].set_yticks(range(n), [short(str(v), 34) for v in panels[0][1]["label"]])
    axes[0].set_title(title)
    return fig


@styled
def measures(names: Sequence[str], panels: Sequence[tuple[str, np.ndarray]], title: str) -> Figure:
    """One share per sample and panel as bars; a missing one says NA."""
    fig = new_figure(rows_height(len(names), base=1.1))
    axes = fig.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (label, values) in zip(axes, panels, strict=True):
        for i, value in enumerate(values):
            if np.isfinite(value):
                ax.barh(i, value, color="#6699CC", height=0.6)
                ax.text(value, i, f" {percent(float(value))}", va="center", fontsize=7.5)
            else:
                ax.text(0, i, " NA", **NA_STYLE)
        ax.set_xlim(0, max(float(np.nanmax(values, initial=0.0)) * 1.2, 0.02))
        ax.xaxis.set_major_formatter(lambda v, _: f"{100 * v:g} %")
        ax.set_xlabel(label)
    label_rows(axes[0], list(names))
    axes[0].set_title(title)
    return fig


@styled
def versions(table: pd.DataFrame, names: Sequence[str], title: str, label: str) -> Figure:
    """Effects with intervals, one row per read-out and one mark per version of the adjustment.

    `table`: ``row``, ``version``, ``effect``, ``effect_low``, ``effect_high``; `names`: versions in the order drawn.
    """
    from matplotlib.lines import Line2D

    rows = list(dict.fromkeys(table["row"]))
    fig = new_figure(rows_height(len(rows), 0.11 * len(names) + 0.16, 1.4))
    ax = fig.subplots()
    ax.axvline(0, color="#777777", lw=0.8)
    step = 0.8 / max(len(names), 1)
    for k, name in enumerate(names):
        for r in records(table[table["version"] == name]):
            y = rows.index(r.row) - 0.4 + step * (k + 0.5)
            if not np.isfinite(r.effect):
                continue
            if np.isfinite(r.effect_low) and np.isfinite(r.effect_high):
                ax.plot([r.effect_low, r.effect_high], [y, y], color=MARK_COLOURS[k % 9], lw=1.1)
            ax.plot(r.effect, y, MARKS[k % 9], ms=4, color=MARK_COLOURS[k % 9])
    label_rows(ax, [r.replace("_", " ") for r in rows])
    ax.grid(axis="x", color="#E5E5E5", lw=0.6)
    ax.set_xlabel(label)
    ax.set_title(title)
    marks = [
        Line2D([], [], marker=MARKS[k % 9], ls="", ms=4.5, color=MARK_COLOURS[k % 9], label=n.replace("_", " "))
        for k, n in enumerate(names)
    ]
    fig.legend(
        handles=marks,
        loc="outside upper left",
        ncols=5,
        fontsize=7.5,
        title="adjusted for",
        title_fontsize=7.5,
        alignment="left",
    )
    return fig


@styled
def groups(panels: Sequence[tuple[str, pd.DataFrame]], title: str, words: Callable[[str], str] = str) -> Figure:
    """Tumours of each group as dots, their median as a bar; a panel is (label, table with ``group``, ``value``)."""
    order = list(dict.fromkeys(g for _, t in panels for g in t["group"]))
    fig = new_figure(rows_height(len(order), 0.32, 1.1))
    axes = fig.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (label, table) in zip(axes, panels, strict=True):
        ax.set_xlim(0, max(float(np.nanmax(table["value"].to_numpy(float), initial=0.0)) * 1.12, 0.01))
        for i, name in enumerate(order):
            _group(ax, i, table.loc[table["group"] == name, "value"].to_numpy(float))
        ax.xaxis.set_major_formatter(lambda v, _: f"{100 * v:g} %")
        ax.set_xlabel(label)
        ax.grid(axis="x", color="#E5E5E5", lw=0.6)
    label_rows(axes[0], order)
    axes[0].set_yticks(range(len(order)), [short(words(str(v)), 34) for v in order])
    axes[0].set_title(title)
    return fig


def _group(ax: Axes, i: int, values: np.ndarray) -> None:
    known = values[np.isfinite(values)]
    said = f"{len(known)} of {len(values)}"
    if len(known):
        ax.plot([np.median(known)] * 2, [i - 0.3, i + 0.3], color=INK, lw=1.6)
        ax.plot(known, np.full(len(known), i), "o", ms=5, color=ACCENT, alpha=0.8, clip_on=False)
    ax.text(
        1.01, i, said, transform=ax.get_yaxis_transform(), va="center", fontsize=7, color=GREY if len(known) else INK
    )


@styled
def isoforms(table: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Share of malignant cells with a count of each isoform, a dot per tumour; filled where ambient RNA is exceeded."""
    from matplotlib.lines import Line2D

    fig = new_figure(rows_height(len(names), 0.27, 1.3))
    ax = fig.subplots()
    for i, name in enumerate(names):
        part = table[table["isoform"] == name]
        for above, face in ((True, ACCENT), (False, "white")):
            values = part.loc[(part["status"] == "beyond_ambient") == above, "fraction"].to_numpy(float)
            ax.plot(values, np.full(len(values), i), "o", ms=5, color=face, mec=ACCENT, mew=0.9, clip_on=False)
        if part.empty:
            ax.text(0.01, i, "not in the reference", **NA_STYLE)
    label_rows(ax, list(names))
    ax.set_xlim(0, max(float(table["fraction"].max()) * 1.05, 0.05))
    ax.xaxis.set_major_formatter(lambda v, _: percent(v))
    ax.grid(axis="x", color="#E5E5E5", lw=0.6)
    ax.set_xlabel("malignant cells with a count")
    ax.set_title("ALDH isoforms in malignant cells, one by one", pad=20)
    marks = [
        Line2D([], [], marker="o", ls="", color=face, mec=ACCENT, label=words)
        for face, words in ((ACCENT, "beyond ambient RNA"), ("white", "not beyond, or not estimated"))
    ]
    ax.legend(handles=marks, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, fontsize=7.5)
    return fig
