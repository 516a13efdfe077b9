"""Input times gradient as an explainer (Shrikumar et al. 2016)."""

import torch
from torch import Tensor

from xai.explainers.posthoc.baselines import BaselineExplainer, BaselineParams
from xai.explainers.posthoc.gradients import PixelGradients
from xai.explainers.registry import explainer


@explainer(
    "input_x_gradient",
    label="Input x grad.",
    about="gradient with respect to the pixels, times what they differ from a baseline by, added up within patches",
    params=BaselineParams,
    needs={"gradients"},
    passes=lambda params, patches: 3,
)
class InputXGradient(BaselineExplainer[BaselineParams]):
    """Explains with one forward and one backward pass: Integrated Gradients with a single point, the image itself."""

    def pixels(self, gradients: PixelGradients, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """The gradient times the difference from the baseline, added up over the channels."""
        return ((images - self.baseline(images)) * gradients(images, targets)).sum(1)
