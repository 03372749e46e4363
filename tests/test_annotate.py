"""Cell types: evidence, neighbours, reasons for no answer, the input's own annotation, and real labelled cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from helpers import write_counts
from nicheloop import (
    annotate,
    config_cells,
    config_states,
    embed,
    genes,
    io,
    marker_evidence,
    neighbors,
    neighbourhood,
    simulate,
    tables,
    vocabulary,
)
from nicheloop.errors import UserError

OPTIONS = config_cells.Annotate()
SCORING = config_states.Scoring()
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


def evidence(counts: np.ndarray, options: config_cells.Annotate = OPTIONS) -> pd.DataFrame:
    table = annotate.cell_evidence(sparse.csr_matrix(counts.astype(np.float32)), NAMES, options)
    return table.assign(z_state_cycling=0.0)


def groups(codes) -> np.ndarray:
    """Neighbours drawn from cells of the same code: what a perfect embedding would give."""
    codes, rng = np.asarray(codes), np.random.default_rng(4)
    out = np.full((len(codes), 15), -1)
    for i, code in enumerate(codes):
        others = np.flatnonzero((codes == code) & (np.arange(len(codes)) != i))
        few = rng.permutation(others)[:15]
        out[i, : len(few)] = few
    return out


def alone(n: int) -> np.ndarray:
    return np.zeros((n, 0), dtype=np.int64)


TYPES = ["epithelial", "t_nk", "b_cell", "plasmablast", "myeloid", "mast", "endothelial", "caf", "pvl", "adipocyte"]


def test_likelihood_ratio_against_scipy():
    counts, size, pool = np.array([[0.0, 3.0], [1.0, 0.0]]), np.array([0.2, 1.5]), np.array([0.5, 40.0])
    llr = marker_evidence.marker_llr(counts, size, pool, rate=3.0, shape=0.5, share=0.1, floor=0.02)
    on, off = size[:, None] * np.maximum(3.0, pool), size[:, None] * (0.1 * pool + 0.02)
    expected = stats.nbinom.logpmf(counts, 0.5, 0.5 / (0.5 + on)) - stats.poisson.logpmf(counts, off)
    assert np.allclose(llr, expected)
    assert np.allclose(marker_evidence.weigh(llr, 0.7, 4.0), np.clip(np.log(0.3 + 0.7 * np.exp(expected)), -4, 4))


def test_absence_says_little_in_a_shallow_cell():
    zero = np.zeros((2, 1))
    shallow, deep = marker_evidence.marker_llr(
        zero, np.array([0.05, 3.0]), np.ones(1), rate=3.0, shape=0.5, share=0.1, floor=0.02
    )
    assert deep < shallow < 0 and shallow > -0.2


def test_every_type_is_recognised_without_neighbours():
    kinds = np.repeat(TYPES, 12)
    table = annotate.annotate(evidence(cells(list(kinds))), alone(len(kinds)), OPTIONS)
    assert (table["cell_type"] == kinds).mean() > 0.95
    assert table["confidence"].between(0, 1).all() and (table["margin"] <= table["confidence"] + 1e-12).all()


@pytest.mark.parametrize("kind", ["epithelial", "t_nk", "caf"])
def test_a_sample_of_one_type_is_annotated_alike(kind):
    table = annotate.annotate(evidence(cells([kind] * 90)), alone(90), OPTIONS)
    assert (table["cell_type"] == kind).mean() > 0.95


def test_cells_without_markers_are_unresolved():
    table = annotate.annotate(evidence(cells(["epithelial"] * 40, rate=0.0)), alone(40), OPTIONS)
    assert (table["cell_type"] == "unresolved").all() and set(table["cell_type_reason"]) <= {"low_evidence", "ambient"}
    assert (table["cell_type_minor"] == "unresolved").all()


def test_neighbours_lift_weak_cells_but_not_against_their_own_evidence():
    counts = cells(["t_nk"] * 60 + ["myeloid"] * 3)
    weak = cells(["t_nk"] * 20, size=200.0, seed=5)
    both = evidence(np.vstack([counts, weak]))
    own = annotate.annotate(both, alone(len(both)), OPTIONS)
    near = np.random.default_rng(1).integers(0, 60, (len(both), 5))  # five cells of the large type around every cell
    together = annotate.annotate(both, near, OPTIONS)
    assert (together["cell_type"][63:] == "t_nk").sum() > (own["cell_type"][63:] == "t_nk").sum()
    assert (together["cell_type"][60:63] == "myeloid").all()


def test_two_unrelated_lineages_are_not_one_cell():
    kinds = ["epithelial"] * 30 + ["t_nk"] * 30 + ["epithelial+t_nk"] * 10
    table = annotate.annotate(
        evidence(cells(kinds, size=15000.0, rate=9.0)), groups(np.repeat([0, 1, 0], [30, 30, 10])), OPTIONS
    )
    assert (table["cell_type_reason"][60:] == "two_lineages").mean() >= 0.9
    assert (table["cell_type_reason"][:60] == "ok").all()


def test_platelets_and_erythrocytes_only_without_another_lineage():
    kinds = ["erythrocyte"] * 6 + ["t_nk+platelet"] * 6 + ["t_nk"] * 20
    table = annotate.annotate(evidence(cells(kinds)), alone(len(kinds)), OPTIONS)
    assert (table["cell_type"][:6] == "erythrocyte").all() and (table["cell_type"][6:] == "t_nk").all()
    assert table["platelet"][6:12].all() and not table["platelet"][12:].any()


def test_minor_types_only_within_their_major_type():
    kinds = ["myeloid/macrophage"] * 15 + ["myeloid/monocyte_classical"] * 15 + ["t_nk/nk"] * 15 + ["t_nk/t_cd8"] * 15
    table = annotate.annotate(evidence(cells(kinds)), groups(np.repeat([0, 1, 2, 3], 15)), OPTIONS)
    truth = np.array([k.split("/")[1] for k in kinds])
    assert (table["cell_type_minor"] == truth).mean() > 0.85
    parents = {t: m.parent for t, m in MINOR.items()}
    wrong = [a for a, b in zip(table["cell_type_minor"], table["cell_type"], strict=True) if a != b and parents[a] != b]
    assert not wrong


def test_negative_markers_count_against_types_and_minor_types():
    """Every declared negative marker that a cell makes takes from the evidence of the type, and of nothing else."""
    base = cells(["myeloid"] * 4 + ["t_nk"] * 4, soup=0.0)
    before = evidence(base)
    without = evidence(base, OPTIONS.model_copy(update={"negative_weight": 0.0}))
    for level, known in (("major", MAJOR), ("minor", MINOR)):
        positive = {g for m in known.values() for g in m.positive}
        for t, m in known.items():
            only = [g for g in m.negative if g not in positive]
            for gene in only[:1]:
                more = base.copy()
                more[:, INDEX[gene]] += 40
                assert (evidence(more)[f"llr_{level}_{t}"] < before[f"llr_{level}_{t}"]).all(), (t, gene)
    assert (before["llr_minor_nk"][4:] < without["llr_minor_nk"][4:]).all()  # CD3D of T cells
    assert (before["llr_minor_macrophage"] == without["llr_minor_macrophage"])[:4].mean() > 0.5  # makes no FCN1


def test_minor_needs_enough_cells_and_support():
    few = annotate.annotate(evidence(cells(["myeloid/macrophage"] * 5)), alone(5), OPTIONS)
    assert (few["cell_type_minor"] == "myeloid").all()
    plain = annotate.annotate(evidence(cells(["myeloid"] * 30)), groups([0] * 30), OPTIONS)
    assert (plain["cell_type_minor"] == "myeloid").mean() > 0.8
    enough = annotate.annotate(evidence(cells(["myeloid/macrophage"] * 30)), alone(30), OPTIONS)
    assert (enough["cell_type_minor"] == "macrophage").mean() > 0.8


def test_order_of_cells_and_genes_does_not_matter():
    kinds = list(np.repeat(TYPES, 6))
    counts, near = cells(kinds), groups(np.repeat(np.arange(len(TYPES)), 6))
    table = annotate.annotate(evidence(counts), near, OPTIONS)
    rng = np.random.default_rng(2)
    rows, columns = rng.permutation(len(kinds)), rng.permutation(len(NAMES))
    moved = annotate.cell_evidence(sparse.csr_matrix(counts[rows][:, columns]), [NAMES[c] for c in columns], OPTIONS)
    moved = moved.assign(z_state_cycling=0.0)
    other = annotate.annotate(moved, neighbourhood.within(near, rows), OPTIONS)
    assert other["cell_type"].tolist() == table["cell_type"].to_numpy()[rows].tolist()
    assert np.allclose(other["confidence"], table["confidence"].to_numpy()[rows])


# -------------------------------------------------------------------------------------------------------- neighbours

SETTINGS: dict = {
    "weight": 0.3,
    "doubt": 1e-4,
    "own": 0.6,
    "cells": 2.0,
    "temperature": 1.0,
    "rounds": 50,
    "tolerance": 1e-6,
}


def test_posterior_of_a_lonely_cell_is_its_evidence_and_the_frequency():
    llr = np.array([[3.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    p = neighbourhood.posterior(llr, alone(3), **SETTINGS | {"doubt": 1e-300})
    frequency = (p.sum(axis=0) + 0.5) / 4
    expected = np.exp(llr) * frequency
    assert np.allclose(p, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)
    cooler = neighbourhood.posterior(llr, alone(3), **SETTINGS | {"temperature": 2.0})
    assert (cooler.max(axis=1) < p.max(axis=1)).all()


def test_doubt_bounds_what_a_cell_can_say_and_ruled_out_stays_ruled_out():
    out = neighbourhood.softened(np.array([[50.0, 0.0, -np.inf]]), 1e-4)
    assert out[0, 0] - out[0, 1] == pytest.approx(-np.log(1e-4), abs=1e-3) and out[0, 2] == -np.inf
    near = neighbourhood.softened(np.array([[3.0, 2.0]]), 1e-9)
    assert np.allclose(near, [[3.0, 2.0]])


def test_looks_against_a_count_by_hand():
    p = np.eye(2)[[0, 0, 0, 1]]
    near = np.array([[1, 2], [0, 2], [0, 3], [0, 1]])
    learnt = neighbourhood.looks(p, neighbourhood.adjacency(near), 2, own=0.6, cells=1e-9)
    assert np.allclose(learnt, [[5 / 6, 1 / 6], [1.0, 0.0]], atol=1e-6)
    # Nothing seen: expected own share, less for a type too small to surround its own cells.
    prior = neighbourhood.looks(p, neighbourhood.adjacency(np.full((4, 2), -1)), 2, own=0.6, cells=1.0)
    frequency = np.array([3.5, 1.5]) / 5
    assert np.allclose(prior[0], 0.6 * np.array([1, 0]) + 0.4 * frequency)
    assert np.allclose(prior[1], 0.3 * np.array([0, 1]) + 0.7 * frequency)


def test_posterior_against_the_formula_cell_by_cell():
    rng = np.random.default_rng(5)
    n, t, k = 60, 3, 4
    llr = rng.normal(size=(n, t)) * 3
    llr[7, 1] = -np.inf
    near = rng.integers(-1, n, (n, k))  # cells of all types in any order, some with fewer neighbours
    settings = SETTINGS | {"temperature": 1.7}
    base = np.array([[max(row) + np.log(np.exp(v - max(row)) + settings["doubt"]) for v in row] for row in llr])
    base[7, 1] = -np.inf
    p = np.exp(base) / np.exp(base).sum(axis=1, keepdims=True)
    for _ in range(settings["rounds"]):
        size = p.sum(axis=0)
        frequency = (size + 0.5) / (n + 0.5 * t)
        own = settings["own"] * np.minimum(1, size / k)
        look = settings["cells"] * (np.diag(own) + np.outer(1 - own, frequency))
        for i in range(n):
            for j in near[i][near[i] >= 0]:
                look += np.outer(p[i], p[j]) / k
        look /= look.sum(axis=1, keepdims=True)
        score = base + np.log(frequency)
        for i in range(n):
            for j in near[i][near[i] >= 0]:
                score[i] += settings["weight"] * np.log(look @ p[j])
        p = (p + np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)) / 2
    cooled = np.exp(score / 1.7)
    found = neighbourhood.posterior(llr, near, **settings)
    assert np.allclose(found, cooled / cooled.sum(axis=1, keepdims=True), atol=1e-5)
    assert found[7, 1] == 0 and len(set(found.argmax(axis=1))) == t


def test_a_rare_type_among_strangers_is_not_voted_away():
    """Three cells can have no neighbours of their kind; that is learnt, and the strangers then say little."""
    llr = np.zeros((203, 2))
    llr[:200, 0], llr[200:, 1] = 6.0, 6.0
    near = np.random.default_rng(0).integers(0, 200, (203, 15))
    p = neighbourhood.posterior(llr, near, **SETTINGS)
    assert (p[200:].argmax(axis=1) == 1).all() and (p[:200].argmax(axis=1) == 0).all()


def nearest_others(coordinates: np.ndarray, k: int = 15) -> np.ndarray:
    """Positions of the nearest other cells, as the embedding finds them."""
    return neighbors.nearest(coordinates, k + 1)[0][:, 1:]


def neighbors_table(ids, found: np.ndarray) -> pd.DataFrame:
    """Rows of the contract ``neighbors``; -1: none."""
    columns = {f"neighbor_{j + 1}": pd.array(np.where(c < 0, None, c), dtype="Int64") for j, c in enumerate(found.T)}
    return pd.DataFrame({"cell_id": ids, "sample": [i.split(":")[0] for i in ids], **columns})


def test_surroundings_are_those_of_the_table_whatever_its_order_and_the_cells_asked_for():
    ids = [f"s:{c}" for c in "abcde"]
    table = neighbors_table(ids, np.array([[1, 2], [0, 3], [3, -1], [2, 4], [3, 0]]))
    by_name = {"s:a": "bc", "s:b": "ad", "s:c": "d", "s:d": "ce", "s:e": "da"}
    asked = ["s:d", "s:x", "s:a", "s:c", "s:b"]  # e is not asked for, x was not placed
    near = neighbourhood.surroundings(table, asked, 3)
    named = [["" if j < 0 else asked[j] for j in row] for row in near]
    assert named == [[f"s:{c}" if f"s:{c}" in asked else "" for c in by_name.get(i, "")] + [""] * (3 - len(by_name.get(i, "")))
                     for i in asked]  # fmt: skip
    assert neighbourhood.surroundings(table, asked, 1).tolist() == near[:, :1].tolist()
    assert (neighbourhood.surroundings(tables.empty("neighbors"), asked, 2) == -1).all()


def shallow(seed: int, n: int, umi: float) -> tuple[sparse.csr_matrix, list[str], np.ndarray]:
    """Cells of a tumour drawn from the profiles of the demo, with the library sizes of a shallow 10x run."""
    rng, table = np.random.default_rng(seed), simulate.profiles()
    kinds = {k: v for k, v in simulate.KINDS.items() if v.tumour}
    total = sum(k.tumour for k in kinds.values())
    truth = np.concatenate([[k.major] * max(2, round(k.tumour * n / total)) for k in kinds.values()])
    rates = np.vstack(
        [
            np.tile(table.column(k.profile or "cancer_er"), (max(2, round(k.tumour * n / total)), 1))
            for k in kinds.values()
        ]
    )
    share = rates * rng.gamma(2.0, 0.5, rates.shape)
    share /= share.sum(axis=1, keepdims=True)
    depth = umi * rng.lognormal(0, 0.5, len(share))
    pool = (share * depth[:, None]).sum(axis=0) / depth.sum()
    return sparse.csr_matrix(rng.poisson(depth[:, None] * (0.92 * share + 0.08 * pool))), list(table.genes), truth


def components(x: sparse.csr_matrix, n_genes: int = 1500) -> np.ndarray:
    """Principal components of the most variable log-normalised genes."""
    y = io.lognormalise(x.astype(np.float32)).toarray()
    y = y[:, np.argsort(-y.var(axis=0))[:n_genes]]
    y = y - y.mean(axis=0)
    u, s, _ = np.linalg.svd(y, full_matrices=False)
    return u[:, :30] * s[:30]


def lineage(types) -> np.ndarray:
    return np.where(np.asarray(types) == "plasmablast", "b_cell", np.asarray(types)).astype(str)


@pytest.mark.parametrize(("n", "umi", "floor"), [(500, 1000.0, 0.97), (90, 1000.0, 0.9)])
def test_a_shallow_tumour_beats_majority_vote_in_clusters_of_any_resolution(n, umi, floor):
    from sklearn.metrics import f1_score

    x, names, truth = shallow(6, n, umi)
    z = components(x)
    table = annotate.cell_evidence(x, names, OPTIONS)
    called = annotate.annotate(table, nearest_others(z), OPTIONS)["cell_type"]

    def score(types) -> float:
        return f1_score(
            lineage(truth), lineage(types), average="macro", labels=sorted(set(lineage(truth))), zero_division=0
        )

    ours = score(called)
    assert ours >= floor
    types = [c.removeprefix("llr_major_") for c in table if c.startswith("llr_major_")]
    best = np.array(types)[np.nan_to_num(table[[f"llr_major_{t}" for t in types]].to_numpy(), nan=-99).argmax(axis=1)]
    found = nearest_others(z)
    graph = sparse.csr_matrix(
        (np.ones(found.size), found.ravel(), np.arange(0, found.size + 1, 15)), shape=(len(z), len(z))
    )
    graph = graph.maximum(graph.T)
    for resolution in (0.5, 1.0, 2.0, 4.0):
        labels = embed.leiden(graph, [resolution], [0], method="leidenalg", n_iterations=2)[resolution].labels
        majority = [pd.Series(best[labels == c]).mode()[0] for c in range(labels.max() + 1)]
        assert ours > score(np.array(majority)[labels])


def test_confidence_is_near_the_share_that_is_right():
    x, names, truth = shallow(8, 700, 150.0)
    found = nearest_others(components(x))
    table, p = annotate.call_major(*(
        annotate.cell_evidence(x, names, OPTIONS)[[f"{what}_major_{t}" for t in MAJOR]].to_numpy() for what in ("llr", "n")
    ), found, list(MAJOR), OPTIONS)  # fmt: skip
    right = lineage(np.array(list(MAJOR))[p.argmax(axis=1)]) == lineage(truth)
    unsure, sure = table["confidence"] < 0.9, table["confidence"] > 0.99
    assert unsure.sum() > 50 and sure.sum() > 50
    assert right[sure].mean() > 0.97 and right[unsure].mean() < right[sure].mean() - 0.1
    assert right.mean() - 0.12 < table["confidence"].mean() < right.mean() + 0.03  # never surer than right


def test_reads_of_a_full_length_protocol_say_no_more_than_molecules():
    kinds = list(np.repeat(TYPES, 10))
    counts = cells(kinds, size=9000.0)
    few = annotate.annotate(evidence(counts), alone(len(kinds)), OPTIONS)
    many = annotate.annotate(evidence(counts * 150), alone(len(kinds)), OPTIONS)
    assert (few["cell_type"] == kinds).mean() > 0.95 and (many["cell_type"] == kinds).mean() > 0.95


def test_a_matrix_without_the_markers_of_a_type():
    keep = [
        g
        for g in NAMES
        if g not in MAJOR["adipocyte"].positive and g not in USE.shared and g not in MINOR["apCAF"].positive
    ]
    counts = cells(["t_nk"] * 30)[:, [INDEX[g] for g in keep]]
    table = annotate.cell_evidence(sparse.csr_matrix(counts), keep, OPTIONS)
    assert table["llr_major_adipocyte"].isna().all() and table["llr_major_t_nk"].notna().all()
    assert (annotate.annotate(table, groups([0] * 30), OPTIONS)["cell_type"] == "t_nk").all()
    nothing = annotate.cell_evidence(sparse.csr_matrix(cells(["t_nk"] * 30)[:, -900:]), NAMES[-900:], OPTIONS)
    assert (annotate.annotate(nothing, groups([0] * 30), OPTIONS)["cell_type"] == "unresolved").all()


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


def run(evidence_paths, clusters: Path, out: Path, ids, options: config_cells.Annotate = OPTIONS) -> pd.DataFrame:
    """Run the stage on cells whose integrated components lie near the cells of the same cluster."""
    codes = io.read_table(clusters).set_index("cell_id")["cluster"].reindex(ids).astype(float).to_numpy()
    place = codes[:, None] * 50 + np.random.default_rng(0).normal(size=(len(ids), 4))
    table = neighbors_table(ids, nearest_others(place)) if len(ids) else tables.empty("neighbors")
    io.write_table(table, out.parent / "neighbors.parquet", "neighbors")
    annotate.run_annotate(evidence_paths, out.parent / "neighbors.parquet", clusters, out, options=options)
    return io.read_table(out)


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
    run([one, two, none], clusters, out, ids)
    table = io.read_table(out)
    assert table["cell_id"].tolist() == ids and set(table["sample"]) == {"s1", "s2"}
    assert (table["cell_type"] == ["t_nk"] * 30 + ["caf"] * 51).all()
    assert table["cell_type_input"].tolist()[:30] == ["T cell"] * 30 and table["cell_type_input"][30:].isna().all()


def test_the_order_of_samples_changes_no_value(tmp_path):
    one = sample(tmp_path, "s1", ["t_nk"] * 30 + ["caf"] * 30)
    two = sample(tmp_path, "s2", ["caf"] * 25 + ["pvl"] * 25, seed=3)
    ids = [*io.read_table(one)["cell_id"], *io.read_table(two)["cell_id"]]
    clusters = clusters_table(tmp_path / "clusters.parquet", ids, ["1"] * 30 + ["2"] * 80)
    first = run([one, two], clusters, tmp_path / "a.parquet", ids).set_index("cell_id")
    second = run([two, one], clusters, tmp_path / "b.parquet", ids).set_index("cell_id").loc[first.index]
    pd.testing.assert_frame_equal(first, second)


def test_types_do_not_depend_on_the_clusters(tmp_path):
    one = sample(tmp_path, "s1", ["t_nk"] * 30 + ["caf"] * 30)
    ids = io.read_table(one)["cell_id"].tolist()
    coarse = clusters_table(tmp_path / "coarse.parquet", ids, ["1"] * 60)
    fine = clusters_table(tmp_path / "fine.parquet", ids, [str(i) for i in range(60)])
    first = run([one], coarse, tmp_path / "a.parquet", ids).drop(columns="cluster")
    annotate.run_annotate([one], tmp_path / "neighbors.parquet", fine, tmp_path / "b.parquet", options=OPTIONS)
    pd.testing.assert_frame_equal(first, io.read_table(tmp_path / "b.parquet").drop(columns="cluster"))


def test_fewer_neighbours_than_asked_for_are_a_message(tmp_path):
    one = sample(tmp_path, "s1", ["t_nk"] * 30 + ["caf"] * 30)
    ids = io.read_table(one)["cell_id"].tolist()
    clusters = clusters_table(tmp_path / "clusters.parquet", ids, ["1"] * 60)
    with pytest.raises(UserError, match=r"holds 15 neighbours.*asks for 30\. Run `embed` again"):
        run([one], clusters, tmp_path / "a.parquet", ids, OPTIONS.model_copy(update={"n_neighbors": 30}))


def test_the_annotation_of_the_input_is_used_instead(tmp_path):
    labels = ["Cancer Epithelial"] * 10 + ["T_cells_c7_CD8+_IFNG"] * 20 + ["cluster 7"] * 15 + [""] * 15
    one = sample(tmp_path, "s1", ["t_nk"] * 30 + ["caf"] * 30, obs=pd.DataFrame({"annotation_input": labels}))
    ids = io.read_table(one)["cell_id"].tolist()
    clusters = clusters_table(tmp_path / "clusters.parquet", ids, ["1"] * 30 + ["2"] * 30)
    computed = run([one], clusters, tmp_path / "a.parquet", ids)
    used = run([one], clusters, tmp_path / "b.parquet", ids, OPTIONS.model_copy(update={"source": "input"}))
    assert (computed["cell_type"] == ["t_nk"] * 30 + ["caf"] * 30).all()
    assert (used["cell_type"] == ["epithelial"] * 10 + ["t_nk"] * 20 + ["caf"] * 30).all()
    assert (used["cell_type_minor"][10:30] == "t_cd8").all()
    reasons = ["from_input"] * 30 + ["label_not_understood"] * 15 + ["ok"] * 15
    assert used["cell_type_reason"].tolist() == reasons
    # The RNA does not bear out the first ten labels, and the confidence says so.
    assert (used["confidence"][:10] < 0.1).all() and (used["confidence"][10:30] > 0.9).all()
    summary = io.read_status(tmp_path / "b.parquet").summary
    assert summary["labels_not_understood"] == ["cluster 7"] and summary["n_with_input"] == 45


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("CAFs myCAF like s4", ("caf", "myCAF")), ("PVL_Immature s2", ("pvl", "pvl_immature")), ("Plasmablasts", ("plasmablast", "")),
        ("Myeloid_c4_DCs_pDC_IRF7", ("myeloid", "pDC")), ("plasmacytoid dendritic cell", ("myeloid", "pDC")),
        ("Cancer-associated fibroblast", ("caf", "")), ("epithelial", ("epithelial", "")), ("nk", ("t_nk", "nk")),
        ("Myoepithelial cell", ("epithelial", "")), ("B lymphocytes", ("b_cell", "")), ("CD8 Tem", ("t_nk", "")),
        ("vascular smooth muscle cells", ("pvl", "")), ("Doublet", ("", "")), ("7", ("", "")), ("", ("", "")),
    ],
)  # fmt: skip
def test_labels(label, expected):
    assert vocabulary.meaning(label) == expected


def test_the_table_of_labels_names_real_types():
    from nicheloop import resources

    content = resources.yaml("annotation_labels.yaml")
    for label, types in content["labels"].items():
        assert types[0] in MAJOR and label == label.lower() and "_" not in label, label
        assert len(types) == 1 or MINOR[types[1]].parent == types[0], label
    assert {name for _, name in content["words"]} <= {*MAJOR, ""}


def test_run_without_any_cell(tmp_path):
    none = sample(tmp_path, "s1", ["t_nk"] * 8, passed=np.zeros(8, dtype=bool))
    assert io.read_status(none).status == "no_cells"
    clusters = clusters_table(tmp_path / "clusters.parquet", [], [])
    run([none], clusters, tmp_path / "out.parquet", [])
    assert io.read_status(tmp_path / "out.parquet").status == "no_cells"


def test_run_without_neighbours_uses_the_cells(tmp_path):
    one = sample(tmp_path, "s1", ["t_nk"] * 12)
    clusters = clusters_table(tmp_path / "clusters.parquet", [], [])
    run([one], clusters, tmp_path / "out.parquet", [])
    table = io.read_table(tmp_path / "out.parquet")
    assert (table["cell_type"] == "t_nk").all() and set(table["cluster"]) == {"none"}


LABELS = {
    "Endothelial cells": "endothelial", "Epithelial cells": "epithelial", "Fibroblast": "caf", "Monocytes": "myeloid",
    "NK cells": "t_nk", "Pericytes": "pvl", "T cell": "t_nk", "Adipocyte": "adipocyte",
}  # fmt: skip


@pytest.mark.parametrize("number", [1, 2])
def test_normal_breast_with_labels(real_data, number):
    """Cells and nuclei of normal breast, alone and with their neighbours."""
    from scipy.io import mmread

    folder = real_data / "normals" / f"sample{number}"
    counts = sparse.csr_matrix(mmread(folder / "matrix.mtx.gz").T)
    names = pd.read_csv(folder / "features.tsv.gz", sep="\t", header=None)[1]
    barcodes = pd.read_csv(folder / "barcodes.tsv.gz", sep="\t", header=None)[0]
    labels = pd.read_csv(folder.parent / f"phenodata_sample{number}.txt", sep="\t").set_index("cellid")["celltype"]
    unique = ~names.duplicated().to_numpy()
    resolved = genes.resolve_features(names[unique].tolist()).symbols
    single = ~pd.Series(resolved).duplicated().to_numpy()
    counts, known = counts[:, unique][:, single], list(resolved[single])
    truth = labels.loc[barcodes].map(LABELS).to_numpy()
    table = annotate.cell_evidence(counts, known, OPTIONS)
    own = annotate.annotate(table, alone(len(table)), OPTIONS)["cell_type"].to_numpy()
    assert (own == truth).mean() >= 0.75
    near = nearest_others(components(counts))
    called = annotate.annotate(table, near, OPTIONS)["cell_type"].to_numpy()
    assert (called == truth).mean() >= max(0.9, (own == truth).mean())
    assert (called == "unresolved").mean() <= 0.04
    # The same matrix under Ensembl ids gives the same types: names are settled before anything is compared.
    ids = [genes.ensembl_id(g) or g for g in known]
    again = genes.resolve_features(ids).symbols
    other = annotate.cell_evidence(counts, list(again), OPTIONS)
    assert (annotate.annotate(other, near, OPTIONS)["cell_type"].to_numpy() == called).mean() > 0.99
