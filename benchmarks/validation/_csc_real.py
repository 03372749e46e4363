"""CSC calls on cell lines of known phenotype, on the demo cohort with its planted states, and on other cell types."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.validation import _csc_simulation as sim
from benchmarks.validation import harness
from benchmarks.validation.harness import Claim, Result

if TYPE_CHECKING:
    import pandas as pd

HIGH = ("BT549", "HS578T", "MDAMB436", "MCF12A")  # CD44-high/CD24-low
REVERSE = ("MCF7", "T47D", "BT474", "AU565", "MDAMB361")
ALDH = ("CAL851", "HCC1143", "DU4475", "JIMT1")  # ALDH1A3-high
FEW = 20  # eligibility of 30 cells a line
CONTROLS = ("t_nk", "caf", "pvl")


def auroc(a: Any, b: Any) -> float:
    """Probability that a value of `a` exceeds one of `b`, ties counted half."""
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(a, b).statistic / (len(a) * len(b)))


def cell_lines(data: Path) -> pd.DataFrame:
    """Posterior and status of every cell of the 31 lines, declared malignant, as one cohort; minimum 20 cells."""
    import anndata as ad
    import pandas as pd

    from nicheloop import csc, csc_rates, genes
    from nicheloop.config_states import Csc

    options = Csc(min_malignant=FEW)
    adata = ad.read_h5ad(data / "cell_lines/BC_cell_lines_930.h5ad")
    symbols = np.asarray(genes.resolve_features(list(adata.var_names)).symbols)
    table = pd.DataFrame(
        {
            "cell_id": np.asarray(adata.obs_names),
            "line": adata.obs["cell_line"].astype(str).to_numpy(),
            "compartment": "malignant",
            "n_counts": np.asarray(adata.X.sum(axis=1), dtype=np.float64).ravel(),
        }
    )
    for g in csc_rates.GENES:
        table[f"umi_{g}"] = np.asarray(adata.X[:, np.flatnonzero(symbols == g)].sum(axis=1), dtype=np.float64).ravel()
    parts = [p for _, p in table.groupby("line", sort=True)]
    rates = csc_rates.estimate_rates(parts, [{}] * len(parts), options=options)
    out = []
    for part in parts:
        here = csc_rates.rates_in_sample(part, rates, options=options)
        m, a = csc.assess_m_csc(part, here, options=options), csc.assess_aldh1a3(part, here, options=options)
        part = part.assign(status=m.status, aldh_status=a.status)
        for column, found in (("prob", m), ("aldh_prob", a)):
            prob = found.prob if found.prob is not None else found.shallow[1] if found.shallow is not None else np.nan
            part[column] = prob
        out.append(part)
    return pd.concat(out, ignore_index=True)


def lines_claims(result: Result, cells: pd.DataFrame | None) -> None:
    """Cell lines by name."""
    if cells is None:
        for text in (
            "Cell lines: AUROC of the posterior, CD44-high/CD24-low against the reverse",
            "Cell lines: ALDH1A3-high lines by name",
        ):
            result.claims.append(harness.not_run(text, ">= 0.99"))
        return
    wide = cells.assign(
        called=cells["prob"] > 0.8,
        counted=(cells["umi_CD44"] > 0) & (cells["umi_CD24"] == 0),
        aldh_called=cells["aldh_prob"] > 0.8,
    ).groupby("line", sort=True)
    table = wide.agg(
        cells=("prob", "size"),
        median_umi=("n_counts", "median"),
        status=("status", "first"),
        posterior=("prob", "median"),
        called=("called", "mean"),
        counted=("counted", "mean"),
        aldh_status=("aldh_status", "first"),
        aldh_called=("aldh_called", "mean"),
    ).reset_index()
    kind = {
        **dict.fromkeys(HIGH, "CD44-high/CD24-low"),
        **dict.fromkeys(REVERSE, "the reverse"),
        **dict.fromkeys(ALDH, "ALDH1A3-high"),
    }
    table.insert(1, "known as", table["line"].map(kind))
    shown = table[table["known as"].notna()].rename(
        columns={
            "median_umi": "median UMI",
            "posterior": "median posterior",
            "called": "P > 0.8",
            "counted": "CD44 > 0 and CD24 = 0",
            "aldh_status": "ALDH1A3 status",
            "aldh_called": "ALDH1A3 P > 0.8",
        }
    )
    result.tables.append(("Cell lines of known phenotype (30 cells each, minimum 20; 31 lines as one cohort)", shown))
    result.figures["cell_lines"] = table.to_dict("records")
    prob = {
        name: cells.loc[cells["line"].isin(names), "prob"] for name, names in (("high", HIGH), ("reverse", REVERSE))
    }
    known = {k: v.dropna() for k, v in prob.items()}
    value = auroc(known["high"], known["reverse"]) if min(map(len, known.values())) else float("nan")
    missing = sum(len(prob[k]) - len(known[k]) for k in prob)
    shallow = sorted(table.loc[table["line"].isin([*HIGH, *REVERSE]) & (table["status"] != "ok"), "line"])
    result.claims.append(
        Claim(
            f"Cell lines: AUROC of the per-cell posterior, {', '.join(HIGH)} against {', '.join(REVERSE)}",
            f"{value:.4f} ({len(known['high'])} against {len(known['reverse'])} cells, {missing} without a posterior; "
            "status other than ok: "
            f"{', '.join(shallow) or 'none'})",
            ">= 0.99",
            bool(value >= 0.99),
        )
    )
    by = table.set_index("line")
    right = [x for x in HIGH if by.at[x, "status"] == "ok" and by.at[x, "posterior"] > 0.8]
    reverse = [x for x in REVERSE if by.at[x, "posterior"] < 0.2]
    result.claims.append(
        Claim(
            "Cell lines: each comes out as known (median posterior > 0.8, or < 0.2)",
            f"CD44-high/CD24-low: {', '.join(right) or 'none'}; the reverse: {', '.join(reverse) or 'none'}",
            "all 4 and all 5",
            len(right) == len(HIGH) and len(reverse) == len(REVERSE),
        )
    )
    rule = cells.loc[cells["line"].isin(HIGH)]
    share = float(((rule["umi_CD44"] > 0) & (rule["umi_CD24"] == 0)).mean())
    result.claims.append(
        Claim(
            "Cell lines: cells of the four lines that CD44 > 0 and CD24 = 0 finds, beside P > 0.8",
            f"{share:.0%} against {(rule['prob'] > 0.8).mean():.0%}",
            "none set",
            None,
        )
    )
    share_high, said = by["aldh_called"], sorted(set(by.loc[list(ALDH), "aldh_status"]))
    found = [x for x in ALDH if by.at[x, "aldh_called"] >= 0.5]
    rest = by.loc[[x for x in by.index if x not in ALDH], "aldh_called"]
    result.claims.append(
        Claim(
            "Cell lines: CAL851, HCC1143, DU4475 and JIMT1 are ALDH1A3-high (most cells with P > 0.8)",
            f"{', '.join(f'{x} {share_high[x]:.0%}' for x in ALDH)}; "
            f"of the others {int((rest >= 0.5).sum())} of {len(rest)} lines too; status {', '.join(said)}",
            "all 4",
            len(found) == len(ALDH),
        )
    )


def absent(result: Result, seed: int) -> None:
    """A reference without CD24 must give no answer."""
    from nicheloop import csc, csc_rates
    from nicheloop.config_states import Csc

    rng = np.random.default_rng([seed, 79])
    table = sim.tumour(sim.weights_of("10 %, associated"), 20_000, 600, rng).assign(umi_CD24=np.nan)
    rates = csc_rates.estimate_rates([table], [{}], options=Csc())
    states, found, _ = csc.call_cells(table, rates, options=Csc())
    ok = found.status == "cd24_absent_from_reference" and states["m_csc_prob"].isna().all()
    result.claims.append(
        Claim("A reference without CD24: no answer", found.status, "cd24_absent_from_reference", bool(ok))
    )


def demo(folder: Path, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Demo cohort with its true types and malignancy: fractions with intervals, and the caller on other types."""
    import pandas as pd

    from benchmarks.validation import _cohort
    from nicheloop import csc, csc_patients, csc_rates, io
    from nicheloop.config_states import Csc

    options = Csc()
    cohort = _cohort.demo(folder, seed, {})
    known = _cohort.truth(cohort)
    tables = {}
    for sample in cohort.samples:
        source = io.Counts(cohort.path("counts", sample))
        mine = known[(known["sample"] == sample) & ~known["doublet"].astype(bool)]
        mine = mine[mine.index.isin(source.cell_ids)]
        x = source.matrix(cells=mine.index)
        malignant = mine["malignant"].astype(bool).to_numpy()
        table = pd.DataFrame(
            {
                "cell_id": mine.index,
                "compartment": np.where(malignant, "malignant", mine["cell_type"]),
                "n_counts": np.asarray(x.sum(axis=1)).ravel(),
                "csc": mine["csc_state"].to_numpy() if "csc_state" in mine else None,
            }
        ).reset_index(drop=True)
        names = list(source.genes)
        for g in csc_rates.GENES:
            table[f"umi_{g}"] = x[:, names.index(g)].toarray().ravel().astype(float) if g in names else np.nan
        if malignant.any():
            tables[sample] = table
    rates = csc_rates.estimate_rates(list(tables.values()), [{}] * len(tables), options=options)
    rows, checks = [], []
    for i, (sample, table) in enumerate(tables.items()):
        states, _, _ = csc.call_cells(table, rates, options=options)
        row = csc_patients.summarise(table, states, rates, options=options, rng=np.random.default_rng([seed, 80, i]))
        cells = table[table["compartment"] == "malignant"]
        planted = float(cells["csc"].isin(["m_csc", "mcsc", "csc", "both", "double"]).mean())
        rows.append(
            {
                "sample": sample,
                "planted": planted,
                **{k: row[k] for k in ("status", "m_csc_fraction", "m_csc_low", "m_csc_high", "naive_fraction")},
            }
        )
        checks += [{"sample": sample, **c} for c in csc_patients.controls(table, rates, options=options)]
        checks.append(
            {
                "sample": sample,
                "cell_type": "malignant",
                "n_cells": len(cells),
                "fraction_called": float((states["csc_state"] == "m_csc").sum() / len(cells)),
            }
        )
    return rows, checks


def demo_claims(result: Result, rows: list[dict[str, Any]], checks: list[dict[str, Any]]) -> None:
    """Planted fractions, and the control table."""
    import pandas as pd

    table, control = pd.DataFrame(rows), pd.DataFrame(checks)
    good = table[table["status"] == "ok"]
    inside = int(((good["m_csc_low"] <= good["planted"]) & (good["planted"] <= good["m_csc_high"])).sum())
    p, holds = harness.judge_rate(inside, len(good), 0.95, side="less")
    result.claims.append(
        Claim(
            "Demo: planted CD44+/CD24- fraction inside the interval",
            f"{inside} of {len(good)} assessable tumours (p = {p:.2g})",
            "95 % (exact test, one-sided, p < 0.001 fails)",
            holds and len(good) > 0,
        )
    )
    result.tables.append(("Demo: planted and estimated CD44+/CD24- fraction", table))
    pooled = (
        control.dropna(subset=["fraction_called"])
        .groupby("cell_type")
        .agg(
            samples=("sample", "nunique"),
            cells=("n_cells", "sum"),
            lowest=("fraction_called", "min"),
            median=("fraction_called", "median"),
            highest=("fraction_called", "max"),
        )
        .reset_index()
    )
    result.tables.append(
        ("Control: what the caller says of cells that cannot be CSC (why only malignant cells are called)", pooled)
    )
    result.figures["controls"], result.figures["demo"] = pooled.to_dict("records"), table.to_dict("records")
    by = pooled.set_index("cell_type")["median"]
    said = ", ".join(f"{t} {by[t]:.0%}" for t in (*CONTROLS, "malignant") if t in by)
    result.claims.append(
        Claim(
            "Control: T cells, CAF and PVL would be called in large part",
            said,
            "more than of malignant cells",
            all(t in by and by[t] > by["malignant"] for t in CONTROLS),
        )
    )
