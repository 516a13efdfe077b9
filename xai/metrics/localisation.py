"""How far maps point at the object: relevance mass and rank accuracy, pointing game."""

import torch
from torch import Tensor

from xai.core.settings import settings
from xai.metrics import functional
from xai.metrics.registry import Column, Measured, given, metric, percent


@settings
class LocalisationParams:
    """How maps are compared with regions.

    Args:
        enlarge: Whether maps of patches are first made maps of pixels, by interpolation, as Learn to Rank reads them;
            else every pixel has its patch's value.
    """

    enlarge: bool = False


def _coverage(block: Measured) -> Tensor:
    """Share of each patch [B, M] that is region, NaN for an image without region."""
    maps, regions = given(block.maps), given(block.regions)
    share = functional.patch_coverage(regions, (maps.shape[-2], maps.shape[-1])).flatten(1)
    return share.masked_fill(~(share > 0).any(1, keepdim=True), torch.nan)


def _share_of_region(block: Measured) -> Tensor:
    return _coverage(block).mean(1)


def _share_of_patches(block: Measured) -> Tensor:
    share = _coverage(block)
    return (share > 0).double().mean(1).masked_fill(share.isnan().any(1), torch.nan)


def _columns(params: LocalisationParams) -> list[Column]:
    return [
        percent(
            "rma",
            "RMA",
            "Relevance mass accuracy: share of the positive attribution that lies inside the object.",
            chance_from=_share_of_region,
            control="object_mask",
        ),
        percent(
            "rra",
            "RRA",
            "Relevance rank accuracy: of the highest pixels, as many as the object has, the share that lies inside it.",
            chance_from=_share_of_region,
            control="object_mask",
        ),
        percent(
            "pointing_game",
            "Pointing game",
            "Share of images whose top patch touches the object.",
            # An enlarged map has pixels in place of patches.
            chance_from=_share_of_region if params.enlarge else _share_of_patches,
        ),
    ]


@metric("localisation", columns=_columns, needs=("maps", "regions"), params=LocalisationParams, revision=1)
def localisation(block: Measured, params: LocalisationParams) -> dict[str, Tensor]:
    """RMA and RRA (Arras et al. 2022), pointing game (Zhang et al. 2018); NaN where map or region says nothing."""
    maps, regions = given(block.maps), given(block.regions)
    regions = regions.to(maps.device)
    if params.enlarge:
        maps = functional.enlarge_map(maps, regions.shape[1:])
    return {
        "rma": functional.relevance_mass_accuracy(maps, regions),
        "rra": functional.relevance_rank_accuracy(maps, regions),
        "pointing_game": functional.pointing_game(maps, regions),
    }
