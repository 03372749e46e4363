"""Count matrices in HDF5: 10x .h5, .h5ad (CELLxGENE included), .loom.  See docs/ingest.md."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import inputs, rawcounts
from nicheloop.inputs import DataError, reading
from nicheloop.rawcounts import RawCounts, feature_columns, fractional_share
from nicheloop.selection import Selection

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix


def check_hdf5(path: Path) -> None:
    import h5py

    with reading(path):
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty. Download it again.")
        if inputs.is_gzip(path):
            raise DataError(f"{path}: a compressed HDF5 file. Unpack it first (gunzip).")
        if not h5py.is_hdf5(path):
            raise DataError(f"{path}: not an HDF5 file, or cut off at its start: cannot be read. Download it again.")


def hdf5_format(path: Path) -> str:
    import h5py

    check_hdf5(path)
    with reading(path), h5py.File(path, "r") as handle:
        keys = set(handle)
        if {"obs", "var"} <= keys:
            return "h5ad"
        if {"matrix", "row_attrs", "col_attrs"} <= keys:
            return "loom"
        if "matrix" in keys or any("barcodes" in getattr(handle[k], "keys", list)() for k in keys):
            return "10x_h5"
        raise DataError(
            f"{path}: neither a 10x matrix nor an h5ad file (it holds {', '.join(sorted(keys)) or 'nothing'}). "
            "Give filtered_feature_bc_matrix.h5 or an h5ad."
        )


# --- 10x HDF5 ---------------------------------------------------------------------------------------------------------


def read_10x_h5(path: Path) -> RawCounts:
    """Read a Cell Ranger .h5 (version 2: one group per genome; version 3: group ``matrix``)."""
    import h5py
    from scipy.sparse import csr_matrix

    check_hdf5(path)
    with reading(path), h5py.File(path, "r") as handle:
        if "matrix" in handle:
            group, features = handle["matrix"], handle["matrix/features"]
            names, ids = features["name"].asstr()[:], features["id"].asstr()[:]
            kinds = (
                features["feature_type"].asstr()[:]
                if "feature_type" in features
                else np.full(len(names), "Gene Expression")
            )
            source = "matrix"
        else:
            genomes = sorted(k for k in handle if "barcodes" in getattr(handle[k], "keys", list)())
            human = [g for g in genomes if re.match(r"grch|hg", g, re.IGNORECASE)] if len(genomes) > 1 else genomes
            if len(human) != 1:
                raise DataError(f"{path}: holds several genomes ({', '.join(genomes)}). Keep the human one only.")
            source = human[0]
            group = handle[source]
            names, ids = group["gene_names"].asstr()[:], group["genes"].asstr()[:]
            kinds = np.full(len(names), "Gene Expression")
        n_features, n_cells = (int(n) for n in group["shape"][:])
        barcodes = [str(b) for b in group["barcodes"].asstr()[:]]
        if (len(names), len(barcodes)) != (n_features, n_cells):
            raise DataError(
                f"{path}: the matrix is {n_features} features x {n_cells} cells but lists {len(names)} features and "
                f"{len(barcodes)} barcodes. The file is damaged: download or write it again."
            )
        arrays = (group["data"][:].astype(np.float32), group["indices"][:], group["indptr"][:])
        x = csr_matrix(arrays, shape=(n_cells, n_features))
        x.check_format(full_check=True)
    keep = np.flatnonzero(np.asarray(kinds, dtype=object) == "Gene Expression")
    if len(keep) == 0:
        raise DataError(
            f"{path}: holds no 'Gene Expression' features (it holds {', '.join(sorted(set(kinds)))}). Give the matrix "
            "of gene expression.",
            "no_counts_found",
        )
    if len(keep) < n_features:
        x = x[:, keep].tocsr()
    return RawCounts(
        x, barcodes, [str(n) for n in names[keep]], [str(i) for i in ids[keep]], "10x_h5", source,
        n_other_features=n_features - len(keep),
    )  # fmt: skip


# --- h5ad -------------------------------------------------------------------------------------------------------------


def _h5ad_matrix(node: Any, rows: np.ndarray | None) -> csr_matrix:
    """A matrix of an h5ad file as CSR, all rows or the chosen ones; dense ones in blocks of rows."""
    from anndata.io import read_elem, sparse_dataset
    from scipy.sparse import csr_matrix, vstack

    if hasattr(node, "keys"):
        if rows is None or node.attrs.get("encoding-type") != "csr_matrix":
            stored = read_elem(node)
            stored.check_format(full_check=True)  # an index outside would be read from somebody else's memory
            x = csr_matrix(stored)
            return (x if rows is None else x[rows]).astype(np.float32)
        x = csr_matrix(sparse_dataset(node)[rows])
        x.check_format(full_check=True)
        return x.astype(np.float32)
    step = max(1, rawcounts.BLOCK_VALUES // max(1, node.shape[1]))
    every = np.arange(node.shape[0]) if rows is None else rows
    blocks = [csr_matrix(node[every[i : i + step], :].astype(np.float32)) for i in range(0, len(every), step)]
    return csr_matrix(vstack(blocks, format="csr")) if blocks else csr_matrix((0, node.shape[1]), dtype=np.float32)


def _h5ad_table(handle: Any, key: str) -> pd.DataFrame:
    """Table of cells or features; also in the form written by anndata before 0.7 (one compound array)."""
    import pandas as pd
    from anndata.io import read_elem

    node = handle[key]
    if hasattr(node, "keys"):
        return read_elem(node)
    values = node[:]
    if values.dtype.names is None:
        raise DataError(
            f"{handle.filename}: '{key}' is not a table: written by no known version of anndata. Write it again "
            "with a current one."
        )
    out = pd.DataFrame({n: [v.decode() if isinstance(v, bytes) else v for v in values[n]] for n in values.dtype.names})
    index = "index" if "index" in out.columns else str(out.columns[0])
    for column in out.columns:
        place = f"uns/{column}_categories"
        if place in handle:
            names = np.array([v.decode() if isinstance(v, bytes) else str(v) for v in handle[place][:]], dtype=object)
            codes = out[column].to_numpy()
            out[column] = [names[c] if 0 <= c < len(names) else None for c in codes]
    return out.set_index(index)


def _counts_of(
    handle: Any, places: list[tuple[str, str]], rows: np.ndarray | None, integer_tolerance: float, path: Path
) -> tuple[str, csr_matrix]:
    """First matrix that holds raw counts, and its name.

    `places` are (name for messages, key in the file).
    """
    tried = []
    for source, key in places:
        if key not in handle:
            continue
        x = _h5ad_matrix(handle[key], rows)
        share = fractional_share(x)
        if not np.isfinite(x.data).all():
            tried.append(f"{source} (missing or infinite values)")
        elif x.nnz and x.data.min() < 0:
            tried.append(f"{source} (negative values)")
        elif share > integer_tolerance:
            tried.append(f"{source} ({share:.0%} not whole numbers)")
        elif x.shape[0] and not x.count_nonzero():
            tried.append(f"{source} (only zeros)")
        else:
            return source, x
    layers = sorted(set(handle["layers"]) - {"counts", "raw_counts"}) if "layers" in handle else []
    also = f" Other layers, not looked at: {', '.join(layers)}." if layers else ""
    raise DataError(
        f"{path}: holds no raw counts (normalised?): {', '.join(tried) or 'no matrix'}.{also} Put raw counts "
        "into layers['counts'], raw.X or X.",
        "no_counts_found",
    )


def read_h5ad(
    path: Path, annotation: str | None = None, integer_tolerance: float = 0.0, selection: Selection | None = None
) -> RawCounts:
    """Read an h5ad: the first of the layers counts and raw_counts, ``raw.X``, ``X`` that holds whole numbers.

    Files of CELLxGENE hold raw counts in ``raw.X``, Ensembl ids as names and symbols in ``feature_name``.
    """
    import anndata
    import h5py
    import pandas as pd

    check_hdf5(path)
    places = [(f"layers[{k}]", f"layers/{k}") for k in ("counts", "raw_counts")]
    places += [("raw.X", "raw/X" if _has(path, "raw/X") else "raw.X"), ("X", "X")]
    with reading(path), h5py.File(path, "r") as handle, warnings.catch_warnings():
        warnings.simplefilter("ignore", anndata.OldFormatWarning)  # files of before 2021 are read all the same
        obs = _h5ad_table(handle, "obs")
        rows = None
        if selection is not None:
            rows, chosen = selection.pick([str(b) for b in obs.index], obs.reset_index(drop=True), path)
            names = obs.index[rows]
            obs = obs.iloc[rows] if chosen is None else chosen.set_axis(names, axis=0)
        source, x = _counts_of(handle, places, rows, integer_tolerance, path)
        var = _h5ad_table(handle, {"raw.X": "raw/var" if "raw/var" in handle else "raw.var"}.get(source, "var"))
    columns = {"index": [str(v) for v in var.index]}
    for column in var.columns:
        if not pd.api.types.is_numeric_dtype(var[column]):
            columns[str(column)] = ["" if v is None or v != v else str(v) for v in var[column]]
    names, ids = feature_columns(columns)
    known = None
    if annotation is not None and annotation in obs.columns:
        known = ["" if missing else str(v) for v, missing in zip(obs[annotation], obs[annotation].isna(), strict=True)]
    return RawCounts(
        x, [str(b) for b in obs.index], names, ids, "h5ad", source, obs=obs.reset_index(drop=True), annotation=known
    )


def _has(path: Path, key: str) -> bool:
    import h5py

    with reading(path), h5py.File(path, "r") as handle:
        return key in handle


# --- loom -------------------------------------------------------------------------------------------------------------

LOOM_CELLS = ("CellID", "obs_names", "cell_id", "barcode", "barcodes", "cell_names")


def _attributes(group: Any) -> dict[str, np.ndarray]:
    """One-dimensional attributes of a loom file, text decoded."""
    found: dict[str, np.ndarray] = {}
    for name in group:
        values = group[name]
        if getattr(values, "ndim", 0) == 1:
            plain = values.dtype.kind in "biuf"
            found[name] = values[:] if plain else np.array([str(v) for v in values.asstr()[:]], dtype=object)
    return found


def read_loom(path: Path) -> RawCounts:
    """Read a loom file in blocks of genes: the layer counts, else the main matrix (genes x cells, dense)."""
    import h5py
    import pandas as pd
    from scipy.sparse import csr_matrix, vstack

    check_hdf5(path)
    with reading(path), h5py.File(path, "r") as handle:
        source = next((f"layers/{k}" for k in ("counts", "raw_counts") if f"layers/{k}" in handle), "matrix")
        node = handle[source]
        of_genes, of_cells = _attributes(handle["row_attrs"]), _attributes(handle["col_attrs"])
        n_genes, n_cells = node.shape
        for what, values, size in (("row_attrs", of_genes, n_genes), ("col_attrs", of_cells, n_cells)):
            wrong = next((k for k, v in values.items() if len(v) != size), None)
            if wrong is not None:
                raise DataError(
                    f"{path}: {what}/{wrong} has {len(values[wrong])} entries, the matrix {size}. The file is "
                    "damaged: download or write it again."
                )
        step = max(1, rawcounts.BLOCK_VALUES // max(1, n_cells))
        blocks = [csr_matrix(node[i : i + step, :].astype(np.float32)) for i in range(0, n_genes, step)]
    x = csr_matrix(vstack(blocks, format="csr").T) if blocks else csr_matrix((n_cells, 0), dtype=np.float32)
    names, ids = feature_columns(
        {k: [str(v) for v in values] for k, values in of_genes.items() if values.dtype == object}
    )
    text = [k for k, values in of_cells.items() if values.dtype == object]
    key = next(
        (k for k in LOOM_CELLS if k in of_cells), next((k for k in text if len(set(of_cells[k])) == n_cells), None)
    )
    if key is None:
        raise DataError(f"{path}: no column attribute names the cells. Add 'CellID' with a unique name per cell.")
    obs = pd.DataFrame({k: v for k, v in of_cells.items() if k != key})
    return RawCounts(
        x, [str(v) for v in of_cells[key]], names, ids, "loom", source, obs=obs if len(obs.columns) else None
    )
