"""Gumbel-Sinkhorn sorting (Mena et al. 2018): an order as a doubly stochastic matrix that gradients flow through."""

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.ranking.sinkhorn import sinkhorn


def check_finite_scores(scores: Tensor, what: str = "the map") -> None:
    """Refuse what has no order.

    Raises:
        UserError: Where a number is NaN or infinite; the line names the image.
    """
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
