"""Derive the shipped gene resources from their sources.

    python resources/build.py GENESETS.json REFERENCE_FOLDER TENX_FILTERED.h5 [OUT_FOLDER]

* GENESETS.json: gene sets, markers, ligand-receptor axes and copy-number checks, each with its source.
* REFERENCE_FOLDER: ``gene_positions_hg38.parquet`` (GENCODE coordinates, hg38; from the copykat-python wheel,
  Artistic-2.0), ``gene_aliases_human.parquet`` (NCBI/HGNC symbols and aliases; from the nichenet-python wheel),
  ``hallmark.gmt`` (MSigDB hallmark collection, CC BY 4.0, DOI 10.1016/j.cels.2015.12.004).
* TENX_FILTERED.h5: any 10x matrix made with refdata-gex-GRCh38-2020-A; only its feature list is read, for the
  symbol/Ensembl pairs of genes that the position table does not hold (mitochondrial, chromosome Y).

The output bytes depend on the sources only (sorted rows, gzip time stamp 0).
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
import yaml

# Mitochondrial rRNA and tRNA genes, which 10x references leave out (GENCODE, chrM).
MITOCHONDRIAL = {
    "MT-RNR1": "ENSG00000211459", "MT-RNR2": "ENSG00000210082", "MT-TF": "ENSG00000210049",
    "MT-TV": "ENSG00000210077", "MT-TL1": "ENSG00000209082", "MT-TI": "ENSG00000210100",
    "MT-TQ": "ENSG00000210107", "MT-TM": "ENSG00000210112", "MT-TW": "ENSG00000210117",
    "MT-TA": "ENSG00000210127", "MT-TN": "ENSG00000210135", "MT-TC": "ENSG00000210140",
    "MT-TY": "ENSG00000210144", "MT-TS1": "ENSG00000210151", "MT-TD": "ENSG00000210154",
    "MT-TK": "ENSG00000210156", "MT-TG": "ENSG00000210164", "MT-TR": "ENSG00000210174",
    "MT-TH": "ENSG00000210176", "MT-TS2": "ENSG00000210184", "MT-TL2": "ENSG00000210191",
    "MT-TE": "ENSG00000210194", "MT-TT": "ENSG00000210195", "MT-TP": "ENSG00000210196",
}  # fmt: skip

# Pseudogenes that circulate under the name of the real gene: never known as CD24.
REJECTED = {"ENSG00000185275": "CD24P4", "ENSG00000261333": "CD24P2"}

# Names newer than the alias table -> the symbol it knows.
NEWER = {"SKIC3": "TTC37", "H2AC25": "H2AW"}

MINOR_PARENTS = {
    "epithelial": [
        "luminal_mature_LumHR", "luminal_progenitor_LumSec", "basal_myoepithelial", "cancer_HER2amp", "cancer_basal",
    ],
    "t_nk": ["t_cd4", "t_cd8", "t_cd8_exhausted", "treg", "tfh", "t_ifn", "nk"],
    "b_cell": ["b_naive", "b_memory"],
    "myeloid": [
        "monocyte_classical", "monocyte_nonclassical", "macrophage", "LAM1_FABP5", "LAM2_APOE", "Mac_EGR1",
        "Mac_CXCL10", "Mac_SIGLEC1", "cDC1", "cDC2", "pDC", "DC_LAMP3", "neutrophil",
    ],
    "endothelial": ["endo_venous_ACKR1", "endo_arterial_CXCL12", "endo_tip_RGS5", "endo_lymphatic"],
    "pvl": ["pvl_immature", "pvl_differentiated"],
    "caf": ["iCAF", "myCAF", "apCAF"],
    "unresolved": ["schwann"],  # no major type of the vocabulary holds Schwann cells
}  # fmt: skip
RENAMED = {"macrophage_pan": "macrophage", "platelet_mk": "platelet"}
STATES = ("cycling",)

# Every sender and receiver name of the axes, in the vocabulary of the cell types.
POPULATIONS = {
    "iCAF": ["icaf"], "MSC-like": ["icaf"], "MSC (Liu 2011, in vitro)": ["icaf"], "CAF": ["caf"],
    "CAF/PVL (dominant RNA)": ["caf", "pvl"], "pvl": ["pvl"], "endo": ["endothelial"], "endothelial": ["endothelial"],
    "endothelial (ACKR1 decoy)": ["endothelial"], "endo_ACKR1": ["endo_venous"], "mast": ["mast"], "basophil": ["mast"],
    "macrophage": ["macrophage"], "macrophage (low)": ["macrophage"], "macrophage (HBEGF)": ["macrophage"],
    "LAM / M2-like macrophage": ["macrophage"], "LAM/SPP1+ TAM": ["macrophage"],
    "macrophage/monocyte": ["macrophage", "monocyte"], "monocyte/macrophage (Inflam-TAM)": ["monocyte", "macrophage"],
    "monocyte": ["monocyte"], "monocyte_classical": ["monocyte"], "monocyte (EREG,AREG)": ["monocyte"],
    "myeloid": ["myeloid"], "MDSC": ["myeloid"], "neutrophil": ["neutrophil"], "DC": ["dendritic"],
    "t_nk": ["t_nk"], "t_cells": ["t_nk"], "t_cd4": ["t_cd4"], "t_cd4 Th2": ["t_cd4"], "t_cd8": ["t_cd8"],
    "t_cd8_exhausted": ["t_cd8"], "treg": ["treg"], "tfh": ["tfh"], "nk": ["nk"], "b_cell": ["b_cell"],
    "platelet": ["platelet"], "platelet/megakaryocyte (contaminant)": ["platelet"],
    "malignant": ["malignant"], "malignant (low)": ["malignant"], "malignant (basal)": ["malignant"],
    "malignant (hypoxic)": ["malignant"], "malignant (mesenchymal)": ["malignant"],
    "malignant (ubiquitous)": ["malignant"],
    "malignant (LP/basal-like)": ["malignant"], "malignant ER+ (AREG)": ["malignant"],
    "malignant (protein evidence, RNA ~0)": ["malignant"], "malignant (CSC-high)": ["csc_high"],
    "malignant mesenchymal CSC": ["csc_high"], "malignant mesenchymal CSC (rare)": ["csc_high"],
}  # fmt: skip
ARMS = {
    "forward": "forward", "forward, juxtacrine": "forward", "forward+return": "forward+return",
    "autocrine": "autocrine",
    "return": "return", "return (neutrophil recruitment)": "return", "return (monocyte recruitment)": "return",
    "return, juxtacrine": "return", "niche": "niche", "niche-niche (TAM -> CAF, induces IL6/CXCL8)": "niche",
    "positive control": "positive_control", "decoy": "decoy",
}  # fmt: skip
# A decoy names no sender: test it where the loop is tested, so that it is really tested.
DECOY_SENDERS, DECOY_RECEIVERS = ["macrophage"], ["malignant"]

# Loci to watch beside those the checks' source names (amplified in TNBC: JAK2; gained in basal tumours: VIM).
LOCI = ("JAK2", "VIM")

# Genes left out of copy-number windows: lineage programmes that sit together on a chromosome.
CNV_MASK: list[dict[str, str]] = [
    {"name": "HLA (6p21)", "symbol": r"HLA-.*"},
    {"name": "histone clusters (6p22, 1q21)", "symbol": r"H(1-\d+|2[AB]C\d+|3C\d+|4C\d+)|HIST\d+H.*"},
    {"name": "immunoglobulin loci", "symbol": r"IG[HKL][VDJCGAEM].*"},
    {"name": "T-cell receptor loci", "symbol": r"TR[ABDG][VDJC].*"},
    {"name": "keratins (17q21, 12q13)", "symbol": r"KRT(AP)?\d.*", "arm": "17q 12q"},
    {"name": "S100 and SPRR (1q21)", "symbol": r"S100A.*|SPRR\d.*|LCE\d.*", "arm": "1q"},
    {"name": "mucins", "symbol": r"MUC\d.*"},
    {"name": "mitochondrial", "symbol": r"MT-.*"},
    {"name": "ribosomal", "symbol": r"RP[SL](?!6K)\d.*|RPLP\d.*|RPSA.*"},
]  # fmt: skip

SIGNATURES = {  # name of the package: path in the gene-set file
    **{name: f"clean/{name}" for name in (
        "STAT3_core", "STAT3_stress_light", "IL6_STAT3_leaveout", "NFKB_core", "NFKB_leaveout",
        "NFKB_leaveout_stressfree", "EMT_malignant", "LP_covariate", "M1", "M2",
    )},
    "monocyte": "tam/monocyte_vs_macrophage/mono", "macrophage": "tam/monocyte_vs_macrophage/mac",
    **{name: f"tam/states_ma2022/{name}/genes" for name in (
        "IFN_TAM", "Inflam_TAM", "LA_TAM", "Angio_TAM", "Reg_TAM", "Prolif_TAM", "RTM_TAM",
    )},
    "IFN": "readouts/IFN_control/genes", "STRESS": "readouts/STRESS_3CA_MP5/genes",
    "HYPOXIA": "readouts/HYPOXIA_3CA_MP6/genes", "IFN_MHC": "readouts/IFN_MHC_3CA_MP17/genes",
    "G1S": "readouts/CELLCYCLE/G1S", "G2M": "readouts/CELLCYCLE/G2M",
}  # fmt: skip
LEAVE_OUT = "zero overlap with the ligands, receptors and CSC markers of the axes"
SOURCES = {
    "STAT3_core": f"STAT3 targets, cross-checked with DAUER_STAT3_TARGETS_UP and AZARE_STAT3_TARGETS; {LEAVE_OUT}",
    "STAT3_stress_light": f"STAT3 targets outside the stress module; shares STAT1, GBP2 with interferon; {LEAVE_OUT}",
    "IL6_STAT3_leaveout": f"HALLMARK_IL6_JAK_STAT3_SIGNALING (MSigDB, CC BY 4.0) minus lineage genes; {LEAVE_OUT}",
    "NFKB_core": f"NF-kB targets, cross-checked with CytoSig TNFA and IL1B; {LEAVE_OUT}",
    "NFKB_leaveout": f"HALLMARK_TNFA_SIGNALING_VIA_NFKB (MSigDB, CC BY 4.0); {LEAVE_OUT}",
    "NFKB_leaveout_stressfree": f"NFKB_leaveout minus 3CA MP5 Stress; {LEAVE_OUT}",
    "EMT_malignant": f"3CA MP13 and MP14 (MIT) minus fibroblast and stress programmes; {LEAVE_OUT}",
    "LP_covariate": f"LIM_MAMMARY_LUMINAL_PROGENITOR_UP (MSigDB, CC BY 4.0); {LEAVE_OUT}",
    "M1": f"Azizi 2018, DOI 10.1016/j.cell.2018.05.060, without secreted factors; {LEAVE_OUT}",
    "M2": f"Azizi 2018, DOI 10.1016/j.cell.2018.05.060, without secreted factors; {LEAVE_OUT}",
    "monocyte": "3CA macrophage programmes MP2 and MP6; Wu 2021, DOI 10.1038/s41588-021-00911-1",
    "macrophage": "3CA macrophage programme MP1",
    **dict.fromkeys(
        ("IFN_TAM", "Inflam_TAM", "LA_TAM", "Angio_TAM", "Reg_TAM", "Prolif_TAM"),
        "Ma 2022, DOI 10.1016/j.it.2022.04.008",
    ),
    "RTM_TAM": "LYVE1, HES1, FOLR2: Ma 2022, DOI 10.1016/j.it.2022.04.008; others domain knowledge",
    "IFN": "interferon response, covariate of JAK-STAT read-outs; domain knowledge",
    "STRESS": "3CA MP5 Stress (MIT), DOI 10.1038/s41586-023-06130-4",
    "HYPOXIA": "3CA MP6 Hypoxia (MIT), DOI 10.1038/s41586-023-06130-4",
    "IFN_MHC": "3CA MP17 Interferon/MHC-II (MIT), DOI 10.1038/s41586-023-06130-4",
    "G1S": "after Tirosh 2016, DOI 10.1126/science.aad0501; domain knowledge",
    "G2M": "after Tirosh 2016, DOI 10.1126/science.aad0501; domain knowledge",
}


def write_gz(path: Path, text: str) -> None:
    """Write text as gzip whose bytes depend on the text only."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=9, mtime=0) as handle:
        handle.write(text.encode())
    path.write_bytes(buffer.getvalue())


class Resolver:
    """Old names to current symbols while the tables are built."""

    def __init__(self, aliases: pd.DataFrame):
        self.current = set(aliases["symbol"])
        self.targets: dict[str, set[str]] = defaultdict(set)
        for symbol, alias in zip(aliases["symbol"], aliases["alias"], strict=True):
            if alias not in self.current:
                self.targets[str(alias)].add(str(symbol))

    def rank(self, name: str) -> tuple[int, str]:
        """How well a name is known (0: current, 1: unique alias, 2: unknown) and what it is called today."""
        if name in self.current:
            return 0, name
        found = self.targets.get(name, set())
        return (1, next(iter(found))) if len(found) == 1 else (2, name)


def gene_table(
    positions: pd.DataFrame, tenx: pd.DataFrame, resolver: Resolver
) -> tuple[pd.DataFrame, dict[str, set[str]]]:
    """One row per current symbol; and the names under which annotations knew each (name -> symbols)."""
    newer = {**REJECTED, **dict(zip(tenx["id"], tenx["name"], strict=True))}
    candidates = []
    for i, row in enumerate(positions.itertuples(index=False)):
        names = [n for n in (newer.get(row.ensembl_gene_id), row.hgnc_symbol) if n]
        rank, symbol = min((resolver.rank(n) for n in names), key=lambda r: r[0])
        chromosome = "chrX" if row.chromosome_name == 23 else f"chr{row.chromosome_name}"
        candidates.append(
            (rank, i, symbol, row.ensembl_gene_id, chromosome, row.start_position, row.end_position, row.band, names)
        )
    placed = set(positions["ensembl_gene_id"])
    extra = [(i, n) for i, n in newer.items() if i not in placed]
    extra += [(i, n) for n, i in MITOCHONDRIAL.items() if i not in newer]
    for j, (ensembl, name) in enumerate(extra):
        mito = name.startswith("MT-")
        rank, symbol = (0, name) if mito else resolver.rank(name)
        candidates.append((rank, len(positions) + j, symbol, ensembl, "chrM" if mito else "", 0, 0, "", [name]))
    rows: dict[str, tuple[Any, ...]] = {}
    names_of: dict[str, set[str]] = defaultdict(set)
    for _, i, symbol, ensembl, chromosome, start, end, band, names in sorted(candidates, key=lambda c: (c[0], c[1])):
        if (symbol in rows and names[0] != newer.get(ensembl, "")) or (symbol in rows and symbol != names[0]):
            # two genes, one name: by an old name or an alias only, so they stay two
            symbol = next((n for n in names if n not in rows), ensembl)
        for name in names:
            names_of[name].add(symbol)
        if symbol in rows:  # a second Ensembl id that the newer annotation calls the same gene
            names_of[ensembl].add(symbol)
        else:
            rows[symbol] = (i, symbol, ensembl, chromosome, start, end, band)
    table = pd.DataFrame(
        sorted(rows.values()), columns=["order", "symbol", "ensembl_id", "chromosome", "start", "end", "band"]
    )
    return table.drop(columns="order"), names_of


def alias_table(
    symbols: set[str], names_of: dict[str, set[str]], resolver: Resolver, extra: dict[str, str]
) -> dict[str, set[str]]:
    """Alias -> symbols (more than one: ambiguous, recorded and never used); never a current symbol."""
    out: dict[str, set[str]] = {}
    for alias, targets in resolver.targets.items():
        known = targets & symbols
        if known and alias not in symbols:
            out[alias] = set(targets) if len(targets) > 1 else known
    for name, targets in names_of.items():  # an annotation's own name, tied by the Ensembl id, is better evidence
        if name not in symbols and not name.startswith("MT-"):
            out[name] = set(targets) if len(targets) == 1 else out.get(name, set()) | targets
    for alias, value in extra.items():
        targets = set(value.split("|"))
        if alias not in symbols and targets <= symbols and len(out.get(alias, ())) != 1:
            out[alias] = targets
    return out


def at(values: Any, path: str) -> Any:
    """Entry of a nested mapping by a path such as a/b/c."""
    for key in path.split("/"):
        values = values[key]
    return values


def marker_sets(source: dict[str, Any], current: Any) -> dict[str, Any]:
    """Markers by level, with the parent of every minor type; states apart."""
    parents = {minor: major for major, minors in MINOR_PARENTS.items() for minor in minors}
    out: dict[str, Any] = {"major": {}, "minor": {}, "states": {}}
    for level in ("major", "minor"):
        for key, value in source[level].items():
            name = RENAMED.get(key, key)
            entry = {"positive": current(value["positive"]), "negative": current(value.get("negative", []))}
            if level == "minor":
                entry["parent"] = parents[name]
            entry["source"] = value["source"]
            if "note" in value:
                entry["note"] = value["note"]
            out["states" if name in STATES else level][name] = entry
    return out


def axis_list(source: list[dict[str, Any]], current: Any) -> list[dict[str, Any]]:
    """Axes with senders and receivers in the vocabulary of the cell types."""

    def populations(names: list[str]) -> list[str]:
        kept = [n for n in names if not n.endswith(" n/a")]
        return list(dict.fromkeys(p for n in kept for p in POPULATIONS[n]))

    out = []
    for axis in source:
        senders, receivers = populations(axis["senders"]), populations(axis["receivers"])
        out.append({
            "id": axis["id"], "ligands": current(axis["ligands"]), "receptors": [current(r) for r in axis["receptors"]],
            "senders": senders or DECOY_SENDERS, "receivers": receivers or DECOY_RECEIVERS, "arm": ARMS[axis["arm"]],
            "arm_detail": axis["arm"], "decoy": bool(axis["decoy"]), "rna_measurable": axis["rna_measurable"],
            "evidence": axis["evidence"], "caveat": axis["caveat"] or "",
        })  # fmt: skip
    return out


def cna(source: list[dict[str, Any]], table: pd.DataFrame, current: Any) -> dict[str, Any]:
    """Expected copy-number changes, loci of the markers, masked genes."""
    checks, loci = [], {}
    where = table.set_index("symbol")
    for check in source:
        if check["direction"] == "note":
            for text in check["anchor_genes"]:
                gene = current([text.split(" ")[0]])[0]
                loci[gene] = where.loc[gene, "chromosome"].removeprefix("chr") + where.loc[gene, "band"]
            continue
        region = check["region"]
        arm = re.match(r"(\d+|X)[pq]", region)
        assert arm, region
        checks.append({
            "region": region, "chromosome": "chr" + arm.group(1), "arm": arm.group(0),
            "bands": re.findall(r"[pq]\d[\d.]*", region),
            "direction": "loss" if check["direction"].startswith("loss") else "gain",
            "change": check["direction"], "anchor_genes": current(check["anchor_genes"]),
            "subtype": check["subtype"], "source": check["status"],
        })  # fmt: skip
    for gene in LOCI:
        loci[gene] = where.loc[gene, "chromosome"].removeprefix("chr") + where.loc[gene, "band"]
    return {"checks": checks, "marker_loci": loci, "masked": CNV_MASK}


class _Dumper(yaml.SafeDumper):
    """Mappings in block style, lists of plain strings on one line."""


def _sequence(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.Node:
    return dumper.represent_sequence(
        "tag:yaml.org,2002:seq", values, flow_style=all(isinstance(v, str | list) for v in values)
    )


_Dumper.add_representer(list, _sequence)
_Dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]


def write_yaml(path: Path, header: str, values: Any) -> None:
    """Write YAML below a comment that names the source."""
    body = yaml.dump(values, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    path.write_text("".join(f"# {line}\n" for line in header.strip().splitlines()) + "\n" + body, encoding="utf-8")


def build(genesets: Path, reference: Path, tenx_h5: Path, out: Path) -> None:
    """Write all resources into `out`."""
    source = json.loads(genesets.read_text(encoding="utf-8"))
    positions = pd.read_parquet(reference / "gene_positions_hg38.parquet")
    aliases = pd.read_parquet(reference / "gene_aliases_human.parquet")
    with h5py.File(tenx_h5) as handle:
        features = handle["matrix/features"]
        tenx = pd.DataFrame({"id": features["id"].asstr()[:], "name": features["name"].asstr()[:]})
    resolver = Resolver(aliases)
    table, names_of = gene_table(positions, tenx, resolver)
    symbols = set(table["symbol"])
    extra_aliases = {k: v for k, v in source["aliases"].items() if re.fullmatch(r"[\w.|-]+", v)} | NEWER
    known = alias_table(symbols, names_of, resolver, extra_aliases)

    missing: set[str] = set()

    def current(names: list[str]) -> list[str]:
        out = []
        for name in names:
            name = re.sub(r"^(C(?:\d+|X|Y))ORF(\d+)$", r"\1orf\2", name)
            targets = known.get(name, set())
            symbol = name if name in symbols or len(targets) != 1 else next(iter(targets))
            if symbol not in symbols:
                symbol = resolver.rank(symbol)[1]
                missing.add(symbol)
            out.append(symbol)
        return list(dict.fromkeys(out))

    signatures = {
        name: {"source": SOURCES[name], "genes": current(at(source, path))} for name, path in SIGNATURES.items()
    }
    markers = marker_sets(source["markers"], current)
    axes = axis_list(source["lr_axes"], current)
    checks = cna(source["cna_checks"], table, current)
    hallmark = []
    for line in (reference / "hallmark.gmt").read_text(encoding="utf-8").splitlines():
        name, _, *genes = line.split("\t")
        hallmark.append((name.upper().replace("-", "_"), current([g for g in genes if g])))

    # Genes of the sets that no reference used here gives an Ensembl id for (HLA-DRB3 lies on an alternative haplotype).
    lone = sorted(m for m in missing if m in resolver.current)
    unknown = sorted(m for m in missing if m not in resolver.current)
    if unknown:
        print("in no reference, kept as they are:", ", ".join(unknown))
    rows = table.astype({"start": str, "end": str}).values.tolist() + [[m, "", "", "0", "0", ""] for m in lone]
    head = (
        "# Human genes, hg38: current symbol, Ensembl id without version, position (1-based; 0: unknown), band.\n"
        "# Sources: GENCODE coordinates (copykat-python wheel, Artistic-2.0); symbols brought up to date by NCBI/HGNC\n"
        "# aliases (nichenet-python wheel); pairs without position: features of 10x refdata-gex-GRCh38-2020-A.\n"
        "# Built by resources/build.py.\n"
    )
    lines = ["\t".join(r) for r in [["symbol", "ensembl_id", "chromosome", "start", "end", "band"], *rows]]
    write_gz(out / "genes.tsv.gz", head + "\n".join(lines) + "\n")
    for name in lone:
        known.pop(name, None)
    lines = [f"{a}\t{'|'.join(sorted(t))}" for a, t in sorted(known.items()) if a and "\t" not in a]
    head = (
        "# Alias -> current symbol.  Several symbols joined by '|': ambiguous, recorded, never used.\n"
        "# Sources: NCBI/HGNC aliases (nichenet-python wheel), older GENCODE and 10x names tied by Ensembl id,\n"
        "# second Ensembl ids of a gene, misspellings that circulate in published gene lists.\n"
        "# Built by resources/build.py.\n"
    )
    write_gz(out / "gene_aliases.tsv.gz", head + "alias\tsymbol\n" + "\n".join(lines) + "\n")
    lines = [
        "# MSigDB hallmark gene sets, symbols brought up to date.  Licence CC BY 4.0.",
        "# Source: MSigDB (gsea-msigdb.org), Liberzon 2015, DOI 10.1016/j.cels.2015.12.004.",
        "# Built by resources/build.py.",
        *("\t".join([name, *genes]) for name, genes in sorted(hallmark)),
    ]
    (out / "hallmark.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    built = "Built by resources/build.py; symbols are current HGNC symbols."
    write_yaml(out / "signatures.yaml", f"Gene signatures, each with its source.\n{built}", signatures)
    write_yaml(
        out / "markers.yaml",
        "Markers of cell types (major, minor with the major type they belong to) and of states.\n"
        f"Each type names its source; 'memory' is domain knowledge that was not looked up.\n{built}",
        markers,
    )
    write_yaml(
        out / "axes.yaml",
        "Ligand-receptor axes: receptors are alternatives, each a complex of subunits that are all needed.\n"
        "Senders and receivers are in the vocabulary of the cell types; 'memory' is domain knowledge, not looked up.\n"
        f"{built}",
        axes,
    )
    write_yaml(
        out / "cna.yaml",
        "Copy-number changes expected in breast tumours, loci of marker genes, genes left out of the windows.\n"
        "Masks: a regular expression for the whole symbol; with 'arm', only genes on one of these arms.\n"
        f"Main source of the checks: Geiersbach 2018 (PMID 32087595).\n{built}",
        checks,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("genesets", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("tenx_h5", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent)
    given = parser.parse_args()
    build(given.genesets, given.reference, given.tenx_h5, given.out)


if __name__ == "__main__":
    main()
