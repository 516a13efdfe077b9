"""SALVAGE's Tables 1 to 4: one table for each data set."""

from collections.abc import Sequence

from xai.reports.data_tables import data_tables
from xai.reports.removal_roles import SCHEME
from xai.reports.tables import Table
from xai.results import Result

FAITHFULNESS = ("srg", "r_srg", "rma", "rra")
RANKED = ("lif", "mif")
DRAWN = ("r_lif", "r_mif")
POINTING = ("pointing_game", "grid_pointing")
CLASSIFICATION = ("accuracy", "agreement", "precision", "recall", "f1", "mcc")
"""Columns of Tables 1, 2 and 3, two that the paper does not have, and those of Table 4."""


def removal_tables(results: Sequence[Result], metrics: Sequence[str]) -> list[Table]:
    """A table for each data set, see `data_tables`; the likelihood of masks is no row of it."""
    return data_tables(results, metrics, SCHEME)
