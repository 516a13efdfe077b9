"""The cost that is said before a study starts is what its classifier is then asked."""

from types import SimpleNamespace
from typing import Any

import pytest

from xai.core.errors import UserError
from xai.explainers.rows import open_row
from xai.study.cost import asked_of, cost_line
from xai.study.params import open_metrics


def study(images: int | None, masks: int) -> Any:
    rows = [open_row("rise", {"masks": 2000, "output": "probability", "removal": None}), open_row("random", {})]
    rows.append(open_row("classifier", {}))
    metrics = open_metrics(["removal", "localisation"], {"removal": {"masks": masks}})
    source = SimpleNamespace(labels=lambda split: range(3925))
    case = SimpleNamespace(
        params=SimpleNamespace(images=images), only=None, split="test", data=SimpleNamespace(source=source)
    )
    return SimpleNamespace(cases=[(case, metrics)], measured_rows=rows)


def test_at_paper_scale_it_is_65_787_passes_an_image_for_each_row() -> None:
    explaining, removal = asked_of(study(None, 128), 256)
    assert (explaining.name, explaining.an_image, explaining.times) == ("explaining", 2001, 3925)
    # 258 orders of 255 sizes, fewer of the sizes of which there are fewer coalitions, and the full image.
    assert (removal.name, removal.an_image, removal.times) == ("removal", 65_787, 2 * 3925)
    line = cost_line([explaining, removal])
    assert (
        line
        == "to ask: 524 million forward passes (explaining 7.85 million, removal 516 million), less what the store has"
    )
    assert cost_line([removal._replace(an_image=2.0, times=617)]).startswith("to ask: 1,234 forward passes (removal")
    assert asked_of(study(10, 128), 256)[1].times == 20


def test_a_wrong_metric_is_refused_before() -> None:
    with pytest.raises(UserError, match="masks"):
        study(None, -1)


def test_a_metric_that_explains_again_costs_a_map_for_every_variation_once() -> None:
    asked = study(10, 2)
    case, _ = asked.cases[0]
    metrics = open_metrics(["sensitivity", "randomisation"], {"sensitivity": {"draws": 3}})
    asked.cases = [(case, metrics)]
    (explaining,) = asked_of(asked, 256)
    assert explaining.an_image == (1 + 3 + 1) * 2001
