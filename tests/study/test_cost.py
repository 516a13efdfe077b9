"""The cost that is said before a study starts is what its classifier is then asked."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.explainers.context import Context
from xai.explainers.rows import load_row, open_row
from xai.games import asked_at_once
from xai.study import cost
from xai.study.cost import Asked, asked_of, cost_line, say_cost, seconds_a_pass
from xai.study.study import open_metrics


def study(images: int, masks: int) -> Any:
    rows = [open_row("rise", {"masks": 2000, "output": "probability", "removal": None}), open_row("random", {})]
    rows.append(open_row("classifier", {}))
    metrics = open_metrics(["removal", "localisation"], {"removal": {"masks": masks}})
    case = SimpleNamespace(rows=range(images), split="test")
    return SimpleNamespace(cases=[(case, metrics)], measured_rows=rows)


def test_at_paper_scale_it_is_65_787_passes_an_image_for_each_row() -> None:
    explaining, removal = asked_of(study(3925, 128), 256)
    assert (explaining.name, explaining.an_image, explaining.times) == ("explaining", 2001, 3925)
    # 258 orders of 255 sizes, fewer of the sizes of which there are fewer coalitions, and the full image.
    assert (removal.name, removal.an_image, removal.times) == ("removal", 65_787, 2 * 3925)
    line = cost_line([explaining, removal])
    assert (
        line
        == "to ask: 524 million forward passes (explaining 7.85 million, removal 516 million), less what the store has"
    )
    assert cost_line([removal._replace(an_image=2.0, times=617)]).startswith("to ask: 1,234 forward passes (removal")
    assert cost_line([removal._replace(an_image=999.7e3, times=1000)]).startswith("to ask: 1,000 million")
    assert asked_of(study(10, 128), 256)[1].times == 20


def test_a_metric_that_explains_again_costs_a_map_for_every_variation_once() -> None:
    asked = study(10, 2)
    case, _ = asked.cases[0]
    metrics = open_metrics(["sensitivity", "randomisation"], {"sensitivity": {"draws": 3}})
    asked.cases = [(case, metrics)]
    (explaining,) = asked_of(asked, 256)
    assert explaining.an_image == (1 + 3 + 1) * 2001


def test_it_is_that_of_the_split() -> None:
    asked, own = study(10, 2), {"output": "logit", "removal": None}
    asked.measured_rows = [open_row("kernel_shap", {"coalitions": 128, "evaluation_coalitions": 256, **own})]
    assert asked_of(asked, 256)[0].an_image == 258


def test_a_row_that_is_made_from_another_costs_what_that_one_does() -> None:
    asked = study(10, 2)
    case: Any = Context({"grad_cam": load_row("grad_cam")}, model=SimpleNamespace(classes=tuple("abcde")))
    asked.cases, asked.measured_rows = [(case, [])], [load_row("mean_over_classes")]
    assert asked_of(asked, 9)[0].an_image == 5


IMAGES = torch.zeros(1, 3, 224, 224)


def test_the_cost_is_said_where_it_is_worth_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cost, "seconds_a_pass", lambda *_: 0.02)
    say_cost([Asked("rise", 500.0, 10), Asked("areas", 40.0, 10)], len, IMAGES, "rise_100 asks less")  # type: ignore[arg-type]
    assert capsys.readouterr().out == (
        "to ask: 5,400 forward passes (rise 5,000, areas 400), less what the store has: at most about 110 s on this "
        "machine; rise_100 asks less\n"
    )
    say_cost([Asked("rise", 40.0, 10)], len, IMAGES)  # type: ignore[arg-type]
    say_cost([Asked("random", 0.0, 10)], len, IMAGES)  # type: ignore[arg-type]
    assert capsys.readouterr().out == ""
    say_cost([Asked("rise", 500.0, 90)], len, IMAGES)  # type: ignore[arg-type]
    assert "about 15 min" in capsys.readouterr().out


def test_a_pass_is_timed_among_as_many_as_are_asked_about_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def classify(images: Tensor) -> Tensor:
        asked.append(len(images))
        now[0] += 3.0 + 0.5 * len(images) * (2 if len(asked) < 3 else 1)  # the first ones have more to do
        return images.flatten(1)

    assert seconds_a_pass(classify, IMAGES) == pytest.approx(0.5 + 3.0 / 8)
    assert asked == [1, 8, 8]
    assert asked_at_once(torch.zeros(1, 3, 8, 8)) == 1600
    assert asked_at_once(torch.zeros(1, 3, 1200, 1200)) == 1
