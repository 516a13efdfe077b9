"""Integrated Gradients as an explainer (Sundararajan et al. 2017)."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from xai.core.settings import Count, settings
from xai.explainers.posthoc.baselines import Baseline, BaselineParams
from xai.explainers.posthoc.gradients import PixelGradients, by_patch, images_at_once, in_parts, smoothed
from xai.explainers.registry import explainer
from xai.models.maskable import MaskableClassifier


@settings
class IntegratedGradientsParams(BaselineParams):
    """Along which path and how finely gradients are taken, and what the map is of.

    Args:
        baseline: Where the path starts; see `BaselineParams`.
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
class IntegratedGradients:
    """Explains with a forward and a backward pass for each step (equation 1 of the paper).

    The integral is taken by Gauss-Legendre quadrature. Attributions of pixels and channels are added up, so the
    attributions of the patches add up to the output for the image less the output for its baseline (Proposition 1),
    up to the error of the quadrature. So do those of the pixels, as they come.

    Args:
        classifier: The classifier to explain, on its device.
        params: Output, baseline and steps, and the resolution of the map.

    Raises:
        UserError: For the mean as a baseline, where the classifier's normalisation is not known.
    """

    def __init__(self, classifier: MaskableClassifier, params: IntegratedGradientsParams) -> None:
        self._classifier, self._params, self._baseline = classifier, params, Baseline(classifier, params)
        nodes, weights = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(params.steps))
        # From the rule's [-1, 1] to the path's [0, 1].
        self._nodes, self._weights = (nodes + 1) / 2, weights / 2

    @torch.no_grad()
    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Signed attributions of images [B, 3, H, W] for the classes `targets` [B].

        Returns:
            [B, h, w] of patches, or [B, H, W] of pixels.

        Raises:
            ValueError: Where there is not one target for each of one or more images.
        """
        gradients = PixelGradients(self._classifier, self._params.output, images.device)
        pixels = in_parts(images, targets, partial(self._integrate, gradients)).sum(1)
        if self._params.of_pixels:
            return smoothed(pixels, self._params.sigma)
        return by_patch(pixels, self._classifier.grid).sum((3, 4))

    def _integrate(self, gradients: PixelGradients, images: Tensor, targets: Tensor) -> Tensor:
        """Attributions of pixels [B, 3, H, W]."""
        baseline = self._baseline(images)
        steps = max(1, images_at_once(images) // len(images))
        integral = torch.zeros(())
        for nodes, weights in zip(self._nodes.split(steps), self._weights.split(steps), strict=True):
            points = torch.lerp(baseline.expand_as(images), images, nodes.to(images).reshape(-1, 1, 1, 1, 1))
            slopes = gradients(points.flatten(0, 1), targets.repeat(len(nodes))).unflatten(0, (len(nodes), -1))
            integral = integral + (weights.to(slopes).reshape(-1, 1, 1, 1, 1) * slopes).sum(0)
        return (images - baseline) * integral
