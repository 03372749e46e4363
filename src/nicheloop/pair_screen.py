"""Every pair of a resource between every two cell types, on arrays: the engine of the screen.  See docs/screen.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nicheloop import interactions, permutation, stats
from nicheloop.errors import UserError
from nicheloop.ligand_receptor import PER

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

    from nicheloop.config_niche import Screen
    from nicheloop.interactions import Interaction

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Text = NDArray[np.object_]

STREAM = 0x5C  # the permutations of this stage, apart from those of others with the same seed


# ------------------------------------------------------------------------------------------------------- parts of pairs
@dataclass(frozen=True)
class Side:
    """Distinct ligands (or receptors) of a resource and their genes.

    Attributes
    ----------
    names : (sides,) subunits joined by ``_``
    subunits : (sides, width) positions of genes; short complexes repeat their first gene, -1 where a gene is absent
    absent : (sides,) first gene that is not in the matrix, "" where all are
    """

    names: Text
    subunits: Ints
    absent: Text

    @classmethod
    def of(cls, complexes: Sequence[tuple[str, ...]], position: dict[str, int]) -> Side:
        """Look every gene up; those of `position` are in the matrix."""
        width = max((len(c) for c in complexes), default=1)
        found = [[position.get(g, -1) for g in (c + c[:1] * width)[:width]] for c in complexes]
        missing = [next((g for g in c if g not in position), "") for c in complexes]
        return cls(
            np.array([interactions.SEPARATOR.join(c) for c in complexes], dtype=object),
            np.array(found, dtype=np.int64).reshape(len(complexes), width),
            np.array(missing, dtype=object),
        )

    def least(self, values: Any, which: Ints | None = None) -> Any:
        """(sides, ...) minimum over subunits of (genes, ...) values; absent genes take the last gene's."""
        subunits = self.subunits if which is None else self.subunits[which]
        out = values[subunits[:, 0]]
        for column in subunits.T[1:]:
            more = np.flatnonzero(column != subunits[:, 0])
            out[more] = np.minimum(out[more], values[column[more]])
        return out


def positions(wanted: Sequence[str], symbols: Sequence[str] | Text) -> dict[str, int]:
    """Position in the matrix of every wanted gene that is there, aliases resolved on both sides."""
    place = {str(s): i for i, s in enumerate(symbols)}
    found = {g: place[g] for g in wanted if g in place}
    others = [g for g in wanted if g not in place]
    if others:
        from nicheloop import genes

        current = {g: genes.resolve(g) or g for g in others}
        distinct = list(dict.fromkeys(current.values()))
        hits = genes.find(distinct, place)
        absent = set(hits.missing)
        names = dict(zip((g for g in distinct if g not in absent), hits.present, strict=True))
        found |= {g: place[names[c]] for g, c in current.items() if c in names}
    return found


# --------------------------------------------------------------------------------------------------------- statistics
@dataclass(frozen=True)
class Statistic:
    """What is compared with its permutations: the two sides' values from sums by group.

    Attributes
    ----------
    ligands, receptors : the sides; positions are those of the columns summed
    n : (groups,) cells
    scale : of the columns
    ambient : (genes,) ambient counts per 10,000
    floor : smallest counts and cells with a count; None for CellPhoneDB's statistic
    """

    ligands: Side
    receptors: Side
    n: Ints
    scale: float
    ambient: Floats
    floor: tuple[int, int] | None = None

    @property
    def multiply(self) -> bool:
        """Whether the two sides are multiplied (geometric mean), not added (mean)."""
        return self.floor is not None

    def means(self, sums: Ints) -> Floats:
        """(genes, groups, labelings) from such sums: mean, or counts per 10,000 less ambient and 0 below the floor.

        With a floor the last column holds library sizes.
        """
        if self.floor is None:
            return sums * (1.0 / (self.scale * self.n))[None, :, None]
        total, cells = permutation.split(sums)
        scale = np.divide(PER, total[-1], out=np.zeros(total.shape[1:]), where=total[-1] > 0)
        out = np.maximum(total * scale - self.ambient[:, None, None], 0.0)
        out[(total < self.floor[0]) | (cells < self.floor[1])] = 0.0
        return out

    def __call__(self, sums: Ints) -> tuple[Floats, Floats]:
        """Values of ligands and receptors, each (sides, groups, labelings)."""
        if self.floor is None:
            from nicheloop import kernels

            factor = 1.0 / (self.scale * self.n)
            found = []
            for one in (self.ligands, self.receptors):
                out = np.empty((one.absent.size, *sums.shape[1:]))
                kernels.compiled(kernels.side)(sums, factor, one.subunits, out)
                found.append(out)
            return found[0], found[1]
        means = self.means(sums)
        return self.ligands.least(means), self.receptors.least(means)


# ------------------------------------------------------------------------------------------------------------- screen
def screen(
    x: csr_matrix,
    symbols: Sequence[str] | Text,
    labels: Sequence[str] | Text,
    pairs: Sequence[Interaction],
    options: Screen,
    *,
    seed: int,
    floor: tuple[int, int] = (10, 3),
    ambient: Floats | None = None,
    labelings: NDArray[np.uint8] | None = None,
    threads: int | None = None,
) -> pd.DataFrame:
    """Test every pair between every two cell types.

    Parameters
    ----------
    x
        (cells, genes) log-normalised expression for ``method: cellphonedb``, counts for ``method: strength``.
    symbols
        (genes,) names.
    labels
        (cells,) cell type; an empty string leaves the cell out, also of the permutations.
    pairs
        From `interactions.read`.
    options
        The section ``screen``.
    seed
        Of the permutations.
    floor
        For ``strength``: fewest counts and cells with a count of each gene in its type.
    ambient
        For ``strength``: (genes,) ambient counts per 10,000, subtracted from the means.
    labelings
        (used cells, permutations) positions of types among the used types, sorted by name; instead of drawn ones.
    threads
        Instead of the section's.

    Returns
    -------
    pairs x types x types rows, of the contract ``screen``; the same whatever the threads and the order of genes.
    """
    cores = threads or options.threads
    codes, names, n = types_of(labels)
    used = n >= options.min_cells
    position = positions(sorted({g for p in pairs for g in (*p.ligand, *p.receptor)}), symbols)
    wanted = sorted(position)
    here = {g: i for i, g in enumerate(wanted)}
    columns, groups = selected(x, [position[g] for g in wanted], codes, used, options.method, cores)
    background = np.zeros(columns.n_genes)
    if ambient is not None and options.method == "strength":
        background[: len(wanted)] = ambient[[position[g] for g in wanted]]
    left, at_left = _distinct([p.ligand for p in pairs])
    right, at_right = _distinct([p.receptor for p in pairs])
    statistic = Statistic(
        Side.of(left, here), Side.of(right, here), n[used], columns.scale, background,
        floor if options.method == "strength" else None,
    )  # fmt: skip
    grid = Grid(at_left, at_right, len(names), np.flatnonzero(used))
    seen = measure(statistic, columns, groups, grid, options.expr_prop, names)
    tested = np.flatnonzero(seen.status == TESTED)
    rows = grid.rows(tested)
    left_value, right_value = seen.values
    sides = left_value[rows[:, 0], grid.used[rows[:, 1]]], right_value[rows[:, 2], grid.used[rows[:, 3]]]
    observed = sides[0] * sides[1] if statistic.multiply else sides[0] + sides[1]
    total = options.n_permutations if labelings is None else labelings.shape[1]
    source = (
        permutation.drawn(groups, total, seed=seed, stream=STREAM)
        if labelings is None
        else permutation.given(labelings)
    )
    lean, needed, rows = leaner(statistic, columns, rows)
    hits = permutation.count_extreme(
        needed, source, total, max(1, int(used.sum())), lean, rows, observed,
        multiply=statistic.multiply, positive=statistic.multiply, threads=cores,
    )  # fmt: skip
    score = np.sqrt(observed) if statistic.multiply else observed / 2
    return tabulate(grid, statistic, names, n, seen, tested, score, hits, total, options.confidence)


TESTED, ABSENT, FEW, BELOW, SINGLE = range(5)
STATUSES = ("tested", "gene_absent_from_reference", "too_few_cells", "below_threshold", "single_type")


def types_of(labels: Sequence[str] | Text) -> tuple[Ints, Text, Ints]:
    """Type of every cell (-1: left out), the types sorted by name, and their numbers of cells."""
    import pandas as pd

    text = np.array(labels, dtype=object)
    text[text == ""] = None
    codes, names = pd.factorize(text, sort=True)
    return codes.astype(np.int64), np.asarray(names, dtype=object), np.bincount(codes[codes >= 0], minlength=len(names))


def selected(
    x: csr_matrix, genes: list[int], codes: Ints, used: Bools, method: str, threads: int = 1
) -> tuple[permutation.Columns, NDArray[np.uint8]]:
    """Columns of the wanted genes over the cells of the used types, and the cells' types among the used ones.

    For ``strength`` the library sizes follow as a last column.
    """
    if used.sum() > permutation.MAX_GROUPS:
        raise UserError(f"{int(used.sum())} cell types: at most {permutation.MAX_GROUPS} can be screened.")
    kept = (codes >= 0) & np.append(used, False)[codes]
    counts = method == "strength"
    totals = np.asarray(x.sum(axis=1, dtype=np.float64)).ravel()[kept] if counts else None
    columns = permutation.Columns.of(x, genes, kept, counts=counts, extra=totals, threads=threads)
    return columns, (np.cumsum(used) - 1)[codes[kept]].astype(np.uint8)


def _distinct(complexes: Sequence[tuple[str, ...]]) -> tuple[list[tuple[str, ...]], Ints]:
    """Distinct complexes, and where each of them is."""
    place: dict[tuple[str, ...], int] = {}
    at = [place.setdefault(c, len(place)) for c in complexes]
    return list(place), np.array(at, dtype=np.int64)


@dataclass(frozen=True)
class Grid:
    """Rows: pairs x senders x receivers, in this order.

    Attributes
    ----------
    ligand, receptor : (pairs,) positions of the sides
    n_types : types, tested or not
    used : positions of the types that have enough cells
    """

    ligand: Ints
    receptor: Ints
    n_types: int
    used: Ints

    def spread(self, values: Any, axis: str) -> Any:
        """(rows,) of values by pair, or by type as sender or receiver."""
        pairs, types = self.ligand.size, self.n_types
        if axis == "pair":
            return np.repeat(values, types * types)
        return np.tile(np.repeat(values, types), pairs) if axis == "sender" else np.tile(values, pairs * types)

    def both(self, values: Any, side: str) -> Any:
        """(rows,) of (sides, types) values of the ligand in senders or the receptor in receivers."""
        pairs, types = self.ligand.size, self.n_types
        if side == "ligand":
            return np.repeat(values[self.ligand].reshape(-1), types)
        return np.broadcast_to(values[self.receptor][:, None, :], (pairs, types, types)).reshape(-1)

    def rows(self, which: Ints) -> NDArray[np.int32]:
        """(which, 4) ligand, sender, receptor, receiver; types counted among the used ones."""
        types = max(1, self.n_types)
        pair, rest = np.divmod(which, types * types)
        among = np.full(types, -1)
        among[self.used] = np.arange(self.used.size)
        return np.column_stack(
            [self.ligand[pair], among[rest // types], self.receptor[pair], among[rest % types]]
        ).astype(np.int32)


@dataclass(frozen=True)
class Measured:
    """What was seen of every row and side, before any permutation.

    Attributes
    ----------
    status : (rows,) position in `STATUSES`
    obstacle : (rows,) position in `obstacles`, -1 for tested rows
    obstacles : the sides that may be below the threshold, the types, the absent genes
    fractions, values : of ligands and of receptors, (sides, types) each; NaN where there is none
    family : (rows,) tested, or below the threshold as labelled but not under every labelling
    """

    status: NDArray[np.int8]
    obstacle: NDArray[np.int32]
    obstacles: list[str]
    fractions: tuple[Floats, Floats]
    values: tuple[Floats, Floats]
    family: Bools


def measure(
    statistic: Statistic,
    columns: permutation.Columns,
    groups: NDArray[np.uint8],
    grid: Grid,
    expr_prop: float,
    names: Text,
) -> Measured:
    """Status of every row and what prevented a test: the first of absent gene, too few cells, below threshold."""
    used, types = grid.used, grid.n_types
    total, cells = permutation.observed_sums(columns, groups, max(1, used.size))
    marked = total + (cells << permutation.MARK) if statistic.multiply else total
    share = cells / np.maximum(statistic.n, 1) if used.size else np.zeros(cells.shape)
    means = statistic.means(marked[:, :, None])[:, :, 0] if used.size else np.zeros(cells.shape)
    reach = reachable(statistic, total, cells, expr_prop)
    fractions, values, low, could = [], [], [], []
    for side in (statistic.ligands, statistic.receptors):
        there = np.flatnonzero(side.absent == "")
        found = []
        for measured in (share, means):
            wide = np.full((side.absent.size, types), np.nan)
            if used.size and there.size:
                wide[np.ix_(there, used)] = side.least(measured, there)
            found.append(wide)
        wide_reach = np.zeros((side.absent.size, types), dtype=bool)
        if used.size and there.size:
            wide_reach[np.ix_(there, used)] = side.least(reach, there)
        could.append(wide_reach)
        fractions.append(found[0])
        values.append(found[1])
        low.append(~(found[1] > 0) | (False if statistic.multiply else ~(found[0] >= expr_prop)))
    shape = (grid.ligand.size, types, types)
    code = np.empty(shape, dtype=np.int32)  # 0 nothing, 1 ligand, 2 receptor, 3 both, then types, then genes
    np.add(low[0][grid.ligand][:, :, None], 2 * low[1][grid.receptor][:, None, :].astype(np.int32), out=code)
    status = np.where(code > 0, BELOW, TESTED).astype(np.int8)
    if used.size == 1:  # every permutation is the observed labelling
        code[status == TESTED] = 4 + used[0]
        status[status == TESTED] = SINGLE
    for few in np.setdiff1d(np.arange(types), used):
        status[:, few, :] = status[:, :, few] = FEW
        code[:, :, few] = 4 + few
    for few in np.setdiff1d(np.arange(types), used):
        code[:, few, :] = 4 + few
    lacking = np.where(
        statistic.ligands.absent[grid.ligand] != "",
        statistic.ligands.absent[grid.ligand],
        statistic.receptors.absent[grid.receptor],
    )
    genes = sorted(set(lacking) - {""} - {"ligand", "receptor", "both", *names})
    obstacles = ["ligand", "receptor", "both", *names, *genes]
    place = {name: i for i, name in enumerate(obstacles)}
    for pair in np.flatnonzero(lacking != ""):
        status[pair], code[pair] = ABSENT, 1 + place[lacking[pair]]
    family = could[0][grid.ligand][:, :, None] & could[1][grid.receptor][:, None, :] & (status == BELOW)
    return Measured(
        status.reshape(-1), code.reshape(-1) - 1, obstacles, (fractions[0], fractions[1]), (values[0], values[1]),
        (family | (status == TESTED)).reshape(-1),
    )  # fmt: skip


def reachable(statistic: Statistic, total: Ints, cells: Ints, expr_prop: float) -> Bools:
    """(genes, groups) whether a group could meet the threshold under some labelling; labels do not decide it.

    Parameters
    ----------
    total, cells
        (genes, groups) sums and cells with a count, as labelled.
    expr_prop
        Of ``cellphonedb``.
    """
    everywhere = cells.sum(axis=1)
    if statistic.floor is None:
        return np.minimum(everywhere[:, None], statistic.n) >= np.maximum(expr_prop * statistic.n, 1)
    enough = (total.sum(axis=1) >= statistic.floor[0]) & (everywhere >= statistic.floor[1])
    return enough[:, None] & (statistic.n >= statistic.floor[1])


def leaner(
    statistic: Statistic, columns: permutation.Columns, rows: NDArray[np.int32]
) -> tuple[Statistic, permutation.Columns, NDArray[np.int32]]:
    """The same question with only the ligands, receptors and genes that some tested row needs."""
    rows = rows.copy()
    sides = []
    for column, side in ((0, statistic.ligands), (2, statistic.receptors)):
        which, rows[:, column] = np.unique(rows[:, column], return_inverse=True)
        sides.append(Side(side.names[which], side.subunits[which], side.absent[which]))
    needed = np.unique(np.concatenate([s.subunits.reshape(-1) for s in sides])).astype(np.int64)
    if statistic.multiply:
        needed = np.append(needed, columns.n_genes - 1)
    lean = [Side(s.names, np.searchsorted(needed, s.subunits), s.absent) for s in sides]
    return (
        Statistic(lean[0], lean[1], statistic.n, columns.scale, statistic.ambient[needed], statistic.floor),
        columns.take(needed),
        rows,
    )


def tabulate(
    grid: Grid,
    statistic: Statistic,
    names: Text,
    n: Ints,
    seen: Measured,
    tested: Ints,
    score: Floats,
    hits: Ints,
    n_permutations: int,
    confidence: float,
) -> pd.DataFrame:
    """Rows of the contract ``screen``; repeated text as categories."""
    import pandas as pd

    def text(codes: Any, values: Any) -> Any:
        return pd.Categorical.from_codes(codes, categories=pd.Index(values, dtype=object), validate=False)

    def wide(values: Any) -> Floats:
        out = np.full(seen.status.size, np.nan)
        out[tested] = values
        return out

    def number(values: Any) -> Any:
        out, missing = np.zeros(seen.status.size, dtype=np.int64), np.ones(seen.status.size, dtype=bool)
        out[tested], missing[tested] = values, False
        return pd.arrays.IntegerArray(out, missing)

    types = np.arange(grid.n_types, dtype=np.int16)
    bound = stats.upper_bound(np.arange(n_permutations + 1), n_permutations, confidence)
    p = (hits + 1) / (n_permutations + 1)
    asked = np.where(seen.family, 1.0, np.nan)
    asked[tested] = p
    return pd.DataFrame(
        {
            "ligand": text(grid.spread(grid.ligand.astype(np.int32), "pair"), statistic.ligands.names),
            "receptor": text(grid.spread(grid.receptor.astype(np.int32), "pair"), statistic.receptors.names),
            "sender": text(grid.spread(types, "sender"), names),
            "receiver": text(grid.spread(types, "receiver"), names),
            "status": text(seen.status, STATUSES),
            "obstacle": text(seen.obstacle, seen.obstacles),
            "n_sender": grid.spread(n, "sender"),
            "n_receiver": grid.spread(n, "receiver"),
            "ligand_fraction": grid.both(seen.fractions[0], "ligand"),
            "receptor_fraction": grid.both(seen.fractions[1], "receptor"),
            "ligand_mean": grid.both(seen.values[0], "ligand"),
            "receptor_mean": grid.both(seen.values[1], "receptor"),
            "score": wide(score),
            "n_extreme": number(hits),
            "p": wide(p),
            "p_upper": wide(bound[hits]),
            "q": wide(stats.bh(asked)[tested]),
            "q_tested": wide(stats.bh(p)),
        },
        copy=False,
    )
