"""Gene-set scores against the exact limit of an expression-matched null.  See docs/scoring.md.

A raw mean over a gene set tracks depth and the abundance of its genes.  Each set is compared with what random sets of
genes of like mean and like detection would give in the same cell.  The random draws are not made: their mean and
variance have closed forms, so a score has no seed, no sampling noise, and does not depend on gene or cell order.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

_SIGNIFICANT = 10  # digits of a mean that count when genes are ranked: sums in another cell order differ beyond them
_BLOCK = 512  # cells per block: bounds memory, not the result
_PARTS = 64  # most partial sums of a gene: bounds memory for many cells
_COMPILED = 2_000_000  # non-zeros from which compiled loops repay their start; the numbers are the same
_WHOLE = float(2**32)  # sums of drawn sets are of whole numbers in this unit, so that the order of genes cannot matter


class Null(NamedTuple):
    """A set in each cell, and what random sets of like genes give; (cells, sets) each."""

    observed: NDArray[np.float64]
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    skew: NDArray[np.float64]


def _blocks(x: csr_matrix, size: int = _BLOCK) -> list[tuple[int, int]]:
    return [(i, min(i + size, x.shape[0])) for i in range(0, x.shape[0], size)]


def _each(work: Callable[[int, int], None], blocks: Sequence[tuple[int, int]], threads: int) -> None:
    """Call `work` on every block; compiled loops run side by side, and each block has its own output."""
    if threads < 2 or len(blocks) < 2:
        for block in blocks:
            work(*block)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, *block) for block in blocks]:
            done.result()


def _gene_sums(x: csr_matrix, threads: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(genes,) summed values and cells with the gene; the sum is taken block by block, whatever the threads."""
    if x.nnz < _COMPILED:
        detected = np.bincount(x.indices[x.data > 0], minlength=x.shape[1])
        total = np.bincount(x.indices, weights=x.data.astype(np.float64), minlength=x.shape[1])
        return np.asarray(total, dtype=np.float64), np.asarray(detected, dtype=np.int64)
    from nicheloop import kernels

    size = max(_BLOCK, -(-x.shape[0] // _PARTS))
    blocks, kernel = _blocks(x, size), kernels.compiled(kernels.gene_sums)
    sums = np.zeros((len(blocks), x.shape[1], 2))

    def work(start: int, stop: int) -> None:
        kernel(x.indptr[start : stop + 1], x.indices, x.data, sums[start // size])

    _each(work, blocks, threads)
    total = sums.sum(axis=0)
    return total[:, 0], total[:, 1].astype(np.int64)


def gene_bins(
    x: csr_matrix, genes: Sequence[str], *, n_bins: int, n_detection: int = 2, threads: int = 1
) -> NDArray[np.int64]:
    """Assign genes to bins of like mean and like detection.

    Parameters
    ----------
    x
        (cells, genes) log-normalised expression.
    genes
        (genes,) unique names; they break ties, so that the bins do not depend on the order of the columns.
    n_bins
        Bins of equal size by rank of the mean, over the genes seen in at least one cell.
    n_detection
        Bins of equal size by rank of the number of cells with the gene, within each bin of the mean.
    threads
        Threads for large matrices; the bins do not depend on it.

    Returns
    -------
    (genes,) bin of each gene; -1 for genes seen in no cell (they are 0 everywhere, as is their null).
    """
    n_cells = max(x.shape[0], 1)
    total, detected = _gene_sums(x, threads)
    # Rounding to significant digits: a mean must not depend on the order in which cells were added up.
    with np.errstate(divide="ignore"):
        exponent = np.where(total > 0, np.floor(np.log10(np.where(total > 0, total, 1.0))), 0.0)
    unit = 10.0 ** (_SIGNIFICANT - 1 - exponent)
    mean = np.round(total * unit) / unit / n_cells
    out = np.full(len(mean), -1, dtype=np.int64)
    seen = np.flatnonzero(detected > 0)
    if not len(seen):
        return out
    by_mean = seen[np.lexsort((detected[seen], mean[seen]))]
    alphabet = _alphabet(genes, by_mean, detected, mean)
    if alphabet.any():
        by_mean = by_mean[np.lexsort((alphabet[by_mean], detected[by_mean], mean[by_mean]))]
    n_bins = min(n_bins, len(seen))
    for i, block in enumerate(np.array_split(by_mean, n_bins)):
        by_detection = block[np.argsort(detected[block], kind="stable")]  # then by mean and name, as they are
        for j, part in enumerate(np.array_split(by_detection, n_detection)):
            out[part] = i * n_detection + j
    return out


def _alphabet(
    genes: Sequence[str], order: NDArray[np.int64], detected: NDArray[np.int64], mean: NDArray[np.float64]
) -> NDArray[np.int64]:
    """(genes,) place in the alphabet of those that tie with another one in `order`: few, and text sorts slowly."""
    place = np.zeros(len(mean), dtype=np.int64)
    same = (np.diff(mean[order]) == 0) & (np.diff(detected[order]) == 0)
    tied = order[np.append(same, False) | np.append(False, same)]
    if len(tied):
        names = np.array([genes[i] for i in tied], dtype=str)
        place[tied[np.argsort(names, kind="stable")]] = np.arange(len(tied))
    return place


def resolve_sets(sets: Mapping[str, Sequence[str]], genes: Sequence[str] | Mapping[str, int]) -> dict[str, list[str]]:
    """Members of each set that are in the matrix, under the matrix's own names (aliases resolved), without repeats."""
    from nicheloop import genes as identity

    hits = identity.match(list(dict.fromkeys(g for wanted in sets.values() for g in wanted)), genes)
    return {name: list(dict.fromkeys(hit for g in wanted if (hit := hits[g]))) for name, wanted in sets.items()}


def draw_sets(
    bins: NDArray[np.int64],
    genes: Sequence[str],
    members: NDArray[np.int64],
    *,
    n_sets: int,
    seed: int,
    name: str,
    min_pool: int = 10,
) -> NDArray[np.int64]:
    """Draw random sets matched to a set gene by gene: the draws whose limit is `matched_null`.

    Parameters
    ----------
    bins, genes
        (genes,) as from `gene_bins`, and unique names; the draws do not depend on the order of the columns.
    members
        (n,) columns of the set.
    n_sets, seed, name
        Sets to draw; the stream belongs to the seed and the set's name, not to its place among other sets.
    min_pool
        As in `matched_null`.

    Returns
    -------
    (n_sets, n) columns; -1 where the set's gene is seen in no cell (it counts as 0, as would its stand-in).
    """
    names = np.asarray(genes, dtype=object).astype(str)
    members = members[np.argsort(names[members], kind="stable")]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    uniform = rng.random((n_sets, len(members)))
    out = np.full((n_sets, len(members)), -1, dtype=np.int64)
    for b in np.unique(bins[members]):
        if b >= 0:
            here = bins[members] == b
            inside = np.flatnonzero(bins == b)
            others = inside[~np.isin(inside, members)]
            pool = others if len(others) >= min_pool else inside
            pool = pool[np.argsort(names[pool], kind="stable")]
            out[:, here] = pool[(uniform[:, here] * len(pool)).astype(np.int64)]
    return out


def set_means(x: csr_matrix, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """(cells, sets) mean of each drawn set in each cell; `draws` (sets, n) columns, -1 counts as 0."""
    from scipy.sparse import csr_matrix as csr

    n_sets, n = draws.shape
    row, column = np.where(draws.ravel() >= 0, draws.ravel(), 0), np.repeat(np.arange(n_sets), n)
    weight = (draws.ravel() >= 0).astype(np.float64) / max(n, 1)
    return np.asarray((x.astype(np.float64) @ csr((weight, (row, column)), shape=(x.shape[1], n_sets))).toarray())


def matched_null(
    x: csr_matrix,
    bins: NDArray[np.int64],
    members: Sequence[NDArray[np.int64]],
    *,
    min_pool: int = 10,
    threads: int = 1,
    skewness: bool = True,
) -> Null:
    """Observed mean of each set in each cell, and mean, standard deviation and skewness of its null.

    For each gene of a set one gene is drawn from its bin, with the set's own genes left out of the pool where at least
    `min_pool` genes remain.  With bin means mu_b and variances s2_b taken within the cell, the mean over the n drawn
    genes has mean sum(mu_b) / n, variance sum(s2_b) / n^2 and third moment sum(k3_b) / n^3 over infinitely many draws.

    Parameters
    ----------
    x
        (cells, genes) expression.
    bins
        (genes,) as from `gene_bins`.
    members
        Per set, the column indices of its genes; sets must not be empty.
    min_pool
        Fewest genes left in a bin for the set's own genes to be excluded.
    threads
        Threads for large matrices; the numbers do not depend on it.
    skewness
        Without it the skewness is given as 0, a third faster.

    Returns
    -------
    `Null`
    """
    n_bins = int(bins.max(initial=-1)) + 1
    size = np.bincount(bins[bins >= 0], minlength=n_bins)
    # Every (set, bin) that holds a gene of the set, set by set.
    n = np.array([len(index) for index in members], dtype=np.float64)
    genes, in_set = np.concatenate(members), np.repeat(np.arange(len(members)), n.astype(np.int64))
    known = bins[genes] >= 0
    genes, in_set = genes[known], in_set[known]
    pairs, pair_of, counts = np.unique(in_set * max(n_bins, 1) + bins[genes], return_inverse=True, return_counts=True)
    of_set, of_bin = np.divmod(pairs, max(n_bins, 1))
    count = counts.astype(np.float64)
    exclude = (size[of_bin] - count >= min_pool).astype(np.float64)
    share = 1.0 / (size[of_bin] - exclude * count)
    bounds = np.searchsorted(of_set, np.arange(len(members) + 1))

    observed = np.zeros((x.shape[0], len(members)))
    mean, sd, skew = (np.zeros_like(observed) for _ in range(3))
    by_gene = np.argsort(genes, kind="stable")
    pair = pair_of[by_gene]
    start = np.searchsorted(genes[by_gene], np.arange(x.shape[1] + 1))
    code = np.where(bins >= 0, 2 * bins + (np.diff(start) > 0), -1).astype(np.int32)
    table = np.stack([of_bin, count, exclude, share]).astype(np.float64)

    def compiled(here: slice) -> tuple[NDArray[np.float64], ...]:
        from nicheloop import kernels

        out = np.zeros((4, here.stop - here.start, len(members)))
        rows = x.indptr[here.start : here.stop + 1]
        kernels.compiled(kernels.matched_moments)(
            rows, x.indices, x.data, code, start, pair, bounds, table, n, n_bins, skewness, out
        )
        return tuple(out)

    def plain(here: slice) -> tuple[Any, ...]:
        from scipy.sparse import csr_matrix as csr

        each = np.arange(len(pairs))
        indicator = csr((np.ones(len(genes)), (np.arange(len(genes)), pair_of)), shape=(len(genes), len(pairs)))
        gather = csr((np.ones(len(pairs)), (each, of_set)), shape=(len(pairs), len(members)))
        gather_n = csr((count, (each, of_set)), shape=(len(pairs), len(members)))
        block = x[here]
        cell = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
        binned = bins[block.indices]
        keep = binned >= 0
        cell_bin = cell[keep] * n_bins + binned[keep]
        value = block.data[keep].astype(np.float64)
        length = block.shape[0] * n_bins
        in_sets = block[:, genes].astype(np.float64)
        moments, own = [], np.zeros(0)
        for power in (1, 2, 3):
            whole = np.bincount(cell_bin, weights=value**power, minlength=length).reshape(-1, n_bins)
            part = in_sets.copy()
            part.data = in_sets.data**power
            inside = (part @ indicator).toarray()
            own = inside if power == 1 else own
            moments.append((whole[:, of_bin] - exclude * inside) * share)
        mu, square, cube = moments
        variance = np.maximum(square - mu**2, 0.0) @ gather_n
        third = (cube - 3 * mu * square + 2 * mu**3) @ gather_n
        scale = np.where(variance > 0, variance, 1.0) ** 1.5
        skew = np.where((variance > 0) & skewness, third / scale, 0.0)
        return own @ gather / n, mu @ gather_n / n, np.sqrt(variance) / n, skew

    def work(begin: int, stop: int) -> None:
        here = slice(begin, stop)
        observed[here], mean[here], sd[here], skew[here] = (compiled if x.nnz >= _COMPILED else plain)(here)

    _each(work, _blocks(x), threads)
    return Null(observed, mean, sd, skew)


def normal_score(null: Null, *, spread: float = 1e-9) -> NDArray[np.float64]:
    """(cells, sets) z of the observed mean on the scale of a standard normal; NaN where the null has no spread.

    (observed - mean) / sd has a tail to the right where the matched genes are skewed, most in shallow cells: more than
    1 % of random sets would exceed 2.33.  The null is therefore read as a shifted gamma law with its mean, variance
    and skewness g, and its cube root as normal (Wilson and Hilferty 1931, doi:10.1073/pnas.17.12.684):
    z = 6 / g ((1 + g t / 2)^(1/3) - 1) + g / 6, t = (observed - mean) / sd.  Monotone in t, and t itself at g = 0.
    """
    t = standard_score(null, spread=spread)
    skewed = np.abs(null.skew) > 1e-3  # below it the formula is t but for rounding
    g = np.where(skewed, null.skew, 1.0)
    return np.where(skewed, 6 / g * (np.cbrt(np.maximum(1 + g * t / 2, 0.0)) - 1) + g / 6, t)


def standard_score(null: Null, *, spread: float = 1e-9) -> NDArray[np.float64]:
    """(cells, sets) (observed - mean) / sd; NaN where the null has no spread but rounding."""
    known = null.sd > spread
    return np.where(known, (null.observed - null.mean) / np.where(known, null.sd, 1.0), np.nan)


def set_levels(
    x: csr_matrix, genes: Sequence[str], sets: Mapping[str, Sequence[str]], *, min_genes: int
) -> pd.DataFrame:
    """Mean expression of gene sets in every cell, on one scale for all cells and samples.

    Unlike a score of `score_sets` it says how much of a set is there, so means of it can be compared between samples of
    one chemistry; it moves with detection and with the genes a reference holds.

    Parameters
    ----------
    x
        (cells, genes) log-normalised expression (log1p counts per 10,000), CSR.
    genes
        (genes,) unique symbols of the columns.
    sets
        Name to wanted genes; aliases are resolved, what is not in the matrix is left out.
    min_genes
        A set with fewer genes in the matrix is NaN.

    Returns
    -------
    DataFrame (cells, sets), float64, log1p counts per 10,000.
    """
    import pandas as pd

    lookup = {g: i for i, g in enumerate(genes)}
    present = resolve_sets(sets, lookup)
    used = np.array(sorted({lookup[g] for members in present.values() for g in members}), dtype=np.int64)
    values = x[:, used].toarray().astype(np.float64)
    out = {}
    for name, members in present.items():
        columns = np.sort([lookup[g] for g in members]).astype(np.int64)
        known = len(columns) >= max(min_genes, 1)
        part = values.take(np.searchsorted(used, columns), axis=1) if known else None
        out[name] = np.full(x.shape[0], np.nan) if part is None else part.mean(axis=1)
    return pd.DataFrame(out, columns=list(sets))


def score_sets(
    x: csr_matrix,
    genes: Sequence[str],
    sets: Mapping[str, Sequence[str]],
    *,
    n_bins: int,
    min_genes: int,
    min_cells: int,
    n_detection: int = 2,
    threads: int = 1,
    normal: bool = False,
) -> pd.DataFrame:
    """Score gene sets in every cell against random sets of like expression and detection.

    Parameters
    ----------
    x
        (cells, genes) log-normalised expression (log1p counts per 10,000), CSR.  Means, and so the matching, are taken
        over these cells: pass the cells of one compartment.
    genes
        (genes,) unique symbols of the columns.
    sets
        Name to wanted genes; aliases are resolved, what is not in the matrix is left out.
    n_bins, n_detection
        Bins of the mean, and of detection within each (see `gene_bins`).
    min_genes
        A set with fewer genes in the matrix is not measurable.
    min_cells
        With fewer cells nothing is measurable: there is no mean to match on.
    threads
        Threads for large matrices; the numbers do not depend on it.
    normal
        Read the null with its skewness (`normal_score`), for scores that are cut or read as tails.

    Returns
    -------
    DataFrame (cells, sets), float64, columns in the order of `sets`: (mean over the set - null mean) / null sd.  NaN:
    the set or the compartment is not measurable (then the whole column), or the cell shows no spread among the matched
    genes (an empty cell; or no gene of the set is seen in any cell), so that it holds no evidence either way.

    Notes
    -----
    z says how the set stands out from other genes that are as abundant over the cells passed in.  A set that all of
    them express alike therefore has z near 0 everywhere: z ranks cells, it does not say "expressed".  After Tirosh et
    al. 2016 (doi:10.1126/science.aad0501), with the sampling of control genes replaced by its limit.
    """
    import pandas as pd
    from scipy.sparse import csr_matrix as csr

    x = csr(x)
    lookup = dict(zip(genes, range(len(genes)), strict=True))
    if len(lookup) != len(genes) or len(lookup) != x.shape[1]:
        raise ValueError(f"{x.shape[1]} columns need as many unique genes, got {len(lookup)} unique of {len(genes)}")
    out = np.full((x.shape[0], len(sets)), np.nan)
    if x.shape[0] >= max(min_cells, 1):
        present = resolve_sets(sets, lookup)
        usable = [k for k, name in enumerate(sets) if len(present[name]) >= max(min_genes, 1)]
        if usable:
            names = list(sets)
            members = [np.array([lookup[g] for g in present[names[k]]], dtype=np.int64) for k in usable]
            bins = gene_bins(x, genes, n_bins=n_bins, n_detection=n_detection, threads=threads)
            null = matched_null(x, bins, members, threads=threads, skewness=normal)
            out[:, usable] = normal_score(null) if normal else standard_score(null)
    columns: Any = list(sets)
    return pd.DataFrame(out, columns=columns)


def null_p(
    x: csr_matrix,
    genes: Sequence[str],
    sets: Mapping[str, Sequence[str]],
    *,
    n_sets: int,
    n_bins: int,
    min_genes: int,
    min_cells: int,
    seed: int,
    n_detection: int = 2,
    threads: int = 1,
) -> pd.DataFrame:
    """Empirical p of every set in every cell: random sets of like expression and detection whose mean reaches its own.

    Parameters
    ----------
    n_sets, seed
        Random sets per gene set, drawn once for all cells; the draws belong to seed and set name.
    x, genes, sets, n_bins, n_detection, min_genes, min_cells, threads
        As in `score_sets`.

    Returns
    -------
    DataFrame (cells, sets): (b + 1) / (n_sets + 1), one-sided; NaN where `score_sets` has no score.

    Notes
    -----
    The tail of `score_sets`' null without a normal law.  It says of one cell whether these genes stand out among genes
    like them; genes of a set move together, so it is no test of a hypothesis about cells.  Means are compared in whole
    multiples of 2**-32, which makes the counts independent of the order of genes, cells, blocks and threads.
    """
    import pandas as pd
    from scipy.sparse import csr_matrix as csr

    from nicheloop import kernels

    x = csr(x)
    scored = score_sets(
        x,
        genes,
        sets,
        n_bins=n_bins,
        min_genes=min_genes,
        min_cells=min_cells,
        n_detection=n_detection,
        threads=threads,
    )
    out = np.full((x.shape[0], len(sets)), np.nan)
    if x.shape[0] >= max(min_cells, 1):
        lookup = {g: i for i, g in enumerate(genes)}
        present = resolve_sets(sets, genes)
        bins = gene_bins(x, genes, n_bins=n_bins, n_detection=n_detection, threads=threads)
        kernel = kernels.compiled(kernels.tail_counts)
        for k, name in enumerate(sets):
            if len(present[name]) < max(min_genes, 1):
                continue
            members = np.array([lookup[g] for g in present[name]], dtype=np.int64)
            drawn = draw_sets(bins, genes, members, n_sets=n_sets, seed=seed, name=name)
            column, number = drawn.ravel(), np.repeat(np.arange(n_sets, dtype=np.int64), drawn.shape[1])
            column, number = column[column >= 0], number[column >= 0]
            order = np.argsort(column, kind="stable")
            start = np.searchsorted(column[order], np.arange(x.shape[1] + 1)).astype(np.int64)
            member = np.zeros(x.shape[1], dtype=np.int64)
            member[members] = 1
            hits, draws = np.zeros(x.shape[0], dtype=np.int64), number[order]

            def work(
                begin: int, stop: int, member: Any = member, start: Any = start, draws: Any = draws, hits: Any = hits
            ) -> None:
                rows = x.indptr[begin : stop + 1]
                total = np.zeros(n_sets, dtype=np.int64)
                kernel(rows, x.indices, x.data, _WHOLE, member, start, draws, total, hits[begin:stop])

            _each(work, _blocks(x), threads)
            out[:, k] = (hits + 1) / (n_sets + 1)
    out[scored.isna().to_numpy()] = np.nan
    columns: Any = list(sets)
    return pd.DataFrame(out, columns=columns)
