"""One ordinary ``.h5ad`` of the whole cohort, written sample by sample.  See docs/assemble.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import __version__, io, tables

if TYPE_CHECKING:
    import h5py
    import pandas as pd
    from scipy.sparse import csr_matrix

SHEET = ("patient", "subtype", "tissue", "treatment", "sorting", "chemistry", "dataset")
TYPES = ("cluster", "cell_type", "cell_type_minor", "confidence", "margin", "cell_type_reason", "platelet", "cycling")
MALIGNANCY = ("malignancy", "malignancy_status", "cna_value", "cna_correlation", "clone")
CSC = ("m_csc_prob", "csc_state", "csc_status", "aldh1a3_prob", "aldh1a3_lp_prob", "aldh1a3_state", "aldh1a3_status")
TAM = ("myeloid_class", "m1_z", "m2_z", "tam_class", "tam_status", "tam_state")
COORDINATES = {"X_pca": r"pc_\d+", "X_harmony": r"harmony_\d+", "X_umap": r"umap_[12]", "X_umap_raw": r"umap_raw_[12]"}
CHUNK = 1 << 18  # entries per HDF5 chunk of a sparse matrix
LEVEL = 1  # gzip: counts shrink fourfold; higher levels only cost time


@dataclass(frozen=True)
class Gene:
    """A gene of the union: its Ensembl id and the number of samples whose matrix has it."""

    ensembl: str
    n_samples: int


def union_genes(per_sample: Iterable[tuple[Iterable[str], Iterable[str]]]) -> dict[str, Gene]:
    """Union of the genes of all samples, sorted by symbol (so that the order of samples and genes does not matter).

    Parameters
    ----------
    per_sample
        (symbols, Ensembl ids) of each sample; an empty id is unknown, the first in the alphabet of those known is kept.
    """
    ids: dict[str, str] = {}
    seen: dict[str, int] = {}
    for symbols, ensembl in per_sample:
        for symbol, name in zip(symbols, ensembl, strict=True):
            seen[symbol] = seen.get(symbol, 0) + 1
            known = ids.get(symbol, "")
            ids[symbol] = min(x for x in (known, name) if x) if known or name else ""
    return {symbol: Gene(ids[symbol], seen[symbol]) for symbol in sorted(seen)}


def to_union(x: csr_matrix, columns: np.ndarray, n_genes: int) -> csr_matrix:
    """Move the columns of (cells, genes) CSR to their places in a union of `n_genes`; indices sorted by row."""
    from scipy.sparse import csr_matrix

    out = csr_matrix((x.data, columns[x.indices], x.indptr), shape=(x.shape[0], n_genes))
    out.sort_indices()
    return out


class MatrixWriter:
    """Append CSR blocks to a matrix of an open HDF5 file: memory holds one block, never the cohort.

    X and the layer share their indices by hard link: both have the same non-zeros.
    """

    def __init__(self, handle: h5py.File, n_genes: int):
        self.handle, self.n_genes, self.n_cells, self.nnz = handle, n_genes, 0, 0
        self.indptr: list[np.ndarray] = [np.zeros(1, dtype=np.int64)]
        options = {
            "maxshape": (None,),
            "chunks": (CHUNK,),
            "compression": "gzip",
            "compression_opts": LEVEL,
        }
        group = handle.create_group("X")
        self.layer = handle.create_group("layers").create_group("counts")
        self.x = group.create_dataset("data", (0,), dtype=np.float32, **options)
        self.counts = self.layer.create_dataset("data", (0,), dtype=np.float32, **options)
        # Values repeat whole, and shuffling their bytes would hide that; of indices only the low bytes differ.
        self.indices = group.create_dataset("indices", (0,), dtype=np.int32, shuffle=True, **options)

    def append(self, counts: csr_matrix, x: csr_matrix) -> None:
        """Append the rows of a sample: (cells, genes) counts and their log-normalised values, same sparsity."""
        new = self.nnz + counts.nnz
        for dataset, values in ((self.x, x.data), (self.counts, counts.data), (self.indices, counts.indices)):
            dataset.resize((new,))
            dataset[self.nnz : new] = values
        self.indptr.append(counts.indptr[1:].astype(np.int64) + self.nnz)
        self.n_cells, self.nnz = self.n_cells + counts.shape[0], new

    def close(self) -> None:
        """Write row pointers and the attributes anndata looks for."""
        group = self.handle["X"]
        group.create_dataset("indptr", data=np.concatenate(self.indptr))
        self.layer["indices"], self.layer["indptr"] = group["indices"], group["indptr"]
        for node in (group, self.layer):
            node.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
            node.attrs["shape"] = np.array([self.n_cells, self.n_genes], dtype=np.int64)
        self.handle["layers"].attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})


def plain_columns(obs: pd.DataFrame) -> pd.DataFrame:
    """Columns every reader of ``.h5ad`` understands: text as categories, numbers as float, complete bools as bool.

    A clone number or a truth value that is missing for some cells becomes a category (missing stays missing).
    """
    import pandas as pd

    out: dict[str, Any] = {}
    for name in obs.columns:
        values = obs[name]
        if pd.api.types.is_bool_dtype(values.dtype) and not values.isna().any():
            out[name] = values.astype(bool).to_numpy()
        elif (
            name != "clone"
            and pd.api.types.is_numeric_dtype(values.dtype)
            and not pd.api.types.is_bool_dtype(values.dtype)
        ):
            out[name] = values.astype("float64").to_numpy()
        else:
            text = values.astype("string").astype(object).where(values.notna(), None)
            categories = sorted(set(text.dropna()), key=lambda v: (not v.isdigit(), int(v) if v.isdigit() else 0, v))
            out[name] = pd.Categorical(text, categories=categories)
    return pd.DataFrame(out, index=pd.Index(obs.index.astype(str), dtype=object))


def _rows(path: str | Path, ids: np.ndarray, columns: Sequence[str]) -> pd.DataFrame:
    """Columns of a per-cell table in the order of `ids`; rows or columns it lacks are NA."""
    import pandas as pd

    table = pd.read_parquet(path).set_index("cell_id")
    return table.reindex(index=ids, columns=list(columns))


def fill_tam(tam: pd.DataFrame, cell_type: pd.Series, status: io.Status) -> pd.DataFrame:
    """Fill classes of cells without a row; myeloid cells of a sample without an answer are not assessable."""
    unknown = (cell_type == "myeloid").fillna(False).to_numpy(dtype=bool) & (not status.ok)
    out = tam.copy()
    for column, other in (("tam_class", "not_macrophage"), ("myeloid_class", "not_myeloid")):
        out[column] = (
            out[column].astype("string").mask(out[column].isna().to_numpy() & unknown, "not_assessable").fillna(other)
        )
    if not status.ok:
        out["tam_status"] = out["tam_status"].astype("string").fillna(status.status)
    return out


def sample_obs(record: dict[str, Any], qc: pd.DataFrame, parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Obs of one sample: sheet columns, then the columns of the stages; all parts have the rows of `qc`."""
    import pandas as pd

    sheet = {"sample": record["sample"], **{c: record.get(c) or None for c in SHEET}}
    taken = set(sheet) | set(qc.columns) | {c for p in parts for c in p.columns}
    for key, value in (record.get("extra") or {}).items():
        sheet[f"sheet_{key}" if key in taken else key] = None if value is None else str(value)
    sheet["patient"] = sheet["patient"] or record["sample"]
    first = pd.DataFrame({k: pd.Series([v] * len(qc), index=qc.index, dtype="string") for k, v in sheet.items()})
    first["is_counts"] = bool(record["is_counts"])
    return pd.concat([first, *parts, qc], axis=1)


def column_notes() -> dict[str, str]:
    """What the columns of obs mean, from the table contracts."""
    notes: dict[str, str] = {}
    for name in ("qc", "cell_types", "malignancy", "csc", "tam"):
        for c in tables.CONTRACTS[name].columns:
            missing = f"; NA: {c.na}" if c.na else ""
            notes.setdefault(c.name, f"{c.what} [{c.unit}]{missing}")
    notes["z_*"] = "gene-set score against matched null, within the cell's compartment [z]"
    notes["is_counts"] = "layer 'counts' holds counts; False: the values of the input, such as TPM"
    return notes


def run_assemble(
    counts: Sequence[str | Path],
    qc: Sequence[str | Path],
    embedding: str | Path,
    clusters: str | Path,
    cell_types: str | Path,
    malignancy: Sequence[str | Path],
    scores: Sequence[str | Path],
    csc: Sequence[str | Path],
    tam: Sequence[str | Path],
    out: str | Path,
) -> None:
    """Write all kept cells of all samples with everything known about them as one AnnData file.

    X is log1p of counts per 10,000, ``layers["counts"]`` the raw values; both sparse over the union of genes.  A gene
    absent from a sample's matrix is 0 there, not measured: ``var["n_samples_present"]`` counts the samples that have
    it.  Sequences are in sample order.  Samples without a kept cell add nothing.
    """
    import h5py
    import pandas as pd
    from anndata.io import write_elem

    samples = [io.Counts(p) for p in counts]
    kept = [io.kept_cells(p) for p in qc]
    used = [i for i, ids in enumerate(kept) if len(ids)]
    genes = union_genes((samples[i].genes, samples[i].ensembl) for i in used)
    place = {g: i for i, g in enumerate(genes)}
    blocks: list[pd.DataFrame] = []
    with io.atomic(out) as temporary, h5py.File(temporary, "w") as handle:
        handle.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        writer = MatrixWriter(handle, len(genes))
        for i in used:
            sample, ids = samples[i], kept[i]
            x = sample.matrix(cells=ids)
            x.eliminate_zeros()
            columns = np.fromiter((place[g] for g in sample.genes), dtype=np.int32, count=len(sample.genes))
            raw = to_union(x, columns, len(genes))
            writer.append(raw, io.lognormalise(raw))
            del x, raw
            states = [c for c in pd.read_parquet(scores[i]).columns if c.startswith("z_")]
            quality = pd.read_parquet(qc[i]).set_index("cell_id").reindex(ids)
            types = io.read_cells(cell_types, sample.sample).reindex(index=ids, columns=list(TYPES))
            groups = io.read_cells(clusters, sample.sample).reindex(ids)
            types["cluster"] = groups["cluster"]
            macrophage = fill_tam(_rows(tam[i], ids, TAM), types["cell_type"], io.read_status(tam[i]))
            stem = _rows(csc[i], ids, CSC).fillna({"csc_state": "not_assessable", "aldh1a3_state": "not_assessable"})
            parts = [types, _rows(malignancy[i], ids, MALIGNANCY), stem, macrophage, _rows(scores[i], ids, states)]
            blocks.append(sample_obs(sample.record, quality, parts))
        writer.close()
        ids = np.concatenate([b.index.to_numpy(dtype=object) for b in blocks]) if blocks else np.array([], dtype=object)
        obs = pd.concat(blocks) if blocks else pd.DataFrame(index=pd.Index([], dtype=object))
        obs = plain_columns(obs)
        obs.index.name = None
        write_elem(handle, "obs", obs)
        var = pd.DataFrame(
            {
                "ensembl_id": np.array([g.ensembl for g in genes.values()], dtype=object),
                "n_samples_present": np.array([g.n_samples for g in genes.values()], dtype=np.int64),
            },
            index=pd.Index(list(genes), dtype=object),
        )
        write_elem(handle, "var", var)
        write_elem(handle, "obsm", coordinates(embedding, ids))
        note = {"version": __version__, "columns": json.dumps(column_notes(), sort_keys=True)}
        note["absent_genes"] = "a gene absent from a sample's matrix is 0 in its cells: see var['n_samples_present']"
        write_elem(handle, "uns", {"nicheloop": note})
        for empty in ("varm", "obsp", "varp"):
            write_elem(handle, empty, {})


def coordinates(embedding: str | Path, ids: np.ndarray) -> dict[str, np.ndarray]:
    """(cells, components) float32 arrays named as scanpy expects, in the order of `ids`; NaN: no coordinates."""
    import re

    import pandas as pd

    table = pd.read_parquet(embedding).set_index("cell_id").reindex(ids)
    out = {}
    for name, pattern in COORDINATES.items():
        columns = [c for c in table.columns if re.fullmatch(pattern, c)]
        columns.sort(key=lambda c: int(c.rsplit("_", 1)[1]))
        if columns:
            out[name] = table[columns].to_numpy(dtype=np.float32)
    return out
