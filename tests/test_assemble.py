"""The atlas: one ordinary h5ad of the cohort."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from fake_results import make
from helpers import write_counts
from nicheloop import assemble, io, tables
from nicheloop.io import Status

NAMES = ("qc", "malignancy", "scores", "csc", "tam")


def run(results: Path, samples: list[str], out: Path) -> ad.AnnData:
    files = {n: [results / "samples" / s / f"{n}.parquet" for s in samples] for n in NAMES}
    cohort = {n: results / "cohort" / f"{n}.parquet" for n in ("embedding", "clusters", "cell_types")}
    assemble.run_assemble(
        [results / "samples" / s / "counts.h5ad" for s in samples], files["qc"], cohort["embedding"], cohort["clusters"],
        cohort["cell_types"], files["malignancy"], files["scores"], files["csc"], files["tam"], out,
    )  # fmt: skip
    return ad.read_h5ad(out)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], ad.AnnData]:
    results = tmp_path_factory.mktemp("results")
    samples = make(results, cells=60)
    # one sample measures other genes, in another order
    x = np.random.default_rng(1).poisson(2.0, (60, 4))
    write_counts(
        results / "samples" / "T1",
        x,
        ["LYZ", "EPCAM", "ONLY1", "CD3D"],
        sample="T1",
        ensembl=["", "ENSG1", "", ""],
        record={"extra": {"site": "A & B"}},
    )
    return results, samples, run(results, samples, results / "atlas.h5ad")


def test_cells_are_those_kept_in_sample_order(built: tuple[Path, list[str], ad.AnnData]) -> None:
    results, samples, adata = built
    kept = np.concatenate([io.kept_cells(results / "samples" / s / "qc.parquet") for s in samples])
    assert list(adata.obs_names) == list(kept)
    assert adata.obs_names.is_unique and not adata.obs["qc_pass"].isin([False]).any()


def test_counts_and_values_equal_the_samples(built: tuple[Path, list[str], ad.AnnData]) -> None:
    results, _, adata = built
    assert sparse.issparse(adata.X) and sparse.issparse(adata.layers["counts"])
    for s in ("T1", "T3"):
        source = io.Counts(results / "samples" / s / "counts.h5ad")
        ids = io.kept_cells(results / "samples" / s / "qc.parquet")
        part = adata[ids, list(source.genes)]
        raw = source.matrix(cells=ids).toarray()
        np.testing.assert_array_equal(part.layers["counts"].toarray(), raw)
        expected = np.log1p(raw / np.maximum(raw.sum(1, keepdims=True), 1e-9) * 1e4)
        np.testing.assert_allclose(part.X.toarray(), expected, rtol=1e-5, atol=1e-6)
        rest = adata[ids, ~adata.var_names.isin(source.genes)]
        assert rest.layers["counts"].nnz == 0


def test_union_of_genes(built: tuple[Path, list[str], ad.AnnData]) -> None:
    _, _, adata = built
    assert list(adata.var_names) == sorted(adata.var_names)
    assert adata.var.loc["ONLY1", "n_samples_present"] == 1
    assert adata.var.loc["LYZ", "n_samples_present"] == 5  # the sample that could not be read has no say
    assert adata.var.loc["PPBP", "n_samples_present"] == 4
    assert adata.var.loc["EPCAM", "ensembl_id"] == "ENSG1"


def test_obs_against_the_tables(built: tuple[Path, list[str], ad.AnnData]) -> None:
    results, _, adata = built
    csc = pd.read_parquet(results / "samples" / "T1" / "csc.parquet").set_index("cell_id")
    mine = adata.obs.loc[csc.index]
    np.testing.assert_allclose(mine["m_csc_prob"], csc["m_csc_prob"].astype(float), equal_nan=True)
    assert list(mine["csc_state"].astype(str)) == list(csc["csc_state"].astype(str))
    tam = pd.read_parquet(results / "samples" / "T1" / "tam.parquet").set_index("cell_id")
    rest = adata.obs[(adata.obs["sample"] == "T1") & ~adata.obs_names.isin(tam.index)]
    assert set(rest["tam_class"].astype(str)) == {"not_macrophage"} and rest["m1_z"].isna().all()
    assert adata.obs.loc[adata.obs["sample"] == "T1", "site"].eq("A & B").all()
    clone = adata.obs["clone"]
    assert clone.isna().equals(adata.obs["malignancy"].ne("malignant"))
    for name, values in adata.obs.items():
        assert values.dtype.kind in "fb" or isinstance(values.dtype, pd.CategoricalDtype), name


def test_coordinates(built: tuple[Path, list[str], ad.AnnData]) -> None:
    results, _, adata = built
    table = pd.read_parquet(results / "cohort" / "embedding.parquet").set_index("cell_id").loc[adata.obs_names]
    np.testing.assert_allclose(adata.obsm["X_umap"], table[["umap_1", "umap_2"]], rtol=1e-6)
    assert {"X_pca", "X_harmony", "X_umap"} <= set(adata.obsm)


def test_same_bytes_and_scanpy_round_trip(built: tuple[Path, list[str], ad.AnnData], tmp_path: Path) -> None:
    results, samples, adata = built
    run(results, samples, tmp_path / "again.h5ad")
    assert (tmp_path / "again.h5ad").read_bytes() == (results / "atlas.h5ad").read_bytes()
    adata.write_h5ad(tmp_path / "copy.h5ad")
    again = ad.read_h5ad(tmp_path / "copy.h5ad", backed="r")
    assert again.shape == adata.shape
    again.file.close()


def test_no_cell_at_all(tmp_path: Path) -> None:
    write_counts(tmp_path / "samples" / "a", np.zeros((0, 2)), ["A", "B"], sample="a", record={"status": "unreadable"})
    for n in NAMES:
        io.write_table(
            tables.empty(n), tmp_path / "samples" / "a" / f"{n}.parquet", n, Status(n, "a", "unreadable", "x")
        )
    for n in ("embedding", "clusters", "cell_types"):
        io.write_table(tables.empty(n), tmp_path / "cohort" / f"{n}.parquet", n)
    assert run(tmp_path, ["a"], tmp_path / "atlas.h5ad").shape == (0, 0)


def test_myeloid_cells_of_a_sample_without_answer_are_not_assessable() -> None:
    tam = pd.DataFrame(
        {"tam_class": [None, None], "myeloid_class": [None, None], "tam_status": [None, None]},
        index=["a", "b"],
        dtype="string",
    )
    types = pd.Series(["myeloid", "caf"], index=["a", "b"])
    out = assemble.fill_tam(tam, types, Status("tam", "s", "too_few_macrophages", "3, 20 needed"))
    assert list(out["tam_class"]) == ["not_assessable", "not_macrophage"]
    assert list(assemble.fill_tam(tam, types, Status("tam", "s"))["tam_class"]) == ["not_macrophage", "not_macrophage"]


def test_union_genes_does_not_depend_on_order() -> None:
    a, b = (["B", "A"], ["", "E2"]), (["C", "A"], ["E3", "E1"])
    forward, backward = assemble.union_genes([a, b]), assemble.union_genes([b, a])
    assert list(forward) == ["A", "B", "C"] and forward == backward
    assert forward["A"] == assemble.Gene("E1", 2) and forward["B"] == assemble.Gene("", 1)
