from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks import masked_forward
from benchmarks.harness import Measurement
from benchmarks.masked_forward import CONTENDERS, Packed, cases, report, run
from benchmarks.models import Reference
from benchmarks.setup import Setup
from tests.benchmarks.fakes import Here

CPU = Setup()
CASE = cases(CPU, small=True)[0]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")][1:-1]


def test_small_runs_end_to_end_with_a_column_for_everybody() -> None:
    (found,) = run(CPU, 2, True, lambda line: None, Here)
    assert found.faults == ()
    head, _, *lines = [line for line in found.text.splitlines() if line.startswith("|")]
    assert cells(head) == ["M", *(contender.name for contender in CONTENDERS)]
    assert [cells(line)[0] for line in lines] == ["4", "9"]
    assert all("MiB" in cell for line in lines for cell in cells(line)[1:])


def test_each_tower_has_a_table_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    towers = [replace(CASE, title=title, rounds=1) for title in ("first", "first", "second")]
    monkeypatch.setattr(masked_forward, "cases", lambda setup, small: towers)
    found = run(CPU, None, True, lambda line: None, Here)
    assert [(report.text.split(", ")[1], report.text.count("| 4 ")) for report in found] == [
        ("first", 2),
        ("second", 1),
    ]


def test_the_settings_are_two_towers_of_five_sizes() -> None:
    chosen = cases(CPU)
    assert [case.model.players for case in chosen] == [16, 49, 100, 196, 256] * 2
    widths = [(t.width, t.layers) for case in chosen if (t := case.model.params.towers) is not None]
    assert widths == [(96, 3)] * 5 + [(384, 6)] * 5


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


def test_coalitions_are_complementary_pairs() -> None:
    design = Packed(CASE, CPU).design
    assert design.shape == (16, 4)
    assert torch.equal(design[::2], ~design[1::2])
