import math

import numpy as np
import pytest
import scipy.stats
import torch

from xai.shapley.coalitions import paired_coalitions, shapley_kernel_sizes


@pytest.mark.parametrize("players", [2, 3, 6, 36])
def test_sizes_follow_the_shapley_kernel(players: int) -> None:
    kernel = [
        (players - 1) / (math.comb(players, size) * size * (players - size)) * math.comb(players, size)
        for size in range(1, players)
    ]
    expected = np.array(kernel) / sum(kernel)
    np.testing.assert_allclose(shapley_kernel_sizes(players).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("players", [2, 3, 9])
def test_rows_come_in_complements_and_are_never_empty_or_full(players: int) -> None:
    drawn = paired_coalitions(players, 500, torch.Generator().manual_seed(0))
    assert drawn.shape == (500, players)
    assert drawn.dtype == torch.bool
    assert torch.equal(drawn[0::2], ~drawn[1::2])
    assert drawn.any(1).all()
    assert not drawn.all(1).any()


def test_drawn_coalitions_have_the_kernels_distribution() -> None:
    """Chi-square over all coalitions of six players: the sizes, and within a size every subset alike."""
    players, pairs = 6, 30_000
    drawn = paired_coalitions(players, 2 * pairs, torch.Generator().manual_seed(1))
    codes = (drawn.long() * 2 ** torch.arange(players)).sum(1)
    weight = {s: 1 / (math.comb(players, s) * s * (players - s)) for s in range(1, players)}
    masks = [code for code in range(1, 2**players - 1)]
    total = sum(weight[mask.bit_count()] for mask in masks)
    # The two of a pair are no independent draws: one of each pair is counted.
    for half in (codes[0::2], codes[1::2]):
        observed = torch.bincount(half, minlength=2**players)[1:-1].numpy()
        expected = np.array([pairs * weight[mask.bit_count()] / total for mask in masks])
        assert scipy.stats.chisquare(observed, expected).pvalue > 0.001
    sizes = drawn[0::2].sum(1)
    observed = torch.bincount(sizes, minlength=players)[1:].numpy()
    expected = np.array([1 / (s * (players - s)) for s in range(1, players)])
    assert scipy.stats.chisquare(observed, pairs * expected / expected.sum()).pvalue > 0.001


def test_a_draw_depends_on_its_generator_alone() -> None:
    first, again = (paired_coalitions(8, 40, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, paired_coalitions(8, 40, torch.Generator().manual_seed(4)))


@pytest.mark.parametrize(("players", "coalitions"), [(1, 4), (0, 4), (5, 7), (5, 0), (5, 1), (5, -2)])
def test_designs_that_cannot_be_paired_are_refused(players: int, coalitions: int) -> None:
    with pytest.raises(ValueError, match=f"not {players}, {coalitions}"):
        paired_coalitions(players, coalitions, torch.Generator())
