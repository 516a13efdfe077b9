import pytest
import torch

from benchmarks.harness import Measurement
from benchmarks.setup import Setup
from benchmarks.sinkhorn import ALIKE, BENCHMARK, cases, report
from tests.benchmarks.fakes import cells, small

CPU = Setup()
CASE = cases(CPU, small=True)[1]


def measured(off: float = 0.0) -> list[Measurement]:
    answer = torch.ones(1, 15, 2)
    changed = answer.clone()
    changed[0, -1, 1] += off
    plain = Measurement("plain", 2, {0: 2.0}, 4 << 20, answer=answer)
    return [plain, Measurement("ours", 2, {0: 0.5}, 1 << 20, answer=changed)]


def test_small_runs_end_to_end_with_a_line_for_every_size() -> None:
    (found,) = small(BENCHMARK.run, 1)
    assert found.faults == ()
    lines = [cells(line) for line in found.text.splitlines() if line.startswith("|")][2:]
    assert [line[0] for line in lines] == ["4", "9"]
    assert all(float(line[5]) < ALIKE and float(line[6]) < ALIKE for line in lines)


@pytest.mark.parametrize(("off", "faults"), [(0.9 * ALIKE, 0), (1.2 * ALIKE, 1), (float("nan"), 1)])
def test_values_and_gradients_have_to_agree(off: float, faults: int) -> None:
    assert len(report([(CASE, measured(off))], CPU).faults) == faults


def test_a_line_is_the_time_in_the_same_round_and_both_memories() -> None:
    line = report([(CASE, measured())], CPU).text.splitlines()[4]
    assert cells(line) == ["9", "0.5", "0.25", "4 MiB", "1 MiB", "0.0e+00", "0.0e+00"]


def test_half_precision_is_no_case_of_its_own() -> None:
    assert cases(Setup("cuda", bf16=True)) == []
