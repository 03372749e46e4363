"""Tumour-associated macrophages on two axes, M1 and M2, and the states of Ma 2022.  See docs/tam.md."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import io, stats, tam_nulls
from nicheloop.errors import NotAssessable

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from nicheloop.config_states import Scoring, Tam

CLASSES = ("m1_like", "m2_like", "mixed", "low")
STATES = ("IFN_TAM", "Inflam_TAM", "LA_TAM", "Angio_TAM", "Reg_TAM", "Prolif_TAM", "RTM_TAM")
# Minor types of the annotation, as regular expressions; the first that matches the whole name decides.
MINOR = {
    "neutrophil": r"neutrophil.*",
    "dendritic": r"[cp]dc\d?(_.*)?|dc(_.*)?|dendritic.*",
    "macrophage": r"macrophage.*|lam\d?(_.*)?|mac(_.*)?",
    "monocyte": r"monocyte.*",
}


def myeloid_classes(
    minor: NDArray[Any], monocyte: NDArray[np.float64], macrophage: NDArray[np.float64], *, band: float
) -> NDArray[Any]:
    """Class of each myeloid cell: its minor type where one was called, else monocyte minus macrophage z.

    The z are relative to the sample's own myeloid cells: among macrophages alone a third would look like monocytes.

    Parameters
    ----------
    minor
        (cells,) minor type of the annotation.
    monocyte, macrophage
        (cells,) z of the two sets; NaN where not measurable.  Read only where there is no minor type.
    band
        Differences within +- `band` are ``transitional``.

    Returns
    -------
    (cells,) macrophage, monocyte, transitional, dendritic, neutrophil or not_assessable.
    """
    import pandas as pd

    names = pd.Series(minor, dtype=object).fillna("").astype(str).str.lower()
    named = np.full(len(names), "", dtype=object)
    for label, pattern in reversed(MINOR.items()):
        named[names.str.fullmatch(pattern).to_numpy(dtype=bool)] = label
    difference = monocyte - macrophage
    out = np.where(difference > band, "monocyte", np.where(difference < -band, "macrophage", "transitional")).astype(
        object
    )
    out = np.where(np.isnan(difference), "not_assessable", out)
    return np.asarray(np.where(named != "", named, out), dtype=object)


def axis_classes(m1: NDArray[np.float64], m2: NDArray[np.float64], cut: float) -> NDArray[Any]:
    """2 x 2 class of the two axes at a cut: m1_like, m2_like, mixed (both high) or low; (cells,)."""
    high1, high2 = m1 >= cut, m2 >= cut
    return np.where(high1 & high2, "mixed", np.where(high1, "m1_like", np.where(high2, "m2_like", "low"))).astype(
        object
    )


def dominant_state(z: NDArray[np.float64], names: list[str], *, margin: float) -> NDArray[Any]:
    """State that leads the next by at least `margin`, else ``mixed``; None if fewer than two are measurable; (cells,).

    Parameters
    ----------
    z
        (cells, states) z against matched nulls; NaN where a set is not measurable.
    names
        (states,) names.
    """
    filled = np.where(np.isnan(z), -np.inf, z)
    measurable = np.isfinite(z).sum(axis=1) >= 2
    out = np.full(len(z), None, dtype=object)
    if z.shape[1] < 2 or not measurable.any():
        return out
    order = np.argsort(-filled[measurable], axis=1, kind="stable")
    rows = np.arange(len(order))
    lead = filled[measurable][rows, order[:, 0]] - filled[measurable][rows, order[:, 1]]
    out[measurable] = np.where(lead >= margin, np.asarray(names, dtype=object)[order[:, 0]], "mixed")
    return out


def call_cells(
    cells: pd.DataFrame, *, options: Tam, foreign: NDArray[np.float64] | None = None
) -> tuple[pd.DataFrame, str, str]:
    """Class of every myeloid cell.

    Parameters
    ----------
    cells
        Myeloid cells: cell_id, cell_type_minor and the z columns of the scores (z_monocyte, z_macrophage, z_M1, z_M2,
        z_<state>, and of the covariates z_IFN, z_STRESS); a missing column means not measurable.
    foreign
        (cells,) share of RNA from another type (`mixtures.foreign_share`); None: not assessed.

    Returns
    -------
    Table of the tam contract, and the sample's status and reason: ok, ``too_few_macrophages`` or
    ``axes_not_measurable``.
    """
    import pandas as pd

    def z(name: str) -> NDArray[np.float64]:
        column = f"z_{name}"
        return np.asarray(cells[column], dtype=np.float64) if column in cells else np.full(len(cells), np.nan)

    classes = myeloid_classes(
        cells["cell_type_minor"].to_numpy(), z("monocyte"), z("macrophage"), band=options.monocyte_band
    )
    share = np.full(len(cells), np.nan) if foreign is None else np.asarray(foreign, dtype=np.float64)
    other = share >= options.foreign_share
    macrophage, transitional = (classes == "macrophage") & ~other, (classes == "transitional") & ~other
    m1, m2, n = z("M1"), z("M2"), int(macrophage.sum())
    measurable = np.isfinite(m1) & np.isfinite(m2)
    left_out = int(((classes == "macrophage") & other).sum())
    said = f" ({left_out} more hold RNA of another type)" if left_out else ""
    status, reason = "ok", f"{n} macrophages{said}"
    if n < options.min_macrophages:
        status, reason = "too_few_macrophages", f"{n} macrophages, {options.min_macrophages} needed{said}"
    elif not measurable[macrophage].any():
        status, reason = "axes_not_measurable", "too few genes of the M1 or M2 set in the matrix"
    ok = status == "ok"

    tam_class = np.full(len(cells), "not_macrophage", dtype=object)
    tam_status = np.full(len(cells), "not_macrophage", dtype=object)
    tam_class[classes == "not_assessable"] = "not_assessable"
    tam_status[classes == "not_assessable"] = "class_not_measurable"
    tam_class[transitional], tam_status[transitional] = "transitional", status
    called = macrophage & measurable
    tam_class[macrophage] = "not_assessable"
    tam_status[macrophage] = status if not ok else "axes_not_measurable"
    adjusted_class = tam_class.copy()
    state = np.full(len(cells), None, dtype=object)
    adjusted = np.full((len(cells), 2), np.nan)
    covariates = [z(c) for c in tam_nulls.COVARIATES if np.isfinite(z(c)).any()]
    if ok:
        tam_class[called] = axis_classes(m1, m2, options.class_z)[called]
        tam_status[called] = "ok"
        if covariates:
            axes = np.column_stack([m1, m2])[called]
            adjusted[called] = stats.residualise(axes, np.column_stack(covariates)[called])
            known = np.isfinite(adjusted).all(axis=1)
            adjusted_class[known] = axis_classes(adjusted[:, 0], adjusted[:, 1], options.class_z)[known]
        scored = np.column_stack([z(s) for s in STATES])
        state[called] = dominant_state(scored, list(STATES), margin=options.state_margin)[called]
    mixed = other & np.isin(classes, ["macrophage", "transitional"])
    for column, value in (
        (tam_class, "not_assessable"),
        (adjusted_class, "not_assessable"),
        (tam_status, "foreign_rna"),
    ):
        column[mixed] = value
    shown = (macrophage | transitional) & ok
    table = pd.DataFrame({
        "cell_id": cells["cell_id"].to_numpy(), "myeloid_class": classes, "foreign_share": share,
        "m1_z": np.where(shown, m1, np.nan), "m2_z": np.where(shown, m2, np.nan), "tam_class": tam_class,
        "tam_status": tam_status, "tam_state": state, "m1_z_adjusted": adjusted[:, 0], "m2_z_adjusted": adjusted[:, 1],
        "tam_class_adjusted": adjusted_class,
    })  # fmt: skip
    return table, status, reason


def _foreign(source: io.Counts, cells: pd.DataFrame, profiles: str | Path, options: Tam) -> NDArray[np.float64] | None:
    """(cells,) share of RNA from other types; None where the matrix holds no counts."""
    from nicheloop import genes, mixtures

    if not source.record["is_counts"]:
        return None
    sets, x = genes.signatures(), source.matrix(cells=cells["cell_id"])
    asked = {g for n in ("M1", "M2", "monocyte", "macrophage", *tam_nulls.COVARIATES, *STATES) for g in sets[n].genes}
    own = np.asarray(x.sum(axis=0), dtype=np.float64).ravel()
    return mixtures.foreign_share(
        x, list(source.genes), own / max(own.sum(), 1.0), io.read_table(profiles, mixtures.PROFILE), spared=asked,
        leave_out=("myeloid", "unresolved", "platelet"), min_cells=options.min_macrophages,
        fold=options.foreign_fold, alpha=options.foreign_alpha,
    )  # fmt: skip


def _draws(
    source: io.Counts, cells: pd.DataFrame, called: NDArray[np.bool_], options: Tam, scoring: Scoring, seed: int
) -> pd.DataFrame:
    """Rows of the tam_draws contract."""
    import pandas as pd

    from nicheloop import genes

    order = np.argsort(cells["cell_id"].to_numpy(dtype=object).astype(str), kind="stable")
    cells, called = cells.iloc[order], called[order]
    x = source.matrix(cells=cells["cell_id"])
    logged = io.lognormalise(x) if source.record["is_counts"] else x
    found = tam_nulls.rho_draws(
        logged, list(source.genes), called, cells, {n: genes.signatures()[n].genes for n in ("M1", "M2")},
        n_sets=options.n_null_sets, n_bins=scoring.n_bins, min_genes=scoring.min_genes, seed=seed,
    )  # fmt: skip
    parts = [
        pd.DataFrame({"adjustment": name, "draw": np.arange(len(null) + 1) - 1, "value": [rho, *null]})
        for name, (rho, null) in found.items()
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"adjustment": [], "draw": [], "value": []})


def run_tam(
    counts: str | Path,
    cell_types: str | Path,
    scores: str | Path,
    profiles: str | Path,
    out: str | Path,
    out_draws: str | Path,
    *,
    options: Tam,
    scoring: Scoring,
    seed: int,
) -> None:
    """Class the myeloid cells of one sample, one row each (contracts ``tam``, ``tam_draws``); the ``tam`` stage.

    Normalised values suffice; without counts the share of foreign RNA is not assessed.
    """
    source = io.Counts(counts)
    also: dict[str, str | Path] = {"tam_draws": out_draws}
    with io.stage_output(out, "tam", stage="tam", sample=source.sample, also=also) as result:
        source.require(counts=False)
        types = io.read_cells(cell_types, source.sample, ["cell_type", "cell_type_minor"])
        table, upstream = io.read_table(scores), io.read_status(scores)
        if types.empty or table.empty:
            reason = upstream.reason or "no cell passed quality control"
            raise NotAssessable("no_cells" if upstream.ok else upstream.status, reason)
        types = types[types["cell_type"] == "myeloid"]
        cells = types[["cell_type_minor"]].join(table.set_index("cell_id"), how="left")
        cells = cells.rename_axis("cell_id").reset_index()
        foreign = _foreign(source, cells, profiles, options) if len(cells) else None
        result.table, status, reason = call_cells(cells, options=options, foreign=foreign)
        result.summary = {str(k): int(v) for k, v in result.table["myeloid_class"].value_counts().sort_index().items()}
        result.summary["n_foreign_rna"] = int((result.table["tam_status"] == "foreign_rna").sum())
        if status != "ok":
            raise NotAssessable(status, reason)
        called = np.isin(result.table["tam_class"].to_numpy(dtype=object), CLASSES)
        own = int(np.random.SeedSequence([seed, zlib.crc32(source.sample.encode())]).generate_state(1)[0])
        result.extra["tam_draws"] = _draws(source, cells, called, options, scoring, own)
