"""Integrated Gradients (Sundararajan et al. 2017), and its kin with paths from a blurred image or from other images."""

from dataclasses import asdict
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from xai.core.errors import UserError
from xai.core.settings import Count, FieldError, settings
from xai.data.registry import load_images, subset
from xai.explainers.posthoc.baselines import BaselineExplainer, BaselineParams
from xai.explainers.posthoc.gradients import GradientParams, PixelExplainer, PixelGradients, points_at_once
from xai.explainers.registry import Context, Prepared, explainer
from xai.models.maskable import MaskableClassifier, exact


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
        self._nodes, self._weights = (torch.from_numpy(values) for values in _quadrature(params.steps))

    def pixels(self, gradients: PixelGradients, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """The mean gradient along the path times its length, added up over the channels."""
        baseline = self.baseline(images)
        steps = points_at_once(images)
        integral = torch.zeros(())
        for nodes, weights in zip(self._nodes.split(steps), self._weights.split(steps), strict=True):
            points = torch.lerp(baseline.expand_as(images), images, nodes.to(images).reshape(-1, 1, 1, 1, 1))
            slopes = gradients.at_points(points, targets)
            integral = integral + (weights.to(slopes).reshape(-1, 1, 1, 1, 1) * slopes).sum(0)
        return ((images - baseline) * integral).sum(1)


def _quadrature(steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points on [0, 1] and their weights, by the rule of Gauss and Legendre, which is of [-1, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return (nodes + 1) / 2, weights / 2


@settings
class BlurIgParams(BaselineParams):
    """How far an image is blurred and how finely gradients are taken on the way, and what the map is of.

    Args:
        baseline: What lies beyond the border, which flows in with the blur: `black`, `mean` (the mean the model
            normalises with), or a grey level between 0 and 1.
        steps: Points on the path at which gradients are taken.
        largest: Standard deviation of the strongest blur, in pixels.
    """

    steps: Count
    largest: Annotated[float, Field(gt=0)]

    def __post_init__(self) -> None:
        """Refuse to measure blur from blur."""
        super().__post_init__()
        if self.baseline == "blur":
            raise FieldError("baseline", "lies beyond the border: use black, mean, or a grey level between 0 and 1")


@explainer(
    "blur_ig",
    label="Blur int. grad.",
    about="gradients with respect to the pixels along the path from the blurred image, added up within patches",
    params=BlurIgParams,
    needs={"gradients"},
    passes=lambda params, patches: 3 * params.steps,
)
class BlurIg(BaselineExplainer[BlurIgParams]):
    """Blur Integrated Gradients (Xu, Venugopalan and Sundararajan 2020).

    Explains with a forward and a backward pass for each blur (equation 3 of the paper).

    The path is the image under Gaussians of all standard deviations s from `largest` down to 0. Beyond the border lies
    the mean, which is zero in the network's input, as in the authors' code. The integral over s = largest u^2, u in
    [0, 1], is taken by Gauss-Legendre quadrature: most of an image goes within the first pixels of blur, and the square
    puts most points there. The slope of the path is that of the Gaussian's own weights, not a difference of two images.
    Attributions add up to the output for the image less that for its blurred self, up to the error of the quadrature.
    """

    def __init__(self, classifier: MaskableClassifier, params: BlurIgParams) -> None:
        super().__init__(classifier, params)
        along, weights = _quadrature(params.steps)
        # ds = 2 largest u du.
        self._path = list(zip(params.largest * along**2, 2 * params.largest * along * weights, strict=True))

    def pixels(self, gradients: PixelGradients, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Minus the integral of gradient times slope over the blur, added up over the channels."""
        at_once = points_at_once(images)
        ground, integral = self.baseline(images), torch.zeros(())
        for first in range(0, len(self._path), at_once):
            part = self._path[first : first + at_once]
            blurred, slopes = zip(*(blur_and_slope(images - ground, deviation) for deviation, _ in part), strict=True)
            found = gradients.at_points(ground + torch.stack(blurred), targets)
            lengths = torch.tensor([length for _, length in part]).to(found).reshape(-1, 1, 1, 1, 1)
            integral = integral - (lengths * found * torch.stack(slopes)).sum(0)
        return integral.sum(1)


def blur_and_slope(images: Tensor, deviation: float) -> tuple[Tensor, Tensor]:
    """Images [B, 3, H, W] under a Gaussian of `deviation` pixels, and their derivative with respect to it.

    Beyond the border all is 0.
    """
    (down, down_slope), (across, across_slope) = (_gaussian(side, deviation) for side in images.shape[-2:])
    down, down_slope, across, across_slope = (each.to(images) for each in (down, down_slope, across, across_slope))
    with exact(images):  # in half precision slopes of what is flat would not cancel
        rows = images @ across.mT
        return down @ rows, down_slope @ rows + down @ images @ across_slope.mT


def _gaussian(side: int, deviation: float) -> tuple[Tensor, Tensor]:
    """The blur of a line of pixels as a matrix [side, side], and its derivative with respect to the deviation.

    Weights are those of a Gaussian at whole pixels, on a line without an end they would add up to 1. They go six
    deviations far and one pixel at least: less would make the path jump wherever it reaches a pixel further.
    """
    reach = max(1, int(np.ceil(6 * deviation)))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = (-0.5 * (offsets / deviation) ** 2).softmax(0)
    # d log w = d^2 / s^3, less its mean, because the weights stay normalised.
    growth = offsets**2 / deviation**3
    slopes = weights * (growth - (weights * growth).sum())
    places = torch.arange(side)
    apart = (places - places[:, None]).abs()
    # From the middle on, one side of the Gaussian; what is further than it reaches has no weight.
    return tuple(F.pad(each[reach:], (0, max(0, side - reach - 1)))[apart] for each in (weights, slopes))  # type: ignore[return-value]


SPLIT = "train"
"""Whose images are baselines: not those that are measured."""


@settings
class ExpectedGradientsParams(GradientParams):
    """From how many images, and at how many points, and what the map is of.

    Args:
        samples: Points, each on the line from another baseline.
        backgrounds: Images of the training split that the baselines are drawn from; all of them where there are fewer.
    """

    samples: Count
    backgrounds: Count


class ExpectedGradients(PixelExplainer[ExpectedGradientsParams]):
    """Expected Gradients (Erion et al. 2021): Integrated Gradients from many images of the data.

    Explains with a forward and a backward pass for each point; all images of a call share baselines and points.

    Attributions add up, on average over the draws, to the output for the image less the mean output for the baselines.

    Args:
        classifier: To explain.
        params: The settings.
        backgrounds: [K, 3, H, W] in [0, 1], on any device.
    """

    def __init__(self, classifier: MaskableClassifier, params: ExpectedGradientsParams, backgrounds: Tensor) -> None:
        super().__init__(classifier, params)
        self._backgrounds = backgrounds

    def pixels(self, gradients: PixelGradients, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """The mean of (x - x') df(x' + a (x - x')) over x' and a in [0, 1] (equation 3), added up over the channels."""
        count = self.params.samples
        which = torch.randint(len(self._backgrounds), (count,), generator=generator)
        along = torch.rand(count, generator=generator)
        total = torch.zeros(())
        for few in torch.arange(count).split(points_at_once(images)):
            baselines = self._backgrounds[which[few]].to(images)[:, None]
            differences = images - baselines
            points = baselines + along[few].to(images).reshape(-1, 1, 1, 1, 1) * differences
            slopes = gradients.at_points(points, targets)
            total = total + (differences * slopes).sum(0)
        return (total / count).sum(1)


def check(context: Context, params: ExpectedGradientsParams) -> None:
    """Refuse data without another image; UserError where there is only one."""
    if len(context.learned_from.source.labels(SPLIT)) < 2:
        raise UserError(
            "expected_gradients measures an image from others, and there is only one: give more, or use "
            "integrated_gradients"
        )


@explainer(
    "expected_gradients",
    label="Expected grad.",
    about="gradients with respect to the pixels along lines from training images, added up within patches",
    params=ExpectedGradientsParams,
    needs={"gradients"},
    passes=lambda params, patches: 3 * params.samples,
    check=check,
)
def expected_gradients(context: Context, params: ExpectedGradientsParams) -> Prepared:
    """With images of the training split, drawn with the seed."""
    data = context.learned_from

    def build() -> ExpectedGradients:
        source = data.source
        rows = subset(source, SPLIT, min(params.backgrounds, len(source.labels(SPLIT))), context.seed)
        images = load_images(source, SPLIT, rows, 0, context.model.image_size)
        return ExpectedGradients(context.network(), params, images.pixels)

    other = {} if data.spec == context.data.spec else {"from": data.spec}
    return Prepared({"name": "expected_gradients", **asdict(params), "seed": context.seed, **other}, build)
