"""What something will take is said before it is begun, where it takes long."""

import time

import pytest
import torch
from torch import Tensor

from xai.games import asked_at_once
from xai.study import cost
from xai.study.cost import Asked, say_cost, seconds_a_pass

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
