"""Kernel SHAP that starts at a guess of the values and moves away from it as far as the answers say so.

Regression adjustment (Witter et al. 2025) takes a guess as an additive game whose Shapley values are known, and
estimates what it leaves. With few coalitions least squares then overfits what is left, and a guess of another scale (a
trained explainer's log-odds beside probabilities) is worth nothing. Here the guess has a scale of its own and the rest
a ridge, both told by the answers of each game itself (the kriging of statistics: a trend, and deviations from it).
"""

import torch
from torch import Tensor

from xai.shapley.design import Design, Game
from xai.shapley.kernel_shap import asked

_RIDGES = torch.logspace(-6, 4, 41, dtype=torch.float64)
"""Penalties that are tried, relative to the mean of the directions that the design weighs."""
_NOTHING = 1e-12
"""A guess that explains less than this share of what one of its size could explains nothing."""


def kernel_shap_with_proxy(
    game: Game, coalitions: int, generator: torch.Generator, proxy: Tensor, *, sampler: str = "leverage"
) -> Tensor:
    """Shapley values from few coalitions and a guess.

    Args:
        game: B games of M players, each with one value a coalition.
        coalitions: P, even; the empty and the full one come on top. Where it allows all of them, the values are exact.
        generator: Source of the coalitions.
        proxy: [B, M], the guess; its scale and its sum do not matter, and a constant one is no guess.
        sampler: One that draws pairs of complements; see `xai.shapley.coalitions.sample`.

    Returns:
        [B, M] in the dtype of the values; computed in float64. They add up to v(N) - v(empty).

    Raises:
        ValueError: Where the proxy is of another shape, or the sampler draws no pairs.
    """
    design, values, empty, full = asked(game, coalitions, generator, sampler)
    if not design.paired or proxy.shape != (len(values), game.players):
        raise ValueError(
            f"a proxy {list(proxy.shape)} and sampler={sampler}: pairs of complements and a guess "
            f"{[len(values), game.players]} are needed"
        )
    share = (full - empty).double()[:, None] / game.players
    guess = proxy.to(share)
    guess = guess - guess.mean(1, keepdim=True)
    rows, answers = odd_part(design, values, share)
    certain = bool((design.inclusion == 1).all())
    return (share + (least_squares(rows, answers) if certain else likely(rows, answers, guess))).to(values.dtype)


def odd_part(design: Design, values: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """What a paired design says: rows [n, M] and answers [B, n], n pairs, each times the root of its weight.

    The answer is half the difference of v(S) and v of its complement, less that of the even share [B, 1]; the row of S
    less its mean is what deviations that sum to zero explain of it. What the two halves have in common bears on no
    Shapley value.
    """
    root = (design.weights[::2] / design.weights.max()).to(values.device).sqrt()
    z = design.coalitions[::2].to(values.device, torch.float64)
    half = (values[:, 0::2].double() - values[:, 1::2].double()) / 2
    return root[:, None] * (z - z.mean(1, keepdim=True)), root * (half - share * (z.sum(1) - z.shape[1] / 2))


def least_squares(rows: Tensor, answers: Tensor) -> Tensor:
    """The smallest deviations [B, M] that fit the answers best."""
    return answers @ torch.linalg.pinv(rows, rtol=_NOTHING**0.5).T


def likely(rows: Tensor, answers: Tensor, guess: Tensor, ridges: Tensor = _RIDGES) -> Tensor:
    """What is to be expected of the deviations, the answers being what they are.

    The answers are `rows` times (scale times guess plus deviations) plus noise. The deviations are normal, with the
    variance of the noise over a ridge; nothing is said beforehand of the scale, but that it is not negative. Ridges are
    weighed by their restricted likelihood (Patterson and Thompson 1971), so that no decision rests on a single one.

    Args:
        rows: [n, M] float64.
        answers: [B, n] float64.
        guess: [B, M] float64, of sum zero.
        ridges: [L] penalties, relative to the mean of the non-zero eigenvalues of rows rows^T.

    Returns:
        [B, M], the scale times the guess plus the deviations.
    """
    size, vectors = torch.linalg.eigh(rows @ rows.T)
    size = size.where(size > 1e-9 * size[-1], 0.0)
    ridge = ridges.to(size) * size.sum() / (size > 0).sum()
    y, a = answers @ vectors, guess @ rows.T @ vectors
    told = a.square().sum(1) > _NOTHING * guess.square().sum(1) * size[-1]
    variance = 1 + size / ridge[:, None]
    along, across = (torch.einsum("bn,ln->bl", part, 1 / variance) for part in (a.square(), a * y))
    along = along.where(told[:, None], 1.0)
    scale = (across / along).clamp(min=0).where(told[:, None], 0.0)
    rest = y[:, None] - scale[:, :, None] * a[:, None]
    left = torch.einsum("bln,ln->bl", rest.square(), 1 / variance).clamp(min=torch.finfo(torch.float64).tiny)
    free = len(rows) - told.double()[:, None]
    likelihood = -0.5 * (free * left.log() + variance.log().sum(1) + along.log())
    chance = likelihood.softmax(1)
    deviations = torch.einsum("bl,bln,ln->bn", chance, rest, 1 / (size + ridge[:, None])) @ vectors.T @ rows
    return (chance * scale).sum(1, keepdim=True) * guess + deviations
