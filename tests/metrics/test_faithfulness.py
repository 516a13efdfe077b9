"""Faithfulness of the peers against Captum and brute force, in float64 on tables of four patches."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from captum.metrics import infidelity
from scipy.stats import spearmanr
from torch import Tensor

from tests.metrics.test_registry import IMAGES, Game, drawn, everything, values
from xai.metrics import functional as F
from xai.metrics import registry
from xai.metrics.faithfulness import InfidelityParams, TopPatchesParams


def value(keep: list[int]) -> float:
    """Of the game that all images have."""
    present = torch.zeros(1, 1, 4, dtype=torch.bool)
    present[..., keep] = True
    return float(Game().value(present))


def test_infidelity_is_captums_with_its_best_scale() -> None:
    maps, removed = drawn(3, 4, seed=1).double(), torch.rand(3, 7, 4, generator=torch.Generator().manual_seed(2)) < 0.5

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        gone = removed.flatten(0, 1).double()
        return gone, inputs - gone

    def forward(inputs: Tensor) -> Tensor:
        return Game().value((inputs > 0.5)[:, None])[:, 0]

    ones = torch.ones(3, 4, dtype=torch.float64)
    expected = infidelity(forward, perturb, ones, maps, n_perturb_samples=7, normalize=True)
    drops = forward(ones)[:, None] - Game().value(~removed)
    torch.testing.assert_close(F.infidelity(maps, removed, drops), expected)
    torch.testing.assert_close(F.infidelity(-3 * maps, removed, drops), expected)
    assert F.infidelity(0 * maps, removed, drops).tolist() == drops.square().mean(1).tolist()


def test_infidelity_of_what_the_game_is_made_of_is_zero_and_every_row_gets_the_same_sets() -> None:
    class Additive(Game):
        def value(self, coalitions: Tensor) -> Tensor:
            return coalitions.double() @ torch.tensor([0.1, 0.3, -0.2, 0.4], dtype=torch.float64)

    asked: list[Tensor] = []

    class Noted(Additive):
        def value(self, coalitions: Tensor) -> Tensor:
            asked.append(coalitions)
            return super().value(coalitions)

    maps = torch.tensor([0.1, 0.3, -0.2, 0.4]).reshape(1, 2, 2).repeat(IMAGES, 1, 1)
    found = values("infidelity", everything(maps=5 * maps, game=Noted()), InfidelityParams(9))
    torch.testing.assert_close(found["infidelity"], torch.zeros(IMAGES, dtype=torch.float64), atol=1e-12, rtol=0)
    assert asked[-1].shape == (IMAGES, 9, 4)
    assert not asked[-1].all(-1).any()
    values("infidelity", everything(game=Noted()), InfidelityParams(9))
    assert torch.equal(asked[1], asked[-1])


def test_what_the_most_important_patches_do_is_counted_share_by_share() -> None:
    block, shares = everything(), (0.25, 0.3, 1.0)
    found = values("top_patches", block, TopPatchesParams(shares))
    for image, phi in enumerate(registry.given(block.maps).flatten(1)):
        order = phi.argsort(descending=True).tolist()
        gone = [value(order[count:]) for count in (1, 2, 4)]
        left = [value(order[:count]) for count in (1, 2, 4)]
        whole = value([0, 1, 2, 3])
        assert found["comprehensiveness"][image].item() == pytest.approx(whole - np.mean(gone))
        assert found["sufficiency"][image].item() == pytest.approx(whole - np.mean(left))
    flat = values("top_patches", everything(maps=torch.ones(IMAGES, 2, 2)))
    assert all(value.isnan().all() for value in flat.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_share_of_the_patches_is_rounded_up_and_no_further(dtype: torch.dtype) -> None:
    shares = torch.tensor([0.01, 0.1, 0.5, 0.51], dtype=dtype)
    assert F.retained(torch.arange(50)[None], shares).sum(-1).tolist() == [[1, 5, 25, 26]]
    shares = torch.tensor([0.07, 0.14, 0.28, 0.55, 0.56, 1.0], dtype=dtype)
    assert F.retained(torch.arange(100)[None], shares).sum(-1).tolist() == [[7, 14, 28, 55, 56, 100]]


def test_monotonicity_counts_steps_upwards_and_effects_follow_single_patches() -> None:
    block = everything()
    found = values("monotonicity", block)
    for image, phi in enumerate(registry.given(block.maps).flatten(1)):
        order = phi.argsort().tolist()
        rising = [value(order[:count]) for count in range(5)]
        assert found["monotonicity"][image].item() == np.mean([b >= a for a, b in pairwise(rising)])
        effects = [(value([0, 1, 2, 3]) - value([m for m in range(4) if m != gone])) ** 2 for gone in range(4)]
        assert found["monotonicity_effects"][image].item() == pytest.approx(spearmanr(phi.abs(), effects).statistic)
