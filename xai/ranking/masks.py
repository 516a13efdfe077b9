"""Which share of an image is gone at each point of a perturbation path: soft top-k masks, to learn with."""

import torch
from torch import Tensor

from xai.core.errors import UserError


def percentiles(steps: int, device: torch.device | None = None) -> Tensor:
    """Shares that are removed, [S] evenly from 0 to 1.

    Raises:
        UserError: Fewer than two.
    """
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
