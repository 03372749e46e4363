"""Shipped files: found, small, readable, with their source; and never more than data."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import yaml as parser

from nicheloop import resources

FOLDER = resources.path("genes.tsv.gz").parent
NAMES = sorted(p.name for p in FOLDER.iterdir() if p.is_file() and p.suffix != ".py")
BUILT = (
    "genes.tsv.gz", "gene_aliases.tsv.gz", "markers.yaml", "signatures.yaml", "axes.yaml", "cna.yaml", "hallmark.tsv",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_file_is_small_and_says_where_it_comes_from(name: str) -> None:
    path = resources.path(name)
    assert path.stat().st_size < 1 << 20
    if name.endswith(".gz"):
        assert path.read_bytes()[4:8] == b"\0\0\0\0"  # no time stamp
        assert gzip.decompress(path.read_bytes()) == resources.text(name).encode()
    assert resources.text(name).startswith("#")
    if name in BUILT:
        assert "build.py" in resources.text(name).split("symbol\t")[0]


@pytest.mark.parametrize("name", [n for n in NAMES if ".tsv" in n and n != "hallmark.tsv"])
def test_a_shipped_table_has_rows_of_one_width(name: str) -> None:
    rows = resources.tsv(name)
    assert len(rows) > 10
    assert {len(r) for r in rows} == {len(rows[0])}


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith(".yaml")])
def test_a_shipped_yaml_file_is_read(name: str) -> None:
    assert resources.yaml(name)


def test_a_missing_file_is_named_with_the_remedy() -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.tsv is missing.*reinstall"):
        resources.path("nothing.tsv")


def test_yaml_builds_no_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = tmp_path / "x.yaml"
    trap.write_text(f"!!python/object/apply:builtins.open ['{tmp_path / 'executed'}', 'w']\n")
    monkeypatch.setattr(resources, "path", lambda _: trap)
    with pytest.raises(parser.YAMLError):
        resources.yaml("x.yaml")
    assert not (tmp_path / "executed").exists()
