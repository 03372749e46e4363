from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from helpers import write_counts
from nicheloop import cli, embed, io, moments, neighbors, qc
from nicheloop.config_cells import Embed, Qc

KEEP_ALL = Qc(min_cells_doublets=10**6, min_counts_floor=0, min_counts_cap=0, min_genes_floor=0, min_genes_cap=0)
OPTIONS = Embed(n_hvg=150, n_pcs=10, umap_epochs=50, stability_runs=2)


def cohort(sizes, *, genes=400, types=4, seed=0, shift=0.3):
    """Counts per sample and the kind of every cell; samples differ by a factor per gene."""
    rng = np.random.default_rng(seed)
    profile = rng.gamma(0.5, 1, genes) * np.exp(
        1.5 * rng.normal(0, 1, (types, genes)) * (rng.random((types, genes)) < 0.2)
    )
    out = []
    for n in sizes:
        p = profile * np.exp(rng.normal(0, shift, genes))
        p /= p.sum(axis=1, keepdims=True)
        kind = np.arange(n) % types
        out.append(
            (
                sparse.csr_matrix(rng.poisson(p[kind] * 2500.0 * np.exp(rng.normal(0, 0.3, (n, 1)))), dtype=np.float32),
                kind,
            )
        )
    return out


def names(n):
    return [f"G{i:03d}" for i in range(n)]


def table_of(x, genes):
    positive, mean, variance = moments.gene_moments(x, np.asarray(x.sum(axis=1, dtype=float)).ravel())
    return pd.DataFrame(
        {"gene": genes, "n_cells": x.shape[0], "n_positive": positive, "mean": mean, "variance": variance}
    )


def prepare(folder, samples, genes=None):
    """Write counts, qc and moments of samples; (counts, qc, hvg) paths."""
    counts, filtered, moment = [], [], []
    for i, (x, _) in enumerate(samples):
        symbols = (genes or {}).get(i, names(x.shape[1]))
        counts.append(write_counts(folder / f"s{i}", x, symbols, sample=f"s{i}"))
        filtered.append(folder / f"s{i}" / "qc.parquet")
        moment.append(folder / f"s{i}" / "moments.parquet")
        qc.run_qc(counts[-1], filtered[-1], options=KEEP_ALL, seed=0)
        moments.run_moments(counts[-1], filtered[-1], moment[-1])
    embed.run_hvg(moment, folder / "hvg.parquet", options=OPTIONS)
    return counts, filtered, folder / "hvg.parquet"


def run(folder, counts, filtered, hvg, *, options=OPTIONS, seed=0):
    out = [folder / f"{name}.parquet" for name in ("embedding", "clusters", "neighbors")]
    embed.run_embed(counts, filtered, hvg, *out, options=options, kept=5, seed=seed)
    return io.read_table(out[0]), io.read_table(out[1]), io.read_status(out[0])


# ---------------------------------------------------------------------------------------------------- variable genes
def test_variable_genes_equal_scanpy():
    import anndata as ad
    import scanpy as sc

    samples = cohort([150, 90, 200], genes=900)
    hidden = np.where((np.arange(900) >= 100) & (np.arange(900) < 140), 0, 1)  # not expressed in one sample
    samples[1] = (sparse.csr_matrix(samples[1][0].multiply(hidden)), samples[1][1])
    genes = names(900)
    data = ad.AnnData(sparse.vstack([x for x, _ in samples]).tocsr().astype(np.float64))
    data.var_names = genes
    data.obs["sample"] = pd.Categorical(np.repeat(["s0", "s1", "s2"], [150, 90, 200]))
    sc.pp.normalize_total(data, target_sum=1e4)
    sc.pp.log1p(data)
    sc.pp.highly_variable_genes(data, flavor="seurat", n_top_genes=120, batch_key="sample")
    ours = embed.variable_genes([table_of(x, genes) for x, _ in samples], n_top=120).set_index("gene").loc[genes]
    np.testing.assert_allclose(ours["dispersion_norm"], data.var["dispersions_norm"], atol=1e-6)
    np.testing.assert_array_equal(ours["n_samples_variable"], data.var["highly_variable_nbatches"])
    assert set(ours.index[ours["variable"]]) == set(data.var_names[data.var["highly_variable"]])


def test_absent_gene_counts_like_one_without_counts():
    samples = cohort([120, 120], genes=300)
    genes = names(300)
    first, second = (table_of(x, genes) for x, _ in samples)
    second.loc[:49, ["n_positive", "mean", "variance"]] = 0
    whole = embed.variable_genes([first, second], n_top=60)
    part = embed.variable_genes([first.sample(frac=1, random_state=0), second.iloc[50:]], n_top=60)
    pd.testing.assert_frame_equal(whole, part)


def test_technical_genes_are_never_variable():
    ((x, _),) = cohort([200], genes=300)
    genes = names(300)
    full = embed.variable_genes([table_of(x, genes)], n_top=50)
    top = full.sort_values("dispersion_norm")["gene"].tail(5).tolist()
    renamed = [dict(zip(top, ["MT-CO1", "RPL3", "IGHV1-2", "TRBV9", "IGKJ5"], strict=True)).get(g, g) for g in genes]
    table = embed.variable_genes([table_of(x, renamed)], n_top=50)
    assert table["variable"].sum() == 50
    assert not table.set_index("gene").loc[["MT-CO1", "RPL3", "IGHV1-2", "TRBV9", "IGKJ5"], "variable"].any()
    assert set(full.loc[full["variable"], "gene"]) - set(top) < set(table.loc[table["variable"], "gene"])


def test_hvg_leaves_small_and_failed_samples_out(tmp_path):
    (big, _), (small, _) = cohort([60, 6])
    for name, x in (("big", big), ("small", small)):
        io.write_table(table_of(x, names(400)), tmp_path / name, "moments")
    from nicheloop import tables

    io.write_table(tables.empty("moments"), tmp_path / "none", "moments", io.Status("moments", "x", "no_cells", "none"))
    embed.run_hvg([tmp_path / p for p in ("big", "small", "none")], tmp_path / "hvg.parquet", options=OPTIONS)
    assert io.read_status(tmp_path / "hvg.parquet").summary["n_samples_voting"] == 1
    assert io.read_table(tmp_path / "hvg.parquet")["variable"].sum() == 150
    embed.run_hvg([tmp_path / "small"], tmp_path / "hvg.parquet", options=OPTIONS)
    assert io.read_status(tmp_path / "hvg.parquet").summary["n_samples_voting"] == 1
    embed.run_hvg([tmp_path / "none"], tmp_path / "hvg.parquet", options=OPTIONS)
    assert io.read_status(tmp_path / "hvg.parquet").status == "no_cells"


# -------------------------------------------------------------------------------------------------------- components
def test_files_of_all_samples_are_named_by_their_samples(tmp_path):
    _, _, hvg = prepare(tmp_path / "a {folder}", cohort([30, 25, 20]))
    config = json.dumps({"embed": OPTIONS.model_dump()})
    again = tmp_path / "again.parquet"
    moments_ = str(tmp_path / "a {folder}" / "{sample}" / "moments.parquet")
    words = ["hvg", "--moments", moments_, "--samples", "s0,s1,s2", "--out", str(again), "--config", config]
    assert cli.main(words) == 0
    assert again.read_bytes() == hvg.read_bytes()


def test_components_equal_scikit_learn():
    from sklearn.decomposition import PCA

    x = np.random.default_rng(0).gamma(1, 1, (500, 60)) @ np.random.default_rng(1).normal(0, 1, (60, 60)) + 5
    parts = [sparse.csr_matrix(x[:100]), sparse.csr_matrix(x[100:101]), sparse.csr_matrix(x[101:])]
    loadings, variances = neighbors.principal_axes(*neighbors.gram(parts, 60), 12)
    oracle = PCA(12, svd_solver="full").fit(x)
    np.testing.assert_allclose(variances, oracle.explained_variance_, rtol=1e-6)
    np.testing.assert_allclose(np.abs((loadings * oracle.components_.T).sum(axis=0)), 1, rtol=1e-9)
    assert (loadings[np.abs(loadings).argmax(axis=0), range(12)] > 0).all()


@given(seed=st.integers(0, 2**16), density=st.floats(0.0, 1.0), rows=st.integers(1, 40))
def test_sums_of_components_equal_dense_products(seed, density, rows):
    rng = np.random.default_rng(seed)
    x = sparse.random(rows, 9, density=density, random_state=seed, dtype=np.float32, format="csr")
    back = np.concatenate([np.arange(a, b)[::-1] for a, b in itertools.pairwise(x.indptr)]).astype(int)
    twice = np.repeat(back, 2)  # genes in falling order, each in two halves, as a matrix may come
    messy = sparse.csr_matrix((x.data[twice] / 2, x.indices[twice], 2 * x.indptr), shape=x.shape)
    cut = rng.integers(0, rows + 1)
    dense = x.toarray().astype(np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "BLOCK", 7)
        found = [neighbors.gram([messy[:cut], messy[cut:]], 9, threads) for threads in (1, 2)]
    for total, sums, n in found:
        np.testing.assert_allclose(total, dense.T @ dense, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(sums, dense.sum(axis=0), rtol=1e-6, atol=1e-9)
        assert n == rows
    np.testing.assert_array_equal(found[0][0], found[1][0])


def test_embed_components_equal_pca_of_the_lognormalised_cohort(tmp_path):
    from sklearn.decomposition import PCA

    samples = cohort([90, 120])
    samples[1] = (samples[1][0][:, 40:], samples[1][1])  # forty genes absent from the second
    counts, filtered, hvg = prepare(tmp_path, samples, {1: names(400)[40:]})
    table, _, status = run(tmp_path, counts, filtered, hvg)
    chosen = io.read_table(hvg).query("variable")["gene"].tolist()
    assert set(chosen) & set(names(40)), "the test needs an absent variable gene"
    whole = [x.toarray() for x, _ in samples]
    whole[1] = np.hstack([np.zeros((120, 40)), whole[1]])
    whole = np.vstack([np.log1p(w / w.sum(axis=1, keepdims=True) * 1e4) for w in whole])
    oracle = PCA(10, svd_solver="full")
    scores = oracle.fit_transform(whole[:, [names(400).index(g) for g in chosen]])
    np.testing.assert_allclose(status.summary["variance"], oracle.explained_variance_, rtol=2e-6)
    ours = table[[f"pc_{i}" for i in range(1, 11)]].to_numpy()
    assert (np.abs([np.corrcoef(ours[:, i], scores[:, i])[0, 1] for i in range(4)]) > 0.9999).all()
    assert table["cell_id"].tolist() == [c for p in counts for c in io.Counts(p).cell_ids]


# -------------------------------------------------------------------------------------------------------- neighbours
def test_neighbours_and_weights_equal_brute_force_and_umap():
    from sklearn.metrics import pairwise_distances

    umap_ = pytest.importorskip("umap.umap_")

    x = np.random.default_rng(0).normal(0, 1, (300, 8))
    indices, distances = neighbors.nearest(x, 15)
    full = pairwise_distances(x)
    np.testing.assert_array_equal(indices, np.argsort(full, axis=1)[:, :15])
    np.testing.assert_allclose(distances, np.sort(full, axis=1)[:, :15], atol=1e-7)
    graph = neighbors.fuzzy_graph(indices, distances)
    # what scanpy calls, without half a minute of compilation
    single = distances.astype(np.float32)
    sigma, rho = umap_.smooth_knn_dist.py_func(single, 15.0)
    rows, columns, values, _ = umap_.compute_membership_strengths.py_func(indices, single, sigma, rho)
    one = sparse.csr_matrix((values, (rows, columns)), shape=(300, 300))
    one.eliminate_zeros()
    theirs = one + one.T - one.multiply(one.T)
    assert graph.nnz == theirs.nnz
    np.testing.assert_allclose(graph.toarray(), theirs.toarray(), atol=2e-5)
    assert abs(graph - graph.T).max() == 0 and graph.diagonal().sum() == 0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 12), k=st.integers(2, 6), places=st.integers(1, 12))
def test_scales_are_those_of_umap_also_where_cells_share_a_place(seed, n, k, places):
    umap_ = pytest.importorskip("umap.umap_")
    rng = np.random.default_rng(seed)
    x = rng.normal(0, rng.choice([1e-3, 1.0, 1e3]), (places, 2))[rng.integers(0, places, n)]
    _, distances = neighbors.nearest(x, k)
    offset, scale = neighbors.scales(distances)
    theirs, rho = umap_.smooth_knn_dist.py_func(distances, float(distances.shape[1]))
    np.testing.assert_allclose(offset, rho, rtol=1e-6)
    apart = offset > 0  # else all weights are 1, whatever the scale
    weights, known = (np.exp(-np.maximum(distances - offset[:, None], 0) / s[:, None])[apart] for s in (scale, theirs))
    np.testing.assert_allclose(weights, known, atol=2e-5)
    assert (scale > 0).all()


def test_a_neighbour_that_is_not_there_has_no_weight():
    x = np.random.default_rng(0).normal(size=(30, 3))
    indices, distances = neighbors.nearest(x, 6)
    less = neighbors.fuzzy_graph(indices[:, :5], distances[:, :5])
    indices[:, 5], distances[:, 5] = -1, np.inf
    graph = neighbors.fuzzy_graph(indices, distances)
    assert (graph != 0).astype(int).toarray().tolist() == (less != 0).astype(int).toarray().tolist()
    assert np.isfinite(graph.data).all() and graph.max() == 1


def test_identical_cells_and_few_cells():
    x = np.repeat(np.random.default_rng(0).normal(0, 1, (3, 4)), 30, axis=0)
    indices, distances = neighbors.nearest(x, 15)
    assert (indices[:, 0] == np.arange(90)).all() and (distances == 0).all()
    assert all(len(set(row)) == 15 for row in indices.tolist())
    assert np.isfinite(neighbors.fuzzy_graph(indices, distances).data).all()
    for n in (1, 2, 5):
        indices, distances = neighbors.nearest(x[:n], 15)
        assert indices.shape == (n, n)
        assert neighbors.fuzzy_graph(indices, distances).shape == (n, n)


def test_above_nine_thousand_cells_exact_and_hnsw():
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(0)
    x = rng.normal(0, 4, (12, 20))[rng.integers(0, 12, 9500)] + rng.normal(0, 1, (9500, 20))
    with neighbors.one_thread():
        indices, distances = neighbors.nearest(x, 15)
        rough, _ = neighbors.nearest(x, 15, exact=False)
    some = rng.choice(9500, 300, replace=False)
    expected, where = NearestNeighbors(n_neighbors=15, algorithm="brute").fit(x).kneighbors(x[some])
    np.testing.assert_array_equal(indices[some], where)
    np.testing.assert_allclose(distances[some], expected, atol=1e-6)
    assert np.mean([len(set(a) & set(b)) for a, b in zip(indices.tolist(), rough.tolist(), strict=True)]) > 0.98 * 15
    graph = neighbors.fuzzy_graph(indices, distances)
    assert graph.shape == (9500, 9500) and graph.nnz > 9500 * 14


@pytest.mark.parametrize("exact", [True, False])
def test_searches_in_parts_give_the_same_neighbours(exact, monkeypatch):
    x = np.random.default_rng(3).normal(size=(900, 5))
    whole = neighbors.nearest(x, 8, exact=exact)
    monkeypatch.setattr(neighbors, "QUERIES", 100)
    for threads in (1, 3):
        for a, b in zip(neighbors.nearest(x, 8, exact=exact, threads=threads), whole, strict=True):
            np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------------------------------------------------- clusters
def test_clusters_are_numbered_from_the_largest():
    assert embed.by_size(np.array([7, 7, 2, 2, 2, 9])).tolist() == [1, 1, 0, 0, 0, 2]
    assert embed.by_size(np.array([3, 1, 3, 1])).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("method", ["igraph", "leidenalg"])
def test_leiden_finds_planted_groups_and_repeats(method):
    rng = np.random.default_rng(0)
    kind = np.arange(240) % 4
    x = rng.normal(0, 6, (4, 6))[kind] + rng.normal(0, 1, (240, 6))
    graph = neighbors.fuzzy_graph(*neighbors.nearest(x, 10))
    found = embed.leiden(graph, [0.3], [1, 2, 3], method=method, n_iterations=4)[0.3]
    again = embed.leiden(graph, [0.3], [1, 2, 3], method=method, n_iterations=4)[0.3]
    np.testing.assert_array_equal(found.labels, again.labels)
    assert adjusted_rand_score(found.labels, kind) > 0.95 and found.stability > 0.95
    fine = embed.leiden(graph, [4.0], [1, 2], method=method, n_iterations=4)[4.0]
    assert fine.n_clusters > found.n_clusters


def test_large_graphs_go_to_igraph_which_reaches_as_much_of_the_same_quality():
    import igraph
    from scipy.sparse import triu

    assert [embed.implementation("auto", n, 100) for n in (99, 100)] == ["leidenalg", "igraph"]
    assert embed.implementation("leidenalg", 10**9, 100) == "leidenalg"
    rng = np.random.default_rng(1)
    x = rng.normal(0, 3, (8, 6))[np.arange(1600) % 8] + rng.normal(0, 1, (1600, 6))
    graph = neighbors.fuzzy_graph(*neighbors.nearest(x, 12))
    how = {"n_iterations": 4, "igraph_from": 100}
    auto, plain = (embed.leiden(graph, [1.0, 2.0], [1, 2], method=method, **how) for method in ("auto", "leidenalg"))
    upper = triu(graph, k=1).tocoo()
    oracle = igraph.Graph(n=1600, edges=np.column_stack([upper.row, upper.col]))  # neither implementation's own figure
    for r in (1.0, 2.0):
        quality = [
            oracle.modularity(c[r].labels.tolist(), weights=upper.data.tolist(), resolution=r) for c in (auto, plain)
        ]
        assert quality[0] > quality[1] - 0.005
        assert adjusted_rand_score(auto[r].labels, np.arange(1600) % 8) > 0.5
    assert adjusted_rand_score(auto[1.0].labels, plain[1.0].labels) > 0.95


def test_most_stable_resolution():
    def result(stability, n):
        return embed.Clustering(np.arange(10) % n, stability)

    assert embed.most_stable({0.5: result(0.9, 2), 1.0: result(0.99, 3), 2.0: result(0.98, 4)}, 0.02) == 2.0
    assert embed.most_stable({0.5: result(0.9, 2), 1.0: result(0.99, 3), 2.0: result(0.9, 4)}, 0.02) == 1.0
    assert embed.most_stable({0.5: result(1.0, 1), 1.0: result(0.7, 3)}, 0.02) == 1.0
    assert embed.most_stable({0.5: result(1.0, 1), 1.0: result(1.0, 1)}, 0.02) == 1.0


# --------------------------------------------------------------------------------------------------------------- map
def test_map_keeps_neighbours_together_and_repeats():
    rng = np.random.default_rng(0)
    kind = np.arange(300) % 5
    x = rng.normal(0, 5, (5, 8))[kind] + rng.normal(0, 1, (300, 8))
    graph = neighbors.fuzzy_graph(*neighbors.nearest(x, 15))
    y = embed.umap(graph, x, min_dist=0.4, n_epochs=200, seed=0)
    near, _ = neighbors.nearest(y, 11)
    assert (kind[near[:, 1:]] == kind[:, None]).mean() > 0.95
    np.testing.assert_array_equal(y, embed.umap(graph, x, min_dist=0.4, n_epochs=200, seed=0))
    assert not np.array_equal(y, embed.umap(graph, x, min_dist=0.4, n_epochs=200, seed=1))


def test_the_default_epochs_keep_as_many_neighbours_as_twice_as_many():
    rng = np.random.default_rng(3)
    x = rng.normal(0, 3, (8, 10))[np.arange(2000) % 8] + rng.normal(0, 1, (2000, 10)) @ rng.normal(0, 0.5, (10, 10))
    near = neighbors.nearest(x, 15)
    graph = neighbors.fuzzy_graph(*near)

    def kept(n_epochs):
        y = embed.umap(graph, x, min_dist=OPTIONS.umap_min_dist, n_epochs=n_epochs, seed=0)
        return np.mean([np.isin(a, b).mean() for a, b in zip(neighbors.nearest(y, 15)[0], near[0], strict=True)])

    default = Embed().umap_epochs
    assert kept(default) > 0.95 * kept(2 * default)


def test_one_cluster_of_cells_at_one_place_has_a_map():
    x = np.zeros((40, 3))
    y = embed.umap(neighbors.fuzzy_graph(*neighbors.nearest(x, 10)), x, min_dist=0.4, n_epochs=50, seed=0)
    assert np.isfinite(y).all()


# ------------------------------------------------------------------------------------------------------------- stage
def test_run_integrates_and_clusters_by_kind(tmp_path):
    samples = cohort([160, 160, 120], shift=0.5)
    table, clusters, status = run(tmp_path, *prepare(tmp_path, samples))
    kind = np.concatenate([k for _, k in samples])
    assert status.ok and status.summary["integrated"] and len(table) == len(clusters) == 440
    assert adjusted_rand_score(clusters["cluster"].astype(int).to_numpy(), kind) > 0.7
    assert clusters["cluster"].tolist() == clusters[f"leiden_{status.summary['resolution']}"].tolist()
    sizes = clusters["cluster"].value_counts()
    assert sizes.index[0] == "0" or sizes.iloc[0] == sizes["0"]
    assert table.filter(regex="umap|harmony|pc_").notna().all().all()
    harmony = table.filter(regex=r"harmony_\d+").to_numpy()
    batch = np.repeat([0, 1, 2], [160, 160, 120])

    def mixing(x):
        near, _ = neighbors.nearest(x, 15)
        return (batch[near[:, 1:]] != batch[:, None]).mean()

    assert mixing(harmony) > mixing(table.filter(regex=r"pc_\d+").to_numpy()) + 0.1


def test_run_does_not_depend_on_the_order_of_samples(tmp_path):
    counts, filtered, hvg = prepare(tmp_path, cohort([80, 60]))
    table, clusters, _ = run(tmp_path, counts, filtered, hvg)
    again, clusters2, _ = run(tmp_path, counts[::-1], filtered[::-1], hvg)
    assert again["sample"].iloc[0] == "s1"
    pd.testing.assert_frame_equal(
        again.set_index("cell_id").loc[table["cell_id"]].reset_index(), table, check_exact=True
    )
    assert clusters2.set_index("cell_id").loc[clusters["cell_id"]].reset_index().equals(clusters)


def test_the_neighbours_written_down_are_the_nearest_cells_of_the_same_table(tmp_path):
    counts, filtered, hvg = prepare(tmp_path, cohort([30, 25]))
    options = OPTIONS.model_copy(update={"min_cells_sample": 2, "n_neighbors": 4})  # fewer than are kept
    table, _, _ = run(tmp_path, counts[::-1], filtered[::-1], hvg, options=options)
    written = io.read_table(tmp_path / "neighbors.parquet")
    assert written["cell_id"].tolist() == table["cell_id"].tolist() and len(written.columns) == 2 + 5
    x = table.filter(regex=r"harmony_\d+").to_numpy()
    distance = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_array_equal(written.filter(like="neighbor_"), np.argsort(distance, axis=1)[:, :5])


def test_cells_that_are_not_drawn_lie_among_their_neighbours():
    rng = np.random.default_rng(0)
    island = np.repeat([0, 1, 2], 400)
    components = rng.normal(0, 0.5, (1200, 5)) + 10 * np.eye(3, 5)[island]
    some = embed.some_of(1200, 300, seed=1)
    assert len(set(some)) == 300 and (np.diff(some) > 0).all()
    chart = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])[island[some]] + rng.normal(0, 0.1, (300, 2))
    found = embed.placed(chart, components, some, 15)
    np.testing.assert_array_equal(found[some], chart)
    centre = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])[island]
    assert (np.linalg.norm(found - centre, axis=1) < 1).all()


def test_most_cells_of_a_map_can_be_placed(tmp_path):
    counts, filtered, hvg = prepare(tmp_path, cohort([700, 600]))
    whole = run(tmp_path, counts, filtered, hvg)[0]
    options = OPTIONS.model_copy(update={"map_cells": 300, "raw_map_cells": 200})
    part, clusters, _ = run(tmp_path, counts, filtered, hvg, options=options)
    kind = clusters["cluster"].to_numpy()
    same = [c for c in whole if not c.startswith("umap")]
    pd.testing.assert_frame_equal(part[same], whole[same])
    for maps in (part, whole):
        for x, y in (("umap_1", "umap_2"), ("umap_raw_1", "umap_raw_2")):
            near, _ = neighbors.nearest(maps[[x, y]].to_numpy(), 10)
            assert (kind[near[:, 1:]] == kind[:, None]).mean() > 0.8


def test_all_cells_are_drawn_where_there_are_few():
    assert embed.some_of(5, 1000, seed=0).tolist() == [0, 1, 2, 3, 4]
    chart = np.zeros((5, 2))
    assert embed.placed(chart, np.zeros((5, 3)), np.arange(5), 15) is chart


def test_same_bytes_with_one_and_many_threads(tmp_path):
    import faiss
    from threadpoolctl import threadpool_limits

    counts, filtered, hvg = prepare(tmp_path, cohort([120, 90]))
    options = OPTIONS.model_copy(update={"parallel_edges": 0})  # repeats of leiden in processes of their own
    written, before = [], faiss.omp_get_max_threads()
    for threads in (1, 4):
        out = [tmp_path / f"{threads}.{name}.parquet" for name in ("embedding", "clusters", "neighbors")]
        with threadpool_limits(threads):
            faiss.omp_set_num_threads(threads)
            embed.run_embed(counts, filtered, hvg, *out, options=options, kept=5, seed=3, threads=threads)
            assert faiss.omp_get_max_threads() == threads  # left as it was found
        written.append([p.read_bytes() for p in out])
    faiss.omp_set_num_threads(before)
    assert written[0] == written[1]


@pytest.mark.parametrize("sizes", [[1], [2], [3], [5], [14], [30], [1, 1], [40, 3], [0, 25]])
def test_few_cells(tmp_path, sizes):
    counts, filtered, hvg = prepare(tmp_path, cohort(sizes))
    table, clusters, status = run(tmp_path, counts, filtered, hvg)
    if max(sizes) < 2:  # no sample has a variance
        assert status.status == "no_variable_genes" and len(table) == len(clusters) == 0
        return
    assert status.ok and len(table) == len(clusters) == sum(sizes)
    near = io.read_table(tmp_path / "neighbors.parquet").filter(like="neighbor_")
    assert near.shape == (sum(sizes), min(5, sum(sizes) - 1)) and near.notna().all(axis=None)
    assert not status.summary["integrated"] and table["umap_raw_1"].isna().all()
    assert np.isfinite(table[["umap_1", "umap_2", "pc_1", "pc_2"]].to_numpy()).all()
    assert status.summary["n_pcs"] == min(10, sum(sizes) - 1)


def test_no_cells(tmp_path):
    counts, filtered, hvg = prepare(tmp_path, cohort([0, 0]))
    table, clusters, status = run(tmp_path, counts, filtered, hvg)
    assert (len(table), len(clusters), status.status) == (0, 0, "no_cells")


def test_integration_can_be_switched_off_and_hnsw_used(tmp_path):
    counts, filtered, hvg = prepare(tmp_path, cohort([60, 60]))
    options = OPTIONS.model_copy(update={"integrate": False, "exact_neighbors_below": 10})
    table, _, status = run(tmp_path, counts, filtered, hvg, options=options)
    assert status.summary["neighbors"] == "hnsw" and not status.summary["integrated"]
    np.testing.assert_array_equal(table.filter(regex=r"harmony_\d+"), table.filter(regex=r"pc_\d+"))


def test_two_samples_of_few_cells_integrate(tmp_path):
    counts, filtered, hvg = prepare(tmp_path, cohort([6, 5]))
    options = OPTIONS.model_copy(update={"min_cells_sample": 2})
    table, _, status = run(tmp_path, counts, filtered, hvg, options=options)
    assert status.summary["integrated"] and np.isfinite(table.filter(regex="harmony|umap").to_numpy()).all()
