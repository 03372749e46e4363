"""Count matrices in MatrixMarket with features and barcodes, whole or one sample's cells.  See docs/ingest.md."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from nicheloop import inputs
from nicheloop.inputs import DataError, reading
from nicheloop.rawcounts import SNIFFED, RawCounts, feature_columns
from nicheloop.selection import Selection

if TYPE_CHECKING:
    from scipy.sparse import coo_matrix, csr_matrix

BLOCK_ENTRIES = 5_000_000  # entries of the matrix held at once while a sample's cells are picked: 120 MB


def _size_line(handle: IO[bytes]) -> tuple[int, int, int]:
    """Rows, columns and entries of a coordinate matrix; the handle then stands at the first entry."""
    for line in handle:
        if line.strip() and not line.lstrip().startswith(b"%"):
            rows, columns, entries = (int(n) for n in line.split())
            return rows, columns, entries
    raise DataError(f"{handle.name}: the line of sizes is missing. Download it again.")


def _picked(path: Path, shape: tuple[int, int], cells_in: int, positions: np.ndarray) -> csr_matrix:
    """(chosen cells, features) of a coordinate file, read in blocks: only the chosen cells' entries are ever kept.

    `cells_in` is the axis of the file that holds the cells.
    """
    import pandas as pd
    from scipy.sparse import coo_matrix, csr_matrix

    lookup = np.full(shape[cells_in], -1, dtype=np.int64)
    lookup[positions] = np.arange(len(positions))
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    seen = 0
    with inputs.open_bytes(path) as handle:
        entries = _size_line(handle)[2]
        blocks = pd.read_csv(
            handle, sep=r"\s+", header=None, names=["row", "column", "value"], index_col=False, engine="c",
            dtype={"row": np.int64, "column": np.int64, "value": np.float64}, chunksize=BLOCK_ENTRIES, comment="%",
        ) if entries else []  # fmt: skip
        for block in blocks:
            at = [block["row"].to_numpy() - 1, block["column"].to_numpy() - 1]
            for axis, (what, size) in enumerate(zip(("row", "column"), shape, strict=True)):
                if at[axis].min() < 0 or at[axis].max() >= size:
                    raise DataError(
                        f"{path}: a {what} outside 1 to {size} is named after entry {seen}. The file is "
                        "damaged: download it again."
                    )
            seen += len(block)
            cell = lookup[at[cells_in]]
            mine = cell >= 0
            kept.append((cell[mine], at[1 - cells_in][mine], block["value"].to_numpy()[mine].astype(np.float32)))
    if seen != entries:
        raise DataError(
            f"{path}: holds {seen} entries, its header says {entries}. The file is cut off: download it again."
        )
    cell, feature, value = (np.concatenate([k[i] for k in kept] or [np.empty(0)]) for i in range(3))
    where = (cell.astype(np.int64), feature.astype(np.int64))
    return csr_matrix(coo_matrix((value.astype(np.float32), where), shape=(len(positions), shape[1 - cells_in])))


def _whole(path: Path, marked: bool) -> coo_matrix:
    """The matrix as it stands in the file."""
    from scipy.io import mmread
    from scipy.sparse import coo_matrix

    with contextlib.ExitStack() as stack:
        source: Any = path
        if marked or inputs.is_gzip(path) != path.name.endswith(".gz"):
            source = stack.enter_context(inputs.open_bytes(path))
            source.seek(3 if marked else 0)
        return coo_matrix(mmread(source))


def _by_row(x: coo_matrix) -> csr_matrix:
    """The same by row, columns in rising order and entries of one place added up; no sort of all entries."""
    x.has_canonical_format = True  # else scipy sorts them here, also those of a file in the order wanted
    out = x.tocsr()
    if not out.has_sorted_indices:
        out = out.tocsc().tocsr()
    out.sum_duplicates()
    return out.astype(np.float32)


def _shape(path: Path) -> tuple[int, int] | None:
    """Rows and columns of a coordinate file without reading its entries; None for the dense kind."""
    with reading(path), inputs.open_bytes(path) as handle:
        if b"coordinate" not in handle.readline(1000).lower():
            return None
        rows, columns, _ = _size_line(handle)
        return rows, columns


def read_mtx(
    path: Path, features_from: Path | None = None, barcodes_from: Path | None = None, selection: Selection | None = None
) -> RawCounts:
    """Read a MatrixMarket file with its features and barcodes (Cell Ranger 2, 3, or plain genes.txt, barcodes.txt).

    Parameters
    ----------
    path
        The matrix: features x cells or cells x features, as the label files say.
    features_from, barcodes_from
        Its label files; None: found beside it.
    selection
        Which cells to keep; None: all.
    """
    if features_from is None or barcodes_from is None:
        found = inputs.label_files(path)
        features_from, barcodes_from = features_from or found[0], barcodes_from or found[1]
    marked = inputs.check_mtx(path)
    shape = _shape(path) if selection is not None else None
    with reading(path):
        x = None if shape is not None else _whole(path, marked)
    shape = x.shape if x is not None else shape
    assert shape is not None
    features, cells = inputs.labels(features_from, shape), inputs.labels(barcodes_from, shape)
    n_features, n_cells = len(features[0]), len(cells[0])
    if shape not in ((n_features, n_cells), (n_cells, n_features)):
        raise DataError(
            f"{path}: the matrix is {shape[0]} x {shape[1]} but {features_from.name} lists {n_features} features and "
            f"{barcodes_from.name} {n_cells} barcodes. The three files must belong together."
        )
    cells_in = 1 if shape == (n_features, n_cells) else 0
    barcodes = next((c for c in cells if len(set(c)) == len(c) and not c[0].isdigit()), cells[0])
    obs = None
    if selection is not None:
        positions, obs = selection.pick(barcodes, None, path)
        barcodes = [barcodes[i] for i in positions]
    with reading(path):
        if x is None:
            matrix = _picked(path, shape, cells_in, positions)
        else:
            matrix = _by_row(x.T if cells_in else x)
            matrix = matrix if selection is None else matrix[positions].tocsr()
    other = 0
    kinds = next((c for c in features if "Gene Expression" in set(c[:SNIFFED]) or "Gene Expression" in set(c)), None)
    if kinds is not None:
        keep = np.flatnonzero(np.asarray(kinds, dtype=object) == "Gene Expression")
        other = n_features - len(keep)
        matrix = matrix[:, keep].tocsr()
        features = [[c[i] for i in keep] for c in features if c is not kinds]
    names, ids = feature_columns({str(i): c for i, c in enumerate(features)})
    return RawCounts(matrix, barcodes, names, ids, "10x_mtx", path.name, obs=obs, n_other_features=other)
