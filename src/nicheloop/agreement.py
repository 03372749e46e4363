"""Our screen beside liana's cellphonedb, on the samples of a finished run.  See docs/screen.md."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import interactions, io, pair_screen, screen, tables
from nicheloop.errors import NotAssessable, UserError

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

    from nicheloop.config_niche import Screen
    from nicheloop.interactions import Interaction

KEYS = ["ligand", "receptor", "sender", "receiver"]
PAIRS = ("single_gene", "complex")
ALPHA, Z = 0.05, 1.96  # of the comparison only: nothing is called significant by them


def liana_table(
    x: csr_matrix, symbols: Any, labels: Any, pairs: list[Interaction], options: Screen, seed: int
) -> pd.DataFrame:
    """Rows of liana's cellphonedb for the same cells, types, pairs and numbers of permutations.

    Returns
    -------
    The keys of the contract ``screen``, ``lr_means`` and ``cellphone_pvals``.
    """
    import contextlib
    import io as text
    import warnings

    import anndata as ad
    import pandas as pd

    with warnings.catch_warnings(), contextlib.redirect_stdout(text.StringIO()):
        warnings.simplefilter("ignore")  # liana's own
        import liana

        used = np.asarray(labels) != ""
        obs = pd.DataFrame(
            {"label": pd.Categorical(np.asarray(labels)[used])}, index=[str(i) for i in range(int(used.sum()))]
        )
        adata = ad.AnnData(x[used], obs=obs, var=pd.DataFrame(index=[str(s) for s in symbols]))
        found = liana.mt.cellphonedb(
            adata, groupby="label", resource=pd.DataFrame([p.names for p in pairs], columns=["ligand", "receptor"]),
            expr_prop=options.expr_prop, min_cells=options.min_cells, use_raw=False, n_perms=options.n_permutations,
            seed=seed, inplace=False, verbose=False,
        )  # fmt: skip
    found = found.rename(
        columns={"ligand_complex": "l", "receptor_complex": "r", "source": "sender", "target": "receiver"}
    )
    found = found.drop(columns=["ligand", "receptor"], errors="ignore").rename(columns={"l": "ligand", "r": "receptor"})
    return found[[*KEYS, "lr_means", "cellphone_pvals"]]


def in_matrix(pairs: list[Interaction], symbols: Any) -> list[Interaction]:
    """Pairs all of whose genes are in the matrix, under the matrix's names: liana does not resolve aliases."""
    place = pair_screen.positions(sorted({g for p in pairs for g in (*p.ligand, *p.receptor)}), symbols)
    return sorted(
        {
            interactions.Interaction(
                tuple(dict.fromkeys(str(symbols[place[g]]) for g in p.ligand)),
                tuple(dict.fromkeys(str(symbols[place[g]]) for g in p.receptor)),
            )
            for p in pairs
            if all(g in place for g in (*p.ligand, *p.receptor))
        }
    )


def compare(ours: pd.DataFrame, theirs: pd.DataFrame, n_permutations: int) -> pd.DataFrame:
    """Tabulate agreement of two tables of one sample, pairs of single genes and pairs with complexes apart.

    Parameters
    ----------
    ours
        From `pair_screen.screen` with ``method: cellphonedb``.
    theirs
        From `liana_table`.
    n_permutations
        Of both.

    Returns
    -------
    Two rows of the contract ``agreement`` without ``sample``.  Compared is the share of permutations that reach the
    score: liana's p is that share, ours adds 1 to both its parts.
    """
    import pandas as pd

    tested = ours.loc[ours["status"] == "tested", [*KEYS, "score", "n_extreme"]].copy()
    tested[KEYS] = tested[KEYS].astype(str)
    merged = tested.merge(theirs.astype(dict.fromkeys(KEYS, str)), on=KEYS, how="outer", indicator=True)
    both = merged["ligand"].str.contains(interactions.SEPARATOR) | merged["receptor"].str.contains(
        interactions.SEPARATOR
    )
    rows = []
    for kind, part in zip(PAIRS, (merged[~both], merged[both]), strict=True):
        common = part[part["_merge"] == "both"]
        row: dict[str, Any] = {
            "pairs": kind, "status": "ok", "n_ours": int((part["_merge"] != "right_only").sum()),
            "n_liana": int((part["_merge"] != "left_only").sum()), "n_common": len(common),
        }  # fmt: skip
        if len(common):
            share = common["n_extreme"].to_numpy(dtype=float) / n_permutations
            other = common["cellphone_pvals"].to_numpy(dtype=float)
            difference, pooled = share - other, (share + other) / 2
            se = np.sqrt(pooled * (1 - pooled) * 2 / n_permutations)
            z = np.divide(np.abs(difference), se, out=np.zeros_like(se), where=se > 0)
            row |= {
                "max_score_difference": float(np.abs(common["score"] - common["lr_means"]).max()),
                "mean_p_difference": float(difference.mean()), "max_p_difference": float(np.abs(difference).max()),
                "z_above_2": float((z > Z).mean()), "max_z": float(z.max()),
                "same_call": float(((share <= ALPHA) == (other <= ALPHA)).mean()),
            }  # fmt: skip
        rows.append(row)
    return pd.DataFrame(rows).reindex(columns=[c.name for c in tables.CONTRACTS["agreement"].columns if c != "sample"])


def run_agreement(results: str | Path, out: str | Path, *, options: Screen, seed: int) -> None:
    """Compare every sample of a finished run and write and print the table.

    The resource is that of the configuration, else the consensus of the installed liana; the statistic is CellPhoneDB's
    whatever ``screen.method`` says.

    Raises
    ------
    UserError
        If liana is not installed or the folder holds no finished run.
    """
    import pandas as pd

    if find_spec("liana") is None:
        raise UserError("agreement: liana is not installed here: pip install liana==1.10.0")
    results = Path(results)
    found = sorted((results / "samples").glob("*/counts.h5ad"))
    cell_types = results / "cohort" / "cell_types.parquet"
    if not found or not cell_types.exists():
        raise UserError(f"{results}: no finished run (samples/*/counts.h5ad and cohort/cell_types.parquet are needed).")
    options = options.model_copy(update={"method": "cellphonedb", "resource": options.resource or interactions.LIANA})
    pairs = interactions.read(options.resource)
    parts = []
    for path in found:
        name = path.parent.name
        try:
            _, x, symbols, labels = screen.load(path, cell_types, path.parent / "malignancy.parquet", options.labels)
            _, types, n = pair_screen.types_of(labels)
            if (n >= options.min_cells).sum() < 2:
                raise NotAssessable("too_few_types", f"fewer than two types of {options.min_cells} of {len(types)}")
            normal, known = io.lognormalise(x), in_matrix(pairs, symbols)
            ours = pair_screen.screen(normal, symbols, labels, known, options, seed=seed)
            theirs = liana_table(normal, symbols, labels, known, options, seed)
            part = compare(ours, theirs, options.n_permutations)
        except NotAssessable as err:
            part = pd.DataFrame({"pairs": PAIRS, "status": err.status, "n_ours": 0, "n_liana": 0, "n_common": 0})
        parts.append(part.assign(sample=name))
    columns = [c.name for c in tables.CONTRACTS["agreement"].columns]
    table = pd.concat([p.reindex(columns=columns).astype(object) for p in parts], ignore_index=True)
    io.write_table(table, out, "agreement")
    print(io.read_table(out).to_string(index=False))
    print(f"written: {out}")
