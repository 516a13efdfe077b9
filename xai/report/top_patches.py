"""Sheets of the patches that maps put first (Figures 4 and 7 of Yoshikawa et al.): what IoU@K compares."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from xai.report.figures.style import GREY
from xai.report.pictures import Gallery, draw_picture, pixels_of, wrapped

_DARK = 0.25
"""Of its brightness, what is left of a patch that is not among the first."""


def first_patches(maps: Tensor, count: int) -> Tensor:
    """The `count` patches of the highest attribution of each map [N, h, w]: bool [N, h, w]; of ties the first ones."""
    flat = maps.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, True).reshape(maps.shape)


def top_sheet(gallery: Gallery, count: int, reference: str, inches: float = 1.25) -> Figure:
    """Images down, maps across: the first `count` patches as they are and the rest dark.

    Args:
        gallery: Images and maps, all on the patch grid.
        count: K.
        reference: The label of the maps that the others are compared with: below each stands the IoU with its patches.
        inches: Width of a picture.
    """
    first = {label: first_patches(maps, count) for label, maps in gallery.maps.items()}
    images = pixels_of(gallery.images)
    high, wide = images.shape[1:3]
    figure = Figure(figsize=(inches * (len(first) + 1) + 0.3, len(images) * (inches * high / wide + 0.34) + 0.5))
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    panels = figure.subplots(len(images), len(first) + 1, squeeze=False)
    panels[0, 0].set_title("input", fontsize=8)
    for number, image in enumerate(images):
        draw_picture(panels[number, 0], image)
        panels[number, 0].set_xlabel(f"for {gallery.classes[number]}", fontsize=8, color=GREY, parse_math=False)
        for axes, (label, chosen) in zip(panels[number, 1:], first.items(), strict=True):
            rows, columns = (
                torch.arange(side) * patches // side
                for side, patches in zip((high, wide), chosen.shape[1:], strict=True)
            )
            bright = torch.where(chosen[number][rows][:, columns], 1.0, _DARK).numpy()
            draw_picture(axes, image / 255 * bright[..., None])
            if number == 0:
                axes.set_title(wrapped(label), fontsize=8, parse_math=False)
            if label != reference:
                both, either = (
                    (first[reference][number] & chosen[number]),
                    (first[reference][number] | chosen[number]),
                )
                axes.set_xlabel(f"IoU {int(both.sum()) / int(either.sum()):.2f}", fontsize=8)
    return figure
