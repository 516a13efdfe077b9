"""Blur Integrated Gradients as an explainer (Xu, Venugopalan and Sundararajan 2020)."""

from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from xai.core.settings import Count, FieldError, settings
from xai.explainers.posthoc.baselines import BaselineExplainer, BaselineParams
from xai.explainers.posthoc.gradients import PixelGradients, images_at_once
from xai.explainers.registry import explainer
from xai.models.maskable import MaskableClassifier


@settings
class BlurIgParams(BaselineParams):
    """How far an image is blurred and how finely gradients are taken on the way, and what the map is of.

    Args:
        baseline: What lies beyond the border, which flows in with the blur: `black`, `mean` (the mean the model
            normalises with), or a grey level between 0 and 1.
        steps: Points on the path at which gradients are taken.
        largest: Standard deviation of the strongest blur, in pixels.
    """

    steps: Count
    largest: Annotated[float, Field(gt=0)]

    def __post_init__(self) -> None:
        """Refuse to measure blur from blur."""
        super().__post_init__()
        if self.baseline == "blur":
            raise FieldError("baseline", "lies beyond the border: use black, mean, or a grey level between 0 and 1")


@explainer(
    "blur_ig",
    label="Blur int. grad.",
    about="gradients with respect to the pixels along the path from the blurred image, added up within patches",
    params=BlurIgParams,
    needs={"gradients"},
    passes=lambda params, patches: 3 * params.steps,
)
class BlurIg(BaselineExplainer[BlurIgParams]):
    """Explains with a forward and a backward pass for each blur (equation 3 of the paper).

    The path is the image under Gaussians of all standard deviations s from `largest` down to 0. Beyond the border lies
    the mean, which is zero in the network's input, as in the authors' code. The integral over s = largest u^2, u in
    [0, 1], is taken by Gauss-Legendre quadrature: most of an image goes within the first pixels of blur, and the square
    puts most points there. The slope of the path is that of the Gaussian's own weights, not a difference of two images.
    Attributions add up to the output for the image less that for its blurred self, up to the error of the quadrature.
    """

    def __init__(self, classifier: MaskableClassifier, params: BlurIgParams) -> None:
        super().__init__(classifier, params)
        nodes, weights = np.polynomial.legendre.leggauss(params.steps)
        along = (nodes + 1) / 2
        # ds = 2 largest u du, and the rule's [-1, 1] is twice as long as [0, 1].
        self._path = list(zip(params.largest * along**2, params.largest * along * weights, strict=True))

    def pixels(self, gradients: PixelGradients, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Minus the integral of gradient times slope over the blur, added up over the channels."""
        at_once = max(1, images_at_once(images) // len(images))
        ground, integral = self.baseline(images), torch.zeros(())
        for first in range(0, len(self._path), at_once):
            part = self._path[first : first + at_once]
            blurred, slopes = zip(*(blur_and_slope(images - ground, deviation) for deviation, _ in part), strict=True)
            found = gradients(torch.cat([ground + each for each in blurred]), targets.repeat(len(part))).unflatten(
                0, (len(part), -1)
            )
            lengths = torch.tensor([length for _, length in part]).to(found).reshape(-1, 1, 1, 1, 1)
            integral = integral - (lengths * found * torch.stack(slopes)).sum(0)
        return integral.sum(1)


def blur_and_slope(images: Tensor, deviation: float) -> tuple[Tensor, Tensor]:
    """Images [B, 3, H, W] under a Gaussian of `deviation` pixels, and their derivative with respect to it.

    Beyond the border all is 0.
    """
    (down, down_slope), (across, across_slope) = (_gaussian(side, deviation) for side in images.shape[-2:])
    down, down_slope, across, across_slope = (each.to(images) for each in (down, down_slope, across, across_slope))
    rows = images @ across.mT
    return down @ rows, down_slope @ rows + down @ images @ across_slope.mT


def _gaussian(side: int, deviation: float) -> tuple[Tensor, Tensor]:
    """The blur of a line of pixels as a matrix [side, side], and its derivative with respect to the deviation.

    Weights are those of a Gaussian at whole pixels, on a line without an end they would add up to 1. They go six
    deviations far and one pixel at least: less would make the path jump wherever it reaches a pixel further.
    """
    reach = max(1, int(np.ceil(6 * deviation)))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = (-0.5 * (offsets / deviation) ** 2).softmax(0)
    # d log w = d^2 / s^3, less its mean, because the weights stay normalised.
    growth = offsets**2 / deviation**3
    slopes = weights * (growth - (weights * growth).sum())
    places = torch.arange(side)
    apart = (places - places[:, None]).abs()
    # From the middle on, one side of the Gaussian; what is further than it reaches has no weight.
    return tuple(F.pad(each[reach:], (0, max(0, side - reach - 1)))[apart] for each in (weights, slopes))  # type: ignore[return-value]
