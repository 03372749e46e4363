"""Public data by name, through snakemake and `nicheloop run`, from a server on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

import mini_geo
from http_server import Server, running
from matrix_files import CELLS, GENES, X, features_of, tenx_h5, triplet
from nicheloop import datasets, io
from repository import Repository, copy_repository

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("public data")]
RUNNABLE = [n for n, d in datasets.shipped().items() if d.status == "runnable"]


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as it:
        yield it


def test_a_dry_run_off_line_shows_every_job_of_every_data_set(repository: Repository, tmp_path: Path) -> None:
    """No cache, no network: the sample list is known from the catalogue."""
    off = f"download={json.dumps({'offline': True, 'cache': str(tmp_path / 'none')})}"
    jobs = repository.planned("--config", f"dataset={','.join(RUNNABLE)}", f"results={tmp_path / 'out'}", off)
    rows = datasets.rows(",".join(RUNNABLE))
    assert jobs["ingest"] == jobs["qc"] == jobs["csc"] == len(rows) == 172
    assert jobs["download"] == len(datasets.downloads(rows)) == 9
    assert "simulate" not in jobs
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_fetched_is_named_with_the_command_that_goes_on(repository: Repository, tmp_path: Path) -> None:
    """Data sets beside a sheet: both stand in the command."""
    own = triplet(tmp_path / "own", X, features_of(GENES), CELLS)
    (tmp_path / "s.tsv").write_text(f"sample\tpath\nmine\t{own}\n")
    off = f"download={json.dumps({'offline': True, 'cache': str(tmp_path / 'none')})}"
    arguments = ["--config", f"samples={tmp_path / 's.tsv'}", "dataset=tenx-idc", f"results={tmp_path / 'out'}", off]
    done = repository.snakemake("--until", "download", "--nolock", "--retries", "0", *arguments, check=False)
    assert done.returncode == 1
    assert "is not in the cache, and the run is off line" in done.stdout + done.stderr
    assert f"nicheloop run {tmp_path / 's.tsv'} tenx-idc --out {tmp_path / 'out'}" in done.stderr


CHOSEN = {
    "GSE176078": ["CID3586", "CID44971"], "GSE161529": ["TN-0126"], "GSE75688": ["Chung-BC01"],
    "GSE114727": ["Azizi-BC01_TUMOR1", "Azizi-BC09_TUMOR1"], "GSE148673": ["Gao-TNBC1"],
}  # fmt: skip


def test_five_public_data_sets_from_address_to_facts(tmp_path: Path, server: Server) -> None:
    """Beside a sample of one's own, whose folder has an unfriendly name; in a copy, so that nothing changes meanwhile."""
    repository = copy_repository(tmp_path / "repository")
    minis = {name: make() for name, make in mini_geo.EVERY.items()}
    for mini in minis.values():
        for url, content in mini.files.items():
            server.serve(url.removeprefix(mini_geo.GEO.rstrip("/")), content)
    busy = next(p for p in server.pages if p.endswith("GSE148673_RAW.tar"))
    server.pages[busy].failures = [503]
    own = triplet(tmp_path / "a b; touch 'x' $(touch y) ü", X, features_of(GENES), CELLS)
    (tmp_path / "s.tsv").write_text(f"sample\tpath\nmine\t{own}\n")
    chosen = ",".join(f"{name}:{','.join(samples)}" for name, samples in CHOSEN.items())
    options = {
        "cache": str(tmp_path / "the cache"),
        "backoff_seconds": 0,
        "min_free_gb": 0,
        "mirrors": {mini_geo.GEO: server.url + "/"},
    }
    arguments = [
        "--until",
        "facts",
        "--quiet",
        "rules",
        "--config",
        f"samples={tmp_path / 's.tsv'}",
        f"dataset={chosen}",
        f"results={tmp_path / 'my out'}",
        f"download={json.dumps(options)}",
    ]
    repository.snakemake(*arguments)
    out = tmp_path / "my out"
    for name, mini in minis.items():
        for sample in CHOSEN[name]:
            counts = io.Counts(out / "samples" / sample / "counts.h5ad")
            assert counts.cell_ids.tolist() == [f"{sample}:{c}" for c in mini.cells[sample]]
            np.testing.assert_allclose(counts.matrix().toarray(), mini.samples[sample], rtol=1e-6)
    np.testing.assert_array_equal(io.Counts(out / "samples/mine/counts.h5ad").matrix().toarray(), X)
    assert not [p for p in tmp_path.rglob("*") if p.name in ("x", "y")]
    table = io.read_table(out / "cohort/facts.tsv").set_index("fact")["result"].to_dict()
    assert {table[f] for f in ("W10", "P4", "C2", "C4", "A3", "K1b", "K1c")} == {"pass"}
    assert table["W2"] == table["P1b"] == "differ"  # the tiny files hold fewer cells than the papers say
    assert table["W1"] == table["C1"] == "not_checked"
    fetched = len(server.requests)
    assert fetched == 8  # one per file, shared by the samples, and one for the 503
    offline = f"download={json.dumps({**options, 'offline': True, 'retries': 1})}"
    # How files are fetched is no reason to fetch them again.
    assert repository.planned(*arguments[:2], *arguments[4:-1], offline) == {}


def test_nicheloop_run_fetches_first_and_prints_the_facts(tmp_path: Path, server: Server) -> None:
    path = tenx_h5(tmp_path / "x.h5", X, GENES)
    entry = {
        "title": "tiny", "status": "runnable", "role": "test",
        "files": [{"name": "x.h5", "url": server.serve("/x.h5", path.read_bytes()), "size": path.stat().st_size}],
        "layouts": {"default": {"path": "x.h5"}},
        "samples": [{"sample": "T1", "tissue": "tumour", "cells": 6}],
        "facts": [
            {"id": "F1", "claim": "counts", "check": "is_counts", "value": True, "severity": "hard", "source": "file"},
            {"id": "F2", "claim": "6 cells", "check": "cells_per_sample", "value": "samples", "severity": "soft", "source": "file"},
        ],
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"tiny": entry}))
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump({"download": {"catalogue": "mine.yaml", "min_free_gb": 0, "backoff_seconds": 0}})
    )
    environment = {**os.environ, "NICHELOOP_CACHE": str(tmp_path / "cache")}

    def nicheloop(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nicheloop", *arguments, "--config", str(tmp_path / "config.yaml")]
        return subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, check=False)

    listed = nicheloop("datasets")
    assert "tiny" in listed.stdout and "GSE176078" in listed.stdout
    command = ["run", "tiny", "--out", "out", "--snakemake", "--until", "facts"]
    done = subprocess.run(
        [sys.executable, "-m", "nicheloop", *command[:4], "--config", str(tmp_path / "config.yaml"), *command[4:]],
        cwd=tmp_path, env=environment, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "T1  tiny:T1" in done.stdout and "sha256" in done.stdout
    assert "tiny F2  DIFFERS (soft)  6 cells" in done.stdout
    assert "tiny F1  pass  counts" in done.stdout
    assert len(server.requests) == 1
    record = io.read_json(tmp_path / "out/samples/T1/ingest.json")
    assert record["status"] == "ok" and record["files"][0]["url"] == server.url + "/x.h5"
    server.pages.clear()
    gone = nicheloop("run", server.url + "/gone.h5", "--out", "other")
    assert gone.returncode == 2
    assert "the server answered 404" in gone.stderr and "Traceback" not in gone.stderr
