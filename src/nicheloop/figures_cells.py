"""Figures of the report on cells: quality, maps, composition, markers, confidence and copy number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop.figures import (
    ACCENT,
    GREY,
    INK,
    MALIGNANCY_COLOURS,
    QC_COLOURS,
    SAMPLE_COLOURS,
    TYPE_COLOURS,
    label_rows,
    new_figure,
    rows_height,
    short,
    styled,
    type_words,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@styled
def qc_attrition(reasons: pd.DataFrame) -> Figure:
    """Barcodes kept and dropped; `reasons`: (samples, reasons of `qc_reason`) counts."""
    fig = new_figure(rows_height(len(reasons), base=1.3))
    ax = fig.subplots()
    left = np.zeros(len(reasons))
    for reason, colour in QC_COLOURS.items():
        n = reasons[reason].to_numpy(float) if reason in reasons else np.zeros(len(reasons))
        ax.barh(
            range(len(reasons)),
            n,
            left=left,
            color=colour,
            label="kept" if reason == "pass" else reason.replace("_", " "),
        )
        left += n
    for i, (total, kept) in enumerate(zip(left, reasons.get("pass", left * 0), strict=True)):
        ax.text(total, i, f" {kept:,.0f} of {total:,.0f}" if total else " no barcode", va="center", fontsize=7.5)
    label_rows(ax, list(reasons.index))
    ax.set_xlim(0, max(float(left.max(initial=1)), 1) * 1.15)
    ax.set_xlabel("barcodes")
    ax.set_title("Which filter dropped the barcodes of each sample?", pad=24)
    ax.legend(ncols=5, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    return fig


def attrition_steps(reasons: pd.DataFrame) -> pd.DataFrame:
    """Barcodes left after each filter, in the order of the filters.

    Parameters
    ----------
    reasons
        (samples, reasons of ``qc_reason``) counts.

    Returns
    -------
    Columns step, dropped and left; the first row is what was read.
    """
    import pandas as pd

    total = reasons.sum()
    known = [r for r in QC_COLOURS if r != "pass"]
    dropped = [0, *(int(total.get(r, 0)) for r in known)]
    left = int(total.sum()) - np.cumsum(dropped)
    return pd.DataFrame({"step": ["read", *(r.replace("_", " ") for r in known)], "dropped": dropped, "left": left})


@styled
def qc_waterfall(steps: pd.DataFrame) -> Figure:
    """Barcodes before the filters, what each of them drops, and what is left; `steps`: see `attrition_steps`."""
    names = [*steps["step"], "kept"]
    fig = new_figure(rows_height(len(names), 0.27, 1.0))
    ax = fig.subplots()
    total = max(int(steps["left"].iloc[0]), 1)
    colours = [INK, *(c for r, c in QC_COLOURS.items() if r != "pass")]
    for i, (dropped, left, colour) in enumerate(zip(steps["dropped"], steps["left"], colours, strict=True)):
        if i == 0:
            ax.barh(i, left, color=GREY, height=0.7)
            ax.text(left, i, f" {left:,}", va="center", fontsize=7.5)
            continue
        ax.barh(i, dropped, left=left, color=colour, height=0.7)
        ax.plot([left + dropped] * 2, [i - 0.65, i + 0.35], color=INK, lw=0.6)
        ax.text(left + dropped, i, f" -{dropped:,}" if dropped else " none", va="center", fontsize=7.5)
    ax.xaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
    last = int(steps["left"].iloc[-1])
    ax.barh(len(steps), last, color=QC_COLOURS["pass"], height=0.7)
    ax.plot([last] * 2, [len(steps) - 0.65, len(steps) + 0.35], color=INK, lw=0.6)
    ax.text(last, len(steps), f" {last:,} ({100 * last / total:.0f} %)", va="center", fontsize=7.5)
    label_rows(ax, names)
    ax.set_xlim(0, total * 1.15)
    ax.set_xlabel("barcodes")
    ax.set_title("How many barcodes does each filter drop?")
    return fig


@styled
def qc_distributions(qc: pd.DataFrame, order: Sequence[str], thresholds: pd.DataFrame | None = None) -> Figure:
    """Boxes of library size, genes and mitochondrial share per sample, before (pale) and after; ticks: thresholds.

    `qc` needs ``sample``, ``qc_pass`` and the metrics; `thresholds` is indexed by sample, with
    columns named like the metrics.
    """
    from matplotlib.ticker import LogLocator

    fig = new_figure(rows_height(len(order), 0.36, 1.2))
    metrics = (
        ("n_counts", "UMI per barcode", True),
        ("n_genes", "genes per barcode", True),
        ("pct_mito", "mitochondrial counts (%)", False),
    )
    axes = fig.subplots(1, 3, sharey=True)
    groups = dict(iter(qc.groupby("sample", sort=False)))
    for ax, (column, label, log) in zip(axes, metrics, strict=True):
        for i, sample in enumerate(order):
            values = groups[sample][column].to_numpy(float) if sample in groups else np.array([])
            values = values[np.isfinite(values)]
            if not len(values):
                ax.text(0.02, i, "no value", transform=ax.get_yaxis_transform(), va="center", fontsize=7, color=GREY)
                continue
            kept = groups[sample].loc[groups[sample]["qc_pass"].astype(bool), column].to_numpy(float)
            for shown, y, colour in ((values, i - 0.19, "#88CCEE"), (kept[np.isfinite(kept)], i + 0.19, "#332288")):
                if not len(shown):
                    continue
                low, q1, median, q3, high = np.percentile(shown, [1, 25, 50, 75, 99])
                ax.plot([low, high], [y, y], color=GREY, lw=0.9)
                ax.barh(y, q3 - q1, left=q1, height=0.3, color=colour)
                ax.plot([median, median], [y - 0.16, y + 0.16], color="white" if colour == "#332288" else INK, lw=1.4)
            if thresholds is not None and sample in thresholds.index and column in thresholds:
                cut = float(thresholds[column][sample])
                if np.isfinite(cut):
                    ax.plot([cut, cut], [i - 0.4, i + 0.4], color=ACCENT, lw=2)
        if log:
            ax.set_xscale("log")
            low, high = ax.get_xlim()
            wide = high > 200 * max(low, 1)  # labels at every half power of ten would touch
            ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 3.0)))
            ax.xaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
            ax.xaxis.set_minor_formatter(lambda v, _: "")
        else:
            ax.set_xlim(left=0)
        ax.set_xlabel(label)
        ax.grid(axis="x", color="#E5E5E5", lw=0.6)
    label_rows(axes[0], list(order))
    axes[0].set_title("How deep and how clean is each sample?")
    return fig


def stratified(cells: pd.DataFrame, column: str, most: int, seed: int = 0) -> pd.DataFrame:
    """At most `most` rows, the same share of every group of `column` (at least one), in random drawing order."""
    rng = np.random.default_rng(seed)
    if len(cells) <= most:
        return cells.iloc[rng.permutation(len(cells))]
    share = most / len(cells)
    chosen = []
    for _, rows in sorted(cells.groupby(column, sort=True).indices.items()):
        chosen.append(rng.choice(rows, max(1, int(len(rows) * share)), replace=False))
    taken = np.concatenate(chosen)[:most] if len(chosen) <= most else np.concatenate(chosen)
    return cells.iloc[rng.permutation(taken)]


def sample_colours(order: Sequence[str]) -> dict[str, str]:
    """A colour per sample, repeated after twelve."""
    return {s: SAMPLE_COLOURS[i % len(SAMPLE_COLOURS)] for i, s in enumerate(order)}


@styled
def maps(cells: pd.DataFrame, order: Sequence[str]) -> Figure:
    """The map by sample, type and malignancy; second row without integration where it was computed.

    `cells`: ``umap_1``, ``umap_2``, if computed ``umap_raw_1``, ``umap_raw_2``, and the three columns shown.
    """
    from matplotlib.lines import Line2D

    raw = "umap_raw_1" in cells and bool(cells["umap_raw_1"].notna().any())
    layouts = [("umap_1", "umap_2", "integrated")] + ([("umap_raw_1", "umap_raw_2", "not integrated")] if raw else [])
    colourings = (("sample", sample_colours(order)), ("cell_type", TYPE_COLOURS), ("malignancy", MALIGNANCY_COLOURS))
    legend_rows = 5
    fig = new_figure(3.0 * len(layouts) + 0.17 * legend_rows + 0.2)
    axes = fig.subplots(len(layouts), 3, squeeze=False)
    size = float(np.clip(12000 / max(len(cells), 1), 0.6, 9))
    for row, (x, y, name) in zip(axes, layouts, strict=True):
        for ax, (column, palette) in zip(row, colourings, strict=True):
            colour = cells[column].astype(object).map(palette).fillna("#BBBBBB").to_numpy(dtype=object)
            ax.scatter(cells[x], cells[y], s=size, c=list(colour), lw=0, rasterized=True)
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{column.replace('_', ' ')}, {name}")
            for side in ax.spines.values():
                side.set_visible(False)
    for ax, (column, palette) in zip(axes[-1], colourings, strict=True):
        present = set(cells[column].dropna())
        names = [n for n in palette if n in present]
        hidden = len(names) - 12
        marks = [
            Line2D(
                [],
                [],
                marker="o",
                ls="",
                ms=5,
                color=palette[n],
                label=short(n if column == "sample" else type_words(n), 15),
            )
            for n in names[:12]
        ]
        if hidden > 0:
            marks.append(Line2D([], [], ls="", label=f"… {hidden} more"))
        columns = 2 if len(marks) > 4 else 1
        ax.legend(
            handles=marks,
            ncols=3 if len(marks) > 8 else columns,
            loc="upper left",
            bbox_to_anchor=(0, 0),
            fontsize=7,
            handletextpad=0.1,
            columnspacing=0.6,
            borderaxespad=0.2,
        )
    return fig


@styled
def composition(table: pd.DataFrame, order: Sequence[str], labels: Mapping[str, str]) -> Figure:
    """Shares of cell types per sample; `table`: contract ``composition``, `labels`: sample -> text of its row."""
    wide = table.pivot(index="sample", columns="cell_type", values="fraction").reindex(list(order)).fillna(0.0)
    sizes = table.groupby("sample")["n_cells"].sum()
    legend_rows = -(-len(wide.columns) // 6)
    fig = new_figure(rows_height(len(order), base=1.35 + 0.17 * legend_rows))
    ax = fig.subplots()
    left = np.zeros(len(order))
    for name, colour in TYPE_COLOURS.items():
        if name in wide:
            values = wide[name].to_numpy(float)
            ax.barh(
                range(len(order)),
                values,
                left=left,
                color=colour,
                label=type_words(name),
                edgecolor="white",
                lw=0.4,
            )
            left += values
    for i, sample in enumerate(order):
        n = int(sizes.get(sample, 0))
        ax.text(1.005, i, f"n = {n:,}" if n else "no cells", va="center", fontsize=7.5)
    label_rows(ax, list(order))
    ax.set_yticks(range(len(order)), [short(labels.get(s, s), 34) for s in order])
    ax.set_xlim(0, 1.1)
    ax.set_xticks(np.linspace(0, 1, 6), [f"{v:.0f} %" for v in np.linspace(0, 100, 6)])
    ax.set_xlabel("share of the sample's kept cells")
    ax.set_title("What is each sample made of?", pad=10 + 12.5 * legend_rows)
    ax.legend(
        ncols=6,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        fontsize=7.5,
        borderaxespad=0.2,
        columnspacing=1.0,
        handlelength=1.2,
    )
    return fig


@styled
def marker_dots(profiles: pd.DataFrame, markers: Mapping[str, Sequence[str]], per_type: int = 4) -> Figure:
    """Dot plot of marker genes; `profiles`: ``gene``, ``cell_type``, ``fraction``, ``mean_lognorm``, all samples."""
    present = [t for t in TYPE_COLOURS if t in set(profiles["cell_type"])]
    measured = set(profiles["gene"])
    genes: list[str] = []
    groups: list[tuple[str, int]] = []
    for name in [t for t in TYPE_COLOURS if t in markers]:
        mine = [g for g in markers[name] if g in measured and g not in genes][:per_type]
        if mine:
            groups.append((name, len(mine)))
            genes += mine
    where = {g: i for i, g in enumerate(genes)}
    fig = new_figure(rows_height(len(present), 0.26, 1.6))
    ax = fig.subplots()
    rows = profiles[profiles["gene"].isin(genes) & profiles["cell_type"].isin(present)]
    dots = ax.scatter(
        rows["gene"].map(where),
        rows["cell_type"].map({t: i for i, t in enumerate(present)}),
        s=2 + 62 * rows["fraction"],
        c=rows["mean_lognorm"],
        cmap="viridis_r",
        vmin=0,
        lw=0,
    )
    ax.set_xticks(range(len(genes)), genes, rotation=90, fontsize=7)
    ax.set_xlim(-0.8, max(len(genes), 1) - 0.2)
    label_rows(ax, [type_words(t) for t in present])
    ax.set_ylim(len(present) - 0.4, -1.15)
    edge = 0
    for name, n in groups:
        ax.add_patch(_box(edge - 0.45, -1.0, n - 0.1, 0.22, TYPE_COLOURS[name]))
        edge += n
    ax.set_title("Do the types show their own markers, and only these?")
    bar = fig.colorbar(dots, ax=ax, fraction=0.03, pad=0.01)
    bar.set_label("mean log expression", fontsize=7.5)
    sizes = [ax.scatter([], [], s=2 + 62 * f, color=GREY, label=f"{100 * f:.0f} %") for f in (0.1, 0.5, 1.0)]
    ax.legend(
        handles=sizes,
        title="cells with the gene",
        title_fontsize=7.5,
        ncols=3,
        loc="lower right",
        bbox_to_anchor=(1, 1.0),
        borderaxespad=0.1,
        fontsize=7.5,
        handletextpad=0.2,
        columnspacing=1.0,
    )
    return fig


def _box(x: float, y: float, width: float, height: float, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, color=colour, clip_on=False, lw=0)


@styled
def confidence(cell_types: pd.DataFrame, order: Sequence[str], minimum: float) -> Figure:
    """Posterior of the winning type, and the unresolved share of every sample with the reasons."""
    fig = new_figure(max(2.6, rows_height(len(order), base=0.9)))
    left, right = fig.subplots(1, 2, width_ratios=(1, 1.25))
    unresolved = cell_types["cell_type"] == "unresolved"
    bins = np.linspace(0, 1, 41)
    left.hist(
        [cell_types.loc[~unresolved, "confidence"], cell_types.loc[unresolved, "confidence"]],
        bins=bins,
        stacked=True,
        color=["#44AA99", GREY],
        label=["typed", "unresolved"],
    )
    left.axvline(minimum, color=ACCENT, lw=1.5, ls="--", label=f"smallest allowed ({minimum:g})")
    left.set(xlabel="posterior of the winning type", ylabel="cells")
    left.legend(loc="upper left")
    left.set_title("How sure are the types?")
    total = cell_types.groupby("sample").size().reindex(list(order)).fillna(0)
    base = np.zeros(len(order))
    palette = {"low_evidence": "#DDCC77", "two_lineages": "#CC6677", "ambient": "#88CCEE", "from_input": "#332288"}
    for reason, colour in palette.items():
        n = (
            cell_types[unresolved & (cell_types["cell_type_reason"] == reason)]
            .groupby("sample")
            .size()
            .reindex(list(order))
            .fillna(0)
        )
        share = (n / total.where(total > 0)).fillna(0).to_numpy(float) * 100
        if share.any():
            right.barh(range(len(order)), share, left=base, color=colour, label=reason.replace("_", " "))
        base += share
    for i, value in enumerate(base):
        right.text(value, i, f" {value:.1f} %" if total.iloc[i] else " no cells", va="center", fontsize=7.5)
    right.set_xlim(0, max(float(base.max(initial=0)) * 1.25, 5))
    label_rows(right, list(order))
    right.set_xlabel("unresolved cells (% of kept)")
    right.set_title("How many stay unresolved, and why?", pad=20 if base.any() else 6)
    if base.any():
        right.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=4, columnspacing=1.0)
    return fig


def _chromosome(name: str) -> int:
    digits = name.removeprefix("chr")
    return int(digits) if digits.isdigit() else 99


@styled
def cnv(panels: Sequence[tuple[str, pd.DataFrame]]) -> Figure:
    """Copy-number heat maps, one panel per (title, table of contract ``cnv``); common scale, chromosome separators."""
    sizes = [max(t["group"].nunique(), 1) for _, t in panels]
    fig = new_figure(0.5 + sum(0.19 * n + 0.52 for n in sizes))
    axes = fig.subplots(len(panels), 1, height_ratios=[0.19 * n + 0.22 for n in sizes], squeeze=False)[:, 0]
    every = np.concatenate([t["value"].to_numpy(float) for _, t in panels])
    limit = max(float(np.nanpercentile(np.abs(every), 99)), 0.05)
    image = None
    for ax, (title, table) in zip(axes, panels, strict=True):
        table = table.assign(rank=table["chromosome"].map(_chromosome))
        wide = table.pivot(index="group", columns=["rank", "start"], values="value").sort_index(axis=1)
        groups = sorted(wide.index, key=_group_rank)
        cells = table.groupby("group")["n_cells"].first()
        image = ax.imshow(
            wide.loc[groups].to_numpy(float),
            aspect="auto",
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            interpolation="nearest",
        )
        chromosomes = np.array([c[0] for c in wide.columns])
        edges = np.flatnonzero(np.diff(chromosomes)) + 0.5
        for edge in edges:
            ax.axvline(edge, color="#555555", lw=0.4)
        bounds = np.concatenate([[-0.5], edges, [len(chromosomes) - 0.5]])
        order = list(dict.fromkeys(chromosomes.tolist()))
        # the label of a chromosome too narrow for it is left out
        wide_enough = np.diff(bounds) >= 0.017 * len(chromosomes)
        names = [str(c) if ok else "" for c, ok in zip(order, wide_enough, strict=True)]
        ax.set_xticks((bounds[:-1] + bounds[1:]) / 2, names, fontsize=6.5)
        ax.set_yticks(range(len(groups)), [f"{type_words(g)} ({cells[g]:,.0f})" for g in groups], fontsize=7)
        ax.tick_params(length=0)
        ax.set_title(title, fontsize=8.5)
    if image is not None:
        bar = fig.colorbar(image, ax=list(axes), fraction=0.02, pad=0.01, aspect=30 if len(panels) > 2 else 12)
        bar.set_label("mean log ratio", fontsize=7.5)
    return fig


@styled
def arm_checks(rows: pd.DataFrame, order: Sequence[str]) -> Figure:
    """Regions by clone; `rows`: ``label``, ``region``, ``expected``, ``seen``, ``agrees``, ``log2``; one per cell."""
    regions = list(dict.fromkeys(rows["region"]))
    expected = rows.drop_duplicates("region").set_index("region")["expected"]
    fig = new_figure(rows_height(len(order), 0.23, 1.75))
    ax = fig.subplots()
    wide = rows.assign(log2=rows["log2"].where(rows["seen"] != "not_measurable")).pivot(
        index="label", columns="region", values="log2"
    )
    values = wide.reindex(index=list(order), columns=regions).to_numpy(float)
    limit = max(float(np.nanmax(np.abs(values), initial=0.0)), 0.1)
    image = ax.imshow(values, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    where = {r: i for i, r in enumerate(regions)}, {s: i for i, s in enumerate(order)}
    for region, label, seen, agrees in zip(rows["region"], rows["label"], rows["seen"], rows["agrees"], strict=True):
        x, y = where[0][region], where[1][label]
        if seen in ("gain", "loss"):
            ax.text(x, y, "+" if seen == "gain" else "\u2212", ha="center", va="center", fontsize=9)
            if agrees:
                ax.add_patch(_frame(x - 0.46, y - 0.44, 0.92, 0.88))
    ax.set_xticks(range(len(regions)), [f"{r} {expected[r]}" for r in regions], rotation=60, ha="right", fontsize=7)
    label_rows(ax, list(order), 7)
    ax.set_yticks(range(len(order)), [short(str(s), 34) for s in order], fontsize=7)
    ax.tick_params(length=0)
    ax.set_title("Which recurrent gains and losses does each clone carry?")
    bar = fig.colorbar(image, ax=ax, fraction=0.03, pad=0.01, aspect=12)
    bar.set_label("log2 difference", fontsize=7.5)
    return fig


def _frame(x: float, y: float, width: float, height: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, fill=False, edgecolor=INK, lw=1.0)


def _group_rank(name: str) -> tuple[int, int, str]:
    kinds = ("clone", "unassigned", "normal", "caf", "reference")
    digits = name.rpartition("_")[2]
    number = int(digits) if digits.isdigit() else 0  # clone 10 comes after clone 9
    return (next((i for i, k in enumerate(kinds) if name.startswith(k)), len(kinds)), number, name)
