"""Expected Gradients as an explainer (Erion et al. 2021): Integrated Gradients from many images of the data."""

from dataclasses import asdict

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.core.settings import Count, settings
from xai.data.registry import load_images, subset
from xai.explainers.posthoc.gradients import GradientParams, PixelExplainer, PixelGradients, images_at_once
from xai.explainers.registry import Context, Prepared, explainer
from xai.models.maskable import MaskableClassifier

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
    """Explains with a forward and a backward pass for each point; all images of a call share baselines and points.

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
        for few in torch.arange(count).split(max(1, images_at_once(images) // len(images))):
            baselines = self._backgrounds[which[few]].to(images)[:, None]
            differences = images - baselines
            points = baselines + along[few].to(images).reshape(-1, 1, 1, 1, 1) * differences
            slopes = gradients(points.flatten(0, 1), targets.repeat(len(few))).unflatten(0, (len(few), -1))
            total = total + (differences * slopes).sum(0)
        return (total / count).sum(1)


def check(context: Context, params: ExpectedGradientsParams) -> None:
    """Refuse data without another image; UserError where there is only one."""
    if len(context.data.source.labels(SPLIT)) < 2:
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

    def build() -> ExpectedGradients:
        source = context.data.source
        rows = subset(source, SPLIT, min(params.backgrounds, len(source.labels(SPLIT))), context.seed)
        images = load_images(source, SPLIT, rows, 0, context.model.image_size)
        return ExpectedGradients(context.network(), params, images.pixels)

    return Prepared({"name": "expected_gradients", **asdict(params), "seed": context.seed}, build)
