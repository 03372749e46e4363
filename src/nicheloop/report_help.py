"""How to read each figure, for a newcomer: shown behind its question mark."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def words() -> dict[str, str]:
    """Words by the name of a figure, or by what its name begins with."""
    import yaml

    return dict(yaml.safe_load((files("nicheloop") / "templates" / "help.yaml").read_text("utf-8")))


def help_for(name: str) -> str:
    """Words for a figure: those of its name, else of the longest name it begins with; empty where there are none."""
    found = [k for k in words() if name == k or name.startswith(k + "_")]
    return words()[max(found, key=len)] if found else ""
