"""What a map is worth that stays or changes when it is made again: for a noisy image, and by a random network."""

from math import pi, sqrt
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from xai.core.settings import Count, Positive, settings
from xai.metrics import functional
from xai.metrics.registry import Column, Measured, given, metric
from xai.metrics.variations import Noise, RandomWeights


@settings
class SensitivityParams:
    """How maps of images with a little noise are compared with those of the images.

    Args:
        radius: Largest change of a pixel, of a range of 1; 0.02 in Captum.
        draws: Noisy images for each image; all of them are explained.
    """

    radius: Annotated[Positive, Field(le=1)] = 0.02
    draws: Count = 3


@metric(
    "sensitivity",
    columns=(
        Column(
            "sensitivity_max",
            "Sensitivity",
            "Max-sensitivity: how far the map moves, of its own size, for the worst of a few images with noise too "
            "small to be seen.",
            better="lower",
        ),
    ),
    needs={"maps"},
    params=SensitivityParams,
    again=lambda params: [Noise(params.radius, draw) for draw in range(params.draws)],
)
def sensitivity(block: Measured, params: SensitivityParams) -> dict[str, Tensor]:
    """Equation 5 of Yeh et al. 2019, over draws from the ball; NaN for a map that is zero everywhere."""
    maps = given(block.maps)
    changes = [functional.relative_change(maps, other) for other in given(block.again)]
    return {"sensitivity_max": torch.stack(changes).amax(0)}


@settings
class RandomisationParams:
    """How the classifier's weights are lost.

    Args:
        stages: Into how many steps from the last layer to all of them; 1 randomises all at once. Every step is a map.
    """

    stages: Annotated[Count, Field(le=64)] = 1

    @property
    def shares(self) -> list[float]:
        """Of the layers that are random, step by step."""
        return [stage / self.stages for stage in range(1, self.stages + 1)]


def _chance(block: Measured) -> float:
    """Mean size of the correlation of two orders that have nothing to do with each other: sqrt(2 / (pi (M - 1)))."""
    return sqrt(2 / (pi * max(given(block.maps)[0].numel() - 1, 1)))


@metric(
    "randomisation",
    columns=(
        Column(
            "randomisation",
            "Random weights",
            "Sanity check: size of the rank correlation of the map with that of the same network with random weights. "
            "1 is a map that has nothing to do with what was learned.",
            better="lower",
            digits=2,
            chance_from=_chance,
            control="brightness",
        ),
        Column(
            "randomisation_ssim",
            "Random weights, SSIM",
            "The same by structural similarity of the two maps: 1 is the same picture.",
            better="lower",
            digits=2,
            control="brightness",
        ),
    ),
    curves=("curve_randomisation",),
    needs={"maps"},
    params=RandomisationParams,
    again=lambda params: [RandomWeights(share) for share in params.shares],
)
def randomisation(block: Measured, params: RandomisationParams) -> dict[str, Tensor]:
    """Adebayo et al. 2018, section 3: the model parameter randomisation test.

    The curve [B, stages + 1] is over the share of layers that are random, from none to all. Of an explainer that was
    trained it is its own network that loses its weights: the one the map is read from.
    """
    maps, again = given(block.maps), given(block.again)
    sizes = [functional.spearman(maps, other).abs() for other in again]
    wide, last = (functional.enlarge_map(each.float(), block.images.shape[-2:]) for each in (maps, again[-1]))
    return {
        "randomisation": sizes[-1],
        "randomisation_ssim": functional.structural_similarity(wide, last),
        "curve_randomisation": torch.stack([torch.ones_like(sizes[0]), *sizes], dim=1),
    }
