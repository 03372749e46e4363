"""How often a planted loop is claimed of a cohort, and what a test of cells would have claimed of the same cohorts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.validation import crosstalk_cohorts as cohorts
from benchmarks.validation.crosstalk_calibration import (
    CROSSTALK,
    LOOP,
    Check,
    blank,
    claims,
    generator,
    run_many,
)

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import pandas as pd

Floats = NDArray[np.float64]

SIZES = (5, 10, 26, 60)
CELL_GENES = ("IL6", "IL6R", "IL6ST", "CSF1", "CSF1R")
# sender, ligand, receiver, receptor: what a reader of a cell-level table would call the loop
CELL_PAIRS = (
    ("icaf", "IL6", "malignant", ("IL6R", "IL6ST")),
    ("endo_venous", "IL6", "malignant", ("IL6R", "IL6ST")),
    ("malignant", "CSF1", "macrophage", ("CSF1R",)),
)
CELL_PERMUTATIONS, EXPRESSING = 199, 0.1

LOOPS = {
    f"loop, {name}": cohorts.Design(arms="ABC", strength=strength, coupled=True)
    for name, strength in cohorts.STRENGTHS.items()
}
STRONG = cohorts.STRENGTHS["strong"]
WITHOUT = {
    "nothing planted": cohorts.Design(),
    "IL6 specific to fibroblasts and venules, no more": cohorts.Design(arms="A", strength=STRONG),
    "all arms are properties of the cell types, no coupling": cohorts.Design(arms="ABC", strength=STRONG),
}
# every arm is there, ligand and response are independent, and a technical quantity differs between patients
BETWEEN = {
    "ambient RNA, 2 to 25 %": cohorts.Design(arms="ABC", strength=STRONG, ambient=(0.02, 0.25), caf_readout=2.0),
    "ambient RNA, 2 to 25 %, taken for 0.7 of it": cohorts.Design(
        arms="ABC", strength=STRONG, ambient=(0.02, 0.25), caf_readout=2.0, ambient_known=0.7
    ),
    "stress of the patient (sd 0.4) moves stress genes and IL6": cohorts.Design(
        arms="ABC", strength=STRONG, patient_stress=0.4
    ),
    "stress of the patient (sd 0.4) moves the whole read-out and IL6": cohorts.Design(
        arms="ABC", strength=STRONG, patient_stress=0.4, stress_readout=True
    ),
}


@dataclass(frozen=True)
class Patient:
    """What a tumour says: rows of its arms for all axes, and log-normalised counts of a few genes with their types."""

    arms: pd.DataFrame
    record: dict[str, Any]
    expression: Floats
    kind: NDArray[np.int64]


def patient_batch(task: tuple[int, str, cohorts.Design, int, int]) -> list[Patient]:
    """Draw patients and run their arms."""
    import pandas as pd

    from nicheloop import genes, io, loop

    seed, name, design, batch, size = task
    rng = generator(seed, "patients", name, batch)
    axes = [a for a in genes.axes() if a.id in cohorts.AXES]
    rest = blank()
    rest = rest[~rest["axis"].isin([a.id for a in axes])]
    out = []
    for i in range(size):
        tumour = cohorts.draw_tumour(design, rng)
        rows = loop.loop_arms(tumour.sample, tumour.cells, axes, LOOP, CROSSTALK, int(rng.integers(2**31)))
        x = io.lognormalise(tumour.sample.x)[:, [cohorts.panel().at[g] for g in CELL_GENES]]
        rows = pd.DataFrame({c: [*rows[c], *rest[c]] for c in rest})
        out.append(Patient(rows, cohorts.draw_record(batch * size + i, rng), x.toarray(), tumour.kind))
    return out


def draw_patients(
    seed: int, designs: dict[str, tuple[cohorts.Design, int]], pool: Executor | None, label: str
) -> dict[str, list[Patient]]:
    """Name -> patients of a design."""
    size = 10
    tasks = [(seed, name, d, b, size) for name, (d, n) in designs.items() for b in range(max(1, n // size))]
    found = run_many(patient_batch, tasks, pool, label)
    out: dict[str, list[Patient]] = {name: [] for name in designs}
    for task, patients in zip(tasks, found, strict=True):
        out[task[1]] += patients
    return out


# ------------------------------------------------------------------------------------ a test of cells, for comparison
def cell_test(expression: Floats, kind: NDArray[np.int64], rng: np.random.Generator, n: int) -> Floats:
    """CellPhoneDB's test: mean of the ligand's and the limiting subunit's means, types permuted over the cells given.

    Returns
    -------
    (pairs,) p as the tools give it, without (b + 1) / (n + 1); 1 where fewer than a tenth of the cells express a gene.
    """
    types = list(cohorts.TYPES)
    size = np.bincount(kind, minlength=len(types)).astype(float)

    def score(labels: NDArray[np.int64]) -> Floats:
        sums = np.zeros((len(types), expression.shape[1]))
        for g in range(expression.shape[1]):
            sums[:, g] = np.bincount(labels, weights=expression[:, g], minlength=len(types))
        mean = sums / size[:, None]
        return np.array([
            (mean[types.index(s), CELL_GENES.index(g)] + min(mean[types.index(r), CELL_GENES.index(u)] for u in c)) / 2
            for s, g, r, c in CELL_PAIRS
        ])  # fmt: skip

    seen = expression > 0
    expressed = np.array([
        seen[kind == types.index(s), CELL_GENES.index(g)].mean() >= EXPRESSING
        and all(seen[kind == types.index(r), CELL_GENES.index(u)].mean() >= EXPRESSING for u in c)
        for s, g, r, c in CELL_PAIRS
    ])  # fmt: skip
    observed = score(kind)
    null = np.stack([score(kind[rng.permutation(len(kind))]) for _ in range(n)])
    return np.where(expressed, (null >= observed).mean(axis=0), 1.0)


def cell_claims(patients: Sequence[Patient], rng: np.random.Generator) -> dict[str, bool]:
    """What three readers of a cell-level table would say of a cohort: p < 0.05 is called the loop."""
    pooled = cell_test(
        np.concatenate([p.expression for p in patients]),
        np.concatenate([p.kind for p in patients]),
        rng,
        CELL_PERMUTATIONS,
    )
    alone = np.stack([cell_test(p.expression, p.kind, rng, CELL_PERMUTATIONS) for p in patients])
    return {
        "cells pooled: IL6 axis": bool((pooled[:2] < 0.05).any()),
        "cells pooled: IL6 and CSF1 axes": bool((pooled[:2] < 0.05).any() and pooled[2] < 0.05),
        "cells per sample: IL6 axis in most": bool((alone[:, :2] < 0.05).any(axis=1).mean() > 0.5),
    }


# ------------------------------------------------------------------------------------------------------ cohorts
@dataclass(frozen=True)
class CohortTask:
    """One cohort to be judged."""

    seed: int
    name: str
    n: int
    patients: tuple[Patient, ...]
    number: int
    cells: bool


def cohort_answer(task: CohortTask) -> dict[str, Any]:
    """What the product, and a test of cells, says of one cohort."""
    from nicheloop import loop_cohort

    rng = generator(task.seed, "answer", task.name, task.n, task.number)
    tables = {p.record["patient"]: p.arms for p in task.patients}
    records = {p.record["patient"]: p.record for p in task.patients}
    _, table = loop_cohort.summarise_loop(tables, records, LOOP, int(rng.integers(2**31)))
    row = table.set_index("axis").loc["IL6_classic"]
    said = {
        "cohort": task.name, "n": task.n, "nicheloop": claims(table), "status": str(row["status"]),
        "n_assessable": int(row["n_assessable"]), "n_present": int(row["n_present"]),
        **{p: float(row[p]) for p in ("p_forward", "p_forward_adjusted", "p_return", "p_return_adjusted")},
    }  # fmt: skip
    return said | (cell_claims(task.patients, rng) if task.cells else {})


def disjoint(patients: Sequence[Patient], n: int) -> list[list[Patient]]:
    """Cohorts of n that share no patient."""
    return [list(patients[i : i + n]) for i in range(0, len(patients) - n + 1, n)]


def resampled(
    patients: Sequence[Patient], n: int, cohorts_wanted: int, rng: np.random.Generator
) -> list[list[Patient]]:
    """Cohorts of n different patients each; two cohorts may share patients."""
    return [[patients[i] for i in rng.choice(len(patients), n, replace=False)] for _ in range(cohorts_wanted)]


def ask(
    seed: int, groups: dict[str, dict[int, list[list[Patient]]]], pool: Executor | None, label: str, *, cells: int
) -> pd.DataFrame:
    """Answers for every cohort; the test of cells is run for the first `cells` of each size."""
    import pandas as pd

    tasks = [
        CohortTask(seed, name, n, tuple(members), i, i < cells)
        for name, by_size in groups.items()
        for n, cohorts_ in by_size.items()
        for i, members in enumerate(cohorts_)
    ]
    return pd.DataFrame(run_many(cohort_answer, tasks, pool, label))


CELL_COLUMNS = ("cells pooled: IL6 axis", "cells pooled: IL6 and CSF1 axes", "cells per sample: IL6 axis in most")


def rates(answers: pd.DataFrame) -> pd.DataFrame:
    """Share of cohorts of which a loop is claimed, with the product's exact 95 % interval."""
    import pandas as pd
    from scipy.stats import binomtest

    rows = []
    for (name, n), group in answers.groupby(["cohort", "n"], sort=False):
        k, total = int(group["nicheloop"].sum()), len(group)
        interval = binomtest(k, total).proportion_ci(method="exact")
        row = {"cohort": name, "patients": n, "cohorts": total, "nicheloop": k / total, "low": interval.low,
               "high": interval.high, "status": group["status"].mode().iloc[0]}  # fmt: skip
        for column in CELL_COLUMNS:
            row[column] = float(group[column].dropna().astype(float).mean()) if column in group else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def between_checks(answers: pd.DataFrame) -> list[Check]:
    """Coupling and sentence of cohorts in which a technical quantity differs between patients.

    A claim needs the raw and the adjusted swap, so the larger p is judged; the raw one alone is stated.
    """
    checks = []
    for name, group in answers.groupby("cohort", sort=False):
        null = "ligand and response are independent over patients; between patients differs: " + str(name)
        n = int(group["n"].iloc[0])
        for side in ("forward", "return"):
            raw, both = group[f"p_{side}"], group[[f"p_{side}", f"p_{side}_adjusted"]].max(axis=1, skipna=False)
            where = f"{n} patients: {name}"
            for test, p, judged in (
                (f"coupling swap, {side}", both, True),
                (f"coupling swap, {side}: raw", raw, False),
            ):
                values = p.fillna(1.0).to_numpy(dtype=float)
                checks.append(Check(test, where, null, values, nuisance=True, judged=judged))
        checks.append(Check("sentence of a cohort", f"{n} patients: {name}", null,
                            np.where(group["nicheloop"], 0.05, 1.0), nuisance=True))  # fmt: skip
    return checks


def factor_correlation(patients: Sequence[Patient]) -> dict[str, tuple[float, float, float, int]]:
    """Correlation over patients of ligand and response as the product measures them, with its 95 % interval."""
    from scipy.stats import pearsonr

    out = {}
    for side, arm in (("forward", "A"), ("return", "C")):
        rows = [p.arms[(p.arms["axis"] == "IL6_classic") & (p.arms["arm"] == arm)].iloc[0] for p in patients]
        a = np.array([r["niche_ligand"] for r in rows], dtype=float)
        b = np.array([r["response"] for r in rows], dtype=float)
        use = np.isfinite(a) & np.isfinite(b)
        found = pearsonr(a[use], b[use])
        low, high = found.confidence_interval(0.95)
        out[side] = (float(found.statistic), float(low), float(high), int(use.sum()))
    return out
