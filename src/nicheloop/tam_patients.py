"""Macrophages per patient and over patients: classes, correlation of the axes, markers.  See docs/tam.md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import io, patients, stats, tam_nulls
from nicheloop.state_readouts import two_sided
from nicheloop.tam import CLASSES, axis_classes

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_states import Tam

MARKERS = ("CD163", "MRC1", "CD86", "SIGLEC1", "CCL8")
NUMBERS = (
    "m1_m2_rho", "rho_null_low", "rho_null_median", "rho_null_high", "p_rho", "m1_m2_rho_adjusted",
    "rho_adjusted_null_median", "p_rho_adjusted",
)  # fmt: skip


def summarise(table: pd.DataFrame, cells: pd.DataFrame, *, options: Tam) -> dict[str, Any]:
    """Figures of one sample for the patient table.

    Medians of z and fractions describe a sample within itself; `m1_level` and `m2_level` share a scale over samples.

    Parameters
    ----------
    table
        Table of the tam contract.
    cells
        Scores by cell id: level_M1 and level_M2 where measurable.
    """
    macrophages, clean = table[table["tam_class"].isin(CLASSES)], table["tam_status"] != "foreign_rna"
    out: dict[str, Any] = {
        "n_myeloid": len(table), "n_macrophage": int((clean & (table["myeloid_class"] == "macrophage")).sum()),
        "n_monocyte": int((table["myeloid_class"] == "monocyte").sum()),
        "n_foreign": int((~clean).sum()),
    }  # fmt: skip
    m1, m2 = (macrophages[c].to_numpy(dtype=np.float64) for c in ("m1_z", "m2_z"))
    nan, any_cell = float("nan"), len(macrophages) > 0
    out["m1_median"], out["m2_median"] = (float(np.median(v)) if any_cell else nan for v in (m1, m2))

    def shares(classes: Any, suffix: str) -> None:
        known = np.isin(np.asarray(classes, dtype=object), CLASSES)
        for name in CLASSES:
            out[f"fraction_{name}{suffix}"] = float(np.mean(np.asarray(classes)[known] == name)) if known.any() else nan

    shares(macrophages["tam_class"].to_numpy(dtype=object), "")
    shares(macrophages["tam_class_adjusted"].to_numpy(dtype=object), "_adjusted")
    for cut in options.sensitivity_z:
        shares(axis_classes(m1, m2, cut), f"_z{cut:g}")
    cells = cells.reindex(macrophages["cell_id"])
    for name in ("M1", "M2"):
        level = cells[f"level_{name}"].dropna() if f"level_{name}" in cells else macrophages["m1_z"].iloc[:0]
        out[f"{name.lower()}_level"] = float(level.median()) if len(level) else nan
    return out


def correlation(draws: pd.DataFrame, confidence: float) -> dict[str, float]:
    """Correlation of the axes in a sample, among those of matched sets; NaN where it was not computed."""
    out = dict.fromkeys(NUMBERS, float("nan"))
    for adjustment, suffix in (("depth", ""), ("adjusted", "_adjusted")):
        part = draws[draws["adjustment"] == adjustment]
        null = part.loc[part["draw"] >= 0, "value"].to_numpy(dtype=np.float64)
        if not len(null):
            continue
        observed = float(part.loc[part["draw"] < 0, "value"].iloc[0])
        low, median, high = np.quantile(null, [(1 - confidence) / 2, 0.5, (1 + confidence) / 2])
        out |= {f"m1_m2_rho{suffix}": observed, f"p_rho{suffix}": two_sided(observed, null)}
        out[f"rho{suffix}_null_median"] = float(median)
        if not suffix:
            out |= {"rho_null_low": float(low), "rho_null_high": float(high)}
    return out


def fisher(rho: Any) -> Any:
    """Fisher's z of a correlation, kept finite at +-1."""
    return np.arctanh(np.clip(rho, -0.999999, 0.999999))


def pool(draws: dict[str, pd.DataFrame], n_patients: int, confidence: float) -> pd.DataFrame:
    """Rows of the ``tam_cohort`` contract: the correlation over donors, and its excess over matched sets.

    Parameters
    ----------
    draws
        Sample -> ``tam_draws`` of one primary tumour per patient, with the number of macrophages as attrs["n"].

    Notes
    -----
    Fisher's z, random effects.  rho: standard error 1.03 / sqrt(n - 3) (Fieller 1957, doi 10.1093/biomet/44.3-4.470).
    Excess: z less the mean z of the matched sets, standard error their standard deviation, which also holds how far
    any two sets of like genes go together.
    """
    import pandas as pd

    rows = []
    for adjustment in tam_nulls.ADJUSTMENTS:
        z, se, excess, spread = [], [], [], []
        for table in draws.values():
            part = table[table["adjustment"] == adjustment]
            null = fisher(part.loc[part["draw"] >= 0, "value"].to_numpy(dtype=np.float64))
            n = int(table.attrs["n"])
            if len(null) > 1 and n > 3:
                own = float(fisher(part.loc[part["draw"] < 0, "value"].iloc[0]))
                z.append(own)
                se.append(1.03 / np.sqrt(n - 3))
                excess.append(own - float(null.mean()))
                spread.append(float(null.std(ddof=1)))
        raw, beyond = stats.random_effects(z, se, confidence), stats.random_effects(excess, spread, confidence)
        rows.append({
            "adjustment": adjustment, "status": "ok" if raw.n > 1 else "too_few_patients", "n_patients": n_patients,
            "n_assessable": raw.n, "rho": np.tanh(raw.effect), "rho_low": np.tanh(raw.low),
            "rho_high": np.tanh(raw.high),
            "excess": beyond.effect, "excess_low": beyond.low, "excess_high": beyond.high, "i2": beyond.i2,
        })  # fmt: skip
    return pd.DataFrame(rows)


def marker_rows(macrophages: pd.Index, cells: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of the ``tam_markers`` contract of one sample, without its name: single genes, shown and not summed."""
    here, rows = cells.reindex(macrophages), []
    for gene in MARKERS:
        column = f"umi_{gene}"
        known = column in here and np.isfinite(here[column].to_numpy(dtype=float)).any()
        row: dict[str, Any] = {
            "gene": gene,
            "n_macrophage": len(here),
            "rate": np.nan,
            "fraction": np.nan,
            "upper": np.nan,
        }
        if not len(here):
            row["status"] = "too_few_macrophages"
        elif not known:
            row["status"] = "gene_absent"
        else:
            positive = int((here[column] > 0).sum())
            row |= {
                "status": "ok", "rate": float(here[column].sum() / here["n_counts"].sum() * 1e4),
                "fraction": positive / len(here), "upper": stats.upper_bound(positive, len(here)),
            }  # fmt: skip
        rows.append(row)
    return rows


def _read_scores(path: str | Path) -> pd.DataFrame:
    import pyarrow.parquet as pq

    names = set(pq.read_schema(path).names)
    wanted = ["n_counts", "level_M1", "level_M2", *(f"umi_{g}" for g in MARKERS)]
    return (
        io.read_table(path, columns=["cell_id", *(c for c in wanted if c in names)]).set_index("cell_id").astype(float)
    )


def run_tam_patients(
    tam: list[Path],
    draws: list[Path],
    scores: list[Path],
    records: list[Path],
    out: str | Path,
    out_markers: str | Path,
    out_cohort: str | Path,
    *,
    options: Tam,
    receptors: str | Path | None = None,
) -> None:
    """Macrophages per sample, the sample that speaks for each patient, and the axes over patients."""
    import pandas as pd

    also: dict[str, str | Path] = {"tam_markers": out_markers, "tam_cohort": out_cohort}
    with io.stage_output(out, "tam_patients", stage="tam-patients", also=also) as result:
        known = patients.with_subtypes([io.read_json(r) for r in records], receptors)
        tumours = [r for r in known if not patients.is_normal(r)]
        primary = set(patients.primary_samples(tumours, patients.assessable_cells(scores)).values())
        rows, markers, nulls = [], [], {}
        for tam_path, draws_path, scores_path, record in zip(tam, draws, scores, known, strict=True):
            status, sample = io.read_status(tam_path), str(record["sample"])
            table, cells, drawn = io.read_table(tam_path), _read_scores(scores_path), io.read_table(draws_path)
            row: dict[str, Any] = {
                "patient": patients.patient_of(record), "sample": sample, "primary_sample": sample in primary,
                "subtype": record.get("subtype"), "subtype_source": record["subtype_source"],
                "status": status.status, "reason": status.reason,
                **summarise(table, cells, options=options), **correlation(drawn, options.confidence),
            }  # fmt: skip
            row["reason"] = row["reason"] or f"{row['n_macrophage']} macrophages"
            called = pd.Index(table.loc[table["tam_class"].isin(CLASSES), "cell_id"])
            if record["status"] == "ok" and patients.is_normal(record):
                reason = f"normal tissue, not a tumour; {row['n_macrophage']} macrophages"
                row |= {k: float("nan") for k in row if k.startswith(("m1_", "m2_", "fraction_", "rho_", "p_rho"))}
                row |= {"status": "normal_tissue", "reason": reason}
            elif sample in primary and row["status"] == "ok":
                drawn.attrs["n"] = len(called)
                nulls[sample] = drawn
            rows.append(row)
            if record["status"] == "ok":
                markers += [{"sample": sample, **m} for m in marker_rows(called, cells)]
        if rows:
            result.table = pd.DataFrame(rows)
            result.extra["tam_cohort"] = pool(nulls, len(primary), options.confidence)
        if markers:
            result.extra["tam_markers"] = pd.DataFrame(markers)
        result.summary = {"n_samples": len(rows), "n_assessable": sum(r["status"] == "ok" for r in rows)}
