from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import kstest
from torch import Tensor

from tests.toolbox import randn, seeded
from xai.ranking.sorting import (
    assignment_scores,
    gumbel_noise,
    plain_sinkhorn,
    sinkhorn,
    soft_sort,
)


def test_affinities_are_the_published_ones() -> None:
    scores, noise = randn(2, 4), randn(2, 4, 4, seed=1)
    found = assignment_scores(scores, noise, 0.3)
    for image in range(2):
        for rank, anchor in enumerate([1, 2 / 3, 1 / 3, 0]):
            for cell in range(4):
                affinity = -((scores[image, cell] - anchor) ** 2) + noise[image, rank, cell]
                torch.testing.assert_close(found[image, rank, cell], affinity / 0.3)
    assert torch.equal(assignment_scores(scores, None, 0.3), assignment_scores(scores, torch.zeros(2, 4, 4), 0.3))


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


def gradient(function: object, scores: Tensor, iterations: int) -> Tensor:
    leaf = scores.clone().requires_grad_()
    result = function(leaf, iterations)
    (found,) = torch.autograd.grad((result * randn(*result.shape, seed=9).to(result)).sum(), leaf)
    return found


def kept(function: object, iterations: int, cells: int) -> int:
    """Elements of all tensors that autograd keeps for the way back."""
    sizes = []

    def keep(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        function(randn(1, cells, cells).requires_grad_(), iterations)
    return sum(sizes)


@pytest.mark.parametrize("iterations", [1, 4])
def test_the_plain_loop_divides_columns_and_then_rows_by_their_sums(iterations: int) -> None:
    scores = randn(2, 5, 5)
    expected = scores.exp()
    for _ in range(iterations):
        expected = expected / expected.sum(1, keepdim=True)
        expected = expected / expected.sum(2, keepdim=True)
    torch.testing.assert_close(plain_sinkhorn(scores, iterations), expected)


@pytest.mark.parametrize("iterations", [1, 2, 30])
@pytest.mark.parametrize("scale", [0.0, 1.0, 8.0])
def test_values_and_gradients_are_those_of_the_plain_loop(scale: float, iterations: int) -> None:
    scores = scale * randn(3, 7, 7)
    torch.testing.assert_close(sinkhorn(scores, iterations), plain_sinkhorn(scores, iterations), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        gradient(sinkhorn, scores, iterations), gradient(plain_sinkhorn, scores, iterations), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_the_derivative_is_that_of_finite_differences(iterations: int) -> None:
    assert torch.autograd.gradcheck(lambda scores: sinkhorn(scores, iterations), 2 * randn(2, 4, 4).requires_grad_())


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
def test_rows_and_columns_add_up_to_one(temperature: float) -> None:
    result = sinkhorn(randn(2, 6, 6) / temperature, 5000)
    torch.testing.assert_close(result.sum(2), torch.ones(2, 6).double())
    torch.testing.assert_close(result.sum(1), torch.ones(2, 6).double(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("level", [0.0, -1e4, 1e4])
def test_constant_scores_are_spread_evenly(level: float) -> None:
    torch.testing.assert_close(sinkhorn(torch.full((1, 9, 9), level), 3), torch.full((1, 9, 9), 1 / 9))


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.03, 0.01])
def test_single_precision_stays_finite_at_every_temperature(temperature: float) -> None:
    scores = (randn(2, 49, 49) / temperature).float()
    result, slope = sinkhorn(scores, 30), gradient(sinkhorn, scores, 30)
    assert result.isfinite().all()
    assert slope.isfinite().all()
    torch.testing.assert_close(result.double(), plain_sinkhorn(scores.double(), 30), rtol=0, atol=1e-3)
    torch.testing.assert_close(slope.double(), gradient(plain_sinkhorn, scores.double(), 30), rtol=0, atol=1e-2)


def test_an_iteration_keeps_two_numbers_a_row_and_not_the_matrix() -> None:
    cells = 20
    assert kept(sinkhorn, 40, cells) - kept(sinkhorn, 10, cells) == 30 * 2 * cells
    assert kept(sinkhorn, 10, cells) <= 2 * cells**2 + 21 * cells
    assert kept(plain_sinkhorn, 40, cells) - kept(plain_sinkhorn, 10, cells) >= 30 * 2 * cells**2


@pytest.mark.parametrize("shape", [(5, 5), (2, 3, 5, 5)])
def test_any_number_of_leading_dimensions(shape: tuple[int, ...]) -> None:
    torch.testing.assert_close(sinkhorn(randn(*shape), 4), plain_sinkhorn(randn(*shape), 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    scores = randn(1, 8, 8).to(dtype)
    assert torch.equal(sinkhorn(scores, 5), sinkhorn(scores.float(), 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sinkhorn(scores.float(), 5), sinkhorn(scores, 5))


def test_a_second_derivative_is_refused_instead_of_wrong() -> None:
    leaf = randn(1, 3, 3).requires_grad_()
    (slope,) = torch.autograd.grad(sinkhorn(leaf, 2).square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize(
    ("shape", "iterations", "line"), [((3, 4), 2, r"\[3, 4\]"), ((3,), 2, r"\[3\]"), ((3, 3), 0, "iterations=0")]
)
def test_what_cannot_be_normalised_is_refused(shape: tuple[int, ...], iterations: int, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        sinkhorn(torch.zeros(shape), iterations)
