"""The validation harness on made-up sections, and the part of the section on cells that is quick enough to test."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import sparse
from scipy.stats import binomtest

from benchmarks.validation import _cells_jobs as jobs
from benchmarks.validation import _cells_measure as measure
from benchmarks.validation import _cohort, cells, harness
from benchmarks.validation.harness import Claim, Result


def section(name: str, *, holds: bool | None = True, value: float = 1.0, plots: tuple[str, ...] = ("line",)) -> Any:
    def run(*, full: bool, work: Path, seed: int) -> Result:
        assert work.is_dir() and not list(work.iterdir()), "a section starts from nothing"
        (work / "left behind").touch()
        figure = Figure()
        figure.subplots().plot([0, value])
        table = pd.DataFrame(
            {"n": [3, 12], "share": [np.float64(0.25), np.nan], "text": ["a|b", None], "ok": [True, False]}
        )
        return Result(
            name, f"Title of {name}", "Is it?", {"value": np.float64(value), "full": full, "nan": np.nan},
            [Claim(f"{name} is right", f"{value:g}", ">= 1", holds), harness.not_run("needs data", "0")],
            [("A caption", table)], [(stem, f"Line of {name}.", figure) for stem in plots], ["A limit."],
        )  # fmt: skip

    return SimpleNamespace(NAME=name, run=run)


def run(root: Path, *sections: Any, argv: tuple[str, ...] = ()) -> int:
    return harness.main(list(argv), root=root, available={s.NAME: s for s in sections})


def stored(root: Path) -> dict[str, Any]:
    return json.loads((root / harness.RESULTS).read_text())["sections"]


def page(root: Path) -> str:
    return (root / harness.PAGE).read_text()


# ---------------------------------------------------------------------------------------------------- harness
def test_a_run_of_one_section_keeps_the_others(tmp_path: Path):
    assert run(tmp_path, section("zebra"), section("cells")) == 0
    assert run(tmp_path, section("zebra", value=2.0), section("cells", value=9.0), argv=("--section", "zebra")) == 0
    assert stored(tmp_path)["zebra"]["figures"]["value"] == 2.0
    assert stored(tmp_path)["cells"]["figures"]["value"] == 1.0
    titles = re.findall(r"^## (.*)$", page(tmp_path), flags=re.MULTILINE)
    assert titles == ["At a glance", "Title of cells", "Title of zebra"], "known sections first, in page order"


def test_the_page_comes_from_the_stored_figures_alone(tmp_path: Path):
    run(tmp_path, section("cells"))
    before = page(tmp_path)
    (tmp_path / harness.PAGE).unlink()
    assert harness.main(["--page-only"], root=tmp_path, available={}) == 0
    assert page(tmp_path) == before


def test_the_page_and_plots_are_the_same_in_a_second_run(tmp_path: Path):
    run(tmp_path / "a", section("cells"))
    run(tmp_path / "b", section("cells"))
    for part in (harness.PAGE, harness.PLOTS / "cells_line.png"):
        assert (tmp_path / "a" / part).read_bytes() == (tmp_path / "b" / part).read_bytes()
    one, two = stored(tmp_path / "a"), stored(tmp_path / "b")
    for entry in (one, two):
        assert entry["cells"]["stamp"].pop("seconds") >= 0
    assert one == two


def test_a_failing_claim_is_written_down_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(tmp_path, section("cells", holds=False, value=0.5), section("zebra")) == 1
    assert set(stored(tmp_path)) == {"cells", "zebra"}, "sections after it still run"
    assert "| cells is right | 0.5 | >= 1 | **no** |" in page(tmp_path)
    assert "FAILS" in capsys.readouterr().out


def test_a_section_that_stops_leaves_the_others_and_its_earlier_entry(tmp_path: Path):
    run(tmp_path, section("cells"))

    def broken(**_: Any) -> Result:
        raise ValueError("no")

    assert run(tmp_path, SimpleNamespace(NAME="cells", run=broken), section("zebra")) == 2
    assert set(stored(tmp_path)) == {"cells", "zebra"}
    assert stored(tmp_path)["cells"]["figures"]["value"] == 1.0


def test_a_stated_claim_does_not_fail_a_run(tmp_path: Path):
    assert run(tmp_path, section("cells", holds=None)) == 0
    assert "| needs data | not run: no real data | 0 | stated |" in page(tmp_path)


def test_tables_reach_the_page(tmp_path: Path):
    run(tmp_path, section("cells"))
    text = page(tmp_path)
    for line in (
        "| n | share | text | ok |",
        "|---:|---:|---|---|",
        "| 3 | 0.250 | a\\|b | yes |",
        "| 12 | NA | NA | no |",
    ):
        assert line in text.splitlines()
    assert stored(tmp_path)["cells"]["figures"]["nan"] is None


def test_plots_are_linked_and_old_ones_go(tmp_path: Path):
    run(tmp_path, section("cells", plots=("line", "cells_other")), section("zebra"))
    folder = tmp_path / harness.PLOTS
    assert {p.name for p in folder.iterdir()} == {"cells_line.png", "cells_other.png", "zebra_line.png"}
    for alt, target in re.findall(r"!\[(.*)\]\((.*)\)", page(tmp_path)):
        assert alt.startswith("Line of ")
        assert (tmp_path / harness.PAGE.parent / target).is_file()
    run(tmp_path, section("cells"), argv=("--section", "cells"))
    assert {p.name for p in folder.iterdir()} == {"cells_line.png", "zebra_line.png"}


def test_real_data_are_where_the_variable_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NICHELOOP_REAL_DATA", str(tmp_path))
    assert harness.real_data() == tmp_path
    monkeypatch.setenv("NICHELOOP_REAL_DATA", str(tmp_path / "absent"))
    assert harness.real_data() is None


@pytest.mark.parametrize(
    ("k", "n", "family", "side", "agrees"),
    [(50, 1000, 1, "two-sided", True), (90, 1000, 1, "two-sided", False), (20, 1000, 1, "greater", True),
     (20, 1000, 1, "two-sided", False), (75, 1000, 1, "two-sided", False), (75, 1000, 100, "two-sided", True)],
)  # fmt: skip
def test_a_rate_is_judged_by_the_exact_test(k: int, n: int, family: int, side: str, agrees: bool):
    p, said = harness.judge_rate(k, n, 0.05, family=family, side=side)
    assert p == pytest.approx(min(1.0, family * binomtest(k, n, 0.05, alternative=side).pvalue))
    assert said is agrees


def test_the_sections_of_the_package_are_found():
    known = harness.sections()
    assert known["cells"] is cells
    assert not [n for n in known if n.startswith("_")]


def test_the_stored_page_is_the_page_of_the_stored_figures():
    path = harness.ROOT / harness.RESULTS
    if not path.exists():
        pytest.skip("no validation has been stored")
    assert (harness.ROOT / harness.PAGE).read_text() == harness.page(harness.read_results(path))
    for name in harness.FILLED:
        text = (harness.ROOT / name).read_text()
        assert harness.BLOCK.search(text) and harness.fill(text, harness.read_results(path)) == text


def test_blocks_of_other_pages_are_filled_and_nothing_else(tmp_path: Path):
    stored = {
        "sections": {
            "cells": {
                "claims": [
                    {"text": "malignant cells found", "measured": "9 of 10", "target": ">= 9", "holds": True},
                    {"text": "types", "measured": "1", "target": "none", "holds": None},
                ],
                "tables": [
                    {"caption": "Made of cells", "columns": ["a"], "rows": [[1]]},
                    {"caption": "Other", "columns": ["b"], "rows": [[2]]},
                ],
            }
        }
    }
    text = (
        "before\n<!-- validation: claims cells: malignan -->\noutdated\n<!-- end -->\nbetween\n"
        "<!-- validation: table cells: Made of -->\n<!-- end -->\n<!-- validation: table csc: X -->\nkept\n<!-- end -->\nafter"
    )
    filled = harness.fill(text, stored)
    assert (
        "| malignant cells found | 9 of 10 | >= 9 | yes |" in filled
        and "types" not in filled
        and "outdated" not in filled
    )
    assert "**Made of cells**\n\n| a |\n|---:|\n| 1 |\n\n<!-- end -->" in filled and "Other" not in filled
    assert "kept" in filled and filled.startswith("before\n") and filled.endswith("\nafter") and "between" in filled
    assert harness.fill(filled, stored) == filled


# -------------------------------------------------------------------------------------------------- measures
def test_an_unresolved_cell_counts_as_wrong():
    truth = ["a", "a", "b", "b"]
    assert measure.macro_f1(truth, truth) == 1.0
    assert measure.macro_f1(truth, ["a", "unresolved", "b", "b"]) == pytest.approx((2 / 3 + 1) / 2)


def test_unassigned_is_not_malignant_and_wrong_in_the_strict_figure():
    truth = pd.DataFrame({"malignant": [True] * 4 + [False] * 6, "cell_type": ["epithelial"] * 8 + ["t_nk"] * 2})
    calls = pd.DataFrame({"malignancy": ["malignant"] * 3 + ["unassigned"] + ["normal"] * 2 + ["unassigned", "malignant"]
                          + ["not_epithelial"] * 2})  # fmt: skip
    found = measure.malignancy_figures(truth, calls)
    assert found["all_cells"] == pytest.approx((3 / 4 + 5 / 6) / 2)
    assert found["epithelial"] == pytest.approx((3 / 4 + 3 / 4) / 2)
    assert found["strict"] == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert found["unassigned"] == pytest.approx(2 / 8)
    assert found["n_false_malignant"] == 1


def test_the_majority_of_a_cluster_decides():
    scores = pd.DataFrame({"a": [2.0, 2.0, 0.0, 0.0], "b": [1.0, 1.0, 1.0, 1.0]}, index=list("wxyz"))
    assert measure.field_types(scores, None).tolist() == ["a", "a", "b", "b"]
    assert measure.field_types(scores, pd.Series([0, 0, 0, 1], index=list("wxyz"))).tolist() == ["a", "a", "a", "b"]


def test_thinning_keeps_the_share_asked_for_of_each_gene():
    x = sparse.csr_matrix(np.full((400, 3), 10.0, dtype=np.float32))
    thinned = _cohort.thin(x, np.array([1.0, 0.5, 0.0]), np.random.default_rng(0))
    assert (thinned[:, [0]].toarray() == 10).all()
    assert thinned[:, [1]].mean() == pytest.approx(5, abs=0.3)
    assert thinned[:, [2]].nnz == 0
    assert _cohort.thin(x, 0.25, np.random.default_rng(0)).mean() == pytest.approx(2.5, abs=0.2)


def test_pseudo_cells_are_sums_of_different_cells():
    x = sparse.csr_matrix(np.eye(6, dtype=np.float32))
    made = jobs.pseudo_cells(x, 50, 4, np.random.default_rng(0)).toarray()
    assert (made.sum(axis=1) == 4).all()
    assert set(made.ravel()) == {0.0, 1.0}, "a cell counts once in a sum"


# ---------------------------------------------------------------------------------------- the section, a subset
@pytest.fixture(scope="module")
def subset(tmp_path_factory: pytest.TempPathFactory) -> Result:
    samples = ("demo_tnbc_1", "demo_er_1", "demo_normal_1")
    options = {"simulate": {"cells_per_tumour": 300, "cells_per_normal": 200}}
    return cells.run(
        full=False,
        work=tmp_path_factory.mktemp("validation"),
        seed=1,
        demo_options=options,
        demo_samples=samples,
        quick=True,
    )


@pytest.mark.xdist_group("validation")
def test_the_subset_of_the_section_on_cells_keeps_its_claims(subset: Result):
    failed = [c for c in subset.claims if c.holds is False]
    assert not failed, failed
    for name in (
        "annotation_macro_f1_demo", "annotation_macro_f1_resolution_1", "malignant_balanced_accuracy_demo", "clone_ari_demo",
        "doublet_recall", "doublet_precision", "downsampling", "oligodendroglioma_balanced_accuracy",
    ):  # fmt: skip
        assert name in subset.figures, name


@pytest.mark.xdist_group("validation")
def test_real_normal_breasts_are_in_the_subset_where_they_are_present(subset: Result, real_data: Path):
    assert subset.figures["malignant_cells_normals"] == 0
    assert subset.figures["annotation_macro_f1_normals"] >= 0.85
    assert 0 <= subset.figures["malignant_unassigned_share_normals"] <= 1
    assert subset.figures["semi_real_answered"] >= 1


@pytest.mark.xdist_group("validation")
def test_the_subset_makes_a_page(subset: Result, tmp_path: Path):
    harness.merge(subset, tmp_path, seed=1, full=False)
    text = page(tmp_path)
    for claim in subset.claims:
        assert harness.show(claim.text) in text
    assert str(tmp_path) not in text
    assert "Demo: doublets" in text


def test_sections_on_csc_and_macrophages_in_small(tmp_path: Path):
    """A corner of both grids; figures and limits are those of the page, on fewer tumours."""
    from benchmarks.validation import csc, tam

    found = csc.run(full=False, work=tmp_path, seed=1, quick=True)
    claims = {c.text: c for c in found.claims}
    for text in ("Coverage of the 95 % interval", "Of five rules ours has the smallest worst-case RMSE", "Below the eligible depth",
                 "A reference without CD24"):  # fmt: skip
        assert next(c for t, c in claims.items() if t.startswith(text)).holds, text
    assert any(t.startswith("Downsampling to 50 %") for t in claims)
    assert {r["truth"] for r in found.figures["grid"]} == {"5 %, independent", "10 %, associated"}
    macrophages = tam.run(full=False, work=tmp_path, seed=1, quick=True)
    assert next(c for c in macrophages.claims if c.text.startswith("Class macro-F1")).holds
    assert macrophages.figures["null_rho"]["n"] == 10
    for section in (found, macrophages):
        stored = harness.entry(section, seed=1, full=False)
        assert "macro-F1" in str(stored) or "coverage" in str(stored)
