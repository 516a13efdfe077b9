"""Guided backpropagation as an explainer (Springenberg et al. 2015)."""

import torch
from torch import Tensor

from xai.explainers.posthoc.gradients import GradientParams, PixelExplainer, PixelGradients
from xai.explainers.posthoc.rectifiers import Guided, check_rectified
from xai.explainers.registry import explainer
from xai.models.maskable import MaskableClassifier


@explainer(
    "guided_backprop",
    label="Guided backprop.",
    about="the gradient with respect to the pixels where no rectifier lets a negative gradient pass",
    params=GradientParams,
    needs={"gradients"},
    passes=lambda params, patches: 3,
)
class GuidedBackprop(PixelExplainer[GradientParams]):
    """Explains with one forward and one backward pass.

    Raises:
        UserError: For any but a convolutional network whose activations are ReLU.
    """

    within = torch.mean

    def __init__(self, classifier: MaskableClassifier, params: GradientParams) -> None:
        check_rectified(classifier, "guided_backprop")
        super().__init__(classifier, params)

    def pixels(self, gradients: PixelGradients, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """The largest magnitude over the channels of a pixel, as in saliency."""
        with Guided():
            return gradients(images, targets).abs().amax(1)
