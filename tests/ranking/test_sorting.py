from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import kstest

from tests.toolbox import randn, seeded
from xai.core.errors import UserError
from xai.ranking.sorting import assignment_scores, check_finite_scores, gumbel_noise, plain_sinkhorn, soft_sort


def test_affinities_are_the_published_ones() -> None:
    scores, noise = randn(2, 4), randn(2, 4, 4, seed=1)
    found = assignment_scores(scores, noise, 0.3)
    for image in range(2):
        for rank, anchor in enumerate([1, 2 / 3, 1 / 3, 0]):
            for cell in range(4):
                affinity = -((scores[image, cell] - anchor) ** 2) + noise[image, rank, cell]
                torch.testing.assert_close(found[image, rank, cell], affinity / 0.3)
    assert torch.equal(assignment_scores(scores, None, 0.3), assignment_scores(scores, torch.zeros(2, 4, 4), 0.3))


def test_order_is_sinkhorn_of_the_affinities() -> None:
    scores, noise = randn(2, 6), randn(2, 6, 6, seed=1)
    expected = plain_sinkhorn(assignment_scores(scores, noise, 0.3), 30)
    torch.testing.assert_close(soft_sort(scores, noise, 0.3, 30), expected)


@pytest.mark.parametrize("seed", range(4))
def test_without_noise_a_low_temperature_sorts(seed: int) -> None:
    scores = torch.stack([torch.randperm(7, generator=seeded(3 * seed + image)) for image in range(3)]).double() / 6
    expected = torch.nn.functional.one_hot(scores.argsort(1, descending=True), 7).double()
    torch.testing.assert_close(soft_sort(scores, None, 1e-3, 30), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_with_noise_a_low_temperature_finds_the_best_assignment(seed: int) -> None:
    scores, noise = randn(3, 7, seed=seed), gumbel_noise(3, 7, seeded(seed)).double()
    found = soft_sort(scores, noise, 0.01, 2000)
    for affinity, order in zip(assignment_scores(scores, noise, 1.0), found, strict=True):
        ranks, cells = linear_sum_assignment(affinity.numpy(), maximize=True)
        assert np.array_equal(order.argmax(1).numpy()[ranks], cells)


def test_a_constant_added_to_all_scores_changes_nothing_in_the_limit() -> None:
    scores, noise = randn(2, 6), randn(2, 6, 6, seed=1)
    expected = soft_sort(scores, noise, 0.3, 300)
    torch.testing.assert_close(soft_sort(scores + 7, noise, 0.3, 300), expected)


def test_the_scale_of_the_scores_sharpens_the_order() -> None:
    scores = randn(2, 9)
    sharpness = [soft_sort(scale * scores, None, 0.3, 200).amax(2).mean() for scale in (0.0, 0.5, 2.0, 8.0)]
    assert sharpness[0] == pytest.approx(1 / 9)
    assert all(sharper > 1.2 * dull for dull, sharper in pairwise(sharpness))


def test_half_precision_scores_are_sorted_in_single() -> None:
    scores = randn(2, 6).bfloat16()
    found = soft_sort(scores, None, 0.3, 30)
    assert found.dtype == torch.float32
    assert torch.equal(found, soft_sort(scores.float(), None, 0.3, 30))


def test_noise_is_standard_gumbel() -> None:
    noise = gumbel_noise(4, 150, seeded())
    assert noise.shape == (4, 150, 150)
    assert noise.dtype == torch.float32
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=4 * 1.2825 / 300)
    assert noise.var().item() == pytest.approx(np.pi**2 / 6, abs=0.04)
    assert kstest(noise.flatten().numpy(), "gumbel_r").pvalue > 1e-3


def test_noise_comes_from_the_generator_alone() -> None:
    torch.manual_seed(0)
    first = gumbel_noise(1, 5, seeded(1))
    torch.manual_seed(1)
    assert torch.equal(first, gumbel_noise(1, 5, seeded(1)))
    assert not torch.equal(first, gumbel_noise(1, 5, seeded(2)))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_has_no_order_is_refused_by_the_number_of_its_image(bad: float) -> None:
    maps = torch.zeros(4, 3, 3)
    check_finite_scores(maps)
    maps[2:, 1, 1] = bad
    with pytest.raises(UserError, match=r"^the map of image 2 of the batch .* NaN or infinity: nothing to rank$"):
        check_finite_scores(maps)
