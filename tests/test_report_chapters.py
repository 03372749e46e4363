"""What the chapters of the report say of the tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fake_results import make
from nicheloop import (
    genes,
    io,
    report,
    report_annotation,
    report_axes,
    report_cells,
    report_cohort,
    report_data,
    report_loop,
    report_malignancy,
    report_niche,
    report_page,
    report_summary,
    report_text,
    resources,
    status,
    tables,
    vocabulary,
)
from nicheloop.config import Config, load_config
from report_pages import cell_texts, read, said_by


def test_methods_say_what_ran_and_nothing_else(report_results: Path, tmp_path: Path) -> None:
    from nicheloop.report_methods import methods_chapter

    d = report_data.Data(report_results, Config())
    headings = {b.text for b in methods_chapter(d, report_page.Page(tmp_path)) if b.kind == "heading"}
    assert {"qc", "csc", "crosstalk", "loop"} <= headings and "screen" not in headings
    io.write_text(tmp_path / "cohort" / "samples.tsv", "sample\tpatient\tstatus\treason\na\ta\tunreadable\tempty\n")
    nothing = methods_chapter(report_data.Data(tmp_path, Config()), report_page.Page(tmp_path))
    assert not [b for b in nothing if b.kind == "heading"]
    assert any("Not run, or without any answer" in b.text for b in nothing)


def test_inhibitors_have_sources_and_known_axes() -> None:
    known = {a.id for a in genes.axes()}
    for drug in resources.yaml("inhibitors.yaml"):
        assert re.fullmatch(r"10\.\d{4,9}/\S+", drug["doi"]) and set(drug["axes"]) <= known, drug["drug"]


def test_first_screen_counts(report_html: str) -> None:
    words = " ".join("".join(read(report_html).text).split())
    assert "In 3 of 5 tumours the CD44+/CD24- fraction of malignant cells could be estimated" in words
    assert "6 samples of 6 patients came in, 1 of them normal tissue. 1 sample could not be read." in words
    assert "T5: matrix.mtx.gz ends in the middle of a line." in words
    assert "CD44+/CD24- fraction, 2 of 5 tumours: too shallow for a zero to mean low (T4); unreadable (T5)." in words


def test_clones_and_expected_changes(report_html: str) -> None:
    rows = {r[0]: r for r in cell_texts(report_html, "clones")}
    assert set(rows) == {"T1", "&lt;script&gt;", "T3", "T4"}  # neither the unreadable sample nor normal tissue
    _, subtype, clones, against, events, found, other, her2 = rows["T1"]
    assert subtype == "TNBC" and clones.startswith("2 (") and against == "normal epithelium of the sample"
    assert events == "1q gain, 16q loss (1)" and found == "2 of 3" and other == "9p24 loss (1)"
    assert her2 == "not amplified (1 of 3 genes)"
    assert report_malignancy.her2_words({"clone_1": {"amplified": None, "high": [], "measured": []}}) == "NA"


def test_rates_that_differ_between_samples_are_said_in_words(report_html: str) -> None:
    said = {r[1]: r[-1] for r in cell_texts(report_html, "csc_rates")}
    assert said["CD24"].startswith("samples differ more than the cells within them")
    assert said["CD44"] == said["ALDH1A3"] == "two states within samples"


def test_panels_left_out_are_named(report_html: str) -> None:
    words = " ".join("".join(read(report_html).text).split())
    assert "Not drawn, because no macrophage was scored: T5 and T3." in words


def test_circularity_is_shown(report_html: str) -> None:
    rows = cell_texts(report_html, "circularity")
    assert rows and all(int(r[2]) == len(r[3].split(", ")) for r in rows)
    assert all(r[4] == "no" for r in rows)  # no pair that must be apart shares a gene


def test_input_annotation_is_compared(report_html: str, report_results: Path) -> None:
    from sklearn.metrics import cohen_kappa_score

    words = " ".join("".join(read(report_html).text).split())
    types = io.read_table(report_results / "cohort" / "cell_types.parquet")
    given = types[types["cell_type_input"].notna()]
    meant = given["cell_type_input"].astype(str).map(lambda v: vocabulary.meaning(v)[0])
    known = given[meant != ""]
    expected = cohen_kappa_score(meant[meant != ""].astype(str), known["cell_type"].astype(str))
    assert f"Of {len(known):,} cells whose label names a major type" in words
    assert f"agree, Cohen's kappa {report_page.number(expected)}. " in words and 0.5 < expected < 1
    assert "Labels that were not understood: Other." in words


def test_kappa_is_nan_with_one_label() -> None:
    assert np.isnan(report_annotation.kappa(["a", "a"], ["a", "a"])) and np.isnan(report_annotation.kappa([], []))


def test_obstacle_of_malignant_receivers(tmp_path: Path) -> None:
    import pandas as pd

    row = {"ligand": "CXCL8", "receptor": "CXCR1", "sender": "macrophage", "receiver": "malignant", "axis": "CXCL8",
           "arm": "forward", "reason": "", "status": "receptor_not_detected", "n_sender": 30, "n_receiver": 300,
           "ligand_umi": 90.0, "ligand_fraction": 0.9, "ligand_upper": 0.97, "receptor_umi": 0.0, "receptor_fraction": 0.0,
           "receptor_upper": 0.01, "n_platelet": 0, "n_neutrophil": 0}  # fmt: skip
    neutrophil = {**row, "receiver": "neutrophil", "status": "too_few_cells", "n_receiver": 0, "receptor_upper": np.nan}

    class One:
        config, tumours = Config(), ["T1"]

        def __init__(self, *rows: dict[str, Any]) -> None:
            self.rows = pd.DataFrame(rows).assign(sample="T1")

        def per_sample(self, name: str) -> pd.DataFrame:
            return self.rows

    said = report_niche.towards_malignant(
        One(row, {**row, "receptor": "CXCR2", "receptor_upper": 0.012}, neutrophil), "CXCL8"
    )  # type: ignore[arg-type]
    assert said == (
        "CXCL8: CXCR1/CXCR2 not detected in malignant cells of 1 of 1 tumour (at most 1.2\u00a0% of the cells of any "
        "tumour, "
        "n = 300 cells)."
    )
    others = [
        {**row, "status": s, "sample": f"T{i}", "receptor_umi": 50.0, "receptor_fraction": 0.2, "n_sender": 0}
        for i, s in enumerate(("gene_absent_from_reference", "ambient_not_exceeded", "ambient_not_exceeded"), start=2)
    ]
    cohort = One(row)
    cohort.tumours, cohort.rows = ["T1", "T2", "T3", "T4"], pd.concat([cohort.rows, pd.DataFrame(others)])
    assert report_niche.towards_malignant(cohort, "CXCL8").endswith(  # type: ignore[arg-type]
        "not above ambient RNA in 2 of 4 tumours; gene absent from reference in 1 of 4 tumours."
    )
    tested = {**row, "status": "tested", "receptor_umi": 50.0, "receptor_fraction": 0.2}
    assert report_niche.towards_malignant(One(row, tested), "CXCL8") == ""  # type: ignore[arg-type]
    assert report_niche.towards_malignant(One(neutrophil), "CXCL8") == ""  # type: ignore[arg-type]
    absent = {**row, "status": "gene_absent_from_reference", "receptor_umi": np.nan, "receptor_fraction": np.nan}
    assert "gene absent from reference" in report_niche.towards_malignant(One(absent), "CXCL8")  # type: ignore[arg-type]


def test_annotation_of_the_input_that_gave_the_types_is_said_so() -> None:
    import pandas as pd

    types = pd.DataFrame({
        "cell_id": list("abcd"), "cell_type": ["caf", "caf", "t_nk", "t_nk"], "confidence": [0.9, 0.2, 0.99, 0.99],
        "cell_type_reason": ["from_input", "from_input", "label_not_understood", "ok"],
        "cell_type_input": ["CAFs", "CAFs", "?", None]})  # fmt: skip

    class One:
        config = Config()

    written: list[pd.DataFrame] = []

    class Paper:
        def table(self, name: str, table: pd.DataFrame, shown: Any, title: str, caption: str) -> report_page.Block:
            written.append(table)
            return report_page.Block("table", caption=caption)

    blocks = report_annotation.input_blocks(One(), types, Paper())  # type: ignore[arg-type]
    assert "gave 2 cells of 4 their type" in blocks[0].text and "below 0.5 in 1 cell (50" in blocks[0].text
    assert "1 cell kept the computed type" in blocks[0].text
    assert "was not used" not in blocks[1].caption and "n = 1 cell with" in blocks[1].caption
    untouched = types.assign(cell_type_reason="ok")
    assert "was not used to give types" in report_annotation.input_blocks(One(), untouched, Paper())[0].caption  # type: ignore[arg-type]


def test_calibration_words_are_those_of_the_documentation() -> None:
    text = (Path(__file__).parents[1] / "docs" / "annotate.md").read_text(encoding="utf-8")
    line = " ".join(text.split())
    line = line[line.index("Confidence against the share that is right (") :]
    assert f"({report_text.CALIBRATION_CELLS:,} cells" in line
    numbers = [float(v) for v in re.findall(r": (0\.\d+)", line[: line.index("It is somewhat")])]
    assert numbers == [right for _, right in report_text.CALIBRATION]


def test_unresolved_cells_have_their_reasons(report_html: str, report_results: Path) -> None:
    types = io.read_table(report_results / "cohort" / "cell_types.parquet")
    for sample, cells, unresolved, share, ambient, low, two in cell_texts(report_html, "unresolved"):
        mine = types[types["sample"] == sample.replace("&lt;", "<").replace("&gt;", ">")]
        bad = mine[mine["cell_type"] == "unresolved"]
        assert (int(cells), int(unresolved)) == (len(mine), len(bad))
        assert [int(ambient), int(low), int(two)] == [
            int((bad["cell_type_reason"] == r).sum()) for r in ("ambient", "low_evidence", "two_lineages")
        ]
        assert share == ("NA" if not len(mine) else report_page.fraction(len(bad) / len(mine)))
    bands = cell_texts(report_html, "confidence_bands")
    assert sum(int(r[1].replace(",", "")) for r in bands) == len(types)


def test_three_way_call_names_its_reasons(report_html: str, report_results: Path) -> None:
    found = {tuple(r[:2]): int(r[3]) for r in cell_texts(report_html, "malignancy_reasons")}
    calls = io.read_table(report_results / "samples" / "T1" / "malignancy.parquet")["malignancy"].value_counts()
    assert {k[1]: v for k, v in found.items() if k[0] == "T1"} == {
        c: calls[c] for c in ("malignant", "normal", "unassigned") if c in calls
    }
    loci = cell_texts(report_html, "marker_loci")
    assert loci[0][0] == "CD44" and loci[0][4] == "gain" and loci[-1][4] == "no change"
    checks = cell_texts(report_html, "arm_checks")
    assert ["T1", "1", "9p24", "gain", "loss", "no", "50", "0.1", "3.5"] in checks


def test_measurability_comes_first_and_decoys_are_counted(report_html: str) -> None:
    chapter = report_html[report_html.index('<section id="crosstalk') : report_html.index('<section id="loop"')]
    order = re.findall(r'id="((?:table|figure)-[\w]+)"', chapter)
    assert order[0] == "table-measurability"
    assert order.index("figure-axes_1") < order.index("figure-patients_1") < order.index("table-axis_controls")
    assert {"table-axis_subtypes", "table-axis_power", "table-barcode_guards", "table-decoys"} <= set(order)
    words = said_by(report_html)
    assert (
        "of 250 expressed pairs of a secreted and a membrane protein without a recorded interaction, 10 have p of 0.05"
        in words
    )
    assert "4.0 % (2.0 to 8.0 %)" in words and "it would be 100 (40 %)" in words
    assert "silent" not in words
    guards = cell_texts(report_html, "barcode_guards")
    assert len(guards) == 4 and all(r[1:] == ["12", "3"] for r in guards)
    subtype = {r[3]: r for r in cell_texts(report_html, "axis_subtypes")}
    assert subtype["TNBC"][5] == "1" and subtype["TNBC"][8] == "-0.5 (-1.25 to 0.25)" and "unknown subtype" in subtype


def test_reasons_are_not_cut(report_html: str) -> None:
    reason = next(r for r in cell_texts(report_html, "axis_controls") if r[0] == "DLL4-NOTCH4")[-1]
    assert len(reason) > report_page.LETTERS and not reason.endswith("…")


def test_patient_values_are_those_of_the_pooled_table() -> None:
    import pandas as pd

    base = {
        "axis": "X",
        "sender": "caf",
        "receiver": "malignant",
        "ligand": "L",
        "specificity": 1.0,
        "specificity_se": 0.5,
    }
    rows = pd.DataFrame([
        {**base, "sample": "a", "receptor": "R1", "status": "tested", "strength": 2.0, "log2_se": 0.25, "q": 0.01},
        {**base, "sample": "a", "receptor": "R2", "status": "tested", "strength": 8.0, "log2_se": 0.5, "q": 0.2},
        {**base, "sample": "b", "receptor": "R1", "status": "too_few_cells"},
        {**base, "sample": "b", "receptor": "R2", "status": "receptor_not_detected"},
    ])  # fmt: skip
    found = report_axes.patient_values(rows, pd.Series(base), ["a", "b", "c"], 2.0)
    assert found["effect"].tolist()[0] == 3.0 and found["q"].tolist()[0] == 0.2  # by strength, never by p
    assert (found["effect_low"][0], found["effect_high"][0]) == (2.0, 4.0)
    assert (found["specificity_low"][0], found["specificity_high"][0]) == (0.0, 2.0)
    assert (
        found["status"].tolist() == ["tested", "receptor_not_detected", "not_run"] and found["effect"].isna().sum() == 2
    )


def test_pair_that_is_drawn_holds_malignant_cells() -> None:
    import pandas as pd

    row = {"axis": "IL6_classic", "arm": "forward", "n_significant": 0, "n_significant_usual": 0, "effect": 0.0}
    table = pd.DataFrame([
        {**row, "sender": "endothelial", "receiver": "t_cd4", "n_assessable": 5},
        {**row, "sender": "icaf", "receiver": "malignant", "n_assessable": 3},
        {**row, "sender": "pvl", "receiver": "malignant", "n_assessable": 2},
        {**row, "axis": "DECOY", "arm": "decoy", "sender": "a", "receiver": "malignant", "n_assessable": 5},
    ])  # fmt: skip
    assert report_axes.best_pairs(table)[["sender", "receiver"]].to_numpy().tolist() == [["icaf", "malignant"]]


def test_loop_shows_both_labels_and_what_is_shared_once(report_html: str, report_results: Path) -> None:
    import pandas as pd

    arms = io.read_table(report_results / "samples" / "T1" / "loop.parquet").set_index(["axis", "arm"])
    shown = {(r[0], r[1]): r for r in cell_texts(report_html, "loop_arms")}
    assert shown["T1", "A"][5] == report_page.number(arms.loc[("IL6_classic", "A"), "z"])
    assert shown["T1", "C"][6:] == ["0.015", "0.015", "0.02", "0.015"]
    first = {r[0]: r for r in cell_texts(report_html, "loop_responses")}["T1"]
    assert first[3] == report_page.number(arms.loc[("IL6_classic", "B"), "effect_stress"]) and first[-1] == "0.02"
    assert cell_texts(report_html, "loop_responses_aldh1a3")
    shared = pd.DataFrame(
        {
            "axis": ["a", "b", "c", "a", "b", "c"],
            "arm": list("CCCAAA"),
            "sample": "s",
            "what": list("xxxyyz"),
            "effect": 1.0,
            "p": 0.1,
        }
    )
    assert report_loop.once(shared)["axes"].tolist() == ["all", "a and b", "c"]
    assert (
        report_loop.joined("arm A: no cells; arm B: no cells; arm C: no gene")
        == "arms A and B: no cells; arm C: no gene"
    )
    assert report_loop.joined("the weakest arm is B (p 0.3)") == "the weakest arm is B (p 0.3)"
    chain = {(r[0], r[1]): r[8] for r in cell_texts(report_html, "chain_levels")}
    assert chain["T1", "IL1B"] == "1.25" and chain["T3", "IL6"] == "NA"


def test_facts_failures_and_receptors_where_their_tables_exist(tmp_path: Path) -> None:
    import pandas as pd

    samples = make(tmp_path, cells=60, truth=False)
    fact = {
        "dataset": "D<1>",
        "claim": "26 patients",
        "expected": "26",
        "found": "25",
        "severity": "hard",
        "source": "paper",
    }
    facts = [{**fact, "fact": "a", "result": "pass"}, {**fact, "fact": "b", "result": "differ"}]
    io.write_table(pd.DataFrame(facts), tmp_path / "cohort" / "facts.tsv", "facts")
    io.write_table(
        tables.empty("tam"),
        tmp_path / "samples" / "T3" / "tam.parquet",
        "tam",
        io.Status("tam", "T3", "failed", "no memory"),
    )
    status.run_status(tmp_path, samples, tmp_path / "cohort" / "status.tsv")
    d, paper = report_data.Data(tmp_path, Config()), report_page.Page(tmp_path)
    first, *rest = report_summary.summary_chapter(d)
    assert first.kind == "warnings"
    said = [(w.text, w.anchor) for w in first.entries]
    assert said[0][0].startswith("1 of 6 samples was not finished because a job failed: T3.")
    assert said[1] == ("1 sample could not be read: T5.", "not-assessable")
    assert (
        "1 published fact of the hard kind differs from what was read: the files may not be the data described.",
        "quality",
    ) in said
    assert next(b for b in rest if b.kind == "bullets" and "T3: the stage tam failed" in b.entries[0].text)
    _, said, table = report_cells.facts_blocks(d, paper)
    assert said.kind == "note" and "1 agree with what was read, 1 differ and 0 could not be checked" in said.text
    assert [r[4] for r in table.rows] == ["differ", "pass"]
    words, receptors = report_malignancy.receptor_blocks(d, paper)
    assert "agree in 1 of 3 patients compared" in words.text and "for P3, whose sheet gives none" in words.text
    rows = {r[0]: r for r in receptors.rows}
    assert rows["P0"][1:7] == ["T1", "TNBC", "TNBC", "agrees", "TNBC", "sheet"] and rows["P1"][4] == "differs"
    assert rows["P3"][2:7] == ["NA", "TNBC", "not compared", "TNBC", "inferred"]
    assert rows["P0"][9] == "0 (0 to 7.4)" and rows["P0"][11] == "NA"
    html = report.render_page("t", "l", [report_page.Chapter("c", [first, said, table])])
    assert "D&lt;1&gt;" in html and "D<1>" not in html


@pytest.mark.parametrize("method", ["strength", "cellphonedb"])
def test_screen_chapter_only_where_it_was_run(tmp_path: Path, method: str) -> None:
    import pandas as pd

    from nicheloop.report_screen import has_screen, screen_chapter

    io.write_text(tmp_path / "cohort" / "samples.tsv", "sample\tpatient\tstatus\treason\na\ta\tok\t\nb\tb\tok\t\n")
    config = load_config({"screen": {"resource": "pairs.tsv", "method": method}})
    assert not has_screen(report_data.Data(tmp_path, config))
    row = {"ligand": "CSF1", "receptor": "CSF1R", "sender": "malignant", "status": "tested", "obstacle": None, "n_sender": 30,
           "n_receiver": 30, "ligand_fraction": 0.5, "receptor_fraction": 0.5, "ligand_mean": 1.0, "receptor_mean": 1.0, "score": 1.0,
           "n_extreme": 0, "p": 0.001, "p_upper": 0.004, "q": 0.01, "q_tested": 0.01}  # fmt: skip
    none = dict.fromkeys(("score", "p", "p_upper", "q", "q_tested"), np.nan) | {"n_extreme": pd.NA}
    screen = pd.DataFrame([
        {**row, "receiver": "myeloid"}, {**row, "receiver": "t_nk", "q": 0.5},
        {**row, **none, "receiver": "caf", "status": "too_few_cells", "obstacle": "caf"},
    ])  # fmt: skip
    io.write_table(screen, tmp_path / "samples" / "a" / "screen.parquet", "screen", io.Status("screen", "a"))
    d = report_data.Data(tmp_path, config)
    blocks = screen_chapter(d, report_page.Page(tmp_path))
    assert has_screen(d) and ("no matched-pair and no decoy null" in blocks[0].text) == (method == "strength")
    assert blocks[1].rows == [["a", "3", "2", "1", "2", "too few cells (1)"], ["b", "0", "0", "0", "0", "no row"]]
    assert blocks[2].rows[0] == ["CSF1", "CSF1R", "malignant", "myeloid", "1", "1", "1", "0.004"]


def test_enrichment_marks_what_is_circular(tmp_path: Path) -> None:
    import pandas as pd

    row = {"contrast": "aldh1a3", "status": "ok", "reason": "", "n_patients": 4, "mean_counts": 10.0, "log2_fold_change": 2.0,
           "statistic": 9.0, "p": 1e-9, "q": 1e-8}  # fmt: skip
    de = pd.DataFrame(
        [{**row, "gene": "ALDH1A3", "circular": True}, {**row, "gene": "KRT5", "circular": False, "q": 0.5}]
    )
    io.write_table(de, tmp_path / "cohort" / "de.tsv", "de")
    blocks = report_cohort.enrichment_chapter(report_data.Data(tmp_path, Config()), report_page.Page(tmp_path))
    assert any("ALDH1A3-high against ALDH1A3-low" in b.text for b in blocks if b.kind == "heading")
    table = next(b for b in blocks if b.kind == "table")
    assert [r[:2] for r in table.rows] == [["ALDH1A3", "yes"], ["KRT5", "–"]]
    assert "ALDH1A3 defines the contrast and differs by construction" in table.caption
