"""Runs behind the section on cells: each is one call that a process of its own can make, and returns small tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.validation._cohort import (
    CALLING,
    NO_MAP,
    Cohort,
    demo,
    edit_counts,
    thin,
    thinned,
    write_sample,
    write_types,
)

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

COUNTED = ("counts", "record", "qc", "moments", "evidence")
LABELS = {
    "Epithelial cells": "epithelial", "Monocytes": "myeloid", "Fibroblast": "caf", "T cell": "t_nk", "NK cells": "t_nk",
    "Endothelial cells": "endothelial", "Pericytes": "pvl", "Adipocyte": "adipocyte",
}  # fmt: skip
NORMALS = {
    "normal_1": ("sample1", "phenodata_sample1.txt", None),
    "normal_2": ("sample2", "phenodata_sample2.txt", "nuclei"),
}
# The size rules lowered so far that the twenty epithelial cells of a normal sample are really called.
LOWERED = {
    "min_reference_cells": 20,
    "few_reference_cells": 10,
    "min_epithelial_cells": 5,
    "min_group": 5,
    "min_null_cells": 10,
}
LYMPHOCYTES, STROMA = ("t_nk", "b_cell"), ("endothelial", "pvl")
ARMS = {"1q": 3, "8q": 3, "20q": 3, "16q": 1, "17p": 1, "13q": 1}
FEW_ARMS = {"1q": 3, "16q": 1}


# ---------------------------------------------------------------------------------------------------------- demo
def demo_base(folder: Path, seed: int, options: dict[str, Any], samples: tuple[str, ...] | None = None) -> Cohort:
    """The demo cohort, up to the malignancy calls."""
    return demo(folder, seed, {**options, "embed": NO_MAP}, samples).run()


def at_resolution(cohort: Cohort, folder: Path, resolution: float) -> tuple[pd.DataFrame, pd.Series]:
    """Types with clusters of one leiden resolution; and the clusters."""
    from nicheloop import io

    options = {**cohort.options, "embed": {**NO_MAP, "resolutions": [resolution]}}
    variant = cohort.derive(folder, (*COUNTED, "hvg"), options=options).run(("embed", "annotate"))
    clusters = io.read_table(variant.path("clusters")).set_index("cell_id")["cluster"]
    return variant.calls(), clusters


def at_depth(cohort: Cohort, folder: Path, share: float) -> pd.DataFrame:
    """Types and calls with every library thinned."""
    return thinned(cohort, folder, share).run().calls()


def few_cells(cohort: Cohort, folder: Path, n: int, repeat: int) -> pd.DataFrame:
    """Types and calls of each sample cut down to `n` random barcodes and analysed alone."""
    import pandas as pd

    from nicheloop import io

    parts = []
    for i, sample in enumerate(cohort.samples):
        rng = np.random.default_rng([cohort.seed, 90, repeat, i])
        source = cohort.path("counts", sample)
        total = len(io.Counts(source).cell_ids)
        chosen = np.sort(rng.choice(total, min(n, total), replace=False))
        alone = cohort.derive(folder / sample, samples=[sample])
        edit_counts(source, alone.path("counts", sample), cells=chosen)
        parts.append(alone.run().calls())
    return pd.concat(parts)


# ------------------------------------------------------------------------------------------------------ controls
def genes_renamed(cohort: Cohort, folder: Path) -> dict[str, pd.DataFrame]:
    """Every gene under another gene's name: markers mark nothing, and places on the genome mean nothing.

    The calls are made with the types of the untouched cohort, so that only the order of genes along the genome is lost.
    """
    from nicheloop import io

    renamed = cohort.derive(folder / "types", ("qc", "clusters", "neighbors", "hvg", "moments"))
    placed = cohort.derive(folder / "calls", ("qc", "cell_types"))
    for sample in cohort.samples:
        source = cohort.path("counts", sample)
        # One permutation for all samples: their pools must keep speaking of the same genes.
        order = np.random.default_rng([cohort.seed, 7]).permutation(len(io.Counts(source).genes))
        for variant in (renamed, placed):
            edit_counts(source, variant.path("counts", sample), genes=order)
    renamed.run(("evidence", "annotate"))
    placed.run(CALLING)
    return {"types": renamed.calls(), "calls": placed.calls()}


def retyped(cohort: Cohort, folder: Path, how: str, malignant: pd.Series) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Calls after the types were changed.

    Parameters
    ----------
    how
        ``lymphocytes``, ``stroma``: reference cells of the other kind taken away; ``tumour``: half of the malignant
        cells stand as the only reference.
    malignant
        Truth of each cell.

    Returns
    -------
    Calls, and the summary of each sample's malignancy stage.
    """
    from nicheloop import io

    known = io.read_table(cohort.path("cell_types"))
    types: dict[str, NDArray[np.object_]] = {}
    for i, sample in enumerate(cohort.samples):
        rows = known[known["sample"] == sample]
        given = rows["cell_type"].to_numpy(dtype=object).copy()
        if how in ("lymphocytes", "stroma"):
            given[np.isin(given, STROMA if how == "lymphocytes" else LYMPHOCYTES)] = "unresolved"
        else:
            given[np.isin(given, LYMPHOCYTES + STROMA)] = "unresolved"
            tumour = np.flatnonzero(malignant.reindex(rows["cell_id"]).fillna(False).to_numpy(dtype=bool))
            rng = np.random.default_rng([cohort.seed, 11, i])
            given[rng.permutation(tumour)[: len(tumour) // 2]] = "t_nk"
        types[sample] = given
    few = {**cohort.options, "malignancy": {"min_reference_cells": 30, "few_reference_cells": 20}}
    variant = cohort.derive(folder, ("counts", "record", "qc"), options=few)
    write_types(variant, types, cohort)
    variant.run(CALLING)
    summary = {s: io.read_status(variant.path("malignancy", s)).summary for s in variant.samples}
    return variant.calls(), summary


def other_patients(cohort: Cohort, folder: Path) -> pd.DataFrame:
    """Calls of each tumour with its own reference cells hidden, against the pooled reference of the other samples."""
    import pandas as pd

    from nicheloop import io

    known = io.read_table(cohort.path("cell_types"))
    parts = []
    for sample in cohort.samples:
        alone = cohort.derive(folder / sample, ("counts", "record", "qc", "profiles"))
        others = alone.derive(folder / f"{sample}_others", samples=[s for s in cohort.samples if s != sample])
        for s in others.samples:
            for name in ("record", "profiles"):
                others.path(name, s).parent.mkdir(parents=True, exist_ok=True)
                others.path(name, s).symlink_to(cohort.path(name, s).resolve())
        others.run(("cnv-reference",))
        alone.path("reference").parent.mkdir(parents=True, exist_ok=True)
        alone.path("reference").symlink_to(others.path("reference").resolve())
        types = {s: known.loc[known["sample"] == s, "cell_type"].to_numpy(dtype=object).copy() for s in cohort.samples}
        hidden = np.isin(types[sample], LYMPHOCYTES + STROMA)
        kept = np.flatnonzero(hidden)[::8]  # an eighth stays, as in a sorted tumour: too few to be the reference
        hidden[kept] = False
        types[sample][hidden] = "unresolved"
        write_types(alone, types, cohort)
        alone.stage("malignancy", [sample])
        calls = io.read_table(alone.path("malignancy", sample)).set_index("cell_id")
        parts.append(calls)
    return pd.concat(parts)


# ---------------------------------------------------------------------------------------------------- real cells
def normals_base(folder: Path, data: Path, seed: int) -> tuple[Cohort, pd.DataFrame]:
    """Two labelled normal breasts up to the calls; and the labels (index: cell id)."""
    import pandas as pd

    rows, labels = [], []
    for sample, (where, pheno, chemistry) in NORMALS.items():
        rows.append(
            {"sample": sample, "path": str(data / "normals" / where), "tissue": "normal", "chemistry": chemistry}
        )
        table = pd.read_csv(data / "normals" / pheno, sep="\t")
        index = sample + ":" + table["cellid"].astype(str)
        labels.append(
            pd.DataFrame({"sample": sample, "cell_type": table["celltype"].map(LABELS).to_numpy()}, index=index)
        )
    cohort = Cohort(folder, tuple(NORMALS), seed, {"embed": NO_MAP}).ingest(rows).run()
    return cohort, pd.concat(labels)


def normals_called(cohort: Cohort, folder: Path, labels: pd.DataFrame) -> dict[str, Any]:
    """Calls of normal epithelium with the size rules lowered, with our types and with the labels as types."""
    from nicheloop import io

    out: dict[str, Any] = {}
    # Without its sheet's "normal" a sample is no pool for itself: it is called like a tumour nobody vouches for.
    for name in ("ours", "labels"):
        options = {**cohort.options, "malignancy": LOWERED}
        variant = cohort.derive(folder / name, ("qc", *(("cell_types",) if name == "ours" else ())), options=options)
        for sample in cohort.samples:
            edit_counts(cohort.path("counts", sample), variant.path("counts", sample), record={"tissue": None})
        if name == "labels":
            known = io.read_table(cohort.path("cell_types"))
            types = {
                s: labels["cell_type"].reindex(known.loc[known["sample"] == s, "cell_id"]).to_numpy(dtype=object)
                for s in cohort.samples
            }
            write_types(variant, types, cohort)
        variant.run(CALLING)
        out[name] = variant.calls()
        out[f"{name}_summary"] = {s: io.read_status(variant.path("malignancy", s)).summary for s in variant.samples}
    return out


def cell_lines(folder: Path, data: Path, seed: int, wanted: tuple[str, ...] = ()) -> dict[str, Any]:
    """Each cell line (default: all) as a sample: as a cohort of unknowns, and declared malignant."""
    import anndata as ad
    import pandas as pd
    from scipy import sparse

    adata = ad.read_h5ad(data / "cell_lines/BC_cell_lines_930.h5ad")
    present = sorted(adata.obs["cell_line"].astype(str).unique())
    lines = [x for x in present if x in wanted] if wanted else present
    out: dict[str, Any] = {"lines": lines}
    raw = folder / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for line in lines:
        part = adata[adata.obs["cell_line"].astype(str) == line]
        obs, var = (pd.DataFrame(index=i.astype(object)) for i in (part.obs_names, part.var_names))
        ad.AnnData(sparse.csr_matrix(part.X), obs=obs, var=var).write_h5ad(raw / f"{line}.h5ad")
    for name, malignancy in (("unknown", None), ("assumed", "assumed")):
        rows = [{"sample": x, "path": str(raw / f"{x}.h5ad"), "malignancy": malignancy} for x in lines]
        cohort = Cohort(folder / name, tuple(lines), seed, {"embed": NO_MAP})
        if name == "unknown":
            first = cohort = cohort.ingest(rows).run()
        else:
            cohort = first.derive(folder / name, ("qc", "cell_types"))
            for x in lines:
                record = {"malignancy": "assumed"}
                edit_counts(first.path("counts", x), cohort.path("counts", x), record=record)
            cohort.run(CALLING)
        calls = cohort.calls()
        out[name] = pd.DataFrame(calls[["sample", "cell_type", "malignancy", "malignancy_status"]])
    return out


def oligodendroglioma(folder: Path, seed: int) -> dict[str, Any]:
    """Infercnvpy's oligodendroglioma, its normal cells in two halves: each is the reference of the other once."""
    import warnings

    import infercnvpy
    import pandas as pd
    from scipy import sparse

    from nicheloop import io

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tumour = infercnvpy.datasets.oligodendroglioma()
    label = tumour.obs["cell_type"].astype(str).to_numpy()
    x = sparse.csr_matrix(tumour.X)
    normal = np.flatnonzero(~np.char.startswith(label.astype(str), "malignant"))
    normal = np.random.default_rng(seed).permutation(normal)
    parts, sizes = [], []
    for k in range(2):
        reference = np.sort(normal[k::2])
        types = np.full(len(label), "epithelial", dtype=object)
        types[reference] = "t_nk"
        sample = f"half_{k + 1}"
        options = {"malignancy": {"min_reference_cells": 20, "few_reference_cells": 20}}
        cohort = Cohort(folder / sample, (sample,), seed, options)
        values = {"is_counts": bool(np.allclose(x.data, np.round(x.data)))}
        write_sample(cohort.folder, sample, x, list(tumour.var_names), [str(b) for b in tumour.obs_names], **values)
        write_types(cohort, {sample: types})
        cohort.run(CALLING)
        calls = io.read_table(cohort.path("malignancy", sample))
        held_out = np.setdiff1d(np.arange(len(label)), reference)
        sizes.append(len(reference))
        parts.append(pd.DataFrame({"half": k + 1, "label": label[held_out], "cell": held_out,
                                   "malignancy": calls["malignancy"].to_numpy()[held_out]}))  # fmt: skip
    return {"calls": pd.concat(parts, ignore_index=True), "n_reference": sizes}


# ----------------------------------------------------------------------------------------------- semi-real tumours
def pseudo_cells(x: Any, n: int, k: int, rng: np.random.Generator) -> Any:
    """(n, genes) sums of `k` different cells each: real counts at a depth that can be thinned."""
    from scipy import sparse

    k = min(k, x.shape[0])
    rows = np.repeat(np.arange(n), k)
    columns = np.concatenate([rng.choice(x.shape[0], k, replace=False) for _ in range(n)])
    return sparse.csr_matrix(sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(n, x.shape[0])) @ x)


def semi_real(
    normals: Cohort,
    labels: pd.DataFrame,
    folder: Path,
    sample: str,
    grid: list[tuple[str, float, float, float]],
    repeat: int = 0,
) -> pd.DataFrame:
    """Tumours made of real normal cells: sums of four, dosage by arm, thinned to a depth.

    Malignant cells are made of one half of the epithelial cells, normal ones of the other half: they share no noise.

    Parameters
    ----------
    grid
        (arms "many" or "few", depth in UMI, share of the epithelium that is malignant, dosage: 1 is copies / 2).
    repeat
        Number of the draw: other halves, other sums.

    Returns
    -------
    One row per point of the grid.
    """
    import pandas as pd

    from benchmarks.validation._cells_measure import malignancy_figures
    from nicheloop import genes, io

    data = io.Counts(normals.path("counts", sample))
    known = labels["cell_type"].reindex(data.cell_ids).to_numpy(dtype=object)
    x, arm = data.matrix(), genes.table().reindex(data.genes)["arm"].to_numpy(dtype=object)
    rows = []
    for point, (which, depth, fraction, dosage) in enumerate(grid):
        rng = np.random.default_rng([normals.seed, list(NORMALS).index(sample), point, repeat])
        epithelial = rng.permutation(np.flatnonzero(known == "epithelial"))
        halves = epithelial[::2], epithelial[1::2]
        n_malignant = round(100 * fraction)
        blocks, types, malignant = [], [], []
        for name, cells, n in [("epithelial", halves[0], n_malignant), ("epithelial", halves[1], 100 - n_malignant)] + [
            (t, np.flatnonzero(known == t), 40) for t in sorted(set(known[pd.notna(known)]) - {"epithelial"})
        ]:
            if n and len(cells):
                blocks.append(pseudo_cells(x[cells], n, 4, rng))
                types += [name] * n
                malignant += [name == "epithelial" and cells is halves[0]] * n
        factor = np.ones(len(arm))
        for region, copies in (ARMS if which == "many" else FEW_ARMS).items():
            factor[arm == region] = (copies / 2) ** dosage
        top = max(factor.max(), 1.0)
        is_malignant = np.array(malignant)
        whole = np.concatenate([np.asarray(b.sum(axis=1)).ravel() for b in blocks])
        share = min(1.0, depth / float(np.median(whole)) * top)
        from scipy import sparse

        made = sparse.csr_matrix(sparse.vstack(blocks))
        thin_m = thin(made[np.flatnonzero(is_malignant)], factor / top * share, rng)
        thin_n = thin(made[np.flatnonzero(~is_malignant)], share / top, rng)
        order = np.concatenate([np.flatnonzero(is_malignant), np.flatnonzero(~is_malignant)])
        counts = sparse.csr_matrix(sparse.vstack([thin_m, thin_n]))
        name = f"{sample}_{repeat}_{point}"
        cohort = Cohort(folder / name, (name,), normals.seed)
        barcodes = [f"c{i:04d}" for i in range(len(order))]
        write_sample(cohort.folder, name, counts, list(data.genes), barcodes)
        given = np.array(types, dtype=object)[order]
        write_types(cohort, {name: given})
        cohort.run(CALLING)
        expected = pd.DataFrame({"cell_type": given, "malignant": is_malignant[order]})
        calls = io.read_table(cohort.path("malignancy", name))
        status = io.read_status(cohort.path("malignancy", name))
        found = malignancy_figures(expected, calls)
        rows.append({"sample": sample, "arms": which, "depth": float(np.median(np.asarray(counts.sum(axis=1)))),
                     "wanted_depth": depth, "fraction": fraction, "dosage": dosage, "status": status.status,
                     **found})  # fmt: skip
    return pd.DataFrame(rows)
