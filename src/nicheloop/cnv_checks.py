"""What a clone's copy number says: expected breast changes, marker loci, the HER2 amplicon.  See docs/malignancy.md."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import cnv, cnv_groups, genes

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from nicheloop.cnv import Bools, Floats
    from nicheloop.config_malignancy import Malignancy

HER2_REGION, HER2_GENE = "17q12", "ERBB2"  # neighbours without the gene itself are no HER2 amplicon
AUTOSOMAL_ARM = re.compile(r"(\d+[pq])")


def _clipped(mean: Floats, base: Floats, where: cnv.Layout, settings: cnv_groups.Settings) -> tuple[Floats, float]:
    """(genes,) clipped log2 difference without its mean, in genomic order, and its spread over all genes."""
    difference = cnv_groups.log_difference(mean[where.columns], base[where.columns], settings.pseudo)
    difference = np.clip(difference, -settings.clip, settings.clip)
    difference = difference - difference.mean()
    return difference, float(difference.std())


def _seen(difference: Floats, spread: float, here: Bools, min_z: float) -> dict[str, Any]:
    """Genes of a region, their mean difference, its z, and what that means."""
    n = int(here.sum())
    value = float(difference[here].mean()) if n else np.nan
    z = float(value * np.sqrt(n) / spread) if n and spread > 0 else np.nan
    seen = "not_measurable" if not np.isfinite(z) else "no_change" if abs(z) < min_z else "gain" if z > 0 else "loss"
    return {"n_genes": n, "log2": value, "z": z, "seen": seen}


def _bands(positions: pd.DataFrame, where: cnv.Layout) -> NDArray[np.str_]:
    return np.asarray(positions["band"].to_numpy(dtype=object)[where.columns].astype(str))


def arm_checks(
    mean: Floats, base: Floats, where: cnv.Layout, positions: pd.DataFrame, settings: cnv_groups.Settings, min_z: float
) -> list[dict[str, Any]]:
    """Look for the changes expected in breast tumours.

    Parameters
    ----------
    mean, base
        (genes,) mean expression of the clone and of what it is compared with.

    Returns
    -------
    One dict per region of `genes.cna_checks`: genes measured, mean clipped log2 difference, z against the spread of all
    genes, what is seen (gain, loss, no_change, not_measurable) and whether that is the expected direction.
    """
    difference, spread = _clipped(mean, base, where, settings)
    band = _bands(positions, where)
    names = np.unique(band)
    out = []
    for check in genes.cna_checks():
        here = where.arms == check["arm"]
        if check["bands"]:
            here &= np.isin(band, [b for b in names if b.startswith(tuple(check["bands"]))])
        found = _seen(difference, spread, here, min_z)
        out.append({"region": check["region"], "expected": check["direction"], **found,
                    "agrees": found["seen"] == check["direction"]})  # fmt: skip
    return out


def marker_loci(
    mean: Floats,
    base: Floats,
    where: cnv.Layout,
    positions: pd.DataFrame,
    settings: cnv_groups.Settings,
    *,
    min_z: float,
    n_genes: int,
) -> list[dict[str, Any]]:
    """Local copy number at the genes that CSC calls and axes read, so that a gain is not taken for a state.

    Parameters
    ----------
    mean, base
        (genes,) mean expression of the clone and of what it is compared with.
    where, positions, settings
        Genes in genomic order; their bands; the test.
    min_z
        z at which a change is seen.
    n_genes
        Nearest measured genes of the same arm that speak for the locus; the marker itself never does.

    Returns
    -------
    One dict per entry of `genes.marker_loci`: gene, locus, arm, genes used, mean clipped log2 difference, z, and what
    is seen (gain, loss, no_change, not_measurable).
    """
    difference, spread = _clipped(mean, base, where, settings)
    table = genes.table()
    start = positions["start"].to_numpy(dtype=np.float64)[where.columns]
    symbol = positions.index.to_numpy(dtype=object)[where.columns]
    out = []
    for gene, locus in genes.marker_loci().items():
        found = AUTOSOMAL_ARM.match(locus)
        arm = found[1] if found else ""
        here = np.flatnonzero((where.arms == arm) & (symbol != gene))
        if gene in table.index and len(here):
            distance = np.abs(start[here] - float(table.at[gene, "start"]))
            here = here[np.lexsort((symbol[here].astype(str), distance))[:n_genes]]
        chosen = np.zeros(len(difference), dtype=bool)
        chosen[here] = True
        out.append({"gene": gene, "locus": locus, "arm": arm, **_seen(difference, spread, chosen, min_z)})
    return out


def her2_check(
    mean: Floats, bases: tuple[Floats, ...], positions: pd.DataFrame, pseudo: float, options: Malignancy
) -> dict[str, Any]:
    """HER2 amplicon by expression alone: genes well above every baseline, beyond the level of their arm.

    Parameters
    ----------
    mean
        (genes,) mean expression of the clone.
    bases
        (genes,) means it is compared with: a dozen normal cells are too noisy, the reference is another lineage.

    Returns
    -------
    dict with the genes measured, those high, their excess, and ``amplified`` (None where too few were measured).
    """
    anchors: list[str] = next((c["anchor_genes"] for c in genes.cna_checks() if c["region"] == HER2_REGION), [])
    row = {g: i for i, g in enumerate(positions.index)}
    on_arm = positions["arm"].to_numpy() == "17q"
    excess = np.full(len(mean), np.inf)
    for base in bases:
        with np.errstate(invalid="ignore"):
            arm = on_arm & ((mean + base) / 2 >= options.min_mean_expression)
        ratio = np.log2((mean + pseudo) / (base + pseudo))
        excess = np.minimum(excess, ratio - (float(np.median(ratio[arm])) if arm.any() else 0.0))
    measured = [g for g in genes.find(anchors, positions.index).present if np.isfinite(excess[row[g]])]
    high = [g for g in measured if excess[row[g]] >= options.her2_log2_fold]
    enough = len(measured) >= options.her2_min_genes and HER2_GENE in measured
    return {
        "measured": measured,
        "high": high,
        "log2": {g: float(excess[row[g]]) for g in measured},
        "amplified": HER2_GENE in high and len(high) >= options.her2_min_genes if enough else None,
    }
