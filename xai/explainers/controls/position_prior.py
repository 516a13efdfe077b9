"""One map for all images: the mean of another explainer's maps, which knows where objects tend to be."""

import torch
from torch import Tensor

from xai.core.calling import captum_names
from xai.core.errors import UserError
from xai.core.settings import Count, settings
from xai.explainers.of_row import OfRowParams, row_of
from xai.explainers.params import MapParams
from xai.explainers.registry import Context, Prepared, explainer

SPLIT = "validation"
"""Whose images the mean is of: not those that are measured."""


@settings
class PositionPriorParams(OfRowParams, MapParams):
    """Whose mean it is.

    Args:
        resolution: What the maps of that row are of: `patch` or `pixel`.
        of: The row whose maps are averaged.
        images: Over how many validation images at most; null takes all.
    """

    images: Count | None = None


class SameMap:
    """Gives one map for every image.

    Args:
        mean: [h, w] or [H, W].
    """

    def __init__(self, mean: Tensor) -> None:
        self._mean = mean

    @captum_names
    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The map, [B, h, w] or [B, H, W], for images [B, 3, H, W]."""
        return self._mean.to(images.device).expand(len(images), -1, -1)


def check(context: Context, params: PositionPriorParams) -> None:
    """Refuse a mean of maps that there are none of.

    Raises:
        UserError: Where the other row does not fit the classifier, or its maps are of another kind; where there are no
            validation images, as of pictures without labels.
    """
    row = row_of(context, params.of, "position_prior")
    if row.params.of_pixels != params.of_pixels:
        right = "pixel" if row.params.of_pixels else "patch"
        raise UserError(f"position_prior: the maps of {params.of} are of another kind, use resolution={right}")
    if not len(context.learned_from.source.labels(SPLIT)):
        raise UserError(f"position_prior is a mean over {SPLIT} images, and data={context.learned_from.name} has none")


@explainer(
    "position_prior",
    label="Position prior",
    about="the mean of another row's maps over validation images, the same for every image",
    params=PositionPriorParams,
    kind="control",
    class_specific=False,
    passes=lambda params, patches: 0,
    check=check,
)
def position_prior(context: Context, params: PositionPriorParams) -> Prepared:
    """The mean over maps of the classes that the case explains."""
    row = context.row(params.of)
    source = row.entry.prepare(context, row.params)
    which = {"of": dict(source.made_from), "pick": source.pick, "pool": source.pool, "images": params.images}
    made_from = {"name": "position_prior", **which, **context.learned_in}
    return Prepared(made_from, lambda: SameMap(context.maps_of(params.of, SPLIT, params.images).float().mean(0)))
