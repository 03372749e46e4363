"""The vocabulary of senders and receivers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nicheloop import genes, populations

ROWS = [
    # cell_type, minor, malignancy, csc_state, myeloid_class, platelet
    ("epithelial", "epithelial", "malignant", "m_csc", "not_myeloid", False),
    ("epithelial", "epithelial", "malignant", "other", "not_myeloid", False),
    ("epithelial", "epithelial", "normal", None, None, False),
    ("caf", "iCAF", "not_epithelial", None, None, False),
    ("myeloid", "macrophage_pan", "not_epithelial", None, "monocyte", False),
    ("myeloid", "LAM2_APOE", "not_epithelial", None, None, False),
    ("myeloid", "neutrophil", "not_epithelial", None, "neutrophil", False),
    ("t_nk", "treg", "not_epithelial", None, None, False),
    ("t_nk", "t_nk", "not_epithelial", None, None, False),
    ("epithelial", "epithelial", "malignant", "m_csc", None, True),
    ("platelet", "platelet", "not_epithelial", None, None, False),
    ("myeloid", "pDC", "not_epithelial", None, "not_assessable", False),
]
COLUMNS = ["cell_type", "cell_type_minor", "malignancy", "csc_state", "myeloid_class", "platelet"]


@pytest.fixture
def cells():
    return pd.DataFrame(ROWS, columns=COLUMNS)


def test_several_populations_are_those_asked_one_by_one(cells):
    one_by_one = [populations.members(name, cells) for name in populations.NAMES]
    assert populations.masks(populations.NAMES, cells).T.tolist() == [m.tolist() for m in one_by_one]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("malignant", [0, 1]),
        ("csc_high", [0]),
        ("epithelial", [0, 1, 2]),
        ("caf", [3]),
        ("icaf", [3]),
        ("mycaf", []),
        ("monocyte", [4]),  # the macrophage stage has the last word over the marker's
        ("macrophage", [5]),
        ("neutrophil", [6]),
        ("dendritic", [11]),
        ("myeloid", [4, 5, 6, 11]),
        ("t_nk", [7, 8]),
        ("t_cd4", [7]),
        ("treg", [7]),
        ("nk", []),
        ("platelet", [9, 10]),
    ],
)
def test_members(cells, name, expected):
    assert np.flatnonzero(populations.members(name, cells)).tolist() == expected


def test_platelet_barcodes_are_in_no_other_population(cells):
    platelet = populations.members("platelet", cells)
    for name in set(populations.NAMES) - {"platelet"}:
        assert not (populations.members(name, cells) & platelet).any(), name


def test_unknown_name_raises(cells):
    with pytest.raises(KeyError, match="hepatocyte"):
        populations.members("hepatocyte", cells)


def test_no_cells(cells):
    for name in populations.NAMES:
        assert populations.members(name, cells.iloc[:0]).shape == (0,)


def test_every_name_of_the_axes_is_known():
    for axis in genes.axes():
        assert set(axis.senders) | set(axis.receivers) <= set(populations.NAMES), axis.id


def test_a_malignant_cell_that_looks_like_stroma_is_no_stroma():
    """Mesenchymal cells of a sample declared malignant are typed as fibroblasts; they must not send to themselves."""
    cells = pd.DataFrame(
        {
            "cell_type": ["caf", "caf", "epithelial"],
            "cell_type_minor": ["iCAF", "iCAF", "epithelial"],
            "malignancy": ["malignant", "not_epithelial", "malignant"],
            "csc_state": ["other"] * 3,
            "myeloid_class": ["not_myeloid"] * 3,
            "platelet": [False] * 3,
        }
    )
    assert populations.members("malignant", cells).tolist() == [True, False, True]
    for name in ("caf", "icaf"):
        assert populations.members(name, cells).tolist() == [False, True, False]
    assert populations.members("epithelial", cells).tolist() == [False, False, True]
