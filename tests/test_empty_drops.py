"""Empty droplets of a raw matrix: their composition, and every way in which they cannot be used."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from helpers import write_counts
from nicheloop import ambient, empty_drops, io, sheet
from nicheloop.config_cells import Ambient
from nicheloop.errors import UserError
from nicheloop.inputs import DataError

GENES = ["EPCAM", "KRT8", "KRT18", "KRT19", "COL1A1", "COL1A2", "COL3A1", "CD3D", "CD3E", "LYZ", "VIM", "ACTB"]
EPITHELIAL = np.array([9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 1, 40.0])
CAF = np.array([0, 0, 0, 0, 12, 12, 12, 0, 0, 0, 20, 40.0])
POOL = np.array([1, 1, 1, 1, 30, 30, 30, 1, 1, 20, 10, 20.0])  # CAF are fragile: more of them than of the cells
OPTIONS = Ambient(min_makers=3)


def droplets(path: Path, rate: float = 0.1, n: int = 100, barcodes: str = "c") -> tuple[np.ndarray, np.ndarray, Path]:
    """Counts and types of cells, and a raw matrix of the cells, empty droplets and a few droplets in between."""
    rng = np.random.default_rng(0)
    types = np.array(["epithelial"] * n + ["caf"] * 30 + ["t_nk"] * 30, dtype=object)
    own = {"epithelial": EPITHELIAL, "caf": CAF, "t_nk": np.array([0, 0, 0, 0, 0, 0, 0, 9, 9, 0, 5, 40.0])}
    mean = np.array([(1 - rate) * own[t] / own[t].sum() + rate * POOL / POOL.sum() for t in types])
    cells = rng.poisson(mean * 2000)
    empty = rng.poisson(POOL / POOL.sum() * 40, (3000, len(GENES)))
    between = rng.poisson(EPITHELIAL / EPITHELIAL.sum() * 500, (50, len(GENES)))
    names = [f"{barcodes}{i:05d}" for i in range(len(cells))] + [f"e{i}" for i in range(len(empty) + len(between))]
    raw = ad.AnnData(
        sparse.csr_matrix(np.vstack([cells, empty, between]).astype(np.float32)),
        obs=pd.DataFrame(index=names),
        var=pd.DataFrame(index=GENES),
    )
    raw.write_h5ad(path / "raw.h5ad")
    return cells, types, path / "raw.h5ad"


def test_pool_is_the_composition_of_droplets_without_a_cell(tmp_path: Path) -> None:
    cells, _, raw = droplets(tmp_path)
    pool, n, umi = empty_drops.empty_pool(raw, GENES, [f"c{i:05d}" for i in range(len(cells))], OPTIONS)
    assert n == 3000
    assert umi == pytest.approx(3000 * 40, rel=0.02)
    np.testing.assert_allclose(pool, POOL / POOL.sum(), atol=0.01)
    turned, _, _ = empty_drops.empty_pool(raw, GENES[::-1], ["c00000"], OPTIONS)
    np.testing.assert_allclose(turned[::-1], pool, atol=1e-3)


@pytest.mark.parametrize(
    ("barcodes", "options", "status"),
    [(["x"], OPTIONS, "raw_other_sample"), (["c00000"], Ambient(min_empty=5000), "raw_too_few_empty")],
)
def test_a_raw_matrix_that_cannot_be_used_is_named(
    tmp_path: Path, barcodes: list[str], options: Ambient, status: str
) -> None:
    _, _, raw = droplets(tmp_path)
    with pytest.raises(DataError) as found:
        empty_drops.empty_pool(raw, GENES, barcodes, options)
    assert found.value.status == status


def stage(tmp_path: Path, raw: Path | None, cells: np.ndarray, types: np.ndarray) -> tuple[pd.DataFrame, io.Status]:
    counts = write_counts(tmp_path / "s1", cells, GENES, sample="s1")
    ids = [f"s1:c{i:05d}" for i in range(len(cells))]
    table = pd.DataFrame({
        "cell_id": ids, "sample": "s1", "cluster": "0", "cell_type": types, "cell_type_minor": types, "confidence": 1.0, "margin": 1.0,
        "runner_up": "caf", "cell_type_reason": "ok", "platelet": False, "cycling": False, "cell_type_input": pd.NA,
    })  # fmt: skip
    io.write_table(table, tmp_path / "types.parquet", "cell_types")
    out = tmp_path / "ambient.parquet"
    ambient.run_ambient(counts, tmp_path / "types.parquet", out, tmp_path / "p.parquet", options=OPTIONS, raw=raw)
    return io.read_table(out), io.read_status(out)


def test_stage_takes_the_pool_from_the_raw_matrix_and_its_rate_is_nearer_the_truth(tmp_path: Path) -> None:
    cells, types, raw = droplets(tmp_path)
    with_raw, said = stage(tmp_path, raw, cells, types)
    assert set(with_raw["pool"]) == {"empty_droplets"}
    assert said.summary["n_empty"] == 3000
    without, _ = stage(tmp_path, None, cells, types)
    assert set(without["pool"]) == {"cells"}
    truth = 0.1
    errors = [abs(t["contamination_rate"].iloc[0] - truth) for t in (with_raw, without)]
    assert errors[0] < 0.02 < errors[1]


def test_stage_falls_back_to_the_cells_and_says_why(tmp_path: Path) -> None:
    cells, types, raw = droplets(tmp_path, barcodes="other")
    table, said = stage(tmp_path, raw, cells, types)
    assert set(table["pool"]) == {"cells"}
    assert said.ok
    assert said.summary["raw_status"] == "raw_other_sample"
    assert "another" in said.summary["raw_reason"]


def test_sheet_checks_the_raw_matrix(tmp_path: Path) -> None:
    droplets(tmp_path)
    (tmp_path / "s.tsv").write_text("sample\tpath\traw\na\traw.h5ad\traw.h5ad\n")
    assert sheet.read_sheet(tmp_path / "s.tsv")[0]["raw"] == str((tmp_path / "raw.h5ad").resolve())
    for value, words in (("nothing.h5", "raw matrix"), ("https://x.org/raw.h5", "download")):
        (tmp_path / "s.tsv").write_text(f"sample\tpath\traw\na\traw.h5ad\t{value}\n")
        with pytest.raises(UserError, match=words):
            sheet.read_sheet(tmp_path / "s.tsv")
