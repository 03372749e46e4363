"""File formats of count matrices: 10x .h5 and folders, MatrixMarket triplets, .h5ad, dense text.  See docs/ingest.md.

Every reader gives cells x features as CSR with the file's own names; naming the genes is left to `nicheloop.ingest`.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from nicheloop import genes
from nicheloop.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

FORMATS = ("10x_h5", "10x_mtx", "h5ad", "dense")
DENSE_SUFFIXES = (".csv", ".tsv", ".txt", ".tab")
BLOCK_VALUES = 4_000_000  # values of a dense table held at once: 16 MB, independent of the file's size
SNIFFED = 500  # features looked at to tell genes from cells
# The largest log2(TPM + 1), since TPM sum to a million: a table of fractions that never exceeds this was logged.
LARGEST_LOG = float(np.log2(1e6 + 1))


class DataError(UserError):
    """One sample's data cannot be used; `status` names why."""

    def __init__(self, message: str, status: str = "unreadable"):
        super().__init__(message)
        self.status = status


@dataclass
class RawCounts:
    """A matrix as its file holds it.

    Attributes
    ----------
    matrix : (cells, features) CSR float32
    barcodes : (cells,) names of the cells, unique
    names : (features,) names of the features as in the file
    identifiers : (features,) Ensembl ids as in the file, or None
    obs : (cells, columns) table of the cells (h5ad, dense text with several label columns), or None
    format : one of `FORMATS`
    source : which matrix of the file was read (``X``, ``raw.X``, ``layers[counts]``, a file name)
    is_counts : whether the values are whole numbers
    n_other_features : features that are not gene expression (antibodies, guides), left out
    annotation : (cells,) the annotation asked for, or None if the file has no such column
    notes : what a reader of the record should know
    """

    matrix: csr_matrix
    barcodes: list[str]
    names: list[str]
    identifiers: list[str] | None
    format: str
    source: str
    obs: pd.DataFrame | None = None
    is_counts: bool = True
    n_other_features: int = 0
    annotation: list[str] | None = None
    notes: list[str] = field(default_factory=list)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what libraries raise on damaged files into a message that names the file."""
    try:
        yield
    except UserError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile) as err:
        raise DataError(f"{path}: the compressed file is truncated or damaged ({err}). Download it again.") from None
    except UnicodeDecodeError as err:
        raise DataError(f"{path}: not a text file ({err.reason} at byte {err.start}).") from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as err:
        reason = " ".join(str(err).split())
        raise DataError(
            f"{path}: cannot be read ({type(err).__name__}: {reason}). Check that the file is complete."
        ) from None


def _open(path: Path) -> IO[str]:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return open(path, encoding="utf-8-sig", newline="")


def _bare(path: Path) -> str:
    """File name in lower case without .gz."""
    return path.name.lower().removesuffix(".gz")


def detect_format(path: str | Path) -> tuple[str, Path]:
    """Format of a file, folder or prefix (``folder/GSM1_``), from content and names, and the path to read.

    Raises
    ------
    UserError
        If nothing is there, nothing can be recognised, or a folder holds several samples.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        matrices = [p for p in found if _bare(p).endswith(".mtx")]
        if len(matrices) == 1:
            return "10x_mtx", matrices[0]
        if len(matrices) > 1:
            names = ", ".join(p.name for p in matrices[:5])
            raise DataError(
                f"{path}: holds {len(matrices)} matrices ({names}). Give one sample's prefix, such as {path}/SAMPLE_."
            )
        others = [p for p in found if _bare(p).endswith((".h5", ".h5ad"))]
        others = others or [p for p in found if _bare(p).endswith(DENSE_SUFFIXES)]
        if len(others) != 1:
            names = ", ".join(p.name for p in found[:8]) or "nothing"
            raise DataError(
                f"{path}: expected matrix.mtx[.gz] with features and barcodes, or one .h5, .h5ad or text table; "
                f"found {names}.",
                "no_counts_found",
            )
        path = others[0]
    if not path.exists():
        beside = sorted(path.parent.glob(path.name + "*.mtx*")) if path.parent.is_dir() else []
        if len(beside) == 1:
            return "10x_mtx", beside[0]
        raise UserError(f"{path}: no such file, folder or prefix. Check the column 'path' of the sample sheet.")
    name = _bare(path)
    if name.endswith(".mtx"):
        return "10x_mtx", path
    if name.endswith((".h5", ".h5ad", ".hdf5")):
        return _hdf5_format(path), path
    if name.endswith(DENSE_SUFFIXES):
        return "dense", path
    raise DataError(
        f"{path}: not a known format. Known: 10x .h5, folders with matrix.mtx[.gz], .h5ad, "
        f"tables {', '.join(DENSE_SUFFIXES)}[.gz]."
    )


def _hdf5_format(path: Path) -> str:
    import h5py

    with _reading(path), h5py.File(path, "r") as handle:
        keys = set(handle)
        if {"obs", "var"} <= keys:
            return "h5ad"
        if "matrix" in keys or any("barcodes" in getattr(handle[k], "keys", list)() for k in keys):
            return "10x_h5"
        raise DataError(
            f"{path}: neither a 10x matrix nor an h5ad file (it holds {', '.join(sorted(keys)) or 'nothing'})."
        )


def feature_columns(columns: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str] | None]:
    """Pick names and Ensembl ids among the columns of a feature table.

    Parameters
    ----------
    columns
        Column name -> (features,) text.

    Returns
    -------
    tuple
        (features,) names: the column with most known genes; (features,) Ensembl ids, or None.
    """
    if not columns:
        raise DataError("the feature table has no column")
    ids: tuple[float, str] | None = None
    best: tuple[float, str] | None = None
    for key, values in columns.items():
        step = max(1, len(values) // SNIFFED)
        seen = [str(v) for v in values[::step]]
        ensembl = float(np.mean([v.startswith("ENS") for v in seen])) if seen else 0.0
        share = known_share(seen)
        if ensembl > 0.5 and (ids is None or ensembl > ids[0]):
            ids = (ensembl, key)
        elif ensembl <= 0.5 and (best is None or share > best[0]):
            best = (share, key)
    identifiers = [str(v) for v in columns[ids[1]]] if ids else None
    if identifiers is not None and (best is None or best[0] == 0):
        return identifiers, identifiers
    assert best is not None
    return [str(v) for v in columns[best[1]]], identifiers


def known_share(names: Sequence[str]) -> float:
    """Share of names that look like genes: human ones, or (at half weight) known after folding case, as in mouse."""
    if not len(names):
        return 0.0
    hits = [1.0 if genes.resolve(str(n)) else 0.5 if genes.resolve(str(n).upper()) else 0.0 for n in names]
    return float(np.mean(hits))


# --- 10x HDF5 ---------------------------------------------------------------------------------------------------------


def read_10x_h5(path: Path) -> RawCounts:
    """Read a Cell Ranger .h5 (version 2: one group per genome; version 3: group ``matrix``)."""
    import h5py
    from scipy.sparse import csr_matrix

    with _reading(path), h5py.File(path, "r") as handle:
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
                f"{len(barcodes)} barcodes."
            )
        arrays = (group["data"][:].astype(np.float32), group["indices"][:], group["indptr"][:])
        x = csr_matrix(arrays, shape=(n_cells, n_features))
        x.check_format(full_check=True)
    keep = np.flatnonzero(np.asarray(kinds, dtype=object) == "Gene Expression")
    if len(keep) == 0:
        raise DataError(
            f"{path}: holds no 'Gene Expression' features (it holds {', '.join(sorted(set(kinds)))}).",
            "no_counts_found",
        )
    if len(keep) < n_features:
        x = x[:, keep].tocsr()
    return RawCounts(
        x, barcodes, [str(n) for n in names[keep]], [str(i) for i in ids[keep]], "10x_h5", source,
        n_other_features=n_features - len(keep),
    )  # fmt: skip


# --- MatrixMarket -----------------------------------------------------------------------------------------------------


def _beside(matrix: Path, words: Sequence[str]) -> Path:
    """Feature or barcode file that belongs to a matrix: same prefix first, else the only one of the folder."""
    tables = [p for p in sorted(matrix.parent.iterdir()) if p.is_file() and _bare(p).endswith((".tsv", ".txt", ".csv"))]
    # In the order of the words: "Tcells_barcodes.tsv" holds barcodes.
    files = next((hits for w in words if (hits := [p for p in tables if w in _bare(p)])), [])
    prefix = re.split(r"matrix|counts?_|sparse|\.mtx", matrix.name, maxsplit=1)[0]
    same = [p for p in files if p.name.startswith(prefix)] if prefix else files
    found = same if len(same) == 1 or not files else (same or files)
    if len(found) > 1:  # a compressed copy beside the plain file is the same file
        found = list({_bare(p): p for p in found}.values())
    if len(found) != 1:
        listed = ", ".join(p.name for p in found) or "none"
        raise DataError(f"{matrix}: expected one file of {' or '.join(words)} beside it; found {listed}.")
    return found[0]


def _text_rows(path: Path) -> list[list[str]]:
    with _reading(path), _open(path) as handle:
        lines = handle.read().splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise DataError(f"{path}: the file is empty.")
    separator = "\t" if "\t" in lines[0] else "," if _bare(path).endswith(".csv") or "," in lines[0] else "\t"
    return [list(row) for row in csv.reader(lines, delimiter=separator)]


def _labels(rows: list[list[str]], sizes: Sequence[int]) -> list[list[str]]:
    """Columns of a label file; a header is one line more than one of the sizes it may have."""
    if len(rows) not in sizes and len(rows) - 1 in sizes:
        rows = rows[1:]
    width = min(len(r) for r in rows) if rows else 0
    return [[r[i] for r in rows] for i in range(width)]


def read_mtx(path: Path) -> RawCounts:
    """Read a MatrixMarket file with its features and barcodes (Cell Ranger 2, 3, or plain genes.txt, barcodes.txt)."""
    from scipy.io import mmread
    from scipy.sparse import coo_matrix, csr_matrix

    with _reading(path):
        x = coo_matrix(mmread(path)).astype(np.float32)
    rows, cols = x.shape
    feature_file, barcode_file = _beside(path, ("features", "genes")), _beside(path, ("barcodes", "cells"))
    features = _labels(_text_rows(feature_file), x.shape)
    cells = _labels(_text_rows(barcode_file), x.shape)
    n_features, n_cells = len(features[0]), len(cells[0])
    if (rows, cols) == (n_features, n_cells):
        matrix = csr_matrix(x.T)
    elif (rows, cols) == (n_cells, n_features):
        matrix = csr_matrix(x)
    else:
        raise DataError(
            f"{path}: the matrix is {rows} x {cols} but {feature_file.name} lists {n_features} features and "
            f"{barcode_file.name} {n_cells} barcodes. The three files must belong together."
        )
    other = 0
    kinds = next((c for c in features if "Gene Expression" in set(c[:SNIFFED]) or "Gene Expression" in set(c)), None)
    if kinds is not None:
        keep = np.flatnonzero(np.asarray(kinds, dtype=object) == "Gene Expression")
        other = n_features - len(keep)
        matrix = matrix[:, keep].tocsr()
        features = [[c[i] for i in keep] for c in features if c is not kinds]
    names, ids = feature_columns({str(i): c for i, c in enumerate(features)})
    barcodes = next((c for c in cells if len(set(c)) == len(c) and not c[0].isdigit()), cells[0])
    return RawCounts(matrix, barcodes, names, ids, "10x_mtx", path.name, n_other_features=other)


# --- h5ad -------------------------------------------------------------------------------------------------------------


def fractional_share(x: csr_matrix) -> float:
    """Share of the stored values that are not whole numbers; 0 for an empty matrix."""
    return float(np.mean(x.data != np.rint(x.data))) if x.nnz else 0.0


def _h5ad_matrix(node: Any) -> csr_matrix:
    """A matrix of an h5ad file as CSR; dense ones in blocks of rows."""
    from anndata.io import read_elem
    from scipy.sparse import csr_matrix, vstack

    if hasattr(node, "keys"):
        return csr_matrix(read_elem(node)).astype(np.float32)
    step = max(1, BLOCK_VALUES // max(1, node.shape[1]))
    blocks = [csr_matrix(node[i : i + step].astype(np.float32)) for i in range(0, node.shape[0], step)]
    return csr_matrix(vstack(blocks, format="csr")) if blocks else csr_matrix(node.shape, dtype=np.float32)


def read_h5ad(path: Path, annotation: str | None = None, integer_tolerance: float = 0.0) -> RawCounts:
    """Read an h5ad: the first of the layers counts and raw_counts, ``raw.X``, ``X`` that holds whole numbers."""
    import h5py
    import pandas as pd
    from anndata.io import read_elem

    with _reading(path), h5py.File(path, "r") as handle:
        obs = read_elem(handle["obs"])
        places = [(f"layers[{k}]", f"layers/{k}", "var") for k in ("counts", "raw_counts")]
        places += [("raw.X", "raw/X", "raw/var"), ("X", "X", "var")]
        tried = []
        for source, key, var_key in places:  # noqa: B007 (used after the loop)
            if key not in handle:
                continue
            x = _h5ad_matrix(handle[key])
            share = fractional_share(x)
            if share <= integer_tolerance and not (x.nnz and x.data.min() < 0):
                break
            tried.append(f"{source} ({share:.0%} not whole numbers)" if share else f"{source} (negative values)")
        else:
            raise DataError(
                f"{path}: holds normalised values only: {', '.join(tried) or 'no matrix'}. Put raw counts into "
                "layers['counts'], raw.X or X.",
                "no_counts_found",
            )
        var = read_elem(handle[var_key])
    columns = {"index": [str(v) for v in var.index]}
    for column in var.columns:
        if not pd.api.types.is_numeric_dtype(var[column]):
            columns[str(column)] = ["" if v is None or v != v else str(v) for v in var[column]]
    names, ids = feature_columns(columns)
    chosen = None
    if annotation is not None and annotation in obs.columns:
        chosen = ["" if missing else str(v) for v, missing in zip(obs[annotation], obs[annotation].isna(), strict=True)]
    return RawCounts(
        x, [str(b) for b in obs.index], names, ids, "h5ad", source, obs=obs.reset_index(drop=True), annotation=chosen
    )


# --- dense text -------------------------------------------------------------------------------------------------------


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text.strip() in ("", "NA", "NaN", "nan", "null", "NULL")
    return True


def _head(path: Path, n: int = 40) -> tuple[list[str], list[list[str]], str]:
    """Header, first data rows and separator of a dense table; comment lines are skipped."""
    lines: list[str] = []
    with _reading(path), _open(path) as handle:
        for line in handle:
            if line.strip() and not (line.startswith("#") and not lines):
                lines.append(line.rstrip("\r\n"))
            if len(lines) > n:
                break
    if len(lines) < 2:
        raise DataError(f"{path}: the table is empty (expected a header and at least one row).", "no_counts_found")
    counts = {s: lines[1].count(s) for s in ("\t", ",", ";", " ")}
    separator = max(counts, key=lambda s: counts[s])
    rows = list(csv.reader(lines, delimiter=separator))
    header, body = rows[0], rows[1:]
    if len(header) == len(body[0]) - 1:  # R leaves out the name of the row names
        header = ["", *header]
    if len(header) != len(body[0]):
        raise DataError(f"{path}: the header has {len(header)} fields but the first row has {len(body[0])}.")
    return header, body, separator


def _data_lines(handle: IO[str]) -> Iterator[str]:
    """Lines below the header; empty ones and comments above the header are skipped."""
    header = False
    for line in handle:
        if line.strip() and (header or not line.startswith("#")):
            if header:
                yield line.rstrip("\r\n")
            header = True


def _row(line: str, n_labels: int, columns: list[str], separator: str, path: Path) -> tuple[list[str], np.ndarray]:
    """Labels and numbers of one line; what cannot be read is named by row and column."""
    parts = line.split(separator, n_labels)
    if len(parts) == n_labels + 1 and '"' not in parts[-1] and all(p.count('"') in (0, 2) for p in parts):
        own = [p.strip().strip('"') for p in parts[:n_labels]]
        with contextlib.suppress(ValueError):
            values = np.fromstring(parts[-1], dtype=np.float64, sep=separator)
            if len(values) == len(columns) and np.isfinite(values).all():
                return own, values
    fields = next(csv.reader([line], delimiter=separator))
    own, fields = fields[:n_labels], fields[n_labels:]
    name = own[0] if own else line[:20]
    if len(fields) != len(columns):
        raise DataError(
            f"{path}: row '{name}' has {len(fields)} values, the header {len(columns)}. The file is damaged."
        )
    values = np.empty(len(columns))
    for i, text in enumerate(fields):
        try:
            values[i] = float(text)
        except ValueError:
            values[i] = np.nan
        if not np.isfinite(values[i]):
            raise DataError(
                f"{path}: '{text}' in row '{name}', column '{columns[i]}' is not a number. Every entry must be one."
            )
    return own, values


def read_dense(path: Path) -> RawCounts:
    """Read a table of genes x cells or cells x genes; the axis whose labels are genes decides, never the shape.

    Values that are not whole numbers (TPM of full-length protocols) are read and flagged; logged values are refused.
    """
    import pandas as pd
    from scipy.sparse import csr_matrix, vstack

    header, body, separator = _head(path)
    n_labels = 0
    while n_labels < len(header) and not all(_number(r[n_labels]) for r in body if len(r) > n_labels):
        n_labels += 1
    if n_labels == 0:
        if header[0].strip() and not genes.resolve(header[0]):
            n_labels = 1  # numeric row names
        elif not header[0].strip():
            n_labels = 1
    columns = header[n_labels:]
    if not columns:
        raise DataError(f"{path}: no column of numbers found.", "no_counts_found")
    labels: list[list[str]] = [[] for _ in range(n_labels)]
    blocks: list[csr_matrix] = []
    block = np.empty((max(1, BLOCK_VALUES // len(columns)), len(columns)), dtype=np.float32)
    used = 0
    with _reading(path), _open(path) as handle, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fromstring, where a line ends early: looked at again
        for line in _data_lines(handle):
            own, block[used] = _row(line, n_labels, columns, separator, path)
            for i, label in enumerate(own):
                labels[i].append(label)
            used += 1
            if used == len(block):
                blocks.append(csr_matrix(block))
                used = 0
    blocks.append(csr_matrix(block[:used]))
    x = csr_matrix(vstack(blocks, format="csr"))
    if not labels:
        labels = [[f"row{i + 1}" for i in range(x.shape[0])]]
    row_share = max(known_share(c[:: max(1, len(c) // SNIFFED)]) for c in labels)
    column_share = known_share(columns[:: max(1, len(columns) // SNIFFED)])
    keys = [h if h.strip() else f"column{i}" for i, h in enumerate(header[: len(labels)])]
    if len(set(keys)) < len(keys):
        keys = [f"{k}_{i}" for i, k in enumerate(keys)]
    if row_share >= column_share:  # genes in rows
        names, ids = feature_columns(dict(zip(keys, labels, strict=True)))
        raw = RawCounts(csr_matrix(x.T), columns, names, ids, "dense", path.name)
    else:
        names, ids = feature_columns({"columns": columns})
        unique = next((i for i, c in enumerate(labels) if len(set(c)) == len(c)), 0)
        others = {k: c for i, (k, c) in enumerate(zip(keys, labels, strict=True)) if i != unique}
        raw = RawCounts(x, labels[unique], names, ids, "dense", path.name, obs=pd.DataFrame(others) if others else None)
    raw.notes.append("genes in rows" if row_share >= column_share else "cells in rows")
    return raw


# --- any --------------------------------------------------------------------------------------------------------------


def read_counts(
    path: str | Path, *, fmt: str | None = None, annotation: str | None = None, integer_tolerance: float = 0.0
) -> RawCounts:
    """Read a count matrix of any known format and check its values.

    Parameters
    ----------
    path
        File, folder, or prefix of a MatrixMarket triplet (``folder/GSM1_``).
    fmt
        One of `FORMATS`; None: recognised from content and names.
    annotation
        Column of the cells' table to keep as the user's own annotation.
    integer_tolerance
        Largest share of stored values that may not be whole numbers in a count matrix; they are rounded.

    Returns
    -------
    RawCounts
        Whole numbers >= 0 if ``is_counts``, else values >= 0 as they are (dense text only).

    Raises
    ------
    DataError
        If the data cannot be used: what is wrong, with which file, and what to do.
    UserError
        If nothing is at `path` or `fmt` is unknown.
    """
    path = Path(path)
    if fmt in ("", "auto"):
        fmt = None
    if fmt is not None and fmt not in FORMATS:
        raise UserError(
            f"{path}: unknown format '{fmt}'. Known: {', '.join(FORMATS)}; leave it empty to have it recognised."
        )
    found, source = detect_format(path)
    fmt = fmt or found
    if fmt == "10x_h5":
        raw = read_10x_h5(source)
    elif fmt == "10x_mtx":
        raw = read_mtx(source)
    elif fmt == "h5ad":
        raw = read_h5ad(source, annotation, integer_tolerance)
    else:
        raw = read_dense(source)
    if raw.annotation is None and annotation is not None and raw.obs is not None and annotation in raw.obs.columns:
        raw.annotation = ["" if v is None or v != v else str(v) for v in raw.obs[annotation]]
    return _checked(raw, source, integer_tolerance)


def _checked(raw: RawCounts, path: Path, integer_tolerance: float) -> RawCounts:
    x = raw.matrix
    x.sum_duplicates()
    if not np.isfinite(x.data).all():
        n = int((~np.isfinite(x.data)).sum())
        raise DataError(f"{path}: {n} missing or infinite values. Every entry must be a number.")
    if x.nnz and x.data.min() < 0:
        n = int((x.data < 0).sum())
        reason = f"{n} negative values (smallest {x.data.min():g}): scaled data, not counts. Give raw counts."
        raise DataError(f"{path}: {reason}", "no_counts_found")
    share = fractional_share(x)
    raw.is_counts = share <= integer_tolerance
    if raw.is_counts and share > 0:
        raw.notes.append(f"{share:.2g} of the values were not whole numbers and were rounded")
        x.data = np.rint(x.data)
    elif not raw.is_counts and raw.format != "dense":
        reason = f"{share:.0%} of the values are not whole numbers: normalised data. Give raw counts."
        raise DataError(f"{path}: {reason}", "no_counts_found")
    elif not raw.is_counts and x.data.max() <= LARGEST_LOG:
        raise DataError(
            f"{path}: {share:.0%} of the values are not whole numbers and none exceeds {x.data.max():.3g}: "
            "log-transformed data. Give raw counts (or TPM).",
            "no_counts_found",
        )
    x.eliminate_zeros()
    repeated = len(raw.barcodes) - len(set(raw.barcodes))
    if repeated:
        raise DataError(f"{path}: {repeated} cell names occur more than once. Give each cell a unique name.")
    return raw
