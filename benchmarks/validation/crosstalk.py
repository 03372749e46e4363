"""Crosstalk and loop: calibration of every test, power of the cohort claim, positive controls, real tumours."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.validation import crosstalk_calibration as calibration
from benchmarks.validation import crosstalk_power as power
from benchmarks.validation import crosstalk_tumours as tumours
from benchmarks.validation.harness import NO_REAL_DATA, Claim, Result, not_run, real_data, say

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import pandas as pd
    from matplotlib.figure import Figure

    from benchmarks.validation.crosstalk_calibration import Check

NAME = "crosstalk"
TITLE = "Crosstalk and the loop"
QUESTION = (
    "Does every test of an axis, of an arm and of a cohort keep its level when its null hypothesis is true; how many "
    "patients does the claim of a loop need; and what would a test of cells have claimed?"
)


@dataclass(frozen=True)
class Size:
    """How much is drawn.

    Attributes
    ----------
    axis, swap, arms, cohorts : samples, factor draws, tumours and cohorts per null hypothesis
    decoys : tumours with ten decoys each
    loops, without, between : patients per planted loop, per design without one, per nuisance between patients
    resampled, cells : cohorts per size, and those of them that a test of cells is run on
    """

    axis: int
    swap: int
    decoys: int
    arms: int
    cohorts: int
    loops: int
    without: int
    between: int
    resampled: int
    cells: int


QUICK = Size(
    axis=400, swap=2000, decoys=40, arms=150, cohorts=100, loops=240, without=390, between=300, resampled=30, cells=4
)
FULL = Size(
    axis=5000,
    swap=10000,
    decoys=500,
    arms=2000,
    cohorts=1000,
    loops=1500,
    without=2600,
    between=2000,
    resampled=200,
    cells=20,
)
TINY = Size(axis=50, swap=250, decoys=2, arms=10, cohorts=10, loops=60, without=60, between=20, resampled=2, cells=1)


# ------------------------------------------------------------------------------------------------------------- claims
def words(row: pd.Series) -> str:
    """A rate in words."""
    return f"{100 * row['rate']:.1f} % of {row['n']} ({row['configuration']})"


def rate_claim(text: str, judged: pd.DataFrame) -> Claim:
    """Claim over several configurations: the worst rate at the level 0.05, and whether all of them hold."""
    mine = judged[judged["holds"].notna()]
    at = mine[mine["level"] == calibration.LEVELS[0]]
    if at.empty:
        return Claim(text, "nothing could be tested", "at most 5 % (and 1 %)", None)
    worst = at.loc[at["rate"].idxmax()]
    failing = mine[~mine["holds"].astype(bool)]
    said = f"highest of {len(at)}: {words(worst)}"
    if len(failing):
        said += (
            f"; too high in {failing['configuration'].nunique()}: {', '.join(dict.fromkeys(failing['configuration']))}"
        )
    return Claim(text, said, "at most 5 % (and 1 %), exact binomial tests, p < 0.001 fails", not len(failing))


def calibration_claims(judged: pd.DataFrame, uniform: pd.DataFrame) -> list[Claim]:
    """Claims of the first part."""
    exact = judged[~judged["nuisance"]]
    parts = [
        ("Tests of an axis keep their level", exact[exact["test"].str.startswith("axis")]),
        ("Arms A, B and C keep their level", exact[exact["test"].str.startswith("arm ")]),
        ("The intersection-union test keeps its level, also with two of three arms truly present",
         exact[exact["test"] == "intersection-union"]),
        ("The coupling swap keeps its level", exact[exact["test"] == "coupling swap"]),
        ("A loop is not claimed of cohorts without one", exact[exact["test"] == "sentence of a cohort"]),
        ("Decoys that are expressed and tested are significant in no more than the level",
         exact[exact["test"] == "decoys"]),
    ]  # fmt: skip
    out = [rate_claim(text, table) for text, table in parts]
    failing = uniform[~uniform["holds"]]
    out.append(
        Claim(
            "p of the exact tests is uniform (ties broken at random)",
            f"{len(uniform)} configurations, smallest p of Kolmogorov-Smirnov {uniform['p'].min():.2g}"
            + (f"; fails: {', '.join(failing['configuration'])}" if len(failing) else ""),
            "p of at least 0.001 after Bonferroni", not len(failing),
        )
    )  # fmt: skip
    nuisance = judged[judged["nuisance"]]
    for text, tests in (
        ("Unequal depth, ambient IL6, platelets, doublets, stress genes: the loop of a patient keeps its level",
         ("intersection-union",)),
        ("Unequal depth: tests of an axis keep their level", ("axis: p, the larger", "axis: p_pair", "axis: p_label")),
        ("Ambient RNA or stress that differs between patients: swap (larger of raw and adjusted p) and sentence keep "
         "their level",
         ("coupling swap, forward", "coupling swap, return", "sentence of a cohort")),
    ):  # fmt: skip
        out.append(rate_claim(text, nuisance[nuisance["test"].isin(tests)]))
    return out


def power_claims(table: pd.DataFrame) -> list[Claim]:
    """Claims of the second part; power is stated, not judged."""

    def share(cohort: str, n: int, column: str = "nicheloop") -> float:
        row = table[(table["cohort"] == cohort) & (table["patients"] == n)]
        return float(row[column].iloc[0]) if len(row) else np.nan

    out = []
    for name in power.LOOPS:
        said = ", ".join(f"{n} patients {100 * share(name, n):.0f} %" for n in power.SIZES[1:])
        out.append(Claim(f"Power of the claim: {name}", said, "stated", None))
    five = table[table["patients"] == power.SIZES[0]]
    out.append(
        Claim(
            "With 5 patients the answer is too_few_patients", ", ".join(sorted(set(five["status"]))),
            "too_few_patients",
            bool((five["status"] == "too_few_patients").all() and (five["nicheloop"] == 0).all()),
        )
    )  # fmt: skip
    for name in power.WITHOUT:
        mine = table[(table["cohort"] == name) & (table["patients"] == 26)].iloc[0]
        said = "; ".join(f"{c}: {100 * mine[c]:.0f} %" for c in power.CELL_COLUMNS)
        out.append(
            Claim(f"What a test of cells claims of 26 patients without a loop ({name})",
                  f"{said}; nicheloop: {100 * mine['nicheloop']:.0f} %", "stated", None)
        )  # fmt: skip
    return out


def control_claim(table: pd.DataFrame) -> Claim:
    """Positive controls."""
    tested, positive = int(table["tested"].sum()), int(table["positive (p at most 0.05)"].sum())
    never = table.loc[table["tested"] == 0, "control"].tolist()
    said = f"{positive} of {tested} tested controls positive" + (f"; never tested: {', '.join(never)}" if never else "")
    return Claim("Positive controls are positive where their cells and detectable counts exist", said,
                 "all that are tested, each at least once",
                 tested > 0 and positive == tested and not never)  # fmt: skip


def real_control_claim(table: pd.DataFrame) -> Claim:
    """Positive controls of real tumours, which hold few of their cells and few counts: stated."""
    tested = table[table["status"] == "tested"]
    positive = tested[tested["p"] <= calibration.LEVELS[0]]
    said = f"{len(positive)} of {len(tested)} that can be tested"
    named = [f"{r.control.split(',')[0]} in {r.sample}" for r in positive.itertuples()]
    untested = table.loc[table["status"] != "tested", "status"].value_counts()
    said += f" ({', '.join(named)})" if named else ""
    said += "; not tested: " + (", ".join(f"{s} {n}" for s, n in untested.items()) or "none")
    return Claim("Real tumours: positive controls where their cells and detectable counts exist", said, "stated",
                 None)  # fmt: skip


def real_claims(rows: pd.DataFrame, asked: int) -> list[Claim]:
    """What real tumours answer."""
    ppbp = rows[rows["axis"] == "PPBP"]
    cxcr = rows[
        rows["receptor"].isin(["CXCR1", "CXCR2"]) & (rows["receiver"] == "malignant") & (rows["n_receiver"] >= 20)
    ]
    said = ", ".join(f"{s} {n}" for s, n in ppbp["status"].value_counts().items())
    bounds = cxcr.drop_duplicates(["sample", "receptor"])
    upper = "; ".join(
        f"{r.receptor} in {r.sample}: at most {100 * r.receptor_upper:.2g} %" for r in bounds.itertuples()
    )
    sizes = rows.groupby("sample").size()
    return [
        Claim("CXCL7 (PPBP) is measured in no real tumour, and no row is dropped", said, "no row tested",
              len(ppbp) > 0 and not (ppbp["status"] == "tested").any()),
        Claim("CXCR1 and CXCR2 of malignant cells are not detected, with an upper bound", upper or "no malignant cells",
              "no row tested, each with a bound",
              len(cxcr) > 0 and not (cxcr["status"] == "tested").any()
              and bool(bounds["receptor_upper"].notna().all())),
        Claim("Every pair asked has its row in every tumour", ", ".join(f"{s} {n}" for s, n in sizes.items()),
              f"{asked} rows each", bool((sizes == asked).all())),
    ]  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- plots
def plot_rates(judged: pd.DataFrame, nuisance: bool) -> Figure:
    """False-positive rate at 0.05 with its exact interval, one line per configuration."""
    from matplotlib.figure import Figure

    table = judged[(judged["nuisance"] == nuisance) & (judged["level"] == calibration.LEVELS[0])].reset_index(drop=True)
    figure = Figure(figsize=(9, 0.24 * len(table) + 1.1), layout="constrained")
    axes = figure.subplots()
    y = np.arange(len(table))[::-1]
    stated = table["holds"].isna().to_numpy()
    fails = (table["holds"] == False).to_numpy(dtype=bool)  # noqa: E712  (None is neither)
    for mask, colour, label in (
        (~stated & ~fails, "#1f5a85", "under its null"), (fails, "#c0392b", "too high (p < 0.001)"),
        (stated, "#9aa3ab", "not under its null: stated"),
    ):  # fmt: skip
        if mask.any():
            low, high = table["rate"] - table["low"], table["high"] - table["rate"]
            axes.errorbar(table["rate"][mask], y[mask], xerr=np.vstack([low[mask], high[mask]]), fmt="o", ms=4, lw=1.2,
                          color=colour, label=label)  # fmt: skip
    axes.axvline(calibration.LEVELS[0], color="black", lw=0.8, ls="--")
    axes.set_yticks(
        y, [f"{t}  |  {c}" for t, c in zip(table["test"], table["configuration"], strict=True)], fontsize=7.5
    )
    axes.set_ylim(-0.8, len(table) - 0.2)
    axes.set_xlim(-0.01, max(0.2, min(1.0, float(table["high"].max()) + 0.02)))
    axes.set_xlabel("share with p of 0.05 or less (exact 95 % interval); dashed: 0.05", fontsize=8.5)
    axes.tick_params(axis="x", labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=7.5, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, frameon=False)
    return figure


def plot_uniform(checks: list[Check]) -> Figure:
    """Distribution of p with ties broken at random, less what is expected."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    axes = figure.subplots()
    for check in checks:
        if check.randomised is not None:
            p = np.sort(check.randomised)
            axes.step(p, np.arange(1, len(p) + 1) / len(p) - p, where="post", lw=1.1,
                      label=f"{check.test}: {check.configuration} (n = {len(p)})")  # fmt: skip
    axes.axhline(0, color="black", lw=0.8, ls="--")
    axes.set_xlim(0, 1)
    axes.set_xlabel("p, ties broken at random", fontsize=8.5)
    axes.set_ylabel("observed less expected share", fontsize=8.5)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=6.5, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    return figure


def plot_power(table: pd.DataFrame) -> Figure:
    """Share of cohorts of which a loop is claimed: the product by cohort size, and a test of cells at 26 patients."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    colours = dict(zip(power.LOOPS, ("#8db9d8", "#3f88c5", "#0b3d63"), strict=False))
    colours |= dict(zip(power.WITHOUT, ("#bfbfbf", "#e0a458", "#c0392b"), strict=False))
    for name, colour in colours.items():
        mine = table[table["cohort"] == name].sort_values("patients")
        x = np.arange(len(mine)) + 0.04 * (list(colours).index(name) - 2.5)
        spread = np.vstack([mine["nicheloop"] - mine["low"], mine["high"] - mine["nicheloop"]])
        left.errorbar(x, mine["nicheloop"], yerr=spread, fmt="o-" if name in power.LOOPS else "s--", ms=4, lw=1.2,
                      color=colour, label=name)  # fmt: skip
    left.set_xticks(range(len(power.SIZES)), [str(n) for n in power.SIZES])
    left.set_xlabel("patients", fontsize=8.5)
    left.set_ylabel("share of cohorts with the claim", fontsize=8.5)
    left.set_title("nicheloop: consistent with a loop", fontsize=9.5)
    left.axhline(0.05, color="black", lw=0.7, ls=":")
    methods = ("nicheloop", *power.CELL_COLUMNS)
    at = table[table["patients"] == 26].set_index("cohort").reindex(list(colours))
    for i, name in enumerate(at.index):
        right.bar(np.arange(len(methods)) + 0.13 * (i - 2.5), at.loc[name, list(methods)].astype(float), width=0.12,
                  color=colours[name])  # fmt: skip
    right.set_xticks(range(len(methods)), [m.replace(": ", ":\n") for m in methods], fontsize=8)
    right.set_title("26 patients: the same cohorts by a test of cells (p < 0.05)", fontsize=9.5)
    for axes in (left, right):
        axes.set_ylim(-0.03, 1.05)
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7.5, frameon=False)
    return figure


# ---------------------------------------------------------------------------------------------------------------- run
def measure_cohorts(seed: int, size: Size, pool: Executor | None) -> tuple[pd.DataFrame, list[Check], pd.DataFrame]:
    """Power and claims of cohorts drawn cell by cell: rates, checks of cohorts without a loop, correlations."""
    import pandas as pd

    designs = {n: (d, size.loops) for n, d in power.LOOPS.items()} | {
        n: (d, size.without) for n, d in power.WITHOUT.items()
    }
    bank = power.draw_patients(seed, designs, pool, "patients of cohorts")
    groups: dict[str, dict[int, list[list[Any]]]] = {}
    for name in power.LOOPS:
        rng = calibration.generator(seed, "resampled", name)
        groups[name] = {n: power.resampled(bank[name], n, size.resampled, rng) for n in power.SIZES}
    for name in power.WITHOUT:
        groups[name] = {n: power.disjoint(bank[name], n)[: size.resampled] for n in power.SIZES}
    answers = power.ask(seed, groups, pool, "cohorts", cells=size.cells)
    checks = []
    for (name, n), group in answers[answers["cohort"].isin(list(power.WITHOUT))].groupby(["cohort", "n"], sort=False):
        if n >= 10:
            checks.append(
                calibration.Check("sentence of a cohort", f"{n} patients, from cells: {name}",
                                  "no loop is planted; " + name, np.where(group["nicheloop"], 0.05, 1.0))
            )  # fmt: skip
    between = power.draw_patients(
        seed, {n: (d, size.between) for n, d in power.BETWEEN.items()}, pool, "patients that differ technically"
    )
    apart = power.ask(
        seed,
        {n: {20: power.disjoint(p, 20)} for n, p in between.items()},
        pool,
        "cohorts that differ technically",
        cells=0,
    )
    factors = {name: power.factor_correlation(patients) for name, patients in between.items()}
    checks += power.between_checks(apart)
    table = pd.DataFrame([
        {"between patients differs": name, "coupling": side, "patients": n, "correlation": r, "low": low, "high": high}
        for name, by_side in factors.items() for side, (r, low, high, n) in by_side.items()
    ])  # fmt: skip
    return power.rates(answers), checks, table


def run(*, full: bool, work: Path, seed: int, size: Size | None = None, workers: int | None = None) -> Result:
    """Measure all parts."""
    import pandas as pd

    from nicheloop import genes
    from nicheloop import ligand_receptor as lr
    from nicheloop.circularity import circularity

    size = size or (FULL if full else QUICK)
    workers = min(2, os.cpu_count() or 1) if workers is None else workers
    result = Result(NAME, TITLE, QUESTION)

    with calibration.processes(workers) as pool:
        checks = calibration.swap_checks(seed, size.swap, pool)
        checks += calibration.axis_checks(seed, size.axis, pool)
        checks.append(calibration.decoy_check(seed, size.decoys, pool))
        found, seen = calibration.arm_checks(seed, size.arms, pool)
        checks += found + calibration.cohort_checks(seed, size.cohorts, pool)
        rates, more, correlations = measure_cohorts(seed, size, pool)
        checks += more
        controls, decoys = tumours.demo_tumours(seed, pool)
    checks += tumours.decoy_checks(decoys)

    family = sum(c.judged for c in checks) * len(calibration.LEVELS) + sum(c.randomised is not None for c in checks)
    judged = calibration.judge(checks, family=family)
    uniform = calibration.uniformity(checks, family)
    control_table = tumours.control_table(controls)
    circular = circularity()
    clean = circular[circular["clean"]]

    result.claims = calibration_claims(judged, uniform) + power_claims(rates) + [control_claim(control_table)]
    result.claims.append(
        Claim("Sets that must not overlap share no gene (from the sets really used)",
              f"{int((clean['n_overlap'] > 0).sum())} overlaps in {len(clean)} pairs of sets", "0",
              len(clean) > 0 and not (clean["n_overlap"] > 0).any())
    )  # fmt: skip

    at = judged[judged["level"] == calibration.LEVELS[0]]
    small = judged[judged["level"] == calibration.LEVELS[1]].reset_index(drop=True)
    table = at[["test", "configuration", "n", "rate", "low", "high"]].reset_index(drop=True)
    table["rate at 0.01"] = small["rate"]
    table["holds"] = [
        "stated" if a is None else "yes" if a and b else "no" for a, b in zip(at["holds"], small["holds"], strict=True)
    ]
    nulls = at.drop_duplicates(["test", "null"])[["test", "configuration", "null"]].reset_index(drop=True)
    result.tables = [
        ("Null hypotheses, in one sentence each; all cohorts are drawn from exactly these", nulls),
        ("False positives at 0.05 with exact 95 % interval, and at 0.01", table),
        ("Arms of simulated tumours: how often each arm was significant", seen),
        (
            "Share of cohorts of which a loop is claimed; the right columns are a test of cells on the same cohorts",
            rates,
        ),
        ("Correlation over patients of ligand and response, as measured, where they are independent", correlations),
        ("Positive controls in tumours with the rates of real cell types", control_table),
    ]
    result.plots = [
        (
            "false_positives",
            "False-positive rates of every test in every null configuration",
            plot_rates(judged, False),
        ),
        ("nuisance", "False-positive rates under technical nuisance", plot_rates(judged, True)),
        ("uniform", "Uniformity of p-values of exact tests", plot_uniform(checks)),
        ("power", "Power of the cohort claim, beside a test of cells", plot_power(rates)),
    ]
    result.figures = {
        "false_positives": judged.drop(columns="null").to_dict("records"), "uniformity": uniform.to_dict("records"),
        "comparisons": family, "arms": seen.to_dict("records"), "claims_of_cohorts": rates.to_dict("records"),
        "correlations": correlations.to_dict("records"), "positive_controls": control_table.to_dict("records"),
        "decoys": decoys.groupby("sample").size().to_dict(),
        "circularity": {"pairs_of_sets": len(clean), "overlaps": int((clean["n_overlap"] > 0).sum())},
    }  # fmt: skip

    data = real_data()
    if data is None:
        result.claims.append(
            not_run("Real tumours: what cannot be measured has a row and a status", "rows with statuses", NO_REAL_DATA)
        )
    else:
        rows = tumours.real_rows(tumours.run_real(data, work))
        asked = len(lr.pairs_of_axes(genes.axes()))
        real_controls = tumours.real_controls(rows)
        result.claims += [*real_claims(rows, asked), real_control_claim(real_controls)]
        result.tables.append(
            ("Real tumours: IL6, CXCL8 and CXCL7 to malignant cells, from the largest sender", tumours.asked_of(rows))
        )
        result.tables.append(("Real tumours: rows by status, none dropped", tumours.count_statuses(rows)))
        result.tables.append(("Real tumours: positive controls, the pair nearest to a test", real_controls))
        result.figures["real"] = {
            "statuses": {s: g["status"].value_counts().to_dict() for s, g in rows.groupby("sample")},
            "rows_asked": asked,
            "positive_controls": real_controls.to_dict("records"),
        }
    result.notes = NOTES
    say("  done")
    assert isinstance(judged, pd.DataFrame)
    return result


NOTES = [
    "Seeds were fixed before the first run: the seed of the run (1 unless given) with the CRC-32 of the part's and the "
    "configuration's name; no configuration depends on which others are run. 199 permutations, 199 matched pairs, "
    "windows of 40 genes and 999 swaps, where the product's defaults are 1000, 500, 100 and 9999: (b + 1) / (n + 1) is "
    "valid for any number, and small matrices hold few genes. 199 bootstrap samples, where the default is 200.",
    "All rates are judged together: an exact one-sided binomial test of every configuration against 0.05 and 0.01, and "
    "Kolmogorov-Smirnov tests of uniformity, failing at p < 0.001 after Bonferroni over all of them. What is not under "
    "its null in a configuration is shown in grey and not judged. An untested pair counts as p = 1.",
    "Where CSC-high cells are more stressed and the read-out follows stress, arm B answers `stress_differs`, which "
    "counts as p = 1. One null is a limit of the method: its rate is stated, not judged. Arms A and C, which ask about "
    "labels and genes of like abundance, pass for many secreted and membrane proteins without any recorded "
    "interaction: of one patient, three arms that are each a property of cell types are no loop, and only "
    "the cohort's coupling swap bears on one.",
    "The larger of two p-values is conservative where only one null is true: arms A and C are far below their level "
    "when the ligand has one share in all types, and reach it when ligand and receptor are as specific as other genes.",
    "The test of cells is CellPhoneDB's statistic with types permuted over the cells, p < 0.05 read as a loop. It "
    "answers another question (is the pair specific to these types?), and answers it rightly: a ligand that is merely "
    "specific to fibroblasts passes. It cannot tell cohorts with a loop from cohorts without one.",
    "Simulated tumours have six cell types, 150 malignant cells and about 400 genes; power in real tumours is lower "
    "where IL6 is sparser, patients differ more, or malignant cells are called less well. Cohorts of a planted loop "
    "are drawn from one bank of patients without replacement, so two cohorts may share patients; cohorts without a "
    "loop share none.",
    "What differs between patients and moves ligand and response alike (stress of the whole read-out) makes the raw "
    "swap significant too often: its rate is stated. A claim needs the swap beyond stress and ambient RNA as well.",
    "Positive controls: in the demo's tumours of 2,000 cells the types are known and every control has its cells. Real "
    "tumours of the folder have 95 to 687 barcodes and few endothelial, B and T cells: a control whose cells or counts "
    "are missing has a status and takes no part in the claim.",
]
