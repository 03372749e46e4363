"""Screening: every pair of a ligand-receptor resource between every two cell types of a sample.  See docs/screen.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nicheloop import interactions, io, kernels
from nicheloop.errors import NotAssessable
from nicheloop.ligand_receptor import PER
from nicheloop.pair_screen import screen

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

    from nicheloop.config_niche import Crosstalk, Screen

Floats = NDArray[np.float64]
Text = NDArray[np.object_]


def cell_labels(cells: pd.DataFrame, level: str) -> Text:
    """Label of every cell: malignant, else its major or minor type; "" for platelets and unresolved cells.

    Parameters
    ----------
    cells
        Cells with cell_type, cell_type_minor, malignancy and platelet.
    level
        ``major`` or ``minor``.
    """

    def text(column: str) -> Text:
        return cells[column].astype(object).where(cells[column].notna(), "").to_numpy(dtype=object)

    major, call = text("cell_type"), text("malignancy")
    out = (major if level == "major" else text("cell_type_minor")).copy()
    out[(major == "epithelial") & (call == "unassigned")] = "epithelial_unassigned"
    out[call == "malignant"] = "malignant"
    platelet = cells["platelet"].astype("boolean").fillna(False).to_numpy(dtype=bool)
    out[platelet | np.isin(major, ["platelet", "unresolved"])] = ""
    return out


def load(
    counts: str | Path, cell_types: str | Path, malignancy: str | Path, level: str
) -> tuple[io.Counts, csr_matrix, Text, Text]:
    """Reader, counts of the kept cells by name, symbols and labels.

    Raises
    ------
    NotAssessable
        If earlier stages gave nothing for the sample, or it holds no counts.
    """
    reader = io.Counts(counts)
    reader.require(counts=True)
    matrix = reader.matrix_ahead()
    kernels.prepare()
    cells = io.read_cells(cell_types, reader.sample, ["cell_type", "cell_type_minor", "platelet"]).sort_index()
    if cells.empty:
        raise NotAssessable("no_cells", "no cell of this sample passed quality control and annotation")
    cells = cells.join(io.read_table(malignancy, columns=["cell_id", "malignancy"]).set_index("cell_id"))
    x = matrix()[io.positions(reader.cell_ids, cells.index, "cell")]
    return reader, x, reader.genes, cell_labels(cells, level)


def run_screen(
    counts: str | Path,
    cell_types: str | Path,
    malignancy: str | Path,
    ambient: str | Path,
    out: str | Path,
    *,
    options: Screen,
    crosstalk: Crosstalk,
    seed: int,
    threads: int | None = None,
) -> None:
    """Write every pair of the resource between every two cell types of one sample, testable or not.

    `threads` replaces the configuration's, such as with what the scheduler granted; the result does not depend on it.
    """
    import pandas as pd

    with io.stage_output(out, "screen", stage="screen", sample=io.Counts(counts).sample) as result:
        if not options.resource:
            raise NotAssessable("no_resource", "screen.resource is empty: nothing to screen")
        pairs = interactions.read(options.resource)
        _, x, symbols, labels = load(counts, cell_types, malignancy, options.labels)
        share: Floats | None = None
        if options.method == "strength":
            profile = io.read_table(ambient)
            rate = float(profile["contamination_rate"].iloc[0]) if len(profile) else np.nan
            pool = pd.Series(profile["ambient_fraction"].to_numpy(dtype=float), index=profile["gene"].astype(str))
            share = pool.reindex(symbols).fillna(0.0).to_numpy() * (0.0 if np.isnan(rate) else rate) * PER
        else:
            x = io.lognormalise(x)
        result.table = screen(
            x, symbols, labels, pairs, options, seed=seed, threads=threads,
            floor=(crosstalk.min_umi, crosstalk.min_positive_cells), ambient=share,
        )  # fmt: skip
        result.summary = {
            "method": options.method,
            "n_pairs": len(pairs),
            "n_types": len(set(labels) - {""}),
            "statuses": dict(sorted(Counter(result.table["status"]).items())),
        }
