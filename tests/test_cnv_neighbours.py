"""Shallow cells: neighbours in expression, contrasts between groups, and the posterior they lend each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from nicheloop import cnv, cnv_cells, cnv_checks, cnv_groups, genes, io, malignancy
from nicheloop import cnv_neighbours as nb
from nicheloop.config_malignancy import Malignancy

CHANGES = {"1q": 1.4, "16q": 0.65, "8q": 1.4, "17p": 0.65, "8p": 0.7, "20q": 1.35}
STROMA = {"t_nk": 60, "endothelial": 50, "pvl": 30, "caf": 40}


def tumour(seed, n, *, umi, arms=None, n_genes=8000):
    """Counts of a tumour whose malignant cells have a programme of their own beside the changed `arms`."""
    rng = np.random.default_rng(seed)
    table = genes.table()
    table = table[table["chromosome"].isin(cnv.AUTOSOMES) & table["arm"].notna()]
    table = table.iloc[np.sort(rng.choice(len(table), n_genes, replace=False))]

    def programme(sd, share):
        own = rng.random(n_genes) < share
        return rng.normal(0, sd, n_genes) + own * rng.normal(0.5, 1.8, n_genes)

    level = np.exp(rng.normal(0, 1.6, n_genes))
    of = {t: programme(0.35, 0.08) for t in ("epithelial", *STROMA)}
    patient, basal = programme(0.4, 0.0), programme(0.2, 0.03)
    ratio = np.log(table["arm"].map(arms or CHANGES).fillna(1.0).to_numpy(copy=True))
    blocks, truth = [], []
    for kind, cells in n.items():
        log_rate = {"malignant": of["epithelial"] + patient + ratio, "normal": of["epithelial"]}.get(kind, of.get(kind))
        for half in (0, 1):  # half of the normal cells are of a second normal type
            share = cells // 2 + (cells % 2 if half else 0)
            mean = level * np.exp(log_rate + (basal if kind == "normal" and half else 0))
            depth = umi * (0.7 if kind in STROMA else 1) * np.exp(rng.normal(0, 0.35, share))
            rate = depth[:, None] * (mean / mean.sum()) * rng.gamma(2.0, 0.5, (share, n_genes))
            blocks.append(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
            truth += [kind] * share
    return sparse.vstack(blocks).tocsr(), np.array(truth, dtype=object), table.index.to_numpy(dtype=object)


def call(x, truth, symbols, options=None):
    options = options or Malignancy()
    ids = np.array([f"s:{i:05d}" for i in range(len(truth))], dtype=object)
    types = np.where(np.isin(truth, ["malignant", "normal"]), "epithelial", truth).astype(object)
    reference = malignancy.choose_reference(types, {}, None, options)
    return malignancy.assess(
        io.lognormalise(x), ids, types, malignancy.gene_positions(symbols), reference, None, options=options, seed=0
    )


def over_all_cells(found, truth):
    """Balanced accuracy of malignant against everything else, over all cells; unassigned malignant cells are missed."""
    said = found.call == "malignant"
    return (said[truth == "malignant"].mean() + (~said[truth != "malignant"]).mean()) / 2


@pytest.mark.parametrize(
    ("n", "umi", "floor", "wrong"),
    [
        ({"malignant": 160, "normal": 40}, 2000, 0.98, 0.05),
        ({"malignant": 160, "normal": 40}, 1000, 0.92, 0.2),
        ({"malignant": 40, "normal": 120}, 2000, 0.97, 0.05),
        ({"malignant": 160}, 2000, 0.97, 0.0),
    ],
)
def test_shallow_tumour_over_all_cells(n, umi, floor, wrong):
    x, truth, symbols = tumour(1, {**n, **STROMA}, umi=umi)
    found = call(x, truth, symbols)
    assert over_all_cells(found, truth) >= floor
    assert found.summary["reference_false_positive_rate"] <= 0.02
    if "normal" in n:
        assert found.summary["baseline"] == "own_normal_epithelium"
        assert (found.call[truth == "normal"] == "malignant").mean() <= wrong


def test_a_tumour_without_changed_arms_is_not_callable():
    x, truth, symbols = tumour(2, {"malignant": 120, "normal": 40, **STROMA}, umi=2000, arms={"1q": 1.0})
    found = call(x, truth, symbols)
    assert not found.summary["callable"] and not (found.call == "malignant").any()


def test_genes_in_another_genomic_order_show_no_tumour():
    """Label shuffle: the same counts under shuffled gene names carry no arm."""
    x, truth, symbols = tumour(1, {"malignant": 120, "normal": 40, **STROMA}, umi=3000)
    found = call(x, truth, np.random.default_rng(0).permutation(symbols))
    assert not (found.call == "malignant").any()


def test_tumour_cells_as_reference_do_not_turn_the_call_round():
    """Reference swap: with the tumour as reference, its normal epithelium mirrors the changes; stroma is then the tumour's equal."""
    x, truth, symbols = tumour(1, {"malignant": 120, "normal": 40, **STROMA}, umi=3000)
    swapped = np.select(
        [truth == "malignant", np.isin(truth, ["t_nk", "endothelial", "pvl"])], ["t_nk", "malignant"], truth
    )
    found = call(x, swapped.astype(object), symbols)
    assert (found.call[truth == "malignant"] == "not_epithelial").all()
    checks = [c for rows in found.summary["arm_checks"].values() for c in rows if c["region"] == "1q"]
    assert all(c["seen"] != "gain" for c in checks)  # never the tumour's own direction


def test_neighbours_do_not_depend_on_depth():
    rng = np.random.default_rng(0)
    mean = rng.gamma(0.5, 1, 3000)
    other = mean * np.exp(rng.normal(0, 0.7, 3000))
    kind = np.repeat([0, 1], 80)
    depth = np.tile(np.repeat([600, 4000], 40), 2)
    rate = np.where(kind[:, None] == 0, mean / mean.sum(), other / other.sum()) * depth[:, None]
    x = io.lognormalise(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
    near = nb.neighbourhood(
        x, np.arange(x.shape[1]), n_genes=1500, n_components=15, k=10, resolution=1.0, min_cells=10, seed=0
    )
    assert (near.indices[:, 0] == np.arange(160)).all()
    assert (kind[near.indices[:, 1:]] == kind[:, None]).mean() > 0.95
    for atom in np.unique(near.atoms):
        assert max(np.bincount(kind[near.atoms == atom])) / (near.atoms == atom).sum() > 0.95
    assert np.bincount(near.atoms).min() >= 10


def test_pooled_leaves_the_cell_out_and_survives_missing_neighbours():
    indices = np.array([[0, 1, 2], [1, 0, -1], [2, -1, -1]])
    np.testing.assert_allclose(nb.pooled(np.array([1.0, 2.0, 6.0]), indices), [4, 1, 6])
    both = np.array([[1.0, 10.0], [2.0, 20.0], [6.0, 60.0]])
    np.testing.assert_allclose(nb.pooled(both, indices), [[4, 40], [1, 10], [6, 60]])


def test_posterior_borrows_from_like_cells_and_yields_to_clear_evidence():
    rng = np.random.default_rng(1)
    truth = np.repeat([True, False], 100)
    odds = rng.normal(np.where(truth, 1.0, -1.0), np.sqrt(2.0))  # calibrated: mean = variance / 2
    own = (odds > 0) == truth
    indices = np.array(
        [
            np.r_[i, rng.choice(np.flatnonzero((truth == truth[i]) & (np.arange(200) != i)), 10, False)]
            for i in range(200)
        ]
    )
    near = nb.Neighbourhood(indices, (~truth).astype(int))
    found = cnv_cells.posterior(odds, near, n_rounds=50, floor=0.01)
    assert own.mean() < 0.85 < 0.98 < ((found > 0.5) == truth).mean()
    odds[0], odds[150] = -12.0, 12.0  # a normal cell among tumour cells, and the reverse
    found = cnv_cells.posterior(odds, near, n_rounds=50, floor=0.01)
    assert found[0] < 0.01 and found[150] > 0.99


def test_log_odds_are_those_of_two_normal_distributions():
    from scipy.stats import norm

    value, level = np.array([-0.3, 0.4, 0.5, 1.4]), np.array([0.01, 0.02, 0.01, 0.04])
    sd = np.sqrt(9.0 * level)
    expected = norm.logpdf(value, 1, sd) - norm.logpdf(value, 0, sd)
    np.testing.assert_allclose(cnv_cells.log_odds(value, level, 9.0, 0.5), expected)


def test_verdict_never_decides_against_itself():
    above, below = np.array([1, 1, 0, 0, 0, 0], bool), np.array([0, 0, 1, 1, 0, 0], bool)
    found = cnv_cells.verdict(above, below, np.array([0.9, 0.01, 0.99, 0.01, 0.5, np.nan]), 0.7)
    assert list(found.malignant) == [True, False, True, False, False, False]
    assert list(found.normal) == [False, False, False, True, False, False]
    assert not (found.malignant & found.normal).any()


SETTINGS = cnv_groups.Settings(
    n_permutations=300, min_arm_genes=20, window=100, lineage_mads=3.0, seed=0, block=20, pseudo=0.05, clip=1.0,
    n_components=2, half_weight=0.1, n_mixture=99, max_cells=500,
)  # fmt: skip


@pytest.fixture(scope="module")
def layout():
    table = genes.table()
    table = table[table["chromosome"].isin(cnv.AUTOSOMES) & table["arm"].notna()].iloc[::4]
    return table, cnv.layout(table, 100, 10)


def _kinds(layout, groups):
    table, where = layout
    rng = np.random.default_rng(3)
    base = rng.gamma(1.0, 0.4, len(table)) + 0.1
    lineage = base * np.exp(rng.normal(0, 0.5, len(table)))
    arm = table["arm"].to_numpy()
    means = [lineage * np.exp(rng.normal(0, 0.05, len(table))) for _ in groups]
    for mean, changes in zip(means, groups, strict=True):
        for name, fold in changes.items():
            mean[arm == name] *= fold
    evidence = [(False, cnv_groups.arm_evidence(m, base, where, SETTINGS)) for m in means]
    kinds = cnv_groups.kinds_of_groups(
        means, base, evidence, where, SETTINGS, need=1.75, max_p=0.01, min_signal=0.5, max_share=0.35, sure=2.25
    )
    return kinds, means, where


def test_a_contrast_tells_which_of_two_groups_is_diploid(layout):
    assert _kinds(layout, [{"1q": 1.4, "16q": 0.6, "8q": 1.4}, {}])[0] == ["aneuploid", "diploid"]
    assert _kinds(layout, [{}, {"1q": 1.4, "16q": 0.6, "8q": 1.4}])[0] == ["diploid", "aneuploid"]
    assert _kinds(layout, [{}, {}])[0] == ["unclear", "unclear"]


def test_two_clones_with_changes_of_their_own_are_no_contrast(layout):
    assert _kinds(layout, [{"1q": 1.5, "8q": 1.5}, {"16q": 0.6, "17q": 1.5}])[0] == ["unclear", "unclear"]


def test_one_clone_at_two_strengths_is_one_clone(layout):
    strong, weak = {"1q": 1.5, "16q": 0.6, "8q": 1.5}, {"1q": 1.35, "16q": 0.7, "8q": 1.35}
    _, means, where = _kinds(layout, [{}, strong, weak, {"3q": 1.5, "5q": 0.6, "7p": 1.5}])
    members = [np.arange(40) // 10 == i for i in range(4)]
    found = cnv_groups.join_clones(members[1:], means[1:], means[0], where, SETTINGS, 0.01)
    assert [list(np.flatnonzero(g)) for g in found] == [list(range(10, 30)), list(range(30, 40))]


def test_marker_loci_follow_their_neighbours_and_never_the_marker(layout):
    table = layout[0]
    table = genes.table().loc[table.index.union(list(genes.marker_loci()))]
    where = cnv.layout(table, 100, 10)
    rng = np.random.default_rng(5)
    base = rng.gamma(1.0, 0.4, len(table)) + 0.1
    mean = base * np.exp(rng.normal(0, 0.2, len(table)))
    mean[(table["arm"] == "9p").to_numpy()] *= 1.6
    mean[table.index.get_loc("CD44")] *= 50
    found = {
        row["gene"]: row for row in cnv_checks.marker_loci(mean, base, where, table, SETTINGS, min_z=3.0, n_genes=50)
    }
    assert found["JAK2"]["seen"] == "gain" and found["JAK2"]["arm"] == "9p"
    assert found["CD44"]["seen"] == found["CD24"]["seen"] == "no_change"
    assert set(found) == set(genes.marker_loci()) and found["ALDH1A3"]["n_genes"] == 50
