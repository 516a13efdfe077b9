"""Figures over pairs of data sets: what their marks and titles say."""

import numpy as np
import pytest

from tests.study.test_pairs import COLUMNS, PAIRS, measured
from xai.core.errors import UserError
from xai.report.figures import Source, draw
from xai.study.pairs import correlation, of_pairs

PANEL = {"x": {"metric": "near"}, "y": {"metric": "far"}, "paper": "", "sign": 1}


def test_each_pair_is_a_mark_at_its_values_over_those_of_the_reference():
    source = Source(measured(good=PAIRS[:11]), columns=COLUMNS)
    chart = draw(
        {"figure": "pairs", "rows": ["proposed"], "across": "mcc", "up": "e_rmse", "controls": ["ft_target", "nobody"]},
        source,
    )
    first, second, third = chart.axes
    marks = np.concatenate([line.get_xydata() for line in first.get_lines() if line.get_marker() != "None"])
    assert marks.shape == (20, 2)
    np.testing.assert_allclose(marks[:, 0], 0.9)
    assert (marks[:, 1] < 1).sum() == 11
    assert "better in 11 of 20" in first.texts[0].get_text()
    assert "ahead of it in 11 of 20" in second.texts[0].get_text()
    assert "was not measured" in third.texts[0].get_text()
    with pytest.raises(UserError, match="without rows"):
        draw("pairs", source)


def test_a_relation_is_titled_with_its_correlation_and_drawn_with_its_line():
    source = Source(measured(), columns=COLUMNS)
    (axes,) = draw({"figure": "relations", "panels": [PANEL]}, source).axes
    means = of_pairs(source.scores, COLUMNS).groupby(level=["source", "data"]).mean()
    x, y = means["near", "proposed"], means["far", "proposed"]
    found = correlation(x, y)
    assert f"r = {found.r:.2f}" in axes.get_title()
    assert f"p (sets) = {found.permuted:.2g}" in axes.get_title()
    (line,) = (line for line in axes.get_lines() if line.get_color() == "purple")
    slope, start = np.polyfit(x, y, 1)
    np.testing.assert_allclose(line.get_ydata(), start + slope * np.asarray(line.get_xdata()))
    with pytest.raises(UserError, match="without panels"):
        draw("relations", source)
