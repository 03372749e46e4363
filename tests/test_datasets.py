"""The catalogue: every entry, what a selection means, and what is refused."""

from __future__ import annotations

import copy
import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nicheloop import catalogue_text, datasets, genes, inputs, sheet, workflow
from nicheloop.errors import UserError
from nicheloop.patients import TISSUES

ROOT = Path(__file__).resolve().parents[1]
KNOWN = datasets.shipped()
RUNNABLE = [n for n, d in KNOWN.items() if d.status == "runnable"]


@pytest.mark.parametrize("name", KNOWN)
def test_every_entry_is_whole(name: str) -> None:
    entry = KNOWN[name]
    assert entry.title and entry.role
    if entry.status == "not_runnable":
        assert entry.reason.endswith(".")
        with pytest.raises(UserError, match="cannot be run: " + re.escape(entry.reason[:40])):
            datasets.rows(name)
        return
    rows = datasets.rows(name)
    assert [r["sample"] for r in rows] == [s.sample for s in entry.samples]
    guarded = set(genes.guards([], []))
    for fact in entry.facts:
        if fact.check in ("present", "absent"):
            assert set(fact.value) <= guarded, fact.id  # type: ignore[arg-type]
        if fact.check == "samples":
            assert fact.value == len(rows)
        if fact.check == "patients":
            assert fact.value == len({r["patient"] for r in rows}), fact.id
        if fact.check == "cells" and all(s.cells for s in entry.samples):
            assert fact.value == sum(s.cells or 0 for s in entry.samples)
        if fact.check == "treated":
            assert fact.value == sorted(s.sample for s in entry.samples if s.treatment == "treated")
        if fact.check == "cells_by_subtype":
            total: Counter[str] = Counter()
            for s in entry.samples:
                total[str(s.subtype)] += s.cells or 0
            assert fact.value == dict(total)
        if fact.check == "labels" and name == "GSE176078":
            assert sum(fact.value.values()) == sum(s.cells or 0 for s in entry.samples)  # type: ignore[union-attr]
    for file in entry.files:
        assert file.url.endswith(file.name)
        if name.startswith("GSE"):
            assert file.url == f"https://ftp.ncbi.nlm.nih.gov/geo/series/{name[:-3]}nnn/{name}/suppl/{file.name}"
    for row in rows:
        assert json.loads(json.dumps(row)) == row
        assert sheet.NAME.fullmatch(row["sample"]) and row["tissue"] in TISSUES
        texts = [v for v in row["source"]["layout"].values() if isinstance(v, str)]
        assert not any(c in t for t in texts for c in "{}")  # every {sample} and {key} is filled in


def test_names_are_unique_over_the_catalogue() -> None:
    """Any data sets can be run together."""
    rows = datasets.rows(",".join(RUNNABLE))
    assert len({r["sample"].lower() for r in rows}) == len(rows) == 172
    owners: dict[str, set[str]] = {}
    for row in rows:
        owners.setdefault(row["patient"], set()).add(row["dataset"])
    assert all(len(o) == 1 for o in owners.values())


def test_published_figures_of_the_two_large_sets() -> None:
    wu = {s.sample: s for s in KNOWN["GSE176078"].samples}
    assert Counter(s.subtype for s in wu.values()) == {"ER+": 11, "HER2+": 5, "TNBC": 10}
    assert sum(s.cells or 0 for s in wu.values()) == 100_064
    assert wu["CID4066"].treatment == "treated" and wu["CID3586"].treatment == "naive"
    pal = {s.sample: s for s in KNOWN["GSE161529"].samples}
    assert Counter(s.tissue for s in pal.values()) == {"normal": 28, "tumour": 34, "lymph_node": 7}
    assert {pal[s].patient for s in ("TN-0114-T2", "ER-0114-T3")} == {"Pal-0114"}
    assert pal["N-0093-epi"].sorting == "EpCAM+"


def test_the_schema_is_generated_and_holds_for_the_file() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "workflow/schemas/datasets.schema.json").read_text())
    assert schema == datasets.json_schema(), "run `make generate`"
    values = yaml.safe_load((ROOT / "resources/datasets.yaml").read_text())
    jsonschema.validate(values, schema)
    values["GSE176078"]["samples"][0]["tissue"] = "liver"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, schema)


def test_formats_of_layouts_are_those_of_the_readers() -> None:
    assert set(get_args(datasets.Format)) == set(inputs.FORMATS)


# --- choosing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "samples"),
    [
        ("tenx-idc", ["tenx-idc"]),
        ("TENX-IDC", ["tenx-idc"]),
        ("GSE176078:CID44971,CID3586", ["CID3586", "CID44971"]),
        ("GSE176078:CID3586,tenx-idc", ["CID3586", "tenx-idc"]),
        (" tenx-idc , GSE176078:cid3586 ,", ["tenx-idc", "CID3586"]),
        ("GSE176078:CID3586,GSE148673:Gao-TNBC1,Gao-TNBC2", ["CID3586", "Gao-TNBC1", "Gao-TNBC2"]),
        ("GSE148673:*", [f"Gao-TNBC{i}" for i in range(1, 6)]),
        ("GSE148673:*1,GSE148673:*2", ["Gao-TNBC1", "Gao-TNBC2"]),
    ],
)
def test_selections(text: str, samples: list[str]) -> None:
    assert [r["sample"] for r in datasets.rows(text)] == samples


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("GSE176079", "Did you mean 'GSE176078'"),
        ("nothing-like-it", "not in the catalogue"),
        ("CID3586", "not in the catalogue"),
        ("tenx-idc,CID3586", "'CID3586' is not in the catalogue"),
        ("GSE176078:CID9999", "has no sample 'CID9999'. It has 26, such as"),
        ("GSE176078:CID3586,CID9999", "has no sample 'CID9999'"),
        ("Bassez2021", "R objects"),
        (",", "names no data set"),
        ("GSE176078;rm -rf ~", "not in the catalogue"),
        ("../../etc/passwd", "not in the catalogue"),
    ],
)
def test_what_cannot_be_chosen_is_named(text: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        datasets.rows(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*"GSE1760*:,-. ", "GSE176078", "tenx-idc", "CID3586", ":", ","]), max_size=12))
def test_any_text_is_a_selection_or_a_message(words: list[str]) -> None:
    text = "".join(words)
    try:
        rows = datasets.rows(text)
    except UserError as err:
        assert "dataset" in str(err)
    else:
        assert rows and all(r["dataset"] in KNOWN for r in rows)


def test_a_data_set_replaces_the_demo_and_joins_a_sheet(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("")
    path = tmp_path / "s.tsv"
    path.write_text("sample\tpath\nA\ta.h5\n")
    assert len(workflow.prepare({})[1]) == 8
    assert [r["sample"] for r in workflow.prepare({"dataset": "tenx-idc"})[1]] == ["tenx-idc"]
    both = workflow.prepare({"samples": str(path), "dataset": "tenx-idc"})[1]
    assert [r["sample"] for r in both] == ["A", "tenx-idc"]
    path.write_text("sample\tpath\nTENX-IDC\ta.h5\n")
    with pytest.raises(UserError, match="has the name of one of the sample sheet"):
        workflow.prepare({"samples": str(path), "dataset": "tenx-idc"})
    with pytest.raises(UserError) as err:
        workflow.prepare({"samples": str(path), "dataset": "GSE1", "qc": {"n_mad": 1}})
    assert "GSE1" in str(err.value) and "n_mads" in str(err.value)


def test_patterns_hold_names_literally() -> None:
    row = datasets.rows("GSE75688:Chung-BC07LN")[0]
    pattern = re.compile(row["source"]["layout"]["cells"]["pattern"])
    assert pattern.search("BC07LN_01") and not pattern.search("BC07_01")
    entry = KNOWN["GSE75688"]
    odd = entry.samples[0].model_copy(update={"key": "a.b(c"})
    assert datasets.row("x", entry, odd)["source"]["layout"]["cells"]["pattern"] == r"^a\.b\(c_"


# --- a catalogue of one's own -----------------------------------------------------------------------------------------


def own() -> dict[str, Any]:
    return {
        "mine": {
            "title": "my data", "status": "runnable",
            "files": [{"name": "x.h5", "url": "https://example.org/x.h5"}, {"name": "y.tar", "url": "/data/y.tar", "unpack": True}],
            "layouts": {"default": {"path": "x.h5"}},
            "samples": [{"sample": "M1", "tissue": "tumour"}],
        }
    }  # fmt: skip


def test_an_entry_is_all_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(own()))
    rows = datasets.rows("mine,tenx-idc", path)
    assert [r["sample"] for r in rows] == ["M1", "tenx-idc"]
    assert list(datasets.downloads(rows)) == [
        ("mine", "x.h5"),
        ("tenx-idc", "Breast_Cancer_3p_LT_filtered_feature_bc_matrix.h5"),
    ]
    assert workflow.prepare({"dataset": "mine", "download": {"catalogue": str(path)}})[1][0]["patient"] == "M1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "x"}, "'mine.colour': Extra inputs"),
        ({"status": "maybe"}, "'runnable' or 'not_runnable'"),
        ({"status": "not_runnable"}, "needs its 'reason'"),
        ({"samples": []}, "needs 'files', 'layouts' and 'samples'"),
        ({"samples": [{"sample": "a b;rm -rf", "tissue": "tumour"}]}, "mine.samples.0.sample"),
        ({"samples": [{"sample": "A", "tissue": "liver"}]}, "mine.samples.0.tissue"),
        ({"samples": [{"sample": "A", "tissue": "tumour"}] * 2}, "sample 'A' stands twice"),
        ({"samples": [{"sample": "A", "tissue": "tumour", "layout": "z"}]}, "no layout 'z'"),
        ({"files": [{"name": "../x.h5", "url": "u"}]}, "mine.files.0.name"),
        ({"files": [{"name": "x.h5", "url": "u", "sha256": "ABC"}]}, "mine.files.0.sha256"),
        ({"files": [{"name": "x.h5", "url": "u", "unpack": True}]}, "is none of .tar"),
        ({"layouts": {"default": {"path": "z.h5"}}}, "no file 'z.h5' among x.h5, y.tar"),
        ({"layouts": {"default": {"path": "x.h5!a"}}}, "'x.h5' is not unpacked"),
        ({"layouts": {"default": {"matrix": "x.h5"}}}, "either 'path', or all of"),
        ({"layouts": {"default": {"path": "x.h5", "cells": {}}}}, "needs 'column', 'where' or 'pattern'"),
        ({"layouts": {"default": {"path": "x.h5", "cells": {"pattern": "("}}}}, "no regular expression"),
        ({"layouts": {"default": {"path": "x.h5", "format": "rds"}}}, "mine.layouts.default.format"),
        ({"doi": "doi.org/1"}, "mine.doi"),
        (
            {"facts": [{"id": "F", "claim": "c", "check": "vibes", "value": 1, "severity": "hard", "source": "s"}]},
            "mine.facts.0.check",
        ),
    ],
)
def test_mistakes_in_an_entry_are_named_with_their_place(change: dict[str, Any], words: str) -> None:
    values = copy.deepcopy(own())
    values["mine"] |= change
    with pytest.raises(UserError) as err:
        datasets.check(values, "mine.yaml")
    assert "mine.yaml" in str(err.value)
    assert words in str(err.value)


@pytest.mark.parametrize("text", ["", "[1]", "a: b", "{", "a b: {title: x, status: not_runnable, reason: y}", "\x00"])
def test_files_that_are_no_catalogue(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(str(path))):
        datasets.read(path)
    with pytest.raises(UserError, match="no such catalogue"):
        datasets.read(tmp_path / "gone.yaml")


@pytest.mark.parametrize("word", ["!!python/object/apply:os.system ['true']", "!!python/name:os.system"])
def test_a_catalogue_is_never_executed(tmp_path: Path, word: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"mine: {word}\n")
    with pytest.raises(UserError, match="cannot be read as a YAML catalogue"):
        datasets.read(path)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://a.org/x.h5", "x.h5"),
        ("https://a.org/p/x%20y.csv.gz?token=1#z", "x_y.csv.gz"),
        ("file:///data/a;b.h5ad", "a_b.h5ad"),
        ("https://a.org/..%2f..%2fetc.h5", "etc.h5"),
    ],
)
def test_addresses_of_a_sheet_get_a_safe_name(url: str, name: str) -> None:
    row = datasets.url_row({"path": url})
    file = row["source"]["files"][0]
    assert re.fullmatch(r"[0-9a-f]{10}-" + re.escape(name), file["name"])
    assert file["url"] == url
    with pytest.raises(UserError, match="does not end in the name of a file"):
        datasets.url_row({"path": "https://a.org/"})


# --- words ------------------------------------------------------------------------------------------------------------


def test_the_list_names_every_data_set_and_why_not() -> None:
    text = catalogue_text.overview(KNOWN)
    for name, entry in KNOWN.items():
        assert name in text and entry.title in text
    assert "R objects" in text
    assert max(map(len, text.splitlines())) < 130


@pytest.mark.parametrize("name", KNOWN)
def test_an_entry_is_explained(name: str) -> None:
    entry = KNOWN[name]
    text = catalogue_text.explain(name.upper(), KNOWN)
    for word in (
        entry.title,
        *[s.sample for s in entry.samples],
        *[f.url for f in entry.files],
        *[f.claim for f in entry.facts],
    ):
        assert word in text
    if any(not f.verified for f in entry.files):
        assert "address not checked" in text


def test_the_sample_table_of_the_catalogue_reads_as_a_table() -> None:
    text = catalogue_text.explain("GSE176078", KNOWN)
    block = text[text.index("  sample") :].split("facts checked")[0]
    rows = list(csv.reader([re.sub(r" {2,}", "\t", r.strip()) for r in block.strip().splitlines()], delimiter="\t"))
    assert len(rows) == 27 and len({len(r) for r in rows}) == 1
