"""Builders shared by the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse


def record_of(sample: str, n_cells: int, n_genes: int, **values: Any) -> dict[str, Any]:
    """What ingest would record of a sample; keyword arguments override."""
    record: dict[str, Any] = {
        "sample": sample, "patient": sample, "subtype": None, "tissue": None, "treatment": None, "sorting": None,
        "chemistry": None, "dataset": None, "malignancy": None, "annotation": None, "status": "ok", "reason": "",
        "is_counts": True, "n_cells": n_cells, "n_features": n_genes, "n_genes": n_genes, "n_unresolved": 0,
        "guards": {}, "extra": {},
    }  # fmt: skip
    return {**record, **values}


def write_counts(
    path: Path,
    matrix: Any,
    genes: list[str] | np.ndarray,
    *,
    sample: str = "s1",
    obs: pd.DataFrame | None = None,
    ensembl: list[str] | None = None,
    record: dict[str, Any] | None = None,
    barcodes: list[str] | None = None,
) -> Path:
    """Write a (cells, genes) matrix as ``counts.h5ad`` in the form ingest gives it; `path` is a folder or an .h5ad file."""
    path = Path(path)
    if path.suffix != ".h5ad":
        path = path / "counts.h5ad"
    path.parent.mkdir(parents=True, exist_ok=True)
    x = sparse.csr_matrix(matrix, dtype=np.float32)
    barcodes = barcodes or [f"c{i:05d}" for i in range(x.shape[0])]
    table = pd.DataFrame({"sample": sample, "barcode": barcodes}, index=[f"{sample}:{b}" for b in barcodes])
    if obs is not None:
        for column in obs:
            table[column] = obs[column].to_numpy()
    var = pd.DataFrame({"ensembl_id": ensembl or [""] * x.shape[1]}, index=[str(g) for g in genes])
    adata = ad.AnnData(x, obs=table, var=var)
    adata.uns["nicheloop"] = json.dumps(record_of(sample, *x.shape, **(record or {})))
    adata.write_h5ad(path)
    return path
