"""False positives of the axis tests, the arms, their intersection-union, the coupling swap and the cohort's sentence.

Every configuration names its null hypothesis in one sentence and draws from exactly that null.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.validation import crosstalk_cohorts as cohorts
from benchmarks.validation.harness import say
from nicheloop.config_niche import Crosstalk, Loop

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.ligand_receptor import Pair, Sample

Floats = NDArray[np.float64]
Task = TypeVar("Task")
Answer = TypeVar("Answer")

# (b + 1) / (n + 1) holds for any number of draws: fewer than in the product's defaults, so that many tumours fit
CROSSTALK = Crosstalk(n_permutations=199, n_matched_pairs=199, n_matched_genes=40)
LOOP = Loop(n_bootstrap=199, n_swaps=999)
LEVELS = (0.05, 0.01)


def generator(seed: int, *words: object) -> np.random.Generator:
    """Generator of its own for every named piece of work: results do not depend on what else is run."""
    return np.random.default_rng([seed, zlib.crc32("/".join(map(str, words)).encode())])


def run_many(
    function: Callable[[Task], Answer], tasks: Sequence[Task], pool: Executor | None, label: str, per: int = 4
) -> list[Answer]:
    """Map over tasks in the processes of a pool, saying how far it is; answers come in the order of the tasks."""
    out: list[Answer] = []
    for answer in pool.map(function, tasks) if pool else map(function, tasks):
        out.append(answer)
        if len(out) == len(tasks) or len(out) % max(1, len(tasks) // per) == 0:
            say(f"  {label}: {len(out)} of {len(tasks)}")
    return out


@contextmanager
def processes(workers: int) -> Iterator[Executor | None]:
    """Pool of processes for all parts, None for one: a process imports once.  The answers do not depend on it."""
    if workers <= 1:
        yield None
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool


@dataclass(frozen=True)
class Check:
    """Independent p-values of one test in one configuration, 1 where nothing was tested.

    `randomised` has ties broken at random, for tests whose p must be uniform and not only super-uniform.
    """

    test: str
    configuration: str
    null: str
    p: Floats
    nuisance: bool = False
    judged: bool = True
    randomised: Floats | None = None


def judge(checks: Sequence[Check], *, family: int | None = None) -> pd.DataFrame:
    """Judge all checks together: exact binomial tests against the level, p < 0.001 after Bonferroni fails.

    Returns
    -------
    One row per check and level: test, configuration, null, n, level, false positives, rate with its exact 95 %
    interval, p of the binomial test times the number of comparisons, and whether it holds (None: stated only).
    """
    import pandas as pd
    from scipy.stats import binomtest

    from benchmarks.validation.harness import judge_rate

    family = family or sum(c.judged for c in checks) * len(LEVELS) + sum(c.randomised is not None for c in checks)
    rows = []
    for c in checks:
        n = len(c.p)
        for level in LEVELS:
            k = int((c.p <= level + 1e-12).sum())
            interval = binomtest(k, n).proportion_ci(method="exact")
            p, holds = judge_rate(k, n, level, family=family, side="greater")
            rows.append({
                "test": c.test, "configuration": c.configuration, "null": c.null, "nuisance": c.nuisance, "n": n,
                "level": level, "false positives": k, "rate": k / n, "low": interval.low, "high": interval.high,
                "p of the excess": p, "holds": holds if c.judged else None,
            })  # fmt: skip
    return pd.DataFrame(rows)


def uniformity(checks: Sequence[Check], family: int) -> pd.DataFrame:
    """Kolmogorov-Smirnov test of p-values with ties broken at random, for the tests that are exact."""
    import pandas as pd
    from scipy.stats import kstest

    rows = []
    for c in checks:
        if c.randomised is None:
            continue
        found = kstest(c.randomised, "uniform")
        p = min(1.0, family * float(found.pvalue))
        rows.append({
            "test": c.test, "configuration": c.configuration, "n": len(c.p), "distance": float(found.statistic), "p": p,
            "holds": p >= 0.001,
        })  # fmt: skip
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------------ axis tests
@dataclass(frozen=True)
class AxisNull:
    """One null of the tests of an axis: what ligand and receptor share with other cells or other genes."""

    name: str
    null: str
    subunits: int = 1
    umi: float = 30.0  # expected in the sender
    specific: bool = False  # ligand and receptor are as specific to types as any gene
    sender: str = "a"
    receiver: str = "b"
    depth: tuple[float, float, float] = (1.0, 1.0, 1.0)
    judged: tuple[str, ...] = ("p_label", "p")


LABELS = "type labels are exchangeable among the cells of the sample: ligand and receptor have one share in all types"
GENES = "ligand and receptor are drawn at random from the genes of the sample, which differ between types as genes do"
AXIS_NULLS = (
    AxisNull("labels, 30 UMI", LABELS),
    AxisNull("labels, 10 UMI (at the floor)", LABELS, umi=10.0),
    AxisNull("labels, complex of two", LABELS, subunits=2),
    AxisNull("labels, senders within receivers", LABELS, sender="part", receiver="a"),
    AxisNull("genes", GENES, specific=True, judged=("p_pair", "p")),
    AxisNull("genes, complex of two", GENES, specific=True, subunits=2, judged=("p_pair", "p")),
    AxisNull(
        "unequal depth, labels", "one share in all types; senders have a quarter of the others' library",
        depth=(0.25, 1.0, 1.0), judged=("p",),
    ),
    AxisNull(
        "unequal depth, genes", GENES + "; senders have a quarter of the others' library", specific=True,
        depth=(0.25, 1.0, 1.0), judged=("p_pair", "p"),
    ),
)  # fmt: skip
AXIS_CELLS, AXIS_GENES, AXIS_LIBRARY = 50, 260, 2000.0


def axis_sample(null: AxisNull, rng: np.random.Generator) -> tuple[Sample, Pair]:
    """Draw a sample of three types from the null, and the pair that is asked of it."""
    from scipy import sparse

    from nicheloop import ligand_receptor as lr

    n_types, n = 3, 3 * AXIS_CELLS
    kind = np.repeat(np.arange(n_types), AXIS_CELLS)
    base = rng.lognormal(0, 1.0, AXIS_GENES)
    shares = base * rng.lognormal(0, cohorts.TYPE_SD, (n_types, AXIS_GENES))
    asked = rng.choice(AXIS_GENES, 1 + null.subunits, replace=False)
    if not null.specific:
        shares[:, asked] = 0.0
        shares *= (1 - 0.01 * (1 + null.subunits)) / shares.sum(axis=1, keepdims=True)
        shares[:, asked] = null.umi / (AXIS_CELLS * AXIS_LIBRARY * null.depth[0])
        rest = np.delete(np.arange(AXIS_GENES), asked)
        room = 1 - shares[:, asked].sum(axis=1)
        shares[:, rest] *= (room / shares[:, rest].sum(axis=1))[:, None]
    else:
        shares /= shares.sum(axis=1, keepdims=True)
    library = AXIS_LIBRARY * rng.lognormal(0, 0.4, n) * np.array(null.depth)[kind]
    x = sparse.csr_matrix(rng.poisson(library[:, None] * shares[kind]).astype(float))
    symbols = np.array([f"G{i:03d}" for i in range(AXIS_GENES)], dtype=object)
    part = (kind == 0) & (np.arange(n) % 2 == 0)
    masks = np.column_stack([kind == 0, kind == 1, kind == 2, part, np.zeros(n, dtype=bool)])
    totals = np.asarray(x.sum(axis=1)).ravel()
    sample = lr.Sample(
        x, totals, symbols, ("a", "b", "c", "part", "platelet"), masks, np.zeros(AXIS_GENES), np.nan, frozenset()
    )
    ligand, *receptor = (str(symbols[i]) for i in asked)
    return sample, lr.Pair("X", "forward", ligand, tuple(receptor), null.sender, null.receiver)


def axis_batch(task: tuple[int, AxisNull, int, int]) -> Floats:
    """(repetitions, 3) p_label, p_pair and p; 1 where the pair was not tested."""
    from nicheloop import crosstalk

    seed, null, batch, size = task
    rng = generator(seed, "axis", null.name, batch)
    out = np.ones((size, 3))
    for i in range(size):
        sample, pair = axis_sample(null, rng)
        row = crosstalk.score_axes(sample, [pair], CROSSTALK, int(rng.integers(2**31))).iloc[0]
        if row["status"] == "tested":
            out[i] = [row["p_label"], row["p_pair"], row["p"]]
    return out


def axis_checks(seed: int, repetitions: int, pool: Executor | None) -> list[Check]:
    """Draw the nulls of the axis tests."""
    size = 50
    batches = max(1, repetitions // size)
    tasks = [(seed, null, b, size) for null in AXIS_NULLS for b in range(batches)]
    found = run_many(axis_batch, tasks, pool, "tests of an axis")
    checks = []
    for i, null in enumerate(AXIS_NULLS):
        p: Floats = np.concatenate(found[i * batches : (i + 1) * batches])
        rng = generator(seed, "ties", null.name)
        for j, test in enumerate(("p_label", "p_pair", "p")):
            exact = test == "p_label" and test in null.judged and null.umi > 20 and null.subunits == 1
            spread = p[:, j] - rng.random(len(p)) / (CROSSTALK.n_permutations + 1) if exact else None
            checks.append(
                Check(
                    {"p": "axis: p, the larger"}.get(test, f"axis: {test}"), null.name, null.null, p[:, j],
                    nuisance="depth" in null.name, judged=test in null.judged, randomised=spread,
                )
            )  # fmt: skip
    return checks


# ------------------------------------------------------------------------------------------- decoys in one tumour
def decoy_batch(task: tuple[int, int, int]) -> Floats:
    """P of expression-matched pairs without an interaction: random genes of a tumour with a planted loop."""
    from nicheloop import crosstalk, populations
    from nicheloop import ligand_receptor as lr

    seed, batch, pairs = task
    rng = generator(seed, "decoys", batch)
    tumour = cohorts.draw_tumour(cohorts.Design(arms="ABC", coupled=True), rng)
    panel = cohorts.panel()
    genes = rng.choice(panel.genes[panel.background], 2 * pairs, replace=False)
    types = [t for t in cohorts.TYPES if t in populations.NAMES]
    asked = []
    for i in range(pairs):
        sender, receiver = rng.choice(types, 2, replace=False)
        asked.append(lr.Pair(f"D{i}", "decoy", str(genes[2 * i]), (str(genes[2 * i + 1]),), str(sender), str(receiver)))
    table = crosstalk.score_axes(tumour.sample, asked, CROSSTALK, int(rng.integers(2**31)))
    return table.loc[table["status"] == "tested", "p"].to_numpy(dtype=float)


def decoy_check(seed: int, tumours: int, pool: Executor | None) -> Check:
    """Ask ten decoys of every tumour."""
    p: Floats = np.concatenate(run_many(decoy_batch, [(seed, b, 10) for b in range(tumours)], pool, "decoys", per=2))
    return Check(
        "decoys", "pairs of matched genes in tumours with a loop", "the pair is drawn at random from genes of like "
        "abundance; only those really tested count", p,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------- arms of a patient
@dataclass(frozen=True)
class ArmNull:
    """Arms that are truly present in a configuration, and what is asked of it."""

    name: str
    design: cohorts.Design
    null: str
    absent: str  # arms that are under their null
    nuisance: bool = False
    judged: bool = True  # False: a limit of the method, stated with its rate


NULL_A = "IL6 and its receptors have one share in all cell types"
NULL_B = "within clone and depth the read-out does not differ between CSC-high and other malignant cells"
NULL_C = "return ligands and receptors have one share in all cell types"
PRESENT_NULLS = tuple(
    ArmNull(
        f"present: {present or 'none'}",
        cohorts.Design(arms=present, strength=cohorts.SURE),
        "; ".join(n for a, n in zip("ABC", (NULL_A, NULL_B, NULL_C), strict=True) if a not in present),
        "".join(a for a in "ABC" if a not in present),
    )
    for present in ("", "A", "B", "C", "AB", "AC", "BC")
)
ARM_NULLS = (
    *PRESENT_NULLS,
    ArmNull(
        "present: B and C, IL6 as specific as any gene",
        cohorts.Design(arms="BC", strength=cohorts.SURE, specific=cohorts.TYPE_SD),
        "IL6 and its receptors differ between types no more than other genes of like abundance do", "A",
    ),
    ArmNull(
        "present: B and C, IL6 as specific as other secreted proteins",
        cohorts.Design(arms="BC", strength=cohorts.SURE, specific=cohorts.ROLE_SD),
        "IL6 and its receptors differ between types no more than other secreted and membrane proteins do", "A",
        judged=False,
    ),
    ArmNull(
        "unequal depth", cohorts.Design(arms="BC", strength=cohorts.SURE, depth={"icaf": 0.3, "endo_venous": 0.3}),
        NULL_A + "; senders have a third of the others' library", "A", True,
    ),
    ArmNull(
        "call follows depth", cohorts.Design(arms="AC", strength=cohorts.SURE, call_depth=2.0),
        NULL_B + "; deep cells are called CSC-high more often", "B", True,
    ),
    ArmNull(
        "ambient IL6", cohorts.Design(arms="BC", strength=cohorts.SURE, elsewhere=True, ambient=(0.05, 0.2)),
        "IL6 is made by a type that is no sender of the axis and reaches senders as ambient RNA only (5 to 20 %)", "A",
        True,
    ),
    ArmNull(
        "ambient IL6, rate taken for 0.7 of it",
        cohorts.Design(arms="BC", strength=cohorts.SURE, elsewhere=True, ambient=(0.05, 0.2), ambient_known=0.7),
        "as above, and the contamination rate is underestimated by 30 %", "A", True,
    ),
    ArmNull(
        "platelets", cohorts.Design(arms="AC", strength=cohorts.SURE, platelets=0.05),
        NULL_B + "; 5 % of the barcodes carry platelet RNA", "B", True,
    ),
    ArmNull(
        "doublets", cohorts.Design(arms="AC", strength=cohorts.SURE, doublets=0.04, doublet_odds=3.0, caf_readout=2.0),
        NULL_B + "; 4 % of the malignant barcodes hold an iCAF too, whose read-out is twice as high, and are called "
        "CSC-high three times as often", "B", True,
    ),
    ArmNull(
        "dissociation stress, stress genes", cohorts.Design(arms="AC", strength=cohorts.SURE, cell_stress=0.5),
        "CSC-high cells are more stressed (log fold 0.5), which moves the stress genes of the read-out and no other",
        "B", True,
    ),
    ArmNull(
        "dissociation stress, whole read-out",
        cohorts.Design(arms="AC", strength=cohorts.SURE, cell_stress=0.5, stress_readout=True),
        "CSC-high cells are more stressed (log fold 0.5), and all genes of the read-out follow stress", "B", True,
            ),
)  # fmt: skip


def arm_batch(task: tuple[int, ArmNull, int, int]) -> pd.DataFrame:
    """P of the three arms of IL6_classic, and the intersection-union p, of independent tumours."""
    import pandas as pd

    from nicheloop import genes, loop, loop_cohort

    seed, null, batch, size = task
    rng = generator(seed, "arms", null.name, batch)
    axes = [a for a in genes.axes() if a.id in cohorts.AXES]
    rows = []
    for _ in range(size):
        tumour = cohorts.draw_tumour(null.design, rng)
        table = loop.loop_arms(tumour.sample, tumour.cells, axes, LOOP, CROSSTALK, int(rng.integers(2**31)))
        for axis in ("IL6_classic", "PPBP"):
            mine = table[table["axis"] == axis]
            found = loop_cohort.verdict(mine, LOOP.alpha)
            by_arm = mine.set_index("arm")
            rows.append({"axis": axis, **{a: by_arm.loc[a, "p"] for a in "ABC"}, "p": found["p"],
                         "verdict": found["verdict"], "status_A": by_arm.loc["A", "status"]})  # fmt: skip
    return pd.DataFrame(rows)


def arm_checks(
    seed: int, repetitions: int, pool: Executor | None, nulls: Sequence[ArmNull] = ARM_NULLS
) -> tuple[list[Check], pd.DataFrame]:
    """Draw tumours from every configuration; returns the checks and how often each arm was tested and present."""
    import pandas as pd

    size = 10
    batches = max(1, repetitions // size)
    tasks = [(seed, null, b, size) for null in nulls for b in range(batches)]
    found = run_many(arm_batch, tasks, pool, "arms")
    checks, seen = [], []
    for i, null in enumerate(nulls):
        both = pd.concat(found[i * batches : (i + 1) * batches])
        table, guard = both[both["axis"] == "IL6_classic"], both[both["axis"] == "PPBP"]
        for arm in null.absent if not null.nuisance else "":
            checks.append(Check(f"arm {arm}", null.name, (NULL_A, NULL_B, NULL_C)["ABC".index(arm)],
                                table[arm].fillna(1.0).to_numpy(dtype=float), judged=null.judged))  # fmt: skip
        p = table["p"].fillna(1.0).to_numpy(dtype=float)
        checks.append(Check("intersection-union", null.name, null.null, p, nuisance=null.nuisance, judged=null.judged))
        seen.append({
            "configuration": null.name, "tumours": len(table),
            **{f"arm {a}, p at most 0.05": float((table[a].fillna(1.0) <= 0.05).mean()) for a in "ABC"},
            "all three": float((p <= 0.05).mean()), "assessable": float((table["verdict"] != "not assessable").mean()),
            "PPBP tested": int((guard["status_A"] == "tested").sum()),
        })  # fmt: skip
    return checks, pd.DataFrame(seen)


# -------------------------------------------------------------------------------------------------- coupling swap
SWAP_NULL = "within a stratum the ligand of a patient and the response of the same patient are independent"
SWAPS: dict[str, tuple[list[int], str]] = {
    "10 patients, one stratum": ([10], "normal"),
    "26 patients, strata of 11, 10 and 5": ([11, 10, 5], "normal"),
    "60 patients, strata differ in both factors": ([25, 23, 12], "shift"),
    "26 patients, heavy tails": ([11, 10, 5], "heavy"),
    "26 patients, half without the ligand": ([13, 13], "ties"),
}


def swap_batch(task: tuple[int, str, int, int]) -> Floats:
    """P of the coupling swap under independence."""
    from nicheloop.coupling import coupling_swap

    seed, name, batch, size = task
    sizes, kind = SWAPS[name]
    rng = generator(seed, "swap", name, batch)
    strata = [f"s{i}" for i, n in enumerate(sizes) for _ in range(n)]
    shift = np.repeat(np.arange(len(sizes)), sizes) * (2.0 if kind == "shift" else 0.0)
    out = np.empty(size)
    for i in range(size):
        a, b = (rng.standard_t(1.5, (2, len(strata))) if kind == "heavy" else rng.normal(size=(2, len(strata)))) + shift
        if kind == "ties":
            a = np.where(rng.random(len(a)) < 0.5, a.min(), a)
        out[i] = coupling_swap(
            a, b, strata, min_stratum=LOOP.min_stratum, n_swaps=LOOP.n_swaps, seed=int(rng.integers(2**31))
        ).p
    return out


def swap_checks(seed: int, repetitions: int, pool: Executor | None) -> list[Check]:
    """Draw independent factors."""
    size = 250
    batches = max(1, repetitions // size)
    found = run_many(
        swap_batch, [(seed, name, b, size) for name in SWAPS for b in range(batches)], pool, "coupling swap", per=2
    )
    checks = []
    for i, name in enumerate(SWAPS):
        p: Floats = np.concatenate(found[i * batches : (i + 1) * batches])
        ties = generator(seed, "ties", name).random(len(p)) / (LOOP.n_swaps + 1)
        checks.append(Check("coupling swap", name, SWAP_NULL, p, randomised=None if "half" in name else p - ties))
    return checks


# ----------------------------------------------------------------------------------------- the sentence of a cohort
@dataclass(frozen=True)
class CohortNull:
    """A cohort at the level of arms: share of true arms, coupling."""

    name: str
    null: str
    present: str
    forward: float
    back: float


COHORT_NULLS = (
    CohortNull("nothing", "no arm is present, nothing is coupled", "", 0.0, 0.0),
    CohortNull("three arms, no coupling", "all arms are properties of the cell types: every patient has all three, and "
               "ligand and response are independent over patients", "ABC", 0.0, 0.0),
    CohortNull("three arms, forward coupling only", "every patient has all three arms; return ligand and niche "
               "response are independent", "ABC", 0.9, 0.0),
    CohortNull("two arms, both couplings", "arms A and C and both couplings are there; CSC-high cells show no response",
               "AC", 0.9, 0.9),
)  # fmt: skip


def arm_rows(p: dict[str, float], ligand: Floats, response: Floats) -> pd.DataFrame:
    """Rows of the ``loop_arms`` contract for IL6_classic; other axes had too few cells.

    The level of the read-out is the same in CSC-high cells and in all malignant cells.
    """
    table = blank()
    mine = (table["axis"] == "IL6_classic").to_numpy()
    rows = {a: int(np.flatnonzero(mine & (table["arm"] == a).to_numpy())[0]) for a in "ABC"}
    values: dict[str, dict[str, Any]] = {
        "status": dict.fromkeys("ABC", "tested"), "reason": dict.fromkeys("ABC", "simulated"), "p": p,
        "z": dict.fromkeys("ABC", 1.0), "niche_ligand": {"A": ligand[0], "C": ligand[1]},
        "response": {"A": response[0], "C": response[1]}, "response_high": {"B": response[0]},
    }  # fmt: skip
    columns = {}
    for name, by_arm in values.items():
        if name in table:
            columns[name] = table[name].to_numpy(copy=True)
            for arm, value in by_arm.items():
                columns[name][rows[arm]] = value
    return table.assign(**columns)


@cache
def blank() -> pd.DataFrame:
    """Rows of a tumour in which no axis was asked."""
    from nicheloop import loop

    return loop.unanswered("too_few_cells", "not simulated")


def cohort_batch(task: tuple[int, CohortNull, int, int, int]) -> NDArray[np.bool_]:
    """Whether the sentence of a cohort says "consistent with a loop" for IL6."""
    from nicheloop import loop_cohort

    seed, null, n, batch, size = task
    rng = generator(seed, "cohort", null.name, n, batch)
    out = np.zeros(size, dtype=bool)
    for i in range(size):
        tables, records = {}, {}
        for j in range(n):
            z = rng.normal(size=(2, 2))
            rho = np.array([null.forward, null.back])
            response = rho * z[0] + np.sqrt(1 - rho**2) * z[1]
            p = {a: 0.005 if a in null.present else float(rng.integers(1, 201) / 200) for a in "ABC"}
            record = cohorts.draw_record(j, rng)
            tables[record["patient"]], records[record["patient"]] = arm_rows(p, z[0], response), record
        _, table = loop_cohort.summarise_loop(tables, records, LOOP, int(rng.integers(2**31)))
        out[i] = claims(table)
    return out


def claims(table: pd.DataFrame, axis: str = "IL6_classic") -> bool:
    """Whether the cohort's sentence claims a loop of the axis."""
    return "consistent with a loop" in str(table.set_index("axis").loc[axis, "wording"])


def cohort_checks(seed: int, repetitions: int, pool: Executor | None, n: int = 26) -> list[Check]:
    """Draw cohorts from every null of the sentence; the claim itself is the p <= 0.05."""
    size = 10
    batches = max(1, repetitions // size)
    tasks = [(seed, null, n, b, size) for null in COHORT_NULLS for b in range(batches)]
    found = run_many(cohort_batch, tasks, pool, "sentence of a cohort", per=4)
    return [
        Check(
            "sentence of a cohort", f"{n} patients: {null.name}", null.null,
            np.where(np.concatenate(found[i * batches : (i + 1) * batches]), 0.05, 1.0),
        )
        for i, null in enumerate(COHORT_NULLS)
    ]  # fmt: skip
