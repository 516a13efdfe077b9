"""Maps over the images that they are of."""

from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from xai.api.explaining import seen
from xai.api.model import Model
from xai.api.pixels import as_pixels
from xai.core.errors import UserError, check_finite
from xai.report.pictures import Gallery, sheets


def show(
    images: Any,
    maps: Any,
    *,
    model: Model | None = None,
    titles: list[str] | None = None,
    normalised: bool = False,
) -> Figure:
    """Draw maps over their images: red speaks for the class, blue against it.

    Args:
        images: Those that were explained.
        maps: [B, h, w], a tensor or an array, or several by label, side by side.
        model: What explained them; needed where the images are pictures and the maps are not as `xai.explain` returned
            them, because it says which part of a picture it sees.
        titles: What stands below each image.
        normalised: Whether the images are floats that have been normalised as the model does.

    Returns:
        A matplotlib figure, a line an image.

    Raises:
        UserError: Images and maps do not belong together.
    """
    named = dict(maps) if isinstance(maps, Mapping) else {"map": maps}
    if not named:
        raise UserError("there are no maps: give at least one")
    named = {name: _maps(name, each) for name, each in named.items()}
    known = [seen[each] for each in named.values() if each in seen]
    if known:
        pixels = known[0]
    elif model is not None:
        pixels = model.pixels(images, normalised=normalised)
    elif isinstance(images, Tensor):
        pixels = as_pixels(images, images.shape[-1])
    else:
        kind = "pictures" if _is_picture(images) else "arrays"
        raise UserError(f"the images are {kind} and the maps were changed since: say model=, which says what it sees")
    names = titles or [""] * len(pixels)
    return sheets(Gallery(pixels, named, names), across=len(named), inches=2.2)[0]


def _maps(name: Any, given: Any) -> Tensor:
    maps = torch.as_tensor(given)
    check_finite(maps, f"the maps ({name})", "draw finite ones")
    return maps[None] if maps.ndim == 2 else maps


def _is_picture(images: Any) -> bool:
    first = images[0] if isinstance(images, (list, tuple)) and images else images
    return not hasattr(first, "shape") or isinstance(first, Image.Image)
