"""Section on cells: what stays when clustering, depth, size, reference or labels change.  Figures, claims, plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.validation import _cells_measure as measure
from benchmarks.validation._cells_found import NO_TARGET, singlets
from benchmarks.validation.harness import Claim, Result, judge_rate

if TYPE_CHECKING:
    import pandas as pd

    from benchmarks.validation._cohort import Cohort


def resolutions(
    result: Result, cohort: Cohort, truth: pd.DataFrame, found: dict[float, tuple[pd.DataFrame, pd.Series]], name: str
) -> None:
    """Macro-F1 at several leiden resolutions, ours and the field's way on the same clusters."""
    import pandas as pd

    scores = measure.field_scores(cohort)
    rows = []
    for r, (calls, clusters) in found.items():
        kept = calls.index.intersection(truth.index)
        if "doublet" in truth:
            kept = kept[~truth.loc[kept, "doublet"].to_numpy()]
        expected = truth.loc[kept, "cell_type"]
        majority = measure.field_types(scores, clusters).reindex(kept)
        cellwise = measure.field_types(scores, None).reindex(kept)
        rows.append(
            {
                "resolution": r,
                "clusters": int(clusters.nunique()),
                "cells": len(kept),
                "nicheloop": measure.macro_f1(expected, calls.loc[kept, "cell_type"]),
                "score_genes, majority per cluster": measure.macro_f1(expected, majority),
                "score_genes, cell by cell": measure.macro_f1(expected, cellwise),
            }
        )
    table = pd.DataFrame(rows)
    where = "demo" if name == "demo" else "normal breasts"
    result.tables.append((f"Macro-F1 at several leiden resolutions, {where}", table))
    suffix = "" if name == "demo" else f"_{name}"
    for row in rows:
        result.figures[f"annotation_macro_f1{suffix}_resolution_{row['resolution']:g}"] = row["nicheloop"]
    ours, field = table["nicheloop"], table["score_genes, majority per cluster"]
    result.figures[f"resolution_{name}"] = rows
    span = f"resolutions {', '.join(f'{r:g}' for r in found)}"
    if name == "demo":
        result.claims.append(
            Claim(
                f"Demo: macro-F1 at its lowest over {span}", f"{ours.min():.4f}", ">= 0.985", bool(ours.min() >= 0.985)
            )
        )
    if len(found) > 1:
        result.claims.append(
            Claim(
                f"{where.capitalize()}: macro-F1 at its lowest over {span}, beside the field's way at its lowest",
                f"{ours.min():.3f} against {field.min():.3f} (best: {ours.max():.3f} against {field.max():.3f})",
                "at least the field's",
                bool(ours.min() >= field.min()),
            )
        )


def resolution_plot(result: Result) -> None:
    """Macro-F1 over resolutions."""
    data = {k: result.figures[f"resolution_{k}"] for k in ("demo", "normals") if f"resolution_{k}" in result.figures}
    if len(next(iter(data.values()))) < 2:
        return
    fig, axes = measure.figure(7.2, 3.2, 2)
    for ax, (name, rows) in zip(axes, data.items(), strict=False):
        for key, colour, style in (
            ("nicheloop", measure.BLUE, "o-"),
            ("score_genes, majority per cluster", measure.ORANGE, "s--"),
            ("score_genes, cell by cell", measure.GREY, "^:"),
        ):
            ax.plot([r["resolution"] for r in rows], [r[key] for r in rows], style, color=colour, label=key)
        ax.set_xscale("log", base=2)
        ax.set_xticks([r["resolution"] for r in rows], [f"{r['resolution']:g}" for r in rows])
        ax.minorticks_off()
        ax.set_xlabel("leiden resolution")
        ax.set_title(f"{'demo' if name == 'demo' else 'normal breasts'} (n = {rows[0]['cells']:,})", fontsize=10)
        ax.set_ylim(0.5, 1.01)
    axes[0].set_ylabel("macro-F1 of major types")
    axes[0].legend(frameon=False, fontsize=8, loc="lower left")
    for ax in axes[len(data) :]:
        ax.set_visible(False)
    text = (
        "Macro-F1 of major types at several leiden resolutions: nicheloop, and score_genes by majority per cluster and "
        "cell by cell, on the demo cohort and on labelled normal breast."
    )
    result.plots.append(("resolutions", text, fig))


def downsampling(
    result: Result,
    base: Cohort,
    known: pd.DataFrame,
    normal: Cohort | None,
    labels: pd.DataFrame | None,
    found: dict[str, dict[float, pd.DataFrame]],
) -> None:
    """Types and malignancy as the libraries get smaller."""
    import pandas as pd

    def row(name: str, share: float, calls: pd.DataFrame) -> dict[str, Any]:
        if name == "demo":
            truth, kept = singlets(known, calls)
            figures = measure.malignancy_figures(truth, kept)
            return {
                "data": "demo",
                "UMI kept": share,
                "cells": len(kept),
                "macro-F1": measure.macro_f1(truth["cell_type"], kept["cell_type"]),
                "unresolved": float((kept["cell_type"] == "unresolved").mean()),
                "malignant balanced accuracy": figures["all_cells"],
                "strict": figures["strict"],
                "epithelium unassigned": figures["unassigned"],
                "normal epithelial": figures["n_normal_epithelial"],
                "called malignant, not malignant": figures["n_false_malignant"],
            }
        assert labels is not None
        kept = calls.loc[calls.index.intersection(labels.index)]
        malignant = int((kept["malignancy"] == "malignant").sum())
        return {
            "data": "normal breasts",
            "UMI kept": share,
            "cells": len(kept),
            "macro-F1": measure.macro_f1(labels.loc[kept.index, "cell_type"], kept["cell_type"]),
            "unresolved": float((kept["cell_type"] == "unresolved").mean()),
            "malignant balanced accuracy": None,
            "strict": None,
            "epithelium unassigned": None,
            "normal epithelial": int((labels.loc[kept.index, "cell_type"] == "epithelial").sum()),
            "called malignant, not malignant": malignant,
        }

    rows = [row("demo", 1.0, base.calls())] + [row("demo", s, c) for s, c in found["demo"].items()]
    if normal is not None:
        rows += [row("normals", 1.0, normal.calls())] + [row("normals", s, c) for s, c in found["normals"].items()]
    table = pd.DataFrame(rows).sort_values(["data", "UMI kept"], ascending=[True, False], kind="stable")
    result.tables.append(("Every library thinned: cells that still pass quality control", table))
    result.figures["downsampling"] = {
        "demo" if name == "demo" else "normals": {
            f"{r['UMI kept']:g}": {
                k: r[k]
                for k in (
                    "cells",
                    "macro-F1",
                    "unresolved",
                    "malignant balanced accuracy",
                    "strict",
                    "epithelium unassigned",
                )
            }
            for r in part.to_dict("records")
        }
        for name, part in table.groupby("data", sort=True)
    }
    for name, part in table.groupby("data", sort=True):
        small = part[part["UMI kept"] < 1]
        text = "; ".join(
            f"{r['UMI kept']:.0%}: macro-F1 {r['macro-F1']:.3f}"
            + (
                f", malignant {r['malignant balanced accuracy']:.3f} ({r['epithelium unassigned']:.0%} of the "
                "epithelium unassigned)"
                if name == "demo"
                else ""
            )
            for r in small.to_dict("records")
        )
        result.claims.append(Claim(f"{name.capitalize()}, libraries thinned", text, NO_TARGET, None))
    runs = table.to_dict("records")
    false = [(int(r["called malignant, not malignant"]), int(r["normal epithelial"])) for r in runs]
    worst = max(false, key=lambda f: f[0] / max(f[1], 1))
    result.claims.append(
        Claim(
            "Libraries thinned: normal epithelium called malignant, highest",
            f"{worst[0]} of {worst[1]}",
            "<= 1 % at every depth (exact test)",
            all(judge_rate(k, n, 0.01, family=len(false), side="greater")[1] for k, n in false),
        )
    )
    fig, ax = measure.figure(5.2, 3.2)
    for name, key, colour, style, label in (
        ("demo", "macro-F1", measure.BLUE, "o-", "demo: macro-F1 of types"),
        ("demo", "malignant balanced accuracy", measure.RED, "s-", "demo: malignant balanced accuracy"),
        ("demo", "strict", measure.RED, "s:", "the same, epithelium only, unassigned counted as wrong"),
        ("normal breasts", "macro-F1", measure.GREEN, "^--", "normal breasts: macro-F1 of types"),
    ):
        part = table[table["data"] == name].sort_values("UMI kept")
        if len(part):
            ax.plot(100 * part["UMI kept"], part[key].astype(float), style, color=colour, label=label)
    ax.set_xlabel("UMI kept (%)")
    ax.set_ylabel("score")
    ax.set_ylim(0.3, 1.02)
    ax.set_xlim(0, 105)
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    text = "Macro-F1 of types and balanced accuracy of malignant cells as every library is thinned."
    result.plots.append(("downsampling", text, fig))


def small_samples(
    result: Result, known: pd.DataFrame, labels: pd.DataFrame | None, found: dict[str, pd.DataFrame], n: int
) -> None:
    """Samples of few barcodes, each analysed alone."""
    import pandas as pd

    rows = []
    for name, part in (
        ("demo", [v for k, v in found.items() if k.startswith("demo")]),
        ("normal breasts", [v for k, v in found.items() if k.startswith("normals")]),
    ):
        for calls in part:
            if name == "demo":
                truth, kept = singlets(known, calls)
            else:
                assert labels is not None
                kept = calls.loc[calls.index.intersection(labels.index)]
                truth = labels.loc[kept.index]
            status = calls.loc[calls["malignancy"].isin(["unassigned"]), "malignancy_status"].value_counts()
            rows.append(
                {
                    "data": name,
                    "samples": kept["sample"].nunique(),
                    "cells": len(kept),
                    "macro-F1": measure.macro_f1(truth["cell_type"], kept["cell_type"]),
                    "unresolved": float((kept["cell_type"] == "unresolved").mean()),
                    "malignant": int((kept["malignancy"] == "malignant").sum()),
                    "unassigned epithelium": ", ".join(f"{k} ({v})" for k, v in status.items()),
                }
            )
    table = pd.DataFrame(rows)
    result.tables.append((f"Samples of {n} barcodes, each analysed alone", table))
    first = table[table["data"] == "demo"]
    low = float(first["macro-F1"].min())
    result.figures["annotation_macro_f1_90_cells_demo"] = low
    result.claims.append(
        Claim(
            f"Demo: macro-F1 in samples of {n} barcodes, each alone",
            f"{low:.3f} (n = {int(first['cells'].sum()):,})",
            ">= 0.95",
            low >= 0.95,
        )
    )
    rest = table[table["data"] != "demo"]
    if len(rest):
        result.figures["annotation_macro_f1_90_cells_normals"] = float(rest["macro-F1"].min())


def controls(result: Result, base: Cohort, known: pd.DataFrame, done: dict[str, Any], swaps: tuple[str, ...]) -> None:
    """What must vanish vanishes, what must stay stays."""
    import pandas as pd
    from scipy.stats import ttest_1samp

    truth, calls = singlets(known, base.calls())
    rng = np.random.default_rng([base.seed, 3])
    expected, found = truth["cell_type"].to_numpy(), calls["cell_type"].to_numpy()
    epithelial = (truth["cell_type"] == "epithelial").to_numpy()
    malignant, said = (
        truth["malignant"].to_numpy()[epithelial],
        (calls["malignancy"] == "malignant").to_numpy()[epithelial],
    )
    shuffled = np.array(
        [
            (measure.macro_f1(rng.permutation(expected), found), measure.balanced(rng.permutation(malignant), said))
            for _ in range(50)
        ]
    )
    with_tumour = truth.loc[truth["malignant"], "sample"].unique()
    tumours = truth["sample"].isin(with_tumour).to_numpy()
    rows = [
        {
            "control": "labels of the truth shuffled (50 times, highest)",
            "should show": "chance",
            "macro-F1": float(shuffled[:, 0].max()),
            "balanced accuracy": float(shuffled[:, 1].max()),
            "false malignant": None,
        }
    ]
    untouched = measure.malignancy_figures(truth[tumours], calls[tumours])
    rows.append(
        {
            "control": "none (tumours only)",
            "should show": "what is planted",
            "macro-F1": measure.macro_f1(expected[tumours], found[tumours]),
            "balanced accuracy": untouched["all_cells"],
            "false malignant": untouched["n_false_malignant"],
        }
    )
    renamed_truth, renamed = singlets(known, done["renamed"]["types"])
    f1 = measure.macro_f1(renamed_truth["cell_type"], renamed["cell_type"])
    typed = float((renamed["cell_type"] != "unresolved").mean())
    rows.append(
        {
            "control": f"genes renamed at random: types ({typed:.0%} of cells still get one)",
            "should show": "no agreement, mostly unresolved",
            "macro-F1": f1,
            "balanced accuracy": None,
            "false malignant": None,
        }
    )
    placed_truth, placed = singlets(known, done["renamed"]["calls"])
    figures = measure.malignancy_figures(placed_truth, placed)
    said_malignant = int((placed["malignancy"] == "malignant").sum())
    rows.append(
        {
            "control": "genes renamed at random: copy number (types as found)",
            "should show": "no malignant cell",
            "macro-F1": None,
            "balanced accuracy": figures["all_cells"],
            "false malignant": said_malignant,
        }
    )
    result.figures |= {
        "control_shuffled_labels_macro_f1_max": float(shuffled[:, 0].max()),
        "control_shuffled_labels_balanced_accuracy_max": float(shuffled[:, 1].max()),
        "control_renamed_genes_macro_f1": f1,
        "control_renamed_genes_typed_share": typed,
        "control_renamed_genes_malignant_cells": said_malignant,
    }
    _, agrees = judge_rate(said_malignant, int(figures["n"]), 0.01, side="greater")
    result.claims += [
        Claim(
            "Control: labels shuffled",
            f"macro-F1 {shuffled[:, 0].max():.3f} (highest of 50); balanced accuracy {shuffled[:, 1].mean():.3f} "
            f"(mean of 50, highest {shuffled[:, 1].max():.3f})",
            "macro-F1 < 0.2; balanced accuracy 0.5 (t test of the 50 shuffles, p < 0.001 fails)",
            bool(shuffled[:, 0].max() < 0.2 and ttest_1samp(shuffled[:, 1], 0.5).pvalue >= 0.001),
        ),
        Claim(
            "Control: genes renamed, macro-F1 of types",
            f"{f1:.3f} ({typed:.0%} of cells still get a type)",
            "< 0.2",
            f1 < 0.2,
        ),
        Claim(
            "Control: genes renamed, cells called malignant",
            f"{said_malignant} of {figures['n']:,}",
            "<= 1 % (exact test)",
            agrees,
        ),
    ]

    names = {
        "lymphocytes": "reference of lymphocytes only (endothelium and PVL hidden)",
        "stroma": "reference of endothelium and PVL only (lymphocytes hidden)",
        "tumour": "half of the malignant cells given as the only reference",
    }
    held = []
    for how in swaps:
        swapped = done[f"swap {how}"][0]
        inside, outside = singlets(known, swapped)
        keep = inside["sample"].isin(with_tumour).to_numpy()
        if how == "tumour":  # cells that became the reference have no answer
            keep &= (outside["cell_type"] == "epithelial").to_numpy()
        f = measure.malignancy_figures(inside[keep], outside[keep])
        rows.append(
            {
                "control": names[how],
                "should show": "fewer or none found, no normal cell called" if how == "tumour" else "the same calls",
                "macro-F1": None,
                "balanced accuracy": f["all_cells"],
                "false malignant": f["n_false_malignant"],
            }
        )
        result.figures[f"reference_swap_{how}_balanced_accuracy"] = f["all_cells"]
        result.figures[f"reference_swap_{how}_false_malignant"] = f["n_false_malignant"]
        if how == "tumour":
            n = int(f["n"] - f["n_malignant"])
            result.claims.append(
                Claim(
                    "Control: tumour cells as the reference, normal epithelium called malignant",
                    f"{f['n_false_malignant']} of {n}",
                    "<= 1 % (exact test)",
                    judge_rate(int(f["n_false_malignant"]), n, 0.01, side="greater")[1],
                )
            )
        else:
            held.append((how, f["all_cells"]))
    if "others" in done:
        others = done["others"].join(base.calls()[["cell_type"]])
        inside, outside = singlets(known, others)
        keep = inside["sample"].isin(with_tumour).to_numpy()
        f = measure.malignancy_figures(inside[keep], outside[keep])
        rows.append(
            {
                "control": "own reference hidden but for an eighth: pooled reference of the other samples",
                "should show": "the same calls",
                "macro-F1": None,
                "balanced accuracy": f["all_cells"],
                "false malignant": f["n_false_malignant"],
            }
        )
        result.figures["reference_swap_other_patients_balanced_accuracy"] = f["all_cells"]
        held.append(("other patients", f["all_cells"]))
    if held:
        low = min(held, key=lambda h: h[1])
        result.claims.append(
            Claim(
                "Reference swapped (lymphocytes, stroma, other patients): malignant balanced accuracy, lowest",
                f"{low[1]:.4f} ({low[0]})",
                ">= 0.95",
                low[1] >= 0.95,
            )
        )
    result.tables.append(("Demo: controls", pd.DataFrame(rows)))
