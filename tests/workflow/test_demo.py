"""The demo cohort from counts to report: against its truth, and re-run only as far as needed."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

import browser
from nicheloop import contracts, io, tables
from nicheloop.warm import ADDRESS

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("workflow")]


@pytest.fixture(scope="module")
def results(demo) -> Path:
    return demo.folder / "results"


@pytest.fixture(scope="module")
def truth(results: Path) -> pd.DataFrame:
    return pd.read_csv(results / "demo/truth_cells.tsv.gz", sep="\t").set_index("cell_id")


@pytest.fixture(scope="module")
def atlas(results: Path) -> ad.AnnData:
    return ad.read_h5ad(results / "atlas.h5ad")


@pytest.mark.skipif(bool(browser.missing()), reason=browser.missing())
def test_report_in_a_browser(results: Path) -> None:
    browser.check_report(results / "report.html")


def samples(results: Path) -> list[str]:
    return io.read_table(results / "cohort/samples.tsv")["sample"].tolist()


def test_every_table_keeps_its_contract(results: Path):
    seen = set()
    for name, contract in tables.CONTRACTS.items():
        paths = (
            [contract.path.format(sample=s) for s in samples(results)]
            if "{sample}" in contract.path
            else [contract.path]
        )
        for path in paths:
            if not (results / path).exists():
                continue
            seen.add(name)
            tables.conform(io.read_table(results / path), name)
    always = {name for name, contract in tables.CONTRACTS.items() if not contract.optional}
    assert seen >= always - {"composition"}, always - seen


def test_atlas_is_an_ordinary_h5ad(atlas: ad.AnnData):
    for column in (
        "sample", "patient", "cell_type", "cell_type_minor", "malignancy", "malignancy_status", "m_csc_prob", "csc_state",
        "aldh1a3_state", "m1_z", "m2_z", "tam_class", "n_counts", "n_genes", "pct_mito", "doublet_score",
    ):  # fmt: skip
        assert column in atlas.obs, column
    for key in ("X_pca", "X_harmony", "X_umap"):
        assert atlas.obsm[key].shape[0] == atlas.n_obs
        assert np.isfinite(atlas.obsm[key]).all()
    counts = atlas.layers["counts"]
    assert (counts.data == np.round(counts.data)).all()
    first = counts[:50].toarray()
    totals = first.sum(1, keepdims=True)
    np.testing.assert_allclose(atlas.X[:50].toarray(), np.log1p(first / totals * 1e4), rtol=1e-4)
    assert atlas.obs_names.str.match(r"^demo_[a-z0-9_]+:").all()
    assert set(atlas.obs["cell_type"]) <= set(contracts.MAJOR_TYPES)
    assert set(atlas.obs["malignancy"]) <= set(contracts.MALIGNANCY)
    assert set(atlas.obs["csc_state"]) <= set(contracts.CSC_STATES)
    assert set(atlas.obs["aldh1a3_state"]) <= set(contracts.ALDH_STATES)
    assert set(atlas.obs["tam_class"]) <= set(contracts.TAM_CLASSES)


def test_types_against_truth(atlas: ad.AnnData, truth: pd.DataFrame):
    known = truth.loc[atlas.obs_names]
    single = ~known["doublet"].to_numpy(dtype=bool)
    expected, called = known["cell_type"][single], atlas.obs["cell_type"].astype(str)[single]
    assert f1_score(expected, called, average="macro", labels=sorted(set(expected))) >= 0.95


def test_malignancy_against_truth(atlas: ad.AnnData, truth: pd.DataFrame):
    known = truth.loc[atlas.obs_names]
    single = ~known["doublet"].to_numpy(dtype=bool)
    called = atlas.obs["malignancy"].astype(str)[single] == "malignant"
    assert balanced_accuracy_score(known["malignant"][single].astype(bool), called) >= 0.97


def test_normal_breasts_hold_no_malignant_cell(atlas: ad.AnnData):
    normal = atlas.obs["sample"].astype(str).str.contains("normal")
    assert normal.sum() > 100
    assert (atlas.obs.loc[normal, "malignancy"] == "malignant").mean() < 0.02


def test_csc_fraction_within_its_interval_in_most_deep_tumours(results: Path):
    patients = io.read_table(results / "cohort/csc_patients.tsv")
    known = pd.read_csv(results / "demo/truth_samples.tsv", sep="\t").set_index("sample")
    assessed = patients[patients["status"] == "ok"].set_index("sample")
    assert len(assessed) >= 4
    true = known.loc[assessed.index, "csc_fraction"]
    inside = (assessed["m_csc_low"] <= true) & (true <= assessed["m_csc_high"])
    assert inside.mean() >= 0.75, pd.concat([assessed[["m_csc_low", "m_csc_high"]], true], axis=1)


def test_the_shallow_tumour_and_the_one_without_macrophages_are_not_assessable(results: Path):
    known = pd.read_csv(results / "demo/truth_samples.tsv", sep="\t").set_index("sample")
    csc = io.read_table(results / "cohort/csc_patients.tsv").set_index("sample")
    tam = io.read_table(results / "cohort/tam_patients.tsv").set_index("sample")
    shallow = known.index[known["shallow"] == "yes"].item()
    without = known.index[known["without_macrophages"] == "yes"].item()
    assert csc.loc[shallow, "status"] == "not_informative_depth"
    assert np.isnan(csc.loc[shallow, "m_csc_fraction"])
    assert tam.loc[without, "status"] == "too_few_macrophages"
    assert np.isnan(tam.loc[without, "m1_median"])


def test_six_tumours_are_too_few_for_a_claim_about_the_cohort(results: Path):
    cohort = io.read_table(results / "cohort/loop_cohort.tsv")
    assert len(cohort) > 0
    assert set(cohort["status"]) <= {"too_few_patients", "not_assessable"}
    assert "too_few_patients" in set(cohort["status"])


def test_a_planted_loop_is_found_and_none_where_none_is_planted(results: Path):
    known = pd.read_csv(results / "demo/truth_samples.tsv", sep="\t").set_index("sample")
    loop = io.read_table(results / "cohort/loop.tsv").set_index("sample")
    planted = known["loop_planted"] == "yes"
    present = set(loop.index[loop["verdict"] == "all three arms present"])
    assert present <= set(known.index[planted]), "a loop where none is planted"
    il6 = loop[loop["axis"] == "IL6_classic"]
    found = il6.loc[il6.index.isin(known.index[planted]), "verdict"] == "all three arms present"
    assert found.sum() >= 2, il6[["status", "verdict", "reason"]]


def test_ppbp_rows_are_never_dropped(results: Path):
    for sample in samples(results):
        rows = io.read_table(results / f"samples/{sample}/crosstalk.parquet")
        rows = rows[rows["axis"] == "PPBP"]
        assert len(rows) > 0
        assert "tested" not in set(rows["status"])


def test_report_is_one_offline_file_with_its_chapters(results: Path):
    text = (results / "report.html").read_text()
    for word in ("Quality", "Map", "Composition", "Annotation", "Malignancy", "Cancer stem cells", "Macrophages", "Crosstalk",
                 "Loop", "Cohort", "Enrichment", "Not assessable", "Limitations", "Methods", "Provenance"):  # fmt: skip
        assert word in text, word
    for scheme in ('src="http', 'href="http', "url(http", "@import"):
        assert not any(scheme in line and "doi.org" not in line for line in text.splitlines()), scheme


def test_nothing_to_do_on_a_second_run(demo):
    assert demo.planned() == {}


def rerun(demo, stage: str, change) -> set[str]:
    path = demo.folder / "src/nicheloop" / f"{stage}.py"
    before = path.read_text()
    try:
        path.write_text(change(before))
        return set(demo.planned())
    finally:
        path.write_text(before)


def test_editing_one_stage_reruns_it_and_what_follows(demo):
    planned = rerun(demo, "tam", lambda text: text + "\n# edited\n")
    assert {"tam", "tam_patients", "crosstalk", "report"} <= planned
    assert not planned & {
        "simulate",
        "ingest",
        "qc",
        "moments",
        "embed",
        "annotate",
        "malignancy",
        "score",
        "csc",
        "csc_rates",
    }


def test_editing_one_section_of_the_configuration_reruns_its_stage_and_what_follows(demo):
    planned = set(demo.planned("--config", "csc={min_malignant: 40}"))
    assert {"csc_rates", "csc", "csc_patients", "loop", "report"} <= planned
    assert not planned & {"simulate", "ingest", "qc", "embed", "annotate", "malignancy", "score", "tam"}


def digest(folder: Path) -> dict[str, str]:
    """Checksums of all tables below a results folder."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.suffix in (".parquet", ".tsv") and not {"benchmarks", "logs", "demo"} & set(p.relative_to(folder).parts)
    }


def test_a_forced_second_run_gives_the_same_bytes_whatever_the_cores_and_however_jobs_start(demo, tmp_path: Path):
    chosen = [s for s in samples(demo.folder / "results") if "tnbc" in s][:1] + [
        s for s in samples(demo.folder / "results") if "normal" in s
    ][:1]
    sheet = tmp_path / "two.tsv"
    sheet.write_text("sample\tpath\n" + "".join(f"{s}\t{demo.folder / 'results/demo' / s}\n" for s in chosen))
    tables_of = []
    for cores, name, start in ((1, "one", "off"), (2, "two", "")):
        out = tmp_path / name
        given = ("--verbose", "--config", f"samples={sheet}", f"results={out}")
        said = demo.snakemake(
            "--quiet", "rules", "--forceall", *given, cores=cores, **({ADDRESS: start} if start else {})
        )
        tables_of.append(digest(out))
        text = said.stdout + said.stderr
        jobs = int(re.findall(r" of (\d+) steps", text)[-1])
        # Snakemake looks at the waiting jobs when one has ended, not by the clock
        assert jobs / 2 < text.count("Ready jobs: ") < 3 * jobs
    assert len(tables_of[0]) > 30
    assert tables_of[0] == tables_of[1]


def test_a_rule_runs_where_nicheloop_is_not_installed(demo, tmp_path: Path):
    """As under --sdm conda: only the dependencies are there, the package comes from src/."""
    venv.create(tmp_path / "bare", with_pip=False)
    python = tmp_path / "bare/bin/python"
    site = next((tmp_path / "bare/lib").glob("python*/site-packages"))
    packages = Path(np.__file__).parents[1]
    (site / "dependencies.pth").write_text(f"{packages}\n")
    absent = subprocess.run([python, "-c", "import nicheloop.io"], cwd=tmp_path, capture_output=True, check=False)
    assert absent.returncode != 0, "nicheloop is importable without src/; the test shows nothing"
    sample = samples(demo.folder / "results")[0]
    target = tmp_path / "out" / "samples" / sample / "qc.parquet"
    shutil.copytree(demo.folder / "results/demo" / sample, tmp_path / "data")
    (tmp_path / "s.tsv").write_text(f"sample\tpath\n{sample}\tdata\n")
    bare = type(demo)(demo.folder, str(python))
    bare.snakemake(
        str(target), "--quiet", "rules", "--config", f"samples={tmp_path / 's.tsv'}", f"results={tmp_path / 'out'}"
    )
    assert len(io.read_table(target)) > 0
    assert sys.executable != str(python)
