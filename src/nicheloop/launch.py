"""``nicheloop run``: from paths to a finished report, through the same Snakemake workflow as everything else."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nicheloop import datasets, inputs, io, recover, sheet, workflow
from nicheloop.config import Config, read_config
from nicheloop.errors import UserError

PACKAGE = Path(__file__).parent
SHEET_ENDINGS = (".tsv", ".csv", ".txt")
YAML = re.compile(r": |:$| #")  # Snakemake reads the values of --config as YAML
# What Snakemake says while all goes well.
FINISHED = re.compile(r"Finished jobid: \d+ \(Rule: (\w+)\)")
STEP = re.compile(r"\d+ of \d+ steps \(\d+%\) done")
ROUTINE = re.compile(
    r"\s*$|Select jobs to execute|Execute \d+ jobs|\[\w{3} \w{3} +\d+ [\d:]+ \d{4}\]$|Using shell|Provided cores"
    r"|Rules claiming|Conda environments: ignored|Assuming unrestricted|Building DAG|Using workflow specific profile"
    r"|Job stats:|job +count$|-+ +-+$|\w+ +\d+$|Complete log|Elapsed time|Shutting down|Exiting because"
    r"|(RuleException|WorkflowError):$|CalledProcessError in file|At least one job did not complete"
    r"|(local)?rule \w+:$|Logfile |=====|Job \d+: |Reason: |        "
    r"|    (message|jobid|input|output|log|reason|resources|wildcards|shell|benchmark|params|threads|group|conda-env):"
)
FAILED = re.compile(r"""Command (['"]).* 2> (.+)\1 returned non-zero exit status""")
SHOWN = 20  # samples listed one by one


def workflow_folder() -> Path:
    """Folder holding the Snakefile: inside the installed package, or the repository root."""
    for folder in (PACKAGE / "pipeline", PACKAGE.parents[1]):
        if (folder / "Snakefile").is_file():
            return folder
    raise UserError("the workflow (Snakefile) was not found beside the package; reinstall nicheloop.")


def is_sheet(path: Path) -> bool:
    """Whether a file is meant as a sample sheet: a text table whose header names 'path', or 'sample' above text."""
    return path.is_file() and path.suffix.lower() in SHEET_ENDINGS and sheet.looks_like_sheet(path)


def sheet_for(paths: Sequence[str], out: Path) -> str:
    """Value of ``samples`` for these paths; writes ``samples.tsv`` into `out` where the paths are data."""
    if list(paths) in ([], ["demo"]):
        return "demo"
    sheets = [p for p in paths if is_sheet(inputs.absolute(p))]
    if sheets and len(paths) > 1:
        raise UserError(f"{sheets[0]}: a sample sheet stands alone. Add the other samples to it as lines.")
    if sheets:
        path = inputs.absolute(sheets[0])
        sheet.read_sheet(path)
        if YAML.search(str(path.resolve())):
            raise UserError(f"{path}: ': ' or ' #' in the path of a sheet cannot be used by the workflow. Rename it.")
        return str(path.resolve())
    rows = sheet.sheet_from_paths(paths)
    text = "sample\tpath\n" + "".join(f"{r['sample']}\t{r['path']}\n" for r in rows)
    written = out / "samples.tsv"
    if not written.is_file() or written.read_text(encoding="utf-8") != text:
        io.write_text(written, text)
    return str(written)


@dataclass
class Survey:
    """What the heads of the samples' files show.

    Attributes
    ----------
    good : name, format and file of each sample that is recognised
    bad : one message for each whose data cannot be used: the run reports it and goes on
    blocked : one message for each whose files cannot be read now (permissions, a failing disk): its job would fail
    """

    good: list[tuple[str, ...]] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)


def survey(rows: Sequence[dict[str, Any]]) -> Survey:
    """Look at the head of every sample's files."""
    from nicheloop import readers

    seen = Survey()
    for row in rows:
        if row.get("source"):
            seen.good.append((str(row["sample"]), str(row["path"])))
            continue
        try:
            fmt, source = readers.glance(row["path"], row["format"])
            seen.good.append((str(row["sample"]), fmt, str(source)))
        except UserError as err:
            group = seen.bad if isinstance(err, inputs.DataError) else seen.blocked
            group.append(f"sample {row['sample']}: {' '.join(err.messages)}")
    return seen


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines in which all but the last words stand in columns."""
    widths = [max(len(w) for w in column) for column in itertools.zip_longest(*rows, fillvalue="")]
    return ["  ".join([*(f"{w:<{n}}" for w, n in zip(r[:-1], widths, strict=False)), r[-1]]) for r in rows]


def _announce(rows: Sequence[dict[str, Any]], *, keep_going: bool) -> None:
    seen = survey(rows)
    if not seen.good:
        raise UserError([*seen.bad, *seen.blocked, "no sample can be used; nothing was started."])
    if seen.blocked and not keep_going:
        raise UserError([*seen.blocked, "nothing was started. Mend this, or add --keep-going to go on without."])
    for line in aligned(seen.good[:SHOWN]):
        print(f"  {line}")
    if len(seen.good) > SHOWN:
        print(f"  ... and {len(seen.good) - SHOWN} more")
    for line in [*seen.bad, *seen.blocked]:
        print(f"nicheloop: {line}\n  The run goes on without it.", file=sys.stderr)
    sys.stdout.flush()


def named(words: Sequence[str], catalogue: str) -> tuple[list[str], list[str]]:
    """Split the words of the command line into data sets of the catalogue and paths; what is there is a path."""
    known = datasets.catalogue(catalogue or None)
    chosen = [w for w in words if datasets.looks_chosen(w, known) and not inputs.absolute(w).exists()]
    return chosen, [w for w in words if w not in chosen]


def fetch_all(rows: Sequence[dict[str, Any]], options: Any) -> None:
    """Fetch the files of these rows before any job starts, where the terminal can show it; the jobs then find them.

    Raises
    ------
    UserError
        If a file cannot be had.
    """
    files = datasets.downloads(rows)
    if not files:
        return
    from nicheloop import download

    print(f"{len(files)} file{'s' if len(files) > 1 else ''} from {', '.join(dict.fromkeys(d for d, _ in files))}; "
          f"cache: {download.cache_folder(options)}", flush=True)  # fmt: skip
    for (dataset, name), file in files.items():
        remote = download.Remote(dataset=dataset, **file)
        receipt = download.fetch(remote, options, progress=sys.stderr.isatty())
        print(f"  {name}  {receipt['size'] / 1e6:,.1f} MB  sha256 {receipt['sha256'][:12]}...", flush=True)


def _facts(out: Path) -> list[str]:
    """Pass or differ, for each fact stated of the data sets used."""
    path = out / "cohort" / "facts.tsv"
    if not path.is_file():
        return []
    from nicheloop import facts

    return facts.lines(io.read_table(path))


def _aftermath(out: Path, rows: Sequence[dict[str, Any]]) -> list[str]:
    """What a user should know of the samples once they were read: those not used, and warnings."""
    from nicheloop.readers import ORIENTATIONS

    lines: list[str] = []
    for row in rows:
        path = out / "samples" / row["sample"] / "ingest.json"
        record = io.read_json(path) if path.exists() else {}
        if record.get("status", "ok") != "ok":
            lines.append(f"sample {row['sample']} was not used ({record['status']}): {record['reason']}")
        lines += [f"sample {row['sample']}: {w}." for w in record.get("warnings", []) if w not in ORIENTATIONS]
    return lines


def _prepare_folder(out: Path) -> None:
    if sheet.UNUSABLE.search(str(out)) or YAML.search(str(out)):
        raise UserError(
            f"{str(out)!r} has a curly bracket, tab, line break, ': ' or ' #' in it, which the workflow cannot use. "
            "Choose another --out."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise UserError(f"{out}: cannot be created ({err.strerror}). Choose another --out.") from None
    try:
        io.write_text(out / ".writable", "")
        (out / ".writable").unlink()
    except OSError as err:
        raise UserError(f"{out}: cannot be written to ({err.strerror}). Choose another --out.") from None


def _cause(log: str) -> str | None:
    """Give the last words of a failed job's log and its path, here quoted for the shell; None if it is not there."""
    try:
        path = Path(*shlex.split(log))
        lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except (OSError, ValueError, TypeError):
        return None
    ours = [line for line in lines if line.startswith("nicheloop: ")] or lines[-1:]
    return "\n".join(
        [f"nicheloop: step {str(path.with_suffix('')).rpartition('/logs/')[2]} failed:", *ours, f"  {path}"]
    )


class Steps:
    """What is done so far: a line each, or on a terminal one that is written over."""

    def __init__(self) -> None:
        self.over = sys.stdout.isatty()
        self.open = False

    def show(self, line: str) -> None:
        print(f"\r\033[K{line}" if self.over else line, end="" if self.over else "\n", flush=True)
        self.open = self.over

    def close(self) -> None:
        """End the line, so that something else can be said."""
        if self.open:
            print(flush=True)
        self.open = False


def _follow(command: Sequence[str], environment: dict[str, str], *, quiet: bool, keep: tuple[int, ...] = ()) -> int:
    """Run Snakemake and pass on what it says, with the cause of each failed step.

    With `quiet`: one line per step (on a terminal one line in all, which grows), and all that is not routine; else
    everything.
    """
    steps = Steps()
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace", pass_fds=keep
    )
    assert process.stderr is not None
    rule = ""
    try:
        for line in process.stderr:
            if failed := FAILED.match(line):
                steps.close()
                print(_cause(failed[2]) or line.rstrip(), file=sys.stderr, flush=True)
            elif not quiet:
                print(line, end="", file=sys.stderr, flush=True)
            elif finished := FINISHED.match(line):
                rule = finished[1]
            elif STEP.match(line):
                steps.show(f"  {line.rstrip()}: {rule}")
            elif not ROUTINE.match(line):
                steps.close()
                print(line, end="", file=sys.stderr, flush=True)
    except KeyboardInterrupt:  # Snakemake was told as well: let it end its jobs
        process.communicate()
        raise
    finally:
        steps.close()
    return process.wait()


@contextlib.contextmanager
def only_run(out: Path) -> Iterator[tuple[int, ...]]:
    """Hold the results folder for this run; yields file descriptors that Snakemake inherits.

    The lock ends with the last process that holds it, however it ends.  So a lock of Snakemake's own that is found
    while this one is free was left by a run that was killed, and is removed.

    Raises
    ------
    UserError
        If another run works in the folder.
    """
    with open(out / ".nicheloop.lock", "a", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{out}: another run works in this folder. Wait for it or stop it, or choose another --out."
            ) from None
        except OSError:  # a file system without locks: Snakemake's own lock must do
            yield ()
            return
        for path in (out / ".snakemake" / "locks").glob("*"):
            path.unlink(missing_ok=True)
        yield (handle.fileno(),)


def _close(out: Path, rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Record the failed jobs of the last run: files written in their place, and a line for each."""
    written: list[str] = []
    lines: list[str] = []
    row_of = {row["sample"]: row for row in rows}
    for failure in recover.next_in_line(recover.failures(recover.newest_log(out))):
        reason = recover.reason_of(failure, out)
        row = workflow.complete(row_of.get(str(failure.sample), {"sample": failure.sample}))
        files = recover.write_failed(failure, out, row, reason)
        recover.remember(out, failure, reason, files)
        written += [str(f) for f in files]
        lines.append(f"sample {failure.sample} is recorded as failed at {failure.rule}: {reason}")
    return written, lines


def _with(command: Sequence[str], flags: Sequence[str]) -> list[str]:
    cut = list(command).index("--config")
    return [*command[:cut], *flags, *command[cut:]]


def _keep_going(
    command: Sequence[str], again: Sequence[str], follow: Callable[[Sequence[str]], int], out: Path, rows: Sequence[Any]
) -> int:
    """Run, record what failed as failed, and run again on the rest, until the report stands or nothing more helps.

    `again` are the flags by which the first run alone tries what failed earlier.
    """
    seen: set[str] = set()
    code = follow(_with(command, again))
    while code == 1:
        written, lines = _close(out, rows)
        for line in lines:
            print(f"nicheloop: {line}", file=sys.stderr, flush=True)
        if seen.issuperset(written):  # nothing, or what was recorded already and was tried again all the same
            return code
        seen.update(written)
        # What Snakemake remembers of these files is of an earlier run.
        cut = command.index("--cores")
        follow([*command[:cut], "--cores", "1", "--cleanup-metadata", *written, *command[command.index("--config") :]])
        code = follow(command)
    return code


def plan_lines(said: str) -> list[str]:
    """Shorten what Snakemake says of a dry run: the steps by how often they would run; none: all is up to date."""
    table = said.partition("\nReasons:")[0].rpartition("Job stats:")[2]  # it stands there twice
    found = [(m[1], int(m[2])) for m in re.finditer(r"^(\w+) +(\d+)$", table, re.MULTILINE)]
    steps: dict[int, list[str]] = {}
    for rule, n in found:
        if rule not in ("total", "all"):
            steps.setdefault(n, []).append(rule)
    if not steps:
        return []
    lines = [f"{sum(n * len(rules) for n, rules in steps.items())} jobs would run:"]
    for n, rules in sorted(steps.items(), reverse=True):
        head = f"  {n:>4} x  "
        lines += textwrap.wrap(", ".join(rules), 100, initial_indent=head, subsequent_indent=" " * len(head))
    return lines


def _plan(command: Sequence[str], environment: dict[str, str]) -> int:
    """Print what would run."""
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr + done.stdout, file=sys.stderr)
        raise UserError("the workflow cannot be planned; see above.")
    lines = plan_lines(done.stdout)
    print("\n" + "\n".join(lines or ["Everything is up to date: nothing would run."]))
    if lines:
        print("\nNothing was run. Heads of files were looked at; a sample's values only count in the run itself.")
    return 0


def run(
    paths: Sequence[str],
    out: Path,
    *,
    cores: int,
    config: str | None,
    dry_run: bool,
    snakemake: Sequence[str] = (),
    keep_going: bool = False,
) -> int:
    """Write the sheet and run the workflow; returns Snakemake's exit code.

    With `keep_going` a sample whose job was killed or broke is recorded as failed (`recover`), and the report is built
    from the others; the next run tries it again.

    Raises
    ------
    UserError
        For a missing path, a wrong configuration, or samples of which none can be used, before anything starts.
    """
    if cores < 1:
        raise UserError(f"--cores {cores}: at least 1 core is needed.")
    out = inputs.absolute(out)
    folder = workflow_folder()
    configfile = inputs.absolute(config) if config else folder / "config.yaml"
    try:
        settings = read_config(configfile)
        strict = settings.strict
    except (OSError, UnicodeError) as err:
        raise UserError(f"{configfile}: cannot be read as a YAML text file ({err}). Check --config.") from None
    if strict and keep_going:
        raise UserError(
            f"{configfile}: 'strict: true' stops at the first bad sample; leave out --keep-going or set it to false."
        )
    _prepare_folder(out)
    catalogue = settings.download.catalogue
    if catalogue:  # Snakemake works in another folder
        catalogue = str(configfile.parent / Path(catalogue).expanduser())
        settings = settings.model_copy(
            update={"download": settings.download.model_copy(update={"catalogue": catalogue})}
        )
    with only_run(out) as keep:
        return _run_held(
            paths, out, settings, keep, configfile=configfile, catalogue=catalogue, cores=cores, dry_run=dry_run,
            snakemake=snakemake, keep_going=keep_going,
        )  # fmt: skip


def _run_held(
    paths: Sequence[str],
    out: Path,
    settings: Config,
    keep: tuple[int, ...],
    *,
    configfile: Path,
    catalogue: str,
    cores: int,
    dry_run: bool,
    snakemake: Sequence[str],
    keep_going: bool,
) -> int:
    """Do what `run` does once the results folder is held: nothing in it was touched before."""
    folder = workflow_folder()
    chosen, files = named(paths, catalogue)
    dataset = ",".join([settings.dataset] * bool(settings.dataset) + chosen)
    samples = sheet_for(files, out)
    all_rows = workflow.prepare({**settings.model_dump(), "samples": samples, "dataset": dataset})[1]
    rows = [] if samples == "demo" and not dataset else all_rows
    if rows:
        print(f"{len(rows)} sample{'s' if len(rows) > 1 else ''}, results in {out}")
        _announce(rows, keep_going=keep_going)
        if not dry_run:
            fetch_all(rows, settings.download)
    quiet = ["host"] if keep_going and not dry_run else ["rules", "host"]  # 'rules' hides which job failed
    flags = [*(["--dry-run"] if dry_run else []), *(["--keep-going"] if keep_going else [])]
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(folder / "Snakefile"), "--directory", str(out),
        "--configfile", str(configfile), "--cores", str(cores), "--rerun-incomplete", "--show-failed-logs",
        "--scheduler", "greedy", "--quiet", *quiet, *flags, *snakemake,
        "--config", f"samples={samples}", f"results={out}",
        *([f"dataset={json.dumps(dataset)}"] if dataset else []),
        *([f"download={json.dumps({'catalogue': catalogue})}"] if catalogue else []),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])}
    failed, files = recover.pending(out, {row["sample"] for row in all_rows})
    again = ["--forcerun", *files] if files else []
    if dry_run and not snakemake:
        return _plan(_with(command, again), environment)
    follow = functools.partial(_follow, environment=environment, quiet=not snakemake, keep=keep)
    for line in failed:
        print(f"nicheloop: {line} failed in the last run and is tried again.", file=sys.stderr)
    if keep_going and not dry_run:
        code = _keep_going(command, again, follow, out, all_rows)
    else:
        code = follow(_with(command, again))
    recover.settle(out)
    for line in _aftermath(out, rows):
        print(f"nicheloop: {line}", file=sys.stderr)
    for line in [] if dry_run else _facts(out):
        print(f"  {line}")
    if code == 0 and not dry_run and (out / "report.html").is_file():
        print(f"\nThe report is ready: {out / 'report.html'}")
    if code:
        print(
            f"\nnicheloop: the workflow stopped (exit code {code}). What was done is kept: mend the cause named above "
            f"(logs: {out / 'logs'}) and give the same command again, or add --keep-going to go on without the samples "
            "that failed.",
            file=sys.stderr,
        )
    return code
