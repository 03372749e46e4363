"""Cell types: evidence, clusters as a prior, reasons for no answer, and real labelled cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from helpers import write_counts
from nicheloop import annotate, config, genes, io

OPTIONS = config.Annotate()
SCORING = config.Scoring()
MAJOR, MINOR = genes.markers("major"), genes.markers("minor")
USE = genes.marker_use()
NAMES = sorted(
    {g for m in (*MAJOR.values(), *MINOR.values()) for g in (*m.positive, *m.negative)} | {f"X{i}" for i in range(900)}
)
INDEX = {g: i for i, g in enumerate(NAMES)}


def cells(kinds: list[str], seed: int = 0, size: float = 4000.0, rate: float = 6.0, soup: float = 0.03) -> np.ndarray:
    """Counts of cells that make the markers of their major (and, as ``major/minor``, minor) type, in ambient RNA."""
    rng = np.random.default_rng(seed)
    clean = np.zeros((len(kinds), len(NAMES)))
    clean[:, [INDEX[f"X{i}"] for i in range(900)]] = rng.gamma(1.0, 10.0, 900)[None, :]
    for i, kind in enumerate(kinds):
        for part in kind.split("+"):
            major, _, minor = part.partition("/")
            own = [*MAJOR[major].positive, *(MINOR[minor].positive if minor else ())]
            clean[i, [INDEX[g] for g in own]] += rate
    share = clean / clean.sum(axis=1, keepdims=True)
    depth = size * rng.lognormal(0, 0.3, len(kinds))
    pool = (share * depth[:, None]).sum(axis=0) / depth.sum()
    return rng.poisson(depth[:, None] * ((1 - soup) * share + soup * pool))


def evidence(counts: np.ndarray, options: config.Annotate = OPTIONS) -> pd.DataFrame:
    table = annotate.cell_evidence(sparse.csr_matrix(counts.astype(np.float32)), NAMES, options)
    return table.assign(z_state_cycling=0.0)


TYPES = ["epithelial", "t_nk", "b_cell", "plasmablast", "myeloid", "mast", "endothelial", "caf", "pvl", "adipocyte"]


def test_likelihood_ratio_against_scipy():
    counts, size, pool = np.array([[0.0, 3.0], [1.0, 0.0]]), np.array([0.2, 1.5]), np.array([0.5, 40.0])
    llr = annotate.marker_llr(counts, size, pool, rate=3.0, shape=0.5, share=0.1, floor=0.02)
    on, off = size[:, None] * np.maximum(3.0, pool), size[:, None] * (0.1 * pool + 0.02)
    expected = stats.nbinom.logpmf(counts, 0.5, 0.5 / (0.5 + on)) - stats.poisson.logpmf(counts, off)
    assert np.allclose(llr, expected)
    assert np.allclose(annotate.weigh(llr, 0.7, 4.0), np.clip(np.log(0.3 + 0.7 * np.exp(expected)), -4, 4))


def test_absence_says_little_in_a_shallow_cell():
    zero = np.zeros((2, 1))
    shallow, deep = annotate.marker_llr(
        zero, np.array([0.05, 3.0]), np.ones(1), rate=3.0, shape=0.5, share=0.1, floor=0.02
    )
    assert deep < shallow < 0 and shallow > -0.2


def test_every_type_is_recognised_without_clusters():
    kinds = np.repeat(TYPES, 12)
    table = annotate.annotate(evidence(cells(list(kinds))), np.zeros(len(kinds)), OPTIONS)
    assert (table["cell_type"] == kinds).mean() > 0.95
    assert table["confidence"].between(0, 1).all() and (table["margin"] <= table["confidence"] + 1e-12).all()


@pytest.mark.parametrize("kind", ["epithelial", "t_nk", "caf"])
def test_a_sample_of_one_type_is_annotated_alike(kind):
    table = annotate.annotate(evidence(cells([kind] * 90)), np.zeros(90), OPTIONS)
    assert (table["cell_type"] == kind).mean() > 0.95


def test_cells_without_markers_are_unresolved():
    table = annotate.annotate(evidence(cells(["epithelial"] * 40, rate=0.0)), np.zeros(40), OPTIONS)
    assert (table["cell_type"] == "unresolved").all() and set(table["cell_type_reason"]) <= {"low_evidence", "ambient"}
    assert (table["cell_type_minor"] == "unresolved").all()


def test_a_cluster_lifts_weak_cells_but_not_against_their_own_evidence():
    counts = cells(["t_nk"] * 60 + ["myeloid"] * 3)
    weak = cells(["t_nk"] * 10, size=250.0, seed=5)
    both = evidence(np.vstack([counts, weak]))
    alone = annotate.annotate(both, np.arange(len(both)), OPTIONS)
    together = annotate.annotate(both, np.zeros(len(both)), OPTIONS)
    assert (together["cell_type"][63:] == "t_nk").sum() > (alone["cell_type"][63:] == "t_nk").sum()
    assert (together["cell_type"][60:63] == "myeloid").all()


def test_two_unrelated_lineages_are_not_one_cell():
    kinds = ["epithelial"] * 30 + ["t_nk"] * 30 + ["epithelial+t_nk"] * 10
    table = annotate.annotate(evidence(cells(kinds, size=12000.0)), np.repeat([0, 1, 0], [30, 30, 10]), OPTIONS)
    assert (table["cell_type_reason"][60:] == "two_lineages").mean() >= 0.9
    assert (table["cell_type_reason"][:60] == "ok").all()


def test_platelets_and_erythrocytes_only_without_another_lineage():
    kinds = ["erythrocyte"] * 6 + ["t_nk+platelet"] * 6 + ["t_nk"] * 20
    table = annotate.annotate(evidence(cells(kinds)), np.zeros(len(kinds)), OPTIONS)
    assert (table["cell_type"][:6] == "erythrocyte").all() and (table["cell_type"][6:] == "t_nk").all()
    assert table["platelet"][6:12].all() and not table["platelet"][12:].any()


def test_minor_types_only_within_their_major_type():
    kinds = ["myeloid/macrophage"] * 15 + ["myeloid/monocyte_classical"] * 15 + ["t_nk/nk"] * 15 + ["t_nk/t_cd8"] * 15
    table = annotate.annotate(evidence(cells(kinds)), np.repeat([0, 1, 2, 3], 15), OPTIONS)
    truth = np.array([k.split("/")[1] for k in kinds])
    assert (table["cell_type_minor"] == truth).mean() > 0.85
    parents = {t: m.parent for t, m in MINOR.items()}
    wrong = [a for a, b in zip(table["cell_type_minor"], table["cell_type"], strict=True) if a != b and parents[a] != b]
    assert not wrong


def test_minor_needs_enough_cells_and_support():
    few = annotate.annotate(evidence(cells(["myeloid/macrophage"] * 5)), np.zeros(5), OPTIONS)
    assert (few["cell_type_minor"] == "myeloid").all()
    plain = annotate.annotate(evidence(cells(["myeloid"] * 30)), np.zeros(30), OPTIONS)
    assert (plain["cell_type_minor"] == "myeloid").mean() > 0.8
    enough = annotate.annotate(evidence(cells(["myeloid/macrophage"] * 30)), np.zeros(30), OPTIONS)
    assert (enough["cell_type_minor"] == "macrophage").mean() > 0.8


def test_order_of_cells_and_genes_does_not_matter():
    kinds = list(np.repeat(TYPES, 6))
    counts, clusters = cells(kinds), np.repeat(np.arange(len(TYPES)), 6)
    table = annotate.annotate(evidence(counts), clusters, OPTIONS)
    rng = np.random.default_rng(2)
    rows, columns = rng.permutation(len(kinds)), rng.permutation(len(NAMES))
    moved = annotate.cell_evidence(sparse.csr_matrix(counts[rows][:, columns]), [NAMES[c] for c in columns], OPTIONS)
    moved = moved.assign(z_state_cycling=0.0)
    other = annotate.annotate(moved, clusters[rows], OPTIONS)
    assert other["cell_type"].tolist() == table["cell_type"].to_numpy()[rows].tolist()
    assert np.allclose(other["confidence"], table["confidence"].to_numpy()[rows])


def test_posterior_without_cluster_weight_is_the_evidence_alone():
    llr = np.array([[5.0, 0.0], [0.0, 5.0]])
    p, _ = annotate.posterior(llr, np.zeros(2, dtype=np.int64), weight=0.0, none=-50.0)
    assert np.allclose(p[0, :2], [1 / (1 + np.exp(-10)), 1 / (1 + np.exp(10))])
    assert np.allclose(p.sum(axis=1), 1)


def test_a_matrix_without_the_markers_of_a_type():
    keep = [
        g
        for g in NAMES
        if g not in MAJOR["adipocyte"].positive and g not in USE.shared and g not in MINOR["apCAF"].positive
    ]
    counts = cells(["t_nk"] * 30)[:, [INDEX[g] for g in keep]]
    table = annotate.cell_evidence(sparse.csr_matrix(counts), keep, OPTIONS)
    assert table["llr_major_adipocyte"].isna().all() and table["llr_major_t_nk"].notna().all()
    assert (annotate.annotate(table, np.zeros(30), OPTIONS)["cell_type"] == "t_nk").all()


def test_shared_markers_name_real_types_and_genes():
    for gene, types in USE.shared.items():
        assert set(types) <= set(MAJOR), gene
    assert set(USE.called) <= set(MINOR)
    assert not set(USE.shared) & USE.broad


# ------------------------------------------------------------------------------------------------------------ files


def qc_table(path: Path, ids, passed) -> Path:
    table = pd.DataFrame({
        "cell_id": ids, "n_counts": 1000.0, "n_genes": 300, "pct_mito": 1.0, "pct_ribo": 1.0, "pct_hb": 0.0, "doublet_score": np.nan,
        "doublet": pd.array([None] * len(ids), dtype="boolean"), "qc_pass": passed,
        "qc_reason": np.where(passed, "pass", "low_counts"),
    })  # fmt: skip
    io.write_table(table, path, "qc")
    return path


def sample(tmp_path: Path, name: str, kinds: list[str], *, passed=None, record=None, obs=None, seed=0) -> Path:
    path = write_counts(tmp_path / name, cells(kinds, seed=seed) if kinds else np.zeros((0, len(NAMES))), NAMES, sample=name,
                        record=record, obs=obs)  # fmt: skip
    ids = io.Counts(path).cell_ids
    qc = qc_table(tmp_path / name / "qc.parquet", ids, np.ones(len(ids), dtype=bool) if passed is None else passed)
    out = tmp_path / name / "evidence.parquet"
    annotate.run_evidence(path, qc, out, options=OPTIONS, scoring=SCORING)
    return out


def clusters_table(path: Path, ids, clusters) -> Path:
    table = pd.DataFrame(
        {"cell_id": ids, "sample": [i.split(":")[0] for i in ids], "leiden_1": clusters, "cluster": clusters}
    )
    io.write_table(table, path, "clusters")
    return path


def test_run_both_stages(tmp_path):
    obs = pd.DataFrame({"annotation_input": ["T cell"] * 30 + [""] * 30})
    one = sample(tmp_path, "s1", ["t_nk"] * 30 + ["caf"] * 30, obs=obs)
    two = sample(tmp_path, "s2", ["caf"] * 25, passed=np.arange(25) < 21, seed=3)
    none = sample(tmp_path, "s3", [], record={"status": "unreadable", "reason": "why"})
    assert io.read_status(none).status == "unreadable" and io.read_table(none).empty
    ids = [*io.read_table(one)["cell_id"], *io.read_table(two)["cell_id"]]
    assert len(ids) == 81
    clusters = clusters_table(tmp_path / "clusters.parquet", ids, ["1"] * 30 + ["2"] * 51)
    out = tmp_path / "cell_types.parquet"
    annotate.run_annotate([one, two, none], clusters, out, options=OPTIONS)
    table = io.read_table(out)
    assert table["cell_id"].tolist() == ids and set(table["sample"]) == {"s1", "s2"}
    assert (table["cell_type"] == ["t_nk"] * 30 + ["caf"] * 51).all()
    assert table["cell_type_input"].tolist()[:30] == ["T cell"] * 30 and table["cell_type_input"][30:].isna().all()


def test_run_without_any_cell(tmp_path):
    none = sample(tmp_path, "s1", ["t_nk"] * 8, passed=np.zeros(8, dtype=bool))
    assert io.read_status(none).status == "no_cells"
    clusters = clusters_table(tmp_path / "clusters.parquet", [], [])
    annotate.run_annotate([none], clusters, tmp_path / "out.parquet", options=OPTIONS)
    assert io.read_status(tmp_path / "out.parquet").status == "no_cells"


def test_run_without_clusters_uses_the_cells(tmp_path):
    one = sample(tmp_path, "s1", ["t_nk"] * 12)
    clusters = clusters_table(tmp_path / "clusters.parquet", [], [])
    annotate.run_annotate([one], clusters, tmp_path / "out.parquet", options=OPTIONS)
    table = io.read_table(tmp_path / "out.parquet")
    assert (table["cell_type"] == "t_nk").all() and set(table["cluster"]) == {"none"}


LABELS = {
    "Endothelial cells": "endothelial", "Epithelial cells": "epithelial", "Fibroblast": "caf", "Monocytes": "myeloid",
    "NK cells": "t_nk", "Pericytes": "pvl", "T cell": "t_nk", "Adipocyte": "adipocyte",
}  # fmt: skip


@pytest.mark.parametrize("number", [1, 2])
def test_normal_breast_with_labels(real_data, number):
    """Cells and nuclei of normal breast; one cluster, so that nothing but the cells' own evidence speaks."""
    from scipy.io import mmread

    folder = real_data / "normals" / f"sample{number}"
    counts = sparse.csr_matrix(mmread(folder / "matrix.mtx.gz").T)
    names = pd.read_csv(folder / "features.tsv.gz", sep="\t", header=None)[1]
    barcodes = pd.read_csv(folder / "barcodes.tsv.gz", sep="\t", header=None)[0]
    labels = pd.read_csv(folder.parent / f"phenodata_sample{number}.txt", sep="\t").set_index("cellid")["celltype"]
    unique = ~names.duplicated().to_numpy()
    table = annotate.cell_evidence(counts[:, unique], names[unique].tolist(), OPTIONS)
    called = annotate.annotate(table, np.zeros(len(table)), OPTIONS)["cell_type"].to_numpy()
    truth = labels.loc[barcodes].map(LABELS).to_numpy()
    assert (called == truth).mean() >= 0.82
    assert (called[called != "unresolved"] == truth[called != "unresolved"]).mean() >= 0.9
