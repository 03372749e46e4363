"""Section on cells: real cells, and tumours made of them.  Figures, claims, tables, plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.validation import _cells_measure as measure
from benchmarks.validation._cells_found import NO_TARGET
from benchmarks.validation.harness import Claim, Result, judge_rate

if TYPE_CHECKING:
    import pandas as pd

    from benchmarks.validation._cohort import Cohort

MADE_OF = {"normal_1": "cells", "normal_2": "nuclei"}


def normals(result: Result, cohort: Cohort, labels: pd.DataFrame, called: dict[str, Any]) -> None:
    """Types of labelled normal breast, and epithelium that must not be malignant."""
    import pandas as pd

    from nicheloop import stats

    calls = cohort.calls()
    found = calls["cell_type"].reindex(labels.index).fillna("dropped by quality control")
    per_sample = {
        s: measure.macro_f1(labels["cell_type"][here], found[here])
        for s in cohort.samples
        for here in [labels["sample"] == s]
    }
    f1 = measure.macro_f1(labels["cell_type"], found)
    right = float((found == labels["cell_type"]).mean())
    unresolved = float((found == "unresolved").mean())
    result.figures |= {
        "annotation_macro_f1_normals": f1,
        "annotation_macro_f1_normals_by_sample": per_sample,
        "annotation_accuracy_normals": right,
        "annotation_unresolved_share_normals": unresolved,
    }
    n = f"n = {len(labels)} labelled cells of 2 donors"
    result.claims.append(
        Claim("Normal breasts: macro-F1 over the types present", f"{f1:.3f} ({n}; {right:.1%} right)", NO_TARGET, None)
    )
    cross = pd.crosstab(labels["cell_type"], found).reset_index().rename(columns={"cell_type": "label"})
    cross.columns = [str(c) for c in cross.columns]
    by_type = measure.f1_by_type(labels["cell_type"], found).set_index("type")
    cross["F1"] = [float(by_type.loc[t, "F1"]) for t in cross["label"]]
    result.tables.append((f"Normal breasts: labels of others (rows) beside our types ({n})", cross))

    rows = []
    worst_upper, false, total, unassigned = 0.0, 0, 0, []
    for name, what in (("ours", "types as annotated"), ("labels", "types as labelled")):
        table = called[name]
        for sample in cohort.samples:
            epithelial = table[(table["sample"] == sample) & (table["malignancy"] != "not_epithelial")]
            k, n_cells = int((epithelial["malignancy"] == "malignant").sum()), len(epithelial)
            summary = called[f"{name}_summary"][sample]
            false, total = false + k, total + n_cells
            upper = float(stats.wilson(k, n_cells)[1])
            worst_upper = max(worst_upper, upper)
            share = float((epithelial["malignancy"] == "unassigned").mean())
            unassigned.append((share, n_cells))
            rows.append(
                {
                    "types": what,
                    "sample": sample,
                    "epithelial cells": n_cells,
                    "malignant": k,
                    "normal": int((epithelial["malignancy"] == "normal").sum()),
                    "unassigned": share,
                    "upper bound of the malignant share": upper,
                    "reference cells": int(summary.get("n_null") or 0),
                    "status": ", ".join(sorted(set(epithelial["malignancy_status"]))),
                }
            )
    result.tables.append(
        (
            "Normal breasts, called with the size rules lowered and without the sheet's word that they are normal",
            pd.DataFrame(rows),
        )
    )
    share = sum(s * k for s, k in unassigned) / sum(k for _, k in unassigned)
    result.figures |= {"malignant_cells_normals": false, "malignant_unassigned_share_normals": share}
    result.claims.append(
        Claim(
            "Normal breasts: epithelial cells called malignant",
            f"{false} of {total} calls on 40 labelled cells ({share:.0%} unassigned; upper bound per sample "
            f"{worst_upper:.0%})",
            "0",
            false == 0,
        )
    )


def oligodendroglioma(result: Result, found: dict[str, Any]) -> None:
    """The published tumour, cross-fitted."""
    import pandas as pd

    calls = found["calls"]
    malignant = calls["label"].str.startswith("malignant").to_numpy()
    said = (calls["malignancy"] == "malignant").to_numpy()
    unassigned = (calls["malignancy"] == "unassigned").to_numpy()
    halves = [measure.balanced(malignant[calls["half"] == k], said[calls["half"] == k]) for k in (1, 2)]
    score = float(np.mean(halves))
    result.figures |= {
        "oligodendroglioma_balanced_accuracy": score,
        "oligodendroglioma_balanced_accuracy_by_half": halves,
        "oligodendroglioma_false_malignant": int((said & ~malignant).sum()),
    }
    n = int((~malignant).sum())
    result.claims.append(
        Claim(
            "Oligodendroglioma (Tirosh 2016): malignant balanced accuracy, cross-fitted",
            f"{score:.4f} ({int(malignant.sum() / 2)} malignant cells, {n} normal ones held out in turn; "
            f"{' and '.join(map(str, found['n_reference']))} reference cells)",
            ">= 0.95",
            score >= 0.95,
        )
    )
    table = pd.crosstab([calls["half"], calls["label"]], calls["malignancy"]).reset_index()
    table.columns = [str(c) for c in table.columns]
    result.tables.append(
        (f"Oligodendroglioma: calls of cells that were no reference (unassigned: {int(unassigned.sum())})", table)
    )


def cell_lines(result: Result, found: dict[str, Any]) -> None:
    """Lines as a cohort of unknowns, and as the sheet declares them."""
    import pandas as pd

    unknown, assumed = found["unknown"], found["assumed"]
    epithelial = unknown[unknown["malignancy"] != "not_epithelial"]
    malignant = int((epithelial["malignancy"] == "malignant").sum())
    share = float((epithelial["malignancy_status"] == "insufficient_reference_cells").mean())
    declared = float((assumed["malignancy"] == "malignant").mean())
    n = len(found["lines"])
    result.figures |= {
        "cell_lines": n,
        "cell_lines_malignant_unknown": malignant,
        "cell_lines_insufficient_reference_share": share,
        "cell_lines_malignant_assumed_share": declared,
    }
    result.claims += [
        Claim(
            f"{n} cell lines as samples of unknown cells: called malignant",
            f"{malignant} of {len(epithelial)} epithelial "
            f"cells; {share:.1%} unassigned for insufficient_reference_cells",
            "0",
            malignant == 0,
        ),
        Claim(
            f"{n} cell lines declared malignant: cells that go on to CSC scoring",
            f"{int((assumed['malignancy'] == 'malignant').sum())} of {len(assumed)}",
            ">= 95 %",
            declared >= 0.95,
        ),
    ]
    rows = []
    for line, part in unknown.groupby("sample", sort=True):
        both = assumed[assumed["sample"] == line]
        status = part.loc[part["malignancy"] == "unassigned", "malignancy_status"].value_counts()
        types = part["cell_type"].value_counts()
        rows.append(
            {
                "line": line,
                "cells": len(part),
                "typed": ", ".join(f"{k} {v}" for k, v in types.items()),
                "as unknown": ", ".join(f"{k} {v}" for k, v in status.items()) or "no epithelial cell",
                "declared: malignant": int((both["malignancy"] == "malignant").sum()),
            }
        )
    result.tables.append(("Cell lines, each a sample", pd.DataFrame(rows)))


def semi_real(result: Result, parts: list[pd.DataFrame]) -> None:
    """Tumours made of real normal cells: depth by share of malignant cells."""
    import pandas as pd

    table = pd.concat(parts, ignore_index=True)
    null = table[table["fraction"] == 0]
    k, n = int(null["n_false_malignant"].sum()), int(null["n_normal_epithelial"].sum())
    ok = all(
        judge_rate(k_, n_, 0.01, family=len(null), side="greater")[1]
        for k_, n_ in zip(null["n_false_malignant"], null["n_normal_epithelial"], strict=True)
    )
    result.claims.append(
        Claim(
            "Real normal cells without any change: called malignant",
            f"{k} of {n} epithelial pseudo-cells",
            "<= 1 % at every depth (exact test)",
            ok,
        )
    )
    rest = table[table["fraction"] > 0]
    answered = rest[rest["status"] == "ok"]
    false, normal = int(answered["n_false_malignant"].sum()), int(answered["n_normal_epithelial"].sum())
    result.figures["semi_real"] = table.drop(columns=["all_cells"]).to_dict("records")
    result.figures["semi_real_answered"] = len(answered)
    result.figures["semi_real_balanced_accuracy_answered"] = float(answered["epithelial"].mean())
    result.claims.append(
        Claim(
            "Tumours made of real normal cells: answered, and how well",
            f"{len(answered)} of {len(rest)}; balanced accuracy over their epithelium "
            f"{answered['epithelial'].mean():.3f} (lowest {answered['epithelial'].min():.3f}); "
            f"{false} of {normal} normal cells called malignant",
            NO_TARGET,
            None,
        )
    )
    rows = []
    for key, part in table.groupby(["sample", "arms", "dosage", "wanted_depth", "fraction"], sort=True):
        sample, arms, dosage, depth, fraction = key
        ok_ = part[part["status"] == "ok"]
        rows.append(
            {
                "made of": MADE_OF.get(sample, sample),
                "arms changed": {"many": 6, "few": 2}[arms],
                "dosage": dosage,
                "median UMI": round(depth),
                "malignant share": fraction,
                "tumours": len(part),
                "answered": len(ok_),
                "balanced accuracy": float(ok_["epithelial"].mean()) if len(ok_) and fraction else None,
                "lowest": float(ok_["epithelial"].min()) if len(ok_) and fraction else None,
                "unassigned": float(ok_["unassigned"].mean()) if len(ok_) else None,
                "normal epithelial": int(part["n_normal_epithelial"].sum()),
                "of these called malignant": int(part["n_false_malignant"].sum()),
            }
        )
    shown = pd.DataFrame(rows)
    caption = (
        "Tumours made of real normal cells, 100 epithelial pseudo-cells each; accuracy over the epithelium of the "
        "answered ones"
    )
    result.tables.append((caption, shown))
    grid = shown[(shown["arms changed"] == 6) & (shown["dosage"] == 1.0) & (shown["malignant share"] > 0)]
    if grid["malignant share"].nunique() < 2:
        return
    fig, axes = measure.figure(7.4, 3.2, grid["made of"].nunique())
    for ax, (name, part) in zip(np.atleast_1d(axes), grid.groupby("made of"), strict=True):
        wide = part.pivot(index="median UMI", columns="malignant share")
        values = wide["balanced accuracy"].astype(float)
        image = ax.imshow(values.to_numpy(), vmin=0.5, vmax=1.0, cmap="viridis", origin="lower", aspect="auto")
        for i, j in np.ndindex(*values.shape):
            v, k_, n_ = float(values.iloc[i, j]), int(wide["answered"].iloc[i, j]), int(wide["tumours"].iloc[i, j])
            text = f"{v:.2f}\n{k_} of {n_}" if k_ else "not\ncalled"
            ax.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if v < 0.8 else "black")
        ax.set_xticks(range(values.shape[1]), [f"{c:.0%}" for c in values.columns])
        ax.set_yticks(range(values.shape[0]), [f"{d:,}" for d in values.index])
        ax.set_title(f"made of {name}", fontsize=10)
        ax.set_xlabel("malignant share of the epithelium")
    np.atleast_1d(axes)[0].set_ylabel("median UMI")
    fig.colorbar(image, ax=list(np.atleast_1d(axes)), label="balanced accuracy")
    text = (
        "Balanced accuracy of malignant cells in tumours made of real normal cells with six changed arms, by depth and "
        "by the malignant share of the epithelium, with the number of tumours that were answered; not called: none was."
    )
    result.plots.append(("semi_real", text, fig))
