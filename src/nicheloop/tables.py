"""Tables against their contracts: cast, checked before they are written, and described in ``docs/outputs.md``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

# every module of contracts enters its tables into the registry
from nicheloop import contracts, contracts_cells, contracts_niche, contracts_run, contracts_states, lean  # noqa: F401
from nicheloop.contracts import DTYPES, Column, ContractError

if TYPE_CHECKING:
    import pandas as pd

CONTRACTS = contracts.CONTRACTS


def _categories_of_text(values: pd.Series) -> bool:
    import pandas as pd

    return isinstance(values.dtype, pd.CategoricalDtype) and all(isinstance(c, str) for c in values.cat.categories)


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The table with categories written out."""
    import pandas as pd

    return table.astype({c: pd.StringDtype() for c in table.columns if isinstance(table[c].dtype, pd.CategoricalDtype)})


def _series(values: pd.Series, column: Column, table: str) -> pd.Series:
    import pandas as pd

    if column.kind == "float" and values.dtype == np.float64:
        return values
    if column.kind == "str" and _categories_of_text(values):
        return values
    try:
        if column.kind in ("int", "float"):
            values = pd.to_numeric(values)
        # a dtype given by name is looked up among all that are registered, for every column anew
        out = values.astype(pd.StringDtype() if column.kind == "str" else DTYPES[column.kind])
    except (TypeError, ValueError) as err:
        raise ContractError(f"table '{table}', column '{values.name}': not {column.kind}: {err}") from None
    return out.astype("float64") if column.kind == "float" else out


def _keeps(table: pd.DataFrame, name: str, columns: dict[str, Column]) -> bool:
    """Whether a table of the right dtypes keeps its contract, as `schema` would say, which also says where not."""
    import pandas as pd

    for column_name, column in columns.items():
        values = table[column_name]
        if column.kind == "float":
            values = values.to_numpy()
            known = ~np.isnan(values)
        else:
            known = values.notna()
        whole = bool(known.all())
        if not (whole or column.na):
            return False
        present = values if whole else values[known]
        if column.allowed and not set(pd.unique(present)) <= set(column.allowed):
            return False
        if column.low is not None and not bool((present >= column.low).all()):
            return False
        if column.high is not None and not bool((present <= column.high).all()):
            return False
    return not table.duplicated(subset=list(CONTRACTS[name].key)).any()


def schema(name: str, columns: Iterable[str]) -> Any:
    """Build the pandera schema of a contract for a table with these columns."""
    import pandera.pandas as pa

    checks = {}
    for column_name in columns:
        column = column_of(name, column_name)
        rules = []
        if column.allowed:
            rules.append(pa.Check.isin(column.allowed))
        if column.low is not None:
            rules.append(pa.Check.ge(column.low))
        if column.high is not None:
            rules.append(pa.Check.le(column.high))
        checks[column_name] = pa.Column(DTYPES[column.kind], checks=rules, nullable=bool(column.na))
    return pa.DataFrameSchema(checks, unique=list(CONTRACTS[name].key), strict=True)


def column_of(name: str, column_name: str) -> Column:
    """Return the contract's column that a table column belongs to."""
    import re

    contract = CONTRACTS[name]
    for column in contract.columns:
        if column.name == column_name or (column.pattern and re.fullmatch(column.name, column_name)):
            return column
    raise ContractError(f"table '{name}': column '{column_name}' is not in its contract.")


def conform(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Cast a table to its contract and check it.

    Parameters
    ----------
    table
        Rows in any column order; the index is dropped.
    name
        Key of `CONTRACTS`.

    Returns
    -------
    A new table with the contract's column order and dtypes.

    Raises
    ------
    ContractError
        On a missing or unknown column, a wrong type or value, an NA that is not allowed or a repeated key.
    """
    return _as_text(checked(table, name)).copy()


def checked(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """`conform`, to be written only: text given as categories stays so, and columns may be those of `table`."""
    import pandas as pd

    contract = CONTRACTS[name]
    missing = [c.name for c in contract.columns if not c.pattern and c.name not in table.columns]
    if missing:
        raise ContractError(f"table '{name}': missing columns {missing}.")
    rank = {id(c): i for i, c in enumerate(contract.columns)}
    belongs = {c: column_of(name, c) for c in table.columns}
    belongs = dict(sorted(belongs.items(), key=lambda item: rank[id(item[1])]))
    cast = {c: _series(table[c], column, name) for c, column in belongs.items()}
    out = pd.DataFrame(cast, copy=False, index=table.index)
    out.index = pd.RangeIndex(len(out))
    if _keeps(out, name, belongs):
        return out
    with lean.without("hypothesis"):  # loaded with the first table that breaks its contract
        import pandera.errors

        try:
            schema(name, belongs).validate(_as_text(out), lazy=True)
        except pandera.errors.SchemaErrors as err:
            cases = err.failure_cases.head(5)[["column", "check", "failure_case"]].to_string(index=False)
            raise ContractError(f"table '{name}' breaks its contract:\n{cases}") from None
    return out


def empty(name: str) -> pd.DataFrame:
    """A table of the contract without rows (pattern columns are left out)."""
    import pandas as pd

    columns = [c for c in CONTRACTS[name].columns if not c.pattern]
    return pd.DataFrame({c.name: pd.Series([], dtype=DTYPES[c.kind]) for c in columns})


def outputs_markdown() -> str:
    """Text of ``docs/outputs.md``."""
    lines = [
        "# Outputs",
        "",
        "Generated from `src/nicheloop/contracts_*.py` by `nicheloop outputs --write`. Paths are below the results "
        "folder.",
        "Parquet tables carry the stage's status in their metadata; the same is in `cohort/status.tsv`.",
    ]
    for contract in CONTRACTS.values():
        lines += ["", f"## `{contract.path}`", "", f"{contract.what[0].upper()}{contract.what[1:]}. "]
        lines[-1] += f"Key: {', '.join(f'`{k}`' for k in contract.key)}."
        lines += ["", "| column | type | what | unit | allowed | NA means |", "|---|---|---|---|---|---|"]
        for c in contract.columns:
            label = f"`{c.name}`" + (" (pattern)" if c.pattern else "")
            bounds = f"{'' if c.low is None else f'{c.low:g}'} to {'' if c.high is None else f'{c.high:g}'}"
            allowed = ", ".join(c.allowed) or ("" if c.low is None and c.high is None else bounds)
            cells = [label, c.kind, c.what, c.unit, allowed, c.na or "not allowed"]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
