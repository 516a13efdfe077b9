"""Feature maps of a frozen network, a transformer's or a CNN's: what a dense explainer looks at."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xai.core.errors import UserError
from xai.models.maskable import Normalisation, Removal


class FrozenFeatures(nn.Module):
    """Levels of a timm network as feature maps, without gradients and in evaluation mode for good.

    Args:
        network: Any network of timm that has `forward_intermediates`: all its ViTs, DINOv3's too, and most CNNs.
        levels: Which intermediate features: blocks of a transformer, stages of a CNN, counted from 0, in order.
        mean: Channel means of its input normalisation.
        std: Channel deviations of it.
        size: Side of the images in pixels.

    Attributes:
        channels: D of each level.
        grids: (h, w) of each level.

    Raises:
        UserError: A level that the network does not have, a network that gives none, or one that cannot take images of
            that size.
    """

    def __init__(
        self, network: nn.Module, levels: Sequence[int], mean: Sequence[float], std: Sequence[float], size: int
    ) -> None:
        super().__init__()
        self.network: Any = network.requires_grad_(False)
        self.levels = tuple(levels)
        _check_levels(self.network, self.levels)
        device = next(network.parameters()).device
        self.normalisation = Normalisation(mean, std, Removal("tokens")).to(device)
        self.eval()
        try:
            shapes = [level.shape[1:] for level in self(torch.zeros(1, 3, size, size, device=device))]
        except (AssertionError, RuntimeError) as error:  # timm's and torch's ways to refuse a size
            raise UserError(
                f"{type(network).__name__} cannot take images of {size} px ({' '.join(str(error).split())[:120]}): use "
                "a network that can"
            ) from error
        self.channels = tuple(int(shape[0]) for shape in shapes)
        self.grids = tuple((int(shape[1]), int(shape[2])) for shape in shapes)

    def train(self, mode: bool = True) -> "FrozenFeatures":
        """Stay in evaluation mode: dropout and batch statistics have no business in a frozen network."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Features [B, D, h, w] of each level, layer-normed where the network is a transformer.

        Args:
            images: [B, 3, H, W] in [0, 1].
        """
        return self.network.forward_intermediates(
            self.normalisation(images), indices=list(self.levels), norm=True, output_fmt="NCHW", intermediates_only=True
        )


def check_intermediates(network: nn.Module) -> None:
    """Refuse a network that gives no intermediate features, by a `UserError`."""
    if not hasattr(network, "forward_intermediates"):
        raise UserError(f"{type(network).__name__} gives no intermediate features: use a network of timm that does")


def _check_levels(network: Any, levels: tuple[int, ...]) -> None:
    check_intermediates(network)
    count = len(network.feature_info)
    for level in levels:
        if not 0 <= level < count:
            raise UserError(
                f"levels: {type(network).__name__} has no feature level {level}: there are 0 to {count - 1}"
            )
    if not levels or list(levels) != sorted(set(levels)):
        raise UserError(f"levels={list(levels)}: name one or more levels, each once, in rising order")
