import math

import numpy as np
import pytest
import scipy.stats
import torch

from tests.shapley.tables import codes
from xai.shapley.coalitions import SAMPLERS, paired, sample
from xai.shapley.design import Design, shapley_kernel_sizes

PAIRED = sorted(set(SAMPLERS) - {"shapley_kernel"})


@pytest.mark.parametrize("players", [2, 3, 6, 36])
def test_sizes_follow_the_shapley_kernel(players: int) -> None:
    kernel = [
        (players - 1) / (math.comb(players, size) * size * (players - size)) * math.comb(players, size)
        for size in range(1, players)
    ]
    expected = np.array(kernel) / sum(kernel)
    np.testing.assert_allclose(shapley_kernel_sizes(players).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["paired", "shapley_kernel"])
def test_drawn_coalitions_have_the_kernels_distribution(name: str) -> None:
    """Chi-square over all coalitions of six players: the sizes, and within a size every subset alike."""
    players, draws = 6, 60_000
    design = sample(name, players, draws, torch.Generator().manual_seed(1))
    weight = {s: 1 / (math.comb(players, s) * s * (players - s)) for s in range(1, players)}
    masks = range(1, 2**players - 1)
    expected = np.array([weight[mask.bit_count()] for mask in masks])
    expected *= 1 / expected.sum()
    # The two of a pair are no independent draws: one of each pair is counted.
    for rows in (design.coalitions[0::2], design.coalitions[1::2]) if design.paired else (design.coalitions,):
        observed = torch.bincount(codes(rows), minlength=2**players)[1:-1].numpy()
        assert scipy.stats.chisquare(observed, len(rows) * expected).pvalue > 0.001


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(("players", "coalitions"), [(2, 2), (5, 12), (6, 30), (12, 200), (49, 256), (196, 500)])
def test_a_design_has_as_many_rows_as_asked_and_says_whether_they_are_pairs(
    name: str, players: int, coalitions: int
) -> None:
    design = sample(name, players, coalitions, torch.Generator().manual_seed(players))
    assert design.coalitions.shape == (coalitions, players)
    assert design.coalitions.dtype == torch.bool
    assert design.weights.dtype == design.inclusion.dtype == torch.float64
    assert (design.weights > 0).all()
    assert design.coalitions.any(1).all()
    assert not design.coalitions.all(1).any()
    assert design.paired == (name in PAIRED)
    if design.paired:
        assert torch.equal(design.coalitions[0::2], ~design.coalitions[1::2])
        for numbers in (design.weights, design.inclusion):
            assert torch.equal(numbers[0::2], numbers[1::2])


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_draw_depends_on_its_generator_alone(name: str) -> None:
    first, again, other = (sample(name, 9, 40, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.coalitions, again.coalitions)
    assert torch.equal(first.weights, again.weights)
    assert not torch.equal(first.coalitions, other.coalitions)


def test_draws_with_replacement_count_alike_and_can_all_come_again() -> None:
    for name in ("paired", "shapley_kernel"):
        design = sample(name, 7, 20, torch.Generator().manual_seed(0))
        torch.testing.assert_close(design.weights, torch.full((20,), 0.05, dtype=torch.float64))
        assert not design.inclusion.any()


def test_the_paired_sampler_draws_what_it_has_always_drawn() -> None:
    """Attributions in a store were made with these coalitions."""
    drawn = paired(5, 8, torch.Generator().manual_seed(0)).coalitions
    assert codes(drawn).tolist() == [23, 8, 30, 1, 24, 7, 29, 2]
    assert torch.equal(sample("paired", 5, 8, torch.Generator().manual_seed(0)).coalitions, drawn)


@pytest.mark.parametrize("name", PAIRED)
@pytest.mark.parametrize(("players", "coalitions"), [(1, 4), (0, 4), (5, 7), (5, 0), (5, 1), (5, -2)])
def test_designs_that_cannot_be_paired_are_refused(name: str, players: int, coalitions: int) -> None:
    with pytest.raises(ValueError, match=rf"2 or more players.* not {players}(, {coalitions})?$"):
        sample(name, players, coalitions, torch.Generator())


@pytest.mark.parametrize(("players", "coalitions"), [(1, 4), (5, 0), (5, -1)])
def test_independent_draws_that_cannot_be_made_are_refused(players: int, coalitions: int) -> None:
    with pytest.raises(ValueError, match=f"not {players}, {coalitions}"):
        sample("shapley_kernel", players, coalitions, torch.Generator())


def test_independent_draws_may_be_odd_in_number() -> None:
    assert len(sample("shapley_kernel", 5, 7, torch.Generator()).coalitions) == 7


def test_an_unknown_sampler_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match=r"'sobol' is unknown: use one of shapley_kernel, paired, leverage, without"):
        sample("sobol", 5, 4, torch.Generator())


def test_a_design_whose_parts_do_not_fit_is_refused() -> None:
    rows, ones = torch.zeros(3, 4, dtype=torch.bool), torch.ones(3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"\[\[3, 4\], \[2\], \[3\]\]"):
        Design(rows, ones[:2], ones, paired=False)
    with pytest.raises(ValueError, match=r"\[\[3, 4\], \[3\], \[3, 1\]\]"):
        Design(rows, ones, ones[:, None], paired=False)
    with pytest.raises(ValueError, match=r"even number of rows, not 3"):
        Design(rows, ones, ones, paired=True)
