"""Files: atomic writes, tables with their status, and counts read without loading what is not needed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import tables
from nicheloop.errors import NotAssessable, UserError, error_number

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from scipy.sparse import csr_matrix

METADATA_KEY = b"nicheloop"
ROW_GROUP = 20_000  # rows of a Parquet table that are read or passed over together: some samples' worth of cells


FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}
_HOST = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:40]
_SERIAL = itertools.count()


def unwritable(path: str | Path, err: BaseException) -> UserError | None:
    """Message for a file that cannot be written because of the disk or its rights; None for any other error."""
    code = error_number(err)
    if code in FULL:
        cause = f"{os.strerror(code)}. Make room or choose another results folder"
    elif code in FORBIDDEN:
        cause = f"{os.strerror(code)}. Make the folder writable or choose another results folder"
    elif code == errno.EIO:
        cause = f"{os.strerror(code)}. Look at the disk or the network file system"
    else:
        return None
    return UserError(
        f"{path}: cannot be written ({cause}), then start again: nothing is half-written, and what was done is kept."
    )


def own_name(path: Path, ending: str) -> Path:
    """Hidden name beside `path` that no other process and no other call uses."""
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}.{next(_SERIAL)}.{ending}")


def stale(temporary: Path) -> bool:
    """Whether a temporary file was left by a process of this machine that is no more."""
    host, _, pid = temporary.name.split(".")[-3].rpartition("-") if temporary.name.count(".") > 3 else ("", "", "")
    if host != _HOST or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def leftovers(folder: Path, name: str = "*") -> list[Path]:
    """Temporary files of `name` left in `folder` by processes that were killed."""
    pattern = re.compile(r"\.(.+)\.[A-Za-z0-9-]*-\d+\.\d+\.tmp")
    found = []
    for path in folder.glob(".*.tmp"):
        match = pattern.fullmatch(path.name)
        if match and name in ("*", match[1]) and stale(path):
            found.append(path)
    return found


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place only when the block succeeds.

    The temporary name holds machine, process and a running number, so that two processes, on one machine or on two
    nodes of a cluster, never share one.  File and folder are synced: a name that is seen holds the whole file.  What a
    killed process of this machine left for the same `path` is removed.

    Raises
    ------
    UserError
        If the disk is full, read-only or broken, or the folder belongs to somebody else.
    """
    path = Path(path)
    temporary = own_name(path, "tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in leftovers(path.parent, path.name):
            old.unlink(missing_ok=True)
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as err:
        message = unwritable(path, err)
        if message is None or (isinstance(err, OSError) and _elsewhere(err, path, temporary)):
            raise
        raise message from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _elsewhere(err: OSError, *ours: Path) -> bool:
    """Whether an error is about a file that is not one of ours, such as an input that may not be read."""
    name = err.filename
    return isinstance(name, str | Path) and not any(Path(name) in (p, *p.parents) for p in ours)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some network file systems refuse
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256(path: str | Path) -> str:
    """Checksum of a file, read in blocks."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, keys sorted."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Status:
    """What a stage could do for a sample: ``ok`` or a named reason, in words, with its figures."""

    stage: str
    sample: str
    status: str = "ok"
    reason: str = ""
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the stage gave an answer."""
        return self.status == "ok"


def _plain(value: Any) -> Any:
    """JSON-ready copy: numpy scalars become Python's, NaN becomes null."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _to_arrow(table: pd.DataFrame) -> pa.Table:
    """The table as Arrow's; categories are written out by Arrow, which makes no Python object per row."""
    import pandas as pd
    import pyarrow as pa

    words = [c for c in table.columns if isinstance(table[c].dtype, pd.CategoricalDtype)]
    if not words:
        return pa.Table.from_pandas(table, preserve_index=False)
    first = pa.Table.from_pandas(table.head(0).astype(dict.fromkeys(words, pd.StringDtype())), preserve_index=False)

    def column(field: pa.Field) -> Any:
        if field.name not in words:
            return pa.array(table[field.name], type=field.type, from_pandas=True)
        values = table[field.name].cat
        codes = values.codes.to_numpy()
        names = pa.array(list(values.categories), type=field.type)
        return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), names).cast(field.type)

    return pa.Table.from_arrays([column(field) for field in first.schema], schema=first.schema)


def write_table(table: pd.DataFrame, path: str | Path, name: str, status: Status | None = None) -> None:
    """Check a table against its contract and write it atomically (Parquet, or TSV with NA by the file's ending)."""
    if str(path).endswith(".tsv"):
        table = tables.conform(table, name)
        with atomic(path) as temporary:
            table.to_csv(temporary, sep="\t", index=False, na_rep="NA", float_format="%.6g", lineterminator="\n")
        return
    import pyarrow.parquet as pq

    arrow = _to_arrow(tables.checked(table, name))
    text = json.dumps(_plain(asdict(status)) if status else {}, sort_keys=True)
    arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), METADATA_KEY: text.encode()})
    with atomic(path) as temporary:
        pq.write_table(arrow, temporary, compression="zstd", row_group_size=ROW_GROUP)


def read_table(
    path: str | Path, columns: list[str] | None = None, *, where: list[tuple[str, str, Any]] | None = None
) -> pd.DataFrame:
    """Read a table written by `write_table`, whole or the named columns.

    `where`: only rows that fulfil all of ``(column, "==" or "in", value)``; of Parquet tables only.
    """
    import pandas as pd

    if str(path).endswith(".tsv"):
        if where is not None:
            raise ValueError(f"{path}: rows are chosen in Parquet tables only")
        return pd.read_csv(path, sep="\t", na_values=["NA"], keep_default_na=False, usecols=columns)
    return pd.read_parquet(path, columns=columns, filters=where)


def read_cells(path: str | Path, sample: str, columns: list[str] | None = None) -> pd.DataFrame:
    """Read one sample's rows of a cohort table of cells, indexed by ``cell_id``."""
    wanted = None if columns is None else list(dict.fromkeys(["cell_id", *columns]))
    return read_table(path, wanted, where=[("sample", "==", sample)]).set_index("cell_id")


def read_status(path: str | Path) -> Status:
    """Read the status a Parquet table carries."""
    import pyarrow.parquet as pq

    metadata = pq.read_schema(path).metadata or {}
    values = json.loads(metadata.get(METADATA_KEY, b"{}"))
    return Status(**values) if values else Status(stage="", sample="")


@dataclass
class Result:
    """What a stage fills in while it runs; see `stage_output`."""

    table: pd.DataFrame | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, pd.DataFrame] = field(default_factory=dict)  # contract -> table


@contextlib.contextmanager
def stage_output(
    out: str | Path, name: str, *, stage: str, sample: str = "cohort", also: dict[str, str | Path] | None = None
) -> Iterator[Result]:
    """Write what a stage computed, or an empty table with the named reason it could not.

    Set ``result.table`` (and ``result.extra[contract] = table`` for each contract of `also`) inside the block.  A
    `NotAssessable` raised inside becomes the status of empty, contract-valid tables: the stage succeeds.
    """
    result = Result()
    status = Status(stage, sample)
    also = also or {}
    try:
        yield result
        status = Status(stage, sample, summary=result.summary)
        table = tables.empty(name) if result.table is None else result.table
    except NotAssessable as err:
        status = Status(stage, sample, err.status, err.reason, result.summary)
        table = tables.empty(name) if result.table is None else result.table
    for contract, path in also.items():
        write_table(result.extra.get(contract, tables.empty(contract)), path, contract, status)
    write_table(table, out, name, status)


class Counts:
    """Counts of one sample, as written by ingest; nothing is read before it is asked for.

    Attributes
    ----------
    cell_ids : (cells,) str, ``<sample>:<barcode>``
    genes : (genes,) str, current symbols, unique
    ensembl : (genes,) str, ``""`` where unknown
    record : dict, what ingest recorded: sample, patient, sheet columns, guards, status
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        import h5py

        try:
            handle = h5py.File(self.path, "r")
        except OSError as err:
            cause = str(err).splitlines()[0]
            raise UserError(f"{self.path}: cannot be read as counts written by nicheloop ingest ({cause}).") from None
        with handle:
            yield handle

    def _strings(self, group: str, key: str | None = None) -> np.ndarray:
        with self._open() as handle:
            node = handle[group]
            values = node[key or node.attrs["_index"]]
            if "categories" in getattr(values, "keys", list)():
                codes, categories = values["codes"][:], values["categories"].asstr()[:]
                return (
                    np.where(codes < 0, "", np.asarray(categories, dtype=object)[codes])
                    if len(categories)
                    else codes.astype(object)
                )
            return np.asarray(values.asstr()[:], dtype=object)

    @cached_property
    def cell_ids(self) -> np.ndarray:
        """(cells,) ``<sample>:<barcode>``."""
        return self._strings("obs")

    @cached_property
    def genes(self) -> np.ndarray:
        """(genes,) current symbols."""
        return self._strings("var")

    @cached_property
    def ensembl(self) -> np.ndarray:
        """(genes,) Ensembl ids without version, empty where unknown."""
        return self._strings("var", "ensembl_id")

    @cached_property
    def record(self) -> dict[str, Any]:
        """What ingest recorded of the sample."""
        with self._open() as handle:
            value = handle["uns"]["nicheloop"][()]
        return json.loads(value.decode() if isinstance(value, bytes) else value)

    @property
    def sample(self) -> str:
        """Name of the sample."""
        return str(self.record["sample"])

    def annotation(self, column: str) -> np.ndarray:
        """(cells,) a text column of obs, such as the user's own annotation."""
        return self._strings("obs", column)

    def matrix(self, cells: Iterable[str] | None = None, genes: Iterable[str] | None = None) -> csr_matrix:
        """Counts as (cells, genes) float32 CSR, in the order asked for.

        Raises
        ------
        KeyError
            If a cell or gene is not in the sample.
        """
        from scipy.sparse import csr_matrix

        with self._open() as handle:
            node = handle["X"]
            shape = tuple(int(n) for n in node.attrs["shape"])
            data = node["data"][:].astype(np.float32, copy=False)
            x = csr_matrix((data, node["indices"][:], node["indptr"][:]), shape=shape)
        if cells is not None:
            x = x[positions(self.cell_ids, cells, "cell")]
        if genes is not None:
            x = x[:, positions(self.genes, genes, "gene")]
        return x

    def matrix_ahead(self) -> Callable[[], csr_matrix]:
        """Start reading the whole matrix in a thread; calling the result waits for it, and raises what reading raised.

        Reading holds no lock of the interpreter, so that modules can be loaded meanwhile.
        """
        from concurrent.futures import ThreadPoolExecutor

        import h5py  # noqa: F401  here, so that two threads never load modules at once
        import scipy.sparse  # noqa: F401

        pool = ThreadPoolExecutor(max_workers=1)
        reading = pool.submit(self.matrix)
        pool.shutdown(wait=False)
        return reading.result

    def require(self, *, counts: bool = True) -> None:
        """Raise `NotAssessable` if the sample could not be read, is empty, or holds no counts where they are needed."""
        if self.record["status"] != "ok":
            raise NotAssessable(self.record["status"], self.record["reason"])
        if len(self.cell_ids) == 0:
            raise NotAssessable("no_cells", "the sample holds no cell")
        if counts and not self.record["is_counts"]:
            raise NotAssessable("no_counts", "the matrix holds normalised values (such as TPM), not counts")


def positions(values: np.ndarray, wanted: Iterable[str], what: str) -> np.ndarray:
    """(wanted,) positions of `wanted` in `values`; a KeyError names the first that is missing."""
    lookup = {v: i for i, v in enumerate(values)}
    if hasattr(wanted, "to_numpy"):  # a pandas index hands out its items slowly
        wanted = wanted.to_numpy(dtype=object)
    try:
        return np.fromiter((lookup[w] for w in wanted), dtype=np.int64)
    except KeyError as err:
        raise KeyError(f"{what} {err.args[0]!r} is not in this sample") from None


def kept_cells(qc: str | Path) -> np.ndarray:
    """(kept,) cell ids that passed quality control, in file order."""
    table = read_table(qc, columns=["cell_id", "qc_pass"])
    return table.loc[table["qc_pass"].astype(bool), "cell_id"].to_numpy(dtype=object)


def lognormalise(x: csr_matrix, target: float = 1e4) -> csr_matrix:
    """log1p of counts scaled to `target` per cell; (cells, genes) CSR in, float32 CSR out; an empty cell stays zero."""
    totals = np.asarray(x.sum(axis=1)).ravel()
    out = x.astype(np.float32, copy=True)
    scale = np.divide(target, totals, out=np.zeros_like(totals, dtype=np.float64), where=totals > 0)
    out.data = np.log1p(out.data * np.repeat(scale, np.diff(out.indptr))).astype(np.float32)
    return out
