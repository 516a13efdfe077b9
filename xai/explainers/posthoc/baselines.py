"""The image that says nothing, from which explainers by gradients measure an image."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.core.settings import FieldError, settings
from xai.explainers.posthoc.gradients import GradientParams, PixelExplainer
from xai.models.maskable import REFERENCES, MaskableClassifier, Normalisation, Removal, reference_image


@settings
class BaselineParams(GradientParams):
    """What the map is of, and from where it is measured.

    Args:
        baseline: The image that says nothing: `black`, `mean` (the mean the model normalises with), `blur` (the image
            itself, blurred beyond recognition), or a grey level between 0 and 1.
    """

    baseline: str | float

    def __post_init__(self) -> None:
        """Refuse images that there are not."""
        super().__post_init__()
        settle_baseline(self)


def settle_baseline(params: Any, field: str = "baseline") -> None:
    """Refuse a baseline that there is not, and write a grey level in one way: what is made is found again by it."""
    try:
        reference = Removal("pixels", getattr(params, field)).reference
    except UserError:
        named = ", ".join(REFERENCES)
        raise FieldError(field, f"is unknown: use {named}, or a grey level between 0 and 1") from None
    object.__setattr__(params, field, reference)


def baseline_of(classifier: MaskableClassifier, baseline: str | float) -> Callable[[Tensor], Tensor]:
    """What makes the baselines [B or 1, 3, H, W] of images [B, 3, H, W]; `baseline` is as in `BaselineParams`.

    Raises:
        UserError: For the mean, where the classifier's normalisation is not known.
    """
    mean, normalisation = torch.zeros(3), getattr(classifier, "normalisation", None)
    if isinstance(normalisation, Normalisation):
        mean = normalisation.mean.flatten()
    elif baseline == "mean":
        raise UserError(
            f"baseline=mean: a {type(classifier).__name__} does not say what it normalises with, use "
            "black, blur or a grey level"
        )
    return partial(reference_image, removal=Removal("pixels", baseline), mean=mean)


P = TypeVar("P", bound=BaselineParams)


class BaselineExplainer(PixelExplainer[P]):
    """Measures images from a baseline.

    Raises:
        UserError: For the mean as a baseline, where the classifier's normalisation is not known.
    """

    def __init__(self, classifier: MaskableClassifier, params: P) -> None:
        super().__init__(classifier, params)
        self.baseline = baseline_of(classifier, params.baseline)
