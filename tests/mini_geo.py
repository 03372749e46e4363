"""Tiny files in exactly the layouts and under exactly the names of the public data sets."""

from __future__ import annotations

import gzip
import io
import tarfile
from dataclasses import dataclass

import numpy as np

from matrix_files import GENES
from nicheloop import genes

GEO = "https://ftp.ncbi.nlm.nih.gov/"
IDS = [genes.ensembl_id(g) for g in GENES]


def counts(n: int, seed: int) -> np.ndarray:
    """(cells, genes) counts without an empty cell."""
    x = np.random.default_rng(seed).poisson(1.5, (n, len(GENES)))
    x[:, 0] += 1
    return x


def lines(*rows: list[str], sep: str = "\t") -> bytes:
    return "".join(sep.join(r) + "\n" for r in rows).encode()


def mtx(x: np.ndarray) -> bytes:
    """MatrixMarket of features x cells, sorted by cell, as Cell Ranger and R write it."""
    at = [(g + 1, c + 1, int(x[c, g])) for c in range(len(x)) for g in range(x.shape[1]) if x[c, g]]
    head = f"%%MatrixMarket matrix coordinate integer general\n%\n{x.shape[1]} {x.shape[0]} {len(at)}\n"
    return (head + "".join(f"{g} {c} {v}\n" for g, c, v in at)).encode()


def tar(members: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


@dataclass
class Mini:
    """Files by address, and the counts of each sample in the order of its cells."""

    files: dict[str, bytes]
    samples: dict[str, np.ndarray]
    cells: dict[str, list[str]]


def address(accession: str, name: str) -> str:
    return f"{GEO}geo/series/{accession[:-3]}nnn/{accession}/suppl/{name}"


def wu() -> Mini:
    """GSE176078: one tar.gz for all patients, symbols only, cells of patients mixed."""
    owners = ["CID3586", "CID44971", "CID3586", "CID4066", "CID44971", "CID3586", "CID44971", "CID44971"]
    cells = [f"{o}_ACGT{i}" for i, o in enumerate(owners)]
    x = counts(len(cells), 1)
    meta = [["", "orig.ident", "nCount_RNA", "celltype_major"]]
    order = [3, 0, 1, 2, 7, 6, 5, 4]  # the table is not in the order of the matrix
    meta += [[cells[i], owners[i], str(x[i].sum()), ["T-cells", "Myeloid"][i % 2]] for i in order]
    top = "Wu_etal_2021_BRCA_scRNASeq/"
    archive = tar(
        {
            top + "count_matrix_sparse.mtx": mtx(x),
            top + "count_matrix_genes.tsv": lines(*[[g] for g in GENES]),
            top + "count_matrix_barcodes.tsv": lines(*[[c] for c in cells]),
            top + "metadata.csv": lines(*[[f'"{v}"' for v in r] for r in meta], sep=","),
        },
        "w:gz",
    )
    own = {o: [i for i, p in enumerate(owners) if p == o] for o in set(owners)}
    return Mini(
        {address("GSE176078", "GSE176078_Wu_etal_2021_BRCA_scRNASeq.tar.gz"): archive},
        {o: x[i] for o, i in own.items()},
        {o: [cells[j] for j in i] for o, i in own.items()},
    )


def pal() -> Mini:
    """GSE161529: a tar of matrix and barcodes per sample, and one features file for all."""
    names = {"TN-0126": "GSM4909281_TN-MH0126-", "ER-0040-LN": "GSM4909308_ER-MH0040-LN-"}
    members, samples, cells = {}, {}, {}
    for i, (sample, prefix) in enumerate(names.items()):
        samples[sample], cells[sample] = counts(4 + i, 10 + i), [f"AAAC{j}-1" for j in range(4 + i)]
        members[prefix + "matrix.mtx.gz"] = gzip.compress(mtx(samples[sample]))
        members[prefix + "barcodes.tsv.gz"] = gzip.compress(lines(*[[c] for c in cells[sample]]))
    features = gzip.compress(lines(*[[e, g, "Gene Expression"] for e, g in zip(IDS, GENES, strict=True)]))
    files = {
        address("GSE161529", "GSE161529_RAW.tar"): tar(members),
        address("GSE161529", "GSE161529_features.tsv.gz"): features,
    }
    return Mini(files, samples, cells)


def chung() -> Mini:
    """GSE75688: dense TPM of genes x cells with three columns of names; bulk samples beside cells; no CD24."""
    columns = ["BC01_Pooled", "BC01_02", "BC01_03", "BC03LN_04", "BC03_05", "BC01_06", "BC03LN_Tumor"]
    x = counts(len(columns), 20)
    tpm = np.round(x / x.sum(axis=1, keepdims=True) * 1e6, 2)
    keep = [i for i, g in enumerate(GENES) if g != "CD24"]
    rows = [["gene_id", "gene_name", "gene_type", *columns]]
    rows += [[f"{IDS[i]}.10", GENES[i], "protein_coding", *[f"{v:g}" for v in tpm[:, i]]] for i in keep]
    info = [["sample", "type", "index", "index2", "index3"]]
    info += [
        [c, "SC", "Tumor", "Tumor", "Tumor" if i % 2 else "Bcell"] for i, c in enumerate(columns) if c[-1].isdigit()
    ]
    info += [[c, "Bulk", "Tumor", "NA", "NA"] for c in columns if not c[-1].isdigit()]
    files = {
        address("GSE75688", "GSE75688_GEO_processed_Breast_Cancer_raw_TPM_matrix.txt.gz"): gzip.compress(lines(*rows)),
        address("GSE75688", "GSE75688_final_sample_information.txt.gz"): gzip.compress(lines(*info)),
    }
    own = {"Chung-BC01": [1, 2, 5], "Chung-BC03LN": [3], "Chung-BC03": [4]}
    shown = np.array([[float(f"{v:g}") for v in row] for row in tpm])
    return Mini(
        files, {k: shown[v][:, keep] for k, v in own.items()}, {k: [columns[i] for i in v] for k, v in own.items()}
    )


def azizi() -> Mini:
    """GSE114727: cells x genes with nothing or NaN where zero, numbered cells; and a 10x triplet."""
    x = counts(5, 30)
    text = ["," + ",".join(GENES)]
    text += [
        f"{100 + i}," + ",".join([str(float(v)) if v else ["", "NaN"][i % 2] for v in row]) for i, row in enumerate(x)
    ]
    ten = counts(3, 31)
    members = {
        "GSM3148591_BC01_TUMOR1_counts.csv.gz": gzip.compress(("\n".join(text) + "\n").encode()),
        "GSM3148575_BC09_TUMOR1_matrix.mtx.gz": gzip.compress(mtx(ten)),
        "GSM3148575_BC09_TUMOR1_genes.tsv.gz": gzip.compress(lines(*[[e, g] for e, g in zip(IDS, GENES, strict=True)])),
        "GSM3148575_BC09_TUMOR1_barcodes.tsv.gz": gzip.compress(lines(["A-1"], ["B-1"], ["C-1"])),
        "GSM3148580_BC09_TUMOR1_filtered_contig_annotations.csv.gz": gzip.compress(b"barcode\n"),
    }
    return Mini(
        {address("GSE114727", "GSE114727_RAW.tar"): tar(members)},
        {"Azizi-BC01_TUMOR1": x, "Azizi-BC09_TUMOR1": ten},
        {"Azizi-BC01_TUMOR1": [str(100 + i) for i in range(5)], "Azizi-BC09_TUMOR1": ["A-1", "B-1", "C-1"]},
    )


def gao() -> Mini:
    """GSE148673: genes x cells with two further rows below the header, one of them labels; R leaves out the corner."""
    x = counts(4, 40)
    cells = ["AAAC.1", "AAAG.1", "AAAT.1", "AACA.1"]
    rows = [cells, ["copykat.pred", "T", "N", "T", "T"], ["cluster.pred", "c1", "c2", "c1", "c1"]]
    rows += [[g, *[str(v) for v in x[:, i]]] for i, g in enumerate(GENES)]
    content = gzip.compress(lines(*rows))
    return Mini(
        {
            address("GSE148673", "GSE148673_RAW.tar"): tar(
                {"GSM4476486_combined_UMIcount_CellTypes_TNBC1.txt.gz": content}
            )
        },
        {"Gao-TNBC1": x},
        {"Gao-TNBC1": cells},
    )


EVERY = {"GSE176078": wu, "GSE161529": pal, "GSE75688": chung, "GSE114727": azizi, "GSE148673": gao}
