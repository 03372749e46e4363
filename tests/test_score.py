"""Scores within compartments, and marker counts with their guards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from helpers import write_counts
from nicheloop import ambient, config_states, genes, io, score, scoring
from test_ambient import types_table

OPTIONS = config_states.Scoring(min_cells=20)
SIGNATURES = sorted({g for s in genes.signatures().values() for g in s.genes})
NAMES = sorted({*SIGNATURES, *score.MARKERS, *[f"X{i}" for i in range(400)]})


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    rng = np.random.default_rng(4)
    rate = rng.gamma(0.6, 2.0, len(NAMES))
    return rng.poisson(rate[None, :] * rng.lognormal(0, 0.3, 90)[:, None])


def malignancy(path: Path, ids, calls) -> Path:
    table = pd.DataFrame({"cell_id": ids, "malignancy": calls, "malignancy_status": "same_sample"})
    for column in ("cna_value", "cna_correlation", "clone"):
        table[column] = np.nan
    io.write_table(table, path, "malignancy")
    return path


def run(tmp_path: Path, counts, types, calls, names=NAMES, record=None, said=None) -> tuple[pd.DataFrame, io.Status]:
    path = write_counts(tmp_path, counts, names, record=record)
    ids = io.Counts(path).cell_ids
    cells = types_table(tmp_path / "types.parquet", ids[: len(types)], np.array(types, dtype=object))
    calls = malignancy(tmp_path / "malignancy.parquet", ids[: len(calls)], calls)
    if said is not None:
        io.write_table(io.read_table(calls), calls, "malignancy", said)
    out = tmp_path / "scores.parquet"
    source = io.Counts(path)
    kinds = np.array([*types, *["unresolved"] * (len(ids) - len(types))], dtype=object)
    profiles = tmp_path / "profiles.parquet"
    io.write_table(ambient.profiles(source.matrix(), list(source.genes), kinds), profiles, "profiles")
    score.run_score(path, cells, calls, profiles, out, options=OPTIONS)
    return io.read_table(out), io.read_status(out)


TYPES = ["epithelial"] * 50 + ["caf"] * 30 + ["mast"] * 4 + ["unresolved"] * 6
CALLS = ["malignant"] * 25 + ["normal"] * 25 + ["not_epithelial"] * 40


def test_each_compartment_is_matched_alone(tmp_path, counts):
    table, status = run(tmp_path, counts, TYPES, CALLS)
    assert status.ok and status.summary["scored"] == ["caf", "epithelial", "malignant"]
    assert status.summary["not_scored"] == {"mast": 4, "unresolved": 6}
    assert table["compartment"].tolist() == ["malignant"] * 25 + ["epithelial"] * 25 + TYPES[50:]
    z = table.filter(regex="^z_")
    assert set(z.columns) == {f"z_{s}" for s in genes.signatures()}
    assert z[84:].isna().all(axis=None) and z[:80].notna().all(axis=None) and z[80:].isna().all(axis=None)
    x = io.lognormalise(sparse.csr_matrix(counts.astype(np.float32)))[:25]
    alone = scoring.score_sets(
        x,
        NAMES,
        {"STRESS": genes.signatures()["STRESS"].genes},
        n_bins=OPTIONS.n_bins,
        min_genes=3,
        min_cells=20,
        normal=True,
    )
    assert np.allclose(table["z_STRESS"][:25], alone["STRESS"])
    assert np.array_equal(table["n_counts"], counts.sum(axis=1))


def test_marker_counts_and_guards(tmp_path, counts):
    keep = [i for i, g in enumerate(NAMES) if g not in ("PPBP", "CXCL8")]
    names = [NAMES[i] for i in keep] + ["IL8"]
    matrix = np.hstack([counts[:, keep], counts[:, [NAMES.index("CXCL8")]]])
    record = {"guards": {"CD24": "absent from reference", "CD44": "present"}}
    table, _ = run(tmp_path, matrix, TYPES, CALLS, names, record)
    assert [c for c in table if c.startswith("umi_")] == [f"umi_{g}" for g in score.MARKERS]
    assert table["umi_CD24"].isna().all() and table["umi_PPBP"].isna().all()
    assert np.array_equal(table["umi_CD44"], counts[:, NAMES.index("CD44")])
    assert np.array_equal(table["umi_CXCL8"], counts[:, NAMES.index("CXCL8")])  # under its older name


def test_without_a_malignancy_call_cells_keep_their_type(tmp_path, counts):
    table, status = run(tmp_path, counts, TYPES, [])
    assert status.ok and table["compartment"].tolist() == TYPES


def test_levels_are_means_on_one_scale_whatever_the_compartment(tmp_path, counts):
    table, _ = run(tmp_path, counts, TYPES, CALLS)
    logged = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    assert [c for c in table if c.startswith("level_")] == [f"level_{s}" for s in score.LEVELS]
    for name in score.LEVELS:
        members = [NAMES.index(g) for g in genes.signatures()[name].genes]
        assert np.allclose(table[f"level_{name}"], logged[:, members].mean(axis=1), rtol=1e-5)
    few = [*genes.signatures()["M1"].genes[:2], *(g for g in NAMES if g not in genes.signatures()["M1"].genes)]
    table, _ = run(tmp_path, counts[:, [NAMES.index(g) for g in few]], TYPES, CALLS, few)
    assert table["level_M1"].isna().all() and table["level_M2"].notna().all()


def test_a_tumour_that_has_more_of_a_set_in_every_cell_has_a_higher_level(tmp_path, counts):
    members = [NAMES.index(g) for g in genes.signatures()["LP_covariate"].genes]
    like = counts.copy()
    like[:, members] = np.random.default_rng(0).poisson(3 * counts[:, members].mean(axis=0) + 3, (90, len(members)))
    (tmp_path / "a").mkdir()
    plain, _ = run(tmp_path, counts, TYPES, CALLS)
    strong, _ = run(tmp_path / "a", like, TYPES, CALLS)
    assert strong["level_LP_covariate"][:25].mean() > 1.3 * plain["level_LP_covariate"][:25].mean()


def test_what_the_malignancy_stage_said_is_handed_on(tmp_path, counts):
    said = io.Status("malignancy", "s1", "insufficient_reference_cells", "why")
    _, status = run(tmp_path, counts, TYPES, [], said=said)
    expected = {"status": "insufficient_reference_cells", "epithelial": {"without a call": 50}}
    assert status.summary["malignancy"] == expected
    (tmp_path / "b").mkdir()
    _, status = run(tmp_path / "b", counts, TYPES, CALLS)
    expected = {"malignant (same_sample)": 25, "normal (same_sample)": 25}
    assert status.summary["malignancy"] == {"status": "ok", "epithelial": expected}


def test_values_that_are_not_counts_are_scored_without_counts(tmp_path, counts):
    table, status = run(tmp_path, counts / 3, TYPES, CALLS, record={"is_counts": False})
    assert status.ok and table["z_STRESS"].notna().any() and table.filter(regex="^umi_").isna().all(axis=None)


@pytest.mark.parametrize(("types", "record", "expected"), [
    ([], None, "no_cells"), (TYPES, {"status": "unreadable", "reason": "why"}, "unreadable"),
])  # fmt: skip
def test_nothing_to_score(tmp_path, counts, types, record, expected):
    table, status = run(tmp_path, counts, types, CALLS, record=record)
    assert status.status == expected and table.empty


def test_few_cells_of_one_type(tmp_path, counts):
    table, status = run(tmp_path, counts[:10], ["t_nk"] * 10, [])
    assert status.ok and table.filter(regex="^z_").isna().all(axis=None) and status.summary["scored"] == []
