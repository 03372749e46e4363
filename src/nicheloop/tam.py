"""Tumour-associated macrophages on two axes, M1 and M2, and the states of Ma 2022.  See docs/tam.md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import io, patients
from nicheloop.errors import NotAssessable

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from nicheloop.config import Tam

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


def partial_spearman(x: NDArray[np.float64], y: NDArray[np.float64], depth: NDArray[np.float64]) -> float:
    """Spearman correlation of `x` and `y` after taking the linear effect of log depth out of both; NaN if undefined."""
    import pandas as pd

    known = np.isfinite(x) & np.isfinite(y) & (depth > 0)
    if known.sum() < 4:
        return float("nan")
    design = np.log(depth[known])
    design = design - design.mean()
    spread = float((design**2).sum())

    def residual(values: NDArray[np.float64]) -> pd.Series:
        values = values - values.mean()
        slope = float((values * design).sum()) / spread if spread > 1e-12 else 0.0
        return pd.Series(values - slope * design).round(12).rank()

    a, b = residual(x[known]), residual(y[known])
    if a.nunique() < 2 or b.nunique() < 2:
        return float("nan")
    return float(np.clip(np.corrcoef(a, b)[0, 1], -1.0, 1.0))


def call_cells(cells: pd.DataFrame, *, options: Tam) -> tuple[pd.DataFrame, str, str]:
    """Class of every myeloid cell.

    Parameters
    ----------
    cells
        Myeloid cells: cell_id, cell_type_minor and the z columns of the scores (z_monocyte, z_macrophage, z_M1, z_M2,
        z_<state>); a missing column means not measurable.

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
    macrophage, transitional = classes == "macrophage", classes == "transitional"
    m1, m2, n = z("M1"), z("M2"), int(macrophage.sum())
    measurable = np.isfinite(m1) & np.isfinite(m2)
    status, reason = "ok", f"{n} macrophages"
    if n < options.min_macrophages:
        status, reason = "too_few_macrophages", f"{n} macrophages, {options.min_macrophages} needed"
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
    state = np.full(len(cells), None, dtype=object)
    if ok:
        tam_class[called] = axis_classes(m1, m2, options.class_z)[called]
        tam_status[called] = "ok"
        scored = np.column_stack([z(s) for s in STATES])
        state[called] = dominant_state(scored, list(STATES), margin=options.state_margin)[called]
    shown = (macrophage | transitional) & ok
    table = pd.DataFrame({
        "cell_id": cells["cell_id"].to_numpy(), "myeloid_class": classes, "m1_z": np.where(shown, m1, np.nan),
        "m2_z": np.where(shown, m2, np.nan), "tam_class": tam_class, "tam_status": tam_status, "tam_state": state,
    })  # fmt: skip
    return table, status, reason


def summarise(table: pd.DataFrame, cells: pd.DataFrame, *, options: Tam) -> dict[str, Any]:
    """Figures of one sample for the patient table.

    Medians of z and fractions describe a sample within itself; `m1_level` and `m2_level` share a scale over samples.

    Parameters
    ----------
    table
        Table of the tam contract.
    cells
        Scores by cell id: n_counts (UMI), and level_M1 and level_M2 where measurable.
    """
    macrophages = table[table["tam_class"].isin(["m1_like", "m2_like", "mixed", "low"])]
    out: dict[str, Any] = {
        "n_myeloid": len(table), "n_macrophage": int((table["myeloid_class"] == "macrophage").sum()),
        "n_monocyte": int((table["myeloid_class"] == "monocyte").sum()),
    }  # fmt: skip
    m1, m2 = (macrophages[c].to_numpy(dtype=np.float64) for c in ("m1_z", "m2_z"))
    nan, any_cell = float("nan"), len(macrophages) > 0
    out["m1_median"], out["m2_median"] = (float(np.median(v)) if any_cell else nan for v in (m1, m2))
    classes = macrophages["tam_class"].to_numpy(dtype=object)
    for name in ("m1_like", "m2_like", "mixed", "low"):
        out[f"fraction_{name}"] = float(np.mean(classes == name)) if any_cell else nan
    cells = cells.reindex(macrophages["cell_id"])
    depth = cells["n_counts"].to_numpy(dtype=np.float64)
    for name in ("M1", "M2"):
        level = cells[f"level_{name}"].dropna() if f"level_{name}" in cells else macrophages["m1_z"].iloc[:0]
        out[f"{name.lower()}_level"] = float(level.median()) if len(level) else nan
    out["m1_m2_rho"] = partial_spearman(m1, m2, depth)
    for cut in options.sensitivity_z:
        other = axis_classes(m1, m2, cut)
        for name in ("m1_like", "m2_like"):
            out[f"fraction_{name}_z{cut:g}"] = float(np.mean(other == name)) if any_cell else nan
    return out


def _read_scores(path: str | Path) -> pd.DataFrame:
    import pyarrow.parquet as pq

    names = set(pq.read_schema(path).names)
    wanted = ["cell_id", "n_counts", *(c for c in ("level_M1", "level_M2") if c in names)]
    return io.read_table(path, columns=wanted).set_index("cell_id").astype(float)


def run_tam(cell_types: str | Path, scores: str | Path, record: str | Path, out: str | Path, *, options: Tam) -> None:
    """Class the myeloid cells of one sample, one row each; the ``tam`` stage.  Normalised values suffice."""
    known = io.read_json(record)
    sample = str(known["sample"])
    with io.stage_output(out, "tam", stage="tam", sample=sample) as result:
        if known["status"] != "ok":
            raise NotAssessable(known["status"], known["reason"])
        types = io.read_cells(cell_types, sample, ["cell_type", "cell_type_minor"])
        table, upstream = io.read_table(scores), io.read_status(scores)
        if types.empty or table.empty:
            reason = upstream.reason or "no cell passed quality control"
            raise NotAssessable("no_cells" if upstream.ok else upstream.status, reason)
        types = types[types["cell_type"] == "myeloid"]
        cells = types[["cell_type_minor"]].join(table.set_index("cell_id"), how="left")
        cells = cells.rename_axis("cell_id").reset_index()
        result.table, status, reason = call_cells(cells, options=options)
        result.summary = {str(k): int(v) for k, v in result.table["myeloid_class"].value_counts().sort_index().items()}
        if status != "ok":
            raise NotAssessable(status, reason)


def run_tam_patients(
    tam: list[Path], scores: list[Path], records: list[Path], out: str | Path, *, options: Tam
) -> None:
    """Macrophages per sample, and the sample that speaks for each patient; the ``tam-patients`` stage."""
    import pandas as pd

    with io.stage_output(out, "tam_patients", stage="tam-patients") as result:
        known = [io.read_json(r) for r in records]
        rows = []
        for tam_path, scores_path, record in zip(tam, scores, known, strict=True):
            status = io.read_status(tam_path)
            cells = _read_scores(scores_path)
            rows.append({
                "patient": patients.patient_of(record), "sample": str(record["sample"]),
                "subtype": record.get("subtype"), "status": status.status, "reason": status.reason,
                **summarise(io.read_table(tam_path), cells, options=options),
            })  # fmt: skip
            rows[-1]["reason"] = rows[-1]["reason"] or f"{rows[-1]['n_macrophage']} macrophages"
            if record["status"] == "ok" and patients.is_normal(record):
                reason = f"normal tissue, not a tumour; {rows[-1]['n_macrophage']} macrophages"
                rows[-1] |= {k: float("nan") for k in rows[-1] if k.startswith(("m1_", "m2_", "fraction_"))}
                rows[-1] |= {"status": "normal_tissue", "reason": reason}
        assessable = {r["sample"]: r["n_macrophage"] if r["status"] == "ok" else 0 for r in rows}
        tumours = [r for r in known if not patients.is_normal(r)]
        primary = set(patients.primary_samples(tumours, patients.assessable_cells(scores)).values())
        if rows:
            result.table = pd.DataFrame(rows).assign(primary_sample=[r["sample"] in primary for r in rows])
        result.summary = {"n_samples": len(rows), "n_assessable": sum(n > 0 for n in assessable.values())}
