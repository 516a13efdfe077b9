"""Maps that know less than an explanation should: what every method has to beat."""

import torch.nn.functional as F
from torch import Tensor

from xai.explainers.controls.brightness import distance_from_ground


def ink(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """How far each patch is from the image's median brightness: an explanation that has never seen the classifier.

    Args:
        pixels: [N, 3, H, W] in [0, 1].
        grid: Patches down and across.

    Returns:
        [N, h, w].
    """
    return F.adaptive_avg_pool2d(distance_from_ground(pixels), grid)
