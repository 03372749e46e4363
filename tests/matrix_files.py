"""Small count matrices of every format, and what reading them gives."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.io import mmwrite

from nicheloop import genes, ingest, io
from nicheloop.config_cells import Ingest
from nicheloop.errors import NotAssessable

GENES = ["CD44", "CD24", "IL6", "CXCL8", "PPBP", "EPCAM", "KRT8", "ALDH1A3"]
SYMBOLS = sorted(s for s, e in genes._ensembl_of().items() if e)
X = np.random.default_rng(0).poisson(1.0, (5, len(GENES)))
CELLS = [f"AAAC{i}-1" for i in range(len(X))]


def triplet(
    folder: Path, x: np.ndarray, features: list[list[str]], barcodes: list[str], *, prefix: str = "", v2: bool = False
) -> Path:
    """10x folder: v2 plain genes.tsv, or v3 gzipped features.tsv; `x` is cells x features."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "genes.tsv" if v2 else "features.tsv.gz": features,
        "barcodes.tsv" if v2 else "barcodes.tsv.gz": [[b] for b in barcodes],
    }
    for name, rows in texts.items():
        text = "".join("\t".join(r) + "\n" for r in rows)
        (folder / (prefix + name)).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    mmwrite(folder / f"{prefix}matrix.mtx", sparse.coo_matrix(x.T))
    if not v2:
        plain = folder / f"{prefix}matrix.mtx"
        (folder / f"{prefix}matrix.mtx.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    return folder


def features_of(symbols: list[str]) -> list[list[str]]:
    return [[genes.ensembl_id(s), s, "Gene Expression"] for s in symbols]


def tenx_h5(path: Path, x: np.ndarray, symbols: list[str], *, version: int = 3, kinds: list[str] | None = None) -> Path:
    csr = sparse.csr_matrix(x)
    with h5py.File(path, "w") as handle:
        group = handle.create_group("matrix" if version == 3 else "GRCh38")
        group["data"], group["indices"], group["indptr"] = csr.data.astype(np.int32), csr.indices, csr.indptr
        group["shape"] = np.array([x.shape[1], x.shape[0]])
        group["barcodes"] = np.array(CELLS, dtype="S")
        ids = np.array([genes.ensembl_id(s) for s in symbols], dtype="S")
        if version == 3:
            group["features/id"], group["features/name"] = ids, np.array(symbols, dtype="S")
            group["features/feature_type"] = np.array(kinds or ["Gene Expression"] * len(symbols), dtype="S")
        else:
            group["genes"], group["gene_names"] = ids, np.array(symbols, dtype="S")
    return path


def h5ad(path: Path, x: Any, symbols: list[str] = GENES, *, obs: pd.DataFrame | None = None, **layers: Any) -> Path:
    obs = pd.DataFrame(index=CELLS) if obs is None else obs.set_axis(CELLS, axis=0)
    adata = ad.AnnData(x, obs=obs, var=pd.DataFrame(index=symbols))
    for name, layer in layers.items():
        adata.layers[name] = layer
    adata.write_h5ad(path)
    return path


def dense(
    path: Path, x: np.ndarray, rows: list[str], columns: list[str], *, sep: str = "\t", corner: str | None = "gene"
) -> Path:
    header = sep.join(columns if corner is None else [corner, *columns])
    text = "\n".join([header, *(sep.join([r, *map(str, v)]) for r, v in zip(rows, x, strict=True))]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


# What the last sentence of a message starts with.
REMEDY = re.compile(
    r"([.:;] )(Add|Check|Correct|Download|download|Each|Every|Export|Give|give|Keep|Mend|One path is|Put|Save|Swap|"
    r"The three files must|If it is text, save|If each of its folders|Unpack|Write|write)\b[^:]*"
)


def run(path: Path, tmp_path: Path, **row: Any) -> tuple[io.Counts, dict[str, Any]]:
    out, record = tmp_path / "out" / "counts.h5ad", tmp_path / "out" / "ingest.json"
    ingest.run_ingest(path, out, record, row={"sample": "s1", "path": str(path), **row}, options=Ingest())
    counts = io.Counts(out)
    assert json.loads(record.read_text()) == counts.record
    if counts.record["status"] != "ok":  # one message: a file that is there, and what to do
        assert str(path if path.is_file() else path.parent) in counts.record["reason"]
        assert REMEDY.search(counts.record["reason"]), counts.record["reason"]
    return counts, counts.record


def check(counts: io.Counts, x: np.ndarray = X, symbols: list[str] = GENES) -> None:
    assert counts.genes.tolist() == symbols
    assert counts.cell_ids.tolist() == [f"s1:{c}" for c in CELLS]
    assert counts.ensembl.tolist() == [genes.ensembl_id(s) for s in symbols]
    np.testing.assert_array_equal(counts.matrix().toarray(), x)


def fails(path: Path, tmp_path: Path, status: str, reason: str) -> None:
    counts, record = run(path, tmp_path)
    assert record["status"] == status
    assert reason in record["reason"]
    assert str(path.name) in record["reason"]
    assert len(counts.cell_ids) == len(counts.genes) == record["n_cells"] == 0
    with pytest.raises(NotAssessable):
        counts.require()


IDS = "".join(f"{genes.ensembl_id(g)}\t{g}\n" for g in GENES)
BARCODES = "".join(f"{c}\n" for c in CELLS)
BANNER = "%%MatrixMarket matrix coordinate integer general\n"
ENTRIES = [f"{g + 1} {c + 1} {X[c, g]}\n" for c, g in zip(*np.nonzero(X), strict=True)]
SOUND = BANNER + f"8 5 {len(ENTRIES)}\n" + "".join(ENTRIES)
ENDINGS = re.compile("(_mtx|_tsv)(_gz)?$")
TABLE = "gene,a,b\nCD44,1,2\nIL6,3,0\n"


def parts(folder: Path, **files: Any) -> Path:
    """A 10x folder of version 2; keywords replace files (None: leave out), ``_`` standing for the dot."""
    folder.mkdir()
    whole: dict[str, Any] = {"matrix_mtx": SOUND, "genes_tsv": IDS, "barcodes_tsv": BARCODES, **files}
    for name, content in whole.items():
        if content is not None:
            data = content if isinstance(content, bytes) else content.encode()
            (folder / ENDINGS.sub(lambda m: m[0].replace("_", "."), name)).write_bytes(data)
    return folder


def loom(
    path: Path, *, x: np.ndarray | None = None, cells: list[str] | None = None, cell_id: str | None = "CellID"
) -> Path:
    """Loom file of genes x cells with symbols, Ensembl ids and a label of the cells."""
    x, cells = X.T if x is None else x, CELLS if cells is None else cells
    with h5py.File(path, "w") as handle:
        handle["matrix"] = x
        handle.create_group("layers")
        handle["row_attrs/Gene"] = np.array(GENES, dtype="S")
        handle["row_attrs/Accession"] = np.array([genes.ensembl_id(g) for g in GENES], dtype="S")
        handle.create_group("col_attrs")
        if cell_id is not None:
            handle[f"col_attrs/{cell_id}"] = np.array(cells, dtype="S")
        handle["col_attrs/cluster"] = np.array(["a"] * x.shape[1], dtype="S")
        handle["col_attrs/nUMI"] = np.asarray(x).sum(axis=0)
    return path
