"""Training masks of a batch of images: one size a slot, shared by all images, and patches of their own for each.

Sequences of one length are computed together without padding, so masks of S different sizes cost S passes of their own
length, where sizes of every image's own would cost as many passes as there are sizes in the batch.
"""

import torch
from torch import Tensor

from xai.shapley.design import shapley_kernel_sizes


def kernel_sizes(players: int, coalitions: int, generator: torch.Generator) -> Tensor:
    """Sizes [S] drawn from the Shapley kernel, 1 to M - 1 (Lundberg and Lee 2017, theorem 2); on `generator.device`."""
    kernel = shapley_kernel_sizes(players).to(generator.device)
    return 1 + torch.multinomial(kernel, coalitions, replacement=True, generator=generator)


def random_masks(images: int, players: int, sizes: Tensor, generator: torch.Generator) -> Tensor:
    """Coalitions of given sizes, every one of a size alike.

    Args:
        images: B.
        players: M.
        sizes: [S] how many patches each coalition keeps, shared by all images, or [B, S].
        generator: Source of the draw; the result is on its device.

    Returns:
        Bool [B, S, M].
    """
    shape = (images, sizes.shape[-1], players)
    drawn = torch.rand(shape, generator=generator, device=generator.device)
    # Stable, because equal numbers occur, and the order of those would be the processor's own.
    ranks = drawn.argsort(dim=-1, stable=True).argsort(-1)
    return ranks < sizes.to(ranks.device)[..., None]


def paired_masks(
    images: int, players: int, pairs: int, generator: torch.Generator, own: torch.Generator | None = None
) -> Tensor:
    """Bool [B, 2 pairs, M]: coalitions of the kernel's sizes, each followed by its complement (Covert et al. 2023).

    Where several processes share a batch, sizes come from a `generator` that they have in common, patches from one of
    their `own`; None takes the first for both.
    """
    drawn = random_masks(images, players, kernel_sizes(players, pairs, generator), own or generator)
    return torch.stack([drawn, ~drawn], dim=2).flatten(1, 2)
