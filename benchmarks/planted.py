"""Axes planted in the benchmark's tumours, and how well an answer tells those that have them from those that have not.

In half of the tumours (plans with the whole loop) fibroblasts and endothelium make IL6 for IL6R of malignant cells, and
malignant cells make CCL2 for CCR2 of myeloid cells; in the others ligand, receptor or both are at background.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

AXES = {
    ("IL6", "IL6R_IL6ST", "caf", "malignant"): "IL6 of fibroblasts",
    ("IL6", "IL6R_IL6ST", "endothelial", "malignant"): "IL6 of endothelium",
    ("CCL2", "CCR2", "malignant", "myeloid"): "CCL2 of malignant cells",
}
COARSE = {"icaf": "caf", "endo_venous": "endothelial", "monocyte": "myeloid"}  # where they are planted
ALPHA = 0.05
KEY = ["ligand", "receptor", "sender", "receiver"]


def chosen(table: pd.DataFrame, value: str, *, largest: bool) -> pd.Series:
    """Largest (or smallest) `value` per sample and planted axis; what is not in the table is not in the answer."""
    keys = pd.MultiIndex.from_frame(table[KEY].astype(str))
    rows = table.assign(axis=pd.Series(AXES).reindex(keys).to_numpy()).dropna(subset=["axis", value])
    grouped = rows.groupby(["sample", "axis"], observed=True)[value]
    return grouped.max() if largest else grouped.min()


def quality(strength: pd.Series, p: pd.Series, plans: Sequence[Any]) -> dict[str, float]:
    """Area under the ROC curve of the strength (mean over axes) and balanced accuracy of p <= 0.05.

    Parameters
    ----------
    strength, p
        Per sample and axis; an axis that is not there has strength 0 and is not called.
    plans
        What the samples are made of.
    """
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    planted = pd.Series({plan.sample: plan.loop == "all" for plan in plans})
    index = pd.MultiIndex.from_product([planted.index, list(AXES.values())], names=["sample", "axis"])
    truth = planted.reindex(index.get_level_values("sample")).to_numpy()
    found = pd.DataFrame({"true": truth, "strength": strength.reindex(index, fill_value=0.0).to_numpy()}, index=index)
    areas = [roc_auc_score(part["true"], part["strength"]) for _, part in found.groupby("axis")]
    called = p.reindex(index, fill_value=1.0).to_numpy() <= ALPHA
    return {
        "axes_auc": round(sum(areas) / len(areas), 4),
        "axes_balanced_accuracy": round(float(balanced_accuracy_score(truth, called)), 4),
    }


def ours(out: Path, plans: Sequence[Any]) -> dict[str, float]:
    """Strength from the axes of `crosstalk`, calls from the screen (the method and resource of the other side).

    Also the share of axes that were answered, that is found or not detected; "too few cells" is no answer.
    """
    from nicheloop import io

    where = [("ligand", "in", ["IL6", "CCL2"])]
    axes, screens = [], []
    for plan in plans:
        folder = out / "samples" / plan.sample
        axes.append(io.read_table(folder / "crosstalk.parquet", where=where).assign(sample=plan.sample))
        screens.append(io.read_table(folder / "screen.parquet", where=where).assign(sample=plan.sample))
    table = pd.concat(axes)
    table["receptor"] = table["receptor"].astype(str).str.replace("+", "_")
    for side in ("sender", "receiver"):
        table[side] = table[side].astype(str).replace(COARSE)
    said = table["status"].astype(str)
    table["answered"] = (said == "tested") | said.str.endswith("not_detected")
    answered = chosen(table, "answered", largest=True).sum() / (len(plans) * len(AXES))
    found = quality(chosen(table, "strength", largest=True), chosen(pd.concat(screens), "p", largest=False), plans)
    return {**found, "axes_answered": round(float(answered), 4)}


def theirs(path: Path, plans: Sequence[Any]) -> dict[str, float]:
    """Strength and calls from the table of liana's `cellphonedb`."""
    names = {"ligand_complex": "ligand", "receptor_complex": "receptor", "source": "sender", "target": "receiver"}
    table = pd.read_csv(path, sep="\t", usecols=[*names, "sample", "lr_means", "cellphone_pvals"]).rename(columns=names)
    return quality(chosen(table, "lr_means", largest=True), chosen(table, "cellphone_pvals", largest=False), plans)
