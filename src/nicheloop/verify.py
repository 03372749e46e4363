"""``nicheloop verify``: does a results folder still hold what its run wrote?  See docs/reliability.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nicheloop import __version__, io, provenance, recover, tables
from nicheloop.errors import NicheloopError, UserError


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was; a note does not make the check fail."""

    path: str
    words: str
    note: bool = False

    def __str__(self) -> str:
        return f"{'note' if self.note else 'DIFFERS'}: {self.path}: {self.words}"


def read_record(results: Path) -> dict[str, Any]:
    """Read ``provenance.json`` of a results folder.

    Raises
    ------
    UserError
        If it is not there or is not one of ours.
    """
    path = results / provenance.NAME
    try:
        record = io.read_json(path)
    except FileNotFoundError:
        raise UserError(
            f"{path}: not there. It is the last file of a run: let the run end (the same command continues it)."
        ) from None
    except (OSError, ValueError) as err:
        raise UserError(f"{path}: cannot be read ({err}). Run the workflow again to write it anew.") from None
    if not isinstance(record, dict) or not isinstance(record.get("outputs_sha256"), dict):
        raise UserError(f"{path}: holds no checksums of outputs. Run the workflow again with this version.")
    return record


def check_outputs(results: Path, recorded: dict[str, str]) -> list[Finding]:
    """Compare all files of a results folder with their recorded checksums."""
    found = []
    for name, checksum in sorted(recorded.items()):
        path = results / name
        if not path.is_file():
            found.append(Finding(name, "is not there any more"))
        elif io.sha256(path) != checksum:
            found.append(Finding(name, "its content changed since the run ended"))
    for name in provenance.recorded_files(results):
        if name not in recorded:
            found.append(Finding(name, "was not written by the run that ended here", note=True))
    for folder in sorted({results, *(p for p in results.rglob("*") if p.is_dir())}):
        for path in sorted(folder.glob(".*.tmp")):
            found.append(
                Finding(path.relative_to(results).as_posix(), "left by a job that was killed; remove it", note=True)
            )
    return found


def check_contracts(results: Path) -> list[Finding]:
    """Hold every table against its contract."""
    found = []
    for name, contract in tables.CONTRACTS.items():
        for path in sorted(results.glob(contract.path.replace("{sample}", "*"))):
            shown = path.relative_to(results).as_posix()
            try:
                tables.conform(io.read_table(path), name)
            except NicheloopError as err:
                found.append(Finding(shown, f"breaks the contract '{name}': {err}"))
            except Exception as err:  # a damaged file can raise anything its reader knows
                found.append(
                    Finding(shown, f"cannot be read ({str(err).splitlines()[0] if str(err) else type(err).__name__})")
                )
    return found


def check_inputs(inputs: dict[str, list[dict[str, Any]]]) -> list[Finding]:
    """Compare the files each sample was read from with their recorded checksums."""
    found = []
    for sample, files in inputs.items():
        for file in files:
            path = Path(file["path"])
            if not path.is_file():
                found.append(Finding(str(path), f"input of {sample}, cannot be checked: not there", note=True))
            elif io.sha256(path) != file["sha256"]:
                found.append(Finding(str(path), f"input of {sample}, its content changed since the run"))
    return found


def check_installation(record: dict[str, Any]) -> list[Finding]:
    """Notes on what a run with the present installation would use instead."""
    present = {"nicheloop": __version__, **provenance.versions()}
    past = {"nicheloop": record.get("nicheloop"), **record.get("packages", {})}
    found = [
        Finding(name, f"the run used version {past[name]}, installed is {present.get(name)}", note=True)
        for name in sorted(past)
        if past[name] != present.get(name)
    ]
    shipped, used = provenance.resources(), record.get("resources_sha256", {})
    return found + [
        Finding(f"resources/{name}", "differs from what the run used", note=True)
        for name in sorted({*shipped, *used})
        if shipped.get(name) != used.get(name)
    ]


def check_failed(results: Path) -> list[Finding]:
    """Notes on samples that were recorded as failed."""
    path = results / recover.RECORD
    entries = io.read_json(path) if path.exists() else []
    return [Finding(f"samples/{e['sample']}", f"failed at {e['rule']}: {e['reason']}", note=True) for e in entries]


def verify(results: str | Path) -> tuple[list[Finding], int]:
    """Check a results folder against its ``provenance.json``.

    Returns
    -------
    tuple
        What is not as it was, and the number of files whose checksum was compared.

    Raises
    ------
    UserError
        If the folder holds no record to check against.
    """
    results = Path(results)
    record = read_record(results)
    recorded = record["outputs_sha256"]
    found = [
        *check_outputs(results, recorded),
        *check_contracts(results),
        *check_inputs(record.get("inputs", {})),
        *check_failed(results),
        *check_installation(record),
    ]
    return found, len(recorded)


def run_verify(results: str | Path) -> int:
    """Print what differs; returns 0 if nothing does, else 1.  Notes do not count."""
    found, n_files = verify(results)
    for finding in sorted(found, key=lambda f: (f.note, f.path)):
        print(re.sub(r"\s+", " ", str(finding)))
    bad = sum(not f.note for f in found)
    notes = f" ({len(found) - bad} notes above)" if len(found) > bad else ""
    if bad:
        print(f"{bad} of the checks failed{notes}. The results are not what the run wrote; run it again to renew them.")
    else:
        print(f"{n_files} files and their contracts are as the run wrote them{notes}.")
    return int(bad > 0)
