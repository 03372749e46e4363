"""Write the sample sheet of the five real samples: ``python tests/real_cohort.py DATA_FOLDER OUT``."""

from __future__ import annotations

import sys
from pathlib import Path

ROWS = [
    ("tenx_idc", "tumours/tenx_idc/Breast_Cancer_3p_LT_filtered_feature_bc_matrix.h5", "tenx", "ER+", "primary tumour", "10x 3' LT v3.1"),
    ("qian_043", "tumours/qian_sc5rJUQ043", "qian_043", "", "primary tumour", ""),
    ("qian_072", "tumours/qian_scrJUQ072", "qian_072", "", "primary tumour", ""),
    ("normal_1", "normals/sample1", "subject1", "", "normal", ""),
    ("normal_2", "normals/sample2", "subject2", "", "normal", "nuclei"),
]  # fmt: skip


def write_sheet(data: Path, out: Path) -> Path:
    """Write ``samples.tsv`` below `out` and return its path."""
    missing = [str(data / row[1]) for row in ROWS if not (data / row[1]).exists()]
    if missing:
        sys.exit(
            "real data not found:\n  "
            + "\n  ".join(missing)
            + "\nSet NICHELOOP_REAL_DATA to the folder that holds them."
        )
    out.mkdir(parents=True, exist_ok=True)
    header = "sample\tpath\tpatient\tsubtype\ttissue\tchemistry"
    lines = [
        "\t".join((sample, str((data / path).resolve()), patient, subtype, tissue, chemistry))
        for sample, path, patient, subtype, tissue, chemistry in ROWS
    ]
    sheet = out / "samples.tsv"
    sheet.write_text("\n".join([header, *lines]) + "\n")
    return sheet


if __name__ == "__main__":
    print(f"sample sheet: {write_sheet(Path(sys.argv[1]), Path(sys.argv[2]))}")
