"""Maps over the images that they are of."""

from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from xai.api.explaining import seen
from xai.api.model import Model, check_model
from xai.api.pixels import as_pixels, to_torch
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
        maps: [B, h, w], a tensor or an array or a list of B, or several by label, side by side.
        model: What explained them; needed where the images are pictures and the maps are not as `xai.explain` returned
            them, because it says which part of a picture it sees.
        titles: What stands below each image.
        normalised: Whether the images are floats that have been normalised as the model does.

    Returns:
        A matplotlib figure, a line an image.

    Raises:
        UserError: Images and maps do not belong together.
    """
    if model is not None:
        check_model(model)
    named = dict(maps) if isinstance(maps, Mapping) else {"map": maps}
    if not named:
        raise UserError("there are no maps: give at least one")
    named = {name: _maps(name, each) for name, each in named.items()}
    known = [seen[each] for each in named.values() if each in seen]
    if known:
        pixels = known[0]
    elif model is not None:
        pixels = model.pixels(images, normalised=normalised)
    elif normalised:
        raise UserError("the images are normalised: say model=, which says with what, or give them in [0, 1]")
    elif _is_picture(images):
        raise UserError("the images are pictures and the maps were changed since: say model=, which says what it sees")
    else:
        pixels = as_pixels(images, max(_first(images).shape[-2:-1], default=1))
    names = titles or [""] * len(pixels)
    return sheets(Gallery(pixels, named, names), across=len(named), inches=2.2)[0]


def _maps(name: Any, given: Any) -> Tensor:
    try:
        several = isinstance(given, (list, tuple))
        maps = torch.stack([to_torch(each) for each in given]) if several else to_torch(given)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"the maps ({name}) are no array: give [B, h, w], or several by label, as a dict") from None
    check_finite(maps, f"the maps ({name})", "draw finite ones")
    return maps[None] if maps.ndim == 2 else maps


def _first(images: Any) -> Any:
    return images[0] if isinstance(images, (list, tuple)) and images else images


def _is_picture(images: Any) -> bool:
    first = _first(images)
    return not hasattr(first, "shape") or isinstance(first, Image.Image)
