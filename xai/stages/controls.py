"""Maps that know less than an explanation should: what every method has to beat."""

import torch
import torch.nn.functional as F
from torch import Tensor

from xai.explainers.controls.brightness import distance_from_ground


def other_classes(labels: Tensor, classes: int) -> Tensor:
    """For each image [N] a class that is not its own, drawn evenly and always the same."""
    generator = torch.Generator().manual_seed(0)
    return (labels + torch.randint(1, classes, labels.shape, generator=generator)) % classes


def ink(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """How far each patch is from the image's median brightness: an explanation that has never seen the classifier.

    Args:
        pixels: [N, 3, H, W] in [0, 1].
        grid: Patches down and across.

    Returns:
        [N, h, w].
    """
    return F.adaptive_avg_pool2d(distance_from_ground(pixels), grid)
