"""Load a library without what it would load besides: hundreds of jobs pay for every import."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without(*modules: str) -> Iterator[None]:
    """Hide optional modules while a library that can do without them is imported; those loaded already stay.

    pandera loads hypothesis where it is installed (0.06 s), igraph matplotlib's pyplot (0.4 s); neither is used.
    """
    hidden = [m for m in modules if m not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: the import fails, and is expected to
    try:
        yield
    finally:
        for module in hidden:
            sys.modules.pop(module, None)
