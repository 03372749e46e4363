"""Which published inhibitors act on which axis, beside how often the axis could be tested: facts, never advice."""

from __future__ import annotations

from nicheloop import resources
from nicheloop.report_data import Data
from nicheloop.report_page import Block, Page, columns, heading, text


def drug_blocks(d: Data, page: Page) -> list[Block]:
    """A short sourced table; the last columns say what this cohort can tell of the axis."""
    import pandas as pd

    axes = d.table("axes")
    rows = []
    for drug in resources.yaml("inhibitors.yaml"):
        mine = axes[axes["axis"].isin(drug["axes"])]
        rows.append(
            {
                **{k: drug[k] for k in ("drug", "kind", "target", "status")},
                "axes": ", ".join(drug["axes"]).replace("_", " "),
                "source": f"doi.org/{drug['doi']}",
                "tested": float(mine["n_assessable"].max()) if len(mine) else float("nan"),
                "significant": float(mine["n_significant"].max()) if len(mine) else float("nan"),
            }
        )
    return [
        heading("Which published inhibitors act on these axes?"),
        text(
            "Facts from publications, for orientation. Nothing here is advice, and RNA of an axis says nothing about "
            "whether "
            "a drug against it would help a patient."
        ),
        page.table(
            "inhibitors",
            pd.DataFrame(rows),
            columns(
                "drug | kind | target | axes: axis | status: status in the source | source | tested # tumours tested "
                "here | "
                "significant # of them significant"
            ),
            "Published inhibitors by axis.",
            "Last columns: the pair of types of these axes that most tumours could be tested for, and the largest "
            "number of "
            "tumours in which a pair is significant.",
        ),
    ]
