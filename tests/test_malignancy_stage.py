"""The malignancy stage: reference ladder, contracts, statuses, assumed samples and pools."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from helpers import write_counts
from nicheloop import cnv_reference, io, malignancy
from nicheloop.config_malignancy import Malignancy
from nicheloop.errors import NotAssessable
from test_malignancy import STROMA, call, simulate, types_of


@pytest.fixture(scope="module")
def tumour():
    x, truth, symbols = simulate(1, {"malignant": 150, "normal": 40, **STROMA}, her2=8.0)
    return x, truth, symbols, call(x, truth, symbols)[0]


# ------------------------------------------------------------------------------------------------- ladder
def pool(n):
    return malignancy.Pool(np.ones(3), n)


@pytest.mark.parametrize(
    ("n", "pools", "chemistry", "rung"),
    [
        ({"t_nk": 60, "pvl": 40}, {}, "v3", "same_sample"),
        ({"t_nk": 99, "caf": 500}, {}, "v3", "few_reference_cells"),
        (
            {"t_nk": 5, "myeloid": 40},
            {"chemistry:v3": pool(300), "chemistry:v2": pool(900)},
            "v3",
            "pooled_same_chemistry",
        ),
        ({"t_nk": 5, "myeloid": 40}, {"chemistry:unknown": pool(300)}, None, "pooled_same_chemistry"),
        (
            {"t_nk": 5, "myeloid": 40},
            {"chemistry:v3": pool(60), "chemistry:unknown": pool(100), "normal_epithelium": pool(30)},
            "v3",
            "reference_other_chemistry",
        ),
    ],
)
def test_ladder(n, pools, chemistry, rung):
    types = np.repeat(np.array([*n, "epithelial"], dtype=object), [*n.values(), 50])
    found = malignancy.choose_reference(types, pools, chemistry, Malignancy())
    assert found.rung == rung
    assert not (found.null & np.isin(types, ["caf", "epithelial"])).any()


@pytest.mark.parametrize(
    ("n", "pools", "status"),
    [
        ({"t_nk": 29, "caf": 400}, {}, "insufficient_reference_cells"),
        ({"t_nk": 29}, {"chemistry:v3": pool(99)}, "insufficient_reference_cells"),
        ({"t_nk": 5, "caf": 400, "unresolved": 90}, {"chemistry:v3": pool(300)}, "no_null_cells"),
        ({"t_nk": 5, "myeloid": 40}, {"chemistry:v2": pool(300)}, "insufficient_reference_cells"),
        ({"t_nk": 5, "myeloid": 40}, {"normal_epithelium": pool(300)}, "insufficient_reference_cells"),
        (
            {"t_nk": 5, "myeloid": 40},
            {"chemistry:v2": pool(300), "normal_epithelium": pool(29)},
            "insufficient_reference_cells",
        ),
        ({"t_nk": 5, "myeloid": 14}, {"chemistry:v2": pool(300), "normal_epithelium": pool(30)}, "no_null_cells"),
    ],
)
def test_ladder_ends(n, pools, status):
    types = np.repeat(np.array([*n, "epithelial"], dtype=object), [*n.values(), 50])
    with pytest.raises(NotAssessable) as caught:
        malignancy.choose_reference(types, pools, "v3", Malignancy())
    assert caught.value.status == status


def test_another_chemistry_is_used_with_normal_epithelium_each_half_of_the_mean():
    types = np.repeat(np.array(["myeloid", "epithelial"], dtype=object), [40, 50])
    pools = {
        "chemistry:v1": malignancy.Pool(np.array([1.0, 2.0, np.nan]), 300),
        "chemistry:v2": malignancy.Pool(np.array([4.0, np.nan, np.nan]), 100),
        "normal_epithelium": malignancy.Pool(np.array([0.75, 4.0, 1.0]), 9000),
    }
    found = malignancy.choose_reference(types, pools, "v3", Malignancy())
    assert found.rung == "reference_other_chemistry"
    # (300 x 1 + 100 x 4) / 400 = 1.75 against 0.75; stroma has no third gene
    np.testing.assert_allclose(found.mean, [1.25, 3.0, np.nan])


def test_twenty_normal_cells_of_any_type_serve_a_pooled_reference():
    types = np.repeat(np.array(["t_nk", "myeloid", "mast", "caf", "epithelial"], dtype=object), [4, 10, 6, 30, 50])
    found = malignancy.choose_reference(types, {"chemistry:v3": pool(300)}, "v3", Malignancy())
    assert found.rung == "pooled_same_chemistry" and found.null.sum() == 20


def test_log_values():
    tpm = sparse.csr_matrix([[0, 900.0, 100.0]])
    x, kind = malignancy.log_values(tpm, False)
    assert kind == "linear" and x[0, 1] == pytest.approx(np.log1p(9000))
    logged, kind = malignancy.log_values(sparse.csr_matrix([[0, 9.0, 2.0]]), False)
    assert kind == "log" and logged[0, 1] == 9
    with pytest.raises(NotAssessable):
        malignancy.log_values(sparse.csr_matrix([[0, -1.0]]), False)


# -------------------------------------------------------------------------------------------------- stages
def stage(tmp_path, x, truth, symbols, *, record=None, pools=None, options=None):
    path = write_counts(tmp_path, x, symbols, record=record)
    ids = io.Counts(path).cell_ids
    kept = len(ids) if truth is None else len(truth)
    cells = pd.DataFrame(
        {"cell_id": ids[:kept], "sample": "s1", "cell_type": types_of(truth) if truth is not None else "caf"}
    )
    extra = pd.DataFrame({"cell_id": ["other:1"], "sample": ["other"], "cell_type": ["caf"]})
    (pd.concat([cells, extra]) if truth is not None else extra).to_parquet(tmp_path / "cell_types.parquet")
    if pools is None:
        pools = pd.DataFrame({"pool": pd.Series(dtype=str), "patient": pd.Series(dtype=str), "gene": pd.Series(dtype=str), "n_cells": pd.Series(dtype=int),
                              "n_samples": pd.Series(dtype=int), "mean_lognorm": pd.Series(dtype=float)})  # fmt: skip
    io.write_table(pools, tmp_path / "reference.parquet", "cnv_reference")
    out, out_cnv = tmp_path / "malignancy.parquet", tmp_path / "cnv.parquet"
    malignancy.run_malignancy(
        path, tmp_path / "cell_types.parquet", tmp_path / "reference.parquet", out, out_cnv,
        options=options or Malignancy(), seed=0,
    )  # fmt: skip
    return io.read_table(out), io.read_table(out_cnv), io.read_status(out)


def test_stage_writes_every_kept_cell(tmp_path, tumour):
    x, truth, symbols, found = tumour
    table, profile, status = stage(tmp_path, x, truth, symbols)
    assert status.ok and len(table) == len(truth)
    np.testing.assert_array_equal(table["malignancy"], found.call)
    assert set(table.loc[truth == "caf", "malignancy_status"]) == {"not_epithelial"}
    assert (table["clone"].notna() == (table["malignancy"] == "malignant")).all()
    assert status.summary["rung"] == "same_sample" and status.summary["n_epithelial"] == 190
    assert status.summary["n_malignant"] == (found.call == "malignant").sum()
    assert {"clone_1", "normal_epithelium", "caf", "reference"} <= set(profile["group"])
    arms = profile[profile["group"] == "clone_1"].groupby("arm")["value"].mean()
    assert arms["1q"] > 0.03 and arms["16q"] < -0.03
    reference = profile[profile["group"] == "reference"]
    assert reference["value"].abs().max() < profile[profile["group"] == "clone_1"]["value"].abs().max() / 2


def test_pooled_reference(tmp_path):
    x, truth, symbols = simulate(4, {"malignant": 90, "normal": 30, **STROMA})
    lognorm = io.lognormalise(x)
    keep = ~np.isin(truth, ["t_nk", "endothelial", "pvl"]) | (np.arange(len(truth)) % 5 == 0)
    own = np.isin(truth, malignancy.REFERENCE_TYPES)
    pools = pd.concat([
        pd.DataFrame({"pool": name, "patient": "p9", "gene": symbols, "n_cells": int(cells.sum()), "n_samples": 2,
                      "mean_lognorm": np.asarray(lognorm[cells].mean(axis=0)).ravel()})
        for name, cells in (("chemistry:other", own), ("normal_epithelium", truth == "normal"))
    ])  # fmt: skip
    keep |= truth == "b_cell"
    extra = np.where(truth[keep] == "b_cell", "myeloid", truth[keep]).astype(object)
    table, _, status = stage(tmp_path, x[keep], extra, symbols, pools=pools)
    assert status.summary["rung"] == "reference_other_chemistry"
    assert set(table.loc[table["malignancy"] == "malignant", "malignancy_status"]) == {"reference_other_chemistry"}
    assert (table["malignancy"].to_numpy()[truth[keep] == "malignant"] == "malignant").mean() > 0.9


@pytest.mark.parametrize(("n_null", "expected"), [(20, "ok"), (19, "no_null_cells"), (0, "no_null_cells")])
def test_sorted_tumour_with_a_pooled_reference(tmp_path, n_null, expected):
    x, truth, symbols = simulate(4, {"malignant": 90, "normal": 30, "t_nk": 80, "endothelial": 80})
    own = np.isin(truth, malignancy.REFERENCE_TYPES)
    pools = pd.DataFrame({"pool": "chemistry:unknown", "patient": "p9", "gene": symbols, "n_cells": int(own.sum()), "n_samples": 2,
                          "mean_lognorm": np.asarray(io.lognormalise(x)[own].mean(axis=0)).ravel()})  # fmt: skip
    kept = np.flatnonzero(own)
    kept = np.r_[np.flatnonzero(~own), kept[np.linspace(0, len(kept) - 1, n_null).astype(int)]]
    labels = np.where(own, "myeloid", truth)[kept].astype(object)
    table, _, status = stage(tmp_path, x[kept], labels, symbols, pools=pools)
    assert status.status == expected
    if expected == "ok":
        found = table["malignancy"].to_numpy()
        assert status.summary["rung"] == "pooled_same_chemistry" and status.summary["n_null"] == 20
        assert (found[labels == "malignant"] == "malignant").mean() > 0.9
        assert (found[labels == "normal"] == "malignant").mean() < 0.1
        assert status.summary["reference_false_positive_upper"] > 0.15  # twenty cells prove little
    else:
        assert set(table.loc[~np.isin(labels, "myeloid"), "malignancy_status"]) == {"no_null_cells"}
        assert "pooled reference exists" in status.reason


@pytest.mark.parametrize(
    ("n", "record", "expected"),
    [
        ({"malignant": 6, **STROMA}, {}, "too_few_epithelial_cells"),
        ({"malignant": 60, "t_nk": 20, "caf": 10}, {}, "insufficient_reference_cells"),
        (dict(STROMA), {}, "too_few_epithelial_cells"),
        ({"malignant": 90}, {}, "insufficient_reference_cells"),
        ({"malignant": 90, **STROMA}, {"status": "unreadable", "reason": "x"}, "unreadable"),
    ],
)
def test_stage_names_what_it_cannot_do(tmp_path, n, record, expected):
    x, truth, symbols = simulate(5, n, umi=3000, n_genes=2000)
    table, profile, status = stage(tmp_path, x, truth, symbols, record=record)
    assert status.status == expected and profile.empty
    assert not (table["malignancy"] == "malignant").any()
    if expected == "unreadable":
        assert table.empty
    else:
        assert len(table) == len(truth)
        wanted = types_of(truth) == "epithelial"
        assert set(table.loc[wanted, "malignancy_status"]) <= {expected}
        assert set(table.loc[wanted, "malignancy"]) <= {"unassigned"}


def test_no_cell_passed_quality_control(tmp_path):
    x, _, symbols = simulate(5, {"malignant": 20}, umi=3000, n_genes=2000)
    table, _, status = stage(tmp_path, x, None, symbols)
    assert table.empty and status.status == "no_cells"


@pytest.mark.parametrize("n", [{"malignant": 40}, {"malignant": 60, "t_nk": 110}])
def test_assumed_by_user(tmp_path, n):
    x, truth, symbols = simulate(6, n, umi=4000, n_genes=5000)
    table, profile, status = stage(tmp_path, x, truth, symbols, record={"malignancy": "assumed"})
    assert status.ok and status.summary["n_malignant"] == n["malignant"]
    rows = table[table["malignancy"] == "malignant"]
    assert len(rows) == n["malignant"] and set(rows["malignancy_status"]) == {"assumed_by_user"}
    assert rows["clone"].notna().all()
    assert profile.empty == ("t_nk" not in n)


def test_assumed_overrides_the_look_of_a_cell_but_not_immune_or_endothelial_cells(tmp_path):
    kinds = {"caf": 25, "pvl": 5, "unresolved": 10, "adipocyte": 2, "malignant": 4, "t_nk": 6, "endothelial": 3, "b_cell": 1,
             "myeloid": 2, "plasmablast": 1, "mast": 1, "erythrocyte": 1, "platelet": 1}  # fmt: skip
    truth = np.repeat(np.array([*kinds], dtype=object), [*kinds.values()])
    x = sparse.csr_matrix(np.random.default_rng(0).poisson(1.0, (len(truth), 50)))
    symbols = [f"G{i}" for i in range(50)]
    table, _, status = stage(tmp_path, x, truth, symbols, record={"malignancy": "assumed"})
    meant = np.isin(truth, ["caf", "pvl", "unresolved", "adipocyte", "malignant"])
    assert status.ok and (table["malignancy"].to_numpy() == np.where(meant, "malignant", "not_epithelial")).all()
    assert set(table.loc[meant, "malignancy_status"]) == {"assumed_by_user"} and table.loc[meant, "clone"].eq(1).all()
    assert status.summary["n_type_overridden"] == 42 and status.summary["n_reference"]["pvl"] == 0
    table, _, status = stage(tmp_path, x, truth, symbols)
    assert not (table["malignancy"] == "malignant").any() and "n_type_overridden" not in status.summary


def test_tissue_normal_is_no_shortcut(tmp_path, tumour):
    x, truth, symbols, found = tumour
    table, _, _ = stage(tmp_path, x, truth, symbols, record={"tissue": "normal"})
    np.testing.assert_array_equal(table["malignancy"], found.call)


def test_values_without_counts_still_serve(tmp_path, tumour):
    x, truth, symbols, _ = tumour
    totals = np.asarray(x.sum(axis=1)).ravel()
    tpm = sparse.csr_matrix(sparse.diags_array(1e6 / totals) @ x)
    table, _, status = stage(tmp_path, tpm, truth, symbols, record={"is_counts": False})
    assert status.ok and status.summary["values"] == "linear"
    assert (table["malignancy"].to_numpy()[truth == "malignant"] == "malignant").mean() > 0.97


def test_pools_weigh_by_cells_and_keep_chemistries_apart(tmp_path):
    def write(name, rows, **record):
        table = pd.DataFrame(rows, columns=["gene", "cell_type", "n_cells", "mean_lognorm"]).assign(
            n_positive=1, sum_counts=1.0
        )
        io.write_table(table, tmp_path / f"{name}.parquet", "profiles")
        io.write_json(tmp_path / f"{name}.json", {"sample": name, "chemistry": None, "tissue": "tumour", **record})
        return tmp_path / f"{name}.parquet", tmp_path / f"{name}.json"

    pairs = [
        write("a", [("G1", "t_nk", 30, 1.0), ("G1", "caf", 90, 9.0), ("G1", "epithelial", 50, 4.0)], chemistry="v3"),
        write(
            "b",
            [("G1", "pvl", 10, 2.0), ("G1", "epithelial", 20, 0.5), ("G2", "pvl", 10, 1.0)],
            chemistry="v3",
            tissue="normal",
            patient="B",
        ),
        write("b2", [("G1", "t_nk", 20, 5.0)], chemistry="v3", patient="B"),
        write("c", [("G1", "b_cell", 5, 3.0)]),
        write("d", []),
        write(
            "e",
            [("G1", "pvl", 90, 9.0), ("G1", "epithelial", 90, 9.0), ("G1", "b_cell", 5, 3.0)],
            malignancy="assumed",
            tissue="normal",
        ),  # a cell line: its "PVL" and "normal epithelium" are tumour
    ]
    malignancy.run_cnv_reference([p for p, _ in pairs], [r for _, r in pairs], tmp_path / "out.parquet")
    symbols = np.array(["G2", "G1", "G3"], dtype=object)
    pools = cnv_reference.read_pools(tmp_path / "out.parquet", symbols)
    # G1: 30 cells of a, 10 of b and 20 of b's other sample; G2: of b alone
    np.testing.assert_allclose(pools["chemistry:v3"].mean, [1.0, (30 * 1 + 10 * 2 + 20 * 5) / 60, np.nan])
    assert pools["chemistry:v3"].n_cells == 60
    np.testing.assert_allclose(pools["chemistry:unknown"].mean, [np.nan, 3.0, np.nan])
    np.testing.assert_allclose(pools["normal_epithelium"].mean, [np.nan, 0.5, np.nan])  # never the tumour's epithelium
    assert io.read_status(tmp_path / "out.parquet").summary["chemistry:v3"] == 60
    # a patient is never measured against a mean that holds its own cells, of whichever sample
    without = cnv_reference.read_pools(tmp_path / "out.parquet", symbols, leave_out="B")
    np.testing.assert_allclose(without["chemistry:v3"].mean, [np.nan, 1.0, np.nan])
    assert without["chemistry:v3"].n_cells == 30 and "normal_epithelium" not in without
    malignancy.run_cnv_reference([pairs[4][0]], [pairs[4][1]], tmp_path / "none.parquet")
    assert io.read_status(tmp_path / "none.parquet").status == "no_reference_cells"


@given(seed=st.integers(0, 2**16), rows_at_once=st.integers(1, 9))
def test_pools_read_piece_by_piece_are_those_of_the_whole_table(seed, rows_at_once, tmp_path_factory):
    rng = np.random.default_rng(seed)
    keys = pd.MultiIndex.from_product([["chemistry:v2", "chemistry:v3"], list("ABCD"), ["G1", "G2", "G3", "G4"]])
    table = keys.to_frame(index=False, name=["pool", "patient", "gene"]).sample(20, random_state=seed).sort_index()
    table = table.assign(n_cells=rng.integers(1, 50, 20), n_samples=1, mean_lognorm=rng.random(20))
    path = tmp_path_factory.mktemp("pools") / "reference.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "ROW_GROUP", rows_at_once)
        io.write_table(table, path, "cnv_reference")
    symbols = np.array(["G3", "absent", "G1"], dtype=object)
    found = cnv_reference.read_pools(path, symbols, leave_out="B")
    others = table[table["patient"] != "B"]
    assert set(found) == set(others["pool"])
    for name, pool in found.items():
        rows = others[others["pool"] == name]
        for gene, mean in zip(symbols, pool.mean, strict=True):
            of_gene = rows[rows["gene"] == gene]
            expected = np.average(of_gene["mean_lognorm"], weights=of_gene["n_cells"]) if len(of_gene) else np.nan
            np.testing.assert_allclose(mean, expected, rtol=1e-12)
        assert pool.n_cells == rows.groupby("gene")["n_cells"].sum().max()


def test_a_pool_of_deep_samples_is_read_at_the_depth_of_a_shallow_one() -> None:
    """Oracle: the same pooled RNA, counted once deep and once shallow; the sample's own cells are of other types."""
    rng = np.random.default_rng(0)
    pooled = rng.lognormal(0.0, 2.0, 3000)
    others = pooled * rng.lognormal(0.0, 0.7, 3000)

    def mean(profile: np.ndarray, umi: int) -> np.ndarray:
        counts = rng.poisson(profile / profile.sum() * umi, (400, len(profile)))
        return np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).mean(axis=0)

    deep, shallow = mean(pooled, 12_000), mean(pooled, 1_500)
    deep[7] = np.nan
    found = cnv_reference.at_depth(deep, mean(others, 1_500))
    assert np.isnan(found[7]) and np.isfinite(np.delete(found, 7)).all()
    order = np.argsort(deep)[:-1]
    assert (np.diff(found[order]) >= 0).all()

    def bias(values: np.ndarray) -> float:  # what genes of like expression share, which arms would take for a change
        level = np.argsort(np.argsort(np.delete(shallow, 7))) // 300
        error = np.delete(values - shallow, 7)
        return float(np.abs([error[level == k].mean() for k in range(10)]).max())

    assert bias(found) < bias(deep) / 3
