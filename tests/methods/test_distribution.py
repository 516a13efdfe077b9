"""Shapley distributions against loops in float64 and scipy, and what a fit of them finds."""

import itertools
import math

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
import torch
from torch import Tensor

from tests.shapley.tables import TableGame, all_rows, shapley_by_permutations
from xai.methods.salvage import (
    DIVERGENCES,
    distribution_loss,
    distribution_values,
    jensen_shannon,
    kullback_leibler,
    shapley_distribution,
)
from xai.shapley.exact import exact_shapley
from xai.shapley.permutation import antithetic_orders

PLAYERS = 4
EVERY = all_rows(PLAYERS)[None]
HALVES = [torch.bfloat16, torch.float16]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def coalitions(images: int, rows: int, players: int = PLAYERS) -> Tensor:
    return torch.rand(images, rows, players, generator=torch.Generator().manual_seed(1)) < 0.5


def equation_4(present: Tensor, absent: Tensor, keep: Tensor, temperature: float = 1.0) -> Tensor:
    """u(S) [B, S, C] of a softmax, patch by patch."""
    found = torch.zeros(*keep.shape[:2], present.shape[2], dtype=torch.float64)
    for image, row in itertools.product(range(keep.shape[0]), range(keep.shape[1])):
        scores = []
        for target in range(present.shape[2]):
            terms = [
                float((present if keep[image, row, patch] else absent)[image, patch, target])
                for patch in range(keep.shape[2])
            ]
            scores.append(sum(terms) / temperature)
        whole = sum(math.exp(score) for score in scores)
        found[image, row] = torch.tensor([math.exp(score) / whole for score in scores], dtype=torch.float64)
    return found


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_u_is_equation_4_with_a_softmax(temperature: float) -> None:
    present, absent, keep = draw(2, PLAYERS, 3), draw(2, PLAYERS, 3, seed=1), coalitions(2, 6)
    found = shapley_distribution(present, absent, keep, temperature).exp()
    torch.testing.assert_close(found, equation_4(present, absent, keep, temperature), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 8.0])
def test_jensen_shannon_is_scipys(sharpness: float) -> None:
    log_u, log_v = (sharpness * draw(50, 5, seed=seed) for seed in (2, 3))
    log_u, log_v = log_u.log_softmax(-1), log_v.log_softmax(-1)
    # scipy calls the root of the divergence the distance.
    expected = scipy.spatial.distance.jensenshannon(log_u.exp().numpy(), log_v.exp().numpy(), axis=-1) ** 2
    np.testing.assert_allclose(jensen_shannon(log_u, log_v).numpy(), expected, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(jensen_shannon(log_v, log_u), jensen_shannon(log_u, log_v), rtol=1e-12, atol=1e-15)
    assert jensen_shannon(log_u, log_u).abs().max() < 1e-15


def test_kullback_leibler_is_scipys_entropy_of_v_relative_to_u() -> None:
    log_u, log_v = (draw(50, 5, seed=seed).log_softmax(-1) for seed in (2, 3))
    expected = scipy.stats.entropy(log_v.exp().numpy(), log_u.exp().numpy(), axis=-1)
    np.testing.assert_allclose(kullback_leibler(log_u, log_v).numpy(), expected, rtol=1e-10)


def test_what_has_no_probability_at_all_counts_nothing() -> None:
    log_u = torch.tensor([[0.0, -math.inf, -math.inf], [0.0, -math.inf, -math.inf]], dtype=torch.float64)
    log_v = torch.tensor([[-math.inf, 0.5, 0.5], [0.5, 0.5, 0.0]], dtype=torch.float64)
    log_v[log_v > -math.inf] = log_v[log_v > -math.inf].log()
    expected = [math.log(2), (math.log(4 / 3) + 0.5 * math.log(2 / 3) + 0.5 * math.log(2)) / 2]
    assert jensen_shannon(log_u, log_v).tolist() == pytest.approx(expected)
    assert kullback_leibler(log_v, log_u)[1].item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_loss_is_the_mean_divergence_over_images_and_coalitions(name: str) -> None:
    present, absent, keep = draw(2, PLAYERS, 3), draw(2, PLAYERS, 3, seed=1), coalitions(2, 6)
    log_v = draw(2, 6, 3, seed=2).log_softmax(-1)
    u, v = equation_4(present, absent, keep, 2.0).flatten(0, 1).numpy(), log_v.exp().flatten(0, 1).numpy()
    of_each = {
        "jensen_shannon": [scipy.spatial.distance.jensenshannon(a, b) ** 2 for a, b in zip(u, v, strict=True)],
        "kullback_leibler": [scipy.stats.entropy(b, a) for a, b in zip(u, v, strict=True)],
    }
    found = distribution_loss(present, absent, keep, log_v, temperature=2.0, divergence=name)
    assert found.item() == pytest.approx(np.mean(of_each[name]), rel=1e-10)


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("size", [1e-4, 30.0, 1e4])
def test_neither_loss_nor_gradient_is_ever_nan(name: str, dtype: torch.dtype, size: float) -> None:
    signs = [draw(2, PLAYERS, 3, seed=seed).sign() for seed in range(2)]
    present, absent = ((size * sign).to(dtype).requires_grad_() for sign in signs)
    # Predictions as sure of themselves, of which all but one underflow as probabilities.
    log_v = (size * draw(2, 16, 3, seed=2).sign()).to(dtype).log_softmax(-1)
    loss = distribution_loss(present, absent, EVERY.expand(2, -1, -1), log_v, divergence=name)
    gradients = torch.autograd.grad(loss, (present, absent))
    assert loss.isfinite()
    # Logarithms that are rounded to half precision belong to probabilities that add up to a little less or more.
    assert loss > -0.01
    assert all(gradient.isfinite().all() for gradient in gradients)
    if name == "jensen_shannon":
        assert loss <= math.log(2) * (1 + 1e-6)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_left_before_anything_is_added_up(dtype: torch.dtype) -> None:
    present, absent = draw(2, 64, 3).to(dtype), draw(2, 64, 3, seed=1).to(dtype)
    keep = coalitions(2, 6, 64)
    found = shapley_distribution(present, absent, keep)
    assert found.dtype == torch.float32
    expected = shapley_distribution(present.double(), absent.double(), keep)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_autocast_does_not_touch_the_loss() -> None:
    present, absent, keep = draw(2, 64, 3).float(), draw(2, 64, 3, seed=1).float(), coalitions(2, 6, 64)
    log_v = draw(2, 6, 3, seed=2).float().log_softmax(-1)
    expected = distribution_loss(present, absent, keep, log_v)
    with torch.autocast("cpu", torch.bfloat16):
        found = distribution_loss(present, absent, keep, log_v)
        assert torch.bmm(present, absent.mT).dtype == torch.bfloat16
    assert torch.equal(found, expected)


def test_the_gradient_of_kullback_leibler_is_u_minus_v_and_that_of_jensen_shannon_may_vanish_far_from_v() -> None:
    logits = torch.tensor([[9.0, -9.0]], dtype=torch.float64, requires_grad=True)
    log_v = torch.tensor([[-9.0, 9.0]], dtype=torch.float64).log_softmax(-1)
    (pull,) = torch.autograd.grad(kullback_leibler(logits.log_softmax(-1), log_v).sum(), logits)
    torch.testing.assert_close(pull, logits.detach().softmax(-1) - log_v.exp())
    assert pull.abs().min() > 0.99
    (pull,) = torch.autograd.grad(jensen_shannon(logits.log_softmax(-1), log_v).sum(), logits)
    assert pull.abs().max() < 1e-6


# What each patch says for each class, in a game that u can be equal to.
EVIDENCE = torch.tensor([[2.0, -1.0, -1.0], [0.8, -0.2, -0.6], [-0.6, 0.8, -0.2], [-1.2, -0.4, 1.6]]).double()
BASE = torch.tensor([0.3, -0.1, -0.2]).double()


def additive_game() -> Tensor:
    """Log v [1, 16, 3] of every coalition: a softmax over sums of evidence."""
    return (BASE + EVERY.double() @ EVIDENCE).log_softmax(-1)


def fitted(log_v: Tensor, divergence: str) -> tuple[Tensor, Tensor, float]:
    """phi+ and phi- [1, 4, 3] that minimise the loss over every coalition, from zero, and the loss they reach."""
    present, absent = (torch.zeros(1, PLAYERS, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimiser = torch.optim.LBFGS(
        [present, absent], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = distribution_loss(present, absent, EVERY, log_v, divergence=divergence)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return present.detach(), absent.detach(), float(closure().detach())


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_optimum_for_an_additive_game_is_its_evidence_and_orders_patches_as_shapley_values_do(name: str) -> None:
    log_v = additive_game()
    present, absent, loss = fitted(log_v, name)
    assert loss < 1e-12
    phi = (present - absent)[0]
    # Gradients of a softmax add up to nothing over classes, and so does all that starts at zero and follows them.
    torch.testing.assert_close(phi, EVIDENCE - EVIDENCE.mean(1, keepdim=True), rtol=0, atol=1e-4)
    torch.testing.assert_close(present.sum(1).softmax(-1), log_v[:, -1].exp(), rtol=0, atol=1e-5)
    exact = exact_shapley(TableGame(log_v.exp()))[0]
    assert torch.equal(phi.argsort(0), exact.argsort(0))
    assert len({tuple(column.argsort().tolist()) for column in exact.T}) == 3


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_shapley_values_of_u_over_all_orders_are_those_of_the_table_of_u(temperature: float) -> None:
    present, absent = draw(2, PLAYERS, 3), draw(2, PLAYERS, 3, seed=1)
    orders = torch.tensor(list(itertools.permutations(range(PLAYERS))))
    u = equation_4(present, absent, EVERY.expand(2, -1, -1), temperature)
    expected = torch.stack([shapley_by_permutations(u[..., target]) for target in range(3)], dim=2)
    torch.testing.assert_close(distribution_values(present, absent, orders, temperature), expected, rtol=0, atol=1e-12)


def test_shapley_values_of_u_are_the_same_however_few_orders_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    present, absent = draw(2, 8, 3), draw(2, 8, 3, seed=1)
    orders = antithetic_orders(8, 5, torch.Generator().manual_seed(0))
    whole = distribution_values(present, absent, orders)
    monkeypatch.setattr("xai.methods.salvage._NUMBERS_AT_ONCE", 1)
    torch.testing.assert_close(distribution_values(present, absent, orders), whole)
