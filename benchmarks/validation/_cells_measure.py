"""Figures of the section on cells: agreement with labels, and the field's usual annotation beside ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from benchmarks.validation._cohort import Cohort

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#7F7F7F"


def macro_f1(truth: Any, found: Any) -> float:
    """Mean F1 over the types of the truth; unresolved cells count as wrong."""
    from sklearn.metrics import f1_score

    expected = np.asarray(truth, dtype=str)
    return float(
        f1_score(expected, np.asarray(found, dtype=str), labels=np.unique(expected), average="macro", zero_division=0)
    )


def f1_by_type(truth: Any, found: Any) -> pd.DataFrame:
    """Recall, precision and F1 of each type, with its n."""
    import pandas as pd
    from sklearn.metrics import precision_recall_fscore_support

    expected, called = np.asarray(truth, dtype=str), np.asarray(found, dtype=str)
    labels = np.unique(expected)
    precision, recall, f1, n = precision_recall_fscore_support(expected, called, labels=labels, zero_division=0)
    return pd.DataFrame({"type": labels, "n": n, "recall": recall, "precision": precision, "F1": f1})


def balanced(truth: Any, found: Any) -> float:
    """Mean of sensitivity and specificity; NaN where the truth holds one class."""
    expected, called = np.asarray(truth, dtype=bool), np.asarray(found, dtype=bool)
    if expected.all() or not expected.any():
        return float("nan")
    return float((called[expected].mean() + (~called[~expected]).mean()) / 2)


def malignancy_figures(truth: pd.DataFrame, calls: pd.DataFrame) -> dict[str, float | int]:
    """How the three-way call agrees with the truth.

    Parameters
    ----------
    truth, calls
        Rows of the same kept singlets: ``malignant`` and ``cell_type``; ``malignancy``.

    Returns
    -------
    ``all_cells``: malignant against everything else, unassigned counted as not malignant; ``epithelial``: the same over
    cells that are epithelial in truth; ``strict``: over these, unassigned or typed otherwise counted as wrong on either
    side; ``unassigned``: their share without an answer; and the n.
    """
    malignant = truth["malignant"].astype(str).str.lower().eq("true").to_numpy()
    call = calls["malignancy"].astype(str).to_numpy()
    epithelial = truth["cell_type"].to_numpy() == "epithelial"
    inner, said = malignant[epithelial], call[epithelial]
    right = np.where(inner, said == "malignant", said == "normal")
    strict = float((right[inner].mean() + right[~inner].mean()) / 2) if inner.any() and (~inner).any() else float("nan")
    return {
        "all_cells": balanced(malignant, call == "malignant"),
        "epithelial": balanced(inner, said == "malignant"),
        "strict": strict,
        "unassigned": float((said == "unassigned").mean()) if len(said) else float("nan"),
        "n": len(call),
        "n_malignant": int(malignant.sum()),
        "n_normal_epithelial": int((epithelial & ~malignant).sum()),
        "n_false_malignant": int(((call == "malignant") & ~malignant).sum()),
    }


def field_scores(cohort: Cohort) -> pd.DataFrame:
    """``scanpy.tl.score_genes`` of every major marker set over all kept cells, as tutorials do; index: cell id."""
    import anndata as ad
    import pandas as pd
    import scanpy as sc

    from nicheloop import genes, io

    parts = []
    for sample in cohort.samples:
        data = io.Counts(cohort.path("counts", sample))
        cells = io.kept_cells(cohort.path("qc", sample))
        parts.append(
            ad.AnnData(data.matrix(cells=cells), obs=pd.DataFrame(index=cells), var=pd.DataFrame(index=data.genes))
        )
    joined = ad.concat(parts, join="inner")
    sc.pp.normalize_total(joined, target_sum=1e4)
    sc.pp.log1p(joined)
    for name, markers in genes.markers("major").items():
        found = genes.find(list(markers.positive), joined.var_names).present
        if len(found) >= 2:
            sc.tl.score_genes(joined, found, score_name=name, random_state=cohort.seed)
    return joined.obs


def field_types(scores: pd.DataFrame, clusters: pd.Series | None) -> pd.Series:
    """Highest score per cell; with clusters, the majority of these within each cluster."""
    best = scores.idxmax(axis=1)
    if clusters is None:
        return best
    code = clusters.reindex(scores.index).astype(str)
    winner = best.groupby(code).agg(lambda v: v.value_counts().sort_index().idxmax())
    return code.map(winner)


def figure(width: float = 6.4, height: float = 3.6, columns: int = 1) -> tuple[Figure, Any]:
    """Figure and its axes, without the top and right spines."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    axes = fig.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return fig, axes[0] if columns == 1 else axes
