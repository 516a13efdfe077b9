import re

import pytest
import torch
from torch import nn

from benchmarks.explainer_step import ALIKE, BENCHMARK, CONTENDERS, Floor, Step, cases, report
from benchmarks.harness import Contender, Measurement
from benchmarks.setup import Setup
from tests.benchmarks.fakes import row, small

CPU = Setup()
(CASE,) = cases(CPU, small=True)
NAMES = [contender.name for contender in CONTENDERS]


def measured(seconds: float = 1.0, loss: float = 0.5) -> list[Measurement]:
    rows = [Measurement(name, 8, {0: seconds}, 3 << 20, answer=torch.tensor(loss)) for name in NAMES]
    rows[0].answer = None
    return rows


def test_small_runs_end_to_end_with_a_row_for_everybody() -> None:
    (found,) = small(BENCHMARK.run)
    assert found.faults == ()
    assert "M = 9, 4 images, 4 masks: CPU, float32, 1 thread" in found.text
    for name in NAMES:
        assert all(re.fullmatch(r"1|\d+\.\d\d( \(.*\))?", cell) for cell in row(found.text, name)[1:3])
    assert row(found.text, "SALVAGE")[5] == pytest.approx(row(found.text, "attention masking")[5], abs=2 * ALIKE)


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_a_step_trains_the_explainer_and_nothing_else(contender: Contender, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[nn.Module] = []
    train = Step.train
    monkeypatch.setattr(Step, "train", lambda step, network: trained.append(network) or train(step, network))
    work = contender.prepare(CASE, CPU)
    (network,) = trained
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    surrogate = work._surrogate if isinstance(work, Floor) else work.module._frozen[0]
    frozen = {name: value.clone() for name, value in surrogate.state_dict().items()}
    work.step()
    same = [name for name, value in network.named_parameters() if torch.equal(value, before[name])]
    assert same == []
    assert all(torch.equal(value, frozen[name]) for name, value in surrogate.state_dict().items())


def test_the_floor_passes_as_many_whole_images_as_there_are_coalitions(monkeypatch: pytest.MonkeyPatch) -> None:
    work, passed = Floor(CASE, CPU), []
    network = work._surrogate.network
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda images: passed.append(images) or forward(images))
    work._at_once = 5
    work.step()
    assert [len(images) for images in passed] == [5, 5, 5, 1]
    expected = work._surrogate.normalisation(work.batch.pixels).repeat_interleave(CASE.params.masks, 0)
    torch.testing.assert_close(torch.cat(passed), expected)


def test_a_row_is_compared_with_the_floor_and_with_vit_shapley() -> None:
    rows = measured()
    rows[1].seconds, rows[2].seconds = {0: 3.0}, {0: 4.0}
    text = report([(CASE, rows)], CPU).text
    assert row(text, "floor")[1:] == ["1", "0.25", "2", "3 MiB", "–"]
    assert row(text, "SALVAGE")[1:] == ["3.00", "0.75", "0.667", "3 MiB", "0.50000"]
    assert row(text, "ViT-Shapley")[1:3] == ["4.00", "1"]


@pytest.mark.parametrize(("loss", "faults"), [(0.5 + 0.9 * ALIKE, 0), (0.5 + 1.2 * ALIKE, 1), (float("nan"), 1)])
def test_losses_of_the_same_coalitions_have_to_agree(loss: float, faults: int) -> None:
    rows = measured()
    rows[NAMES.index("attention masking")].answer = torch.tensor(loss)
    assert len(report([(CASE, rows)], CPU).faults) == faults
