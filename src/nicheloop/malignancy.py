"""Malignant, normal or unassigned epithelium from inferred copy number.  See docs/malignancy.md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import cnv, genes, io, neighbors, patients
from nicheloop.cnv_call import Calls, assess
from nicheloop.cnv_reference import (
    NEVER_ASSUMED,
    NORMAL_POOL,
    REFERENCE_TYPES,
    Pool,
    Reference,
    choose_reference,
    read_pools,
    run_cnv_reference,
)
from nicheloop.errors import NotAssessable

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy import sparse

    from nicheloop.config_malignancy import Malignancy

REFUSED = ("not_callable", "weak_evidence", "caf_control_failed")  # cells carry the name already
LARGEST_LOG = 50.0  # log1p or log2 expression never reaches it; TPM always does


__all__ = ["Pool", "Reference", "assess", "choose_reference", "run_cnv_reference", "run_malignancy"]


def mean_profiles(calls: Calls, types: NDArray[np.object_]) -> pd.DataFrame:
    """Rows of the cnv contract: mean profile of each clone, normal and unassigned epithelium, CAFs and reference."""
    import pandas as pd

    if calls.profiles is None or calls.layout is None or calls.reference is None:
        raise ValueError("no profiles were computed")
    groups = {f"clone_{k}": calls.clone == k for k in range(1, int(calls.clone.max(initial=0)) + 1)}
    groups["normal_epithelium"] = calls.call == "normal"
    groups["unassigned_epithelium"] = calls.call == "unassigned"
    groups["caf"], groups["reference"] = types == "caf", calls.reference
    where = calls.layout
    parts = [
        pd.DataFrame(
            {
                "group": name,
                "n_cells": int(cells.sum()),
                "chromosome": where.chromosome,
                "start": where.start,
                "end": where.end,
                "arm": where.arm,
                "value": calls.profiles[cells].mean(axis=0, dtype=np.float64),
            }
        )
        for name, cells in groups.items()
        if cells.any()
    ]
    return pd.concat(parts, ignore_index=True)


def log_values(x: sparse.csr_matrix, is_counts: bool) -> tuple[sparse.csr_matrix, str]:
    """Log-normalised expression and what it was made from: counts, linear values (such as TPM) or log values as given.

    Raises
    ------
    NotAssessable
        ``negative_values``: scaled expression has lost its level.
    """
    if is_counts:
        return io.lognormalise(x), "counts"
    if x.nnz and float(x.data.min()) < 0:
        raise NotAssessable("negative_values", "the matrix holds negative (scaled) values: expression levels are lost")
    if x.nnz and float(x.data.max()) > LARGEST_LOG:
        return io.lognormalise(x), "linear"
    return x, "log"


def gene_positions(symbols: NDArray[np.object_]) -> pd.DataFrame:
    """(genes,) positions in the order given; the chromosome is empty for masked genes and those not on an autosome."""
    table = genes.table().reindex(symbols)[["chromosome", "start", "end", "band", "arm"]]
    placed = table["chromosome"].isin(cnv.AUTOSOMES) & table["arm"].notna()
    drop = genes.cnv_masked(symbols) | ~placed.to_numpy()
    return table.assign(chromosome=np.where(drop, "", table["chromosome"].astype(object)))


def genomic_order(positions: pd.DataFrame) -> NDArray[np.intp]:
    """(genes,) positions of the genes by chromosome, start and symbol; those without a place come first."""
    rank = positions["chromosome"].map({name: i for i, name in enumerate(cnv.AUTOSOMES)}).fillna(-1).to_numpy()
    return np.lexsort((positions.index.to_numpy(dtype=object).astype(str), positions["start"].to_numpy(float), rank))


def _refusal(summary: dict[str, Any], options: Malignancy) -> NotAssessable:
    """Why profiles were made but no cell was called."""
    if summary["caf_control_failed"]:
        return NotAssessable(
            "caf_control_failed",
            f"{summary['caf_malignant_share']:.0%} of {summary['n_caf']} CAFs, the negative control, look malignant: "
            "the reference cells are suspect (tumour cells among them, or a wrong annotation), or tumour cells pass "
            "for CAFs",
        )
    if summary["weak_evidence"]:
        return NotAssessable(
            "weak_evidence",
            f"epithelium follows chromosome arms (coherence {summary['strongest_coherence']:.2f}), but no more than "
            f"real normal epithelium sometimes does ({options.sure_coherence:g} needed)",
        )
    return NotAssessable(
        "not_callable", "no epithelial group follows chromosome arms more than normal cell types do: normal or diploid"
    )


def _table(cell_ids: NDArray[np.object_], calls: Calls) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {
            "cell_id": cell_ids,
            "malignancy": calls.call,
            "malignancy_status": calls.status,
            "cna_value": calls.value,
            "cna_correlation": calls.correlation,
            "clone": pd.array(np.where(calls.clone > 0, calls.clone, -1), dtype="Int64"),
        }
    ).assign(clone=lambda t: t["clone"].where(t["clone"] > 0))


def run_malignancy(
    counts: str | Path,
    cell_types: str | Path,
    reference: str | Path,
    out: str | Path,
    out_cnv: str | Path,
    *,
    options: Malignancy,
    seed: int,
) -> None:
    """Call the epithelial cells of one sample; every kept cell gets a row.

    Parameters
    ----------
    counts, cell_types, reference
        ``counts.h5ad``, ``cohort/cell_types.parquet``, ``cohort/cnv_reference.parquet``.
    out, out_cnv
        ``malignancy.parquet`` and ``cnv.parquet``.
    """
    data = io.Counts(counts)
    with io.stage_output(out, "malignancy", stage="malignancy", sample=data.sample, also={"cnv": out_cnv}) as result:
        data.require(counts=False)
        typed = io.read_cells(cell_types, data.sample, ["cell_type"])
        if typed.empty:
            raise NotAssessable("no_cells", "no cell of the sample passed quality control")
        cell_ids = typed.index.to_numpy(dtype=object)
        assumed = data.record["malignancy"] == "assumed"
        types = typed["cell_type"].to_numpy(dtype=object, copy=True)
        overridden = assumed & ~np.isin(types, ("epithelial", *NEVER_ASSUMED))
        types[overridden] = "epithelial"
        epithelial = types == "epithelial"
        n, n_epithelial = len(types), int(epithelial.sum())
        nothing = np.full(n, np.nan)
        call = np.where(epithelial, "unassigned", "not_epithelial").astype(object)
        calls = Calls(call, call.copy(), nothing, nothing.copy(), np.zeros(n, dtype=np.int64))
        own = {t: int((types == t).sum()) for t in REFERENCE_TYPES}
        result.summary.update({"n_reference": own, "n_epithelial": n_epithelial, "assumed_by_user": assumed})
        if assumed:
            result.summary["n_type_overridden"] = int(overridden.sum())
        try:
            if n_epithelial < options.min_epithelial_cells:
                raise NotAssessable(
                    "too_few_epithelial_cells",
                    f"{n_epithelial} epithelial cells, {options.min_epithelial_cells} needed",
                )
            positions = gene_positions(data.genes)
            along = genomic_order(positions)
            positions = positions.iloc[along]
            pools = read_pools(reference, data.genes[along], leave_out=patients.patient_of(data.record))
            rung = choose_reference(types, pools, data.record["chemistry"], options)
            result.summary["rung"] = rung.rung
            # by columns and back: windows and arms are then read in order, and no row has to be sorted
            x = data.matrix(cells=cell_ids).tocsc()[:, along].tocsr()
            x, values = log_values(x, bool(data.record["is_counts"]))
            result.summary["values"] = values
            with neighbors.one_thread():
                calls = assess(x, cell_ids, types, positions, rung, pools.get(NORMAL_POOL), options=options, seed=seed)
            result.summary.update(calls.summary)
            result.extra["cnv"] = mean_profiles(calls, types)
            if not calls.summary["callable"] and not assumed:
                raise _refusal(calls.summary, options)
        except NotAssessable as problem:
            if problem.status not in REFUSED:
                calls.status[epithelial] = problem.status
            if not assumed:
                raise
            result.summary["profile_status"] = problem.status
        finally:
            if assumed:
                calls.call[epithelial], calls.status[epithelial] = "malignant", "assumed_by_user"
                calls.clone[epithelial & (calls.clone == 0)] = max(1, int(calls.clone.max(initial=0)))
            shares = {k: int((calls.call == k).sum()) for k in ("malignant", "normal", "unassigned")}
            result.summary.update({f"n_{k}": v for k, v in shares.items()})
            result.table = _table(cell_ids, calls)
