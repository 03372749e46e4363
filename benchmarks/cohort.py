"""Simulated cohorts of any size in bounded memory: one sample at a time, 10x folders, the truth beside them.

    python -m benchmarks.cohort OUT --cells 100000 [--samples 26] [--cores 2]

Shaped like GSE176078: 26 patients (11 ER+, 10 TNBC, 5 HER2+), 20,000 genes, about 1,500 genes per cell.  Cells
come from the demo's simulator (`nicheloop.simulate`: types, copy numbers, marker states, doublets, ambient RNA); the
genes its profiles lack are a low background shared by all types.  The same arguments give the same files.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import multiprocessing
from pathlib import Path
from typing import Any

SUBTYPES = ("ER+",) * 11 + ("TNBC",) * 10 + ("HER2+",) * 5
PATIENTS = len(SUBTYPES)
MEDIAN_UMI = 3400  # gives a median of about 1,500 genes per cell
N_GENES = 20_000
BACKGROUND = 0.05  # share of a library that falls on genes without a profile
READY = "ready.json"


def plans(n_samples: int) -> list[Any]:
    """Plans of the samples: the demo's tumours of each subtype in turn, at full depth and with macrophages."""
    from nicheloop import simulate

    by_subtype: dict[str, list[Any]] = {}
    for plan in simulate.PLANS:
        by_subtype.setdefault(plan.subtype, []).append(plan)
    order = [SUBTYPES[(i * 7) % PATIENTS] for i in range(n_samples)]  # 7 and 26 share no factor: subtypes are mixed
    out = []
    for i, subtype in enumerate(order):
        template = by_subtype[subtype][i % len(by_subtype[subtype])]
        out.append(
            dataclasses.replace(
                template, sample=f"p{i + 1:03d}", shallow=False, without_macrophages=False, platelet_barcodes=0
            )
        )
    return out


def _write_sample(job: tuple[Any, int, Path, int]) -> tuple[str, int]:
    """Write one sample's 10x folder and its truth; returns its name and number of counts above zero."""
    import numpy as np
    from scipy import sparse

    from nicheloop import genes, simulate
    from nicheloop.config_cells import Simulate

    plan, n_cells, out, seed = job
    table = simulate.profiles()
    options = Simulate(cells_per_tumour=max(n_cells, 200), median_umi=MEDIAN_UMI)
    made = simulate.simulate_sample(plan, table, options=options, seed=seed)
    known = genes.table().dropna(subset=["chromosome", "start", "end", "arm"])
    extra = known[~known.index.isin(table.genes.astype(str))].iloc[: N_GENES - len(table.genes)]
    rng = np.random.default_rng([seed, 1, int(plan.sample[1:])])
    rate = np.random.default_rng(seed).lognormal(0, 2.0, len(extra))  # the same genes are frequent in every sample
    totals = rng.poisson(BACKGROUND * made.cells["n_umi"].to_numpy())
    x = sparse.hstack([made.counts, simulate._draw(rate, totals, rng)], format="csr")
    symbols = [*table.genes, *extra.index]
    ensembl = [*table.ensembl, *extra["ensembl_id"].fillna("")]
    simulate.write_10x(out / plan.sample, x, made.barcodes, symbols, ensembl)
    made.cells.to_csv(out / plan.sample / "truth.tsv.gz", sep="\t", index=False)
    return plan.sample, int(x.nnz)


def write_cohort(out: Path, *, cells: int, samples: int = PATIENTS, seed: int = 0, cores: int = 1) -> Path:
    """Write about `cells` cells over `samples` patients; returns the sample sheet.  A finished cohort is kept."""
    from nicheloop import io

    sheet = out / "samples.tsv"
    wanted = {"cells": cells, "samples": samples, "seed": seed, "umi": MEDIAN_UMI, "genes": N_GENES}
    if (out / READY).exists() and io.read_json(out / READY)["arguments"] == wanted:
        return sheet
    chosen = plans(samples)
    jobs = [(plan, round(cells / samples), out, seed) for plan in chosen]
    with multiprocessing.get_context("spawn").Pool(cores, maxtasksperchild=8) as pool:
        stored = dict(pool.imap_unordered(_write_sample, jobs))
    lines = ["sample\tpath\tpatient\tsubtype\ttissue\ttreatment\tchemistry\tdataset"]
    for plan in chosen:
        lines.append(
            "\t".join([plan.sample, str((out / plan.sample).resolve()), plan.sample, plan.subtype, "tumour", "naive"])
            + "\t10x 3' v3\tbench"
        )
    io.write_text(sheet, "\n".join(lines) + "\n")
    with gzip.open(out / "truth_cells.tsv.gz", "wt", compresslevel=1) as handle:
        for i, plan in enumerate(chosen):
            with gzip.open(out / plan.sample / "truth.tsv.gz", "rt") as part:
                head = next(part)
                handle.writelines([head] if i == 0 else [])
                handle.writelines(part)
    io.write_json(out / READY, {"arguments": wanted, "stored_counts": sum(stored.values())})
    return sheet


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cells", type=int, required=True)
    parser.add_argument("--samples", type=int, default=PATIENTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cores", type=int, default=1)
    args = parser.parse_args()
    print(write_cohort(args.out, cells=args.cells, samples=args.samples, seed=args.seed, cores=args.cores))


if __name__ == "__main__":
    main()
