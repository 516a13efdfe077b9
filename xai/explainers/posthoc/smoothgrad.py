"""SmoothGrad and its kin as one explainer: what the gradient does while noise is added to the image."""

from dataclasses import KW_ONLY
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from xai.core.settings import Count, FieldError, settings
from xai.explainers.posthoc.gradients import GradientParams, PixelExplainer, PixelGradients, points_at_once
from xai.explainers.registry import explainer


@settings
class SmoothGradParams(GradientParams):
    """How many noisy copies of an image are asked, and what is told of their gradients.

    Args:
        samples: n, noisy copies of an image.
        noise: Standard deviation of the noise, as a share of the image's range of values.
        statistic: `mean` of the gradients (SmoothGrad), mean of their `square` (SmoothGrad-Squared), or their
            `variance` (VarGrad).
    """

    _: KW_ONLY
    samples: Count
    noise: Annotated[float, Field(gt=0)]
    statistic: Literal["mean", "square", "variance"] = "mean"

    def __post_init__(self) -> None:
        """Refuse the variance of a single copy."""
        super().__post_init__()
        if self.statistic == "variance" and self.samples < 2:
            raise FieldError("samples", "must be at least 2 for statistic=variance")


@explainer(
    "smoothgrad",
    label="SmoothGrad",
    about="the gradient with respect to the pixels over noisy copies of the image: its mean, or how it varies",
    params=SmoothGradParams,
    needs={"gradients"},
    passes=lambda params, patches: 3 * params.samples,
)
class SmoothGrad(PixelExplainer[SmoothGradParams]):
    """Explains with a forward and a backward pass for each noisy copy; all images of a call share the noise.

    SmoothGrad (Smilkov et al. 2017, section 3.1) is the mean of the gradients; SmoothGrad-Squared (Hooker et al. 2019,
    section 4.1) that of their squares; VarGrad (Adebayo et al. 2018, "Local explanation methods for deep neural
    networks lack sensitivity to parameter values", section 2) their variance. A pixel has the largest of its channels,
    as in saliency; of the mean, the largest magnitude.
    """

    within = torch.mean

    def pixels(self, gradients: PixelGradients, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """The statistic over copies x + N(0, s^2), s = noise (max x - min x), the largest over the channels."""
        count, statistic = self.params.samples, self.params.statistic
        spread = self.params.noise * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
        at_once = points_at_once(images)
        # In float64, in which the difference of two sums is no question of rounding.
        total = total_of_squares = torch.zeros((), dtype=torch.float64, device=images.device)
        for done in range(0, count, at_once):
            # One by one, or how many pass at once would change what is drawn.
            drawn = [torch.randn(images.shape[1:], generator=generator) for _ in range(min(at_once, count - done))]
            noise = torch.stack(drawn).to(images)[:, None]
            found = gradients.at_points(images + spread * noise, targets).double()
            total = total + found.sum(0)
            total_of_squares = total_of_squares + found.square().sum(0)
        mean, square = total / count, total_of_squares / count
        told = {"mean": mean.abs(), "square": square, "variance": square - mean.square()}[statistic]
        return told.clamp(min=0).amax(1).to(torch.promote_types(images.dtype, torch.float32))
