"""Pictures of any kind as what a classifier sees: [B, 3, H, W] in [0, 1]. What they are is said, never guessed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from xai.core.errors import UserError
from xai.data.images import read_image, side_of, to_tensor, upright_rgb
from xai.data.pictures import find_pictures

_SHAPES = "pictures (PIL, or paths), uint8 [B, 3, H, W] or [B, H, W, 3], or floats of these shapes in [0, 1]"


def as_pixels(
    images: Any,
    size: int,
    *,
    crop: float = 1.0,
    fit: str = "crop",
    interpolation: str = "bicubic",
    normalised: tuple[Sequence[float], Sequence[float]] | None = None,
    margin: float = 0.0,
) -> Tensor:
    """Images as a classifier sees them.

    Args:
        images: One picture or several: PIL images or paths, of any size; a folder or a glob, by sorted paths; uint8
            arrays or tensors, 0 to 255, [B, 3, H, W] or [B, H, W, 3]; floats of these shapes in [0, 1]. Channels are
            red, green, blue. One image needs no B.
        size: Side of the classifier's images. Pictures are brought to it: their short side is resized to `size / crop`,
            the middle is cut out. Arrays and tensors have to have it.
        crop: Share of the short side that is seen.
        fit: `squash` where both sides are brought to one length before.
        interpolation: `bicubic` or `bilinear`, how pictures are resized.
        normalised: Mean and deviation of the channels, where floats have been normalised with them.
        margin: How far floats may be from [0, 1]; those that are further than rounding stay as they are.

    Returns:
        float32 [B, 3, size, size] in [0, 1], on the CPU, a copy.

    Raises:
        UserError: What came is none of these, or its values are out of range; it says what came.
    """
    if isinstance(images, (str, Path)):
        images = find_pictures(str(images), "images")
    if isinstance(images, Image.Image):
        images = [images]
    if isinstance(images, (list, tuple)):
        if not images:
            raise UserError("there are no images: give at least one")
        if all(isinstance(each, (str, Path, Image.Image)) for each in images):
            return torch.stack([_picture(each, size, crop, fit, interpolation) for each in images])
        if not all(isinstance(each, (np.ndarray, Tensor)) for each in images):
            kinds = ", ".join(sorted({type(each).__name__ for each in images}))
            raise UserError(f"images are a list of {kinds}: give {_SHAPES}")
        parts = [as_pixels(each, size, normalised=normalised, margin=margin) for each in images]
        return torch.cat(parts)
    if not isinstance(images, (np.ndarray, Tensor)):
        raise UserError(f"images are a {type(images).__name__}: give {_SHAPES}")
    if isinstance(images, Tensor) and images.is_meta:
        raise UserError("images are on the device meta, where they have no values: give those that have some")
    try:
        return _tensor(to_torch(images), size, normalised, margin)
    except TypeError:
        raise UserError(f"images are an array of {images.dtype}: give {_SHAPES}") from None


def to_torch(values: Any) -> Tensor:
    """An array, also one that is turned around or of another kind of machine, which torch does not take as it is."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "uif":
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    return torch.as_tensor(values)


def _picture(image: str | Path | Image.Image, size: int, crop: float, fit: str, interpolation: str) -> Tensor:
    if not isinstance(image, Image.Image):
        picture = read_image(image)
    elif min(image.size) < 1:
        raise UserError(f"a picture is {image.width} x {image.height} px: give one with pixels")
    else:
        picture = _rgb(image)
    return to_tensor(picture, size, fit, side=side_of(size, crop), interpolation=interpolation)


def _rgb(image: Image.Image) -> Image.Image:
    file = getattr(image, "filename", "")
    what = f"the picture {file}" if file else "a picture"
    try:
        image.load()  # a file is read only now, and may be cut short, or closed by now
        return upright_rgb(image)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{what} of mode {image.mode} cannot be read ({error}): convert it to RGB") from None
    except Exception as error:  # decoders meet broken bytes with whatever error comes first
        why = " ".join(str(error).split())[:160] or "is its file closed?"
        raise UserError(f"{what} cannot be read ({why}): give a whole one, open, or its path") from None


def _tensor(
    images: Tensor, size: int, normalised: tuple[Sequence[float], Sequence[float]] | None, margin: float
) -> Tensor:
    came = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
    images = images.detach().cpu()
    if images.layout != torch.strided:
        images = images.to_dense()
    if images.ndim == 3:
        images = images[None]
    if images.ndim != 4 or not len(images):
        raise UserError(f"images are {came}: give {_SHAPES}")
    is_bytes = images.dtype == torch.uint8
    if images.shape[1] != 3 and images.shape[-1] == 3:
        images = images.permute(0, 3, 1, 2)
    if images.shape[1] != 3:
        raise UserError(f"images are {came}: three channels are needed (of grey, one three times), as {_SHAPES}")
    if not (is_bytes or images.is_floating_point()):
        raise UserError(f"images are {came}: give {_SHAPES}")
    if tuple(images.shape[-2:]) != (size, size):
        raise UserError(
            f"images are {came}, and this classifier sees {size} x {size} px: resize them, or give pictures (PIL, or "
            "paths), which are brought to size as it needs them"
        )
    if is_bytes:
        if normalised is not None:
            raise UserError("images are uint8, which nobody normalises: leave normalised out, or give the floats")
        return images.float() / 255
    images = images.float().clone()
    if normalised is not None:
        mean, std = (torch.tensor(channel).reshape(3, 1, 1) for channel in normalised)
        images = images * std + mean
    return _in_range(images, margin, undone=normalised is not None)


def _in_range(images: Tensor, margin: float, *, undone: bool) -> Tensor:
    if not images.isfinite().all():
        raise UserError(f"{int((~images.isfinite()).sum())} pixels are NaN or infinite: give finite ones")
    low, high = float(images.min()), float(images.max())
    # Whoever normalised in half precision comes back with an error of this size.
    if low >= -0.01 and high <= 1.01:
        return images.clamp(0, 1)
    if -margin <= low and high <= 1 + margin:
        return images
    found = f"floats from {low:.3g} to {high:.3g}"
    if undone:
        raise UserError(f"images are {found} once mean and std are undone, not in [0, 1]: they were not normalised so")
    deep = "divide them by what white is (65535 for 16 bits)" if low >= 0 and high > 256 else "say normalised=True"
    advice = "divide them by 255, or give them as uint8" if low >= 0 and high <= 256 else deep
    raise UserError(f"images are {found}, where [0, 1] is needed: {advice}")
