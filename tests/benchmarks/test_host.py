import os

import pytest
import torch

from benchmarks.host import Host, one_line
from benchmarks.kernel_shap import Plain, cases
from benchmarks.setup import Setup
from tests.benchmarks.fakes import Echo


class Hungry(Echo):
    """Needs 512 MiB for a moment to prepare, and 8 to keep; 16 more from the warm-up on; 256 in a round."""

    def __init__(self, case: float, setup: Setup) -> None:
        super().__init__(case, setup)
        torch.ones(512 << 18)
        self.kept = torch.ones(8 << 18)

    def warm_up(self) -> None:
        self.warm = torch.ones(16 << 18)

    def round(self) -> None:
        torch.ones(256 << 18)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the mark cannot be set back here")
def test_peak_memory_is_what_the_rounds_needed_above_what_was_prepared() -> None:
    host = Host(Hungry)
    host.prepare(0.0, Setup())
    host.round()
    assert host.result()[0] / 2**20 == pytest.approx(16 + 256, abs=4)


def test_nothing_is_done_before_it_is_prepared() -> None:
    with pytest.raises(ValueError, match="before any work was prepared"):
        Host(Echo).round()


def test_operations_are_those_of_a_forward_pass_counted_by_hand() -> None:
    (case,) = cases(Setup(), small=True)
    params, towers = case.model.params, case.model.params.towers
    width, tokens = towers.width, case.model.players + 1
    block = 2 * tokens * width * (3 + 1 + 4 + 4) * width + 2 * 2 * tokens**2 * width
    embedding = 2 * case.model.players * 3 * params.patch_size**2 * width
    head = 2 * (width + case.model.classes) * towers.embed_dim
    host = Host(Plain)
    host.prepare(case, Setup())
    passes = case.images * case.coalitions
    assert host.flops() == passes * (embedding + towers.layers * block + head)


def test_an_error_is_told_in_one_line() -> None:
    assert one_line(ValueError("first\nsecond")) == "ValueError: first"
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
