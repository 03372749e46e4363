"""Section on cancer stem cell states: is the CD44+/CD24- fraction right, is its interval, and does it say when not."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.validation import _csc_real as real
from benchmarks.validation import _csc_simulation as sim
from benchmarks.validation import harness
from benchmarks.validation._cohort import workers
from benchmarks.validation.harness import Claim, Result

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NAME = "csc"
QUESTION = (
    "Is the CD44+/CD24- fraction of a tumour right at every depth, does its interval hold the truth as often as it "
    "says, and is there no answer where there can be none?"
)
N_CELLS = 600
ZERO = 0.01  # a true fraction below it is judged one-sided: the lower end may rest on 0


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Bias, SD, RMSE per point and method over the tumours that nicheloop answers; NA shares; coverage."""
    import pandas as pd

    out = []
    for (truth, depth), part in rows.groupby(["truth", "depth"], sort=False):
        true, good = float(part["true"].iloc[0]), part[part["status"] == "ok"]
        line: dict[str, Any] = {
            "truth": truth,
            "median UMI": depth,
            "tumours": len(part),
            "NA": float((part["status"] != "ok").mean()),
        }
        inside = (good["low"] <= true) & (true <= good["high"])
        line["coverage"] = float(inside.mean()) if len(good) else np.nan
        line["n covered"], line["n upper"] = int(inside.sum()), int((good["high"] >= true).sum())
        for m in sim.METHODS:
            values = good[m].to_numpy(dtype=np.float64) - true
            for name, value in (
                (("bias", values.mean()), ("SD", values.std()), ("RMSE", np.sqrt((values**2).mean())))
                if len(values)
                else ()
            ):
                line[f"{m} {name}"] = float(value)
        below = part["shallow"].dropna().to_numpy(dtype=np.float64)
        line["dashed bias"] = float((below - true).mean()) if len(below) else np.nan
        out.append(line)
    return pd.DataFrame(out)


def coverage_claim(table: pd.DataFrame) -> Claim:
    """Exact binomial tests (correction 3); where the truth is near 0 the upper end is judged, one-sided."""
    judged = table[table["NA"] < 0.5]
    worst, holds, said = 1.0, True, ""
    for row in judged.to_dict("records"):
        n = round(row["tumours"] * (1 - row["NA"]))
        small = row["truth"] == "0.5 %"
        k, nominal, side = (row["n upper"], 0.975, "less") if small else (row["n covered"], 0.95, "two-sided")
        p, ok = harness.judge_rate(k, n, nominal, family=len(judged), side=side)
        holds &= ok
        if p < worst or not said:
            worst, said = p, f"{k} of {n} at {row['truth']}, {row['median UMI']:,} UMI"
    low = judged["coverage"].min()
    return Claim(
        "Coverage of the 95 % interval, rates estimated from the tumour",
        f"{low:.1%} at its lowest of {len(judged)} eligible points; least probable: {said} "
        f"(p = {worst:.2g} after Bonferroni)",
        "exact binomial tests against the nominal rate, p < 0.001 fails",
        bool(holds and len(judged)),
    )


def worst_case(table: pd.DataFrame, what: str) -> dict[str, float]:
    """Largest absolute value over the eligible points, by method."""
    judged = table[table["NA"] < 0.5]
    return {m: float(judged[f"{m} {what}"].abs().max()) for m in sim.METHODS}


def _words(values: dict[str, float]) -> str:
    return "; ".join(f"{sim.WORDS[m]} {100 * v:.1f}" for m, v in values.items()) + " percentage points"


def simulation(result: Result, rows: pd.DataFrame) -> None:
    """Claims and tables of the grid."""
    table = summary(rows)
    result.figures["grid"] = table.to_dict("records")
    result.claims.append(coverage_claim(table))
    for what, text in (("bias", "smallest worst-case absolute bias"), ("RMSE", "smallest worst-case RMSE")):
        values = worst_case(table, what)
        result.figures[f"worst_case_{what}"] = values
        holds = all(values["joint"] < v for m, v in values.items() if m != "joint")
        result.claims.append(
            Claim(
                f"Of five rules ours has the {text} over the eligible points", _words(values), "smallest of all", holds
            )
        )
    shallow = table[table["median UMI"] <= 5_000]
    if len(shallow):
        answered = round(float(((1 - shallow["NA"]) * shallow["tumours"]).sum()))
        result.claims.append(
            Claim(
                "Below the eligible depth (median 2,000 and 5,000 UMI) there is no answer",
                f"{answered} of {int(shallow['tumours'].sum())} tumours answered",
                "0",
                answered == 0,
            )
        )
    head = ["truth", "median UMI", "tumours", "NA", "coverage"]
    result.tables.append(
        (
            f"Our estimate: rates estimated from the tumour itself ({N_CELLS} cells); bias, SD and RMSE as fractions",
            table[[*head, "joint bias", "joint SD", "joint RMSE", "dashed bias"]],
        )
    )
    for what in ("bias", "RMSE"):
        shown = table.loc[table["NA"] < 1, ["truth", "median UMI", *[f"{m} {what}" for m in sim.METHODS]]]
        result.tables.append(
            (
                f"{what} beside other rules, on the same tumours",
                shown.rename(columns={f"{m} {what}": sim.WORDS[m] for m in sim.METHODS}),
            )
        )
    better = [
        f"{sim.WORDS[m]} at {r['truth']}, {r['median UMI']:,} UMI"
        for r in table[table["NA"] < 0.5].to_dict("records")
        for m in sim.METHODS[1:]
        if r[f"{m} RMSE"] < r["joint RMSE"]
    ]
    result.notes.append(
        "Where another rule has the lower RMSE: "
        + ("; ".join(better) if better else "nowhere on this grid")
        + ". A rule can be "
        "right where its errors cancel: counting zeros misses CD44-high cells without a count as it takes in CD24-high "
        "cells without one; the product of posteriors is exact where CD44 and CD24 are independent; a cut at the top "
        "10 % is right of a tumour with 10 %. None can tell where that is."
    )
    result.plots.append(("rules", "Bias of five rules over depth, one panel per true fraction", rules_plot(table)))


def rules_plot(table: pd.DataFrame) -> Figure:
    """Bias by depth and rule; where there is no answer the dashed line is the estimate that is not given."""
    from matplotlib.figure import Figure as New

    truths = list(dict.fromkeys(table["truth"]))
    fig = New(figsize=(3.0 * len(truths), 3.0), layout="constrained")
    axes = np.atleast_1d(fig.subplots(1, len(truths), sharey=True))
    for ax, truth in zip(axes, truths, strict=True):
        part = table[table["truth"] == truth]
        good = part[part["NA"] < 1]
        for m in sim.METHODS:
            ax.plot(
                good["median UMI"], good[f"{m} bias"], marker="o", ms=3, lw=2 if m == "joint" else 1, label=sim.WORDS[m]
            )
        ax.plot(part["median UMI"], part["dashed bias"], "--", color="0.6", label="not given: too shallow")
        ax.axhline(0, color="0.7", lw=0.6)
        ax.set(
            xscale="log",
            title=truth,
            xlabel="median UMI",
            xlim=(0.9 * table["median UMI"].min(), 1.1 * table["median UMI"].max()),
        )
        ax.set_xticks(sorted(set(table["median UMI"])), [f"{d / 1000:g}k" for d in sorted(set(table["median UMI"]))])
        ax.minorticks_off()
    axes[0].set_ylabel("bias of the fraction")
    axes[-1].legend(fontsize=6)
    return fig


def downsampling(result: Result, rows: pd.DataFrame) -> None:
    """Half and a quarter of the UMI."""
    import pandas as pd

    parts = []
    for (truth, median, kept), part in rows.groupby(["truth", "median UMI", "kept"], sort=False):
        good = part[(part["status"] == "ok") & part["first"].notna()]
        inside = (good["low"] <= good["joint"]) & (good["joint"] <= good["high"])
        meet = (good["own low"] <= good["high"]) & (good["low"] <= good["own high"])
        parts.append(
            {
                "truth": truth,
                "median UMI": median,
                "kept": kept,
                "tumours": len(part),
                "NA": float((part["status"] != "ok").mean()),
                "inside the first interval": float(inside.mean()) if len(good) else np.nan,
                "n inside": int(inside.sum()),
                "intervals meet": float(meet.mean()) if len(good) else np.nan,
                "mean change": float((good["joint"] - good["first"]).mean()) if len(good) else np.nan,
                "mean change of CD44 > 0 and CD24 = 0": float((part["counts"] - part["first counts"]).mean()),
                "n": len(good),
            }
        )
    table = pd.DataFrame(parts)
    result.figures["downsampling"] = table.to_dict("records")
    result.tables.append(("Libraries thinned to 50 % and 25 %, rates estimated anew", table.drop(columns=["n inside"])))
    judged = table[(table["kept"] < 1) & (table["n"] > 0)]
    k, n = int(judged["n inside"].sum()), int(judged["n"].sum())
    said = ", ".join(
        f"{kept:.0%}: {int(p['n inside'].sum())} of {int(p['n'].sum())} inside ({p['NA'].mean():.0%} NA)"
        for kept, p in judged.groupby("kept", sort=False)
    )
    result.claims.append(
        Claim(
            "Downsampling to 50 % and 25 % of the UMI: the fraction stays inside its first interval",
            said or "no tumour answered",
            ">= 90 % of the tumours that are answered",
            bool(n) and k / n >= 0.9,
        )
    )


def shuffle(result: Result, rows: pd.DataFrame) -> None:
    """Labels shuffled: no association."""
    from scipy.stats import ttest_1samp

    values = {k: p["log_odds"].dropna().to_numpy() for k, p in rows.groupby("labels")}
    p = float(ttest_1samp(values["shuffled"], 0).pvalue)
    result.figures["shuffle"] = {
        k: {"mean": float(v.mean()), "sd": float(v.std(ddof=1)), "n": len(v)} for k, v in values.items()
    }
    result.claims.append(
        Claim(
            "Label shuffle: no association of CD44 and CD24 is left",
            f"mean log odds ratio {values['shuffled'].mean():+.3f} (n = {len(values['shuffled'])}, p = {p:.2g}); "
            f"unshuffled {values['as it is'].mean():+.2f}",
            "0 (t test, p < 0.001 fails)",
            p >= 0.001,
        )
    )


def run(*, full: bool, work: Path, seed: int, quick: bool = False, repeats: int | None = None) -> Result:
    """Measure everything about the CSC calls.

    Parameters
    ----------
    full, work, seed
        See `harness.Section`.
    quick
        A corner of the grid, no demo: the subset that the tests run.
    repeats
        Tumours per eligible point; default: 60, in the long run 400.
    """
    import pandas as pd

    result = Result(NAME, "Cancer stem cell states: CD44+/CD24- and ALDH1A3-high", QUESTION)
    repeats = repeats or (400 if full else 4 if quick else 60)
    truths = list(sim.TRUTHS)[1:3] if quick else list(sim.TRUTHS)
    depths = (5_000, 20_000) if quick else sim.DEPTHS
    with workers() as pool:
        jobs: list[Future[Any]] = [
            pool.submit(sim.grid_point, t, d, repeats if d > 10_000 else max(repeats // 3, 2), N_CELLS, seed)
            for d in reversed(depths)
            for t in truths
        ]
        thin = [
            pool.submit(sim.depth_runs, t, m, max(repeats // 3, 2), N_CELLS, seed)
            for t in truths[1:3]
            for m in (30_000, 80_000)
        ]
        mix = pool.submit(sim.shuffled, "10 %, associated", 20_000, max(repeats // 2, 3), N_CELLS, seed)
        demo = None if quick else pool.submit(real.demo, work / "demo", seed)
        data = harness.real_data()
        lines = pool.submit(real.cell_lines, data) if data else None
        rows = pd.DataFrame([r for job in jobs for r in job.result()])
        order = {t: i for i, t in enumerate(sim.TRUTHS)}
        rows = rows.assign(rank=rows["truth"].map(order)).sort_values(["rank", "depth"], kind="stable")
        harness.say("csc: grid done")
        simulation(result, rows)
        downsampling(result, pd.DataFrame([r for job in thin for r in job.result()]))
        shuffle(result, pd.DataFrame(mix.result()))
        real.absent(result, seed)
        real.lines_claims(result, lines.result() if lines else None)
        if demo is not None:
            real.demo_claims(result, *demo.result())
    result.notes.append(
        f"{repeats} tumours per point at depths above 10,000 UMI, a third of that elsewhere; the fewer they are, the "
        "wider of its nominal rate a coverage may be before its test fails."
    )
    result.notes.append(
        "The simulation shares the model's assumptions (gamma-Poisson counts, two rates, one shape), so it proves the "
        "arithmetic, not the biology; rates are estimated from each tumour alone, which is harder than in a cohort. "
        "The score rules stand for score_genes, AddModuleScore and AUCell with a threshold: a cell is counted where "
        "CD44 less CD24 (log-normalised) exceeds it."
    )
    return result
