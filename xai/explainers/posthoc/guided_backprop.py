"""Guided backpropagation as an explainer (Springenberg et al. 2015)."""

import torch
from torch import Tensor

from xai.explainers.posthoc.gradients import GradientParams, PixelExplainer, PixelGradients
from xai.explainers.posthoc.rectifiers import Guided, Rectified
from xai.explainers.registry import explainer


@explainer(
    "guided_backprop",
    label="Guided backprop.",
    about="the gradient with respect to the pixels where no rectifier lets a negative gradient pass",
    params=GradientParams,
    needs={"gradients"},
    passes=lambda params, patches: 3,
)
class GuidedBackprop(Rectified, PixelExplainer[GradientParams]):
    """Explains with one forward and one backward pass."""

    name, within = "guided_backprop", torch.mean

    def pixels(self, gradients: PixelGradients, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """The largest magnitude over the channels of a pixel, as in saliency."""
        with Guided():
            return gradients(images, targets).abs().amax(1)
