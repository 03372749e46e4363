"""Derive ``demo_profiles.tsv.gz``: the gene x cell type rates behind the simulated demo cohort.

Usage: ``PYTHONPATH=src python resources/build_demo_profiles.py DATA_FOLDER [OUT]``

What goes in
    DATA_FOLDER/tumours/tenx_idc     10x Genomics, invasive ductal carcinoma, 3' LT v3.1 (CC BY 4.0)
    DATA_FOLDER/tumours/qian_*       two patients of Qian 2020 (10.1038/s41422-020-0355-0)
    DATA_FOLDER/normals/sample1      normal breast, 20 labelled cells per lineage
    the programmes below             published markers, with rates typical of 10x data (UMI per 10,000)

What is done
    1. Cells are put into seven lineages by a few markers (or by their label); counts are summed per lineage.
    2. Rate of a lineage = (its counts + PRIOR_UMI x common rate) / (its UMI + PRIOR_UMI), because cells are few.  The
       common rate is the mean of the lineages, so no single donor dominates.
    3. The ratio of a lineage to the common rate is made flat along the genome (running median over WINDOW genes): the
       copy number of the donors must not become the "normal" of the simulation.
    4. Genes of the read-outs get at least FLOOR, stress genes at most STRESS_CAP; the programmes replace the rates of
       lineage markers: clear in their type, nearly absent elsewhere.
    5. Each type is scaled to 10,000 and rounded to two digits.

No cell, barcode or count of a data set is in the result: only rounded, shrunk averages.
"""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy import io as sio
from scipy import sparse

from nicheloop import genes

PRIOR_UMI = 150_000
WINDOW = 101
N_GENES = 8_800
OFF = 0.008  # a marker outside its types, UMI per 10,000
MITO_SHARE = 0.06

EPI = ("lum_hr", "lum_sec", "basal", "cancer_er", "cancer_her2", "cancer_tnbc")
GROUPS: dict[str, tuple[str, ...]] = {
    "EPI": EPI,
    "LUM": ("lum_hr", "lum_sec", "cancer_er", "cancer_her2", "cancer_tnbc"),
    "CAN": ("cancer_er", "cancer_her2", "cancer_tnbc"),
    "T": ("t_cd4", "t_cd8", "nk"),
    "B": ("b_cell", "plasmablast"),
    "MYE": ("monocyte", "macrophage", "cdc2"),
    "ENDO": ("endo_arterial", "endo_venous"),
    "CAF": ("icaf", "mycaf"),
}
GROUPS["IMM"] = GROUPS["T"] + GROUPS["B"] + GROUPS["MYE"] + ("mast",)
GROUPS["STR"] = GROUPS["ENDO"] + ("pvl",) + GROUPS["CAF"]
TYPES = EPI + GROUPS["IMM"] + GROUPS["STR"]
GROUPS["ALL"] = TYPES
LINEAGE = {
    **dict.fromkeys(EPI, "epithelial"),
    **dict.fromkeys(GROUPS["T"], "t_nk"),
    **dict.fromkeys(GROUPS["B"], "b_cell"),
    **dict.fromkeys(GROUPS["MYE"], "myeloid"),
    **dict.fromkeys(GROUPS["ENDO"], "endothelial"),
    **dict.fromkeys(GROUPS["CAF"], "caf"),
    "pvl": "pvl",
    "mast": "myeloid",
}

# Genes: type=rate pairs, UMI per 10,000, read from left to right; types not named get OFF.
PROGRAMMES = """
# epithelium
EPCAM: EPI=5 basal=1.5
KRT8: EPI=14 basal=2
KRT18: EPI=14 basal=2.5
KRT19: EPI=18 basal=2 lum_sec=14
KRT7: EPI=6 basal=3 cancer_er=4
CDH1: EPI=2.5 basal=1.5
CLDN3: EPI=4 basal=.5
CLDN4: EPI=6 basal=1
ELF3: EPI=5 basal=.6
SFN: EPI=2 basal=5 cancer_tnbc=4 lum_sec=3
LSR: EPI=1.5 basal=.5
KRT15: lum_sec=9 basal=4 cancer_tnbc=1
KRT23: lum_sec=5 cancer_tnbc=1.5
ESR1: lum_hr=2.5 cancer_er=4 cancer_her2=.1
PGR: lum_hr=1.5 cancer_er=2
FOXA1: lum_hr=2 cancer_er=3 cancer_her2=2
GATA3: lum_hr=3 cancer_er=6 cancer_her2=2 T=.8 cancer_tnbc=.3 mast=.4
ANKRD30A: lum_hr=4 cancer_er=5
TFF1: lum_hr=2 cancer_er=14
TFF3: lum_hr=5 cancer_er=18 cancer_her2=2
AGR2: lum_hr=5 cancer_er=10 cancer_her2=5
MLPH: lum_hr=3 cancer_er=4 cancer_her2=3
SPDEF: lum_hr=1.5 cancer_er=2.5 cancer_her2=2
TBX3: lum_hr=1.5 cancer_er=1.5 lum_sec=.3
PRLR: lum_hr=1 cancer_er=.8
AREG: lum_hr=6 cancer_er=4 nk=2 monocyte=.6
AR: lum_hr=1 cancer_er=1 cancer_her2=1
XBP1: ALL=.5 lum_hr=5 cancer_er=9 cancer_her2=5 plasmablast=16 lum_sec=2 cancer_tnbc=1
KIT: lum_sec=2.5 mast=6 cancer_tnbc=1
ELF5: lum_sec=2.5 cancer_tnbc=.5
SLPI: lum_sec=18 cancer_tnbc=8 cancer_her2=1 basal=1
LTF: lum_sec=14 cancer_tnbc=1
PIGR: lum_sec=5 cancer_her2=.5
PROM1: lum_sec=1.5 cancer_tnbc=.8
CCL28: lum_sec=2.5 cancer_her2=.3
WFDC2: lum_sec=8 cancer_tnbc=3 cancer_her2=3 lum_hr=1
MMP7: lum_sec=6 cancer_tnbc=2 basal=.5
TNFRSF11A: lum_sec=1
LCN2: lum_sec=10 cancer_tnbc=4
SCGB2A2: lum_hr=6 cancer_er=5 cancer_her2=4 lum_sec=1
KRT5: basal=10 cancer_tnbc=6 lum_sec=1
KRT14: basal=16 cancer_tnbc=8 lum_sec=1
KRT17: basal=10 cancer_tnbc=12 lum_sec=3
OXTR: basal=3 pvl=.1
TP63: basal=2 cancer_tnbc=.2
ACTG2: basal=9 pvl=1.5
LAMA3: basal=3 cancer_tnbc=1.5 lum_sec=.5
NGFR: basal=1.5
DST: basal=8 CAF=1 pvl=1 cancer_tnbc=1 ENDO=.5
MYLK: basal=6 pvl=6 mycaf=1.5 icaf=.3
CNN1: basal=4 pvl=5 mycaf=.8
ACTA2: basal=12 pvl=30 mycaf=12 icaf=.6
TAGLN: basal=12 pvl=30 mycaf=16 icaf=1.5
MYL9: basal=12 pvl=24 mycaf=12 icaf=4 ENDO=2 EPI=.5 basal=12
KRT6B: cancer_tnbc=3
KRT16: cancer_tnbc=2.5
FOXC1: cancer_tnbc=2 basal=.3
MIA: cancer_tnbc=3.5
EGFR: cancer_tnbc=1.8 basal=.6 CAF=.5
CDH3: cancer_tnbc=2.5 basal=2
LAMC2: cancer_tnbc=2.5 basal=1 cancer_her2=.5
SOX10: cancer_tnbc=2 basal=.8 lum_sec=.4
ERBB2: EPI=1 cancer_er=1.5 cancer_her2=5 cancer_tnbc=.6
GRB7: EPI=.2 cancer_her2=1.2
PGAP3: ALL=.05 EPI=.2 cancer_her2=1
MIEN1: ALL=.4 EPI=.6 cancer_her2=1.6
STARD3: ALL=.1 EPI=.3 cancer_her2=1
TCAP: cancer_her2=.25
PNMT: cancer_her2=.3
MUC1: LUM=4 cancer_tnbc=1.5
# lymphocytes
PTPRC: IMM=4 monocyte=4 macrophage=2.5 plasmablast=1 mast=2
CD3D: t_cd4=5 t_cd8=6
CD3E: t_cd4=4 t_cd8=4.5 nk=.3
CD3G: t_cd4=2.5 t_cd8=3
CD2: t_cd4=4 t_cd8=4 nk=1.5
TRAC: t_cd4=9 t_cd8=7
TRBC1: t_cd4=5 t_cd8=4 nk=.6
TRBC2: t_cd4=8 t_cd8=8 nk=1
IL7R: t_cd4=8 t_cd8=2 nk=.3
NKG7: nk=24 t_cd8=12
GNLY: nk=28 t_cd8=1.5
KLRD1: nk=7 t_cd8=1.5
KLRF1 XCL1 XCL2: nk=4 t_cd8=.2
NCAM1: nk=1.2
KLRC1: nk=3
PRF1: nk=6 t_cd8=2
FCGR3A: nk=5 macrophage=2.5
CD4: t_cd4=2.5 macrophage=1 monocyte=.8 cdc2=.8
CCR7: t_cd4=3 cdc2=.1 b_cell=.5
CD40LG: t_cd4=1.5
SELL: t_cd4=2.5 monocyte=2.5 b_cell=1
TCF7: t_cd4=3 t_cd8=1
CD8A: t_cd8=5
CD8B: t_cd8=4
GZMK: t_cd8=6
GZMH: t_cd8=3 nk=2
GZMB: nk=5 t_cd8=2
IFNG: t_cd8=1.5 nk=.5
CCL5: t_cd8=20 nk=9 macrophage=.3
CCL4: t_cd8=6 nk=6 macrophage=2 monocyte=1
CCL3: macrophage=4 monocyte=2 t_cd8=1 nk=2
FOXP3 CCR8 TNFRSF4 TNFRSF18 IL2RA CTLA4: t_cd4=.25
CXCL13: t_cd4=.6 t_cd8=.6
PDCD1 TIGIT LAG3 TOX BTLA: t_cd4=.5 t_cd8=.8
CXCR5: b_cell=1.5 t_cd4=.1
MS4A1: b_cell=10
CD79A: b_cell=12 plasmablast=5
CD79B: b_cell=7 plasmablast=1
CD19: b_cell=2.5 plasmablast=.5
BANK1: b_cell=5
CD37: b_cell=10 T=3 MYE=2.5 plasmablast=1
VPREB3: b_cell=2.5
CD27: b_cell=1.5 t_cd4=1.5 t_cd8=1 plasmablast=2
TNFRSF13B: b_cell=1.2 plasmablast=.3
AIM2: b_cell=.8
TCL1A IGHD FCER2: b_cell=.3
CD40: b_cell=3 macrophage=.5 cdc2=.8 ENDO=.6
HLA-DRA: b_cell=28 macrophage=26 monocyte=18 cdc2=60 ENDO=3 EPI=.4
HLA-DRB1: b_cell=14 macrophage=14 monocyte=10 cdc2=34 ENDO=1.5 EPI=.2
CD74: b_cell=55 macrophage=45 monocyte=26 cdc2=80 ENDO=8 EPI=2 CAF=1.5 T=2
JCHAIN: plasmablast=60
MZB1: plasmablast=24 b_cell=.5
DERL3: plasmablast=10
TNFRSF17: plasmablast=6
IGHG1: plasmablast=140 b_cell=.6
IGHA1: plasmablast=80
IGKC: plasmablast=260 b_cell=14
SDC1: plasmablast=5 EPI=2 CAF=.5
PRDM1: plasmablast=4 T=.4 macrophage=.2
# myeloid
LYZ: monocyte=60 macrophage=22 cdc2=34 lum_sec=1
TYROBP: monocyte=22 macrophage=26 cdc2=14 nk=12 mast=3
FCER1G: monocyte=16 macrophage=22 cdc2=14 nk=6 mast=8
AIF1: monocyte=14 macrophage=18 cdc2=10
CD68: macrophage=6 monocyte=3 cdc2=2
SPI1: monocyte=3 macrophage=3 cdc2=2
CD14: monocyte=6 macrophage=7 cdc2=.3
ITGAX: monocyte=2 macrophage=2 cdc2=2
ITGAM: monocyte=1.2 macrophage=1
ITGB2: monocyte=6 macrophage=5 cdc2=4 T=3
CST3: ALL=2 macrophage=34 monocyte=22 cdc2=40 CAF=8
FCN1: monocyte=12
S100A8: monocyte=50 macrophage=.8 lum_sec=1 cancer_tnbc=1.5
S100A9: monocyte=60 macrophage=1.5 lum_sec=1.5 cancer_tnbc=2
S100A12: monocyte=9
VCAN: monocyte=7 mycaf=5 icaf=1.5 macrophage=.2
CCR2: monocyte=2.2 cdc2=.5 t_cd4=.2 macrophage=.1
EREG: monocyte=4
THBS1: monocyte=4 mycaf=2 icaf=1 macrophage=.3 ENDO=.5
C1QA: macrophage=24
C1QB: macrophage=26
C1QC: macrophage=18
APOE: macrophage=40 icaf=5 EPI=.3 pvl=1.5
CD163: macrophage=3 monocyte=.2
MRC1: macrophage=3 cdc2=.2
MSR1: macrophage=2.5 monocyte=.1
MS4A4A: macrophage=2.5
CSF1R: macrophage=4 monocyte=2.2 cdc2=.5
SLCO2B1: macrophage=1.5
FCGR1A: macrophage=1.2 monocyte=.4
MERTK: macrophage=1.2
MS4A6A MS4A7: macrophage=5 monocyte=2 cdc2=1
TREM2 GPNMB APOC1: macrophage=4
SPP1: macrophage=4 cancer_tnbc=.4
SELENOP FOLR2: macrophage=4
CCL18: macrophage=2
SIGLEC1: macrophage=.6
CD86: macrophage=1 monocyte=.6 cdc2=1
KYNU: macrophage=.8 monocyte=.8
IRF5: macrophage=.8 monocyte=.5 b_cell=.5
IDO1 CD80 CXCL9 CXCL10 CXCL11: macrophage=.3 cdc2=.1
CLEC7A: macrophage=.8 monocyte=1 cdc2=.8
FCGR2A: macrophage=1.5 monocyte=1.2
FCGR2B: macrophage=.7 b_cell=.5
MARCO: macrophage=.7
MMP9: macrophage=1
MMP19: macrophage=.3
LYVE1: macrophage=.5
IL1R2 ARG2: macrophage=.2 monocyte=.2
CD274 PDCD1LG2: macrophage=.2 cdc2=.1
IL1B: monocyte=8 macrophage=3 cdc2=2
TNF: macrophage=1.2 monocyte=.8 T=.6
CXCL8: monocyte=10 macrophage=4 cancer_tnbc=1 CAF=.6
OSM: monocyte=.5 macrophage=.3
CD1C: cdc2=8
FCER1A: cdc2=8 mast=5
CLEC10A: cdc2=6 macrophage=.3
CD1E: cdc2=4
TPSAB1: mast=90
TPSB2: mast=80
CPA3: mast=50
MS4A2: mast=8
HDC: mast=7
HPGDS: mast=7
GATA2: mast=6 ENDO=.8
IL1RL1: mast=3 ENDO=.2
# endothelium and pericytes
PECAM1: ENDO=9 monocyte=.5 macrophage=.2
VWF: ENDO=14 endo_arterial=9
CDH5: ENDO=5
CLDN5: ENDO=12 endo_venous=7
CLEC14A: ENDO=5
EMCN: ENDO=4
ERG: ENDO=2.5
TIE1: ENDO=2.5
EGFL7: ENDO=7
RAMP2: ENDO=9
PLVAP: ENDO=9 endo_arterial=4
KDR FLT1: ENDO=2.5
NOTCH4: ENDO=1.2
ACKR1: endo_venous=22
SELP: endo_venous=4
SELE: endo_venous=5
CLU: endo_venous=14 lum_sec=3 CAF=1 basal=2
CCL14: endo_venous=9
VCAM1: endo_venous=4 icaf=.8 pvl=.8
CXCL12: endo_arterial=6 icaf=18 mycaf=1
DLL4: endo_arterial=1.5
GJA5: endo_arterial=1.5
GJA4: endo_arterial=4 pvl=1
HEY1: endo_arterial=2.5
SEMA3G: endo_arterial=3
EFNB2: endo_arterial=1.5
PDGFB: ENDO=2.5
RGS5: pvl=40 ENDO=.8
MCAM: pvl=6 ENDO=1.5
NOTCH3: pvl=8 CAF=.3
PDGFRB: pvl=6 CAF=3
MYH11: pvl=10 basal=4
CSPG4: pvl=2.5
NDUFA4L2: pvl=12
ADIRF: pvl=16 ENDO=2
COX4I2: pvl=6
HIGD1B: pvl=8
DES PLN: pvl=2
CD36: ENDO=2 pvl=1 macrophage=1
THY1: pvl=4 mycaf=5 icaf=2.5
# fibroblasts
COL1A1: mycaf=80 icaf=26 pvl=3
COL1A2: mycaf=50 icaf=24 pvl=2.5
COL3A1: mycaf=55 icaf=26 pvl=3
DCN: icaf=55 mycaf=26
LUM: icaf=26 mycaf=22
PDGFRA: icaf=4 mycaf=2.5
FAP: mycaf=4 icaf=1.2
FBLN1: icaf=16 mycaf=5
MMP2: icaf=10 mycaf=9
C1S: icaf=13 mycaf=6 ENDO=.5 EPI=.3
CFD: icaf=26 macrophage=1
C3: icaf=16 lum_sec=1 mycaf=.8
C7: icaf=9
DPT: icaf=9
APOD: icaf=26 mycaf=2
PTGDS: icaf=14
ADH1B: icaf=6
DLK1: icaf=2
LEPR: icaf=2.5 ENDO=.3
CXCL14: icaf=12 basal=2
IGF1: icaf=6 macrophage=.2
PI16: icaf=4
COL10A1: mycaf=7
COL11A1: mycaf=7
MMP11: mycaf=9
POSTN: mycaf=26 icaf=4
CTHRC1: mycaf=12 icaf=.8
FN1: mycaf=26 icaf=9 ENDO=3 macrophage=3 pvl=2
INHBA: mycaf=4
SFRP4: mycaf=5 icaf=2
COMP: mycaf=5
LRRC15: mycaf=2.5
TNC: mycaf=3.5
IL1R1: CAF=2 ENDO=1.5
ADIPOQ PLIN1 PLIN4 CIDEC LEP GPD1:
FABP4: ENDO=4 macrophage=.5
# loop, stem cell and control genes (malignant values are set by the simulation)
CD44: IMM=5 b_cell=1 plasmablast=.6 monocyte=6 macrophage=4.5 CAF=3 pvl=1.2 ENDO=1 basal=2.5 lum_sec=.5 lum_hr=.2 CAN=.2
CD24: EPI=5 basal=1.2 b_cell=2
ALDH1A3: lum_sec=3 CAN=.1 icaf=.3
ALDH1A1: icaf=3 pvl=1.5 lum_sec=.3 macrophage=.3
IL6: CAF=.02
IL6R: EPI=.15 monocyte=2 macrophage=1.2 t_cd4=1.2 cdc2=.8
IL6ST: ALL=1.5 lum_hr=5 cancer_er=5 ENDO=4 CAF=4
CCL2: icaf=3 mycaf=1 endo_venous=2 macrophage=2 monocyte=1 CAN=.03
CCL7 CCL8: macrophage=.3 icaf=.1
CSF1: CAF=.5 ENDO=.5 CAN=.12 T=.1
IL34: icaf=.2
CSF2 CSF3 LIF IL11: CAF=.04
IL10: macrophage=.2
IL4 IL13:
CXCR1 CXCR2:
INS EPO GCG PPBP PF4 PF4V1 TUBB1 GP9 GP1BB ITGA2B TREML1 CMTM5 MPIG6B HBB HBA1 HBA2 ALAS2:
GNG11: ENDO=3 pvl=.3
CAVIN2: ENDO=2.5 pvl=.2
NRGN: monocyte=.05
RGS18: monocyte=.4
"""
# Rates of exactly zero: what no breast tissue makes (negative controls), and platelets' own genes.
ZERO = (
    "INS", "EPO", "GCG", "PPBP", "PF4", "PF4V1", "TUBB1", "GP9", "GP1BB", "TREML1", "CMTM5", "MPIG6B", "CXCR1",
    "CXCR2", "HBB", "HBA1", "HBA2", "ALAS2", "IL4", "IL13", "ADIPOQ", "LEP",
)  # fmt: skip
PLATELET = {
    "PPBP": 180, "PF4": 140, "GNG11": 40, "TUBB1": 30, "NRGN": 30, "CAVIN2": 35, "GP9": 20, "GP1BB": 12, "RGS18": 20,
    "MPIG6B": 6, "TREML1": 10, "CMTM5": 6, "PF4V1": 6, "ITGA2B": 8,
}  # fmt: skip
# Readout sets are measurable everywhere: at least this rate in every type.
MEASURABLE = ("STAT3_core", "STAT3_stress_light", "IL6_STAT3_leaveout", "NFKB_core", "STRESS", "IFN", "HYPOXIA")
FLOOR = 0.15
STRESS_CAP = 15.0  # the carcinoma was dissociated for long: its immediate-early genes are extreme


def pseudobulk(folder: Path) -> dict[str, pd.Series]:
    """Sum the counts per lineage, indexed by symbol."""
    rules = {
        "epithelial": ("EPCAM", "KRT8", "KRT18", "KRT19"), "t_nk": ("CD3D", "CD3E", "TRAC", "NKG7", "IL7R"),
        "b_cell": ("MS4A1", "CD79A", "MZB1", "JCHAIN"), "myeloid": ("LYZ", "C1QA", "C1QB", "TYROBP", "AIF1"),
        "endothelial": ("PECAM1", "VWF", "CLDN5", "RAMP2"), "caf": ("COL1A1", "COL1A2", "DCN", "LUM"),
        "pvl": ("RGS5", "NOTCH3", "MYH11", "NDUFA4L2"),
    }  # fmt: skip
    labels = {"Epithelial cells": "epithelial", "Monocytes": "myeloid", "Fibroblast": "caf", "T cell": "t_nk",
              "NK cells": "t_nk", "Endothelial cells": "endothelial", "Pericytes": "pvl"}  # fmt: skip
    total: dict[str, pd.Series] = {}

    def add(counts: sparse.csr_matrix, names: np.ndarray, lineage: np.ndarray) -> None:
        symbols = genes.resolve_features(list(names)).symbols
        for name in rules:
            column = np.asarray(counts[:, lineage == name].sum(axis=1)).ravel()
            series = pd.Series(column, index=symbols).groupby(level=0).sum()
            total[name] = series.add(total[name], fill_value=0) if name in total else series

    def by_markers(counts: sparse.csr_matrix, symbols: np.ndarray) -> np.ndarray:
        where = {s: i for i, s in enumerate(symbols)}
        scores = np.stack(
            [np.asarray((counts[[where[g] for g in m if g in where]] > 0).mean(axis=0)).ravel() for m in rules.values()]
        )
        first, second = np.sort(scores, axis=0)[[-1, -2]]
        best = np.array(list(rules))[scores.argmax(axis=0)]
        return np.where((first >= 0.5) & (first - second >= 0.25), best, "none")

    with h5py.File(folder / "tumours/tenx_idc/Breast_Cancer_3p_LT_filtered_feature_bc_matrix.h5") as handle:
        node = handle["matrix"]
        symbols = node["features"]["name"].asstr()[:]
        arrays = (node["data"][:], node["indices"][:], node["indptr"][:])
        counts = sparse.csc_matrix(arrays, shape=node["shape"][:]).tocsr()
    mito = np.array([s.startswith("MT-") for s in symbols])
    share = np.asarray(counts[mito].sum(axis=0)).ravel() / np.maximum(np.asarray(counts.sum(axis=0)).ravel(), 1)
    counts = counts[:, share < 0.2]
    add(counts, symbols, by_markers(counts, symbols))
    for name in ("qian_sc5rJUQ043", "qian_scrJUQ072"):
        counts = sio.mmread(folder / "tumours" / name / "matrix.mtx").tocsr()
        symbols = np.array((folder / "tumours" / name / "genes.txt").read_text().split())
        add(counts, symbols, by_markers(counts, symbols))
    # The second normal is nuclei: another profile (introns, few mitochondrial reads), so it is left out.
    counts = sio.mmread(folder / "normals/sample1/matrix.mtx.gz").tocsr()
    symbols = pd.read_csv(folder / "normals/sample1/features.tsv.gz", sep="\t", header=None)[1].to_numpy(dtype=str)
    barcodes = pd.read_csv(folder / "normals/sample1/barcodes.tsv.gz", header=None)[0]
    cells = pd.read_csv(folder / "normals/phenodata_sample1.txt", sep="\t").set_index("cellid")["celltype"]
    add(counts, symbols, barcodes.map(cells).map(labels).fillna("none").to_numpy(dtype=str))
    return total


def shrunk(total: dict[str, pd.Series]) -> tuple[pd.DataFrame, pd.Series]:
    """(genes, lineages) rates per 10,000 shrunk towards their common mean, and that mean."""
    counts = pd.DataFrame(total).fillna(0.0)
    rates = counts / counts.sum() * 1e4
    common = rates.mean(axis=1)
    size = counts.sum()
    print("UMI per lineage:", size.astype(int).to_dict())
    return (counts + common.to_numpy()[:, None] / 1e4 * PRIOR_UMI) / (size + PRIOR_UMI) * 1e4, common


def flat_along_genome(rates: pd.DataFrame, common: pd.Series, table: pd.DataFrame) -> pd.DataFrame:
    """Divide each lineage by the running median of its ratio to the common rate, chromosome by chromosome."""
    out = rates.copy()
    for _, chromosome in table.loc[rates.index].groupby("chromosome", sort=True):
        order = chromosome.sort_values("start").index
        used = order[(common.loc[order] > 0.1).to_numpy()]
        if len(used) < 20:
            continue
        ratio = np.log(rates.loc[used]).sub(np.log(common.loc[used]), axis=0)
        trend = ratio.rolling(WINDOW, center=True, min_periods=WINDOW // 4).median()
        position, at = table.loc[order, "start"].to_numpy(), table.loc[used, "start"].to_numpy()
        for lineage in rates:
            out.loc[order, lineage] /= np.exp(np.interp(position, at, trend[lineage].ffill().bfill()))
    return out


def programmes() -> pd.DataFrame:
    """(genes, types) rates of the programmes."""
    rows: dict[str, dict[str, float]] = {}
    for line in PROGRAMMES.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        names, _, values = line.partition(":")
        row = dict.fromkeys(TYPES, OFF)
        for pair in values.split():
            group, _, value = pair.partition("=")
            row.update(dict.fromkeys(GROUPS.get(group, (group,)), float(value)))
        assert set(row) == set(TYPES), line
        for name in names.split():
            assert name not in rows, name
            rows[name] = row if name not in ZERO else dict.fromkeys(TYPES, 0.0)
    return pd.DataFrame(rows).T[list(TYPES)]


def wanted_genes() -> set[str]:
    """Every gene some stage may ask for."""
    out: set[str] = {"CD44", "CD24", "ALDH1A3", "ALDH1A1", *genes.platelet_genes(), *PLATELET}
    for level in ("major", "minor"):
        for markers in genes.markers(level).values():
            out.update(markers.positive, markers.negative)
    for signature in genes.signatures().values():
        out.update(signature.genes)
    for axis in genes.axes():
        out.update(axis.ligands, *axis.receptors)
    for check in genes.cna_checks():
        out.update(str(g).split(" ")[0] for g in check["anchor_genes"])
    return out


def build(folder: Path, out: Path) -> None:
    """Derive the table and write it, with the same bytes every time."""
    table = genes.table()
    table = table[table["ensembl_id"].str.startswith("ENSG") & table["chromosome"].notna()]
    table = table[~table["ensembl_id"].duplicated()]
    rates, _ = shrunk(pseudobulk(folder))
    rates = rates[rates.index.isin(table.index)]
    markers = programmes()
    absent = sorted(set(markers.index) - set(table.index))
    print("programme genes without position:", absent)
    force = (wanted_genes() | set(markers.index)) & set(table.index)
    ribosomal = rates.index.str.match(r"^(RP[LS]\d|MT-)")
    common = rates.mean(axis=1)
    order = common.sort_values(ascending=False, kind="stable").index
    order = order[~table.loc[order, "chromosome"].isin(["chrY"])]
    keep = list(dict.fromkeys([*sorted(force), *rates.index[ribosomal], *order]))[:N_GENES]
    rates = rates.reindex(keep)
    rates = rates.fillna(0.0).clip(lower=OFF / 4)
    rates = flat_along_genome(rates, rates.mean(axis=1), table)

    profiles = pd.DataFrame({t: rates[LINEAGE[t]] for t in TYPES})
    measurable = {g for s in MEASURABLE for g in genes.signatures()[s].genes}
    rows = profiles.index.isin(measurable)
    profiles.loc[rows] = profiles.loc[rows].clip(lower=FLOOR)
    stress = profiles.index.isin(genes.signatures()["STRESS"].genes)
    profiles.loc[stress] = profiles.loc[stress].clip(upper=STRESS_CAP)
    markers = markers[markers.index.isin(profiles.index)]
    profiles.loc[markers.index] = markers
    profiles["platelet"] = 0.0
    for gene, rate in PLATELET.items():
        if gene in profiles.index:
            profiles.loc[gene, "platelet"] = rate
    mito = profiles.index.str.startswith("MT-")
    fixed = profiles.index.isin(markers.index)
    for name in TYPES:
        column = profiles[name]
        column[mito] *= MITO_SHARE * 1e4 / column[mito].sum()
        other = ~mito & ~fixed
        column[other] *= (1e4 * (1 - MITO_SHARE) - column[fixed].sum()) / column[other].sum()
        profiles[name] = column
    profiles = profiles.sort_index()
    text = io.StringIO()
    text.write("# Simulated demo cohort: UMI per 10,000 by cell type; derived by resources/build_demo_profiles.py\n")
    text.write("gene\t" + "\t".join(profiles.columns) + "\n")
    for gene, row in zip(profiles.index, profiles.to_numpy(), strict=True):
        text.write(gene + "\t" + "\t".join(f"{v:.2g}".lstrip("0") or "0" for v in row) + "\n")
    with open(out, "wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=9, mtime=0) as handle:
        handle.write(text.getvalue().encode())
    print(f"{profiles.shape[0]} genes x {profiles.shape[1]} types, {out.stat().st_size / 1e3:.0f} kB -> {out}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    default = Path(__file__).with_name("demo_profiles.tsv.gz")
    build(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else default)
