"""Integrated Gradients as an explainer (Sundararajan et al. 2017)."""

import numpy as np
import torch
from torch import Tensor

from xai.core.settings import Count, settings
from xai.explainers.posthoc.baselines import BaselineExplainer, BaselineParams
from xai.explainers.posthoc.gradients import PixelGradients, images_at_once
from xai.explainers.registry import explainer
from xai.models.maskable import MaskableClassifier


@settings
class IntegratedGradientsParams(BaselineParams):
    """Along which path from the baseline and how finely gradients are taken, and what the map is of.

    Args:
        steps: Points on the path at which gradients are taken.
    """

    steps: Count


@explainer(
    "integrated_gradients",
    label="Int. gradients",
    about="gradients with respect to the pixels along the path from a baseline, added up within patches",
    params=IntegratedGradientsParams,
    needs={"gradients"},
    passes=lambda params, patches: 3 * params.steps,
)
class IntegratedGradients(BaselineExplainer[IntegratedGradientsParams]):
    """Explains with a forward and a backward pass for each step (equation 1 of the paper).

    The integral is taken by Gauss-Legendre quadrature. Attributions of pixels and channels are added up, so the
    attributions of the patches add up to the output for the image less the output for its baseline (Proposition 1),
    up to the error of the quadrature. So do those of the pixels, as they come.
    """

    def __init__(self, classifier: MaskableClassifier, params: IntegratedGradientsParams) -> None:
        super().__init__(classifier, params)
        nodes, weights = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(params.steps))
        # From the rule's [-1, 1] to the path's [0, 1].
        self._nodes, self._weights = (nodes + 1) / 2, weights / 2

    def pixels(self, gradients: PixelGradients, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """The mean gradient along the path times its length, added up over the channels."""
        baseline = self.baseline(images)
        steps = max(1, images_at_once(images) // len(images))
        integral = torch.zeros(())
        for nodes, weights in zip(self._nodes.split(steps), self._weights.split(steps), strict=True):
            points = torch.lerp(baseline.expand_as(images), images, nodes.to(images).reshape(-1, 1, 1, 1, 1))
            slopes = gradients(points.flatten(0, 1), targets.repeat(len(nodes))).unflatten(0, (len(nodes), -1))
            integral = integral + (weights.to(slopes).reshape(-1, 1, 1, 1, 1) * slopes).sum(0)
        return ((images - baseline) * integral).sum(1)
