"""docs/benchmarks.md, its plots and the table of docs/scaling.md from benchmarks/results/*.json.

What was not measured is named as such.

python -m benchmarks.page
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import growth as growing

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE, IMAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "images"
SCALING = ROOT / "docs" / "scaling.md"
BEGIN, END = "<!-- growth: begin -->", "<!-- growth: end -->"
SHORT = 2.5  # seconds within which a job without anndata should be at its work
QUIET = 0.5  # load before the run above which times are of a busy machine
SIZES = {"peer": (10_000, 50_000, 100_000), "growth": (10_000, 30_000, 100_000, 300_000, 1_000_000)}


def read(name: str) -> dict[str, Any] | None:
    """A result, or None where it was not measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def missing(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """A line that names the sizes not measured."""
    left = [f"{n:,}" for n in SIZES[name] if n not in {r["cells"] for r in rows}]
    return [f"Not measured: {', '.join(left)} cells (`make bench-{name} SIZES=...`).", ""] if left else []


def busy(load: float) -> str:
    """Say of a figure that the machine had not come to rest before it."""
    return f" (load before: {load:g})" if load > QUIET else ""


def machine(found: dict[str, Any]) -> str:
    """The machine in one line."""
    cores = f"{found['cores_used']} of {found['cores']} cores"
    return f"{found['processor']}, {cores}, {found['memory_gb']} GB, Python {found['python']}{of(found)}"


def told(quality: dict[str, float], name: str) -> str:
    """A figure of quality, or a dash in rows measured before it was asked for."""
    return f"{quality[name]:.3f}" if name in quality else "-"


def of(found: dict[str, Any]) -> str:
    """The commit that was measured."""
    return f", commit {found['code']}" if found.get("code") else ""


def peer() -> list[str]:
    """The whole workflow beside a script of the field's libraries."""
    lines = ["## The whole workflow beside what one would write today", "", f"`make bench-peer`; {peer_text}", ""]
    found = read("peer")
    rows = found["rows"] if found else []
    if found:
        packages = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
        lines += [f"{machine({**found['machine'], 'code': ''})}; {packages}.", ""]
        lines += [
            "| cells | side | wall, s | processor, s | peak MB | types, macro-F1 | malignant, balanced accuracy "
            "| axes, area under ROC (answered) | axes, balanced accuracy |",
            "|---:|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for row in rows:
            for side in ("ours", "peer"):
                r, q = row[side], row[side]["quality"]
                answered = f" ({q['axes_answered']:.0%})" if "axes_answered" in q else ""
                lines.append(
                    f"| {row['cells']:,} | {side} | {r['seconds']:,.0f} | {r['cpu_seconds']:,.0f} | {r['peak_mb']:,} "
                    f"| {q['types_macro_f1']:.3f} | {q['malignant_balanced_accuracy']:.3f} "
                    f"| {told(q, 'axes_auc')}{answered} | {told(q, 'axes_balanced_accuracy')} |"
                )
        lines += [""]
        for row in rows:
            lines.append(
                f"- {row['cells']:,} cells: peer / ours {row['time_ratio']} in wall time and {row['cpu_ratio']} in "
                f"processor time; ours / peer {row['memory_ratio']} in peak memory{busy(row['load_before'])}{of(row)}."
            )
        lines += [""]
    return lines + missing("peer", rows)


peer_text = (
    "simulated cohorts shaped like GSE176078 (26 patients, 20,000 genes, about 1,500 per cell). Peer: "
    "`benchmarks/peer_script.py`, the defaults of scanpy, scrublet, harmony, infercnvpy and liana with the markers we "
    "ship. Ours: `nicheloop run` with Snakemake's overhead and the screen over the same resource, 1,000 permutations. "
    "Axes: IL6 of fibroblasts and of endothelium for malignant cells and CCL2 of these for myeloid cells, planted in "
    "half of the tumours; the area is that of a tool's strength, 0 where it gives none (ours: the axes, with the share "
    "answered: 20 cells of a population are needed), the accuracy that of p <= 0.05 (ours: the screen). The cells come "
    "from our simulator: the quality columns compare the two sides, they are no proof."
)


def usual() -> list[str]:
    """The usual part beside scanpy and scranpy."""
    lines = [
        "## QC to clusters and map",
        "",
        "`make bench-usual`; the same file, one process each, imports included, in turn; the median of the rounds.",
        "",
    ]
    found = read("usual")
    if not found:
        return [*lines, "Not measured.", ""]
    lines += [f"{machine(found['machine'])}{busy(found['machine']['load_before'])}; {found['cells']:,} cells.", ""]
    lines += ["| tool | wall, s | processor, s | peak MB | recall of neighbours | wall of each round, s |"]
    lines += ["|---|---:|---:|---:|---:|---|"]
    for tool, r in found["tools"].items():
        lines.append(
            f"| {tool} | {r['seconds']:.1f} | {r['cpu_seconds']:.1f} | {r['peak_mb']:,} | {r.get('recall', '-')} "
            f"| {', '.join(f'{s:.1f}' for s in r.get('rounds', [r['seconds']]))} |"
        )
    for tool in ("scanpy", "scranpy"):
        if f"time_ratio_{tool}" in found:
            wall, cpu = found[f"time_ratio_{tool}"], found[f"cpu_ratio_{tool}"]
            lines += ["", f"{tool} / ours: {wall} in wall time, {cpu} in processor time."]
    return [*lines, ""]


def slow() -> list[str]:
    """The stages that cost most, each beside the usual call."""
    lines = ["## The slow stages", "", "`make bench-slow`; the same input, one process each.", ""]
    found = read("slow")
    if not found:
        return [*lines, "Not measured.", ""]
    packages = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    one, many = found["cells"]["one sample"], found["cells"]["many"]
    load = busy(found["machine"]["load_before"])
    lines += [
        f"{machine(found['machine'])}{load}; {packages}. Reading and doublets: {one:,} cells; the others {many:,}.",
        "",
    ]
    lines += [
        "| stage | usual call | process, s: ours, theirs | call, s: ours, theirs | peak MB: ours, theirs "
        "| theirs / ours: process, call, memory | both answers |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for part, r in found["parts"].items():
        a, b = r["ours"], r["theirs"]
        shared = r["agreement"] if isinstance(r["agreement"], list) else [r["agreement"]]
        said = ", ".join(f"{v:.3g}" if abs(v) < 0.01 else f"{v:.4f}" for v in shared)
        lines.append(
            f"| {part} | `{r['usual']}` | {a['seconds']:.1f}, {b['seconds']:.1f} "
            f"| {a['call_seconds']:.1f}, {b['call_seconds']:.1f} | {a['peak_mb']:,}, {b['peak_mb']:,} "
            f"| {r['time_ratio']:.1f}, {r['call_ratio']:.1f}, {r['memory_ratio']:.1f} | {r['agreement_is']}: {said} |"
        )
    return [*lines, "", slow_text, ""]


slow_text = (
    "Wilcoxon tests over cells have no counterpart here: genes are compared over patients, from summed counts "
    "(`enrich`), because cells of one patient are no replicates."
)


def overheads() -> list[str]:
    """What is paid before and beside the work."""
    lines = ["## Overheads", "", "`make bench-overheads`.", ""]
    found = read("overheads")
    if not found:
        return [*lines, "Not measured.", ""]
    plan, idle, jobs = found["planning"], found["nothing to do"], found["jobs of 200 cells"]
    one, slurm = plan["one machine"], plan["slurm profile"]
    dearest = ", ".join(f"{name} {s:.1f}" for name, s in list(jobs.items())[:4])
    below = sum(s < SHORT for s in jobs.values())
    return [
        *lines,
        f"{machine(found['machine'])}{busy(found['machine']['load_before'])}.",
        "",
        f"- Planning {plan['samples']} samples (dry run): {one['seconds']:.0f} s and {one['peak_mb']:,} MB on one "
        f"machine; with the SLURM profile, whose groups Snakemake checks one against all, {slurm['seconds']:.0f} s.",
        f"- A run of {idle['patients']} patients with nothing to do: {idle['seconds']:.1f} s.",
        f"- Jobs on two tumours of 200 cells, each a command of its own (no process with loaded libraries), start "
        f"included: {below} of {len(jobs)} rules take less than {SHORT:g} s; the slowest, in s: {dearest}.",
        "",
    ]


def growth() -> list[str]:
    """Time and memory per rule over sizes."""
    lines = ["## Growth", "", "`make bench-growth`; about 3,850 cells per sample, more and more samples.", ""]
    found = read("growth")
    rows = found["rows"] if found else []
    if found:
        sizes = " | ".join(f"{r['cells']:,}: s (processor), MB" for r in rows)
        lines += [
            f"{machine({**found['machine'], 'code': ''})}.",
            "",
            f"| rule | {sizes} | exponent, sizes of one commit |",
            "|---|" + "---:|" * (len(rows) + 1),
        ]
        for name in rules(rows):
            cells = [
                f"{r['rules'][name]['cpu_seconds']:,.0f}, {r['rules'][name]['peak_mb']:,.0f}"
                if name in r["rules"]
                else "-"
                for r in rows
            ]
            lines.append(f"| {name} | {' | '.join(cells)} | {found['exponents'].get(name, '-')} |")
        lines += ["", whole_runs(rows), ""]
        if len(rows) > 1:
            plot(rows)
            lines += ["![processor time and peak memory of each rule against cells](images/growth.png)", ""]
            if len(growing.comparable(rows)) < len(rows):
                lines += ["Hollow: measured at another commit, outside the curves.", ""]
    return lines + missing("growth", rows)


def rules(rows: list[dict[str, Any]]) -> list[str]:
    """Rules of all runs, by the processor time of the largest run that has them."""
    last = {name: rule["cpu_seconds"] for row in rows for name, rule in row["rules"].items()}
    return sorted(last, key=lambda name: -last[name])


def whole_runs(rows: list[dict[str, Any]]) -> str:
    """Wall time, memory of all processes and disk of each run, in a sentence."""
    said = []
    for r in rows:
        without = f" without {', '.join(r['without'])}" if r["without"] else ""
        note = f" ({r['note']})" if "note" in r else ""
        said.append(
            f"{r['cells']:,} cells ({r['samples']:,} samples{without}) {r['seconds']:,.0f} s, "
            f"{r['peak_mb'] / 1000:,.1f} GB, {r['disk_mb'] / 1000:,.1f} GB{of(r)}{note}"
        )
    return f"Whole runs, wall time, memory of all processes together and disk: {'; '.join(said)}."


def plot(rows: list[dict[str, Any]]) -> None:
    """Processor seconds and peak memory of the dearest rules against cells."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    names = rules(rows)[:8]
    for axis, key, label in (
        (axes[0], "cpu_seconds", "processor seconds, all jobs"),
        (axes[1], "peak_mb", "peak MB of a job"),
    ):
        for name in names:
            alike = [r for r in growing.comparable(rows) if name in r["rules"]]
            others = [r for r in rows if name in r["rules"] and r not in alike]
            line = axis.plot(
                [r["cells"] for r in alike], [r["rules"][name][key] for r in alike], marker="o", label=name
            )
            hollow = {"marker": "o", "ls": "none", "mfc": "none", "color": line[0].get_color()}
            axis.plot([r["cells"] for r in others], [r["rules"][name][key] for r in others], **hollow)
        axis.set(xscale="log", yscale="log", xlabel="cells", ylabel=label)
    axes[1].legend(fontsize=8, frameon=False)
    IMAGES.mkdir(exist_ok=True)
    figure.savefig(IMAGES / "growth.png", dpi=120, metadata={"Software": None})


def beyond(points: list[tuple[float, float]], at: float) -> float:
    """Value at `at` cells, beyond what was measured: the larger of a power of the cells and of a straight line.

    The power is fitted to all (cells, value), the line goes through the last two: what is fixed hides growth from the
    power, what grows faster than the cells hides from the line.
    """
    n, v = np.log(np.array(points, dtype=float)).T
    slope, height = np.polyfit(n, v, 1)
    (n1, v1), (n2, v2) = points[-2:]
    return max(float(np.exp(height + slope * np.log(at))), v2 + (v2 - v1) / (n2 - n1) * (at - n2))


def scaling() -> list[str]:
    """Per rule: what one job of the largest size measured took, and the fitted curve at sizes not measured."""
    found = read("growth")
    rows = found["rows"] if found else []
    if not rows:
        return ["Not measured yet: `make bench-growth`.", ""]
    at = [n for n in (1_000_000, 10_000_000) if n > rows[-1]["cells"] and len(rows) > 1]
    sizes = ", ".join(f"{r['cells']:,}" for r in rows)
    lines = [f"Measured at {sizes} cells by `make bench-growth`; {machine({**found['machine'], 'code': ''})}."]
    if at:
        lines[0] += (
            " The last columns go beyond what was measured (the larger of a fitted power and a line through the "
            "last two sizes): take them as orders of magnitude."
        )
    far = " | ".join(f"{n / 1e6:g} million: processor hours, peak MB of a job" for n in at)
    lines += ["", f"| rule | jobs | peak MB of a job | processor s, all jobs |{f' {far} |' if at else ''}"]
    lines += ["|---|---:|---:|---:|" + "---:|" * len(at)]
    for name in rules(rows):
        mine = [r for r in rows if name in r["rules"]]
        alike = [r for r in growing.comparable(rows) if name in r["rules"]]
        rule = mine[-1]["rules"][name]
        label = name if mine[-1] is rows[-1] else f"{name} ({mine[-1]['cells']:,} cells)"
        points = [(r["cells"], r["rules"][name]) for r in alike]
        points = [p for p in points if p[1]["cpu_seconds"] > 0 and p[1]["peak_mb"] > 0]
        cells = [label, f"{rule['jobs']:,}", f"{rule['peak_mb']:,.0f}", f"{rule['cpu_seconds']:,.0f}"]
        for n in at:
            if len(points) < 2:
                cells.append("-")
                continue
            hours = beyond([(m, q["cpu_seconds"]) for m, q in points], n) / 3600
            # the jobs of a rule that scatters see one sample, whatever the cohort
            peak = rule["peak_mb"] if rule["jobs"] > 1 else beyond([(m, q["peak_mb"]) for m, q in points], n)
            cells.append(f"{hours:,.1f}, {peak:,.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", whole_runs(rows), ""]


def main() -> None:
    """Write the pages."""
    before, _, rest = SCALING.read_text().partition(BEGIN)
    SCALING.write_text("\n".join([f"{before}{BEGIN}", *scaling()]) + END + rest.partition(END)[2])
    head = [
        "# Benchmarks", "",
        "Written by `make bench` from `benchmarks/results/*.json`. The load before a run is the mean of the minute "
        "before it, mostly the run just before of the same benchmark; where it was another's, wall times say little, "
        "processor times more. What was not measured stands as not measured.", "",
    ]  # fmt: skip
    PAGE.write_text("\n".join([*head, *peer(), *usual(), *slow(), *overheads(), *growth()]).rstrip() + "\n")


if __name__ == "__main__":
    main()
