"""Reading counts and naming genes: one ``counts.h5ad`` and one record per sample.  See docs/ingest.md."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import genes, io, sources
from nicheloop.errors import UserError
from nicheloop.inputs import DataError
from nicheloop.rawcounts import SNIFFED, RawCounts, known_share
from nicheloop.readers import read_counts

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

    from nicheloop.config_cells import Ingest

__all__ = ["Named", "RawCounts", "collapse", "name_genes", "read_counts", "run_ingest"]

SHEET = (
    "sample",
    "patient",
    "subtype",
    "tissue",
    "treatment",
    "sorting",
    "chemistry",
    "dataset",
    "malignancy",
    "annotation",
)
INPUT = ("path", "format", "source", "raw")
EXAMPLES = 10  # names of each kind shown in the record
MANY_LABELS = 200  # an annotation of more different values is no annotation; its counts are not recorded
MANY_UNKNOWN = 0.2  # share of unknown features worth a warning: a second species, or another annotation
# Columns of a cells' table that tell samples or patients apart; one path is one sample of one patient.
PEOPLE = {
    "patient",
    "patientid",
    "donor",
    "donorid",
    "individual",
    "subject",
    "subjectid",
    "sample",
    "sampleid",
    "origident",
}


@dataclass
class Named:
    """Counts under today's gene names.

    Attributes
    ----------
    matrix : (cells, genes) CSR
    symbols : (genes,) unique, in order of first appearance
    ensembl : (genes,) Ensembl ids, ``""`` where unknown
    report : what happened to the features (n_features, n_resolved, n_unresolved, n_genes, n_duplicates_summed ...)
    """

    matrix: csr_matrix
    symbols: np.ndarray
    ensembl: np.ndarray
    report: dict[str, Any]


def collapse(matrix: csr_matrix, names: np.ndarray) -> tuple[csr_matrix, np.ndarray]:
    """Sum columns of the same name.

    Parameters
    ----------
    matrix
        (cells, features) CSR.
    names
        (features,) names.

    Returns
    -------
    tuple
        (cells, unique names) CSR with the same row sums; (unique names,) first column of each, ascending.
    """
    from scipy.sparse import csr_matrix

    position: dict[str, int] = {}
    group = np.fromiter((position.setdefault(n, len(position)) for n in names), dtype=np.int64, count=len(names))
    first = np.unique(group, return_index=True)[1]
    if len(first) < len(names):
        indicator = csr_matrix(
            (np.ones(len(names), dtype=matrix.dtype), (np.arange(len(names)), group)), shape=(len(names), len(first))
        )
        matrix = csr_matrix(matrix @ indicator)
    matrix.sort_indices()
    return matrix, first


def name_genes(raw: RawCounts) -> Named:
    """Give the features today's names and sum those that are the same gene; unknown ones keep their own name."""
    resolved = genes.resolve_features(raw.names, raw.identifiers)
    matrix, first = collapse(raw.matrix, resolved.symbols)
    unknown = [str(n) for n, k in zip(resolved.symbols, resolved.known, strict=True) if not k]
    counted: dict[str, int] = {}
    for symbol in resolved.symbols:
        counted[symbol] = counted.get(symbol, 0) + 1
    dates = genes.spreadsheet_dates(unknown)
    unclear = [n for n in unknown if genes.ambiguous(n)]
    report: dict[str, Any] = {
        "n_features": len(raw.names),
        "n_resolved": int(resolved.known.sum()),
        "n_unresolved": len(unknown),
        "unresolved_examples": unknown[:EXAMPLES],
        "n_genes": len(first),
        "n_duplicates_summed": len(raw.names) - len(first),
        "duplicate_examples": [str(s) for s, n in counted.items() if n > 1][:EXAMPLES],
        "n_ambiguous": len(unclear),
        "ambiguous_examples": unclear[:EXAMPLES],
        "n_spreadsheet_dates": len(dates),
    }
    return Named(matrix, resolved.symbols[first], resolved.ensembl[first], report)


def base_record(row: Mapping[str, Any]) -> dict[str, Any]:
    """Record of a sample before its file is read: the sheet's columns, further ones under ``extra``."""

    def text(value: Any) -> str | None:
        if value is None or value != value or str(value).strip() in ("", "NA"):
            return None
        return str(value).strip()

    sample = text(row.get("sample"))
    if sample is None:
        raise UserError("the sample sheet gives no name in the column 'sample'.")
    further = {**dict(row.get("extra") or {}), **{k: v for k, v in row.items() if k not in (*SHEET, *INPUT, "extra")}}
    record: dict[str, Any] = {key: text(row.get(key)) for key in SHEET}
    record |= {
        "sample": sample, "patient": record["patient"] or sample, "path": text(row.get("path")),
        "format": text(row.get("format")), "status": "ok", "reason": "", "is_counts": False, "n_cells": 0,
        "n_features": 0, "n_resolved": 0, "n_unresolved": 0, "n_genes": 0,
        "n_duplicates_summed": 0, "guards": {}, "warnings": [], "annotation_missing": False,
        "extra": {str(k): text(v) for k, v in further.items()},
    }  # fmt: skip
    return record


def clean_obs(obs: pd.DataFrame) -> pd.DataFrame:
    """Columns of a cells' table as text or numbers, under names that can be written; empty columns are dropped."""
    import pandas as pd

    out: dict[str, Any] = {}
    for column in obs.columns:
        values = obs[column]
        name = str(column).replace("/", "_")
        if name in ("sample", "barcode", "annotation_input", "_index", "cell_id"):
            name = f"input_{name}"
        if name in out or values.isna().all():
            continue
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            out[name] = values.to_numpy(dtype=np.float64, na_value=np.nan)
            if np.isfinite(out[name]).all() and pd.api.types.is_integer_dtype(values):
                out[name] = out[name].astype(np.int64)
        else:
            missing = values.isna().to_numpy()
            out[name] = np.array(["" if m else str(v) for v, m in zip(values, missing, strict=True)], dtype=object)
    return pd.DataFrame(out, index=obs.index)


def mixed_people(obs: pd.DataFrame | None) -> list[str]:
    """One warning for each column of the cells' table that tells several samples or patients apart."""
    found: list[str] = []
    if obs is None:
        return found
    for column in obs.columns:
        if "".join(c for c in str(column).lower() if c.isalnum()) in PEOPLE:
            values = sorted({str(v) for v in obs[column].dropna()})
            if len(values) > 1:
                found.append(
                    f"column '{column}' of the cells holds {len(values)} values (such as {', '.join(values[:3])}), "
                    "but all cells were taken as one sample of one patient. Write one file per sample"
                )
    return found


# Columns that CELLxGENE puts into every file; where one value holds for all cells, it describes the sample.
CELLXGENE = ("disease", "tissue", "tissue_type", "assay", "suspension_type", "sex", "development_stage", "donor_id")
HEALTHY = "PATO:0000461"


def cellxgene_terms(obs: pd.DataFrame | None, record: dict[str, Any]) -> None:
    """Fill what the sheet leaves open from the ontology terms of a CELLxGENE file; the sheet always wins.

    A sample without disease is normal tissue; the assay is the chemistry; the other terms go to ``extra``.
    """
    if obs is None or "disease_ontology_term_id" not in obs.columns:
        return
    found = {k: {str(v) for v in obs[k].dropna()} for k in CELLXGENE if k in obs.columns}
    single = {k: next(iter(v)) for k, v in found.items() if len(v) == 1}
    record["extra"] = {**{f"cellxgene_{k}": v for k, v in single.items()}, **record["extra"]}
    if record["tissue"] is None and set(obs["disease_ontology_term_id"].astype(str)) == {HEALTHY}:
        record["tissue"] = "normal"
    if record["chemistry"] is None and "assay" in single:
        record["chemistry"] = single["assay"]
    if "is_primary_data" in obs.columns and not obs["is_primary_data"].astype(bool).all():
        record["warnings"].append(
            "is_primary_data is false for some cells: they are also in another data set, count them once"
        )


def write_counts(
    path: str | Path,
    named: Named | None,
    barcodes: list[str],
    record: Mapping[str, Any],
    obs: pd.DataFrame | None = None,
) -> None:
    """Write ``counts.h5ad`` atomically: X (CSR float32), obs ``<sample>:<barcode>``, var symbols, the record in uns."""
    import anndata as ad
    import pandas as pd
    from scipy.sparse import csr_matrix

    sample = str(record["sample"])
    x = csr_matrix((0, 0), dtype=np.float32) if named is None else csr_matrix(named.matrix, dtype=np.float32)
    index = pd.Index([f"{sample}:{b}" for b in barcodes], dtype=object)
    table = pd.DataFrame({"sample": sample, "barcode": np.asarray(barcodes, dtype=object)}, index=index)
    if obs is not None:
        table = pd.concat([table, obs.set_axis(index, axis=0)], axis=1)
    symbols, ensembl = ([], []) if named is None else (named.symbols, named.ensembl)
    var = pd.DataFrame(
        {"ensembl_id": np.asarray(ensembl, dtype=object)}, index=pd.Index(np.asarray(symbols, dtype=object))
    )
    adata = ad.AnnData(x, obs=table, var=var)
    adata.uns["nicheloop"] = json.dumps(record, sort_keys=True)
    with io.atomic(path) as temporary:
        adata.write_h5ad(temporary)


def run_ingest(
    path: str | Path, out: str | Path, record_out: str | Path, *, row: dict[str, Any], options: Ingest
) -> None:
    """Read one sample and write ``counts.h5ad`` and its record.

    Parameters
    ----------
    path
        File, folder or prefix of the sample's counts; for a row with ``source``, the folder of receipts of downloads.
    out, record_out
        ``counts.h5ad`` and ``ingest.json`` to write.
    row
        The sample's row of the sheet; ``format`` and ``annotation`` steer reading, further columns go to ``extra``.
    options
        Section ``ingest`` of the configuration.

    Raises
    ------
    UserError
        If nothing is at `path` or the row is wrong.  Data that cannot be used do not raise: both files are written,
        with no cells, a status (``unreadable``, ``no_counts_found``, ``not_human_genes``, ``no_cells``) and the reason.
    """
    record = base_record(row)
    named, barcodes, obs = None, [], None
    try:
        raw = _read(Path(path), row.get("source"), record, options)
        record["format"] = raw.format
        record |= {"source": raw.source, "n_other_features": raw.n_other_features, "warnings": list(raw.notes)}
        found = name_genes(raw)
        record |= found.report
        share = found.report["n_resolved"] / max(1, found.report["n_features"])
        if share < options.min_resolved:
            if known_share(raw.barcodes[:SNIFFED]) > options.min_resolved:
                raise DataError(
                    f"{path}: its cells are named like genes ({', '.join(raw.barcodes[:3])}) and its genes are not: "
                    "the matrix is transposed. Swap cells and genes.",
                    "not_human_genes",
                )
            dates = record["n_spreadsheet_dates"]
            mangled = f" {dates} gene names became dates in a spreadsheet (1-Mar)." if dates else ""
            raise DataError(
                f"{path}: only {share:.0%} of {found.report['n_features']} features are known human genes (such as "
                f"{', '.join(raw.names[:3])}).{mangled} Give human data with gene symbols or Ensembl ids.",
                "not_human_genes",
            )
        if not raw.barcodes:
            raise DataError(f"{path}: the matrix holds no cell. Give one with cells.", "no_cells")
        named, barcodes = found, raw.barcodes
        if len(barcodes) == 1 or record["n_genes"] == 1:
            what = "cell" if len(barcodes) == 1 else "gene"
            record["warnings"].append(f"the matrix holds a single {what}: nothing can be estimated from it")
        record |= {
            "is_counts": raw.is_counts,
            "n_cells": len(barcodes),
            "guards": genes.guards(named.symbols, named.ensembl),
        }
        if record["n_spreadsheet_dates"]:
            record["warnings"].append(
                f"{record['n_spreadsheet_dates']} gene names became dates in a spreadsheet (1-Mar): unresolved"
            )
        if not raw.is_counts:
            record["warnings"].append(
                "values are not whole numbers (such as TPM): stages that need counts give no answer"
            )
        if 1 - share > MANY_UNKNOWN:
            record["warnings"].append(
                f"{1 - share:.0%} of the features are no known human genes (such as "
                f"{', '.join(record['unresolved_examples'][:3])}): another species among them?"
            )
        obs = clean_obs(raw.obs) if raw.obs is not None else None
        obs = _with_annotation(obs, raw, record)
        cellxgene_terms(raw.obs, record)
        record["warnings"] += mixed_people(raw.obs)
    except DataError as err:
        record |= {"status": err.status, "reason": " ".join(err.messages)}
        named, barcodes, obs = None, [], None
    write_counts(out, named, barcodes, record, obs)
    io.write_json(record_out, record)


def _read(path: Path, source: Mapping[str, Any] | None, record: dict[str, Any], options: Ingest) -> RawCounts:
    fmt, annotation, tolerance = record["format"], record["annotation"], options.integer_tolerance
    if source is None:
        return read_counts(path, fmt=fmt, annotation=annotation, integer_tolerance=tolerance)
    raw, record["files"] = sources.read_source(
        source, path, fmt=fmt, annotation=annotation, integer_tolerance=tolerance
    )
    return raw


def _with_annotation(obs: pd.DataFrame | None, raw: RawCounts, record: dict[str, Any]) -> pd.DataFrame | None:
    import pandas as pd

    if record["annotation"] is None:
        return obs
    if raw.annotation is None:
        record["annotation_missing"] = True
        record["warnings"].append(f"the input has no column '{record['annotation']}': no annotation was taken over")
        return obs
    counted = Counter(raw.annotation)
    if len(counted) <= MANY_LABELS:
        record["annotation_counts"] = dict(sorted(counted.items()))
    column = pd.DataFrame({"annotation_input": np.asarray(raw.annotation, dtype=object)})
    return column if obs is None else pd.concat([obs, column], axis=1)
