"""Training masks: their sizes, their complements, and that nothing but the generator decides."""

import pytest
import scipy.stats
import torch
from torch import Tensor

from tests.orders import coalition_probabilities, min_max
from tests.shapley.tables import codes
from tests.toolbox import seeded
from xai.shapley.masks import informed_coalitions, paired_masks, random_masks, uniform_sizes


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


PHI = [0.7, -0.2, 0.1, 0.4]


def algorithm_3(phi: list[float], *, important: bool) -> Tensor:
    """[2^M]: how likely each coalition of one half of the samples is (lines 5 to 9, and 10 to 14)."""
    weights = min_max(phi) if important else [1 - weight for weight in min_max(phi)]
    return sum(coalition_probabilities(weights, size) for size in range(1, len(phi) + 1)) / len(phi)


@pytest.mark.parametrize("important", [True, False])
def test_each_half_has_the_distribution_of_algorithm_3(important: bool) -> None:
    generator, draws = seeded(), 40_000
    sizes = uniform_sizes(4, 2 * draws, generator)
    rows = informed_coalitions(torch.tensor([PHI]), sizes, generator)[0]
    half = rows[:draws] if important else rows[draws:]
    expected = draws * algorithm_3(PHI, important=important)
    observed = codes(half).bincount(minlength=16)
    # Coalitions that need a patch of no weight while others are left have no chance, but for the smallest weight.
    possible = expected > 0
    assert observed[~possible].sum() <= 3
    assert scipy.stats.chisquare(observed[possible], expected[possible], sum_check=False).pvalue > 0.001
    assert possible.sum() >= 8


def test_sizes_are_uniform_from_one_to_all() -> None:
    sizes = uniform_sizes(5, 20_000, seeded())
    counts = sizes.bincount(minlength=6)
    assert (len(counts), int(counts[0])) == (6, 0)
    assert scipy.stats.chisquare(counts[1:]).pvalue > 0.001


def test_every_coalition_has_the_size_asked_for() -> None:
    phi = torch.randn(3, 9, generator=seeded())
    shared = uniform_sizes(9, 32, seeded(1))
    rows = informed_coalitions(phi, shared, seeded(2))
    assert (rows.dtype, tuple(rows.shape)) == (torch.bool, (3, 32, 9))
    assert torch.equal(rows.sum(2), shared.expand(3, -1))
    own = torch.randint(1, 10, (3, 8), generator=seeded(3))
    assert torch.equal(informed_coalitions(phi, own, seeded(4)).sum(2), own)


def test_images_are_drawn_apart_and_each_with_its_own_weights() -> None:
    phi = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0], [0.2, 0.9, 0.4, 0.0], [0.2, 0.9, 0.4, 0.0]])
    rows = informed_coalitions(phi, torch.ones(400, dtype=torch.long), seeded())
    assert rows[0, :200, 0].double().mean() > 0.99
    assert rows[1, :200, 3].double().mean() > 0.99
    assert not torch.equal(rows[2], rows[3])


def test_the_generator_alone_decides_informed_masks() -> None:
    phi, sizes = torch.randn(2, 9, generator=seeded()), uniform_sizes(9, 16, seeded(1))
    state = torch.random.get_rng_state()
    first = informed_coalitions(phi, sizes, seeded(2))
    assert torch.equal(informed_coalitions(phi, sizes, seeded(2)), first)
    assert not torch.equal(informed_coalitions(phi, sizes, seeded(3)), first)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("phi", "sizes"), [((2, 4), (3,)), ((2, 4), (2, 3)), ((2, 4), (3, 2)), ((4,), (2,)), ((2, 2, 4), (2,))], ids=str
)
def test_shapes_that_do_not_fit_are_refused(phi: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="even S"):
        informed_coalitions(torch.rand(phi), torch.ones(sizes, dtype=torch.long), seeded())
