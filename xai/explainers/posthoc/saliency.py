"""Saliency maps as an explainer (Simonyan et al. 2014)."""

import torch
from torch import Tensor

from xai.explainers.posthoc.gradients import GradientParams, PixelExplainer, PixelGradients
from xai.explainers.registry import explainer


@explainer(
    "saliency",
    label="Saliency",
    about="size of the gradient with respect to the pixels, averaged within patches",
    params=GradientParams,
    needs={"gradients"},
    passes=lambda params, patches: 3,
)
class Saliency(PixelExplainer[GradientParams]):
    """Explains with one forward and one backward pass."""

    within = torch.mean

    def pixels(self, gradients: PixelGradients, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Section 3.1 of the paper: the largest absolute gradient over the channels of a pixel."""
        return gradients(images, targets).abs().amax(1)
