"""Ligand-receptor resources: what is read, in any order, and what is said of a broken one."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest

from nicheloop import interactions
from nicheloop.errors import UserError
from nicheloop.interactions import Interaction

TSV = "ligand\treceptor\nIL6\tIL6R_IL6ST\nCXCL8\tCXCR1\n"


def cellphonedb(folder, *, pair=("P1", "receptor_complex"), subunit="P3"):
    folder.mkdir(exist_ok=True)
    (folder / "gene_input.csv").write_text("gene_name,uniprot,hgnc_symbol\nIL6,P1,IL6\nIL6R,P2,IL6R\nIL6ST,P3,IL6ST\n")
    (folder / "complex_input.csv").write_text(
        f"complex_name,uniprot_1,uniprot_2,uniprot_3\nreceptor_complex,P2,{subunit},\n"
    )
    (folder / "interaction_input.csv").write_text(
        f"id_cp_interaction,partner_a,partner_b\n,{pair[0]},{pair[1]}\n,P1,P2\n"
    )
    return folder


def test_a_table_is_read_the_same_in_any_order(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text(TSV)
    expected = [Interaction(("CXCL8",), ("CXCR1",)), Interaction(("IL6",), ("IL6R", "IL6ST"))]
    assert interactions.read(path) == expected
    assert [i.names for i in expected] == [("CXCL8", "CXCR1"), ("IL6", "IL6R_IL6ST")]
    header, *rows = TSV.splitlines()
    path.write_text("\ufeff# made by hand\n" + "\r\n".join([header, *rows[::-1], *rows]) + "\r\n")
    assert interactions.read(path) == expected  # byte-order mark, comment, other line ends, repeated lines


def test_lines_may_be_empty_end_early_or_go_on(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("note\treceptor\tligand\t\n\n\tIL6R\tIL6\tx\ty\nno ligand\tCXCR1\n \t CXCR2 \tPPBP_ \n")
    expected = [Interaction(("IL6",), ("IL6R",)), Interaction(("PPBP",), ("CXCR2",))]
    assert interactions.read(path) == expected


def test_a_cellphonedb_folder_resolves_genes_and_complexes(tmp_path):
    found = interactions.read(cellphonedb(tmp_path / "db"))
    assert found == [Interaction(("IL6",), ("IL6R",)), Interaction(("IL6",), ("IL6R", "IL6ST"))]
    assert [p.name for p in interactions.files(str(tmp_path / "db"))] == list(interactions.CELLPHONEDB_FILES)


def test_lianas_table_holds_several_resources(tmp_path):
    path = tmp_path / "resource.csv"
    path.write_text(
        '"","source","target","source_genesymbol","target_genesymbol","resource"\n'
        "1,a,b,IL6,IL6R_IL6ST,consensus\n2,a,b,PPBP,CXCR2,other\n"
    )
    assert interactions.read(path) == [Interaction(("IL6",), ("IL6R", "IL6ST"))]
    assert interactions.read_liana(path, "other") == [Interaction(("PPBP",), ("CXCR2",))]
    with pytest.raises(UserError, match=r"no resource 'cellchat'\. It holds: consensus, other"):
        interactions.read_liana(path, "cellchat")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns missing: ligand, receptor"),
        ("ligand\tpartner\nIL6\tIL6R\n", "columns missing: receptor. Found: ligand, partner"),
        ("ligand\treceptor\n", "no ligand-receptor pair"),
        ("ligand\treceptor\n_\tIL6R\n\tIL6R\n", "no ligand-receptor pair"),
    ],
)
def test_a_table_without_pairs_says_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "pairs.tsv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        interactions.read(path)


def test_a_broken_resource_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.tsv: no such file"):
        interactions.read(tmp_path / "nowhere.tsv")
    binary = tmp_path / "pairs.tsv"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="cannot be read as a table"):
        interactions.read(binary)
    folder = cellphonedb(tmp_path / "db", pair=("P1", "unknown_complex"))
    with pytest.raises(UserError, match="neither a gene nor a complex of the folder: unknown_complex"):
        interactions.read(folder)
    with pytest.raises(UserError, match="P9"):
        interactions.read(cellphonedb(tmp_path / "db", subunit="P9"))
    (folder / "complex_input.csv").unlink()
    with pytest.raises(UserError, match="complex_input"):
        interactions.read(folder)


def test_the_installed_lianas_consensus_is_what_liana_gives():
    liana = pytest.importorskip("liana", reason="liana is not installed")
    expected = liana.rs.select_resource("consensus")
    found = interactions.read(interactions.LIANA)
    assert {i.names for i in found} == set(zip(expected["ligand"], expected["receptor"], strict=True))


def test_without_liana_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match="liana is not installed"):
        interactions.read(interactions.LIANA)


@pytest.mark.real
def test_cellphonedb_v5_is_read_whole(real_data, tmp_path):
    folder = real_data / "reference" / "cellphonedb_v5"
    if not folder.is_dir():
        pytest.skip(f"no CellPhoneDB folder: {folder}")
    rows = pd.read_csv(folder / "interaction_input.csv")
    found = interactions.read(folder)
    assert len(found) == len(rows)  # every line is a pair of its own
    assert Interaction(("IL6",), ("IL6R", "IL6ST")) in found
    shuffled = tmp_path / "db"
    shuffled.mkdir()
    for name in interactions.CELLPHONEDB_FILES:
        shutil.copy2(folder / name, shuffled / name)
    rows.sample(frac=1, random_state=0).to_csv(shuffled / "interaction_input.csv", index=False)
    assert interactions.read(shuffled) == found
