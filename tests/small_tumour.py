"""One small tumour with the tables of all stages before the axes."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from helpers import record_of, write_counts
from nicheloop import crosstalk as ct
from nicheloop import genes, io, loop
from nicheloop import ligand_receptor as lr
from nicheloop.config_niche import Crosstalk

FEW = Crosstalk(n_permutations=199, n_matched_pairs=199)


def build(
    folder, *, seed=0, shuffle=False, sample="s1", is_counts=True, n=240, malignant=True, drop=(), run=True, **record
):
    """One small tumour: counts and the tables of the earlier stages; returns the path of crosstalk.parquet."""
    rng = np.random.default_rng(seed)
    response = loop.readouts()[loop.STAT3]
    reading = {g for members in loop.readouts().values() for g in members}
    wanted = sorted({g for p in lr.pairs_of_axes(genes.axes()) for g in p.genes} - set(drop))
    wanted += sorted(reading - set(wanted) - set(drop))
    symbols = [*wanted, *[f"B{i:03d}" for i in range(200)]]
    mean = np.concatenate([np.full(len(wanted), 0.15), rng.gamma(0.6, 1.0, 200)])
    for silent in ("INS", "EPO", "GCG", "PPBP", "CXCR1", "CXCR2"):
        if silent in symbols:
            mean[symbols.index(silent)] = 0.0
    x = rng.poisson(rng.lognormal(0, 0.3, n)[:, None] * mean).astype(float)
    kind = np.array(["epithelial", "caf", "myeloid"], dtype=object)[np.arange(n) % 3]
    column = {g: i for i, g in enumerate(symbols)}
    for gene, where in (
        ("IL6", "caf"),
        ("IL6R", "epithelial"),
        ("IL6ST", "epithelial"),
        ("CSF1", "epithelial"),
        ("CSF1R", "myeloid"),
    ):
        if gene in column:
            x[kind == where, column[gene]] += rng.poisson(3, (kind == where).sum())
    csc_high = (kind == "epithelial") & (np.arange(n) % 2 == 0)
    for gene in set(response) & set(column):
        x[csc_high, column[gene]] += np.random.default_rng([seed, column[gene]]).poisson(0.4, csc_high.sum())
    cells, order = np.arange(n), np.arange(len(symbols))
    if shuffle:
        cells, order = np.random.default_rng(99).permutation(n), np.random.default_rng(98).permutation(len(symbols))
    counts = write_counts(
        folder,
        x[cells][:, order],
        [symbols[i] for i in order],
        sample=sample,
        record={"is_counts": is_counts, **record},
    )
    barcodes = np.array([f"{sample}:c{i:05d}" for i in range(n)], dtype=object)
    if shuffle:  # the same cell keeps its name wherever it stands in the file
        import anndata as ad

        adata = ad.read_h5ad(counts)
        adata.obs_names = barcodes[cells].astype(str)
        adata.write_h5ad(counts)
    ids = barcodes[cells]
    kind = kind[cells]
    minor = np.where(kind == "caf", "iCAF", kind)
    frame = pd.DataFrame({"cell_id": ids})
    io.write_table(
        frame.assign(sample=sample, cluster="0", cell_type=kind, cell_type_minor=minor, confidence=1.0, margin=1.0, runner_up="-",
                     cell_type_reason="ok", platelet=False, cycling=False, cell_type_input=None),
        folder / "cell_types.parquet", "cell_types",
    )  # fmt: skip
    call = np.where((kind == "epithelial") & malignant, "malignant", "not_epithelial")
    io.write_table(
        frame.assign(malignancy=call, malignancy_status="ok", cna_value=None, cna_correlation=None,
                     clone=pd.array(np.where(call == "malignant", 1, -1), dtype="Int64")).assign(
            clone=lambda t: t["clone"].where(t["clone"] > 0)),
        folder / "malignancy.parquet", "malignancy",
    )  # fmt: skip
    number = np.array([int(i[-5:]) for i in ids])
    state = np.where(call != "malignant", "not_assessable", np.where(number % 2 == 0, "m_csc", "other"))
    io.write_table(
        frame.assign(m_csc_prob=None, csc_state=state, csc_status="ok", cd24_informative=None, aldh1a3_prob=None,
                     aldh1a3_lp_prob=None, aldh1a3_state="not_assessable", aldh1a3_status="ok"),
        folder / "csc.parquet", "csc",
    )  # fmt: skip
    myeloid = np.where(kind == "myeloid", np.where(number % 2 == 0, "macrophage", "monocyte"), "not_myeloid")
    io.write_table(
        frame.assign(myeloid_class=myeloid, m1_z=None, m2_z=None, tam_class=np.where(myeloid == "macrophage", "m2_like", "not_macrophage"),
                     tam_status="ok", tam_state=None, foreign_share=0.0, m1_z_adjusted=None, m2_z_adjusted=None,
                     tam_class_adjusted=np.where(myeloid == "macrophage", "m2_like", "not_macrophage"))[myeloid != "not_myeloid"],
        folder / "tam.parquet", "tam",
    )  # fmt: skip
    noise = np.random.default_rng(7).normal(size=(n, 5))[number]
    io.write_table(
        frame.assign(compartment=np.where(call == "malignant", "malignant", kind), n_counts=np.asarray(x.sum(axis=1))[cells],
                     foreign_share=np.where(call == "malignant", 0.0, np.nan),
                     **{f"z_{s}": noise[:, i] for i, s in enumerate(("STAT3_core", "NFKB_leaveout_stressfree", "STRESS", "IFN", "M2"))}),
        folder / "scores.parquet", "scores", io.Status("score", sample),
    )  # fmt: skip
    io.write_table(
        pd.DataFrame({"gene": symbols, "ambient_fraction": x.sum(axis=0) / x.sum(), "contamination_rate": 0.02, "pool": "cells"}),
        folder / "ambient.parquet", "ambient",
    )  # fmt: skip
    (folder / "ingest.json").write_text(json.dumps(record_of(sample, n, len(symbols), is_counts=is_counts, **record)))
    if run:
        ct.run_crosstalk(*inputs(folder), folder / "crosstalk.parquet", options=FEW, seed=3)
    return folder / "crosstalk.parquet"


def inputs(folder):
    return [
        folder / f
        for f in (
            "counts.h5ad",
            "cell_types.parquet",
            "malignancy.parquet",
            "csc.parquet",
            "tam.parquet",
            "ambient.parquet",
        )
    ]


def run_loop(folder, options, **kwargs):
    """Run the stage on one small tumour; returns the path of loop.parquet."""
    build(folder, run=False, **kwargs)
    files = inputs(folder)
    files.insert(5, folder / "scores.parquet")
    loop.run_loop(*files, folder / "loop.parquet", options=options, crosstalk=FEW, seed=3)
    return folder / "loop.parquet"
