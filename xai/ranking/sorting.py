"""Gumbel-Sinkhorn sorting (Mena et al. 2018): an order as a doubly stochastic matrix that gradients flow through.

Sinkhorn's normalisation is done in log space, with its exact derivative and without a copy for each iteration. With
potentials f [d] of the rows and g [d] of the columns, all that an iteration changes is 2 d numbers:

    g <- log sum_i exp(X_ij - f_i)      columns
    f <- log sum_j exp(X_ij - g_j)      then rows
    P  = exp(X_ij - f_i - g_j)

The plain loop keeps 2 n matrices [d, d] for its way back; here the potentials of each iteration are kept instead. What
training asks for are masks alone, which `xai.ranking.masks` has faster, where scores are not too sharp for that.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xai.rounding import at_least_float32

_SMALLEST, _LARGEST = torch.finfo(torch.float32).tiny, 1 - 2**-24
"""Of a uniform number: both of its logarithms are finite between them."""


def sinkhorn(scores: Tensor, iterations: int) -> Tensor:
    """Normalise the columns and then the rows of exp(scores), again and again (Sinkhorn and Knopp 1967).

    Args:
        scores: [..., d, d], finite logarithms of any size.
        iterations: How often both are normalised; 1 or more.

    Returns:
        [..., d, d], rows adding up to 1, columns nearly so: to rounding after enough iterations. Its derivative is that
        of the iterations as they were run, not that of their limit.

    Raises:
        ValueError: For matrices that are not square, or no iteration.
    """
    if scores.ndim < 2 or scores.shape[-1] != scores.shape[-2]:
        raise ValueError(f"scores are {list(scores.shape)}: they have to be square matrices [..., d, d]")
    if iterations < 1:
        raise ValueError(f"iterations={iterations}: at least 1 is needed")
    # Half precision has too few digits to add up hundreds of terms.
    matrices = at_least_float32(scores).reshape(-1, *scores.shape[-2:])
    with torch.autocast(scores.device.type, enabled=False):
        return _Sinkhorn.apply(matrices, iterations).reshape(scores.shape)


def plain_sinkhorn(scores: Tensor, iterations: int) -> Tensor:
    """The same as a loop that autograd follows: 2 `iterations` copies of the matrix are kept. For comparison."""
    for _ in range(iterations):
        scores = scores - scores.logsumexp(-2, keepdim=True)
        scores = scores - scores.logsumexp(-1, keepdim=True)
    return scores.exp()


class _Sinkhorn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, iterations: int) -> Tensor:
        columns = scores.logsumexp(1)
        rows = (scores - columns[:, None]).logsumexp(2)
        logs = _log_matrix(scores, rows, columns)
        f, g = _potentials(logs, iterations)
        ctx.save_for_backward(scores, rows, columns, f, g)
        return _matrix(logs, f[-1], g[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        scores, rows, columns, f, g = ctx.saved_tensors
        logs = _log_matrix(scores, rows, columns)
        total = gradients[0] * _matrix(logs, f[-1], g[-1])
        of_rows, of_columns = -total.sum(2), -total.sum(1)
        for t in range(len(f) - 1, -1, -1):
            by_rows = _matrix(logs, f[t], g[t]) * of_rows[:, :, None]
            total += by_rows
            of_columns = of_columns - by_rows.sum(1)
            if t == 0:
                break
            by_columns = _matrix(logs, f[t - 1], g[t]) * of_columns[:, None]
            total += by_columns
            of_rows, of_columns = -by_columns.sum(2), torch.zeros_like(of_columns)
        # Before the first iteration the rows have no potential.
        return total.addcmul_((scores - columns[:, None]).exp_(), of_columns[:, None]), None


def _potentials(logs: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Potentials of rows and columns after each iteration, both [n, B, d]: what cannot overflow.

    They are those of the matrix that the first iteration leaves: where its entries matter its logarithms are small, and
    lose no digits as scores of thousands do.
    """
    f, g = [torch.zeros_like(logs[:, :, 0])], [torch.zeros_like(logs[:, 0])]
    for _ in range(iterations - 1):
        g.append((logs - f[-1][:, :, None]).logsumexp(1))
        f.append((logs - g[-1][:, None]).logsumexp(2))
    return torch.stack(f), torch.stack(g)


def _log_matrix(scores: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return (scores - columns[:, None]).sub_(rows[:, :, None])


def _matrix(scores: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return _log_matrix(scores, rows, columns).exp_()


def anchors(scores: Tensor) -> Tensor:
    """A [d], what the score of each rank is compared with: from 1 down to 0."""
    return torch.linspace(1, 0, scores.shape[1], device=scores.device, dtype=scores.dtype)


def assignment_scores(scores: Tensor, noise: Tensor | None, temperature: float) -> Tensor:
    """Log-affinity of each rank and each cell: (-(s_j - a_i)^2 + noise) / temperature, anchors a from 1 down to 0.

    Sinkhorn takes s_j^2 and a_i^2 away again, so what is left is 2 a_i s_j: the scale of the scores decides how sharp
    the order is, and scores that live in [0, 1] cannot make it sharp.

    Args:
        scores: s [B, d], higher is more important.
        noise: [B, d, d], standard Gumbel; None sorts without noise.
        temperature: tau, above 0.

    Returns:
        [B, d, d]; row i is rank i, column j is cell j.
    """
    affinity = -(scores[:, None, :] - anchors(scores)[:, None]).square()
    return (affinity if noise is None else affinity + noise) / temperature


def soft_sort(scores: Tensor, noise: Tensor | None, temperature: float, iterations: int) -> Tensor:
    """The order of the scores as a soft permutation.

    Args:
        scores: [B, d], higher is more important.
        noise: [B, d, d] standard Gumbel noise, or None.
        temperature: tau, above 0; the lower, the closer to a permutation.
        iterations: Of Sinkhorn's normalisation.

    Returns:
        P [B, d, d], at least float32: row i says which cell is ranked i-th, the most important first.
    """
    return sinkhorn(assignment_scores(at_least_float32(scores), noise, temperature), iterations)


def gumbel_noise(batch: int, cells: int, generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise [B, d, d] in float32, on the device of the generator."""
    # Of a uniform number: torch draws exponential ones on a CPU, the way to them that is one kernel, a fifth as fast.
    noise = torch.empty(batch, cells, cells, device=generator.device).uniform_(generator=generator)
    return noise.clamp_(_SMALLEST, _LARGEST).log_().neg_().log_().neg_()
