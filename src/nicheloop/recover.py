"""Closing a run in which a job was killed: the sample is recorded as failed, the rest go on.  See docs/reliability.md.

A sample whose *data* cannot be used ends its stages with success and a status.  A job that was killed from outside (no
memory, a node that went down) leaves nothing; after its last retry its tables are written here, empty and with the
status ``failed``, so that the cohort stages and the report name the sample and use the rest.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nicheloop import io, tables
from nicheloop.errors import UserError

RECORD = "failed.json"  # below the results folder
STATUS = "failed"
ERROR = re.compile(r"\s*Error in rule \w+:|\s+jobs:$")  # the second opens the list of a failed group
RULE = re.compile(r"\s*(?:Error in )?rule (\w+):")
OUTPUT = re.compile(r"\s+output: (.+)")
LOG = re.compile(r"\s+log: (.+?)(?: \(check log file|$)")
SAMPLE = re.compile(r"(?:^|/)samples/([^/]+)/([^/]+)$")
KILLED = "the job was killed from outside or stopped with an error that is not in the data"


@dataclass(frozen=True)
class Failure:
    """A rule that failed for a sample (None: for the cohort) and the files it should have written."""

    rule: str
    sample: str | None
    files: tuple[str, ...]
    log: str | None = None


def failures(text: str) -> list[Failure]:
    """Jobs a Snakemake log calls failed, each once, in order; the jobs of a failed group one by one."""
    found: dict[tuple[str, ...], Failure] = {}
    inside, rule, files = False, "", ()
    for line in text.splitlines():
        if ERROR.match(line):
            inside = True
        if not inside:
            continue
        if match := RULE.match(line):
            rule, files = match[1], ()
        elif rule and (match := OUTPUT.match(line)):
            files = tuple(match[1].split(", "))
            names = {match[1] for match in map(SAMPLE.search, files) if match}
            sample = names.pop() if len(names) == 1 else None
            found.setdefault(files, Failure(rule, sample, files))
        elif files and (match := LOG.match(line)):
            old = found[files]
            found[files] = Failure(old.rule, old.sample, files, match[1])
        elif not line.strip() and not line.startswith(" "):
            inside, rule, files = False, "", ()
    return list(found.values())


def contract_of(path: str) -> str | None:
    """Contract of a table below a results folder; None where it has none."""
    for name, contract in tables.CONTRACTS.items():
        if "{sample}" in contract.path and Path(contract.path).name == Path(path).name:
            return name
    return None


def reason_of(failure: Failure, folder: Path) -> str:
    """Last message of the failed job's log, or that it was killed without one."""
    if failure.log:
        try:
            lines = (folder / failure.log).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        said = [line for line in lines if line.startswith("nicheloop: ")] or [
            line for line in lines if re.match(r"\w*(Error|Exception)\b", line)
        ]
        if said:
            return said[-1].removeprefix("nicheloop: ")[:300]
    return f"{KILLED}, most often for want of memory"


def write_failed(failure: Failure, results: Path, row: dict[str, Any], reason: str) -> list[Path]:
    """Write the missing files of a failed job of one sample: empty, contract-valid, status ``failed``.

    Raises
    ------
    UserError
        If one of the files is none that can be replaced by an empty one.
    """
    assert failure.sample is not None
    folder = results / "samples" / failure.sample
    # Snakemake counts it among the outputs: one of an earlier run would make the files written here look outdated.
    (results / "benchmarks" / failure.rule.replace("_", "-") / f"{failure.sample}.tsv").unlink(missing_ok=True)
    names = [Path(f).name for f in failure.files if not (folder / Path(f).name).exists()]
    written = []
    for name in names:
        path = folder / name
        if name in ("counts.h5ad", "ingest.json"):
            _write_counts(path, row, reason)
        elif contract := contract_of(name):
            io.write_table(
                tables.empty(contract), path, contract, io.Status(failure.rule, failure.sample, STATUS, reason)
            )
        elif name == "inputs.json":
            io.write_json(path, {"files": []})
        else:
            raise UserError(f"{path}: {failure.rule} of sample {failure.sample} failed, and nothing can stand for it.")
        written.append(path)
    return written


def _write_counts(path: Path, row: dict[str, Any], reason: str) -> None:
    from nicheloop import ingest

    record = ingest.base_record(row) | {"status": STATUS, "reason": reason}
    if path.suffix == ".json":
        io.write_json(path, record)
    else:
        ingest.write_counts(path, None, [], record)


def next_in_line(found: Sequence[Failure]) -> Iterator[Failure]:
    """One failure per sample: the first job of its chain whose files are missing; later ones follow from it."""
    seen: set[str] = set()
    for failure in found:
        if (
            failure.sample is not None
            and failure.sample not in seen
            and not all(Path(f).exists() for f in failure.files)
        ):
            seen.add(failure.sample)
            yield failure


def remember(results: Path, failure: Failure, reason: str, written: Sequence[Path]) -> None:
    """Add to ``failed.json`` what was recorded, so that the next run tries it again."""
    path = results / RECORD
    entries = io.read_json(path) if path.exists() else []
    entry = asdict(failure) | {"reason": reason, "files": [p.relative_to(results).as_posix() for p in written]}
    io.write_json(path, [e for e in entries if (e["sample"], e["rule"]) != (failure.sample, failure.rule)] + [entry])


def pending(results: Path, samples: Collection[str]) -> tuple[list[str], list[str]]:
    """What an earlier run recorded as failed of these samples: ``sample: rule`` of each, and the files to make again.

    The files stay until they are made again: a run that is killed before that leaves the record as it was.
    """
    path = results / RECORD
    entries = [e for e in io.read_json(path) if e["sample"] in samples] if path.exists() else []
    return [f"{e['sample']}: {e['rule']}" for e in entries], [str(results / f) for e in entries for f in e["files"]]


def settle(results: Path) -> None:
    """Take out of ``failed.json`` what was made again since."""
    path = results / RECORD
    if not path.exists():
        return
    entries = io.read_json(path)
    kept = [e for e in entries if not all(_made(results / name) for name in e["files"])]
    if kept:
        io.write_json(path, kept)
    else:
        path.unlink()


def _made(path: Path) -> bool:
    """Whether a file stands there and is not one of those written in place of a failed job's."""
    if not path.exists():
        return False
    if path.suffix == ".parquet":
        return io.read_status(path).status != STATUS
    return path.name != "ingest.json" or io.read_json(path)["status"] != STATUS


def newest_log(folder: Path) -> str:
    """Text of the newest Snakemake log below ``.snakemake`` of a folder; empty without one."""
    logs = sorted((folder / ".snakemake" / "log").glob("*.snakemake.log"), key=lambda p: p.stat().st_mtime_ns)
    return logs[-1].read_text(encoding="utf-8", errors="replace") if logs else ""
