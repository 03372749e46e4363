"""What is paid before and beside the work: planning, a run with nothing to do, the start of a job.

    make bench-overheads

Planning: the dry run of 500 samples.  Nothing to do: a second run of 26 patients.  Start of a job: whole commands, each
alone (`NICHELOOP_WARM=off`), on two tumours of 200 cells, so little more than their fixed cost.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks import cohort, process

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "overheads.json"
PLANNED, FEW_CELLS = 500, 200


def many(work: Path, n: int) -> Path:
    """Sample sheet of `n` samples whose files are links to one sample's; returns its path."""
    head, line = cohort.write_cohort(work / "one", cells=FEW_CELLS, samples=1).read_text().splitlines()[:2]
    source = work / "one" / "p001"
    lines = [head]
    for i in range(n):
        name = f"p{i + 1:03d}"
        folder = work / "many" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            if not (folder / file.name).exists():
                os.link(file, folder / file.name)
        columns = line.split("\t")
        columns[0], columns[1], columns[2] = name, str(folder.resolve()), name
        lines.append("\t".join(columns))
    sheet = work / f"many_{n}.tsv"
    sheet.write_text("\n".join(lines) + "\n")
    return sheet


def planning(sheet: Path, work: Path, *profile: str) -> dict[str, Any]:
    """Dry run of a sample sheet, on one core."""
    command = [Path(sys.executable).parent / "snakemake", "--snakefile", ROOT / "Snakefile", *profile]
    command += ["--dry-run", "--quiet", "all", "--cores", "1"]
    command += ["--config", f"samples={sheet}", f"results={work / 'planned'}"]
    return process.run_tree(command, work / "planning.log", cores=1)


def run(sheet: Path, out: Path, cores: int, **environment: str) -> dict[str, Any]:
    """One run of the workflow."""
    command = [sys.executable, "-m", "nicheloop", "run", sheet, "--out", out, "--cores", cores]
    return process.run_tree(command, out.with_suffix(".log"), cores=cores, environment=environment)


def starts(out: Path) -> dict[str, float]:
    """Seconds of the slowest job of each rule, its start included, as Snakemake measured them."""
    slowest: dict[str, float] = {}
    folder = out / "benchmarks"
    for path in folder.rglob("*.tsv"):
        rule = path.relative_to(folder).with_suffix("").parts[0]
        slowest[rule] = max(slowest.get(rule, 0.0), float(path.read_text().splitlines()[1].split("\t")[0]))
    return dict(sorted(slowest.items(), key=lambda kv: -kv[1]))


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--work", type=Path, default=ROOT / "results-bench" / "overheads")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"command": "make bench-overheads", "machine": process.machine(args.cores)}
    planned, slurm = many(args.work, PLANNED), ("--profile", str(ROOT / "profiles" / "slurm"), "--executor", "dryrun")
    result["planning"] = {
        "samples": PLANNED, "one machine": planning(planned, args.work),
        "slurm profile": planning(planned, args.work, *slurm),
    }  # fmt: skip
    sheet, out = cohort.write_cohort(args.work / "cohort", cells=10_000, cores=args.cores), args.work / "patients"
    run(sheet, out, args.cores)
    result["nothing to do"] = {"patients": cohort.PATIENTS, **run(sheet, out, args.cores)}
    small, alone = cohort.write_cohort(args.work / "two", cells=2 * FEW_CELLS, samples=2), args.work / "alone"
    shutil.rmtree(alone, ignore_errors=True)
    run(small, alone, 1, NICHELOOP_WARM="off")
    result["jobs of 200 cells"] = starts(alone)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
