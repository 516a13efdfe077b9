"""Input times gradient as an explainer (Shrikumar et al. 2016)."""

import torch
from torch import Tensor

from xai.core.settings import settings
from xai.explainers.posthoc.baselines import Baseline, BaselineParams
from xai.explainers.posthoc.gradients import PixelGradients, by_patch, in_parts, smoothed
from xai.explainers.registry import explainer
from xai.models.maskable import MaskableClassifier


@settings
class InputXGradientParams(BaselineParams):
    """Which output is differentiated, from where the input is measured, and what the map is of."""


@explainer(
    "input_x_gradient",
    label="Input x grad.",
    about="gradient with respect to the pixels, times what they differ from a baseline by, added up within patches",
    params=InputXGradientParams,
    needs={"gradients"},
    passes=lambda params, patches: 3,
)
class InputXGradient:
    """Explains with one forward and one backward pass: Integrated Gradients with a single point, the image itself.

    Args:
        classifier: The classifier to explain, on its device.
        params: Output and baseline, and the resolution of the map.

    Raises:
        UserError: For the mean as a baseline, where the classifier's normalisation is not known.
    """

    def __init__(self, classifier: MaskableClassifier, params: InputXGradientParams) -> None:
        self._classifier, self._params, self._baseline = classifier, params, Baseline(classifier, params)

    @torch.no_grad()
    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
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
