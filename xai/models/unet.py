"""The network of FastSHAP (Jethani et al. 2022): a CNN's features, and a U-Net's way back up from them to patches."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai.models.features import check_intermediates
from xai.models.maskable import Normalisation, Removal, check_size, class_logits


class UNetDecoder(nn.Module):
    """From the deepest features to the finest, each joined with what has come up so far, then to scores of patches.

    Args:
        channels: D of each level, the finest first.
        width: Channels on the way up.
        scores: K.
        grid: Patches down and across.
    """

    def __init__(self, channels: Sequence[int], width: int, scores: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        finer = [below + width for below in reversed(channels[:-1])]
        self.steps = nn.ModuleList([_convolutions(joined, width) for joined in (channels[-1], *finer)])
        self.head = nn.Conv2d(width, scores, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Scores [B, M, K] of features [B, D, h, w] of each level, the finest first."""
        features = self.steps[0](levels[-1])
        for step, level in zip(self.steps[1:], reversed(levels[:-1]), strict=True):
            # Where levels have the same cells there is nothing to enlarge.
            features = F.interpolate(features, level.shape[-2:], mode="bilinear", align_corners=False)
            features = step(torch.cat([features, level], dim=1))
        return self.head(F.adaptive_avg_pool2d(features, self.grid)).flatten(2).mT


class FastShapNetwork(nn.Module):
    """Images to a Shapley value of every patch and class.

    Args:
        backbone: A CNN of timm that gives its intermediate features; what lies behind them is taken off.
        width: Channels of the decoder.
        outputs: Width of the classifier's head.
        grid: Patches down and across.
        size: Side of the images in pixels.
        mean: Channel means of the input normalisation.
        std: Channel deviations of it.

    Raises:
        UserError: Where the network gives no intermediate features.
    """

    def __init__(
        self,
        backbone: nn.Module,
        width: int,
        outputs: int,
        grid: tuple[int, int],
        size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        check_intermediates(backbone)
        network: Any = backbone
        # What is never asked cannot be trained.
        network.prune_intermediate_layers(1, prune_norm=False, prune_head=True)
        self.backbone, self.size, self.grid = network, size, grid
        self.decoder = UNetDecoder([level["num_chs"] for level in network.feature_info], width, outputs, grid)
        self.normalisation = Normalisation(mean, std, Removal())

    def values(self, images: Tensor) -> Tensor:
        """Phi [B, M, C] of images [B, 3, H, W] in [0, 1], in float32, not normalised.

        Raises:
            UserError: For images of another size.
        """
        check_size(images, (self.size, self.size))
        levels = self.backbone.forward_intermediates(self.normalisation(images), intermediates_only=True)
        return class_logits(self.decoder(levels).float())


def _convolutions(joined: int, width: int) -> nn.Sequential:
    """Two 3 x 3 convolutions, each normalised and rectified."""
    layers: list[nn.Module] = []
    for channels in (joined, width):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)
