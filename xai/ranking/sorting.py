"""Gumbel-Sinkhorn sorting (Mena et al. 2018): an order as a doubly stochastic matrix that gradients flow through.

And the soft top-k masks that such an order gives: which share of an image is gone at each point of a path.

Sinkhorn's normalisation is done in log space, with its exact derivative and without a copy for each iteration. With
potentials f [d] of the rows and g [d] of the columns, all that an iteration changes is 2 d numbers:

    g <- log sum_i exp(X_ij - f_i)      columns
    f <- log sum_j exp(X_ij - g_j)      then rows
    P  = exp(X_ij - f_i - g_j)

The plain loop keeps 2 n matrices [d, d] for its way back; here the potentials of each iteration are kept instead, and
the matrix of iteration t is `kernel * u_t * v_t`, one kernel scaled in its rows and columns. Forward, an iteration is
then two matrix-vector products, and backward two more; all terms of the gradient are one product of rank 2 n.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xai.rounding import at_least_float32

_LARGEST_DRIFT = 60.0
"""How far, in nats, potentials may move after the first iteration: what a kernel in single precision rounds to zero,
below exp(-87), then stays below exp(-27) of a row or column in every iteration, and a thousand of it below rounding."""

_CACHED = 5 * 2**20
"""Bytes of orders that are made together on a CPU, so that its caches hold them over all iterations."""


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


class _Trajectory(NamedTuple):
    """Iterations of a batch as scalings of one kernel: entry t of `u` and `v`, each [n, B, d], after iteration t."""

    kernel: Tensor
    u: Tensor
    v: Tensor


class _Sinkhorn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, iterations: int) -> Tensor:
        columns = scores.logsumexp(1)
        rows = (scores - columns[:, None]).logsumexp(2)
        path = _scalings(scores, rows, columns, iterations)
        ctx.by_scaling = bool(_drift(path) <= _LARGEST_DRIFT)
        if ctx.by_scaling:
            ctx.save_for_backward(scores, columns, *path)
            return path.kernel * path.u[-1, :, :, None] * path.v[-1, :, None, :]
        f, g = _potentials(_log_matrix(scores, rows, columns), iterations)
        ctx.save_for_backward(scores, rows, columns, f, g)
        return _matrix(_log_matrix(scores, rows, columns), f[-1], g[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        backward = _backward_by_scaling if ctx.by_scaling else _backward_by_potentials
        return backward(gradients[0], *ctx.saved_tensors), None


def _scalings(scores: Tensor, rows: Tensor, columns: Tensor, iterations: int) -> _Trajectory:
    """All iterations as scalings of the matrix that the first one leaves."""
    kernel = _matrix(scores, rows, columns)
    turned = _turned(kernel)
    u, v = [torch.ones_like(rows)], [torch.ones_like(rows)]
    for _ in range(iterations - 1):
        v.append(1 / _product(u[-1], kernel))
        u.append(1 / _product(v[-1], turned))
    return _Trajectory(kernel, torch.stack(u), torch.stack(v))


def _drift(path: _Trajectory) -> Tensor:
    """Largest movement of a row's and a column's potential together, in nats; NaN where a scaling overflowed."""
    return path.u.log().abs().amax() + path.v.log().abs().amax()


def _backward_by_scaling(
    gradient: Tensor, scores: Tensor, columns: Tensor, kernel: Tensor, u: Tensor, v: Tensor
) -> Tensor:
    outer = gradient * (kernel * u[-1, :, :, None] * v[-1, :, None, :])
    of_rows, of_columns = -outer.sum(2), -outer.sum(1)
    left, right, turned = [], [], _turned(kernel)
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
    # Before the first iteration the rows have no potential, so its columns are no scaling of the kernel.
    first = (scores - columns[:, None]).exp_() * of_columns[:, None]
    return first.add_(outer).addcmul_(kernel, torch.bmm(torch.stack(left, 2), torch.stack(right, 1)))


def _product(weights: Tensor, matrices: Tensor) -> Tensor:
    """The sum of the rows of each matrix [B, d, d], weighted by [B, d]."""
    return torch.bmm(weights[:, None], matrices)[:, 0]


def _turned(kernel: Tensor) -> Tensor:
    """The transposed matrices, written anew: a weighted sum of rows is up to five times as fast as one of columns."""
    return kernel.transpose(1, 2).contiguous()


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


def _backward_by_potentials(
    gradient: Tensor, scores: Tensor, rows: Tensor, columns: Tensor, f: Tensor, g: Tensor
) -> Tensor:
    logs = _log_matrix(scores, rows, columns)
    total = gradient * _matrix(logs, f[-1], g[-1])
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
    return total.addcmul_((scores - columns[:, None]).exp_(), of_columns[:, None])


def _log_matrix(scores: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return (scores - columns[:, None]).sub_(rows[:, :, None])


def _matrix(scores: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return _log_matrix(scores, rows, columns).exp_()


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
    anchors = torch.linspace(1, 0, scores.shape[1], device=scores.device, dtype=scores.dtype)
    affinity = -(scores[:, None, :] - anchors[:, None]).square()
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
    # Exponential noise is never zero, so its logarithm is finite, and drawing it is one kernel.
    noise = torch.empty(batch, cells, cells, device=generator.device)
    return noise.exponential_(generator=generator).clamp_(min=torch.finfo(torch.float32).tiny).log_().neg_()


def soft_masks(permutation: Tensor, shares: Tensor) -> Tensor:
    """Soft top-k masks: how much of each cell is gone once a share of all cells is removed.

    The sum of the first k rows of P says which cells are among the k most important; between two whole k the sums are
    interpolated. Both at once: row i counts clamp(share * d - i, 0, 1).

    Args:
        permutation: P [B, d, d], row i for the cell ranked i-th.
        shares: [S] in [0, 1].

    Returns:
        [B, S, d]: 0 is there, 1 is gone; a mask adds up to share * d. A column of P adds up to 1 as far as Sinkhorn has
        come, and so does a cell in the end.
    """
    cells = permutation.shape[-1]
    ranks = torch.arange(cells, device=permutation.device)
    counted = (shares.to(permutation)[:, None] * cells - ranks).clamp(0, 1)
    with torch.autocast(permutation.device.type, enabled=False):
        return counted @ permutation


def order_masks(scores: Tensor, noise: Tensor, shares: Tensor, temperature: float, iterations: int) -> Tensor:
    """`soft_masks` of the `soft_sort` of scores; on a CPU of a few at a time, which takes a third of the time.

    Args:
        scores: [B, d], higher is more important.
        noise: [B, d, d], standard Gumbel.
        shares: [S] in [0, 1].
        temperature: tau, above 0.
        iterations: Of Sinkhorn's normalisation.

    Returns:
        [B, S, d].
    """
    together = max(1, _CACHED // noise[0].nbytes) if scores.device.type == "cpu" else len(scores)
    pairs = zip(scores.split(together), noise.split(together), strict=True)
    return torch.cat([soft_masks(soft_sort(some, its, temperature, iterations), shares) for some, its in pairs])
