"""The tables of Learn to Rank: one for each data set."""

from collections.abc import Sequence
from dataclasses import replace

from xai.reports.data_tables import data_tables
from xai.reports.ranking_roles import REFERENCES, SCHEME
from xai.reports.tables import Table
from xai.results import Result

PREDICTED = ("deletion_auc", "insertion_auc", "difference_auc")
TRUE = ("deletion_auc_true", "insertion_auc_true", "difference_auc_true")
MAIN = (*PREDICTED, *TRUE, "class_correlation", "seconds_per_image")
ALONE = tuple(f"{kind}_auc_{name}" for kind in ("deletion", "insertion") for name in REFERENCES)
ALONE_TRUE = tuple(f"{kind}_auc_true_{name}" for kind in ("deletion", "insertion") for name in REFERENCES)
LOCALISATION = ("pointing_game", "rra")
"""Columns of the main table, of each reference alone, and of where the object is."""


def ranking_tables(results: Sequence[Result], metrics: Sequence[str]) -> list[Table]:
    """A table for each data set, see `data_tables`; the time of a map, a parameter, is a column too."""
    return data_tables([_timed(result) for result in results], metrics, SCHEME)


def _timed(result: Result) -> Result:
    seconds = {name: result.params[name] for name in ("seconds_per_image",) if name in result.params}
    return replace(result, metrics=result.metrics | seconds)
