from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.harness import Measurement
from benchmarks.masked_forward import BENCHMARK, CONTENDERS, Packed, cases, report
from benchmarks.models import Reference
from benchmarks.setup import Setup
from tests.benchmarks.fakes import cells, small

CPU = Setup()
CASE = cases(CPU, small=True)[0]


def test_small_runs_end_to_end_with_a_column_for_everybody() -> None:
    (found,) = small(BENCHMARK.run, 2)
    assert found.faults == ()
    head, _, *lines = [line for line in found.text.splitlines() if line.startswith("|")]
    assert cells(head) == ["M", *(contender.name for contender in CONTENDERS)]
    assert [cells(line)[0] for line in lines] == ["4", "9"]
    assert all("MiB" in cell for line in lines for cell in cells(line)[1:])


def test_each_tower_has_a_table_of_its_own() -> None:
    towers = [replace(CASE, title=title, rounds=1) for title in ("first", "first", "second")]
    found = small(replace(BENCHMARK, cases=lambda setup, small: towers).run)
    assert [(report.text.split(", ")[1], report.text.count("| 4 ")) for report in found] == [
        ("first", 2),
        ("second", 1),
    ]


def test_a_cell_is_the_ratio_in_the_same_round_and_its_memory() -> None:
    plain = Measurement("plain passes", 100, {0: 1.0, 1: 4.0, 2: 4.0}, 2 << 20)
    tokens = Measurement("tokens", 100, {0: 3.0, 1: 2.0, 2: 1.0}, 1 << 20, flops=10**12)
    weak = Measurement("pixels", failure="no memory")
    found = report([(CASE, [plain, tokens, weak])], CPU)
    assert cells(found.text.splitlines()[4]) == ["4", "25/s, 2 MiB", "0.50 (0.25–3.00), 1 MiB", "failed"]
    assert found.faults == (f"M = 4, {CASE.title}, CPU, float32, 1 thread: pixels failed: no memory",)
    shared = report([(CASE, [plain, tokens])], Setup("cuda"), peak=2e12).text
    assert "0.50 (0.25–3.00), 1 MiB, 25 %" in shared
    broken = report([(CASE, [replace(plain, failure="gone"), tokens])], CPU)
    assert cells(broken.text.splitlines()[4]) == ["4", "failed", "?"]


def test_packing_that_mixes_a_pair_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Packed(CASE, CPU)
    attend = Reference.attend

    def careless(network: Reference, tokens: Tensor, hidden: Tensor, classes: int = 1) -> Tensor:
        return attend(network, tokens, hidden if classes == 1 else torch.zeros_like(hidden), classes)

    monkeypatch.setattr(Reference, "attend", careless)
    with pytest.raises(AssertionError, match="not close"):
        Packed(CASE, CPU)
