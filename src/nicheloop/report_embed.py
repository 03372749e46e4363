"""What the report page carries for JavaScript: libraries, data of figures, rows of tables; never fetched.

BokehJS comes out of bokeh's wheel in parts: the core, WebGL and the plotting interface are embedded, widgets, tables
and MathJax are not.  DataTables comes out of itables' wheel, which ships it as one module without any dependency.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

BOKEH_PARTS = ("bokeh.min.js", "bokeh-gl.min.js", "bokeh-api.min.js")
LEVEL = 6  # of compression: 9 takes three times as long for a hundredth of the bytes
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def packed(data: bytes) -> str:
    """Gzip, then base64: text that cannot end a script element.  The same bytes give the same text."""
    return base64.b64encode(gzip.compress(data, LEVEL, mtime=0)).decode("ascii")


def json_bytes(value: Any) -> bytes:
    """Compact JSON; NaN is an error."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")


def neutral(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula, behind an apostrophe; numbers and other texts as they are."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return "'" + value
    return value


def csv_bytes(table: pd.DataFrame) -> bytes:
    """A table as CSV for spreadsheets: NA for missing values, formulas neutralised."""
    out = table.copy()
    for name in out.columns:
        if out[name].dtype.kind not in "fiub":
            out[name] = [neutral(v) for v in out[name].astype(object)]
    out.columns = [neutral(str(c)) for c in out.columns]
    text = out.to_csv(index=False, na_rep="NA", float_format="%.6g", lineterminator="\n")
    return str(text).encode("utf-8")


def libraries() -> dict[str, str]:
    """The libraries the page runs, packed: id -> text."""
    import bokeh
    import itables

    scripts = Path(bokeh.__file__).parent / "server" / "static" / "js"
    tables = Path(itables.__file__).parent / "html"
    return {
        "lib-bokeh": packed(b"\n;\n".join((scripts / part).read_bytes() for part in BOKEH_PARTS)),
        "lib-tables": packed((tables / "dt_bundle.js").read_bytes()),
        "lib-tables-style": packed((tables / "dt_bundle.css").read_bytes()),
    }


def policy(*scripts: str) -> str:
    """Content-Security-Policy of the page: nothing is fetched, only these scripts and what they unpack may run."""
    sums = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode('utf-8')).digest()).decode('ascii')}'" for s in scripts
    )
    allowed = f"{sums} blob:" if scripts else "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
