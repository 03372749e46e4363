"""Which cells of a matrix are one sample's: by a table of cells, by the cells' table of the file, or by their names."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nicheloop import inputs
from nicheloop.inputs import DataError, reading

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 8  # values named in a message


def read_cells_table(path: Path) -> pd.DataFrame:
    """Read a table of cells (CSV or TSV, packed or not) as text, all columns, empty entries as ``""``.

    Raises
    ------
    DataError
        For a table without rows, with repeated columns, or with a row of another width.
    """
    import pandas as pd

    with reading(path), inputs.open_text(path) as handle:
        lines = [line for line in handle.read().splitlines() if line.strip()]
        if len(lines) < 2:
            raise DataError(f"{path}: the table of cells is empty: give a header and one row per cell.")
        separator = "\t" if "\t" in lines[0] else ","
        rows = list(csv.reader(lines, delimiter=separator))
    header = rows[0]
    if len(header) == len(rows[1]) - 1:  # R leaves out the name of the row names
        header = ["", *header]
    header = [h if h.strip() else f"column{i}" for i, h in enumerate(header)]
    twice = sorted({h for h in header if header.count(h) > 1})
    if twice:
        raise DataError(f"{path}: column {twice[0]!r} stands twice. Rename one.")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise DataError(
                f"{path}, row {number}: has {len(row)} fields, the header {len(header)}. Download it again."
            )
    return pd.DataFrame(rows[1:], columns=header, dtype=object)


@dataclass(frozen=True)
class Selection:
    """Which cells to take.

    Attributes
    ----------
    table : table of cells beside the matrix; None: the cells' table inside the matrix file
    name : column of the cells' names in `table`; None: the first column in which most are cells of the matrix
    column, value : column that tells samples apart, and this sample's value
    where : further columns and the value each must have
    pattern : regular expression found in the names of the cells
    """

    table: Path | None = None
    name: str | None = None
    column: str | None = None
    value: str = ""
    where: dict[str, str] = field(default_factory=dict)
    pattern: str | None = None

    def _conditions(self) -> dict[str, str]:
        return {**({self.column: self.value} if self.column is not None else {}), **self.where}

    def _column(self, table: pd.DataFrame, column: str, place: str) -> np.ndarray:
        if column not in table.columns:
            names = ", ".join(str(c) for c in list(table.columns)[:20])
            raise DataError(
                f"{place}: has no column '{column}'. Found: {names}. Correct 'cells' of the data set's layout."
            )
        return np.array(["" if v is None or v != v else str(v) for v in table[column]], dtype=object)

    def _names(self, table: pd.DataFrame, known: set[str], place: str) -> np.ndarray:
        if self.name is not None:
            return self._column(table, self.name, place)
        for column in table.columns:
            values = self._column(table, str(column), place)
            if sum(v in known for v in values) > len(values) / 2:
                return values
        raise DataError(
            f"{place}: no column holds the names of the matrix's cells (such as {min(known, default='none')!r}). "
            "Name it as 'cells.name' of the data set's layout."
        )

    def pick(
        self, cells: Sequence[str], obs: pd.DataFrame | None, matrix: Path
    ) -> tuple[np.ndarray, pd.DataFrame | None]:
        """Positions of the chosen cells in the order of the matrix, and their rows of the table of cells.

        Parameters
        ----------
        cells
            (cells,) names in the matrix.
        obs
            (cells, columns) table inside the matrix file, or None.
        matrix
            The matrix file, for messages.

        Raises
        ------
        DataError
            For a missing column or name, a cell that stands twice, or if no cell is chosen.
        """
        chosen = np.ones(len(cells), dtype=bool)
        joined: pd.DataFrame | None = obs
        place = str(matrix)
        if self.pattern is not None:
            matches = re.compile(self.pattern).search
            chosen &= np.fromiter((matches(c) is not None for c in cells), dtype=bool, count=len(cells))
        if self.table is not None:
            place = str(self.table)
            table = read_cells_table(self.table)
            names = self._names(table, set(cells), place)
            at = {n: i for i, n in enumerate(names)}
            if len(at) < len(names):
                raise DataError(f"{place}: {len(names) - len(at)} cells stand more than once. Each cell is one row.")
            rows = np.fromiter((at.get(c, -1) for c in cells), dtype=np.int64, count=len(cells))
            chosen &= rows >= 0
            joined = table.iloc[np.where(rows >= 0, rows, 0)].reset_index(drop=True)
        for column, value in self._conditions().items():
            if joined is None:
                raise DataError(
                    f"{place}: the file has no table of cells, so column '{column}' cannot be looked up. "
                    "Correct 'cells' of the data set's layout."
                )
            chosen &= self._column(joined, column, place) == value
        positions = np.flatnonzero(chosen)
        if not len(positions):
            raise DataError(
                f"{place}: no cell is this sample's ({self._asked(joined, cells)}). Correct 'cells' of the data set's "
                "layout.",
                "no_cells",
            )
        return positions, None if joined is None else joined.iloc[positions].reset_index(drop=True)

    def _asked(self, table: pd.DataFrame | None, cells: Sequence[str]) -> str:
        said = [f"{c} = {v!r}" for c, v in self._conditions().items()]
        said += [f"names matching {self.pattern!r}"] if self.pattern is not None else []
        if self.column is not None and table is not None:
            values = sorted({str(v) for v in table[self.column]})
            said.append(
                f"column '{self.column}' holds {', '.join(values[:SHOWN])}{' ...' if len(values) > SHOWN else ''}"
            )
        else:
            said.append(f"the matrix holds cells such as {', '.join(repr(c) for c in cells[:3])}")
        return "; ".join(said)
