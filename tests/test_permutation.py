"""Sums under permuted labels: against dense arithmetic, for any chunking, thread count and order."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import chisquare

from nicheloop import kernels
from nicheloop import permutation as pm


def random_counts(cells=70, genes=9, seed=0):
    rng = np.random.default_rng(seed)
    return sparse.csr_matrix(rng.poisson(rng.gamma(0.4, 2.0, genes), (cells, genes)).astype(np.float32))


def random_labels(cells, n, groups=4, seed=1):
    return np.random.default_rng(seed).integers(0, groups, (cells, n)).astype(np.uint8)


def dense_sums(x, labels, groups):
    """(genes, groups, labelings) by the definition."""
    one = (labels[:, None, :] == np.arange(groups)[None, :, None]).astype(float)
    return np.einsum("cg,ckl->gkl", np.asarray(x.todense(), dtype=float), one)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 130])
def test_group_sums_are_the_dense_sums_for_any_number_of_labelings(n):
    x, labels = random_counts(), random_labels(70, n)
    columns = pm.Columns.of(x, counts=True)
    got = [part for _, part in pm.group_sums(columns, labels, 4, positive=True)]
    total, positive = pm.split(np.concatenate(got, axis=2))
    np.testing.assert_array_equal(total, dense_sums(x, labels, 4))
    np.testing.assert_array_equal(positive, dense_sums(x > 0, labels, 4))
    starts = [start for start, _ in pm.group_sums(columns, labels, 4)]
    assert starts == list(range(0, n, 64))


def test_common_and_rare_genes_of_many_cells_have_the_same_sums_by_either_way(monkeypatch):
    """More cells than a chunk, more genes than a block, one group that is often empty, values near the limit."""
    rng = np.random.default_rng(3)
    cells, genes = 2_500, 150
    share = np.concatenate([np.full(10, 0.02), np.linspace(0.05, 1.0, genes - 10)])
    values = np.where(rng.random((cells, genes)) < share, rng.gamma(2.0, 1.0, (cells, genes)), 0.0).astype(np.float32)
    values[7, 20] = 15.9  # 8 of these would just fit
    labels = rng.choice(4, (cells, 64), p=[0.3, 0.6, 0.0999, 0.0001]).astype(np.uint8)
    columns = pm.Columns.of(sparse.csr_matrix(values), counts=False)
    found = pm.sums(columns, labels, 4)
    np.testing.assert_array_equal(
        found, dense_sums(sparse.csr_matrix(np.rint(values.astype(float) * columns.scale)), labels, 4)
    )
    monkeypatch.setattr(pm, "LISTED", 2)  # three chunks, listed two at a time
    np.testing.assert_array_equal(pm.sums(columns, labels, 4), found)
    monkeypatch.setattr(pm, "DENSE", 2.0)
    np.testing.assert_array_equal(found, pm.sums(columns, labels, 4))


def test_observed_sums_are_the_sums_of_one_labelling():
    x, labels = random_counts(), random_labels(70, 1)
    total, positive = pm.observed_sums(pm.Columns.of(x, counts=True), labels[:, 0], 4)
    np.testing.assert_array_equal(total, dense_sums(x, labels, 4)[:, :, 0])
    np.testing.assert_array_equal(positive, dense_sums(x > 0, labels, 4)[:, :, 0])


@pytest.mark.parametrize("threads", [1, 2])
def test_columns_take_genes_and_cells_and_one_more_column(threads):
    x = random_counts(seed=3)
    genes, kept = [5, 0, 7], np.arange(70) % 3 > 0
    extra = np.arange(kept.sum(), dtype=float)
    columns = pm.Columns.of(x, genes, kept, counts=True, extra=extra, threads=threads)
    dense = np.zeros((int(kept.sum()), 4))
    for gene in range(4):
        part = slice(columns.start[gene], columns.stop[gene])
        dense[columns.cells[part], gene] = columns.values[part]
        assert np.all(np.diff(columns.cells[part]) > 0)  # in the order of cells, whatever the threads
    np.testing.assert_array_equal(dense, np.column_stack([x[kept][:, genes].todense(), extra]))
    few = columns.take(np.array([2, 0]))
    labels = random_labels(int(kept.sum()), 64)
    np.testing.assert_array_equal(pm.sums(few, labels, 4), pm.sums(columns, labels, 4)[[2, 0]])
    assert np.shares_memory(few.values, columns.values)


def test_fractions_are_kept_to_three_parts_in_a_hundred_million():
    x = random_counts()
    x.data = np.log1p(x.data * 0.37).astype(np.float32)
    columns = pm.Columns.of(x, counts=False)
    by_gene = x.tocsc()
    assert columns.scale == 2**24
    assert np.abs(columns.values / columns.scale - by_gene.data).max() <= 2**-25
    large = by_gene.data >= 0.5
    np.testing.assert_array_equal((columns.values / columns.scale)[large], by_gene.data[large])


def test_stored_zeros_are_not_cells_with_a_count():
    x = sparse.csr_matrix((np.array([0.0, 2.0]), np.array([0, 0]), np.array([0, 1, 2])), shape=(2, 1))
    _, positive = pm.observed_sums(pm.Columns.of(x, counts=True), np.zeros(2, np.uint8), 1)
    assert positive.tolist() == [[1]]


def test_large_counts_do_not_overflow():
    x = sparse.csr_matrix(np.full((3000, 1), 2.0**30))
    total, positive = pm.split(pm.sums(pm.Columns.of(x, counts=True), np.zeros((3000, 64), np.uint8), 1, positive=True))
    assert set(total.ravel()) == {3000 * 2**30} and set(positive.ravel()) == {3000}


@pytest.mark.parametrize(
    ("values", "counts", "message"),
    [([-1.0], True, "from -1"), ([np.nan], False, "finite"), ([np.inf], False, "expected 0"), ([0.5], True, "whole")],
)
def test_values_that_cannot_be_summed_are_refused(values, counts, message):
    with pytest.raises(ValueError, match=message):
        pm.Columns.of(sparse.csr_matrix(np.array([values])), counts=counts)


def test_labels_that_do_not_fit_are_refused():
    columns = pm.Columns.of(random_counts(), counts=True)
    with pytest.raises(ValueError, match="not below 3"):
        pm.sums(columns, np.full((70, 64), 3, np.uint8), 3)
    with pytest.raises(ValueError, match="labels are"):
        pm.sums(columns, np.zeros((69, 64), np.uint8), 3)
    with pytest.raises(ValueError, match="groups"):
        pm.sums(columns, np.zeros((70, 64), np.uint8), 256)


# ------------------------------------------------------------------------------------------------------------ permutations
def reference_shuffle(labels, state):
    """xoshiro256++ and Lemire's draws in plain integers, after the published descriptions."""
    mask = (1 << 64) - 1

    def rotate(v, k):
        return ((v << k) | (v >> (64 - k))) & mask

    s, out = [int(v) for v in state], list(labels)

    def draw():
        result = (rotate((s[0] + s[3]) & mask, 23) + s[0]) & mask
        t = (s[1] << 17) & mask
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = rotate(s[3], 45)
        return result >> 32

    for i in range(len(out) - 1, 0, -1):
        while True:
            product = draw() * (i + 1)
            if product % 2**32 >= 2**32 % (i + 1):
                break
        j = product >> 32
        out[i], out[j] = out[j], out[i]
    return out


def test_shuffle_follows_the_published_generator():
    labels = np.arange(200, dtype=np.uint8)
    states = pm.seeds(7, 3, 5)
    got = pm.permuted_labels(labels, states)
    for lane in range(5):
        assert got[:, lane].tolist() == reference_shuffle(labels, states[lane])
    assert not got[:, 5:].any()  # lanes without a permutation


def test_all_orders_are_equally_likely():
    labels = np.arange(4, dtype=np.uint8)
    states = pm.seeds(11, 0, 64 * 75)
    orders = Counter()
    for start in range(0, len(states), 64):
        orders.update(map(tuple, pm.permuted_labels(labels, states[start : start + 64]).T.tolist()))
    assert set(orders) == set(itertools.permutations(range(4)))
    assert chisquare(list(orders.values())).pvalue > 1e-3


def test_a_permutation_depends_on_its_number_and_not_on_how_many_there_are():
    np.testing.assert_array_equal(pm.seeds(0, 1, 10), pm.seeds(0, 1, 1000)[:10])
    assert len({tuple(s) for s in np.vstack([pm.seeds(0, 1, 500), pm.seeds(1, 1, 500), pm.seeds(0, 2, 500)])}) == 1500


def two_sides(sums):
    return sums[:4].astype(float), sums[4:8].astype(float)


@pytest.mark.parametrize("multiply", [False, True])
def test_counts_are_the_same_for_any_threads_and_equal_a_plain_loop(multiply, monkeypatch):
    x, labels = random_counts(seed=5), random_labels(70, 1)[:, 0]
    columns = pm.Columns.of(x, counts=True)
    rows = np.array(list(itertools.product(range(4), range(3), range(4), range(3))), dtype=np.int32)
    seen = dense_sums(x, labels[:, None], 4)[:, :, 0]
    left, right = seen[rows[:, 0], rows[:, 1]], seen[4 + rows[:, 2], rows[:, 3]]
    observed = left * right if multiply else left + right
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    got = [
        pm.count_extreme(columns, pm.drawn(labels, 150, seed=2, stream=1), 150, 4, two_sides, rows, observed,
                         multiply=multiply, threads=threads)
        for threads in (1, 2, 3)
    ]  # fmt: skip
    states = pm.seeds(2, 1, 150)
    null = dense_sums(x, np.array([reference_shuffle(labels, s) for s in states]).T, 4)
    left, right = null[rows[:, 0], rows[:, 1]], null[4 + rows[:, 2], rows[:, 3]]
    expected = ((left * right if multiply else left + right) >= observed[:, None]).sum(axis=1)
    for hits in got:
        np.testing.assert_array_equal(hits, expected)
    assert 0 < expected.min() < expected.max()
    given = np.array([reference_shuffle(labels, s) for s in states], dtype=np.uint8).T
    again = pm.count_extreme(columns, pm.given(given), 150, 4, two_sides, rows, observed, multiply=multiply)
    np.testing.assert_array_equal(again, expected)


def test_no_rows_no_work():
    columns = pm.Columns.of(random_counts(), counts=True)
    nothing = np.empty((0, 4), dtype=np.int32)
    assert pm.count_extreme(columns, None, 10, 4, two_sides, nothing, np.empty(0), multiply=True).size == 0


def test_overlapping_populations_are_sums_of_atoms():
    rng = np.random.default_rng(0)
    masks = rng.random((70, 3)) < 0.4
    masks[:, 2] = masks[:, 0] & (rng.random(70) < 0.5)  # one lies in another
    labels, member = pm.atoms(masks)
    x = random_counts()
    total, _ = pm.observed_sums(pm.Columns.of(x, counts=True), labels, len(member))
    np.testing.assert_array_equal(total @ member, x.T @ masks.astype(float))
    bits = np.arange(2**9)
    with pytest.raises(ValueError, match="combinations"):
        pm.atoms(((bits[:, None] >> np.arange(9)) & 1).astype(bool))


def test_population_sums_equal_sums_over_permuted_members():
    rng = np.random.default_rng(0)
    masks, totals, x = rng.random((70, 3)) < 0.4, rng.integers(500, 9000, 70).astype(float), random_counts()
    parts = pm.population_sums(x, totals, masks, 100, np.random.default_rng(3))
    umi, positive, total = (np.concatenate(p) for p in zip(*parts, strict=True))
    dense, again = np.asarray(x.todense()), np.random.default_rng(3)
    for k in range(100):
        moved = masks[again.permutation(70)].astype(float).T
        np.testing.assert_array_equal(umi[k], moved @ dense)
        np.testing.assert_array_equal(positive[k], moved @ (dense > 0))
        np.testing.assert_array_equal(total[k], moved @ totals)


def test_threads_stay_within_what_is_granted(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert [pm.granted(n) for n in (0, 1, 2, 64)] == [1, 1, 2, 2]


# ------------------------------------------------------------------------------------------------------------ compilation
def test_compiled_loops_do_what_their_python_text_says():
    x, labels = random_counts(), random_labels(70, 64)
    columns = pm.Columns.of(x, counts=True)
    plain = np.zeros((columns.n_genes, 4 * 64), dtype=np.int64)
    kernels.add_up(columns.values, columns.cells, columns.start, columns.stop, labels, np.int64(0), plain)
    np.testing.assert_array_equal(plain.reshape(-1, 4, 64), pm.sums(columns, labels, 4))


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "NUMBA_CACHE_DIR"])
def test_compiled_loops_are_kept_on_disk(tmp_path, variable):
    environment = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    code = (
        "import numpy as np, numba; before = numba.config.CACHE_DIR;"
        "from nicheloop import kernels;"
        "kernels.compiled(kernels.count)(*[np.ones((1, 1, 64))] * 2, np.zeros((1, 4), np.int32), np.ones(1), 64, False,"
        " np.zeros(1, np.int64)); assert numba.config.CACHE_DIR == before"
    )
    subprocess.run([sys.executable, "-c", code], env={**environment, variable: str(tmp_path)}, check=True)
    assert list(tmp_path.rglob("*.nbc"))


def test_threads_that_ask_for_loops_at_once_keep_them_in_the_one_folder(tmp_path, monkeypatch):
    import threading

    import numba

    seen, start = [], threading.Barrier(4)

    def njit(**options):
        def wrap(kernel):
            seen.append((kernel, numba.config.CACHE_DIR))
            time.sleep(0.05)  # the others come meanwhile
            seen.append((kernel, numba.config.CACHE_DIR))
            return kernel

        return wrap

    monkeypatch.setattr(numba, "njit", njit)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = [lambda: 1, lambda: 2]

    def ask(i):
        start.wait()
        kernels.compiled(asked[i % 2])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {folder for _, folder in seen} == {str(kernels.cache_folder())} and numba.config.CACHE_DIR == ""
    assert sorted(asked.index(kernel) for kernel, _ in seen) == [0, 0, 1, 1]  # each is wrapped once
