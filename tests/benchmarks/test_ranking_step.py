import re

import pytest
import torch

from benchmarks import ranking_step
from benchmarks.harness import Contender, Measurement
from benchmarks.ranking_step import (
    ALIKE,
    ALIKE_GRADIENT,
    BENCHMARK,
    CONTENDERS,
    Ours,
    Published,
    Step,
    cases,
    report,
)
from benchmarks.setup import Setup
from tests.benchmarks.fakes import row, small

CPU = Setup()
MAPS, WHOLE = cases(CPU, small=True)
NAMES = [contender.name for contender in CONTENDERS]


def measured(loss: float = 0.5, gradient: float = 1.0) -> list[Measurement]:
    rows = [Measurement(name, 4, {0: 1.0}, 3 << 20, answer=torch.tensor([[0.5, 1.0, 0.0]])) for name in NAMES]
    rows[0].answer, rows[2].answer = None, torch.tensor([[loss, gradient, 0.0]])
    return rows


def passes(work: Step, monkeypatch: pytest.MonkeyPatch, drawn: int = 1) -> list[int]:
    """Images in each pass of the classifier that a step makes."""
    seen: list[int] = []
    network = work.classifier.network
    embed = network.patch_embed.forward
    monkeypatch.setattr(network.patch_embed, "forward", lambda pixels: seen.append(len(pixels)) or embed(pixels))
    work.step(work.draws[drawn])
    return seen


def test_small_runs_end_to_end_with_a_row_for_everybody() -> None:
    reports = list(small(BENCHMARK.run, 1))
    assert [found.faults for found in reports] == [(), ()]
    for found in reports:
        assert "2 images, S = 5, grids 3, 5: CPU, float32, 1 thread" in found.text
        for name in NAMES:
            assert all(re.fullmatch(r"1|\d+\.\d\d( \(.*\))?", cell) for cell in row(found.text, name)[1:3])
        for name in NAMES[2:]:
            assert float(row(found.text, name)[8]) == pytest.approx(
                float(row(found.text, "as published")[8]), abs=ALIKE
            )
            assert float(row(found.text, name)[9]) < 1e-3


@pytest.mark.parametrize("case", [MAPS, WHOLE], ids=lambda case: case.title)
@pytest.mark.parametrize("grid", [0, 1])
def test_ours_and_the_published_way_give_the_same_loss_and_gradient(case: ranking_step.Case, grid: int) -> None:
    found = []
    for work in (Ours(True, case, CPU), Published(case, CPU)):
        loss, maps = work.forward(work.draws[grid], 2)
        found.append((loss, torch.autograd.grad(loss.sum(), maps)[0]))
    (loss, gradient), (expected, theirs) = found
    torch.testing.assert_close(loss, expected, rtol=0, atol=ALIKE)
    assert theirs.norm() > 1e-4
    assert (gradient - theirs).norm() < 1e-3 * theirs.norm()


def test_the_published_way_passes_every_point_of_both_paths_for_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    assert passes(Published(MAPS, CPU), monkeypatch) == [2, 10, 10, 10, 10]


@pytest.mark.parametrize(("chunked", "expected"), [(False, [2, 1, 12]), (True, [2, 1, 5, 5, 2])])
def test_ours_passes_what_lies_between_the_ends_once(
    chunked: bool, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sorted(passes(Ours(chunked, MAPS, CPU), monkeypatch, drawn=0)) == sorted(expected)


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_a_whole_step_trains_the_decoder_and_nothing_else(contender: Contender) -> None:
    work = contender.prepare(WHOLE, CPU)
    decoder = {name: value.detach().clone() for name, value in work._explainer.decoder.named_parameters()}
    frozen = [work.classifier, work._explainer.features]
    before = [{name: value.clone() for name, value in network.state_dict().items()} for network in frozen]
    work.step(work.draws[0])
    after = dict(work._explainer.decoder.named_parameters())
    assert any(not torch.equal(after[name], value) for name, value in decoder.items())
    for network, values in zip(frozen, before, strict=True):
        assert all(torch.equal(value, values[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("loss", "gradient", "faults"),
    [
        (0.5 + 0.9 * ALIKE, 1 + 0.9 * ALIKE_GRADIENT, []),
        (0.5 + 1.2 * ALIKE, 1.0, ["loss"]),
        (0.5, 1 - 1.2 * ALIKE_GRADIENT, ["gradient"]),
        (float("nan"), float("nan"), ["loss", "gradient"]),
    ],
)
def test_losses_and_gradients_have_to_agree(loss: float, gradient: float, faults: list[str]) -> None:
    found = report([(MAPS, measured(loss, gradient))], CPU).faults
    assert [re.search(r"the first (\w+) of ours", fault)[1] for fault in found] == faults


def test_ours_is_compared_with_the_published_way_in_time_and_memory() -> None:
    rows = measured()
    rows[1].seconds, rows[1].peak = {0: 4.0}, 8 << 20
    rows[3].seconds, rows[3].peak = {0: 3.0}, 4 << 20
    text = report([(MAPS, rows)], CPU).text
    assert row(text, "as published")[1:] == ["4.00", "1", "0.5", "–", "8 MiB", "1", "–", "0.50000", "–"]
    assert row(text, "ours")[1:7] == ["1.00", "0.25", "2", "≤ 0.56: met", "3 MiB", "0.38"]
    assert row(text, "ours, in chunks")[2:8] == ["0.75", "0.667", "≤ 0.56: missed", "4 MiB", "0.50", "≤ 0.50: met"]
