"""What an option of the configuration is: default, meaning, unit and reason."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def option(default: Any, what: str, *, unit: str, why: str, **bounds: Any) -> Any:
    """Declare one option: its default, what it is, its unit and the reason for the default."""
    return Field(default, description=what, json_schema_extra={"unit": unit, "why": why}, **bounds)


# When a barcode counts as two cells: the same three questions wherever they are asked, of whatever cells.
def mixed_share(cell: str, source: str, then: str) -> Any:
    """Share of a cell's RNA from another type."""
    what = f"share of a {cell} cell's RNA from one {source} at which it {then}"
    return option(0.15, what, unit="fraction", why="a doublet holds about half of each", gt=0, le=1)


def mixed_fold(cell: str) -> Any:
    """Fold by which the genes that show the other type stand out."""
    what = f"fold over {cell} cells of the genes that show it"
    return option(5.0, what, unit="fold", why="half a cell of the other type doubles them", gt=1)


def mixed_alpha() -> Any:
    """Level of the test for one cell."""
    what = "level of the test that a cell has more of them"
    return option(0.001, what, unit="probability", why="many cells are asked", gt=0, lt=1)


class Section(BaseModel):
    """A section of the configuration; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
