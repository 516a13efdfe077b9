"""Gumbel-Sinkhorn sorting (Mena et al. 2018): an order as a doubly stochastic matrix that gradients flow through.

And the soft top-k masks that such an order gives: which share of an image is gone at each point of a path.
"""

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.ranking.sinkhorn import sinkhorn


def check_finite_scores(scores: Tensor, what: str = "the map") -> None:
    """Refuse what has no order; UserError where a number is NaN or infinite; the line names the image."""
    bad = ~scores.isfinite().flatten(1).all(1)
    if bad.any():
        image = int(bad.nonzero()[0])
        raise UserError(f"{what} of image {image} of the batch (counted from 0) holds NaN or infinity: nothing to rank")


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
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return sinkhorn(assignment_scores(scores, noise, temperature), iterations)


def gumbel_noise(batch: int, cells: int, generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise [B, d, d] in float32, on the device of the generator."""
    # Exponential noise is never zero, so its logarithm is finite, and drawing it is one kernel.
    noise = torch.empty(batch, cells, cells, device=generator.device)
    return noise.exponential_(generator=generator).clamp_(min=torch.finfo(torch.float32).tiny).log_().neg_()


def percentiles(steps: int, device: torch.device | None = None) -> Tensor:
    """Shares that are removed, [S] evenly from 0 to 1; UserError: fewer than two."""
    if steps < 2:
        raise UserError(f"steps={steps}: a path has its two ends at least, use 2 or more")
    return torch.linspace(0, 1, steps, device=device)


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
