"""What the metrics refuse, each in one line."""

import torch
from torch import Tensor

from xai.core.errors import UserError


def check_pair(pred: Tensor, ref: Tensor) -> None:
    """Raise UserError unless both are [N, M] alike with M >= 1."""
    if pred.shape != ref.shape or pred.ndim != 2 or pred.shape[1] == 0:
        raise UserError(
            f"cannot compare maps of shape {tuple(pred.shape)} with a reference of shape {tuple(ref.shape)}; "
            "both have to be [N, M], N images of the same M >= 1 patches"
        )


def check_grid(maps: tuple[int, ...], regions: Tensor) -> None:
    """Raise UserError unless bool regions [N, H, W] split evenly into the patches of maps of shape [N, h, w]."""
    if regions.dtype != torch.bool or regions.ndim != 3:
        raise UserError(
            f"regions are {regions.dtype} of shape {tuple(regions.shape)}; they have to be boolean masks [N, H, W]"
        )
    if len(maps) != 3 or maps[0] != regions.shape[0] or 0 in maps[1:]:
        raise UserError(
            f"maps of shape {maps} do not belong to regions of shape {tuple(regions.shape)}; "
            f"they have to be [{regions.shape[0]}, h, w] with at least one patch"
        )
    height, width = regions.shape[1:]
    if height % maps[1] or width % maps[2] or 0 in (height, width):
        raise UserError(
            f"regions of {height} x {width} pixels do not split into {maps[1]} x {maps[2]} patches; "
            "each side has to be a multiple of the grid's"
        )
