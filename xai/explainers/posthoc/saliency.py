"""Saliency maps as an explainer (Simonyan et al. 2014)."""

import torch
from torch import Tensor

from xai.core.settings import settings
from xai.explainers.posthoc.gradients import GradientParams, PixelGradients, by_patch, in_parts, smoothed
from xai.explainers.registry import explainer
from xai.models.maskable import MaskableClassifier


@settings
class SaliencyParams(GradientParams):
    """Which output is differentiated, and what the map is of."""


@explainer(
    "saliency",
    label="Saliency",
    about="size of the gradient with respect to the pixels, averaged within patches",
    params=SaliencyParams,
    needs={"gradients"},
    passes=lambda params, patches: 3,
)
class Saliency:
    """Explains with one forward and one backward pass.

    Section 3.1 of the paper: the largest absolute gradient over the channels of a pixel; then the mean over a patch,
    unless pixels are asked for.

    Args:
        classifier: The classifier to explain, on its device.
        params: The output, and the resolution of the map.
    """

    def __init__(self, classifier: MaskableClassifier, params: SaliencyParams) -> None:
        self._classifier, self._params = classifier, params

    @torch.no_grad()
    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Sensitivities, at least 0, of images [B, 3, H, W] for the classes `targets` [B].

        Returns:
            [B, h, w] of patches, or [B, H, W] of pixels.

        Raises:
            ValueError: Where there is not one target for each of one or more images.
        """
        gradients = PixelGradients(self._classifier, self._params.output, images.device)
        sensitivities = in_parts(images, targets, lambda part, classes: gradients(part, classes).abs().amax(1))
        if self._params.of_pixels:
            return smoothed(sensitivities, self._params.sigma)
        return by_patch(sensitivities, self._classifier.grid).mean((3, 4))
