import pytest
import torch
from torch import Tensor

from benchmarks import sinkhorn
from benchmarks.harness import Measurement
from benchmarks.setup import Setup
from benchmarks.sinkhorn import ALIKE, BENCHMARK, Ours, Plain, cases, report
from tests.benchmarks.fakes import cells, small

CPU = Setup()
CASE = cases(CPU, small=True)[1]


def measured(off: float = 0.0) -> list[Measurement]:
    answer = torch.ones(2, 1, 2, 2)
    changed = answer.clone()
    changed[1, 0, 1, 0] += off
    plain = Measurement("plain", 2, {0: 2.0}, 4 << 20, answer=answer)
    return [plain, Measurement("ours", 2, {0: 0.5}, 1 << 20, answer=changed)]


def test_small_runs_end_to_end_with_a_line_for_every_size() -> None:
    (found,) = small(BENCHMARK.run, 1)
    assert found.faults == ()
    lines = [cells(line) for line in found.text.splitlines() if line.startswith("|")][2:]
    assert [line[0] for line in lines] == ["4", "9"]
    assert all(float(line[5]) < ALIKE and float(line[6]) < ALIKE for line in lines)


def test_both_normalise_the_same_scores_and_weigh_the_same_gradient() -> None:
    plain, ours = Plain(CASE, CPU), Ours(CASE, CPU)
    for work in (plain, ours):
        work.once()
    torch.testing.assert_close(ours.answer(), plain.answer(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(plain.answer()[0].sum(2), torch.ones(2, 9))
    assert plain.answer()[1].abs().max() > 1e-3


def test_a_round_is_so_many_passes() -> None:
    work, done = Ours(CASE, CPU), []
    work.once = lambda: done.append(1)
    work.round()
    assert len(done) == CASE.passes
    assert work.images == CASE.passes * CASE.batch


def test_an_iteration_left_out_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def lazy(scores: Tensor, iterations: int) -> Tensor:
        return sinkhorn.plain_sinkhorn(scores, 1)

    monkeypatch.setattr(Ours, "normalise", staticmethod(lazy))
    (found,) = small(BENCHMARK.run, 1)
    assert any("d = 9" in fault and "value off by" in fault for fault in found.faults)


@pytest.mark.parametrize(("off", "faults"), [(0.9 * ALIKE, 0), (1.2 * ALIKE, 1), (float("nan"), 1)])
def test_values_and_gradients_have_to_agree(off: float, faults: int) -> None:
    assert len(report([(CASE, measured(off))], CPU).faults) == faults


def test_a_line_is_the_time_in_the_same_round_and_both_memories() -> None:
    line = report([(CASE, measured())], CPU).text.splitlines()[4]
    assert cells(line) == ["9", "0.5", "0.25", "4 MiB", "1 MiB", "0.0e+00", "0.0e+00"]


def test_who_fails_has_a_line() -> None:
    found = report([(CASE, [Measurement("plain", failure="no memory"), measured()[1]])], CPU)
    assert found.faults == ("Sinkhorn, d = 9, CPU, float32, 1 thread: plain failed: no memory",)
    assert cells(found.text.splitlines()[4])[1:3] == ["failed", "?"]


def test_half_precision_is_no_case_of_its_own() -> None:
    assert cases(Setup("cuda", bf16=True)) == []
