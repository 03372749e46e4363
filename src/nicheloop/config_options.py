"""What an option of the configuration is: default, meaning, unit and reason."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def option(default: Any, what: str, *, unit: str, why: str, **bounds: Any) -> Any:
    """Declare one option: its default, what it is, its unit and the reason for the default."""
    return Field(default, description=what, json_schema_extra={"unit": unit, "why": why}, **bounds)


class Section(BaseModel):
    """A section of the configuration; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
