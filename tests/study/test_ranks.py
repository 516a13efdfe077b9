"""Ranks of rows by each metric, image by image, and the place over all of them."""

import pandas as pd
import pytest

from docs.blocks import table_of_frame
from xai.metrics.registry import Column
from xai.report.layout import TableParams, as_frame
from xai.report.sheets import as_markdown, sheet_of
from xai.report.tables import build_tables
from xai.study.ranks import PLACE, as_ranks

COLUMNS = {
    "up": Column("up", "Up", "", "higher", "%"),
    "down": Column("down", "Down", "", "lower"),
    "size": Column("size", "Size", "", None),
}
VALUES = {
    "a": {"up": [0.9, 0.5], "down": [1.0, 2.0], "size": [1.0, 1.0]},
    "b": {"up": [0.5, 0.5], "down": [2.0, 1.0], "size": [2.0, 2.0]},
    "c": {"up": [0.1, 0.1]},
}


def frame() -> pd.DataFrame:
    common = {"case": "main", "kind": "post-hoc", "model": "m", "data": "d", "source": None, "seed": 0, "split": "test"}
    lines = [
        {"explainer": name, "label": name.upper(), "metric": metric, "image": image, "value": value, "chance": 0.0}
        for name, metrics in VALUES.items()
        for metric, values in metrics.items()
        for image, value in enumerate(values)
    ]
    return pd.DataFrame([{**common, **line} for line in lines])


def test_ranks_follow_the_direction_of_each_metric_and_ties_share_theirs() -> None:
    found = as_ranks(frame(), COLUMNS).set_index(["explainer", "metric", "image"])["value"]
    assert [found[name, "up", 0] for name in "abc"] == [1, 2, 3]
    assert [found[name, "up", 1] for name in "abc"] == [1.5, 1.5, 3]
    assert [found[name, "down", image] for name in "ab" for image in (0, 1)] == [1, 2, 2, 1]
    assert "size" not in found.index.get_level_values("metric")
    # Of a: by `up` at 0 and 25 % of the way to the last of three, by `down` at 0 and 100 % of two.
    places = {name: found[name, PLACE.name, -1] for name in "abc"}
    assert places == pytest.approx({"a": (12.5 + 50) / 2, "b": (37.5 + 50) / 2, "c": 100})


def test_a_ranked_table_begins_with_the_best_row_and_is_the_same_from_its_file() -> None:
    params = TableParams(title="T", ranked=True, drop_empty=True)
    (table,) = build_tables(frame().iloc[::-1], params, COLUMNS)
    assert [column.name for column in table.columns] == [PLACE.name, "up", "down"]
    assert [row.name for row in table.sections[0].rows] == ["a", "b", "c"]
    assert table.cell("a", "up").mean == 1.25
    assert table.cell("a", "up").mark == "best"
    again = table_of_frame(as_frame(table), table.title, params, COLUMNS, table.notes)
    assert as_markdown(sheet_of(again)) == as_markdown(sheet_of(table))
