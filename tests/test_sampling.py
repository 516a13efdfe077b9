"""Weighted orders against enumeration."""

from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from tests.orders import coalition_probabilities, min_max, order_probabilities
from tests.shapley.tables import codes
from tests.toolbox import seeded
from xai.sampling import common_and_own, importance_weights, step_generator, weighted_ranks

WEIGHTS = {
    "uneven": [0.1, 0.4, 0.2, 0.3],
    "far apart": [1.0, 0.1, 0.3, 0.03],
    "equal": [0.5, 0.5, 0.5, 0.5],
    "more than one": [3.0, 70.0, 40.0, 5.0],
}


def drawn(weights: list[float], draws: int, seed: int = 0) -> Tensor:
    return weighted_ranks(torch.tensor(weights).expand(draws, -1), seeded(seed))


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_orders_have_the_distribution_of_draws_without_replacement(weights: list[float]) -> None:
    expected = order_probabilities(weights)
    counts = Counter(map(tuple, drawn(weights, 100_000).argsort(-1).tolist()))
    assert len(expected) == 24
    assert min(expected.values()) > 1e-4
    shares = np.array([expected[order] for order in expected])
    assert scipy.stats.chisquare([counts[order] for order in expected], 100_000 * shares).pvalue > 0.001


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_first_patches_of_an_order_are_a_draw_of_so_many(size: int) -> None:
    weights = WEIGHTS["uneven"]
    rows = drawn(weights, 50_000, seed=size) < size
    assert (rows.sum(1) == size).all()
    expected = coalition_probabilities(weights, size)
    possible = expected > 0
    observed = codes(rows).bincount(minlength=16)
    assert not observed[~possible].any()
    assert scipy.stats.chisquare(observed[possible], 50_000 * expected[possible]).pvalue > 0.001


def test_every_row_is_an_order_of_all_patches_whatever_its_shape() -> None:
    weights = torch.rand(2, 3, 5, 7, generator=seeded())
    ranks = weighted_ranks(weights, seeded(1))
    assert torch.equal(ranks.sort(-1).values, torch.arange(7).expand(2, 3, 5, 7))


def test_patches_without_weight_come_last_and_in_any_order() -> None:
    ranks = drawn([0.0, 0.5, 0.0, 0.5, 0.0], 6000)
    assert (ranks[:, [1, 3]] < 2).double().mean() > 0.999
    first_of_the_last = ranks[:, [0, 2, 4]].argmin(-1).bincount(minlength=3)
    assert scipy.stats.chisquare(first_of_the_last).pvalue > 0.001


def test_patches_without_weight_are_not_drawn_by_position_as_multinomial_does() -> None:
    weights = torch.tensor([0.0, 1.0, 0.0, 0.0]).expand(300, -1)
    by_position = torch.multinomial(weights, 2, replacement=False, generator=seeded())
    assert by_position.unique(dim=0).shape == (1, 2)
    ours = weighted_ranks(weights, seeded()).argsort(-1)[:, :2]
    assert ours.unique(dim=0).shape == (3, 2)


def test_the_generator_alone_decides() -> None:
    weights = torch.rand(20, 9, generator=seeded())
    state = torch.random.get_rng_state()
    first = weighted_ranks(weights, seeded(3))
    assert torch.equal(weighted_ranks(weights, seeded(3)), first)
    assert not torch.equal(weighted_ranks(weights, seeded(4)), first)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_importance_weights_are_the_min_max_normalised_attributions() -> None:
    phi = torch.randn(3, 4, 6, generator=seeded(), dtype=torch.float64) * 7 - 3
    weights = importance_weights(phi)
    for image in range(3):
        for row in range(4):
            assert weights[image, row].tolist() == pytest.approx(min_max(phi[image, row].tolist()), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_importance_weights_do_not_know_the_scale(scale: float) -> None:
    phi = torch.randn(2, 6, generator=seeded())
    torch.testing.assert_close(importance_weights(phi * scale), importance_weights(phi))


def test_a_constant_map_weighs_all_patches_alike() -> None:
    phi = torch.tensor([[0.3, 0.3, 0.3], [0.0, 1.0, 2.0]])
    assert importance_weights(phi).tolist() == [[0.5, 0.5, 0.5], [0.0, 0.5, 1.0]]


def of_step(seed: int, step: int, rank: int = 0) -> Tensor:
    return torch.rand(4, generator=step_generator(seed, step, torch.device("cpu"), rank), dtype=torch.float64)


def test_one_seed_does_not_draw_later_what_another_draws_first() -> None:
    later = {of_step(0, step)[0].item() for step in range(20_000)}
    assert later.isdisjoint(of_step(seed, 0)[0].item() for seed in range(1, 50))


@pytest.mark.parametrize("ranks", [1, 8])
def test_steps_seeds_and_ranks_draw_apart_and_evenly(ranks: int) -> None:
    places = [(seed, step, rank) for seed in range(3) for step in range(1000 // ranks) for rank in range(ranks)]
    draws = torch.stack([of_step(*place) for place in places])
    assert len(draws.unique(dim=0)) == 3000
    for place in draws.T:
        assert scipy.stats.kstest(place.numpy(), "uniform").pvalue > 0.001
    # No more alike from one step to the next than numbers of one stream are.
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.06


def test_ranks_draw_alike_what_is_common_and_apart_what_is_their_own() -> None:
    cpu = torch.device("cpu")
    drawn = [[torch.rand(6, generator=source) for source in common_and_own(3, 5, cpu, rank)] for rank in range(4)]
    assert len({tuple(common.tolist()) for common, _ in drawn}) == 1
    assert len({tuple(own.tolist()) for _, own in drawn}) == 4
    # What rank 0 draws is what a step drew before there were ranks, one after the other.
    alone = step_generator(3, 5, cpu)
    assert torch.equal(torch.cat(drawn[0]), torch.cat([torch.rand(6, generator=alone) for _ in range(2)]))
