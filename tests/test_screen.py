"""The screen: against a naive loop, against liana number by number, and the files."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import false_discovery_control, fisher_exact

from nicheloop import agreement, io, pair_screen, screen, tables
from nicheloop.config_niche import Crosstalk, Screen
from nicheloop.errors import UserError
from nicheloop.interactions import Interaction
from small_tumour import build

OPTIONS = Screen(method="cellphonedb", n_permutations=199, min_cells=10, threads=1)


def tumour(cells=240, seed=0, types=4, genes=40):
    """Counts with genes that differ between types, their names, types, and pairs of which a third are complexes."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, types, cells)
    profile = rng.gamma(0.8, 0.8, genes) * rng.lognormal(0, 0.8, (types, genes))
    x = rng.poisson(rng.lognormal(0, 0.4, cells)[:, None] * profile[kind])
    symbols = np.array([f"GENE{i:02d}" for i in range(genes)], dtype=object)
    pairs = []
    for i in range(30):
        a, b, c, d = rng.choice(symbols, 4, replace=False)
        pairs.append([((a,), (b,)), ((a,), (b, c)), ((a, d), (b, c)), ((a,), (d,))][i % 4])
    return (
        sparse.csr_matrix(x.astype(np.float32)),
        symbols,
        np.array([f"type{k}" for k in kind], dtype=object),
        sorted({Interaction(*p) for p in pairs}),
    )


def naive(values, symbols, labels, labelings, pairs, *, combine, side):
    """(pairs, types, types) observed score and times that a labelling reaches it, one number at a time."""
    column = {g: i for i, g in enumerate(symbols)}
    types = sorted(set(labels))

    def scores(names):
        means = {t: side(values[names == t]) for t in types}
        return np.array(
            [
                [
                    [
                        combine(min(means[s][column[g]] for g in p.ligand), min(means[r][column[g]] for g in p.receptor))
                        for r in types
                    ]
                    for s in types
                ]
                for p in pairs
            ]
        )  # fmt: skip

    seen = scores(labels)
    return seen, sum(scores(names) >= seen - 1e-9 for names in labelings)


def shuffled(labels, n, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.permutation(labels) for _ in range(n)]


def coded(labelings, types):
    return np.array([[types.index(t) for t in names] for names in labelings], dtype=np.uint8).T


def test_cellphonedb_statistic_equals_a_naive_loop_with_complexes_anew_in_each_permutation():
    x, symbols, labels, pairs = tumour()
    normal = io.lognormalise(x)
    names = sorted(set(labels))
    draws = shuffled(labels, 70)
    got = pair_screen.screen(normal, symbols, labels, pairs, OPTIONS, seed=0, labelings=coded(draws, names))
    dense = np.asarray(normal.todense(), dtype=float)
    seen, hits = naive(
        dense, symbols, labels, draws, pairs, combine=lambda a, b: (a + b) / 2, side=lambda v: v.mean(axis=0)
    )
    tested = (got["status"] == "tested").to_numpy()
    assert 100 < tested.sum() < len(tested)
    np.testing.assert_allclose(got["score"].to_numpy()[tested], seen.ravel()[tested], rtol=1e-6)
    np.testing.assert_array_equal(got["n_extreme"].to_numpy(dtype=float)[tested], hits.ravel()[tested])
    np.testing.assert_allclose(got["p"].to_numpy()[tested], (hits.ravel()[tested] + 1) / 71)
    # below the threshold exactly where a gene of the pair is in too few cells of its type
    column = {g: i for i, g in enumerate(symbols)}
    share = {t: (dense[labels == t] > 0).mean(axis=0) for t in names}
    wanted = [
        all(share[s][column[g]] >= 0.1 for g in p.ligand) and all(share[r][column[g]] >= 0.1 for g in p.receptor)
        for p in pairs
        for s, r in itertools.product(names, names)
    ]
    np.testing.assert_array_equal(tested, wanted)


def test_strength_equals_a_naive_loop_with_ambient_and_floor():
    x, symbols, labels, pairs = tumour(seed=1)
    names, draws = sorted(set(labels)), shuffled(labels, 70)
    ambient = np.linspace(0, 30, len(symbols))
    options = OPTIONS.model_copy(update={"method": "strength"})
    got = pair_screen.screen(
        x, symbols, labels, pairs, options, seed=0, floor=(15, 8), ambient=ambient, labelings=coded(draws, names)
    )
    dense = np.asarray(x.todense(), dtype=float)

    def side(v):
        mean = np.maximum(1e4 * v.sum(axis=0) / v.sum() - ambient, 0)
        return np.where((v.sum(axis=0) >= 15) & ((v > 0).sum(axis=0) >= 8), mean, 0.0)

    seen, hits = naive(dense, symbols, labels, draws, pairs, combine=lambda a, b: (a * b) ** 0.5, side=side)
    tested = (got["status"] == "tested").to_numpy()
    np.testing.assert_array_equal(tested, seen.ravel() > 0)
    assert 50 < tested.sum() < len(tested)
    np.testing.assert_allclose(got["score"].to_numpy()[tested], seen.ravel()[tested], rtol=1e-9)
    np.testing.assert_array_equal(got["n_extreme"].to_numpy(dtype=float)[tested], hits.ravel()[tested])


def test_the_result_does_not_depend_on_threads_or_the_order_of_genes():
    x, symbols, labels, pairs = tumour()
    normal = io.lognormalise(x)
    first = pair_screen.screen(normal, symbols, labels, pairs, OPTIONS, seed=4)
    order = np.random.default_rng(0).permutation(len(symbols))
    for other in (
        pair_screen.screen(normal, symbols, labels, pairs, OPTIONS, seed=4, threads=2),
        pair_screen.screen(normal[:, order].tocsr(), symbols[order], labels, pairs, OPTIONS, seed=4),
    ):
        pd.testing.assert_frame_equal(other, first)
    assert not first.equals(pair_screen.screen(normal, symbols, labels, pairs, OPTIONS, seed=5))


def test_no_row_is_dropped_and_each_obstacle_has_its_name():
    x, symbols, labels, pairs = tumour()
    labels = labels.copy()
    labels[np.flatnonzero(labels == "type3")[9:]] = ""  # nine cells left: too few; the others belong to no type
    pairs = [*pairs, Interaction(("NOPE",), ("GENE00",)), Interaction(("GENE00",), ("GENE01", "GONE"))]
    got = pair_screen.screen(io.lognormalise(x), symbols, labels, pairs, OPTIONS, seed=0)
    assert len(got) == len(pairs) * 16
    tables.conform(got, "screen")
    absent = got[got["status"] == "gene_absent_from_reference"]
    assert set(zip(absent["ligand"], absent["obstacle"], strict=True)) == {("NOPE", "NOPE"), ("GENE00", "GONE")}
    rest = got[got["status"] != "gene_absent_from_reference"]
    few = (rest["sender"] == "type3") | (rest["receiver"] == "type3")
    assert (rest.loc[few, "status"] == "too_few_cells").all() and (rest.loc[few, "obstacle"] == "type3").all()
    assert set(rest.loc[~few, "status"]) == {"tested", "below_threshold"}
    below = rest[rest["status"] == "below_threshold"]
    side = {
        (False, True): "ligand", (True, False): "receptor", (True, True): "both"
    }  # fmt: skip
    for row in below.itertuples():
        assert row.obstacle == side[row.receptor_fraction < 0.1, row.ligand_fraction < 0.1]
    untested = got[got["status"] != "tested"]
    assert untested[["score", "n_extreme", "p", "p_upper", "q", "q_tested"]].isna().all().all()
    # cells of no type, or of a type that is too small, take no part in the permutations
    used = np.isin(labels, ["type0", "type1", "type2"])
    alone = pair_screen.screen(io.lognormalise(x)[used], symbols, labels[used], pairs, OPTIONS, seed=0)
    np.testing.assert_array_equal(got["p"].dropna(), alone["p"].dropna())


def test_one_type_alone_cannot_be_permuted():
    x, symbols, labels, pairs = tumour()
    one = np.where(labels == "type0", "type0", "").astype(object)
    got = pair_screen.screen(io.lognormalise(x), symbols, one, pairs, OPTIONS, seed=0)
    assert set(got["status"]) == {"single_type", "below_threshold"} and got["p"].isna().all()
    nobody = pair_screen.screen(io.lognormalise(x), symbols, np.full(len(labels), "", object), pairs, OPTIONS, seed=0)
    assert len(nobody) == 0


def test_genes_are_found_under_their_other_names():
    assert pair_screen.positions(["CXCL8", "PPBP", "NOPE"], ["PPBP", "IL8"]) == {"CXCL8": 1, "PPBP": 0}


def test_p_is_never_zero_and_its_bound_holds_the_true_p():
    x, symbols, labels, pairs = tumour(seed=2)
    normal = io.lognormalise(x)
    got = pair_screen.screen(normal, symbols, labels, pairs, OPTIONS, seed=0)
    long = pair_screen.screen(
        normal, symbols, labels, pairs, OPTIONS.model_copy(update={"n_permutations": 20_000}), seed=1
    )
    tested = (got["status"] == "tested").to_numpy()
    assert got["p"].min() >= 1 / 200 and (got["p_upper"].dropna() >= got["p"].dropna() - 1e-12).mean() > 0.9
    missed = long["p"].to_numpy()[tested] > got["p_upper"].to_numpy()[tested]
    assert missed.mean() < 0.08  # a 95 % bound; rows share genes


@pytest.mark.parametrize("method", ["strength", "cellphonedb"])
def test_types_that_mean_nothing_are_not_significant_more_often_than_they_should(method):
    """Null: the type of a cell is drawn without regard to its counts."""
    options = OPTIONS.model_copy(update={"method": method})
    small = []
    for seed in range(12):
        x, symbols, labels, pairs = tumour(cells=200, seed=seed, types=3)
        labels = np.random.default_rng([seed, 1]).permutation(labels)
        values = x if method == "strength" else io.lognormalise(x)
        got = pair_screen.screen(values, symbols, labels, pairs, options, seed=seed)
        small.append((got["p"].dropna() <= 0.05).mean())
    assert 0.01 < np.mean(small) < 0.05 + 3 * np.std(small) / np.sqrt(len(small))  # rows of one sample share cells


# ------------------------------------------------------------------------------------------------------- against liana
def liana_on(x, symbols, labels, pairs, options, seed):
    pytest.importorskip("liana", reason="liana is not installed")
    found = agreement.liana_table(x, symbols, labels, pairs, options, seed)
    return found.astype(dict.fromkeys(agreement.KEYS, str))


def lianas_labelings(labels, n, seed):
    """The permutations liana draws: it moves the cells under fixed labels."""
    codes = np.unique(labels.astype(str), return_inverse=True)[1].astype(np.uint8)
    rng, out = np.random.default_rng(seed), np.empty((len(labels), n), dtype=np.uint8)
    for k in range(n):
        out[rng.permutation(np.arange(len(labels))), k] = codes
    return out


def merged(ours, theirs):
    ours = ours[ours["status"] == "tested"].astype(dict.fromkeys(agreement.KEYS, str))
    both = ours.merge(theirs, on=agreement.KEYS, how="outer", indicator=True)
    assert (both["_merge"] == "both").all()  # the same rows are tested
    complexes = both["ligand"].str.contains("_") | both["receptor"].str.contains("_")
    return both, complexes.to_numpy()


def test_liana_gives_the_same_numbers_with_the_same_permutations():
    x, symbols, labels, pairs = tumour(cells=400, seed=3)
    normal = io.lognormalise(x)
    theirs = liana_on(normal, symbols, labels, pairs, OPTIONS, 7)
    ours = pair_screen.screen(
        normal, symbols, labels, pairs, OPTIONS, seed=0, labelings=lianas_labelings(labels, 199, 7)
    )
    both, complexes = merged(ours, theirs)
    np.testing.assert_allclose(both["score"], both["lr_means"], atol=1e-5)
    difference = both["n_extreme"].to_numpy(dtype=float) - np.rint(both["cellphone_pvals"] * 199)
    assert (~complexes).sum() > 50 and complexes.sum() > 50
    np.testing.assert_array_equal(difference[~complexes], 0)  # single genes: the same permutations, the same count
    # complexes: liana keeps the observed limiting subunit, which in a permutation is never below the minimum
    assert (difference[complexes] <= 0).all() and (difference[complexes] < 0).any()


def test_the_difference_for_complexes_is_the_fixed_subunit():
    x, symbols, labels, pairs = tumour(cells=400, seed=3)
    normal = io.lognormalise(x)
    theirs = liana_on(normal, symbols, labels, pairs, OPTIONS, 7)
    dense, column = np.asarray(normal.todense(), dtype=float), {g: i for i, g in enumerate(symbols)}
    names = sorted(set(labels))
    draws = lianas_labelings(labels, 199, 7)
    null = np.stack([[dense[draws[:, k] == t].mean(axis=0) for t in range(len(names))] for k in range(199)])
    means = {t: dense[labels == t].mean(axis=0) for t in names}
    rows = theirs[theirs["ligand"].str.contains("_") | theirs["receptor"].str.contains("_")]
    for row in rows.itertuples():
        left = min(row.ligand.split("_"), key=lambda g: means[row.sender][column[g]])
        right = min(row.receptor.split("_"), key=lambda g: means[row.receiver][column[g]])
        fixed = (null[:, names.index(row.sender), column[left]] + null[:, names.index(row.receiver), column[right]]) / 2
        seen = (means[row.sender][column[left]] + means[row.receiver][column[right]]) / 2
        assert row.cellphone_pvals == pytest.approx((fixed >= seen - 1e-9).mean(), abs=1e-9)


def differences_are_drawn(both, single, n):
    """Fisher's exact test of every single-gene row at a level of 0.001 over all of them, and the overall spread."""
    a = both.loc[single, "n_extreme"].to_numpy(dtype=int)
    b = np.rint(both.loc[single, "cellphone_pvals"].to_numpy() * n).astype(int)
    counts, times = np.unique(np.column_stack([a, b]), axis=0, return_counts=True)
    p = np.repeat([fisher_exact([[i, n - i], [j, n - j]]).pvalue for i, j in counts], times)
    assert p.min() > 0.001 / len(p)
    assert (p < 0.05).mean() < 0.08


def test_liana_gives_the_same_p_within_the_error_of_drawn_permutations():
    x, symbols, labels, pairs = tumour(cells=400, seed=4)
    normal, options = io.lognormalise(x), OPTIONS.model_copy(update={"n_permutations": 1000})
    theirs = liana_on(normal, symbols, labels, pairs, options, 1)
    both, complexes = merged(pair_screen.screen(normal, symbols, labels, pairs, options, seed=1), theirs)
    np.testing.assert_allclose(both["score"], both["lr_means"], atol=1e-5)
    differences_are_drawn(both, ~complexes, 1000)


@pytest.mark.real
def test_liana_agrees_on_a_real_tumour(real_data):
    import scanpy as sc

    from nicheloop import interactions

    path = next((real_data / "tumours" / "tenx_idc").glob("*.h5"), None)
    if path is None:
        pytest.skip(f"no tumour below {real_data}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = sc.read_10x_h5(path)
    adata.var_names_make_unique()
    adata = adata[np.asarray(adata.X.sum(axis=1)).ravel() >= 2000]
    x = sparse.csr_matrix(adata.X, dtype=np.float32)
    normal, symbols = io.lognormalise(x), adata.var_names.to_numpy(dtype=object)
    markers = {"epithelial": "KRT19", "fibroblast": "COL1A2", "macrophage": "CD68", "immune": "PTPRC"}
    values = np.asarray(normal[:, [list(symbols).index(g) for g in markers.values()]].todense())
    labels = np.array(list(markers), dtype=object)[values.argmax(axis=1)]  # crude, and the same for both
    options = OPTIONS.model_copy(update={"n_permutations": 300})
    known = agreement.in_matrix(interactions.read(interactions.LIANA) if agreement.find_spec("liana") else [], symbols)
    theirs = liana_on(normal, symbols, labels, known, options, 2)
    both, complexes = merged(pair_screen.screen(normal, symbols, labels, known, options, seed=2), theirs)
    assert len(both) > 500
    np.testing.assert_allclose(both["score"], both["lr_means"], atol=1e-5)
    differences_are_drawn(both, ~complexes, 300)


# ------------------------------------------------------------------------------------------------------------ the files
def resource(folder):
    path = folder / "pairs.tsv"
    path.write_text("ligand\treceptor\nIL6\tIL6R_IL6ST\nCSF1\tCSF1R\nNOPE\tIL6R\n")
    return str(path)


def run(folder, **options):
    out = folder / "screen.parquet"
    section = Screen(n_permutations=199, resource=resource(folder), **options)
    inputs = [folder / f for f in ("counts.h5ad", "cell_types.parquet", "malignancy.parquet", "ambient.parquet")]
    screen.run_screen(*inputs, out, options=section, crosstalk=Crosstalk(), seed=0)
    return io.read_table(out), io.read_status(out)


@pytest.mark.parametrize("method", ["strength", "cellphonedb"])
def test_a_sample_is_screened_whatever_the_order_of_its_cells(tmp_path, method):
    build(tmp_path / "a", run=False)
    build(tmp_path / "b", run=False, shuffle=True)
    table, status = run(tmp_path / "a", method=method)
    again, _ = run(tmp_path / "b", method=method)
    pd.testing.assert_frame_equal(table, again)
    assert (
        status.ok and status.summary["n_pairs"] == 3 and status.summary["statuses"]["gene_absent_from_reference"] == 9
    )
    assert set(table["sender"]) == {"malignant", "caf", "myeloid"}
    found = table.set_index(["ligand", "sender", "receiver"])
    assert found.loc[("IL6", "caf", "malignant"), "p"] == 1 / 200
    assert found.loc[("CSF1", "malignant", "myeloid"), "p"] == 1 / 200
    one_sided = found.loc[("CSF1", "malignant", "caf")]  # the receptor is not specific: a mean of means does not mind
    if method == "strength":
        assert one_sided["status"] != "tested" or one_sided["p"] > 0.01
    else:
        assert one_sided["p"] <= 0.01


def test_a_sample_that_cannot_be_screened_says_why(tmp_path):
    build(tmp_path / "tpm", run=False, is_counts=False)
    table, status = run(tmp_path / "tpm")
    assert table.empty and status.status == "no_counts"
    build(tmp_path / "ok", run=False)
    io.write_table(tables.empty("cell_types"), tmp_path / "ok" / "cell_types.parquet", "cell_types")
    assert run(tmp_path / "ok")[1].status == "no_cells"
    build(tmp_path / "off", run=False)
    inputs = [
        tmp_path / "off" / f for f in ("counts.h5ad", "cell_types.parquet", "malignancy.parquet", "ambient.parquet")
    ]
    screen.run_screen(*inputs, tmp_path / "s.parquet", options=Screen(), crosstalk=Crosstalk(), seed=0)
    assert io.read_status(tmp_path / "s.parquet").status == "no_resource"


def test_labels_name_malignant_cells_and_leave_platelets_out():
    cells = pd.DataFrame(
        {
            "cell_type": [
                "epithelial",
                "epithelial",
                "epithelial",
                "myeloid",
                "platelet",
                "unresolved",
                "caf",
                "myeloid",
            ],
            "cell_type_minor": ["LumSec", "LumSec", "LumSec", "cDC2", "platelet", "unresolved", "iCAF", "cDC2"],
            "malignancy": ["malignant", "normal", "unassigned", "not_epithelial", None, None, "malignant", None],
            "platelet": [False, False, False, False, True, False, False, True],
        }
    )
    assert screen.cell_labels(cells, "major").tolist() == [
        "malignant", "epithelial", "epithelial_unassigned", "myeloid", "", "", "malignant", "",
    ]  # fmt: skip
    assert screen.cell_labels(cells, "minor").tolist()[:4] == ["malignant", "LumSec", "epithelial_unassigned", "cDC2"]


def test_agreement_on_a_finished_run(tmp_path, capsys):
    pytest.importorskip("liana", reason="liana is not installed")
    results = tmp_path / "results"
    for sample in ("s1", "s2"):
        build(results / "samples" / sample, run=False, sample=sample, is_counts=sample == "s1")
    (results / "cohort").mkdir()
    parts = [io.read_table(results / "samples" / s / "cell_types.parquet") for s in ("s1", "s2")]
    io.write_table(pd.concat(parts), results / "cohort" / "cell_types.parquet", "cell_types")
    out = results / "cohort" / "agreement.tsv"
    options = Screen(resource=resource(tmp_path), n_permutations=199)
    agreement.run_agreement(results, out, options=options, seed=0)
    table = io.read_table(out).set_index(["sample", "pairs"])
    assert table.loc[("s1", "single_gene"), "status"] == "ok" and table.loc[("s2", "complex"), "status"] == "no_counts"
    assert (table.loc["s1", "n_common"] == table.loc["s1", "n_ours"]).all() and table.loc["s1", "n_liana"].min() > 0
    assert table.loc["s1", "max_score_difference"].max() < 1e-5 and table.loc[("s1", "single_gene"), "max_z"] < 4
    assert "agreement.tsv" in capsys.readouterr().out
    with pytest.raises(UserError, match="no finished run"):
        agreement.run_agreement(tmp_path / "nowhere", out, options=options, seed=0)


def test_rows_below_the_threshold_are_part_of_the_family_unless_no_labelling_could_test_them():
    """A row that expression happened to leave out is a test that failed; one that no labelling could reach is none."""
    x = np.zeros((40, 6))
    x[:20, 0] = x[20:, 1] = 2.0  # L1 in a, R1 in b: tested a -> b
    x[:2, 2] = 1.0  # L2 in 2 of the 20 cells of a: 10 %, tested; in b below, but reachable
    x[20, 3] = 1.0  # R2 in 1 cell of b: 5 %, and no labelling brings it to 10 %
    pairs = [Interaction(("L1",), ("R1",)), Interaction(("L2",), ("R1",)), Interaction(("L1",), ("R2",))]
    table = pair_screen.screen(
        sparse.csr_matrix(x), ["L1", "R1", "L2", "R2", "Z", "Y"], ["a"] * 20 + ["b"] * 20, pairs,
        Screen(method="cellphonedb", n_permutations=99, expr_prop=0.1, min_cells=5), seed=0,
    )  # fmt: skip
    tested = table[table["status"] == "tested"]
    assert len(tested) == 2 and (table["status"] == "below_threshold").sum() == 10
    p = tested["p"].to_numpy(dtype=float)
    family = np.concatenate([p, np.ones(6)])  # two pairs x 4 ordered pairs of types, less the tested ones
    np.testing.assert_allclose(tested["q"].to_numpy(dtype=float), false_discovery_control(family)[:2])
    np.testing.assert_allclose(tested["q_tested"].to_numpy(dtype=float), false_discovery_control(p))
