"""Maps from a single gradient with respect to the pixels: saliency, guided backpropagation, input times gradient."""

from typing import Any

import torch
from torch import Tensor

from xai.explainers.posthoc.baselines import BaselineExplainer, BaselineParams
from xai.explainers.posthoc.gradients import GradientParams, PixelExplainer, PixelGradients
from xai.explainers.posthoc.rectifiers import Guided, Rectified
from xai.explainers.registry import explainer

_COST: dict[str, Any] = {"needs": {"gradients"}, "passes": lambda params, patches: 3}


@explainer(
    "saliency",
    label="Saliency",
    about="size of the gradient with respect to the pixels, averaged within patches",
    params=GradientParams,
    **_COST,
)
class Saliency(PixelExplainer[GradientParams]):
    """Saliency maps (Simonyan et al. 2014)."""

    within = torch.mean

    def pixels(self, gradients: PixelGradients, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Section 3.1 of the paper: the largest absolute gradient over the channels of a pixel."""
        return gradients(images, targets).abs().amax(1)


@explainer(
    "guided_backprop",
    label="Guided backprop.",
    about="the gradient with respect to the pixels where no rectifier lets a negative gradient pass",
    params=GradientParams,
    **_COST,
)
class GuidedBackprop(Rectified, Saliency):
    """Guided backpropagation (Springenberg et al. 2015): saliency with another gradient."""

    name = "guided_backprop"

    def pixels(self, gradients: PixelGradients, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """As in saliency."""
        with Guided():
            return super().pixels(gradients, images, targets, generator)


@explainer(
    "input_x_gradient",
    label="Input x grad.",
    about="gradient with respect to the pixels, times what they differ from a baseline by, added up within patches",
    params=BaselineParams,
    **_COST,
)
class InputXGradient(BaselineExplainer[BaselineParams]):
    """Input times gradient (Shrikumar et al. 2016): Integrated Gradients with a single point, the image itself."""

    def pixels(self, gradients: PixelGradients, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """The gradient times the difference from the baseline, added up over the channels."""
        return ((images - self.baseline(images)) * gradients(images, targets)).sum(1)
