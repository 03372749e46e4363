"""The map of the report as numbers a browser can draw: some thousand cells, quantised to bytes.  See docs/report.md.

One block of bytes per column: labels as their index, numbers and genes as steps of 1/254 of their range (255: NA),
coordinates as steps of 1/65535.  The header says where each begins.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import figures, figures_cells, genes, io
from nicheloop.report_data import Data, marker_genes
from nicheloop.report_embed import json_bytes

if TYPE_CHECKING:
    import pandas as pd

STEPS, MISSING = 254, 255
NAMED = ("sample", "patient")  # names of the user's, shown as they are
MOST_LABELS = 250  # a column of labels is one byte; rarer labels than these are "other"
MARKERS_PER_TYPE = 4
STATES = ("CD44", "CD24", "ALDH1A3", "EPCAM", "ERBB2", "ESR1", "PGR", "PTEN", "MKI67", "CD68", "CD163", "MRC1", "CD86")
LABELS = (
    ("sample", "sample"), ("patient", "patient"), ("subtype", "subtype"), ("tissue", "tissue"),
    ("cell_type", "cell type"), ("cell_type_minor", "minor cell type"),
    ("malignancy", "malignancy call"), ("csc_state", "CD44+/CD24- state"),
    ("aldh1a3_state", "ALDH1A3 state"), ("tam_class", "macrophage class"), ("cycling", "cycling"),
)  # fmt: skip
NUMBERS = (
    ("n_counts", "UMI (log10)"), ("n_genes", "genes (log10)"), ("pct_mito", "mitochondrial counts (%)"),
    ("doublet_score", "doublet score"), ("confidence", "confidence of the type"), ("cna_value", "copy-number signal"),
    ("m_csc_prob", "probability of CD44+/CD24-"), ("aldh1a3_prob", "probability of ALDH1A3-high"), ("m1_z", "M1 z"),
    ("m2_z", "M2 z"),
)  # fmt: skip


def map_genes(available: Sequence[str]) -> list[str]:
    """Genes of the axes, of the states and the first markers of every type that are in the data; axes first."""
    wanted: list[str] = []
    for axis in genes.axes():
        if not axis.decoy:
            wanted += [*axis.ligands, *(g for receptor in axis.receptors for g in receptor)]
    wanted += list(STATES)
    for names in marker_genes().values():
        wanted += list(names[:MARKERS_PER_TYPE])
    there = set(available)
    return [g for g in dict.fromkeys(wanted) if g in there]


def draw(cells: pd.DataFrame, most: int, seed: int, rare: int) -> pd.DataFrame:
    """At most `most` cells in random order: of every sample and type the same share, types of few cells whole.

    Types with at most `rare` cells in the cohort are kept whole as long as they fill no more than half of the map.
    """
    rng = np.random.default_rng(seed)
    if len(cells) <= most:
        return cells.iloc[rng.permutation(len(cells))]
    sizes = cells["cell_type"].value_counts().sort_values(kind="stable")
    whole: list[str] = []
    for name, n in sizes.items():
        if n <= rare and sizes[whole].sum() + n <= most / 2:
            whole.append(str(name))
    kept = np.flatnonzero(cells["cell_type"].isin(whole).to_numpy())
    rest = cells[~cells["cell_type"].isin(whole)]
    keys = rest["sample"].astype(str) + "\t" + rest["cell_type"].astype(str)
    chosen = figures_cells.stratified(rest.assign(_key=keys), "_key", most - len(kept), seed)
    index = np.concatenate([kept, cells.index.get_indexer(chosen.index)])
    return cells.iloc[rng.permutation(index)]


def gathered(d: Data, cells: pd.DataFrame) -> pd.DataFrame:
    """The drawn cells with every column the map can be coloured by; a column that no stage wrote is left out."""
    out = cells.copy()
    for column in ("patient", "subtype", "tissue"):
        out[column] = [d.sheet_value(str(s), column) or None for s in out["sample"]]
    wanted = {
        "qc": ["n_counts", "n_genes", "pct_mito", "doublet_score"],
        "malignancy": ["cna_value"],
        "csc": ["csc_state", "m_csc_prob", "aldh1a3_state", "aldh1a3_prob"],
        "tam": ["tam_class", "m1_z", "m2_z"],
    }
    for name, columns in wanted.items():
        table = d.per_sample(name, ["cell_id", *columns]).drop(columns="sample")
        out = out.merge(table, on="cell_id", how="left")
    if "cycling" in out:
        out["cycling"] = out["cycling"].map({True: "cycling", False: "not cycling"})
    for column in ("n_counts", "n_genes"):
        values = out[column].to_numpy(float)
        out[column] = np.log10(np.where(values > 0, values, np.nan))
    return out


def expression(d: Data, cells: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    """Names of genes and (cells, genes) log1p counts per 10,000 of the drawn cells; NaN where the gene is absent."""
    sources = {}
    for s in d.samples:
        path = d.results / "samples" / s / "counts.h5ad"
        if path.exists():
            sources[s] = io.Counts(path)
    names = map_genes(sorted({str(g) for c in sources.values() for g in c.genes}))
    out = np.full((len(cells), len(names)), np.nan, dtype=np.float32)
    where = cells["sample"].to_numpy()
    for s, source in sources.items():
        mine = np.flatnonzero(where == s)
        here = set(source.genes)
        found = [j for j, g in enumerate(names) if g in here]
        if not len(mine) or not found:
            continue
        x = source.matrix(cells=cells["cell_id"].to_numpy()[mine], genes=[names[j] for j in found]).toarray()
        total = 10 ** cells["n_counts"].to_numpy(float)[mine]
        total = np.where(np.isfinite(total) & (total > 0), total, np.nan)
        out[np.ix_(mine, np.array(found))] = np.log1p(x / total[:, None] * 1e4)
    seen = [j for j in range(len(names)) if np.nansum(out[:, j]) > 0] if len(cells) else []
    return [names[j] for j in seen], out[:, seen]


def quantised(values: np.ndarray) -> tuple[bytes, float, float]:
    """Bytes, lowest and highest value: steps of 1/254 of the range, 255 for NA."""
    values = np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    low, high = (float(values[known].min()), float(values[known].max())) if known.any() else (0.0, 0.0)
    span = high - low
    steps = np.full(len(values), MISSING, dtype=np.uint8)
    steps[known] = np.rint((values[known] - low) / span * STEPS).astype(np.uint8) if span > 0 else 0
    return steps.tobytes(), low, high


def palette(column: str, names: Sequence[str], samples: Sequence[str]) -> list[str]:
    """Colours of labels: the ones of the figures where the label has one there."""
    fixed: Mapping[str, str] = {
        "cell_type": figures.TYPE_COLOURS,
        "malignancy": figures.MALIGNANCY_COLOURS,
        "tam_class": figures.TAM_COLOURS,
        "csc_state": figures.CSC_COLOURS,
        "aldh1a3_state": figures.CSC_COLOURS,
        "sample": figures_cells.sample_colours(samples),
        "subtype": figures.SUBTYPE_COLOURS,
        "tissue": figures.TISSUE_COLOURS,
        "cycling": {"cycling": "#882255", "not cycling": "#D5D5D5"},
    }.get(column, {})
    spare = list(figures.SAMPLE_COLOURS)
    return [fixed.get(n, "#BBBBBB" if fixed else spare[i % len(spare)]) for i, n in enumerate(names)]


def payload(d: Data, cells: pd.DataFrame, total: int) -> bytes:
    """The map for the browser: length of the header (4 bytes, little endian), the header as JSON, the columns."""
    table = gathered(d, cells)
    parts: list[bytes] = []
    columns: list[dict[str, Any]] = []

    def add(data: bytes) -> int:
        at = sum(len(p) for p in parts)
        parts.append(data)
        return at

    maps = []
    for title, x, y in (("integrated", "umap_1", "umap_2"), ("not integrated", "umap_raw_1", "umap_raw_2")):
        if x not in table or not table[x].notna().any():
            continue
        entry: dict[str, Any] = {"title": title}
        for name, column in (("x", x), ("y", y)):
            values = table[column].to_numpy(float)
            low, high = float(np.nanmin(values)), float(np.nanmax(values))
            steps = np.rint((values - low) / max(high - low, 1e-12) * 65535).astype("<u2")
            entry[name] = {"at": add(steps.tobytes()), "low": low, "high": high}
        maps.append(entry)
    for name, label in LABELS:
        if name not in table or not table[name].notna().any():
            continue
        values = table[name].astype(object)
        counts = values.value_counts()
        known = sorted(counts.index[:MOST_LABELS], key=str)
        if name == "sample":
            known = [s for s in d.samples if s in set(known)]
        index = {v: i for i, v in enumerate(known)}
        codes = np.array([index.get(v, MISSING) for v in values], dtype=np.uint8)
        columns.append({
            "name": name, "label": label, "kind": "labels", "at": add(codes.tobytes()),
            "values": [str(v) for v in known], "colours": palette(name, [str(v) for v in known], d.samples),
        })  # fmt: skip
    names, values = expression(d, table)
    for name, label in NUMBERS:
        if name in table and table[name].notna().any():
            data, low, high = quantised(table[name].to_numpy(float))
            columns.append({"name": name, "label": label, "kind": "number", "at": add(data), "low": low, "high": high})
    for j, gene in enumerate(names):
        data, low, high = quantised(values[:, j])
        columns.append({"name": gene, "label": gene, "kind": "gene", "at": add(data), "low": low, "high": high})
    cell_ids = "\n".join(table["cell_id"].astype(str)).encode("utf-8")
    header = json_bytes({
        "n": len(table), "total": total, "maps": maps, "columns": columns, "ramp": ramp(),
        "ids": {"at": add(cell_ids), "length": len(cell_ids)},
        "words": {
            v: figures.type_words(v)
            for c in columns if c["kind"] == "labels" and c["name"] not in NAMED
            for v in c["values"] if figures.type_words(v) != v
        },
    })  # fmt: skip
    return struct.pack("<I", len(header)) + header + b"".join(parts)


def ramp() -> list[str]:
    """Grey for the lowest value, then viridis, dark for much, as in the figures."""
    import matplotlib
    from matplotlib.colors import to_hex

    return ["#D9D9D9", *(to_hex(c) for c in matplotlib.colormaps["viridis_r"](np.linspace(0.1, 1, 63)))]
