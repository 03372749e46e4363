"""Section on macrophages: whether the four classes are right, and nothing is found where there is nothing."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.validation import harness
from benchmarks.validation._cohort import workers
from benchmarks.validation.harness import Claim, Result

NAME = "tam"
QUESTION = (
    "Do the classes M1-like, M2-like, mixed and low come out as planted, over depth and strength of the programmes, "
    "and do z and the correlation of the axes keep their level where nothing is planted?"
)
CLASSES = ("m1_like", "m2_like", "mixed", "low")
DEPTHS = (2_000, 5_000, 10_000)
FOLDS = (2.0, 4.0)
N_CELLS, N_OTHERS = 240, 4_000
AIM, AIM_FOLD, AIM_DEPTH = 0.9, 4.0, 5_000


def macrophages(
    depth: float, fold: float, rng: np.random.Generator, n: int = N_CELLS
) -> tuple[Any, list[str], NDArray[np.object_]]:
    """Log-normalised expression, genes, and the class of each cell; the axes' genes are `fold` higher where active.

    Levels of the axes' genes are drawn like those of the others (log-normal), so some are hardly seen, as in real data.
    """
    from scipy.sparse import csr_matrix

    from nicheloop import genes, io

    sets = {name: genes.signatures()[name].genes for name in ("M1", "M2")}
    names = [*sets["M1"], *sets["M2"], *[f"X{i}" for i in range(N_OTHERS)]]
    truth = np.array(CLASSES, dtype=object)[rng.integers(0, 4, n)]
    rate = rng.lognormal(0, 1.2, len(names))
    k = len(sets["M1"])
    mean = np.tile(rate, (n, 1))
    mean[:, :k] *= np.where(np.isin(truth, ["m1_like", "mixed"]), fold, 1.0)[:, None]
    mean[:, k : k + len(sets["M2"])] *= np.where(np.isin(truth, ["m2_like", "mixed"]), fold, 1.0)[:, None]
    library = rng.lognormal(np.log(depth), 0.4, n)
    mean *= (library / mean.sum(axis=1))[:, None]
    counts = rng.poisson(mean * rng.gamma(3.0, 1 / 3.0, mean.shape))
    return io.lognormalise(csr_matrix(counts.astype(np.float32))), names, truth


def f1(truth: NDArray[np.object_], called: NDArray[np.object_]) -> float:
    """Macro-F1 over the four classes."""
    from sklearn.metrics import f1_score

    return float(f1_score(truth, called, labels=list(CLASSES), average="macro", zero_division=0))


def classes(depth: float, fold: float, repeats: int, seed: int) -> list[dict[str, Any]]:
    """Macro-F1 by cut, and of the ratio of the two axes, at one point of the grid."""
    from nicheloop import genes, scoring, tam
    from nicheloop.config_states import Scoring, Tam

    options, how, rows = Tam(), Scoring(), []
    sets = {name: genes.signatures()[name].genes for name in ("M1", "M2")}
    for repeat in range(repeats):
        x, names, truth = macrophages(depth, fold, np.random.default_rng([seed, int(depth), int(10 * fold), repeat]))
        z = scoring.score_sets(
            x, names, sets, n_bins=how.n_bins, min_genes=how.min_genes, min_cells=how.min_cells, normal=True
        )
        level = scoring.set_levels(x, names, sets, min_genes=how.min_genes)
        m1, m2 = z["M1"].to_numpy(), z["M2"].to_numpy()
        row = {"median UMI": depth, "fold": fold, "macro-F1": f1(truth, tam.axis_classes(m1, m2, options.class_z))}
        row |= {f"at z = {c:g}": f1(truth, tam.axis_classes(m1, m2, c)) for c in options.sensitivity_z}
        row["M1/M2 ratio"] = f1(truth, np.where(level["M1"] > level["M2"], "m1_like", "m2_like").astype(object))
        rows.append(row)
    return rows


def null_z(depth: float, repeats: int, size: int, seed: int) -> NDArray[np.float64]:
    """Z of random sets without a programme: disjoint sets, one cell each, so that they are independent."""
    from nicheloop import scoring
    from nicheloop.config_states import Scoring

    how, out = Scoring(), []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, 5, int(depth), repeat])
        x, names, _ = macrophages(depth, 1.0, rng)
        detected = np.flatnonzero(np.asarray((x > 0).sum(axis=0)).ravel() > 0)
        order = rng.permutation(detected)
        k = min(len(order) // size, x.shape[0])
        sets = {f"s{i}": [names[g] for g in order[i * size : (i + 1) * size]] for i in range(k)}
        z = scoring.score_sets(
            x, names, sets, n_bins=how.n_bins, min_genes=how.min_genes, min_cells=how.min_cells, normal=True
        )
        out.append(z.to_numpy()[rng.permutation(x.shape[0])[:k], np.arange(k)])
    return np.concatenate(out)


def null_rho(repeats: int, n_sets: int, seed: int) -> list[float]:
    """P of the correlation of two axes that have nothing to do with each other."""
    import pandas as pd

    from nicheloop import genes, tam_nulls
    from nicheloop.config_states import Scoring
    from nicheloop.state_readouts import two_sided

    sets = {name: genes.signatures()[name].genes for name in ("M1", "M2")}
    out = []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, 6, repeat])
        x, names, _ = macrophages(5_000, 1.0, rng, n=100)
        cells = pd.DataFrame({"n_counts": rng.lognormal(8.5, 0.4, 100)})
        found = tam_nulls.rho_draws(
            x,
            names,
            np.ones(100, dtype=bool),
            cells,
            sets,
            n_sets=n_sets,
            n_bins=Scoring().n_bins,
            min_genes=3,
            seed=repeat,
        )
        out.append(two_sided(*found["depth"]))
    return out


def run(*, full: bool, work: Path, seed: int, quick: bool = False, repeats: int | None = None) -> Result:
    """Measure everything about macrophages; `quick`: the subset that the tests run, `repeats`: data sets per point."""
    import pandas as pd

    del work
    result = Result(NAME, "Macrophages: M1 and M2 as two axes", QUESTION)
    repeats = repeats or (40 if full else 2 if quick else 8)
    depths, folds = ((5_000,), (4.0,)) if quick else (DEPTHS, FOLDS)
    with workers() as pool:
        grid: list[Future[Any]] = [pool.submit(classes, d, f, repeats, seed) for d in depths for f in folds]
        nulls = {(d, size): pool.submit(null_z, d, 4 * repeats, size, seed) for d in depths for size in (16, 26)}
        rho = [
            pool.submit(null_rho, 10 if quick else 50 * (4 if full else 1), 199, seed + 1000 * i)
            for i in range(1 if quick else 4)
        ]
        rows = pd.DataFrame([r for job in grid for r in job.result()])
        z = {k: job.result() for k, job in nulls.items()}
        p = np.array([v for job in rho for v in job.result()])
    table = rows.groupby(["median UMI", "fold"], sort=False).mean().reset_index()
    table.insert(2, "data sets", rows.groupby(["median UMI", "fold"], sort=False).size().to_numpy())
    result.figures["macro_f1"] = table.to_dict("records")
    result.tables.append(
        (f"Macro-F1 of the four classes ({N_CELLS} macrophages; programmes `fold` higher where active)", table)
    )
    at = table[(table["fold"] == AIM_FOLD) & (table["median UMI"] >= AIM_DEPTH)]["macro-F1"]
    said = "; ".join(
        f"{r['median UMI']:,} UMI, {r['fold']:g}-fold: {r['macro-F1']:.3f}" for r in table.to_dict("records")
    )
    result.claims.append(
        Claim(
            "Class macro-F1 on simulated M1/M2 programmes",
            said,
            f">= {AIM} at {AIM_FOLD:g}-fold from {AIM_DEPTH:,} UMI",
            bool(at.min() >= AIM),
        )
    )
    result.claims.append(
        Claim(
            "The M1/M2 ratio, which knows neither mixed nor low",
            f"macro-F1 {table['M1/M2 ratio'].min():.3f} to {table['M1/M2 ratio'].max():.3f}",
            "lower than the two axes everywhere",
            bool((table["M1/M2 ratio"] < table["macro-F1"]).all()),
        )
    )
    lines = []
    cuts = {"z >= 1 (the class cut)": (1.0, 0.158655), "z >= 1.645": (1.6449, 0.05), "z >= 2.326": (2.3263, 0.01)}
    family = len(z) * len(cuts)
    for (depth, size), values in z.items():
        known = values[np.isfinite(values)]
        line: dict[str, Any] = {
            "median UMI": depth,
            "genes": size,
            "n": len(known),
            "mean": known.mean(),
            "SD": known.std(ddof=1),
        }
        for name, (cut, nominal) in cuts.items():
            k = int((known >= cut).sum())
            line[name] = k / len(known)
            line[f"p, {name}"], ok = harness.judge_rate(k, len(known), nominal, family=family)
            line[f"ok, {name}"] = ok
        lines.append(line)
    under = pd.DataFrame(lines)
    result.figures["null_z"] = under.to_dict("records")
    result.tables.append(
        (
            "z of random sets without a programme (nominal 15.9 %, 5 %, 1 %; p after Bonferroni)",
            under[[c for c in under if not c.startswith("ok")]],
        )
    )
    for name, (_, nominal) in cuts.items():
        worst = under.loc[under[f"p, {name}"].idxmin()]
        result.claims.append(
            Claim(
                f"z under the null: {name}",
                f"{under[name].min():.1%} to {under[name].max():.1%}; least probable {worst[name]:.1%} of "
                f"{worst['n']:,} at {worst['median UMI']:,} UMI, {worst['genes']} genes "
                f"(p = {worst[f'p, {name}']:.2g})",
                f"{nominal:.1%}, exact binomial tests, p < 0.001 fails",
                bool(under[f"ok, {name}"].all()),
            )
        )
    k = int((p <= 0.05).sum())
    level, ok = harness.judge_rate(k, len(p), 0.05, side="greater")
    result.figures["null_rho"] = {"n": len(p), "share": k / len(p)}
    result.claims.append(
        Claim(
            "Correlation of unrelated axes among matched sets: p <= 0.05",
            f"{k / len(p):.1%} of {len(p)} (p = {level:.2g})",
            "at most 5 %, exact binomial test, p < 0.001 fails",
            ok,
        )
    )
    result.notes.append(
        "Simulated programmes have the shape the score looks for (every gene of a set the same fold up), so the "
        "macro-F1 is an upper bound. z has the mean, the standard deviation and the skewness of its null exactly; "
        "genes of a set move together, which no such null knows, so no p-value is made from z."
    )
    return result
