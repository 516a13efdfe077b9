"""How likely Algorithm 3 of SALVAGE is to draw a coalition, and what weighs its draws back to the Shapley kernel.

Least squares have the Shapley values as their minimiser where coalitions count as in the Shapley kernel p (Lundberg and
Lee 2017, theorem 2), and nowhere else in general. Coalitions drawn from another q have to be weighed by p(S) / q(S).
"""

import math

import torch
from torch import Tensor

from xai.sampling import SMALLEST_WEIGHT, importance_weights
from xai.shapley.design import shapley_kernel_sizes

_STEP = 0.25
"""Of the trapezoidal rule over the logarithm of time; halved, it changes no chance by more than 1e-9 of itself."""
_EARLY, _LATE = -22.0, 5.0
"""Where the rule begins and ends, as logarithms of multiples of the time at which the next patch is due."""


def draw_chances(weights: Tensor, coalitions: Tensor) -> Tensor:
    """How likely a draw without replacement (`xai.sampling.weighted_ranks`) is to begin with the patches of S.

    A patch of weight w comes at a time that is exponential with rate w; the order of arrival is the draw. So S comes
    first where the last of S is there before the first of the others:
    P(S) = integral of W exp(-W t) times the product over S of (1 - exp(-w_i t)) dt, W the weight of all others. Over
    x = log t the integrand is smooth and falls off at both ends, so that the trapezoidal rule converges geometrically.

    Args:
        weights: [B, M], 0 or more; what is below `SMALLEST_WEIGHT` counts as that.
        coalitions: Bool [B, S, M]. What is summed over is all coalitions of one size: their chances add up to 1.

    Returns:
        Log P(S), [B, S] in float64; 0 for the empty and the full coalition.
    """
    weights, keep = weights.double().clamp(min=SMALLEST_WEIGHT), coalitions.double()
    rest = torch.einsum("bsm,bm->bs", 1 - keep, weights)
    first, last = _EARLY - float(weights.sum(1).max().log()), _LATE - float(weights.min().log())
    x = torch.arange(first, last, _STEP, dtype=torch.float64, device=weights.device)
    times = x.exp()
    there = torch.log(-torch.expm1(-weights[:, :, None] * times))
    log_rest = rest.clamp(min=SMALLEST_WEIGHT).log()
    terms = torch.bmm(keep, there) - rest[:, :, None] * times + log_rest[:, :, None] + x
    found = torch.logsumexp(terms, dim=2) + math.log(_STEP)
    return found.masked_fill(coalitions.all(2), 0.0)


def informed_chances(phi: Tensor, coalitions: Tensor) -> Tensor:
    """Algorithm 3: log q(S) over both of its halves, sizes from 1 to M alike; [B, S] in float64.

    Args:
        phi: [B, M] the attributions that the draws are by.
        coalitions: Bool [B, S, M], none of them empty.
    """
    important = importance_weights(phi)
    halves = torch.stack([draw_chances(weights, coalitions) for weights in (important, 1 - important)])
    return torch.logsumexp(halves, dim=0) - math.log(2 * phi.shape[1])


def kernel_chances(coalitions: Tensor) -> Tensor:
    """Log p(S) of the Shapley kernel, [B, S] in float64; minus infinity for the empty and the full coalition."""
    players, sizes = coalitions.shape[-1], coalitions.sum(-1)
    of_size = [-math.inf, *shapley_kernel_sizes(players).log().tolist(), -math.inf]
    chances = [of_size[size] - math.log(math.comb(players, size)) for size in range(players + 1)]
    return torch.tensor(chances, dtype=torch.float64, device=sizes.device)[sizes]


@torch.no_grad()
def kernel_weights(phi: Tensor, coalitions: Tensor, informed: float = 1.0) -> Tensor:
    """p(S) / q(S) of coalitions of which a share was drawn by Algorithm 3, and the others from the Shapley kernel.

    q is the mixture of both (the balance heuristic, Veach and Guibas 1995), so that no weight is above
    1 / (1 - informed): a half of the kernel's own draws bounds them by 2 (defensive mixture, Hesterberg 1995).

    With informed=1 there is no bound, and next to none of the weight is where it should be: the patch of the least
    attribution has no weight in one half of Algorithm 3, that of the largest none in the other, so that coalitions
    with both of them, a third of the kernel, have a chance that `SMALLEST_WEIGHT` alone keeps from 0. The mean is
    right, its variance is not to be paid for.

    Args:
        phi: [B, M].
        coalitions: Bool [B, S, M], none of them empty.
        informed: The share, above 0 and at most 1.

    Returns:
        [B, S] in float64, constants to autograd. 0 for the full coalition, which is not in the kernel.
    """
    kernel, drawn = kernel_chances(coalitions), informed_chances(phi, coalitions) + math.log(informed)
    if informed < 1:
        drawn = torch.logaddexp(drawn, kernel + math.log1p(-informed))
    return (kernel - drawn).exp()
