"""Tumours with the rates of real cell types, and real ones: positive controls, tested decoys, what cannot be seen."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.validation.crosstalk_calibration import Check, run_many
from benchmarks.validation.harness import ROOT, say
from nicheloop.config_cells import Simulate
from nicheloop.config_niche import Crosstalk

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import pandas as pd

    from nicheloop.ligand_receptor import Sample

CELLS = 2000  # per demo tumour: enough B cells and T cells for the controls that need them
CONTROLS = {
    "CTRL_DLL4_NOTCH": "DLL4 to NOTCH1 or NOTCH4, endothelium", "CTRL_CD40LG_CD40": "CD40LG to CD40, CD4 T to B cells",
    "CTRL_CXCL13_CXCR5": "CXCL13 to CXCR5, T to B cells",
    "CTRL_PDGFB_PDGFRB": "PDGFB to PDGFRB, endothelium to pericytes",
    "VEGFA": "VEGFA to KDR or FLT1, malignant cells and macrophages to endothelium",
}  # fmt: skip
OPTIONS = Crosstalk(n_permutations=199, n_matched_pairs=199)
REAL_SAMPLES = ("tenx_idc", "qian_043", "qian_072")


def demo_sample(plan: Any, seed: int) -> Sample:
    """One demo tumour with its true cell types, as the product sees a sample."""
    from nicheloop import genes, populations, simulate
    from nicheloop import ligand_receptor as lr

    table = simulate.profiles()
    made = simulate.simulate_sample(plan, table, options=Simulate(cells_per_tumour=CELLS), seed=seed)
    truth = made.cells
    order = np.argsort(table.genes.astype(str), kind="stable")
    x = made.counts[:, order].astype(np.float64).tocsr()
    myeloid = truth["cell_type_minor"].map(
        {"monocyte_classical": "monocyte", "macrophage_pan": "macrophage", "cDC2": "dendritic"}
    )
    cells = truth.assign(
        malignancy=np.where(truth["malignant"], "malignant", "not_epithelial"),
        myeloid_class=myeloid.astype(object).where(myeloid.notna(), "not_myeloid"),
    )
    totals = np.asarray(x.sum(axis=1)).ravel()
    return lr.Sample(
        x, totals, table.genes[order], populations.NAMES,
        np.column_stack([populations.members(name, cells) for name in populations.NAMES]),
        np.asarray(x.sum(axis=0)).ravel() / totals.sum(), float(made.truth["ambient_fraction"]),
        frozenset(genes.platelet_genes()),
    )  # fmt: skip


def demo_task(task: tuple[str, int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the positive controls, and of the product's tested decoys, in one demo tumour."""
    from nicheloop import crosstalk, genes, simulate
    from nicheloop import ligand_receptor as lr

    name, seed = task
    plan = next(p for p in simulate.PLANS if p.sample == name)
    sample = demo_sample(plan, seed)
    pairs = lr.pairs_of_axes(a for a in genes.axes() if a.id in CONTROLS)
    reserved = {g for p in lr.pairs_of_axes(genes.axes()) for g in p.genes}
    controls = crosstalk.score_axes(sample, pairs, OPTIONS, seed, reserved=reserved).assign(sample=name)
    return controls, crosstalk.score_decoys(sample, OPTIONS, seed).assign(sample=name)


def demo_tumours(seed: int, pool: Executor | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Controls and decoys in the demo's tumours, more cells each."""
    import pandas as pd

    from nicheloop import simulate

    names = [p.sample for p in simulate.PLANS if p.tissue == "tumour" and not p.shallow]
    found = run_many(demo_task, [(n, seed) for n in names], pool, "demo tumours")
    return pd.concat([f[0] for f in found]), pd.concat([f[1] for f in found])


def control_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Per control: tumours in which it could be tested, those in which it is positive, and why not elsewhere."""
    import pandas as pd

    out = []
    for axis, words in CONTROLS.items():
        mine = rows[rows["axis"] == axis]
        tested = mine[mine["status"] == "tested"]
        best = tested.groupby("sample")["p"].min()
        others = mine[~mine["sample"].isin(best.index)]["status"].value_counts()
        out.append({
            "control": words, "tumours": mine["sample"].nunique(), "tested": len(best),
            "positive (p at most 0.05)": int((best <= 0.05).sum()),
            "median p": float(best.median()) if len(best) else np.nan,
            "elsewhere": others.index[0] if len(others) else "-",
        })  # fmt: skip
    return pd.DataFrame(out)


def decoy_checks(decoys: pd.DataFrame) -> list[Check]:
    """The product's own decoys: secreted x membrane pairs without a recorded interaction, really tested."""
    null = (
        "secreted and membrane genes without a recorded interaction, expressed and tested, in tumours with the rates "
        "of real cell types"
    )
    out = []
    for name, group in decoys.groupby("sample"):
        out.append(Check("decoys", f"{name}: secreted x membrane pairs", null, group["p"].to_numpy(dtype=float)))
    return out


# ------------------------------------------------------------------------------------------------------ real tumours
def run_real(data: Path, work: Path) -> Path:
    """Run the stages up to the loop on the real tumours; returns the results folder.

    The two normal breasts of the sheet take part, because they serve as reference for copy numbers.
    """
    spec = importlib.util.spec_from_file_location("real_cohort", ROOT / "tests" / "real_cohort.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    results = (work / "real").resolve()
    sheet = module.write_sheet(data, results)
    targets = [f"{results}/samples/{s}/{stage}.parquet" for s in REAL_SAMPLES for stage in ("crosstalk", "loop")]
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--configfile",
        str(ROOT / "config.yaml"), "--directory", str(results),
        "--cores", "2", "--quiet", "rules", "host", "--config", f"samples={sheet}", f"results={results}", "--",
        *targets,
    ]  # fmt: skip
    say("  real tumours: running the stages up to the loop")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=results, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"the workflow stopped on the real tumours:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return results


COLUMNS = (
    "sample", "axis", "ligand", "receptor", "sender", "receiver", "status", "n_sender", "n_receiver", "ligand_umi",
    "ligand_upper", "receptor_umi", "receptor_upper", "n_neutrophil", "p",
)  # fmt: skip


def real_rows(results: Path) -> pd.DataFrame:
    """All rows of the crosstalk tables of the real tumours."""
    import pandas as pd

    from nicheloop import io

    return pd.concat(
        [io.read_table(results / "samples" / s / "crosstalk.parquet").assign(sample=s) for s in REAL_SAMPLES],
        ignore_index=True,
    )


def asked_of(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the question: CXCL7, CXCL8 and IL6 to malignant cells, one sender each (the most cells)."""
    import pandas as pd

    wanted = ("IL6_classic", "IL6_trans", "IL6_autocrine", "CXCL8", "PPBP")
    mine = rows[rows["axis"].isin(wanted) & (rows["receiver"] == "malignant") & (rows["sender"] != "csc_high")]
    mine = mine.sort_values("n_sender", ascending=False, kind="stable")
    keys = ["sample", "axis", "ligand", "receptor"]
    mine = mine.drop_duplicates(keys)
    order = pd.Categorical(mine["axis"], wanted)
    return mine.assign(order=order).sort_values(["sample", "order", "receptor"])[list(COLUMNS)].reset_index(drop=True)


def count_statuses(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows per status and sample: none is dropped."""
    table = rows.groupby(["status", "sample"]).size().unstack("sample", fill_value=0)
    return table.reset_index()


def real_controls(rows: pd.DataFrame) -> pd.DataFrame:
    """Positive controls of real tumours: of each the tested pair with the smallest p, else the one with most cells."""
    import pandas as pd

    mine = rows[rows["axis"].isin(CONTROLS)]
    mine = mine.assign(
        untested=mine["status"] != "tested", fewest=-mine[["n_sender", "n_receiver"]].min(axis=1).astype(float)
    ).sort_values(["untested", "p", "fewest"], kind="stable")
    best = mine.drop_duplicates(["sample", "axis"])
    order = pd.Categorical(best["axis"], list(CONTROLS))
    best = best.assign(order=order, control=best["axis"].map(CONTROLS)).sort_values(["sample", "order"])
    columns = ["sample", "control", "status", "ligand", "receptor", "sender", "receiver", "n_sender", "n_receiver",
               "ligand_umi", "receptor_umi", "p"]  # fmt: skip
    return best[columns].reset_index(drop=True)
