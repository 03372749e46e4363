"""Sections in, one page out: run them, keep their figures as JSON, write docs/validation.md from the JSON alone.

A section is a module of this package with ``NAME`` and ``run(*, full, work, seed) -> Result``; modules without both are
helpers.  The page holds nothing that changes between two runs with one seed, but for the line that names the machine.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import pkgutil
import platform
import re
import shutil
import sys
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path("benchmarks/results/validation.json")
PAGE = Path("docs/validation.md")
PLOTS = Path("docs/images/validation")
WORK = Path("results-validation")
ORDER = ("cells", "csc", "tam", "crosstalk")  # on the page; other sections follow by name
FILLED = (Path("docs/malignancy.md"),)
BLOCK = re.compile(
    r"(?P<head><!-- validation: (?P<what>claims|table) (?P<section>\w+): (?P<word>[^>]+?) -->).*?<!-- end -->",
    re.DOTALL,
)
HOLDS = {True: "yes", False: "**no**", None: "stated"}
NO_REAL_DATA = "not run: no real data"
PACKAGES = ("numpy", "scipy", "pandas", "anndata", "scanpy", "scikit-learn", "leidenalg", "infercnvpy")


@dataclass
class Claim:
    """One line of the page's first table; ``holds`` None: stated, not judged."""

    text: str
    measured: str
    target: str
    holds: bool | None


@dataclass
class Result:
    """What a section found.

    Attributes
    ----------
    figures : numbers by name, as they go to validation.json
    tables : (caption, table);  plots : (file stem, what the plot shows, figure);  notes : paragraphs, limits
    """

    name: str
    title: str
    question: str
    figures: dict[str, Any] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    tables: list[tuple[str, pd.DataFrame]] = field(default_factory=list)
    plots: list[tuple[str, str, Figure]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Section(Protocol):
    """A module that measures something."""

    NAME: str

    def run(self, *, full: bool, work: Path, seed: int) -> Result:
        """Measure; `work` is an empty folder of its own."""


def real_data() -> Path | None:
    """Folder of real data (``NICHELOOP_REAL_DATA``, else ``data/real``), None where there is none."""
    folder = Path(os.environ.get("NICHELOOP_REAL_DATA") or ROOT / "data" / "real")
    return folder if folder.is_dir() else None


def not_run(text: str, target: str, why: str = NO_REAL_DATA) -> Claim:
    """Claim that could not be judged."""
    return Claim(text, why, target, None)


def judge_rate(k: int, n: int, nominal: float, *, family: int = 1, side: str = "two-sided") -> tuple[float, bool]:
    """Exact binomial test of `k` in `n` against a nominal rate: fails at p < 0.001 after Bonferroni over `family`.

    Parameters
    ----------
    side
        "two-sided"; "greater" where only too high a rate is a fault (false positives); "less" (one-sided coverage).

    Returns
    -------
    p (times `family`, at most 1) and whether the rate agrees with the nominal one.
    """
    from scipy.stats import binomtest

    p = min(1.0, family * float(binomtest(k, n, nominal, alternative=side).pvalue)) if n else 1.0
    return p, p >= 0.001


def say(message: str) -> None:
    """Progress, on the terminal's error channel."""
    print(message, file=sys.stderr, flush=True)


def sections() -> dict[str, Section]:
    """Sections that exist, in page order."""
    found: dict[str, Section] = {}
    for info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if info.name.startswith("_") or info.name == "harness":
            continue
        module = importlib.import_module(f"benchmarks.validation.{info.name}")
        if hasattr(module, "NAME") and hasattr(module, "run"):
            found[module.NAME] = module  # type: ignore[assignment]
    return {name: found[name] for name in ordered(found)}


def ordered(names: Iterable[str]) -> list[str]:
    """Names in page order."""
    return sorted(names, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n))


def plain(value: Any) -> Any:
    """JSON-ready copy: numpy values become Python's, what is not a finite number becomes null."""
    import numpy as np
    import pandas as pd

    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | np.ndarray | pd.Series):
        return [plain(v) for v in (value.tolist() if isinstance(value, np.ndarray | pd.Series) else value)]
    if isinstance(value, np.generic):
        value = value.item()
    if value is pd.NA or value is pd.NaT or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value


def show(value: Any) -> str:
    """A value as text of a Markdown table."""
    if value is None:
        return "NA"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        size = abs(value)
        if value == 0 or size >= 100:
            return f"{value:.0f}"
        return f"{value:.2f}" if size >= 10 else f"{value:.3f}" if size >= 1e-3 else f"{value:.1e}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def markdown(table: Mapping[str, Any]) -> str:
    """Markdown of a stored table (``columns``, ``rows``); columns that hold only numbers are set right."""
    columns, rows = table["columns"], table["rows"]

    def right(j: int) -> bool:
        values = [r[j] for r in rows if r[j] is not None]
        return bool(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)

    lines = [
        "| " + " | ".join(show(c) for c in columns) + " |",
        "|" + "|".join("---:" if right(j) else "---" for j in range(len(columns))) + "|",
    ]
    lines += ["| " + " | ".join(show(v) for v in row) + " |" for row in rows]
    return "\n".join(lines)


def stamp(*, seed: int, full: bool, seconds: float) -> dict[str, Any]:
    """Where a section's figures come from: versions, seed, size of the machine; no date."""
    import nicheloop

    versions = {"nicheloop": nicheloop.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions, "seed": seed, "full": full, "seconds": round(seconds, 1),
        "machine": {"cores": os.cpu_count() or 1, "processor": platform.machine(), "system": platform.system()},
    }  # fmt: skip


def entry(result: Result, *, seed: int, full: bool) -> dict[str, Any]:
    """A section as it is kept in the JSON: everything the page needs."""
    out: dict[str, Any] = plain(
        {
            "title": result.title,
            "question": result.question,
            "figures": result.figures,
            "claims": [asdict(c) for c in result.claims],
            "tables": [
                {
                    "caption": caption,
                    "columns": [str(c) for c in t.columns],
                    "rows": t.astype(object).to_numpy().tolist(),
                }
                for caption, t in result.tables
            ],
            "plots": [{"file": plot_file(result.name, stem), "alt": alt} for stem, alt, _ in result.plots],
            "notes": result.notes,
            "stamp": stamp(seed=seed, full=full, seconds=result.seconds),
        }
    )
    return out


def plot_file(section: str, stem: str) -> str:
    """File name of a plot: begins with the section's name."""
    return f"{stem}.png" if stem.startswith(f"{section}_") else f"{section}_{stem}.png"


def write_plots(result: Result, folder: Path) -> None:
    """Write the section's plots and remove those it no longer makes."""
    from nicheloop import io

    folder.mkdir(parents=True, exist_ok=True)
    made = set()
    for stem, _, figure in result.plots:
        path = folder / plot_file(result.name, stem)
        with io.atomic(path) as temporary:
            # Without the name of the software the same figure gives the same bytes.
            figure.savefig(temporary, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
        made.add(path)
    for old in set(folder.glob(f"{result.name}_*.png")) - made:
        old.unlink()


def read_results(path: Path) -> dict[str, Any]:
    """Stored results; an empty set where the file does not exist."""
    if not path.exists():
        return {"sections": {}}
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return stored


def page(stored: Mapping[str, Any]) -> str:
    """docs/validation.md from the stored results, and from nothing else."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), undefined=StrictUndefined, autoescape=False,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"markdown": markdown, "show": show}
    entries = [{"name": name, **stored["sections"][name]} for name in ordered(stored["sections"])]
    images = os.path.relpath(PLOTS, PAGE.parent)
    return environment.get_template("page.md.j2").render(sections=entries, images=images)


def fill(text: str, stored: Mapping[str, Any]) -> str:
    """Put stored figures into a page of its own author, between ``<!-- validation: ... -->`` and ``<!-- end -->``.

    ``claims cells: malignan`` are the claims of a section whose text holds the word, ``table cells: Tumours made`` the
    tables whose caption begins so.  A section that has not been run changes nothing.
    """

    def block(found: re.Match[str]) -> str:
        what, name, word = found["what"], found["section"], found["word"]
        section = stored["sections"].get(name)
        if section is None:
            return found[0]
        if what == "claims":
            rows = [
                [c["text"], c["measured"], c["target"], HOLDS[c["holds"]]]
                for c in section["claims"]
                if word in c["text"]
            ]
            parts = [markdown({"columns": ["claim", "measured", "target", "holds"], "rows": rows})]
        else:
            found_tables = [t for t in section["tables"] if t["caption"].startswith(word)]
            parts = [f"**{t['caption']}**\n\n{markdown(t)}" for t in found_tables]
        return f"{found['head']}\n\n" + "\n\n".join(parts) + "\n\n<!-- end -->"

    return BLOCK.sub(block, text)


def write_page(root: Path) -> None:
    """Write the page from the stored results below `root`, and the blocks of other pages that show some of them."""
    from nicheloop import io

    stored = read_results(root / RESULTS)
    io.write_text(root / PAGE, page(stored))
    for path in (root / name for name in FILLED):
        if path.exists():
            io.write_text(path, fill(path.read_text(encoding="utf-8"), stored))


def merge(result: Result, root: Path, *, seed: int, full: bool) -> None:
    """Store a section's result beside those of the others, and write its plots and the page."""
    from nicheloop import io

    stored = read_results(root / RESULTS)
    stored["sections"][result.name] = entry(result, seed=seed, full=full)
    write_plots(result, root / PLOTS)
    io.write_json(root / RESULTS, stored)
    write_page(root)


def claims_text(result: Result) -> str:
    """The claims as lines of a terminal."""
    mark = {True: "holds", False: "FAILS", None: "-"}
    rows = [(c.text, c.measured, c.target, mark[c.holds]) for c in result.claims]
    head = [("claim", "measured", "target", ""), *rows]
    width = [max(len(r[j]) for r in head) for j in range(3)]
    lines = ["  ".join([*(r[j].ljust(width[j]) for j in range(3)), r[3]]).rstrip() for r in head]
    return "\n".join([f"\n{result.title} ({result.seconds:.0f} s)", *lines])


def main(argv: list[str] | None = None, *, root: Path = ROOT, available: Mapping[str, Section] | None = None) -> int:
    """Run sections and write the page.

    Returns
    -------
    0: all judged claims hold; 1: a claim fails; 2: a section stopped with an error (its stored entry stays).
    """
    import matplotlib

    matplotlib.use("Agg")
    known = sections() if available is None else available
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validation", description=__doc__)
    parser.add_argument("--section", action="append", choices=list(known), help="only these (default: all that exist)")
    parser.add_argument("--full", action="store_true", help="the long grids")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, default=root / WORK, help="folder for intermediate files, emptied first")
    parser.add_argument("--page-only", action="store_true", help="rebuild the page from the stored results")
    args = parser.parse_args(argv)
    if args.page_only:
        write_page(root)
        return 0
    code, finished = 0, []
    for name in args.section or known:
        say(f"validation: {name}")
        work = args.work / name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        start = time.monotonic()
        try:
            result = known[name].run(full=args.full, work=work, seed=args.seed)
        except Exception:
            traceback.print_exc()
            say(f"validation: {name} stopped; what is stored of it is from an earlier run")
            code = 2
            continue
        result.seconds = time.monotonic() - start
        merge(result, root, seed=args.seed, full=args.full)
        finished.append(result)
    for result in finished:
        print(claims_text(result))
    failed = [c for result in finished for c in result.claims if c.holds is False]
    print(f"\n{len(failed)} claim(s) fail. Page: {PAGE}, figures: {RESULTS}")
    return code or int(bool(failed))
