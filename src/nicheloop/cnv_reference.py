"""What copy number is measured against: the reference ladder and the cohort's pools.  See docs/malignancy.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import io, patients
from nicheloop.errors import NotAssessable
from nicheloop.kernels import mean_of_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

    from nicheloop.cnv import Bools, Floats
    from nicheloop.config_malignancy import Malignancy

REFERENCE_TYPES = ("endothelial", "pvl", "t_nk", "b_cell")  # CAFs never: they are the negative control
# Types that stay what they are in a sample whose cells the sheet declares malignant.  Mesenchymal lines pass for CAF or
# PVL, others for unresolved; a carcinoma rarely passes for one of these.
NEVER_ASSUMED = ("t_nk", "b_cell", "plasmablast", "myeloid", "mast", "endothelial", "erythrocyte", "platelet")
NORMAL_POOL = "normal_epithelium"
UNKNOWN_CHEMISTRY = "unknown"
NOT_NULL = ("epithelial", "caf", "unresolved", "erythrocyte", "platelet")  # never stand for normal cells


@dataclass(frozen=True)
class Pool:
    """Pooled expression: (genes,) mean log1p counts per 10,000, NaN where not measured, and the cells pooled."""

    mean: Floats
    n_cells: int


@dataclass(frozen=True)
class Reference:
    """Rung of the reference ladder: pooled mean (None: the sample's own cells), and the cells that set the cuts."""

    rung: str
    mean: Floats | None
    null: Bools


def choose_reference(
    types: NDArray[np.object_], pools: dict[str, Pool], chemistry: str | None, options: Malignancy
) -> Reference:
    """First rung of the ladder that holds.

    The last rung, another chemistry, needs normal epithelium beside it: against stroma of another chemistry alone, what
    is lineage, what is chemistry and what is copy number cannot be told apart.  Both have half of the mean, whatever
    their cells; a gene that one of them lacks has none.

    Parameters
    ----------
    types
        (cells,) major type of every kept cell of the sample.
    pools
        Pools of the other patients by name, ``chemistry:<name>`` and ``normal_epithelium``, in the sample's gene order.
    chemistry
        Chemistry of the sample; None is the group ``unknown``.

    Raises
    ------
    NotAssessable
        ``insufficient_reference_cells``: no rung holds.  ``no_null_cells``: a pool would serve as reference, but the
        sample has too few normal cells of any type to set the cuts on and to count errors with.
    """
    own = np.isin(types, REFERENCE_TYPES)
    n, few = int(own.sum()), options.few_reference_cells
    if n >= options.min_reference_cells:
        return Reference("same_sample", None, own)
    if n >= few:
        return Reference("few_reference_cells", None, own)
    name = f"chemistry:{chemistry or UNKNOWN_CHEMISTRY}"
    same = pools.get(name)
    others = [p for k, p in pools.items() if k not in (name, NORMAL_POOL)]
    normal = pools.get(NORMAL_POOL)
    reason = f"{n} reference cells (endothelial, PVL, T/NK, B) in the sample, {few} needed"
    n_others, n_normal = sum(p.n_cells for p in others), normal.n_cells if normal is not None else 0
    if same is not None and same.n_cells >= options.min_reference_cells:
        rung, mean = "pooled_same_chemistry", same.mean
    elif normal is not None and n_others >= options.min_reference_cells and n_normal >= few:
        rung, mean = "reference_other_chemistry", (_pooled(others) + normal.mean) / 2
    else:
        raise NotAssessable(
            "insufficient_reference_cells",
            f"{reason}; other patients give {same.n_cells if same is not None else 0} of the same chemistry "
            f"({options.min_reference_cells} needed), or {n_others} of others with {n_normal} normal epithelial cells "
            f"({options.min_reference_cells} and {few} needed)",
        )
    null = own | ~np.isin(types, NOT_NULL)
    if int(null.sum()) < options.min_null_cells:
        raise NotAssessable(
            "no_null_cells",
            f"{reason}; a pooled reference exists ({rung}), but only {int(null.sum())} normal cells of any type in the "
            f"sample to set the cuts on, {options.min_null_cells} needed",
        )
    return Reference(rung, mean, null)


def _pooled(pools: list[Pool]) -> Floats:
    """(genes,) mean over pools weighted by cells, pools without the gene left out."""
    means = np.array([p.mean for p in pools])
    weights = np.array([p.n_cells for p in pools], dtype=np.float64)[:, None] * np.isfinite(means)
    total = weights.sum(axis=0)
    return np.asarray(
        np.divide(
            (np.nan_to_num(means) * weights).sum(axis=0), total, out=np.full(means.shape[1], np.nan), where=total > 0
        )
    )


def mean_of(x: sparse.csr_matrix, cells: Bools) -> Floats:
    """(genes,) mean over some cells."""
    return mean_of_rows(x, np.flatnonzero(cells)).astype(np.float64)


def reference_mean(x: sparse.csr_matrix, types: NDArray[np.object_], cells: Bools, min_cells: int) -> Floats:
    """(genes,) mean of the type means: no lineage outvotes the others.  Types below `min_cells` are pooled into one."""
    names = [t for t in np.unique(types[cells].astype(str)) if (cells & (types == t)).sum() >= min_cells]
    rows = [mean_of(x, cells & (types == t)) for t in names]
    rest = cells & ~np.isin(types, names)
    if rest.sum() >= min_cells or not rows:
        rows.append(mean_of(x, rest))
    return np.asarray(np.mean(rows, axis=0))


def at_depth(pooled: Floats, own: Floats) -> Floats:
    """Pooled expression as a sample of another depth would show it: the same ranks, the sample's values.

    The mean of log1p counts per 10,000 of the same RNA falls with depth, most in genes of middle expression, and arms
    differ in how many of these they hold: in a shallow sample every cell, CAFs too, would share a profile.

    Parameters
    ----------
    pooled
        (genes,) means of other samples, NaN where not measured.
    own
        (genes,) means over normal cells of the sample.

    Returns
    -------
    (genes,) non-decreasing in `pooled`; NaN where it is NaN.
    """
    both = np.isfinite(pooled) & np.isfinite(own)
    return np.interp(pooled, np.sort(pooled[both]), np.sort(own[both])) if both.any() else pooled


def read_pools(path: str | Path, symbols: NDArray[np.object_], leave_out: str | None = None) -> dict[str, Pool]:
    """Pools of ``cohort/cnv_reference.parquet`` in the gene order of a sample.

    Parameters
    ----------
    leave_out
        Patient whose cells are left out: they are what is to be judged, and a mean that holds them resembles them.
    """
    import pyarrow.parquet as pq

    names = ["pool", "patient", "gene"]
    place = {str(gene): i for i, gene in enumerate(symbols)}  # genes the sample lacks follow: they count cells too
    sums: dict[str, Floats] = {}  # (2, genes) cells, and expression summed over them
    # as codes: cells of many patients and genes would otherwise be as many strings
    with pq.ParquetFile(path, read_dictionary=names) as file:
        listed: Any = None
        for group in range(file.num_row_groups):  # one at a time: the table grows with the cohort, its sums do not
            rows = file.read_row_group(group, columns=[*names, "n_cells", "mean_lognorm"])
            pools, owners, genes = (rows[name].combine_chunks() for name in names)
            if listed is None or not genes.dictionary.equals(listed):  # most patients have the genes of the one before
                listed = genes.dictionary
                places = np.array([place.setdefault(g, len(place)) for g in listed.to_pylist()], dtype=np.int64)
            at = places[genes.indices.to_numpy()]
            others = np.array([p != leave_out for p in owners.dictionary.to_pylist()], dtype=bool)
            used, n = others[owners.indices.to_numpy()], rows["n_cells"].to_numpy().astype(np.float64)
            total = n * rows["mean_lognorm"].to_numpy()
            for k, pool in enumerate(pools.dictionary.to_pylist()):
                here = used & (pools.indices.to_numpy() == k)
                if here.any():
                    before = sums.get(pool, np.zeros((2, 0)))
                    new = [np.bincount(at[here], w[here], len(place)) for w in (n, total)]
                    sums[pool] = np.pad(before, ((0, 0), (0, len(place) - before.shape[1]))) + new
    out = {}
    for pool, (n, total) in sums.items():
        mean = np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)
        listed = np.pad(mean, (0, len(place) - len(mean)), constant_values=np.nan)[: len(symbols)]
        out[pool] = Pool(listed, int(n.max()))
    return out


def run_cnv_reference(profiles: list[Path], records: list[Path], out: str | Path) -> None:
    """Pool reference and normal epithelial expression over the samples of each patient, per chemistry.

    Parameters
    ----------
    profiles, records
        ``profiles.parquet`` and ``ingest.json`` of each sample, in the same order.
    out
        ``cohort/cnv_reference.parquet``.
    """
    import pandas as pd

    parts = []
    for profile, path in zip(profiles, records, strict=True):
        record = path if isinstance(path, dict) else io.read_json(path)
        table = io.read_table(profile, columns=["gene", "cell_type", "n_cells", "mean_lognorm"])
        assumed = record.get("malignancy") == "assumed"  # its epithelium and stroma are tumour, whatever they look like
        kinds = [t for t in REFERENCE_TYPES if not assumed or t in NEVER_ASSUMED]
        pools = [(f"chemistry:{record.get('chemistry') or UNKNOWN_CHEMISTRY}", kinds)]
        if patients.is_normal(record) and not assumed:
            pools.append((NORMAL_POOL, ["epithelial"]))
        for pool, kinds in pools:
            rows = table[table["cell_type"].isin(kinds)]
            if len(rows):
                rows = rows.assign(weighted=rows["n_cells"].astype(float) * rows["mean_lognorm"].astype(float))
                sums = rows.groupby("gene", sort=False)[["n_cells", "weighted"]].sum().reset_index()
                parts.append(sums.assign(pool=pool, patient=patients.patient_of(record), n_samples=1))
    with io.stage_output(out, "cnv_reference", stage="cnv_reference") as result:
        if not parts:
            raise NotAssessable("no_reference_cells", "no sample has reference cells or normal epithelium to pool")
        pooled = pd.concat(parts).groupby(["pool", "patient", "gene"])[["n_cells", "weighted", "n_samples"]].sum()
        pooled = pooled.reset_index()
        pooled["mean_lognorm"] = pooled["weighted"] / pooled["n_cells"]
        result.table = pooled.drop(columns="weighted")
        cells = pooled.groupby(["pool", "patient"])["n_cells"].max()
        result.summary = {str(k): int(v) for k, v in cells.groupby("pool").sum().items()}
