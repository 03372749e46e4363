"""What a competent user would write today, defaults of the libraries: scanpy, scrublet, harmony, infercnvpy, liana.

    python benchmarks/peer_script.py SAMPLES.TSV KNOWLEDGE.json OUT

KNOWLEDGE holds the same markers, signatures and gene positions nicheloop ships, so that only the methods differ.
Imports nothing of nicheloop; runs in an environment of its own.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import anndata as ad
import harmonypy
import infercnvpy as cnv
import liana
import numpy as np
import pandas as pd
import scanpy as sc

CLOCK: dict[str, float] = {}
STARTED = [time.perf_counter()]


def done(step: str) -> None:
    """Note the time since the step before."""
    now = time.perf_counter()
    CLOCK[step] = CLOCK.get(step, 0.0) + now - STARTED[0]
    STARTED[0] = now


def main(sheet: str, knowledge: str, out: str) -> None:
    """Read, analyse, write."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    known = json.loads(Path(knowledge).read_text())
    samples = pd.read_csv(sheet, sep="\t")
    done("imports")
    parts = []
    for row in samples.itertuples():
        one = sc.read_10x_mtx(row.path, var_names="gene_symbols")
        one.var_names_make_unique()
        one.obs_names = [f"{row.sample}:{b}" for b in one.obs_names]
        one.obs["sample"] = row.sample
        one.obs["subtype"] = row.subtype
        done("read")
        one.var["mt"] = one.var_names.str.startswith("MT-")
        sc.pp.calculate_qc_metrics(one, qc_vars=["mt"], inplace=True, percent_top=None)
        one = one[(one.obs["n_genes_by_counts"] >= 200) & (one.obs["pct_counts_mt"] < 20)].copy()
        done("qc")
        sc.pp.scrublet(one)
        done("doublets")
        parts.append(one[~one.obs["predicted_doublet"].astype(bool)].copy())
    data = ad.concat(parts, merge="same")
    del parts
    data.layers["counts"] = data.X.copy()
    sc.pp.normalize_total(data, target_sum=1e4)
    sc.pp.log1p(data)
    done("normalise")
    sc.pp.highly_variable_genes(data, n_top_genes=2000, batch_key="sample")
    done("variable genes")
    sc.pp.pca(data, n_comps=30)
    done("components")
    fit = harmonypy.run_harmony(data.obsm["X_pca"], data.obs, ["sample"])
    corrected = np.asarray(fit.Z_corr)
    data.obsm["X_harmony"] = corrected if corrected.shape[0] == data.n_obs else corrected.T
    done("harmony")
    sc.pp.neighbors(data, use_rep="X_harmony")
    done("neighbours")
    sc.tl.leiden(data, flavor="igraph", n_iterations=2, directed=False)
    done("leiden")
    sc.tl.umap(data)
    done("umap")
    sc.tl.rank_genes_groups(data, "leiden", method="wilcoxon")
    done("markers")
    for name, genes in known["markers"].items():
        present = [g for g in genes if g in data.var_names]
        if present:
            sc.tl.score_genes(data, present, score_name=f"type_{name}")
    types = data.obs[[c for c in data.obs if c.startswith("type_")]]
    best = types.groupby(data.obs["leiden"], observed=True).mean().idxmax(axis=1).str.removeprefix("type_")
    data.obs["cell_type"] = data.obs["leiden"].map(best).astype("category")
    for name, genes in known["signatures"].items():
        present = [g for g in genes if g in data.var_names]
        if present:
            sc.tl.score_genes(data, present, score_name=f"score_{name}")
    done("scores")
    positions = pd.DataFrame(known["positions"]).set_index("gene").reindex(data.var_names)
    data.var[["chromosome", "start", "end"]] = positions[["chromosome", "start", "end"]]
    normal = [t for t in data.obs["cell_type"].cat.categories if t != "epithelial"]
    cnv.tl.infercnv(data, reference_key="cell_type", reference_cat=normal, window_size=250)
    cnv.tl.pca(data)
    cnv.pp.neighbors(data)
    cnv.tl.leiden(data)
    cnv.tl.cnv_score(data)
    epithelial = (data.obs["cell_type"] == "epithelial").to_numpy()
    score = data.obs["cnv_score"].to_numpy()
    data.obs["malignant"] = epithelial & (score > np.quantile(score[~epithelial], 0.95))
    done("copy number")
    data.obs["group"] = np.where(data.obs["malignant"], "malignant", data.obs["cell_type"].astype(str))
    data.obs["group"] = data.obs["group"].astype("category")
    sizes = data.obs.groupby(["sample", "group"], observed=True).size()
    tables = []
    for sample in samples["sample"]:
        groups = [g for g in data.obs["group"].cat.categories if sizes.get((sample, g), 0) >= 5]
        one = data[(data.obs["sample"] == sample) & data.obs["group"].isin(groups)].copy()
        table = liana.mt.cellphonedb(
            one, groupby="group", resource_name="consensus", n_perms=1000, use_raw=False, inplace=False, verbose=False
        )
        tables.append(table.assign(sample=sample))
    done("ligand-receptor")
    pd.concat(tables).to_csv(folder / "ligand_receptor.tsv.gz", sep="\t", index=False)
    data.obs[["sample", "leiden", "cell_type", "malignant"]].to_csv(
        folder / "cells.tsv.gz", sep="\t", index_label="cell_id"
    )
    done("write")
    (folder / "clock.json").write_text(json.dumps({k: round(v, 1) for k, v in CLOCK.items()}, indent=2) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
