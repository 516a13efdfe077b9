"""Figure 6: how far from one half the likelihood is of single masks, and on average over the masks of a size."""

import pytest
import torch
from torch import Tensor

from tests.toolbox import refusal
from xai.metrics import registry
from xai.metrics.streaming import measured
from xai.papers.salvage.likelihood import LikelihoodParams


class HopelessOrCertain:
    """Four patches; the class is certain where the first is present, and else ruled out."""

    players = 4

    def value(self, coalitions: Tensor) -> Tensor:
        return coalitions[..., 0].double()


def test_the_spread_is_that_of_single_masks_and_not_of_their_mean() -> None:
    maps = torch.tensor([[[0.3, 0.2], [0.1, 0.4]]]).expand(3, 2, 2)
    block = measured(maps=maps, game=HopelessOrCertain(), generator=torch.Generator().manual_seed(0))
    found = registry.compute(registry.entry("mask_likelihood"), block, LikelihoodParams(masks=400))
    # Every mask is hopeless or certain, though their mean likelihood over masks of one size is near one half.
    assert found["spread_random"].tolist() == found["spread_informed"].tolist() == [0.5] * 3
    torch.testing.assert_close(
        found["likelihood_random"].mean(0), torch.tensor([0.25, 0.5, 0.75, 1.0]).double(), atol=0.06, rtol=0
    )
    # With one patch present it is the first in one mask of four; the imbalance is what is left over the four sizes.
    expected = torch.tensor([0.25, 0.0, 0.25, 0.5]).double().mean().expand(3)
    torch.testing.assert_close(found["imbalance_random"], expected, atol=0.03, rtol=0)


def test_answers_that_are_no_numbers_are_refused_with_their_rows() -> None:
    class Blank(HopelessOrCertain):
        def value(self, coalitions: Tensor) -> Tensor:
            return super().value(coalitions).index_fill(0, torch.tensor(1), torch.nan)

    block = measured(maps=torch.rand(3, 2, 2), game=Blank(), rows=torch.tensor([4, 7, 9]))
    told = refusal(registry.compute, registry.entry("mask_likelihood"), block)
    assert told.startswith("the classifier's answers with patches removed of rows 7 hold NaN or infinity")


def test_all_that_is_read_in_percent_has_one_digit_after_the_point() -> None:
    digits = {name: column.digits for name, column in registry.columns().items() if column.unit == "%"}
    assert {"imbalance_informed", "spread_random", "srg"} <= set(digits)
    assert set(digits.values()) == {1}


@pytest.mark.parametrize("masks", [1, 3])
def test_a_number_of_masks_that_has_no_halves_is_refused(masks: int) -> None:
    told = refusal(registry.entry("mask_likelihood").settings, {"masks": masks})
    assert told.startswith(f"metric.mask_likelihood.masks={masks} must be ")
