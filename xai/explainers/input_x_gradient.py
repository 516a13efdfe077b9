"""Input times gradient as an explainer (Shrikumar et al. 2016)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from xai.explainers.baselines import Baseline, BaselineParams
from xai.explainers.gradients import PixelGradients, by_patch, in_parts, smoothed
from xai.explainers.registry import register
from xai.models.maskable import MaskableClassifier


@dataclass(frozen=True)
class InputXGradientParams(BaselineParams):
    """Which output is differentiated, from where the input is measured, and what the map is of."""


@register(
    "input_x_gradient",
    "gradient with respect to the pixels, times what they differ from a baseline by, added up within patches",
    InputXGradientParams,
)
class InputXGradientExplainer:
    """Explains with one forward and one backward pass: Integrated Gradients with a single point, the image itself.

    Args:
        classifier: The classifier to explain, on its device.
        params: Output and baseline, and the resolution of the map.
        generator: Unused, the method draws nothing.

    Raises:
        UserError: For the mean as a baseline, where the classifier's normalisation is not known.
    """

    def __init__(
        self, classifier: MaskableClassifier, params: InputXGradientParams, generator: torch.Generator
    ) -> None:
        self._classifier, self._params, self._baseline = classifier, params, Baseline(classifier, params)

    @torch.no_grad()
    def attribute(self, images: Tensor, targets: Tensor) -> Tensor:
        """Signed attributions of images [B, 3, H, W] for the classes `targets` [B].

        Returns:
            [B, h, w] of patches, or [B, H, W] of pixels.

        Raises:
            ValueError: Where there is not one target for each of one or more images.
        """
        gradients = PixelGradients(self._classifier, self._params.output, images.device)
        pixels = in_parts(
            images, targets, lambda part, classes: ((part - self._baseline(part)) * gradients(part, classes)).sum(1)
        )
        if self._params.of_pixels:
            return smoothed(pixels, self._params.sigma)
        return by_patch(pixels, self._classifier.grid).sum((3, 4))
