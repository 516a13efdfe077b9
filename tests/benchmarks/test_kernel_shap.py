import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.harness import Measurement
from benchmarks.kernel_shap import Captum, Explain, Ours, Plain, Shap, cases, contenders, report, run
from benchmarks.setup import Setup
from tests.benchmarks.fakes import row, small
from tests.toolbox import there
from xai.games import PatchGame

CPU = Setup()
(CASE,) = cases(CPU, small=True)


def measured(name: str, *seconds: float, answer: float = 1.0) -> Measurement:
    wave = torch.linspace(0, 6, 9).sin()
    phi = torch.stack([answer * wave + (1 - answer) * wave.roll(3), 2 * wave])
    return Measurement(name, 4, dict(enumerate(seconds)), 3 << 20, answer=None if name == "plain" else phi)


def test_small_runs_end_to_end_with_a_row_for_everybody() -> None:
    (found,) = small(run)
    assert found.faults == ()
    for contender in contenders(1):
        assert re.fullmatch(r"1|\d+\.\d\d( \(.*\))?", row(found.text, contender.name)[1])
    assert "M = 9, P = 200, 2 images: CPU, float32, 1 thread" in found.text
    for peer in ("shap", "captum, batched", "captum"):
        assert float(row(found.text, peer)[5]) > 0.95


@pytest.mark.parametrize("make", [Plain, Shap, lambda case, setup: Captum(True, case, setup)])
def test_everybody_passes_as_many_images_as_there_are_coalitions(
    make: type[Explain], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, passed = make(CASE, CPU), []

    def answer(pictures: Tensor) -> Tensor:
        passed.append(len(pictures))
        return torch.rand(len(pictures), 5)

    monkeypatch.setattr(work.network, "forward", answer)
    work.round()
    ends = 0 if make is Plain else 2 * CASE.images
    assert sum(passed) == CASE.images * CASE.coalitions + ends


def test_ours_asks_for_as_many_coalitions_and_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    work, asked, value = Ours("tokens", CASE, CPU), [], PatchGame.value
    monkeypatch.setattr(PatchGame, "value", lambda game, keep: asked.append(keep.shape[-2]) or value(game, keep))
    work.round()
    assert asked == [CASE.coalitions + 2]
    answer = there(work.answer())
    assert answer.shape == (2, 9)


def test_a_goal_is_met_up_to_its_number_by_the_median_of_ratios() -> None:
    rows = [
        measured("plain", 1.0, 10.0, 1.0),
        measured("ours, pixels", 1.05, 2.0, 3.0),
        measured("ours, tokens", 0.61, 6.2, 0.1),
    ]
    text = report([(CASE, rows)], CPU).text
    assert row(text, "ours, pixels")[1:3] == ["1.05 (0.20–3.00)", "≤ 1.05: met"]
    assert row(text, "ours, tokens")[1:3] == ["0.61 (0.10–0.62)", "≤ 0.60: missed"]
    assert row(text, "plain")[1:6] == ["1", "–", "4", "3 MiB", "–"]


def test_who_explains_another_game_is_a_fault() -> None:
    rows = [measured("plain", 1.0), measured("ours, pixels", 1.0), measured("shap", 2.0)]
    assert report([(CASE, rows)], CPU).faults == ()
    assert row(report([(CASE, rows)], CPU).text, "shap")[5] == "1.000"
    rows[2].answer = -torch.ones(2, 9).cumsum(1)
    (fault,) = report([(CASE, rows)], CPU).faults
    rows[2].answer = torch.zeros(2, 9)
    assert "correlate nan" in report([(CASE, rows)], CPU).faults[0]
    assert "attributions of shap correlate" in fault
    assert "they do not do the same work" in fault


def test_who_fails_has_a_row_and_a_line_and_others_their_numbers() -> None:
    rows = [measured("plain", 1.0), measured("ours, pixels", 2.0), replace(measured("shap"), failure="no memory")]
    found = report([(CASE, rows)], CPU)
    assert found.faults == ("two narrow layers, CPU, float32, 1 thread: shap failed: no memory",)
    assert row(found.text, "shap")[1] == "failed"
    assert row(found.text, "ours, pixels")[1] == "2.00"
