"""Images with a part of them taken away, as soft or as hard as the masks say."""

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.models.maskable import REFERENCES, Removal, reference_image
from xai.ranking.axes import apply_axes, cells_to_pixels


def check_grid(grid: int, height: int, width: int) -> None:
    """Refuse grids finer than the image; UserError: with both sizes."""
    if not 2 <= grid <= min(height, width):
        raise UserError(
            f"a grid of {grid} x {grid} cells does not fit an image of {height} x {width} px: use 2 to "
            f"{min(height, width)} cells a side"
        )


def open_reference(images: Tensor, name: str, mean: Tensor) -> Tensor:
    """What shows where an image is taken away.

    Args:
        images: [B, 3, H, W] in [0, 1].
        name: `black`, `mean` or `blur`.
        mean: [3], the mean of the classifier's normalisation.

    Returns:
        [B or 1, 3, H, W].

    Raises:
        UserError: Unknown name.
    """
    if name not in REFERENCES:
        raise UserError(f"reference={name} is unknown: use {', '.join(REFERENCES)}")
    # The blur is a convolution, and a reference of half precision shows bands.
    with torch.autocast(images.device.type, enabled=False):
        return reference_image(images, Removal("pixels", name), mean)


def enlarge(masks: Tensor, height: int, width: int, sigma: float) -> Tensor:
    """Masks of cells as masks of pixels: nearest neighbours, then a Gaussian that takes the edges off.

    Args:
        masks: [..., G, G].
        height: H.
        width: W.
        sigma: Of the Gaussian, in pixels; 0 leaves the edges. It reaches three sigma, reflected at the border.

    Returns:
        [..., H, W].
    """
    down = cells_to_pixels(masks.shape[-2], height, sigma, masks)
    across = cells_to_pixels(masks.shape[-1], width, sigma, masks)
    return apply_axes(down, masks, across)


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of maps [..., H, W], as in `enlarge`."""
    height, width = maps.shape[-2:]
    return enlarge(maps, height, width, sigma)


def perturb(images: Tensor, reference: Tensor, masks: Tensor) -> Tensor:
    """Images with a share of the reference in them: x + mask * (reference - x).

    Args:
        images: [B, 3, H, W].
        reference: [B or 1, 3, H, W].
        masks: [B, S, H, W]; 1 shows the reference.

    Returns:
        [B, S, 3, H, W].
    """
    return torch.lerp(images[:, None], reference[:, None], masks.to(images)[:, :, None])
