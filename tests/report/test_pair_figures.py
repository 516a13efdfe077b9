"""Figures over pairs of data sets, and over passes: what their marks and titles say."""

import numpy as np
import pandas as pd
import pytest

from tests.study.frames import frame, lines
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
    assert "better in 11 of 20" in first.get_title()
    assert "ahead of it in 11 of 20" in second.get_title()
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


def test_rows_are_drawn_over_what_they_cost_and_others_as_levels():
    parts, costs = [], []
    for seed in (0, 1):
        for row, value, passes in (("shap_10", 0.9, 12), ("shap_100", 0.3, 102), ("one", 0.6, 1)):
            parts.append(lines(row, "e_rmse", [value, value + 0.1 * seed], seed))
            costs.append({"explainer": row, "passes": passes})
    source = Source(frame(*parts), costs=pd.DataFrame(costs), columns=COLUMNS)
    wanted = {"figure": "budget", "metrics": ["e_rmse", "mif"], "lines": [{"rows": ["shap_*"], "label": "SHAP"}]}
    first, second = draw({**wanted, "levels": [{"rows": ["one"], "label": "one pass"}]}, source).axes
    found = {line.get_label(): np.asarray(line.get_xydata(), dtype=float) for line in first.get_lines()}
    roots = [(value + np.sqrt((value**2 + (value + 0.1) ** 2) / 2)) / 2 for value in (0.9, 0.3, 0.6)]
    np.testing.assert_allclose(found["SHAP"], [[12, roots[0]], [102, roots[1]]])
    np.testing.assert_allclose(found["one pass"][:, 1], roots[2])
    assert first.get_xscale() == "log"
    assert not second.get_lines()
    with pytest.raises(UserError, match="no e_rmse or mif of one at two costs"):
        draw({**wanted, "lines": [{"rows": ["one"]}]}, source)
