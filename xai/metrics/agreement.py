"""How far maps agree with reference maps (explainability vectors, Table 1)."""

from functools import partial
from math import sqrt

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.core.settings import Count, settings
from xai.metrics import functional
from xai.metrics.registry import Column, Measured, given, metric


@settings
class AgreementParams:
    """How maps are compared with their references.

    Args:
        ks: The k of IoU@k; 1, 5 and 10 in Table 1 of explainability vectors.
    """

    ks: tuple[Count, ...] = (1, 5, 10)


def _iou(k: int) -> Column:
    about = f"Overlap of the top {k} patches of map and reference, as intersection over union."
    if k == 1:
        about = "Share of images whose top patch is that of the reference."
    return Column(f"iou@{k}", f"IoU@{k}", about, chance_from=partial(_chance_of_iou, k))


def _chance_of_iou(k: int, block: Measured) -> float:
    patches = given(block.maps)[0].numel()
    return functional.expected_iou(patches, k) if k <= patches else torch.nan


def _columns(params: AgreementParams) -> list[Column]:
    return [
        Column(
            "e_rmse",
            "E-RMSE",
            "Distance to the reference map, both normalised to mean 0 and deviation 1 per image: 0 is the same map, 1 "
            "a constant one, 1.41 an unrelated one, 2 the opposite.",
            better="lower",
            chance=sqrt(2),
            control="other_class",
            quadratic=True,
        ),
        Column(
            "kendall",
            "Rank corr.",
            "Kendall's tau-b between the order of the patches in map and reference: 1 is the same order, 0 is "
            "unrelated.",
            chance=0.0,
            control="other_class",
        ),
        *(_iou(k) for k in params.ks),
    ]


@metric(
    "agreement_with_reference",
    columns=_columns,
    needs=("maps", "reference"),
    params=AgreementParams,
    level="patch",
    revision=1,
)
def agreement(block: Measured, params: AgreementParams) -> dict[str, Tensor]:
    """E-RMSE, Kendall's tau-b, IoU@k of each image; NaN where a map says nothing or has no k patches.

    The E-RMSE of several images is the root of the mean of the squares of theirs (eq. 5 and section 6.1).
    """
    maps, reference = given(block.maps).flatten(1), _beside(block.reference, block)
    values = {
        "e_rmse": functional.squared_explanation_error(maps, reference).sqrt(),
        "kendall": functional.kendall(maps, reference),
    }
    for k in params.ks:
        undefined = torch.full((len(maps),), torch.nan, dtype=torch.float64)
        values[f"iou@{k}"] = functional.iou_at_k(maps, reference, k) if k <= maps.shape[1] else undefined
    return values


@metric(
    "centred_correlation",
    columns=(
        Column(
            "centred_correlation",
            "Centred corr.",
            "Correlation with the reference after taking from each its mean over all images, so that what is always at "
            "the same place earns nothing.",
            chance=0.0,
            control="position_prior",
        ),
    ),
    needs=("maps", "reference"),
    level="patch",
    whole=True,
)
def centred_correlation(block: Measured, params: object) -> dict[str, Tensor]:
    """Of each image [N], the mean maps being those of all N images of the split."""
    maps, reference = given(block.maps).flatten(1), _beside(block.reference, block)
    return {"centred_correlation": functional.centred_correlation(maps, reference)}


@metric(
    "contrast",
    columns=(
        Column(
            "contrast",
            "Contrast",
            "Correlation of what the maps of two classes of an image differ by with what their references differ by: 1 "
            "is the same difference, 0 an unrelated one; where the object is earns nothing.",
            chance=0.0,
        ),
    ),
    needs=("maps", "reference", "second", "reference_second"),
    level="patch",
)
def contrast(block: Measured, params: object) -> dict[str, Tensor]:
    """How much of the agreement with the reference is of the class; a metric of its own, as it takes twice the maps."""
    maps, reference = given(block.maps).flatten(1), _beside(block.reference, block)
    second, other = _beside(block.second, block), _beside(block.reference_second, block)
    return {"contrast": functional.contrast(maps, second, reference, other)}


def _beside(other: Tensor | None, block: Measured) -> Tensor:
    """Other maps [B, M] of the row's grid, on its device."""
    maps, beside = given(block.maps), given(other)
    if maps.shape != beside.shape:
        shapes = f"{tuple(maps.shape)} and {tuple(beside.shape)}"
        raise UserError(f"maps and what they are compared with are {shapes}: both have to be [B, h, w] of one grid")
    return beside.to(maps.device).flatten(1)
