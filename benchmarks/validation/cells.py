"""Section on cells: which cell is what, which is malignant, which barcode holds two.

Simulated cells (the demo cohort) say whether the machinery finds what was planted.  Labelled normal breasts, cell
lines and a tumour published with its labels say whether it holds on cells nobody simulated.  Tumours made of real
normal cells with dosage changes lie between the two.
"""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

from benchmarks.validation import _cells_found as found
from benchmarks.validation import _cells_jobs as jobs
from benchmarks.validation import _cells_real as real
from benchmarks.validation import _cells_robust as robust
from benchmarks.validation import harness
from benchmarks.validation._cohort import workers
from benchmarks.validation.harness import Result

NAME = "cells"
RESOLUTIONS = (0.5, 1.0, 2.0, 4.0)
SHARES = (0.5, 0.25)
SMALL = 90  # cells of a small sample
# Lines with known CD44/CD24 and ALDH1A3 states; all 31 in the long run.
LINES = (
    "BT549", "HS578T", "MDAMB436", "MCF12A", "MCF7", "T47D", "BT474", "AU565", "MDAMB361", "CAL851", "HCC1143",
    "DU4475", "JIMT1",
)  # fmt: skip
DEPTHS = {"normal_1": (500.0, 1000.0, 2000.0), "normal_2": (500.0, 1000.0)}
FRACTIONS = (0.0, 0.1, 0.3, 0.6, 0.9)
REPEATS = 3  # demo cohorts, and tumours per point of the grid
SWAPS = ("lymphocytes", "stroma", "tumour")


def semi_real_grid(sample: str, *, full: bool) -> list[tuple[str, float, float, float]]:
    """Points (arms, depth, fraction malignant, dosage) of one base sample, up to the depth its cells allow."""
    depths = DEPTHS[sample]
    grid = [("many", depth, fraction, 1.0) for depth in depths for fraction in FRACTIONS]
    grid += [("many", depths[-1], 0.6, 0.6), ("few", depths[-1], 0.6, 1.0)]
    if full:
        grid += [("many", d, f, 0.6) for d in depths for f in FRACTIONS[1:] if (d, f) != (depths[-1], 0.6)]
        grid += [("few", d, f, 1.0) for d in depths for f in FRACTIONS[1:] if (d, f) != (depths[-1], 0.6)]
    return grid


def run(
    *,
    full: bool,
    work: Path,
    seed: int,
    demo_options: dict[str, Any] | None = None,
    demo_samples: tuple[str, ...] | None = None,
    quick: bool = False,
) -> Result:
    """Measure everything about cells.

    Parameters
    ----------
    full, work, seed
        See `harness.Section`.
    demo_options, demo_samples
        Another size of the demo cohort, or some of its samples only.
    quick
        One resolution, one depth, one corner of the grid, no cell lines: the subset that the tests run.
    """
    result = Result(NAME, "Cells: types, malignancy, doublets", found.QUESTION)
    resolutions, shares = (RESOLUTIONS[1:2], SHARES[:1]) if quick else (RESOLUTIONS, SHARES)
    if full:
        shares = (0.75, *shares, 0.1)
    data = harness.real_data()
    with workers() as pool:
        wait: dict[str, Future[Any]] = {}
        base_job = pool.submit(jobs.demo_base, work / "demo", seed, demo_options or {}, demo_samples)
        oligo_job = pool.submit(jobs.oligodendroglioma, work / "oligo", seed)
        if data:
            normals_job = pool.submit(jobs.normals_base, work / "normals", data, seed)
            if not quick:
                lines_job = pool.submit(jobs.cell_lines, work / "lines", data, seed, () if full else LINES)
            normals, labels = normals_job.result()
            harness.say("cells: normal breasts read")
            # The slow ones first.
            for sample in normals.samples:
                grid = semi_real_grid(sample, full=full)
                grid = [g for g in grid if g[:3] in (("many", 1000.0, 0.0), ("many", 1000.0, 0.6))] if quick else grid
                for repeat in range(1 if quick else REPEATS):
                    args = (normals, labels, work / "semi", sample, grid, repeat)
                    wait[f"semi {sample} {repeat}"] = pool.submit(jobs.semi_real, *args)
            wait["called"] = pool.submit(jobs.normals_called, normals, work / "called", labels)
            for r in resolutions:
                wait[f"normals r {r}"] = pool.submit(jobs.at_resolution, normals, work / f"normals_r{r:g}", r)
            for share in shares:
                folder = work / f"normals_d{share:g}"
                wait[f"normals d {share}"] = pool.submit(jobs.at_depth, normals, folder, share)
            wait["normals small"] = pool.submit(jobs.few_cells, normals, work / "normals_small", SMALL, 0)
        base = base_job.result()
        harness.say("cells: demo cohort called")
        known = found.demo_truth(base)
        again = {
            seed + i: pool.submit(jobs.demo_base, work / f"demo_{seed + i}", seed + i, demo_options or {}, demo_samples)
            for i in range(1, 1 if quick else REPEATS)
        }
        for how in () if quick else SWAPS:
            args_ = (base, work / f"swap_{how}", how, known["malignant"])
            wait[f"swap {how}"] = pool.submit(jobs.retyped, *args_)
        if not quick:
            wait["others"] = pool.submit(jobs.other_patients, base, work / "others")
        wait["renamed"] = pool.submit(jobs.genes_renamed, base, work / "renamed")
        for share in shares:
            wait[f"demo d {share}"] = pool.submit(jobs.at_depth, base, work / f"demo_d{share:g}", share)
        for r in resolutions:
            wait[f"demo r {r}"] = pool.submit(jobs.at_resolution, base, work / f"demo_r{r:g}", r)
        for repeat in range(5 if full else 1):
            folder = work / f"demo_small_{repeat}"
            wait[f"demo small {repeat}"] = pool.submit(jobs.few_cells, base, folder, SMALL, repeat)

        found.demo(result, base, known)
        found.replicates(result, {seed: base} | {s: job.result() for s, job in again.items()})
        done = {}
        for name, job in wait.items():
            done[name] = job.result()
            harness.say(f"cells: {name}")

        robust.resolutions(result, base, known, {r: done[f"demo r {r}"] for r in resolutions}, "demo")
        if data:
            real.normals(result, normals, labels, done["called"])
            found.confidence(result, base, known, normals, labels)
            clustered = {r: done[f"normals r {r}"] for r in resolutions}
            robust.resolutions(result, normals, labels, clustered, "normals")
        else:
            result.claims.append(harness.not_run("Normal breasts: types, 0 malignant cells", "0 malignant"))
        robust.resolution_plot(result)
        depths = {"demo": {s: done[f"demo d {s}"] for s in shares}}
        if data:
            depths["normals"] = {s: done[f"normals d {s}"] for s in shares}
        robust.downsampling(result, base, known, normals if data else None, labels if data else None, depths)
        small = {k: v for k, v in done.items() if " small" in k}
        robust.small_samples(result, known, labels if data else None, small, SMALL)
        robust.controls(result, base, known, done, SWAPS if not quick else ())
        real.oligodendroglioma(result, oligo_job.result())
        if data:
            real.semi_real(result, [v for k, v in done.items() if k.startswith("semi ")])
            if not quick:
                real.cell_lines(result, lines_job.result())
        else:
            result.claims.append(harness.not_run("Cell lines: unassigned, or malignant as declared", "0 malignant"))
            result.claims.append(harness.not_run("Tumours made of real normal cells", "no false calls without tumour"))
    result.notes += found.notes(result.figures)
    return result
