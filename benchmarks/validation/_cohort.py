"""A cohort in a folder, taken through the stages of nicheloop as the command line declares them."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

# Argument of a stage -> file; everything else is <argument>.parquet of the sample.
SAMPLE_FILES = {"counts": "counts.h5ad", "record": "ingest.json", "records": "ingest.json"}
COHORT_FILES = {
    "hvg": "hvg.parquet", "embedding": "embedding.parquet", "clusters": "clusters.parquet",
    "neighbors": "neighbors.parquet",
    "cell_types": "cell_types.parquet", "reference": "cnv_reference.parquet",
}  # fmt: skip
# What the outputs of a stage are called when another stage reads them; else out_<name> is <name>.
OUTPUTS = {"embed": {"out_embedding": "embedding", "out_clusters": "clusters", "out_neighbors": "neighbors"},
           "annotate": {"out": "cell_types"},
           "cnv-reference": {"out": "reference"}, "ambient": {"out_profiles": "profiles"},
           "malignancy": {"out_cnv": "cnv"}}  # fmt: skip
COHORT_STAGES = ("hvg", "embed", "annotate", "cnv-reference")
STAGES = ("qc", "moments", "hvg", "embed", "evidence", "annotate", "ambient", "cnv-reference", "malignancy")
# Nothing here looks at the map, and clusters do not depend on it.
NO_MAP: dict[str, Any] = {"umap_epochs": 10}
CALLING = ("ambient", "cnv-reference", "malignancy")  # what follows the types
CORES = 2


def one_numba_thread() -> None:
    """For a worker, not for its parent: numba refuses a number that changes while it runs."""
    os.environ["NUMBA_NUM_THREADS"] = "1"


@contextmanager
def workers(n: int = CORES) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each: results never depend on how many there are."""
    import multiprocessing

    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    before = {name: os.environ.get(name) for name in threads}
    os.environ.update(threads)
    try:
        with ProcessPoolExecutor(n, multiprocessing.get_context("spawn"), one_numba_thread) as pool:
            yield pool
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@dataclass(frozen=True)
class Cohort:
    """Samples below ``folder`` in the layout of a results folder.

    Attributes
    ----------
    options : sections of the configuration that differ from the defaults
    """

    folder: Path
    samples: tuple[str, ...]
    seed: int
    options: dict[str, Any] = field(default_factory=dict)

    def path(self, name: str, sample: str | None = None) -> Path:
        """File behind the argument of a stage."""
        if name in COHORT_FILES:
            return self.folder / "cohort" / COHORT_FILES[name]
        if sample is None:
            raise ValueError(f"{name} is a file of a sample")
        return self.folder / "samples" / sample / SAMPLE_FILES.get(name, f"{name}.parquet")

    def stage(self, name: str, samples: Sequence[str] | None = None) -> None:
        """Run one stage."""
        from nicheloop import cli, config

        stage = next(s for s in cli.STAGES if s.name == name)
        module, function = stage.function.split(".")
        call: Callable[..., None] = getattr(importlib.import_module(f"nicheloop.{module}"), function)
        settings = config.load_config(self.options)
        shared: dict[str, Any] = {a: [self.path(a, s) for s in self.samples] for a in stage.lists or {}}
        for keyword, section in (stage.sections or {}).items():
            value: Any = settings
            for part in section.split("."):
                value = getattr(value, part)
            shared[keyword] = value
        if stage.seed:
            shared["seed"] = self.seed
        for sample in (None,) if name in COHORT_STAGES else samples or self.samples:
            files = {a: self.path(a, sample) for a in stage.files}
            for out in stage.outputs:
                called = OUTPUTS.get(name, {}).get(out, name if out == "out" else out.removeprefix("out_"))
                files[out] = self.path(called, sample)
                files[out].parent.mkdir(parents=True, exist_ok=True)
            call(**shared, **files)

    def run(self, stages: Iterable[str] = STAGES) -> Cohort:
        """Run stages one after the other."""
        for name in stages:
            self.stage(name)
        return self

    def ingest(self, rows: Sequence[dict[str, Any]]) -> Cohort:
        """Read every sample of the sheet's rows; a ``path`` is where the data are."""
        from nicheloop import config, ingest, workflow

        options = config.load_config(self.options).ingest
        for row in rows:
            counts, record = self.path("counts", row["sample"]), self.path("record", row["sample"])
            counts.parent.mkdir(parents=True, exist_ok=True)
            ingest.run_ingest(row["path"], counts, record, row=workflow.complete(row), options=options)
        return self

    def derive(self, folder: Path, share: Iterable[str] = (), samples: Sequence[str] | None = None,
               options: dict[str, Any] | None = None) -> Cohort:  # fmt: skip
        """Cohort in another folder that sees the named files of this one (stages replace a link, never its target)."""
        out = replace(self, folder=folder, samples=tuple(samples or self.samples), options=options or self.options)
        for name in share:
            for sample in (None,) if name in COHORT_FILES else out.samples:
                target, link = self.path(name, sample).resolve(), out.path(name, sample)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(target)
        return out

    def calls(self) -> pd.DataFrame:
        """Types, and malignancy where it was called, of every kept cell; index: cell id."""
        import pandas as pd

        from nicheloop import io

        table = io.read_table(self.path("cell_types")).set_index("cell_id")
        parts = [self.path("malignancy", s) for s in self.samples]
        if all(p.exists() for p in parts):
            calls = pd.concat([io.read_table(p) for p in parts], ignore_index=True).set_index("cell_id")
            table = table.join(calls[["malignancy", "malignancy_status", "cna_value", "cna_correlation", "clone"]])
        return table


def edit_counts(
    source: Path, out: Path, *, matrix: csr_matrix | None = None, cells: NDArray[np.int64] | None = None,
    genes: NDArray[np.int64] | None = None, record: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write ``counts.h5ad`` anew with another matrix, some of the cells, genes renamed, or another record."""
    import anndata as ad

    adata = ad.read_h5ad(source)
    if matrix is not None:
        adata.X = matrix
    if cells is not None:
        adata = adata[cells].copy()
    if genes is not None:
        adata.var = adata.var.iloc[genes]
    values = json.loads(adata.uns["nicheloop"]) | (record or {}) | {"n_cells": adata.n_obs}
    adata.uns["nicheloop"] = json.dumps(values, sort_keys=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    adata.write_h5ad(out)
    (out.parent / "ingest.json").write_text(json.dumps(values))


def write_sample(
    folder: Path, sample: str, matrix: csr_matrix, genes: Sequence[str], barcodes: Sequence[str], **record: Any
) -> None:
    """Write ``counts.h5ad`` and its record as ingest would."""
    import anndata as ad
    import pandas as pd

    from nicheloop import ingest, workflow

    values = ingest.base_record(workflow.complete({"sample": sample, "path": sample}))
    values |= {"is_counts": True, "n_cells": matrix.shape[0], "n_features": len(genes), "n_genes": len(genes),
               "n_unresolved": 0, "guards": {}, **record}  # fmt: skip
    index = pd.Index([f"{sample}:{b}" for b in barcodes], dtype=object)
    obs = pd.DataFrame({"sample": sample, "barcode": np.asarray(barcodes, dtype=object)}, index=index)
    var = pd.DataFrame({"ensembl_id": ""}, index=pd.Index(np.asarray(genes, dtype=object)))
    adata = ad.AnnData(matrix.astype(np.float32), obs=obs, var=var)
    adata.uns["nicheloop"] = json.dumps(values, sort_keys=True)
    (folder / "samples" / sample).mkdir(parents=True, exist_ok=True)
    adata.write_h5ad(folder / "samples" / sample / "counts.h5ad")
    (folder / "samples" / sample / "ingest.json").write_text(json.dumps(values))


def write_types(cohort: Cohort, types: dict[str, NDArray[np.object_]], base: Cohort | None = None) -> None:
    """Write ``cell_types.parquet`` with given types, in the order of the counts (or of `base`'s kept cells)."""
    import pandas as pd

    from nicheloop import io, tables

    parts = []
    known = io.read_table(base.path("cell_types")) if base else None
    for sample in cohort.samples:
        if known is None:
            ids = io.Counts(cohort.path("counts", sample)).cell_ids
        else:
            ids = known.loc[known["sample"] == sample, "cell_id"].to_numpy(dtype=object)
        parts.append(pd.DataFrame({"cell_id": ids, "sample": sample, "cell_type": types[sample]}))
    table = pd.concat(parts, ignore_index=True)
    table = table.assign(
        cluster="0", cell_type_minor=table["cell_type"], confidence=1.0, margin=1.0, runner_up="unresolved",
        cell_type_reason=np.where(table["cell_type"] == "unresolved", "low_evidence", "ok"), platelet=False,
        cycling=False, cell_type_input=pd.array([None] * len(table), dtype="string"),
    )  # fmt: skip
    empty = tables.empty("cell_types")
    for column in empty.columns.difference(table.columns):  # what the contract holds beyond this
        table[column] = pd.array([pd.NA] * len(table), dtype=empty[column].dtype)
    path = cohort.path("cell_types")
    path.parent.mkdir(parents=True, exist_ok=True)
    io.write_table(table, path, "cell_types")


def thin(x: csr_matrix, share: Any, rng: np.random.Generator) -> csr_matrix:
    """Keep each UMI with probability `share` (a number, or one per gene): what shallower sequencing would have seen."""
    out = x.copy()
    kept = np.broadcast_to(np.asarray(share, dtype=np.float64), out.shape[1])[out.indices]
    out.data = np.asarray(rng.binomial(out.data.astype(np.int64), kept), dtype=np.float32)
    out.eliminate_zeros()
    return out


def thinned(cohort: Cohort, folder: Path, share: float) -> Cohort:
    """Cohort with every library thinned to `share` of its UMI."""
    from nicheloop import io

    for i, sample in enumerate(cohort.samples):
        source = cohort.path("counts", sample)
        rng = np.random.default_rng([cohort.seed, i, round(100 * share)])
        matrix = thin(io.Counts(source).matrix(), share, rng)
        edit_counts(source, folder / "samples" / sample / "counts.h5ad", matrix=matrix)
    return cohort.derive(folder)


def demo(folder: Path, seed: int, options: dict[str, Any], samples: Sequence[str] | None = None) -> Cohort:
    """The demo cohort (or some of its samples), simulated anew and read; the truth lies in ``folder/demo``."""
    from nicheloop import config, simulate

    settings = config.load_config(options).simulate
    simulate.run_simulate(folder / "demo", options=settings, seed=seed)
    rows = [r for r in simulate.sample_names(settings) if samples is None or r["sample"] in samples]
    cohort = Cohort(folder, tuple(r["sample"] for r in rows), seed, options)
    return cohort.ingest([{**r, "path": str(folder / "demo" / r["path"])} for r in rows])


def truth(cohort: Cohort) -> pd.DataFrame:
    """Truth of the demo's cells; index: cell id."""
    import pandas as pd

    table = pd.read_csv(cohort.folder / "demo/truth_cells.tsv.gz", sep="\t", na_values=["NA"], keep_default_na=False)
    return table[table["sample"].isin(cohort.samples)].set_index("cell_id")
