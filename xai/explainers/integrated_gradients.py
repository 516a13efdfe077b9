"""Integrated Gradients as an explainer (Sundararajan et al. 2017)."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from xai.errors import UserError
from xai.explainers.gradients import PixelGradients, by_patch, images_at_once, in_parts
from xai.explainers.registry import OutputParams, register
from xai.models.maskable import MaskableClassifier, Removal, reference_image
from xai.models.normalisation import Normalisation


@dataclass(frozen=True)
class IntegratedGradientsParams(OutputParams):
    """Along which path, and how finely.

    Args:
        baseline: Where the path starts, the image that says nothing: `black`, `mean` (the mean the model normalises
            with), `blur` (the image itself, blurred beyond recognition), or a grey level between 0 and 1.
        steps: Points on the path at which gradients are taken.
    """

    baseline: str | float
    steps: int

    def __post_init__(self) -> None:
        """Refuse settings that cannot be computed."""
        super().__post_init__()
        try:
            reference = Removal("pixels", self.baseline).reference
        except UserError:
            raise UserError(
                f"supervision.baseline={self.baseline} is unknown: use black, mean, blur, or a grey level between 0 "
                "and 1"
            ) from None
        # One text for one level, because what is made is found again by it.
        object.__setattr__(self, "baseline", reference)
        if self.steps < 1:
            raise UserError(f"supervision.steps={self.steps} must be at least 1")

    @property
    def path_start(self) -> Removal:
        """The baseline as what a removed patch would show."""
        return Removal("pixels", self.baseline)


@register(
    "integrated_gradients",
    "gradients with respect to the pixels along the path from a baseline, added up within patches",
    IntegratedGradientsParams,
)
class IntegratedGradientsExplainer:
    """Explains with a forward and a backward pass for each step (equation 1 of the paper).

    The integral is taken by Gauss-Legendre quadrature. Attributions of pixels and channels are added up, so the
    attributions of the patches add up to the output for the image less the output for its baseline (Proposition 1),
    up to the error of the quadrature.

    Args:
        classifier: The classifier to explain, on its device.
        params: Output, baseline and steps.
        generator: Unused, the method draws nothing.

    Raises:
        UserError: For the mean as a baseline, where the classifier's normalisation is not known.
    """

    def __init__(
        self, classifier: MaskableClassifier, params: IntegratedGradientsParams, generator: torch.Generator
    ) -> None:
        self._classifier, self._params = classifier, params
        normalisation = getattr(classifier, "normalisation", None)
        if isinstance(normalisation, Normalisation):
            self._mean = normalisation.mean.flatten()
        elif params.baseline == "mean":
            raise UserError(
                f"supervision.baseline=mean: a {type(classifier).__name__} does not say what it normalises with, use "
                "black, blur or a grey level"
            )
        else:
            self._mean = torch.zeros(3)
        nodes, weights = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(params.steps))
        # From the rule's [-1, 1] to the path's [0, 1].
        self._nodes, self._weights = (nodes + 1) / 2, weights / 2

    @torch.no_grad()
    def attribute(self, images: Tensor, targets: Tensor) -> Tensor:
        """Signed attributions [B, h, w] of images [B, 3, H, W] for the classes `targets` [B].

        Raises:
            ValueError: Where there is not one target for each of one or more images.
        """
        gradients = PixelGradients(self._classifier, self._params.output, images.device)
        pixels = in_parts(images, targets, partial(self._integrate, gradients))
        return by_patch(pixels.sum(1), self._classifier.grid).sum((3, 4))

    def _integrate(self, gradients: PixelGradients, images: Tensor, targets: Tensor) -> Tensor:
        """Attributions of pixels [B, 3, H, W]."""
        baseline = reference_image(images, self._params.path_start, self._mean)
        steps = max(1, images_at_once(images) // len(images))
        integral = torch.zeros(())
        for nodes, weights in zip(self._nodes.split(steps), self._weights.split(steps), strict=True):
            points = torch.lerp(baseline.expand_as(images), images, nodes.to(images).reshape(-1, 1, 1, 1, 1))
            slopes = gradients(points.flatten(0, 1), targets.repeat(len(nodes))).unflatten(0, (len(nodes), -1))
            integral = integral + (weights.to(slopes).reshape(-1, 1, 1, 1, 1) * slopes).sum(0)
        return (images - baseline) * integral
