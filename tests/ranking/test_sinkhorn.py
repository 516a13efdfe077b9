import math

import pytest
import torch
from torch import Tensor

from tests.toolbox import randn
from xai.ranking import sorting as module
from xai.ranking.sorting import assignment_scores, plain_sinkhorn, sinkhorn

WAYS = {"scaling": math.inf, "potentials": -1.0}
"""Bounds of the drift that leave one way of computing it."""


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(module, "_LARGEST_DRIFT", WAYS[request.param])
    return request.param


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
def test_values_and_gradients_are_those_of_the_plain_loop(way: str, scale: float, iterations: int) -> None:
    scores = scale * randn(3, 7, 7)
    torch.testing.assert_close(sinkhorn(scores, iterations), plain_sinkhorn(scores, iterations), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        gradient(sinkhorn, scores, iterations), gradient(plain_sinkhorn, scores, iterations), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_the_derivative_is_that_of_finite_differences(way: str, iterations: int) -> None:
    assert torch.autograd.gradcheck(lambda scores: sinkhorn(scores, iterations), 2 * randn(2, 4, 4).requires_grad_())


def drift(scores: Tensor) -> float:
    columns = scores.logsumexp(1)
    rows = (scores - columns[:, None]).logsumexp(2)
    return float(module._drift(module._scalings(scores, rows, columns, 30)))


def test_scores_that_no_kernel_holds_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = assignment_scores(20 * randn(1, 49), 3 * randn(1, 49, 49, seed=1), 0.01).float()
    assert not drift(scores) <= module._LARGEST_DRIFT
    expected, expected_slope = plain_sinkhorn(scores.double(), 30), gradient(plain_sinkhorn, scores.double(), 30)
    torch.testing.assert_close(sinkhorn(scores, 30).double(), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(gradient(sinkhorn, scores, 30).double(), expected_slope, rtol=0, atol=1e-4)
    monkeypatch.setattr(module, "_LARGEST_DRIFT", math.inf)
    assert not gradient(sinkhorn, scores, 30).isfinite().all()


@pytest.mark.parametrize("scale", [200, 300])
def test_a_drift_just_below_the_bound_costs_no_accuracy(scale: float) -> None:
    scores = (scale * randn(1, 12, 12)).float()
    assert 50 < drift(scores) <= module._LARGEST_DRIFT
    expected, expected_slope = plain_sinkhorn(scores.double(), 30), gradient(plain_sinkhorn, scores.double(), 30)
    torch.testing.assert_close(sinkhorn(scores, 30).double(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient(sinkhorn, scores, 30).double(), expected_slope, rtol=0, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
def test_rows_and_columns_add_up_to_one(temperature: float) -> None:
    result = sinkhorn(randn(2, 6, 6) / temperature, 5000)
    torch.testing.assert_close(result.sum(2), torch.ones(2, 6).double())
    torch.testing.assert_close(result.sum(1), torch.ones(2, 6).double(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("level", [0.0, -1e4, 1e4])
def test_constant_scores_are_spread_evenly(way: str, level: float) -> None:
    torch.testing.assert_close(sinkhorn(torch.full((1, 9, 9), level), 3), torch.full((1, 9, 9), 1 / 9))


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.03, 0.01])
def test_single_precision_stays_finite_at_every_temperature(temperature: float) -> None:
    scores = (randn(2, 49, 49) / temperature).float()
    result, slope = sinkhorn(scores, 30), gradient(sinkhorn, scores, 30)
    assert result.isfinite().all()
    assert slope.isfinite().all()
    torch.testing.assert_close(result.double(), plain_sinkhorn(scores.double(), 30), rtol=0, atol=1e-3)
    torch.testing.assert_close(slope.double(), gradient(plain_sinkhorn, scores.double(), 30), rtol=0, atol=1e-2)


def test_an_iteration_keeps_two_numbers_a_row_and_not_the_matrix(way: str) -> None:
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
