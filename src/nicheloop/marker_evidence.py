"""Marker evidence of single cells: does a cell make a type's markers, or are they ambient RNA?  See docs/annotate.md.

A naive Bayes log-likelihood ratio against the ambient RNA of the sample.  It knows the depth of the cell and does not
depend on which other types happen to be in the sample, so that a sample of one type is annotated like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import genes as identity

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from nicheloop import config_cells

    Floats = NDArray[np.float64]

_BLOCK = 20000  # cells per block of marker counts: bounds memory, not the result


def marker_llr(
    counts: Floats, size: Floats, pool: Floats, *, rate: float, shape: float, share: float, floor: float
) -> Floats:
    """Log-likelihood ratio of "the cell makes the gene" against "ambient RNA only".

    Made: gamma-Poisson with mean max(`rate`, `pool`) per 10,000 and gamma shape `shape`.  Not made: Poisson with
    `share` * `pool` + `floor` per 10,000.

    Parameters
    ----------
    counts
        (cells, genes) UMI; need not be whole.
    size
        (cells,) library size / 10,000; positive.
    pool
        (genes,) rate in the pooled cells of the sample, UMI per 10,000.

    Returns
    -------
    (cells, genes) nats.
    """
    from scipy.special import gammaln

    off = size[:, None] * (share * pool + floor)[None, :]
    on = size[:, None] * np.maximum(rate, pool)[None, :]
    made = (
        gammaln(counts + shape)
        - gammaln(shape)
        + shape * np.log(shape / (shape + on))
        + counts * np.log(on / (shape + on))
    )
    return np.asarray(made - (counts * np.log(off) - off))


def weigh(llr: Floats, probability: float, limit: float) -> Floats:
    """Evidence of a marker that a cell of the type makes with `probability` only, kept within +-`limit` nats."""
    mixed = np.log1p(probability * np.expm1(np.clip(llr, -50.0, 50.0)))
    return np.clip(mixed, -limit, limit)


def kin(types: Sequence[str]) -> NDArray[np.bool_]:
    """(types, types) whether two types are the same lineage, or neighbours that share markers."""
    out = np.eye(len(types), dtype=bool)
    for group in identity.marker_use().kin:
        index = [i for i, t in enumerate(types) if t in group]
        out[np.ix_(index, index)] = True
    return out


def panel(available: Sequence[str]) -> dict[str, Any]:
    """Marker design over the genes of a matrix.

    Returns
    -------
    dict
        ``genes``: (markers,) present in `available`; ``major``, ``minor``: names; (markers, major) bool: ``own``,
        ``shared`` (made by some cells of the type), ``negative``, ``counted`` (own or of a minor type; of platelets
        and erythrocytes only those no other type makes); ``minor_positive``, ``minor_negative``: (markers, minor) bool.
    """
    major, minor, use = identity.markers("major"), identity.markers("minor"), identity.marker_use()
    sets = {("major", t): m for t, m in major.items()} | {("minor", t): m for t, m in minor.items()}
    wanted = dict.fromkeys(g for m in sets.values() for g in (*m.positive, *m.negative))
    names = identity.find(list(wanted), available).present
    index = {g: i for i, g in enumerate(names)}

    def rows(members: Sequence[str]) -> list[int]:
        return [index[g] for g in identity.find(list(members), names).present]

    types, minors = list(major), list(minor)
    shape = (len(names), len(types))
    own, shared, negative = (np.zeros(shape, dtype=bool) for _ in range(3))
    minor_positive, minor_negative = (np.zeros((len(names), len(minors)), dtype=bool) for _ in range(2))
    for j, t in enumerate(types):
        own[rows(major[t].positive), j] = True
        negative[rows(major[t].negative), j] = True
    for j, t in enumerate(minors):
        minor_positive[rows(minor[t].positive), j] = True
        minor_negative[rows(minor[t].negative), j] = True
        parent = minor[t].parent
        if parent in types and t in use.called:
            shared[rows(minor[t].positive), types.index(parent)] = True
    declared = own | shared  # of the type itself or of its minor types
    for gene, others in use.shared.items():
        for i in rows([gene]):
            for t in others:
                shared[i, types.index(t)] = True
    broad = rows(sorted(use.broad))
    own[broad] = shared[broad] = declared[broad] = False
    unrelated = (own | shared).astype(np.int64) @ (~kin(types)).astype(np.int64) > 0
    counted = np.where(np.isin(types, use.last)[None, :], declared & ~unrelated, declared)
    shared &= ~own
    return {
        "genes": names, "major": types, "minor": minors, "own": own, "shared": shared, "negative": negative,
        "counted": counted, "minor_positive": minor_positive, "minor_negative": minor_negative,
    }  # fmt: skip


def cell_evidence(counts: csr_matrix, genes: Sequence[str], options: config_cells.Annotate) -> pd.DataFrame:
    """Marker evidence of every cell.

    Parameters
    ----------
    counts
        (cells, genes) UMI of one sample.  Libraries above `options.max_library` are scaled down to it.
    genes
        (genes,) symbols.

    Returns
    -------
    DataFrame (cells,): ``llr_major_<type>``, ``llr_minor_<type>`` in nats and ``n_major_<type>``, ``n_minor_<type>``
    (positive markers seen, of the type or its minor types).  NaN: the matrix holds no marker of the type.
    """
    import pandas as pd

    design = panel(genes)
    lookup = {g: i for i, g in enumerate(genes)}
    columns = np.array([lookup[g] for g in design["genes"]], dtype=np.int64)
    total = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    scale = np.minimum(1.0, options.max_library / np.maximum(total, 1.0))
    size = np.maximum(total * scale, 1.0) / 1e4
    marked = counts[:, columns].astype(np.float64)
    marked.data *= np.repeat(scale, np.diff(marked.indptr))
    pool = np.asarray(marked.sum(axis=0), dtype=np.float64).ravel() / max(size.sum(), 1e-12)
    own, shared, negative = (design[k].astype(np.float64) for k in ("own", "shared", "negative"))
    minor, not_minor = (design[k].astype(np.float64) for k in ("minor_positive", "minor_negative"))
    n, n_major, n_minor = counts.shape[0], len(design["major"]), len(design["minor"])
    llr_major, seen_major = np.zeros((n, n_major)), np.zeros((n, n_major))
    llr_minor, seen_minor = np.zeros((n, n_minor)), np.zeros((n, n_minor))
    limit = options.max_marker_evidence
    for start in range(0, n, _BLOCK):
        here = slice(start, start + _BLOCK)
        x = marked[here].toarray()
        llr = marker_llr(
            x, size[here], pool, rate=options.marker_rate, shape=options.marker_shape,
            share=options.ambient_share, floor=options.ambient_floor,
        )  # fmt: skip
        strong, weak = weigh(llr, options.marker_probability, limit), weigh(llr, options.shared_probability, limit)
        llr_major[here] = strong @ own + weak @ shared - options.negative_weight * np.maximum(strong, 0.0) @ negative
        llr_minor[here] = strong @ minor - options.negative_weight * np.maximum(strong, 0.0) @ not_minor
        seen_major[here] = (x > 0) @ design["counted"].astype(np.float64)
        seen_minor[here] = (x > 0) @ minor
    llr_major[:, ~(design["own"] | design["shared"]).any(axis=0)] = np.nan
    seen_major[:, ~design["counted"].any(axis=0)] = np.nan
    llr_minor[:, ~design["minor_positive"].any(axis=0)] = np.nan
    seen_minor[:, ~design["minor_positive"].any(axis=0)] = np.nan
    table = np.hstack([llr_major, llr_minor, seen_major, seen_minor])
    names = [f"{what}_{level}_{t}" for what in ("llr", "n") for level in ("major", "minor") for t in design[level]]
    return pd.DataFrame(table, columns=names)
