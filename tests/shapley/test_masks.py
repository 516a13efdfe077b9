"""Training masks: their sizes, their complements, and that nothing but the generator decides."""

import pytest
import scipy.stats
import torch
from torch import Tensor

from tests.shapley.tables import codes
from tests.toolbox import seeded
from xai.shapley.masks import kernel_sizes, paired_masks, random_masks


def kernel_of(players: int) -> list[float]:
    """The Shapley kernel's share of each size 1 ... M - 1: 1 / (s (M - s)), to a sum of one."""
    weights = [1 / (size * (players - size)) for size in range(1, players)]
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize("players", [3, 4, 9])
def test_sizes_are_those_of_the_shapley_kernel(players: int) -> None:
    draws = 20_000
    counts = kernel_sizes(players, draws, seeded()).bincount(minlength=players + 1)
    assert counts[[0, players]].tolist() == [0, 0]
    expected = [draws * share for share in kernel_of(players)]
    assert scipy.stats.chisquare(counts[1:players], expected).pvalue > 0.001


@pytest.mark.parametrize("size", [1, 2, 3])
def test_of_one_size_every_coalition_is_as_likely(size: int) -> None:
    rows = random_masks(1, 4, torch.full((6000,), size), seeded(size))[0]
    assert (rows.sum(1) == size).all()
    observed = codes(rows).bincount(minlength=16)
    assert len(observed[observed > 0]) == (6 if size == 2 else 4)
    assert scipy.stats.chisquare(observed[observed > 0]).pvalue > 0.001


def test_a_slot_has_one_size_for_all_images_and_patches_of_their_own() -> None:
    sizes = torch.tensor([0, 1, 4, 8, 9])
    keep = random_masks(6, 9, sizes, seeded())
    assert (keep.dtype, tuple(keep.shape)) == (torch.bool, (6, 5, 9))
    assert torch.equal(keep.sum(2), sizes.expand(6, -1))
    assert len(keep[:, 2].unique(dim=0)) > 1


def test_an_image_can_have_sizes_of_its_own() -> None:
    sizes = torch.randint(10, (6, 5), generator=seeded(1))
    assert torch.equal(random_masks(6, 9, sizes, seeded()).sum(2), sizes)


def test_pairs_are_coalitions_and_their_complements_side_by_side() -> None:
    keep = paired_masks(3, 9, 16, seeded())
    assert tuple(keep.shape) == (3, 32, 9)
    assert torch.equal(keep[:, 1::2], ~keep[:, ::2])
    assert torch.equal(keep.sum(2), keep.sum(2)[:1].expand(3, -1))


def test_sizes_of_pairs_are_those_of_the_shapley_kernel() -> None:
    keep = paired_masks(1, 5, 10_000, seeded())[0]
    counts = keep[::2].sum(1).bincount(minlength=6)[1:5]
    assert scipy.stats.chisquare(counts, [10_000 * share for share in kernel_of(5)]).pvalue > 0.001


def of_many_steps() -> Tensor:
    """The first coalition of the first image under each of 1500 seeds: what is first in a stream shows first."""
    return torch.stack([paired_masks(1, 4, 2, seeded(seed))[0, 0] for seed in range(1500)])


def test_which_patches_come_does_not_depend_on_how_many() -> None:
    first = of_many_steps()
    for size in (1, 2, 3):
        rows = codes(first[first.sum(1) == size]).bincount(minlength=16)
        assert scipy.stats.chisquare(rows[rows > 0]).pvalue > 0.001
        assert (rows > 0).sum() == (6 if size == 2 else 4)


def test_a_second_draw_has_other_sizes() -> None:
    generator = seeded()
    first, second = (paired_masks(2, 9, 16, generator) for _ in range(2))
    assert not torch.equal(first.sum(2), second.sum(2))


def test_the_generator_alone_decides() -> None:
    state = torch.random.get_rng_state()
    first = paired_masks(3, 9, 8, seeded(2))
    assert torch.equal(paired_masks(3, 9, 8, seeded(2)), first)
    assert not torch.equal(paired_masks(3, 9, 8, seeded(3)), first)
    assert torch.equal(torch.random.get_rng_state(), state)
