"""What labels of an annotation that came with the input mean in the vocabulary of cell types.  See docs/annotate.md.

The table of names is ``resources/annotation_labels.yaml``.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import genes as identity
from nicheloop import resources

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

FROM_INPUT, NOT_UNDERSTOOD = "from_input", "label_not_understood"


@cache
def _table() -> tuple[dict[str, tuple[str, str]], tuple[tuple[re.Pattern[str], str], ...]]:
    """Whole labels -> (major, minor or ""); patterns and their major types."""
    content = resources.yaml("annotation_labels.yaml")
    whole = {label: (types[0], types[1] if len(types) > 1 else "") for label, types in content["labels"].items()}
    major, minor = identity.markers("major"), identity.markers("minor")
    own = {name: (name, "") for name in major} | {name: (m.parent or "", name) for name, m in minor.items()}
    known = {_plain(name): types for name, types in own.items() if types[0] in major}
    return {**known, **whole}, tuple((re.compile(pattern), name) for pattern, name in content["words"])


def _plain(label: str) -> str:
    return re.sub(r"\s+", " ", label.lower().replace("_", " ")).strip()


def meaning(label: str) -> tuple[str, str]:
    """Major and minor type a label names; "" for what it does not name.

    The vocabulary's own names, then whole labels known by name, then words found in the label.
    """
    whole, words = _table()
    plain = _plain(label)
    if plain in whole:
        return whole[plain]
    return next((name for pattern, name in words if pattern.search(plain)), ""), ""


def use_input(table: pd.DataFrame, given: NDArray[Any], posterior: pd.DataFrame) -> pd.DataFrame:
    """Give cells the types of the annotation that came with the input.

    Parameters
    ----------
    table
        (cells,) computed types: ``cell_type``, ``cell_type_minor``, ``confidence``, ``margin``, ``runner_up``,
        ``cell_type_reason``.
    given
        (cells,) labels; NA or "" where there is none.
    posterior
        (cells, major types) probabilities of the computed types.

    Returns
    -------
    A new table.  Cells whose label is understood have its type and the reason ``from_input``; their confidence is the
    computed probability of that type, so that a low one points at a label the RNA does not bear out.  A minor type that
    the label does not name is the computed one where it fits.  Cells whose label is not understood keep what was
    computed, with the reason ``label_not_understood`` unless they are unresolved; cells without a label change nothing.
    """
    import pandas as pd

    out = table.copy()
    has = np.array([not pd.isna(g) and str(g) != "" for g in given], dtype=bool)
    labels = [str(g) if h else "" for g, h in zip(given, has, strict=True)]
    known = {label: meaning(label) for label in set(labels)}
    major = np.array([known[label][0] for label in labels], dtype=object)
    minor = np.array([known[label][1] for label in labels], dtype=object)
    understood = has & (major != "")
    parents = {name: m.parent for name, m in identity.markers("minor").items()}
    computed = table["cell_type_minor"].to_numpy(dtype=object)
    fits = np.array([parents.get(c) == m for c, m in zip(computed, major, strict=True)], dtype=bool)
    minor = np.where(minor != "", minor, np.where(fits, computed, major))

    names = np.array(posterior.columns, dtype=object)
    p = posterior.to_numpy(dtype=np.float64)
    own = names[None, :] == major[:, None]
    mine = np.where(own, p, 0.0).sum(axis=1)
    others = np.where(own, -1.0, p)
    second = others.argmax(axis=1)
    best_other = np.maximum(others.max(axis=1, initial=0.0), 0.0)

    reason = table["cell_type_reason"].to_numpy(dtype=object)
    kept = np.where(has & (reason == "ok"), NOT_UNDERSTOOD, reason)
    out["cell_type"] = np.where(understood, major, table["cell_type"])
    out["cell_type_minor"] = np.where(understood, minor, computed)
    out["confidence"] = np.where(understood, mine, table["confidence"])
    out["margin"] = np.where(understood, np.maximum(mine - best_other, 0.0), table["margin"])
    out["runner_up"] = np.where(understood, names[second], table["runner_up"])
    out["cell_type_reason"] = np.where(understood, FROM_INPUT, kept)
    return out
