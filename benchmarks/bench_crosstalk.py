"""The ligand-receptor screen beside liana, squidpy and FastCCC: same data, resource, permutations and cores.

    make bench-crosstalk                    everything (15 to 35 minutes, most of it liana at 50,000 cells)
    make bench-crosstalk QUICK=--quick      10,000 cells only

Every measurement is a process of its own.  The ratios compare the calls, data in memory and modules loaded; beside them
stand those of whole processes (start of Python, modules, reading, call) and of the first process ever.  Parts are kept
in the work folder, so an interrupted run goes on where it stopped; --fresh measures everything again.  See
docs/benchmarks-crosstalk.md, which this script writes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
N_PERMUTATIONS, EXPR_PROP, MIN_CELLS = 1000, 0.1, 5  # the last two are liana's defaults
TYPES = {
    "malignant": 0.34, "t_cd4": 0.12, "t_cd8": 0.10, "macrophage": 0.09, "fibroblast": 0.08, "endothelial": 0.07,
    "b_cell": 0.05, "perivascular": 0.04, "monocyte": 0.04, "nk": 0.03, "plasmablast": 0.025, "dendritic": 0.015,
}  # fmt: skip
N_GENES = 20_000
# median UMI per cell: 262, 374 and 167 non-zeros of LIANA's genes per cell.  What costs is these non-zeros; the real
# tumour of the data folder (10x 3' v3.1) has 267 in the cells that pass quality control, so that depth is the main one
DEPTHS = {"main": 7_500, "deep": 14_300, "shallow": 3_600}
OTHER = {"deep": (10_000, 50_000), "shallow": (10_000,)}  # cells of the other depths
GROWTH = (100_000, 200_000)  # cells that only ours is measured with
SIZES = {"liana": (10_000, 50_000), "squidpy": (10_000, 50_000), "fastccc": (10_000, 50_000)}
OURS = (10_000, 50_000)
LIANA_JOBS = 10_000  # up to these cells liana also runs with a job per core; above, as it was faster here
WARM_RUNS = 3
PREPARE = 500  # cells of the run that only puts byte code on disk
FLOORS = {"ratio_liana_10k": 30, "ratio_liana_50k": 50, "ratio_squidpy_10k": 10, "ratio_fastccc_10k": 5}
EXTRA_MB = 500


# ------------------------------------------------------------------------------------------------------- simulated data
def simulate(path: Path, n_cells: int, genes: list[str], umi: int, seed: int = 0, chunk: int = 5_000) -> None:
    """Write log-normalised counts shaped like a breast tumour, chunk by chunk: 12 types, a median of `umi` per cell."""
    import anndata as ad
    import numpy as np
    import pandas as pd
    from scipy import sparse

    rng = np.random.default_rng(seed)
    base = rng.lognormal(0, 2.0, len(genes))
    profiles = base * rng.lognormal(0, 1.0, (len(TYPES), len(genes)))
    profiles /= profiles.sum(axis=1, keepdims=True)
    names = np.array(list(TYPES))
    parts = []
    for i, start in enumerate(range(0, n_cells, chunk)):
        here = np.random.default_rng([seed, i])  # a larger data set begins with the smaller one
        n = min(chunk, n_cells - start)
        kind = here.choice(len(names), n, p=list(TYPES.values()))
        size = here.lognormal(math.log(umi), 0.45, n)
        blocks = []
        for at in range(0, n, 250):
            rate = profiles[kind[at : at + 250]] * size[at : at + 250, None]
            blocks.append(sparse.csr_matrix(here.poisson(rate).astype(np.float32)))
        x = sparse.vstack(blocks, format="csr")
        totals = np.asarray(x.sum(axis=1)).ravel()
        x.data = np.log1p(x.data * np.repeat(1e4 / np.maximum(totals, 1), np.diff(x.indptr))).astype(np.float32)
        obs = pd.DataFrame(
            {"cell_type": pd.Categorical(names[kind], categories=sorted(TYPES))},
            index=[f"c{start + k}" for k in range(n)],
        )
        part = path.with_name(f".{path.stem}.{i}.h5ad")
        ad.AnnData(x, obs=obs, var=pd.DataFrame(index=genes)).write_h5ad(part)
        parts.append(part)
    temporary = path.with_name(f".{path.name}.tmp.h5ad")
    ad.experimental.concat_on_disk(parts, temporary, axis=0)
    for part in parts:
        part.unlink()
    temporary.replace(path)


def gene_names(resources: list[Path]) -> list[str]:
    """Symbols of the simulated matrix: every gene of the resources, then others."""
    from nicheloop import genes

    wanted = {g for r in resources for pair in json.loads(r.read_text()) for side in pair for g in side.split("_")}
    rest = [g for g in genes.table().index if g not in wanted]
    return sorted([*wanted, *rest[: max(0, N_GENES - len(wanted))]])


# ------------------------------------------------------------------------------------------ one measurement (a process)
def rss_mb(key: str = "VmRSS") -> float:
    """Resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def measure(tool: str, data: Path, resource: Path, database: Path | None, cores: int, out: Path) -> None:
    """Load data, run one tool once, and write seconds, memory and how many rows it tested."""
    import contextlib
    import importlib.metadata as metadata
    import io as text
    import warnings

    warnings.simplefilter("ignore")
    pairs = [tuple(p) for p in json.loads(resource.read_text())]
    tool, _, state = tool.partition(":")
    if tool == "nicheloop":
        from nicheloop.cli import calm_collector

        calm_collector()  # as our command line begins
        from nicheloop import io

        counts = io.Counts(data)  # the reader of our stages; as in the stage, modules are loaded while it reads
        matrix = counts.matrix_ahead()
        import pandas as pd
        import scipy.special  # noqa: F401  the other tools load theirs with their package

        from nicheloop import kernels, pair_screen
        from nicheloop.config_niche import Screen
        from nicheloop.interactions import Interaction

        known = [Interaction(tuple(a.split("_")), tuple(b.split("_"))) for a, b in pairs]
        options = Screen(
            method="cellphonedb", n_permutations=N_PERMUTATIONS, expr_prop=EXPR_PROP, min_cells=MIN_CELLS, threads=cores
        )
        kernels.prepare()
        x, symbols, labels = matrix(), counts.genes, counts.annotation("cell_type")
    else:
        import anndata as ad
        import pandas as pd

        if tool == "liana":
            import liana
        elif tool == "squidpy":
            import squidpy
        else:
            import fastccc  # noqa: F401
            from fastccc.core import statistical_analysis_method
        adata = ad.read_h5ad(data)
    quiet = text.StringIO()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = rss_mb()
    start, clock = time.time(), time.perf_counter()
    with contextlib.redirect_stdout(quiet):
        if tool == "nicheloop":
            table = pair_screen.screen(x, symbols, labels, known, options, seed=0)
            rows = int((table["status"] == "tested").sum())
        elif tool == "liana":
            table = liana.mt.cellphonedb(
                adata, groupby="cell_type", resource=pd.DataFrame(pairs, columns=["ligand", "receptor"]),
                expr_prop=EXPR_PROP, min_cells=MIN_CELLS, use_raw=False, n_perms=N_PERMUTATIONS, seed=0, inplace=False,
                verbose=False, n_jobs=cores if state == "jobsall" else 1,
            )  # fmt: skip
            rows = len(table)
        elif tool == "squidpy":
            found = squidpy.gr.ligrec(
                adata, "cell_type", interactions=pd.DataFrame(pairs, columns=["source", "target"]), threshold=EXPR_PROP,
                use_raw=False, copy=True, n_perms=N_PERMUTATIONS, seed=0, n_jobs=cores, show_progress_bar=False,
            )  # fmt: skip
            rows = int(found["pvalues"].notna().to_numpy().sum())
        else:
            folder = out.parent / "fastccc"
            _, _, tested = statistical_analysis_method(
                str(database), None, adata, meta_key="cell_type", style="cpdb", save_path=str(folder)
            )
            rows = int(tested.to_numpy().sum())
            shutil.rmtree(folder, ignore_errors=True)
    seconds, end = time.perf_counter() - clock, time.time()
    versions = {}
    for name in {tool, "numpy", "numba", "anndata"}:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    out.write_text(
        json.dumps({"seconds": seconds, "start": start, "end": end, "before_mb": before, "peak_mb": rss_mb("VmHWM"),
                    "rows_tested": rows, "versions": versions})
    )  # fmt: skip


def run_process(command: list[str], environment: dict[str, str], out: Path, cores: int) -> dict[str, Any]:
    """Run one measurement bound to `cores` cores and add its wall time and the peak memory of its process tree."""
    import psutil

    granted = sorted(os.sched_getaffinity(0))[:cores]
    samples: list[tuple[float, float]] = []
    done = threading.Event()

    def watch(process: psutil.Process) -> None:
        while not done.wait(0.02):
            total = 0
            for member in [process, *_children(process)]:
                try:
                    total += member.memory_info().rss
                except psutil.Error:
                    continue
            samples.append((time.time(), total / 2**20))

    def _children(process: psutil.Process) -> list[psutil.Process]:
        try:
            return process.children(recursive=True)
        except psutil.Error:
            return []

    load = os.getloadavg()[0]
    clock = time.perf_counter()
    child = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, granted),
    )  # fmt: skip
    watcher = threading.Thread(target=watch, args=(psutil.Process(child.pid),), daemon=True)
    watcher.start()
    _, errors = child.communicate()
    done.set()
    watcher.join()
    if child.returncode or not out.exists():
        raise RuntimeError(f"{' '.join(command)}\n{(errors or '')[-3000:]}")
    found = json.loads(out.read_text())
    inside = [mb for at, mb in samples if found["start"] <= at <= found["end"]]
    found["peak_mb"] = max([found["peak_mb"], *inside])
    found["extra_mb"] = found["peak_mb"] - found["before_mb"]
    found |= {"process_seconds": time.perf_counter() - clock, "load": load}
    return found


# -------------------------------------------------------------------------------------------------------------- the run
def parts_wanted(quick: bool, database: bool) -> list[tuple[str, str, int, str]]:
    """(tool, resource, cells, state) of every measurement, short ones first."""
    sizes = [n for n in OURS if n == 10_000 or not quick]
    found = []
    for n in sizes:
        for resource in ("consensus", *(("cellphonedb",) if database else ())):
            found.append(("nicheloop", resource, n, "cold"))
            found += [("nicheloop", resource, n, f"warm{i}") for i in range(WARM_RUNS)]
        for tool, resource in (("fastccc", "cellphonedb"), ("squidpy", "cellphonedb"), ("liana", "consensus")):
            if n in SIZES[tool] and (database or resource == "consensus"):
                states = ("once",) if tool != "liana" else ("jobs1", "jobsall") if n <= LIANA_JOBS else ("jobs1",)
                found += [(tool, resource, n, state) for state in states]
    for n in () if quick else GROWTH:
        found += [("nicheloop", "consensus", n, f"warm{i}") for i in range(WARM_RUNS)]
    for depth, cells in OTHER.items():
        for n in cells[:1] if quick else cells:
            found += [("nicheloop", depth, n, f"warm{i}") for i in range(WARM_RUNS)]
            found.append(("liana", depth, n, "jobs1"))
    return found


def main() -> int:
    """Measure what is missing, then write the JSON and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10,000 cells only")
    parser.add_argument("--fresh", action="store_true", help="forget earlier measurements")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--tools", default=sys.executable, help="python of the environment with the other tools")
    parser.add_argument("--cellphonedb", help="CellPhoneDB v5 folder (with cellphonedb.zip for FastCCC)")
    parser.add_argument("--work", type=Path, default=ROOT / "results-bench" / "crosstalk", help="data and parts")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "crosstalk.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks-crosstalk.md")
    parser.add_argument(
        "--measure", nargs=5, metavar=("TOOL", "DATA", "RESOURCE", "DATABASE", "OUT"), help=argparse.SUPPRESS
    )
    args = parser.parse_args()
    if args.measure:
        tool, data, resource, database, out = args.measure
        measure(tool, Path(data), Path(resource), Path(database) if database else None, args.cores, Path(out))
        return 0

    sys.path.insert(0, str(ROOT / "src"))
    from nicheloop import interactions
    from nicheloop.workflow import code_digest

    work = args.work.resolve()
    if args.fresh:
        shutil.rmtree(work / "parts", ignore_errors=True)
    (work / "parts").mkdir(parents=True, exist_ok=True)
    folder = Path(args.cellphonedb) if args.cellphonedb else None
    has_database = folder is not None and (folder / "interaction_input.csv").exists()
    if not has_database:
        print("no CellPhoneDB folder (--cellphonedb): squidpy and FastCCC are left out")
    resources = {"consensus": interactions.read(interactions.LIANA)}
    if has_database:
        resources["cellphonedb"] = interactions.read(str(folder))
    paths = {}
    for name, pairs in resources.items():
        paths[name] = work / f"{name}.json"
        paths[name].write_text(json.dumps([p.names for p in pairs]))
    paths["deep"] = paths["shallow"] = paths["consensus"]  # the same pairs, other data
    few = work / "few.json"
    few.write_text(json.dumps([p.names for p in resources["consensus"][:300]]))
    database = work / "cellphonedb"
    if has_database and folder is not None and not (database / "interaction_table.csv").exists():
        with zipfile.ZipFile(folder / "cellphonedb.zip") as archive:
            archive.extractall(database)

    digest = code_digest("pair_screen")
    environment = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "PYTHONDONTWRITEBYTECODE")}
    bytecode, unused = work / "bytecode", work / "bytecode-cold"
    environment["PYTHONPYCACHEPREFIX"] = str(bytecode)
    for name in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
        environment[f"{name}_NUM_THREADS"] = str(args.cores)
    compiled = work / "numba"
    results: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    prepared: set[str] = set()

    def data_of(n: int, umi: int) -> Path:
        data = work / f"cells_{n}_{umi}.h5ad"
        if not data.exists():
            print(f"simulating {n} cells", flush=True)
            simulate(data, n, gene_names([paths[name] for name in resources]), umi)
        return data

    for tool, resource, n, state in parts_wanted(args.quick, has_database):
        key = f"{tool} {resource} {n} {state}"
        part = work / "parts" / (key.replace(" ", "_") + ".json")
        mark = digest if tool == "nicheloop" else "released"
        if part.exists() and (kept := json.loads(part.read_text())).get("mark") == mark:
            results[key] = kept
            continue
        data = data_of(n, DEPTHS.get(resource, DEPTHS["main"]))
        once = work / "once.json"
        here = dict(environment, PYTHONPATH=str(ROOT / "src")) if tool == "nicheloop" else environment
        python = sys.executable if tool == "nicheloop" else args.tools

        def call(on: Path, pairs: Path, env: dict[str, str]) -> dict[str, Any]:
            once.unlink(missing_ok=True)  # noqa: B023
            command = [python, str(Path(__file__).resolve()), "--cores", str(args.cores)]  # noqa: B023
            command += ["--measure", f"{tool}:{state}", str(on), str(pairs)]  # noqa: B023
            command += [str(database) if tool == "fastccc" else "", str(once)]  # noqa: B023
            return run_process(command, env, once, args.cores)  # noqa: B023

        try:
            if tool not in prepared:  # byte code on disk, for every tool alike; our kernels elsewhere
                call(data_of(PREPARE, DEPTHS["main"]), few, dict(here, NUMBA_CACHE_DIR=str(work / "numba-prepare")))
                prepared.add(tool)
            if tool == "nicheloop":
                here = dict(here, NUMBA_CACHE_DIR=str(compiled))
                if state == "cold":  # the first process ever: neither byte code nor kernels are on disk
                    shutil.rmtree(compiled, ignore_errors=True)
                    shutil.rmtree(unused, ignore_errors=True)
                    here["PYTHONPYCACHEPREFIX"] = str(unused)
            found = call(data, paths[resource], here)
        except (RuntimeError, OSError) as err:
            failed[key] = str(err).strip().splitlines()[-1]
            print(f"{key:40s} failed: {failed[key]}", flush=True)
            continue
        found["mark"] = mark
        part.write_text(json.dumps(found))
        results[key] = found
        print(
            f"{key:40s} {found['process_seconds']:9.2f} s, call {found['seconds']:9.2f} s "
            f"+ {found['extra_mb']:7.0f} MB",
            flush=True,
        )
    summary = summarise(results, failed, args.cores)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
    write_page(summary, args.page)
    for key, floor in FLOORS.items():
        if key in summary:
            said = (
                f"whole process {summary[key + '_process']:.0f}, first ever {summary[key + '_cold']:.0f}; floor {floor}"
            )
            print(f"{key}: {summary[key]:.0f} ({said})")
    print(f"written: {args.out}, {args.page}")
    return 0


def summarise(results: dict[str, dict[str, Any]], failed: dict[str, str], cores: int) -> dict[str, Any]:
    """Ratios, times and peaks of all measurements; our warm time is the median of its runs."""
    import platform
    import statistics

    loads = sorted(found["load"] for found in results.values() if "load" in found)
    load = {"median": round(statistics.median(loads), 1), "max": round(loads[-1], 1)} if loads else {}
    table: dict[str, dict[str, Any]] = {}
    versions: dict[str, str] = {"python": platform.python_version()}
    for key, found in results.items():
        tool, resource, n, state = key.split()
        versions.update({k: v for k, v in found["versions"].items() if k == tool})
        name = f"{tool} {resource} {n}" + (f" {state.rstrip('0123456789')}" if tool == "nicheloop" else "")
        table.setdefault(name, {"seconds": [], "process_seconds": [], "peak_mb": [], "extra_mb": [], "rows_tested": []})
        for column in table[name]:
            table[name][column].append(found[column])
    for name, t in table.items():
        if name.startswith("liana"):  # the faster of one job and a job per core
            best = t["seconds"].index(min(t["seconds"]))
            table[name] = {column: [values[best]] for column, values in t.items()}
    final = {
        name: {
            "seconds": statistics.median(t["seconds"]), "process_seconds": statistics.median(t["process_seconds"]),
            "peak_mb": max(t["peak_mb"]), "extra_mb": max(t["extra_mb"]), "rows_tested": t["rows_tested"][0],
            "runs": len(t["seconds"]),
        }
        for name, t in table.items()
    }  # fmt: skip
    summary: dict[str, Any] = {
        "ratios": "call, kernels compiled by an earlier process; _process: whole process; _cold: first process ever",
        "umi": DEPTHS, "cores": cores,
        "permutations": N_PERMUTATIONS, "expr_prop": EXPR_PROP, "types": len(TYPES), "genes": N_GENES,
        "times": {k: round(v["seconds"], 3) for k, v in final.items()},
        "process_times": {k: round(v["process_seconds"], 3) for k, v in final.items()},
        "peaks": {k: {"peak_mb": round(v["peak_mb"]), "extra_mb": round(v["extra_mb"])} for k, v in final.items()},
        "rows_tested": {k: v["rows_tested"] for k, v in final.items()},
        "load": load, "versions": versions, "failed": failed, "processor": processor(),
    }  # fmt: skip
    for tool, resource, sizes in (
        ("liana", "consensus", (10_000, 50_000)),
        ("squidpy", "cellphonedb", (10_000, 50_000)),
        ("fastccc", "cellphonedb", (10_000, 50_000)),
    ):
        for n in sizes:
            theirs, ours = final.get(f"{tool} {resource} {n}"), final.get(f"nicheloop {resource} {n} warm")
            cold = final.get(f"nicheloop {resource} {n} cold")
            if theirs and ours and cold:
                key = f"ratio_{tool}_{n // 1000}k"
                summary[key] = round(theirs["seconds"] / ours["seconds"], 1)
                summary[f"{key}_process"] = round(theirs["process_seconds"] / ours["process_seconds"], 1)
                summary[f"{key}_cold"] = round(theirs["process_seconds"] / cold["process_seconds"], 1)
    for depth, n in ((depth, n) for depth, cells in OTHER.items() for n in cells):
        theirs, ours = final.get(f"liana {depth} {n}"), final.get(f"nicheloop {depth} {n} warm")
        if theirs and ours:
            key = f"{depth}_ratio_liana_{n // 1000}k"
            summary[key] = round(theirs["seconds"] / ours["seconds"], 1)
            summary[f"{key}_process"] = round(theirs["process_seconds"] / ours["process_seconds"], 1)
    key = "nicheloop consensus {} warm"
    scale = [(n, final[key.format(n)]["seconds"]) for n in (*OURS, *GROWTH) if key.format(n) in final]
    if len(scale) > 1:
        (n0, t0), (n1, t1) = scale[0], scale[-1]
        summary["scaling_exponent"] = round(math.log(t1 / t0) / math.log(n1 / n0), 2)
    return summary


def processor() -> str:
    """Name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown"


NAMES = {"nicheloop": "nicheloop", "liana": "liana `cellphonedb`", "squidpy": "squidpy `ligrec`", "fastccc": "FastCCC"}


def write_page(summary: dict[str, Any], page: Path) -> None:
    """Write the Markdown page and its plot."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "nicheloop"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2))
    lines: dict[str, list[tuple[int, float]]] = {}
    for key, seconds in summary["times"].items():
        tool, resource, n, *state = key.split()
        if resource in DEPTHS:
            continue
        label = f"{tool}, {resource}" + (f" ({state[0]})" if state else "")
        lines.setdefault(label, []).append((int(n), seconds))
    for label, points in sorted(lines.items()):
        points.sort()
        style = {"marker": "o", "linestyle": ":" if "cold" in label else "-"}
        axes.plot([p[0] for p in points], [p[1] for p in points], label=label, **style)
    axes.set(xscale="log", yscale="log", xlabel="cells", ylabel=f"seconds of the call ({summary['cores']} cores)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    image = page.parent / "images" / "benchmarks-crosstalk.svg"
    image.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(image, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)

    versions = ", ".join(f"{k} {v}" for k, v in sorted(summary["versions"].items()))
    load = ", ".join(f"{k} {v}" for k, v in summary["load"].items())
    text = [
        "# Benchmark: the ligand-receptor screen",
        "",
        "Written by `make bench-crosstalk`; figures in `benchmarks/results/crosstalk.json`.",
        "",
        f"Simulated counts shaped like a breast tumour: {summary['types']} types, {summary['genes']:,} genes, a median "
        f"of {DEPTHS['main']:,} UMI per cell. What costs is the non-zeros of the resource's genes: a cell here has 262 "
        "of LIANA's consensus, one of the real tumour of the data folder (10x 3' v3.1) 267. "
        f"*deep* is the same at {DEPTHS['deep']:,} UMI with 374, *shallow* at {DEPTHS['shallow']:,} with 167. "
        f"{summary['permutations']:,} permutations, every gene in at least "
        f"{summary['expr_prop']:.0%} of its type, the same pairs for every tool, {summary['cores']} cores "
        f"({summary['processor']}; load of the machine before each run: {load or 'unknown'}). Versions: {versions}.",
        "",
        "*Whole process* is the wall time from the start of Python to its end: modules, reading the file, the call. "
        "*Call* is the call alone, data in memory and modules loaded. **The ratios held to the floors are of calls.** "
        "*Warm*: a new process reads kernels that an earlier one compiled, as every process of a user but the first "
        f"(median of {WARM_RUNS}). *Cold*: the first process ever after installing, neither our kernels nor Python's "
        "byte code on disk; the other tools ran once on a few cells before, so theirs is. squidpy compiles in every "
        "process and has no other state. *Extra memory* is the peak of the process tree during the call less what it "
        f"held before. liana ran with one job, up to {LIANA_JOBS:,} cells also with a job per core, and the faster is "
        "shown; squidpy with all cores; FastCCC draws no permutations (it computes the null) and writes its tables.",
        "",
        "![Seconds by cells](images/benchmarks-crosstalk.svg)",
        "",
        "| tool | resource | cells | whole process (s) | call (s) | peak MB | extra MB | rows tested |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for key in sorted(summary["times"], key=lambda k: (int(k.split()[2]), k.split()[1], k)):
        tool, resource, n, *state = key.split()
        peak = summary["peaks"][key]
        text.append(
            f"| {NAMES[tool]}{' ' + state[0] if state else ''} | {resource} | {int(n):,} "
            f"| {summary['process_times'][key]:.1f} | {summary['times'][key]:.2f} "
            f"| {peak['peak_mb']:,} | {peak['extra_mb']:,} | {summary['rows_tested'][key]:,} |"
        )
    text += [
        "",
        "| against | cells | times faster, the call, warm | whole process, warm | first process ever | floor |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for tool in ("liana", "squidpy", "fastccc"):
        for size in ("10k", "50k"):
            key = f"ratio_{tool}_{size}"
            if key in summary:
                floor = FLOORS.get(key)
                text.append(
                    f"| {NAMES[tool]} | {size[:-1]},000 | {summary[key]:.1f} | {summary[key + '_process']:.1f} | "
                    f"{summary[key + '_cold']:.1f} | {floor if floor else '-'} |"
                )
    for depth, n in ((depth, n // 1000) for depth, cells in OTHER.items() for n in cells):
        key = f"{depth}_ratio_liana_{n}k"
        if key in summary:
            text.append(
                f"| {NAMES['liana']}, {depth} | {n},000 | {summary[key]:.1f} "
                f"| {summary[key + '_process']:.1f} | - | - |"
            )
    missed = [k for k, floor in FLOORS.items() if k in summary and summary[k] < floor]
    for key in missed:
        text += ["", f"**`{key}` is below its floor of {FLOORS[key]}** ({summary[key]:.1f}; whole "
                 f"processes {summary[key + '_process']:.1f})."]  # fmt: skip
    if "scaling_exponent" in summary:
        power = f"{summary['scaling_exponent']:.2f}"
        text += ["", f"Our warm call grows with cells to the power {power} (1 is linear), 10,000 to 200,000."]
    extra = max((v["extra_mb"] for k, v in summary["peaks"].items() if k.startswith("nicheloop")), default=0)
    text += ["", f"Largest extra memory of ours: {extra:,} MB (bound: {EXTRA_MB} MB)."]
    for key, reason in summary["failed"].items():
        text.append(f"\nNot measured: {key}: {reason}")
    page.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
