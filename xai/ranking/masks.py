"""Soft top-k masks: which share of an image is gone at each point of a path, by the soft order of a map.

`soft_masks` of a `soft_sort` says what they are. Training and refinement ask for them alone, and not for the order, so
`order_masks` makes no more matrices [d, d] than it must: after its first iteration Sinkhorn's normalisation scales the
rows and columns of one kernel K, by u_t and v_t after iteration t. An iteration is then two matrix-vector products,
and two more backward; masks are one product with K of as many vectors as there are points, and all terms of the
gradient are one of 2 n + S + 1, as what is differentiated are d scores and not d^2 affinities:

    A_ij = (2 a_i s_j - a_i^2 + noise_ij) / tau      the rest, s_j^2, goes with the first normalisation of the columns
    dA   = K * (L R),  ds_j = 2 / tau sum_k R_kj sum_i a_i L_ik K_ij
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xai.ranking.sorting import anchors, soft_sort
from xai.rounding import at_least_float32

_LARGEST_DRIFT = 60.0
"""How far, in nats, potentials may move after the first iteration: what a kernel in single precision rounds to zero,
below exp(-87), then stays below exp(-27) of a row or column in every iteration, and a thousand of it below rounding."""

_SMALLEST_ROW = 1e-10
"""Of the matrix whose columns add up to 1: what rounds to zero there is below exp(-64) of a row of this size."""

_CACHED = 5 * 2**20
"""Bytes of noise whose masks are made together on a CPU, so that its caches hold them over all iterations."""


def soft_masks(permutation: Tensor, shares: Tensor) -> Tensor:
    """How much of each cell is gone once a share of all cells is removed.

    The sum of the first k rows of P says which cells are among the k most important; between two whole k the sums are
    interpolated. Both at once: row i counts clamp(share * d - i, 0, 1).

    Args:
        permutation: P [B, d, d], row i for the cell ranked i-th.
        shares: [S] in [0, 1].

    Returns:
        [B, S, d]: 0 is there, 1 is gone; a mask adds up to share * d. A column of P adds up to 1 as far as Sinkhorn has
        come, and so does a cell in the end.
    """
    with torch.autocast(permutation.device.type, enabled=False):
        return _counted(permutation, shares) @ permutation


def order_masks(scores: Tensor, noise: Tensor, shares: Tensor, temperature: float, iterations: int) -> Tensor:
    """`soft_masks` of the `soft_sort` of scores; on a CPU of a few at a time, while its caches hold them.

    Args:
        scores: [B, d], higher is more important.
        noise: [B, d, d], standard Gumbel.
        shares: [S] in [0, 1].
        temperature: tau, above 0.
        iterations: Of Sinkhorn's normalisation.

    Returns:
        [B, S, d], at least float32.
    """
    scores = at_least_float32(scores)
    together = max(1, _CACHED // noise[0].nbytes) if scores.device.type == "cpu" else len(scores)
    pairs = zip(scores.split(together), noise.to(scores.dtype).split(together), strict=True)
    with torch.autocast(scores.device.type, enabled=False):
        return torch.cat([_masks(some, its, shares, temperature, iterations) for some, its in pairs])


def _masks(scores: Tensor, noise: Tensor, shares: Tensor, temperature: float, iterations: int) -> Tensor:
    with torch.no_grad():
        path = _scalings(*_normalised(scores, noise, temperature), iterations)
    if not _drift(path) <= _LARGEST_DRIFT:
        return soft_masks(soft_sort(scores, noise, temperature, iterations), shares)
    masks: Tensor = _Masks.apply(scores, _counted(scores, shares), temperature, *path)
    return masks


def _counted(like: Tensor, shares: Tensor) -> Tensor:
    """How much of each rank [S, d] is gone at each share."""
    cells = like.shape[-1]
    ranks = torch.arange(cells, device=like.device)
    return (shares.to(like)[:, None] * cells - ranks).clamp(0, 1)


class _Trajectory(NamedTuple):
    """Iterations of a batch as scalings of one kernel [B, d, d], which the first one leaves.

    `turned` is its transposed, written anew: a weighted sum of rows is up to five times as fast as one of columns.
    `rows` [B, d] are what its rows added up to before they were normalised, and entry t of `u` and `v`, each [n, B, d],
    the scalings after iteration t.
    """

    kernel: Tensor
    turned: Tensor
    rows: Tensor
    u: Tensor
    v: Tensor


def _normalised(scores: Tensor, noise: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The matrix that the first iteration leaves [B, d, d], and what its rows have been divided by [B, d]."""
    anchor = anchors(scores)
    of_ranks = torch.stack([2 * anchor, -anchor.square()], 1).expand(len(scores), -1, -1)
    of_cells = torch.stack([scores, torch.ones_like(scores)], 1)
    logs = torch.baddbmm(noise, of_ranks, of_cells, beta=1 / temperature, alpha=1 / temperature)
    logs.sub_(logs.logsumexp(1, keepdim=True))
    matrix = logs.exp()
    rows = matrix.sum(2)
    if not rows.amin() >= _SMALLEST_ROW:
        rows = logs.logsumexp(2)
        return logs.sub_(rows[:, :, None]).exp_(), rows.exp_()
    return matrix.mul_(1 / rows[:, :, None]), rows


def _scalings(kernel: Tensor, rows: Tensor, iterations: int) -> _Trajectory:
    turned = kernel.transpose(1, 2).contiguous()
    u, v = [torch.ones_like(rows)], [torch.ones_like(rows)]
    for _ in range(iterations - 1):
        v.append(1 / _product(u[-1], kernel))
        u.append(1 / _product(v[-1], turned))
    return _Trajectory(kernel, turned, rows, torch.stack(u), torch.stack(v))


def _product(weights: Tensor, matrices: Tensor) -> Tensor:
    """The sum of the rows of each matrix [B, d, d], weighted by [B, d]."""
    return torch.bmm(weights[:, None], matrices)[:, 0]


def _drift(path: _Trajectory) -> Tensor:
    """Largest movement of a row's and a column's potential together, in nats; NaN where a scaling overflowed."""
    return path.u.log().abs().amax() + path.v.log().abs().amax()


class _Masks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, counted: Tensor, temperature: float, *path: Tensor) -> Tensor:
        kernel, _, _, u, v = path
        masks = torch.bmm(counted * u[-1, :, None], kernel) * v[-1, :, None]
        ctx.save_for_backward(counted, masks, *path)
        ctx.temperature = temperature
        return masks

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        counted, masks, kernel, turned, rows, u, v = ctx.saved_tensors
        (gradient,) = gradients
        # Terms of dA / K, each a vector of ranks and one of cells: first of the masks as they are read from the order.
        left, right = list((counted * u[-1, :, None]).unbind(1)), list((gradient * v[-1, :, None]).unbind(1))
        of_rows = -u[-1] * (counted * torch.bmm(gradient * v[-1, :, None], turned)).sum(1)
        of_columns = -(gradient * masks).sum(1)
        for t in range(len(u) - 1, -1, -1):
            left.append(of_rows * u[t])
            right.append(v[t])
            of_columns = of_columns - v[t] * _product(left[-1], kernel)
            if t == 0:
                break
            left.append(u[t - 1])
            right.append(of_columns * v[t])
            of_rows = -u[t - 1] * _product(right[-1], turned)
            of_columns = torch.zeros_like(of_columns)
        # Before the first iteration the rows have no potential.
        left.append(rows)
        right.append(of_columns)
        by_anchor = torch.bmm(torch.stack(left, 1) * anchors(rows), kernel)
        of_scores = 2 / ctx.temperature * (by_anchor * torch.stack(right, 1)).sum(1)
        return of_scores, *(None,) * 7
