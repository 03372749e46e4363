"""What every stage could and could not do: the statuses all tables carry, gathered.  See docs/report.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nicheloop import io, tables
from nicheloop.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

GOOD = ("ok", "tested", "assessable")
GATHERED = ("status", "samples", "composition")  # written here: they report on the others


def sample_row(record: dict[str, Any]) -> dict[str, str | None]:
    """One row of `cohort/samples.tsv` from an ingest record.

    Nested entries become columns of their own: feature guards as ``guard_<gene>``, further sheet columns under their
    own name (with ``sheet_`` before it where the name is taken).  All values are text; an empty one is NA (unknown).
    """
    row: dict[str, Any] = {"sample": record["sample"], "patient": record.get("patient") or record["sample"]}
    row.update({k: v for k, v in record.items() if k not in ("sample", "patient", "guards", "extra")})
    row.update({f"guard_{gene}": found for gene, found in (record.get("guards") or {}).items()})
    for key, value in (record.get("extra") or {}).items():
        row[f"sheet_{key}" if key in row else key] = value
    return {key: None if value is None or value == "" else _text(value) for key, value in row.items()}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else str(value)


def summarise(statuses: list[str], what: str = "rows") -> tuple[str, str]:
    """Status and reason of a table whose rows have their own statuses: ok if any row is, else the commonest obstacle.

    Ties go to the first name in the alphabet, so that the order of rows does not matter.
    """
    if not statuses:
        return "no_rows", f"the table holds no {what}"
    counts: dict[str, int] = {}
    for name in sorted(statuses):
        counts[name] = counts.get(name, 0) + 1
    ranked = sorted(counts.items(), key=lambda kv: (-kv[1], kv[0]))
    words = ", ".join(f"{n} {name}" for name, n in ranked)
    if any(name in GOOD for name in counts):
        return "ok", f"{what}: {words}"
    return ranked[0][0], f"{what}: {words}"


def composition_table(cell_types: pd.DataFrame, malignancy: pd.Series, patients: dict[str, str]) -> pd.DataFrame:
    """Cells per sample and type, epithelial cells split by malignancy (contract ``composition``).

    Parameters
    ----------
    cell_types
        (cells,) rows with ``cell_id``, ``sample`` and ``cell_type``.
    malignancy
        Call indexed by cell id; cells without one stay ``epithelial``.
    patients
        Patient of every sample; a sample without cells has no row.
    """
    import pandas as pd

    frame = cell_types[["cell_id", "sample", "cell_type"]].copy()
    call = malignancy.reindex(frame["cell_id"]).to_numpy(dtype=object)
    call = pd.Series(call, index=frame.index)
    called = (frame["cell_type"] == "epithelial") & call.isin(["malignant", "normal", "unassigned"])
    known = (called | (call == "malignant")).to_numpy()  # assumed malignant cells may look like another type
    frame.loc[known, "cell_type"] = [f"epithelial_{c}" for c in call[known]]
    counts = frame.groupby(["sample", "cell_type"], sort=True).size().rename("n_cells").reset_index()
    counts["fraction"] = counts["n_cells"] / counts.groupby("sample")["n_cells"].transform("sum")
    counts.insert(0, "patient", [patients.get(s, s) for s in counts["sample"]])
    return counts


def table_statuses(results: Path, sample: str) -> list[io.Status]:
    """Status of each stage of a sample (or of ``cohort``) by the order of contracts; the first that is not ok wins."""
    found: dict[str, io.Status] = {}
    for name, contract in tables.CONTRACTS.items():
        if name in GATHERED or (sample == "cohort") == ("{sample}" in contract.path):
            continue
        path = results / contract.path.format(sample=sample)
        if path.suffix == ".tsv":
            continue  # gathered tables carry a status in every row; some are written after this stage
        if contract.optional and not path.exists():
            continue
        if not path.exists():
            value = io.Status(name, sample, "not_run", f"{path.name} was not written")
        else:
            read = io.read_status(path)
            value = io.Status(read.stage or name, sample, read.status, read.reason, read.summary)
        earlier = found.get(value.stage)
        if earlier is None:
            found[value.stage] = value
        else:
            worse = earlier if not earlier.ok else value
            found[value.stage] = io.Status(
                value.stage, sample, worse.status, worse.reason, {**value.summary, **earlier.summary}
            )
    return list(found.values())


def ingest_status(record: dict[str, Any] | None, sample: str) -> io.Status:
    """Status of ingest from its record; None where there is no record."""
    if record is None:
        return io.Status("ingest", sample, "not_run", "ingest.json was not written")
    figures = {k: record.get(k) for k in ("n_cells", "n_features", "n_genes", "n_unresolved", "is_counts")}
    return io.Status("ingest", sample, str(record["status"]), str(record.get("reason") or ""), figures)


NEEDED = ("ingest", "qc")  # a sample that fails here cannot be processed; later statuses are findings


def _refuse(sample: str, stage: str, status: str, reason: str) -> str:
    return (
        f"strict: sample {sample} cannot be processed ({stage}: {status}): {reason} Mend it, take it out of the sample "
        "sheet, or set 'strict: false' to go on without it."
    )


def require_ok(path: Path) -> None:
    """Raise `UserError` if the record (ingest.json) or table of a sample says that it cannot be processed."""
    if path.suffix == ".json":
        found = ingest_status(io.read_json(path), str(io.read_json(path)["sample"]))
    else:
        found = io.read_status(path)
    if not found.ok:
        raise UserError(_refuse(found.sample, found.stage, found.status, found.reason))


def run_status(results: str | Path, samples: list[str], out: str | Path, *, strict: bool = False) -> None:
    """Gather the statuses of all stages and samples.

    Writes the tables ``status`` (to `out`), ``samples`` and ``composition`` beside it, and ``samples/<s>/status.json``.
    A table that is not there is the status ``not_run``, never an error.

    Raises
    ------
    UserError
        With `strict`, naming every sample whose counts could not be read or of which no cell was kept.
    """
    import pandas as pd

    results, out = Path(results), Path(out)
    rows: list[io.Status] = []
    sheet: list[dict[str, str | None]] = []
    calls: list[pd.Series] = []
    for sample in samples:
        folder = results / "samples" / sample
        path = folder / "ingest.json"
        record = io.read_json(path) if path.exists() else None
        mine = [ingest_status(record, sample), *table_statuses(results, sample)]
        sheet.append(
            sample_row(record or {"sample": sample, "status": "not_run", "reason": "ingest.json was not written"})
        )
        if (folder / "malignancy.parquet").exists():
            calls.append(
                io.read_table(folder / "malignancy.parquet", ["cell_id", "malignancy"]).set_index("cell_id")[
                    "malignancy"
                ]
            )
        io.write_json(
            folder / "status.json",
            {
                "sample": sample,
                "stages": {
                    s.stage: {"status": s.status, "reason": s.reason, "summary": io._plain(s.summary)} for s in mine
                },
            },
        )
        rows += mine
    rows += table_statuses(results, "cohort")
    if strict and (bad := [s for s in rows if s.stage in NEEDED and not s.ok]):
        first = {s.sample: s for s in reversed(bad)}
        raise UserError([_refuse(s.sample, s.stage, s.status, s.reason) for s in reversed(first.values())])
    frame = pd.DataFrame(
        [(s.stage, s.sample, s.status, s.reason, json.dumps(io._plain(s.summary), sort_keys=True)) for s in rows],
        columns=["stage", "sample", "status", "reason", "summary"],
    )
    patients = {str(r["sample"]): str(r["patient"]) for r in sheet}
    composition = tables.empty("composition")
    path = results / tables.CONTRACTS["cell_types"].path
    if path.exists() and len(types := io.read_table(path, ["cell_id", "sample", "cell_type"])):
        call = pd.concat(calls) if calls else pd.Series(dtype=object)
        composition = composition_table(types, call, patients)
    io.write_table(composition, out.parent / "composition.tsv", "composition")
    io.write_table(pd.DataFrame(sheet), out.parent / "samples.tsv", "samples")
    io.write_table(frame, out, "status")
