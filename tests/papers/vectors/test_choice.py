"""The choice of alpha and lambda2 on made-up validation images."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from xai.papers.vectors.choice import Candidate, Choice, choose

N = 400
LAMBDAS = (0.4, 0.8, 1.2, 1.6)
SHARED = np.random.default_rng(0).normal(size=N)


def errors(means: tuple[float, ...], own: float = 0.02, seed: int = 0) -> NDArray[np.float64]:
    """Squared errors of candidates that differ little from each other and much between images."""
    noise = np.random.default_rng(seed).normal(size=(N, len(means)))
    return np.array(means) + 0.3 * (SHARED - SHARED.mean())[:, None] + own * (noise - noise.mean(0))


def hits(*counts: int) -> NDArray[np.float64]:
    """The first images are right."""
    return (np.arange(N)[:, None] < np.array(counts)).astype(float)


def chosen(error: NDArray[np.float64], right: NDArray[np.float64], before: int = 380, **more: float) -> Choice:
    candidates = [(0.8, value) for value in LAMBDAS[: error.shape[1]]]
    return choose(candidates, error, right, hits(before)[:, 0], more.get("tolerance", 0.02))


def test_the_smallest_error_is_chosen_where_it_is_one() -> None:
    found = chosen(errors((1.4, 1.2, 0.9, 1.0)), hits(380, 380, 378, 376))
    assert (found.alpha, found.lambda2, found.images, found.alike) == (0.8, 1.2, N, ((0.8, 1.2),))
    gained = hits(378)[:, 0] - hits(380)[:, 0]
    assert found.gained == pytest.approx((-2 / N, gained.std(ddof=1) / math.sqrt(N)))


def test_of_what_cannot_be_told_apart_the_smallest_step_is_chosen() -> None:
    # The standard error of a paired difference is .02 sqrt(2 / 400) = .0014, although images differ by .3.
    within, beyond = errors((1.4, 0.9007, 0.9, 0.9003)), errors((1.4, 0.905, 0.9, 0.9003))
    assert chosen(within, hits(*[380] * 4)).lambda2 == 0.8
    assert chosen(within, hits(*[380] * 4)).alike == ((0.8, 0.8), (0.8, 1.2), (0.8, 1.6))
    assert chosen(beyond, hits(*[380] * 4)).lambda2 == 1.2


def test_rounding_makes_no_other_choice() -> None:
    right = hits(380, 379, 374, 371)  # 371 is below .98 x 380 = 372.4 by less than its standard error
    error = errors((1.4, 0.95, 0.9, 0.9001))
    found = chosen(error, right)
    for seed in range(20):
        jolted = error + 1e-4 * np.random.default_rng(seed).normal(size=error.shape)
        flipped = right.copy()
        flipped[np.random.default_rng(seed).integers(N), :] = 1  # one image falls the other way
        assert chosen(jolted, flipped).lambda2 == found.lambda2 == 1.2


def test_what_loses_too_much_accuracy_is_not_chosen() -> None:
    error = errors((1.2, 1.0, 0.9, 0.8))
    assert chosen(error, hits(380, 375, 372, 330)).lambda2 == 1.2
    assert chosen(error, hits(380, 375, 340, 330)).lambda2 == 0.8
    assert chosen(error, hits(380, 375, 340, 330), tolerance=0.2).lambda2 == 1.6


def test_where_none_keeps_the_accuracy_it_is_one_of_the_most_accurate() -> None:
    assert chosen(errors((1.2, 1.0, 0.9, 0.8)), hits(300, 300, 250, 200)).lambda2 == 0.8
    assert chosen(errors((1.0,)), hits(100)).lambda2 == 0.4


@pytest.mark.parametrize(("good", "expected"), [(0.9, (0.5, 0.4)), (1.0, (0.8, 0.4))])
def test_alpha_is_chosen_with_it(good: float, expected: Candidate) -> None:
    candidates = [(0.5, 0.4), (0.5, 0.8), (0.8, 0.4), (0.8, 0.8)]
    found = choose(candidates, errors((good, 1.1, 1.0, 1.1), own=0), hits(*[380] * 4), hits(380)[:, 0], 0.02)
    assert (found.alpha, found.lambda2) == expected
    single = choose(candidates, np.ones((1, 4)), np.ones((1, 4)), np.ones(1), 0.02)
    assert (single.alpha, single.lambda2, single.gained) == (0.8, 0.4, (0.0, 0.0))
