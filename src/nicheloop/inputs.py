"""Finding and opening the files of a sample: folders, prefixes, compression, text encodings.  See docs/ingest.md."""

from __future__ import annotations

import contextlib
import csv
import errno
import gzip
import io
import os
import re
import shlex
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from nicheloop.errors import UserError, error_number

FORMATS = ("10x_h5", "10x_mtx", "h5ad", "loom", "dense")
HDF5_SUFFIXES = (".h5", ".h5ad", ".hdf5", ".loom")
DENSE_SUFFIXES = (".csv", ".tsv", ".txt", ".tab")
# Folders of Cell Ranger in which the counts lie deeper; "raw" ones hold empty droplets and are never taken unasked.
NESTED = ("outs", "filtered_feature_bc_matrix", "filtered_gene_bc_matrices", "GRCh38", "hg19")
NOT_COUNTS = ("molecule_info", "raw_")  # HDF5 files of Cell Ranger beside the one wanted
KNOWN = "10x .h5, folders with matrix.mtx[.gz], .h5ad, .loom, tables .csv, .tsv, .txt, .tab[.gz]"
REMEDIES = {
    (".xlsx", ".xls", ".ods"): "Save the table as CSV",
    (".rds", ".rdata", ".rda", ".robj"): "Export the counts from R, for instance with DropletUtils::write10xCounts",
    (".tar", ".tgz", ".zip", ".bz2", ".xz", ".7z"): "Unpack it first",
}


# Errors of a disk, a network file system or a machine in need: they say nothing of the data and may pass.
INFRASTRUCTURE = {
    getattr(errno, name)
    for name in (
        "EIO", "ESTALE", "ETIMEDOUT", "EREMOTEIO", "ENETDOWN", "ENETUNREACH", "ENETRESET", "EHOSTDOWN", "EHOSTUNREACH",
        "ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "ENOTCONN", "ESHUTDOWN", "ENODEV", "ENXIO", "ENOLINK", "ECOMM",
        "EPROTO", "EAGAIN", "EINTR", "EBUSY", "EDEADLK", "ENOLCK", "ENOMEM", "EMFILE", "ENFILE", "ENOSPC", "EDQUOT",
        "ECANCELED", "EKEYEXPIRED", "EKEYREVOKED", "ENOKEY",
    )
    if hasattr(errno, name)
}  # fmt: skip


class DataError(UserError):
    """One sample's data cannot be used; `status` names why."""

    def __init__(self, message: str, status: str = "unreadable"):
        super().__init__(message)
        self.status = status


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what libraries raise on damaged files into a message that names the file.

    Raises
    ------
    DataError
        For damage: the sample ends with a status.
    UserError
        For what is no property of the data (no memory, no permission, a disk or network that fails): the job fails, so
        that it is tried again.
    """
    try:
        yield
    except UserError:
        raise
    except MemoryError as err:  # not a property of the data: the job may be tried again with more
        raise UserError(f"{path}: not enough memory to read it ({err}). Give the job more memory.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as err:
        raise DataError(f"{path}: the compressed file is truncated or damaged ({err}). Download it again.") from None
    except UnicodeDecodeError as err:
        raise DataError(
            f"{path}: not UTF-8 text ({err.reason} at byte {err.start}). If it is text, save it as UTF-8."
        ) from None
    except PermissionError:
        raise UserError(f"{path}: no permission to read it. Change its permissions and run again.") from None
    except FileNotFoundError:
        raise unreachable(path, "a file of it was there a moment ago and is gone") from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError, RuntimeError,
            csv.Error) as err:  # fmt: skip
        code = error_number(err)
        if code is not None and code in INFRASTRUCTURE:
            raise unreachable(path, os.strerror(code)) from None
        reason = " ".join(str(err).split()).removesuffix(".")
        reason = reason or type(err).__name__
        raise DataError(f"{path}: cannot be read ({reason}). Check that the file is complete.") from None


def unreachable(path: Path, reason: str) -> UserError:
    """Make the message for a file that the system failed to read: the job may be tried again."""
    return UserError(
        f"{path}: the system failed to read it ({reason}); that is no fault of the data. Look at the disk or the "
        "network file system, then run again: what was done is kept."
    )


def absolute(text: str | Path, folder: Path = Path()) -> Path:
    """Absolute path of what a user wrote, relative to `folder`.

    Raises
    ------
    UserError
        If it is no path: a zero byte, the home of a user who is not there, too long, links in a circle.
    """
    path = folder / text
    try:
        path = (folder / Path(text).expanduser()).resolve()
        path.exists()
    except OSError as err:
        if err.errno not in (errno.ENAMETOOLONG, errno.ELOOP):  # of the disk: said where the file is read
            return path
        reason = os.strerror(err.errno)
    except (ValueError, RuntimeError) as err:
        reason = " ".join(str(err).split())
    else:
        return path
    raise UserError(f"{str(text)[:200]!r} cannot be used as a path ({reason.removesuffix('.')}). Correct it.")


def bare(path: Path) -> str:
    """File name in lower case without .gz."""
    return path.name.lower().removesuffix(".gz")


# --- finding ----------------------------------------------------------------------------------------------------------


def _visible(folder: Path) -> list[Path]:
    with reading(folder):
        return sorted(p for p in folder.iterdir() if not p.name.startswith("."))


def _once(paths: Sequence[Path]) -> list[Path]:
    """Leave out a plain file that lies beside its compressed copy."""
    return sorted({bare(p): p for p in sorted(paths)}.values())


def _some(paths: Sequence[Path], n: int = 8) -> str:
    more = f" and {len(paths) - n} more" if len(paths) > n else ""
    return ", ".join(p.name for p in paths[:n]) + more


def prefix_of(matrix: Path) -> str:
    """Give what stands before "matrix" in the name of a MatrixMarket file: ``GSM1_`` of ``GSM1_matrix.mtx.gz``."""
    return re.split(r"matrix|counts?_|sparse|\.mtx", matrix.name, maxsplit=1)[0]


def _several(path: Path, matrices: Sequence[Path]) -> DataError:
    each = " ".join(dict.fromkeys(f"{m.parent / prefix_of(m) if prefix_of(m) else m}" for m in matrices[:8]))
    return DataError(
        f"{path}: holds {len(matrices)} matrices ({_some(matrices)}). One path is one sample: give each by its prefix, "
        f"such as {each}"
    )


def _in_folder(path: Path, seen: frozenset[Path] = frozenset()) -> Path:
    """Find the one file of a folder that holds counts."""
    entries = _visible(path)
    found = [p for p in entries if p.is_file()]
    matrices = _once([p for p in found if bare(p).endswith(".mtx")])
    if len(matrices) > 1:
        raise _several(path, matrices)
    if matrices:
        return matrices[0]
    hdf5 = [p for p in found if bare(p).endswith(HDF5_SUFFIXES)]
    filtered = [p for p in hdf5 if "filtered_" in p.name.lower()]
    others = filtered if len(filtered) == 1 else [p for p in hdf5 if not p.name.lower().startswith(NOT_COUNTS)]
    if not others:
        seen |= {path.resolve()}  # a link may lead back
        for name in NESTED:
            if (path / name).is_dir() and (path / name).resolve() not in seen:
                return _in_folder(path / name, seen)
        others = hdf5 or _once([p for p in found if bare(p).endswith(DENSE_SUFFIXES)])
    if len(others) == 1:
        return others[0]
    folders = [p for p in entries if p.is_dir()]
    remedy = " Give the folder or file that holds the counts."
    broken = [p for p in entries if p.is_symlink() and not p.exists()]
    if broken:
        remedy = f" {broken[0].name} is a link that leads nowhere or in a circle: mend it."
    elif others:
        remedy = f" Give the file itself, such as {others[0]}."
    elif folders:
        remedy = f" If each of its folders is a sample, give each as a path of its own: {shlex.quote(str(path))}/*"
    raise DataError(
        f"{path}: expected matrix.mtx[.gz] with features and barcodes, or one .h5, .h5ad or text table; "
        f"found {_some(entries) or 'nothing'}.{remedy}",
        "no_counts_found",
    )


def _with_prefix(path: Path) -> list[Path]:
    """MatrixMarket files whose name starts with the last part of a path at which nothing is."""
    if path.exists() or not path.parent.is_dir():
        return []
    return _once([p for p in _visible(path.parent) if p.name.startswith(path.name) and bare(p).endswith(".mtx")])


def exists(path: Path) -> bool:
    """Whether a file, a folder, or matrices of this prefix are there."""
    with reading(path):
        return path.exists() or bool(_with_prefix(path))


def locate(path: str | Path) -> Path:
    """File that holds a sample's counts: the file itself, or that of a folder or prefix (``folder/GSM1_``).

    Raises
    ------
    DataError
        If a folder or prefix holds no counts or those of several samples.
    UserError
        If nothing is at `path`.
    """
    path = Path(path)
    with reading(path):
        return _locate(path)


def _locate(path: Path) -> Path:
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        if not path.is_file():  # reading a pipe would wait for ever
            raise DataError(f"{path}: is no regular file. Give a file or a folder.")
        return path
    if path.is_symlink():
        raise DataError(f"{path}: is a link that leads nowhere or in a circle. Mend the link or give the file itself.")
    beside = _with_prefix(path)
    if len(beside) > 1:
        raise _several(path, beside)
    if not beside:
        raise UserError(f"{path}: no such file, folder or prefix. Check the column 'path' of the sample sheet.")
    return beside[0]


def beside(matrix: Path, words: Sequence[str]) -> Path:
    """Feature or barcode file that belongs to a matrix: same prefix first, else the only one of the folder."""
    tables = [p for p in _visible(matrix.parent) if p.is_file() and bare(p).endswith((".tsv", ".txt", ".csv"))]
    # In the order of the words: "Tcells_barcodes.tsv" holds barcodes.
    files = next((hits for w in words if (hits := [p for p in tables if w in bare(p)])), [])
    prefix = prefix_of(matrix)
    same = [p for p in files if p.name.startswith(prefix)] if prefix else files
    found = same if len(same) == 1 or not files else (same or files)
    if len(found) > 1:
        found = _once(found)
    if len(found) != 1:
        raise DataError(
            f"{matrix}: expected one file of {' or '.join(words)} beside it, such as {prefix}{words[0]}.tsv.gz; "
            f"found {_some(found) or 'none'}. Put exactly one there."
        )
    return found[0]


def label_files(matrix: Path) -> tuple[Path, Path]:
    """Features and barcodes of a MatrixMarket file."""
    return beside(matrix, ("features", "genes")), beside(matrix, ("barcodes", "cells"))


def parts(path: str | Path) -> list[Path]:
    """Files a sample is read from; the path itself where they cannot be told (reading it then says why)."""
    try:
        found = locate(path)
        return sorted([found, *label_files(found)]) if bare(found).endswith(".mtx") else [found]
    except UserError:
        return [Path(path)]


def unknown(path: Path) -> DataError:
    """Make the message for a file whose name says nothing, or something known to be unreadable."""
    hint = next((f" {remedy}." for endings, remedy in REMEDIES.items() if bare(path).endswith(endings)), "")
    return DataError(f"{path}: not a known format.{hint} Known: {KNOWN}.")


# --- opening ----------------------------------------------------------------------------------------------------------


def is_gzip(path: Path) -> bool:
    """Whether the content is gzip, whatever the name."""
    with open(path, "rb") as handle:
        return handle.read(2) == b"\x1f\x8b"


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading, decompressed by content, not by name."""
    return gzip.open(path, "rb") if is_gzip(path) else open(path, "rb")  # type: ignore[return-value]


def open_text(path: Path) -> IO[str]:
    """Open a text file: plain or gzip, UTF-8 or (where it says so) UTF-16."""
    with open_bytes(path) as handle:
        head = handle.read(4)
    if head == b"PK\x03\x04":
        raise DataError(f"{path}: an Excel workbook or zip archive, not text. Save the table as CSV.")
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return io.TextIOWrapper(open_bytes(path), encoding=encoding, newline="")


# --- labels and headers -----------------------------------------------------------------------------------------------

# Words of the header of a label file; the name of a cell or gene is none of them (IDS is a gene).
HEADER = re.compile(
    r"x|v\d+|index|names?|id|types?|"
    r"(cells?|barcodes?|genes?|features?|ensembl|symbols?|samples?|library|feature_types?)"
    r"([ _.-]?(barcodes?|names?|ids?|symbols?|types?|gene|index))*",
    re.IGNORECASE,
)


def _text_rows(path: Path) -> list[list[str]]:
    with reading(path), open_text(path) as handle:
        lines = handle.read().splitlines()
        while lines and not lines[-1].strip():
            lines.pop()
        if not lines:
            raise DataError(f"{path}: the file is empty. Download it again.")
        separator = "\t" if "\t" in lines[0] else "," if bare(path).endswith(".csv") or "," in lines[0] else "\t"
        return [list(row) for row in csv.reader(lines, delimiter=separator)]


def labels(path: Path, sizes: Sequence[int]) -> list[list[str]]:
    """Columns of a label file; a first line of header words is one where the others fit the matrix."""
    rows = _text_rows(path)
    words = {w.strip(): bool(HEADER.fullmatch(w.strip())) for w in rows[0] if w.strip()}
    named = all(words.values()) or any(hit and len(w) > 1 for w, hit in words.items())  # a lone X may be a chromosome
    header = len(rows) not in sizes and len(rows) - 1 in sizes and named
    rows = rows[1:] if header else rows
    width = max(1, len(rows[0])) if rows else 0
    for number, row in enumerate(rows, start=2 if header else 1):
        if not any(field.strip() for field in row):
            raise DataError(f"{path}, line {number}: the line is empty. Every line must name a feature or a cell.")
        if len(row) < width:
            raise DataError(f"{path}, line {number}: has {len(row)} columns, the first {width}. Download it again.")
    return [[r[i] for r in rows] for i in range(width)]


def check_mtx(path: Path) -> bool:
    """Refuse a header that does not announce counts; whether the file starts with a byte order mark."""
    with reading(path), open_bytes(path) as handle:
        first = handle.readline(1000)
        marked = first.startswith(b"\xef\xbb\xbf")
        words = first.removeprefix(b"\xef\xbb\xbf").decode("latin-1").lower().split()
        if len(words) != 5 or words[:2] != ["%%matrixmarket", "matrix"]:
            raise DataError(
                f"{path}, line 1: not a Matrix Market file: it must start with '%%MatrixMarket matrix coordinate "
                f"integer general', found {first[:40].decode('latin-1').strip()!a}. Download it again."
            )
        if words[3] not in ("integer", "real", "unsigned-integer") or words[4] != "general":
            raise DataError(f"{path}, line 1: a '{words[3]} {words[4]}' matrix holds no counts. Give raw counts.")
        size: list[bytes] = []
        while not size and (line := handle.readline(100_000)):
            size = [] if line.lstrip().startswith(b"%") else line.split()
        if words[2] == "coordinate" and (len(size) != 3 or int(size[2]) > int(size[0]) * int(size[1])):
            found = b" ".join(size).decode("latin-1")
            raise DataError(
                f"{path}: the line of sizes (rows, columns, entries) is wrong: '{found}'. Download it again."
            )
    return marked
