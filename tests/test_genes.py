"""Gene identity and the shipped gene sets."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicheloop import genes

VOCABULARY = {
    "malignant", "csc_high", "epithelial", "caf", "icaf", "mycaf", "pvl", "endothelial", "endo_venous", "myeloid", "macrophage",
    "monocyte", "dendritic", "neutrophil", "mast", "t_nk", "t_cd4", "t_cd8", "treg", "tfh", "nk", "b_cell", "plasmablast", "platelet",
}  # fmt: skip
CLEAN = (
    "STAT3_core", "STAT3_stress_light", "IL6_STAT3_leaveout", "NFKB_core", "NFKB_leaveout", "NFKB_leaveout_stressfree",
    "EMT_malignant", "LP_covariate", "M1", "M2",
)  # fmt: skip
CSC_MARKERS = {"CD44", "CD24", "ALDH1A3", "ALDH1A1"}
SYMBOLS = sorted(genes._ensembl_of())
ALIASES = sorted(genes._aliases()[0])


def axis_genes() -> set[str]:
    return {g for a in genes.axes() for g in (*a.ligands, *(s for r in a.receptors for s in r))}


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("CXCL8", "CXCL8"), ("IL8", "CXCL8"), ("CXCL7", "PPBP"), ("HIST1H4C", "H4C3"), ("SEPT7", "SEPTIN7"),
        ("HLA.DRA", "HLA-DRA"), ("C19ORF33", "C19orf33"), ("ENSG00000272398", "CD24"), ("ENSG00000272398.4", "CD24"),
        ("CD24_ENSG00000272398", "CD24"), ("GRCh38_CD44", "CD44"), (" CD44 ", "CD44"), ("ENSG00000185275", "CD24P4"),
        ("Cd44", None), ("1-Mar", None), ("IL12", None), ("ENSG99999999999", None), ("", None), ("WARS", "WARS1"),
    ],
)  # fmt: skip
def test_resolve(name: str, symbol: str | None) -> None:
    assert genes.resolve(name) == symbol


@given(st.sampled_from(SYMBOLS))
def test_current_symbols_are_fixed_points(symbol: str) -> None:
    assert genes.resolve(symbol) == symbol
    identifier = genes.ensembl_id(symbol)
    if identifier:
        assert genes.resolve(identifier) == genes.resolve(f"{identifier}.17") == symbol


@given(st.sampled_from(ALIASES))
def test_aliases_lead_to_current_symbols_and_never_override_one(alias: str) -> None:
    symbol = genes.resolve(alias)
    assert symbol is not None
    assert genes.resolve(symbol) == symbol
    assert alias not in genes._ensembl_of()


def test_ambiguous_aliases_are_recorded_and_not_used() -> None:
    assert genes.ambiguous("IL12") == ("IL12A", "IL12B")
    assert genes.ambiguous("CD44") == ()
    assert not set(genes._aliases()[1]) & set(genes._aliases()[0])


def test_table() -> None:
    table = genes.table()
    assert table.index.is_unique
    ids = table.loc[table["ensembl_id"] != "", "ensembl_id"]
    assert ids.is_unique
    assert ids.str.fullmatch(r"ENSG\d{11}").all()
    assert set(table["chromosome"].dropna()) == {f"chr{c}" for c in [*range(1, 23), "X", "M"]}
    placed = table.dropna(subset=["start"])
    assert (placed["start"] <= placed["end"]).all()
    assert (placed["arm"] == placed["chromosome"].str[3:] + placed["band"].str[0]).all()
    # independent facts
    arms = {
        "ERBB2": "17q",
        "TP53": "17p",
        "MYC": "8q",
        "CD24": "6q",
        "CD44": "11p",
        "ALDH1A3": "15q",
        "PPBP": "4q",
        "KRAS": "12p",
    }
    assert table["arm"].reindex(list(arms)).to_dict() == arms
    assert len(table[table["chromosome"] == "chrM"]) == 37


def test_resolve_features_prefers_the_id_and_keeps_the_unknown() -> None:
    found = genes.resolve_features(
        ["IL8", "wrong", "CD24", "CD24", "novel", "", "MATR3"],
        [
            "ENSG00000169429.2",
            "ENSG00000026508",
            "ENSG00000185275",
            "ENSG00000999999",
            "",
            "ENSG00000999998",
            "ENSG00000280987",
        ],
    )
    assert found.symbols.tolist() == [
        "CXCL8",
        "CD44",
        "CD24P4",
        "CD24_ENSG00000999999",
        "novel",
        "ENSG00000999998",
        "MATR3",
    ]
    assert found.known.tolist() == [True, True, True, False, False, False, True]
    assert found.ensembl[0] == "ENSG00000169429"


def test_find_resolves_both_sides_and_keeps_order() -> None:
    found = genes.find(["IL8", "CXCL8", "PPBP", "CD64", "nothing"], ["FCGR1A", "CXCL7", "CXCL8"])
    assert found.present == ["CXCL8", "CXCL7", "FCGR1A"]
    assert found.missing == ["nothing"]
    assert genes.find([], ["CD44"]) == genes.Found([], [])
    assert genes.find(["CD44"], []) == genes.Found([], ["CD44"])


@settings(max_examples=30)
@given(
    st.lists(st.sampled_from(SYMBOLS), unique=True, max_size=30),
    st.lists(st.sampled_from(SYMBOLS), unique=True, max_size=30),
)
def test_find_is_set_intersection_on_current_symbols(wanted: list[str], available: list[str]) -> None:
    found = genes.find(wanted, available)
    assert found.present == [g for g in wanted if g in set(available)]
    assert found.missing == [g for g in wanted if g not in set(available)]


@pytest.mark.parametrize(
    ("identifier", "state"),
    [
        ("ENSG00000272398", genes.PRESENT), ("ENSG00000272398.1", genes.PRESENT), ("", genes.PRESENT),
        ("ENSG00000185275", genes.ABSENT), ("ENSG00000261333", genes.ABSENT), ("ENSG00000000001", genes.ABSENT),
    ],
)  # fmt: skip
def test_cd24_guard_needs_the_right_id(identifier: str, state: str) -> None:
    assert genes.guards(["CD24"], [identifier])["CD24"] == state


def test_guards_name_every_gene() -> None:
    assert set(genes.guards([])) == set(genes.GUARDED)
    assert set(genes.guards([]).values()) == {genes.ABSENT}
    assert set(genes.guards(genes.GUARDED).values()) == {genes.PRESENT}


def test_every_shipped_gene_is_a_current_symbol() -> None:
    shipped = [g for s in genes.signatures().values() for g in s.genes]
    shipped += [
        g for level in ("major", "minor") for m in genes.markers(level).values() for g in (*m.positive, *m.negative)
    ]
    shipped += [g for m in genes.states().values() for g in m.positive]
    shipped += [g for h in genes.hallmark().values() for g in h]
    shipped += [g for c in genes.cna_checks() for g in c["anchor_genes"]]
    unknown = {g for g in {*shipped, *axis_genes(), *genes.GUARDED} if g not in genes._ensembl_of()}
    assert unknown == set()


@pytest.mark.parametrize("name", CLEAN)
def test_read_outs_share_no_gene_with_axes_or_csc_markers(name: str) -> None:
    signature = genes.signatures()[name]
    assert signature.source
    assert set(signature.genes) & (axis_genes() | CSC_MARKERS) == set()


def test_signatures_are_complete_and_without_repeats() -> None:
    states = {"IFN_TAM", "Inflam_TAM", "LA_TAM", "Angio_TAM", "Reg_TAM", "Prolif_TAM", "RTM_TAM"}
    assert set(genes.signatures()) == {
        *CLEAN,
        *states,
        "monocyte",
        "macrophage",
        "IFN",
        "IFN_MHC",
        "STRESS",
        "HYPOXIA",
        "G1S",
        "G2M",
    }
    for signature in genes.signatures().values():
        assert len(signature.genes) == len(set(signature.genes)) >= 8


def test_axes_speak_the_vocabulary() -> None:
    for axis in genes.axes():
        assert axis.ligands
        assert axis.receptors
        assert axis.senders
        assert axis.receivers
        assert set(axis.senders) | set(axis.receivers) <= VOCABULARY, axis.id
        assert axis.arm in {"forward", "return", "forward+return", "autocrine", "niche", "positive_control", "decoy"}
        assert axis.decoy == (axis.arm == "decoy")
    ids = [a.id for a in genes.axes()]
    assert len(ids) == len(set(ids))
    assert {"IL6_classic", "CXCL8", "PPBP", "CCL2", "CSF1", "CTRL_DLL4_NOTCH", "DECOY_INS_INSR"} <= set(ids)
    il6 = genes.axes()[0]
    assert il6.receptors == (("IL6R", "IL6ST"),)  # one complex; IL6 is not in its own receptor
    assert il6.senders == ("icaf", "endo_venous", "pvl", "mast", "macrophage", "monocyte")


def test_markers_have_parents_and_no_contradiction() -> None:
    major, minor = genes.markers("major"), genes.markers("minor")
    assert {"macrophage", "neutrophil", "endo_venous_ACKR1", "iCAF", "treg"} <= set(minor)
    assert "platelet" in major
    assert "cycling" not in major
    assert "cycling" in genes.states()
    for name, marker in {**major, **minor}.items():
        assert not set(marker.positive) & set(marker.negative), name
    assert all(m.parent is None for m in major.values())
    assert all(m.parent in major or m.parent == "unresolved" for m in minor.values())
    assert minor["neutrophil"].parent == "myeloid"
    assert "PPBP" in genes.platelet_genes()


def test_cnv_mask() -> None:
    masked = [
        "HLA-A",
        "H4C3",
        "HIST1H4C",
        "IGKC",
        "TRBC1",
        "KRT14",
        "KRT8",
        "S100A8",
        "MUC1",
        "MT-CO1",
        "RPL13",
        "RPS6",
    ]
    free = ["ERBB2", "MYC", "S100B", "IGF1", "IGFBP7", "TRAF1", "HES1", "RPS6KB1", "KRAS", "MUCL1", "CD44"]
    assert genes.cnv_masked(masked).tolist() == [True] * len(masked)
    assert dict(zip(free, genes.cnv_masked(free).tolist(), strict=True)) == dict.fromkeys(free, False)


def test_cna_checks_lie_where_they_say() -> None:
    table = genes.table()
    for check in genes.cna_checks():
        assert check["direction"] in ("gain", "loss")
        assert set(table.loc[check["anchor_genes"], "arm"]) <= {check["arm"]}, check["region"]
    assert genes.marker_loci()["CD24"] == "6q21"


def test_hallmark() -> None:
    sets = genes.hallmark()
    assert len(sets) == 50
    assert all(n.startswith("HALLMARK_") and n == n.upper() for n in sets)
    assert "SOCS3" in sets["HALLMARK_IL6_JAK_STAT3_SIGNALING"]
    assert 5000 > sum(map(len, sets.values())) / 50 > 100


def test_spreadsheet_dates() -> None:
    assert genes.spreadsheet_dates(["1-Mar", "Sep-07", "2-Dec", "CD44", "TP53-AS1"]) == ["1-Mar", "Sep-07", "2-Dec"]


def test_import_is_light() -> None:
    code = "import sys, nicheloop.genes as g; g.resolve('IL8'); sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
