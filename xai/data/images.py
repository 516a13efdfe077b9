"""One picture: from a file to upright 8-bit RGB, and from there to the square that a model takes.

Colour profiles are not applied: the numbers in the file are taken as sRGB, as CLIP's own pre-processing does.
"""

import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from xai.core.errors import UserError
from xai.core.files import check_file

# A closed list, because some of Pillow's readers hand the file to an outside program (EPS to Ghostscript).
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP", "JPEG2000", "AVIF", "TGA", "ICO")
MAX_PIXELS = 100_000_000
# A resized side may be this many times the other before the ends, which the crop drops anyway, are cut off first.
_LONGEST = 8

T = TypeVar("T")


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read a picture as upright 8-bit RGB, in memory.

    EXIF rotation is applied; of an animation the first frame is taken; see `to_rgb` for transparency and depth.

    Raises:
        UserError: the file is missing, no regular file, empty, broken, truncated, not a picture, without pixels, or of
            more than `MAX_PIXELS`, which its header says before anything is decoded.
    """
    return _read(Path(path), upright_rgb)


def read_labels(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read a label map (a trimap, say): a grey or palette picture whose pixels are small whole numbers, not colours.

    Returns:
        uint8 [H, W], the numbers as they are stored: of a palette picture the entry, not its colour.

    Raises:
        UserError: as `read_image`; or more than one channel, or more than 8 bits.
    """
    return _read(Path(path), _numbers)


def _read(path: Path, convert: Callable[[Image.Image], T]) -> T:
    try:
        check_file(path, str(path), "a whole picture")
        with warnings.catch_warnings():
            # Pillow warns of sizes below our own limit, and of damaged notes about the picture in many lines.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise UserError(
                        f"{path} is {width} x {height} = {width * height:,} pixels; at most {MAX_PIXELS:,} are read, "
                        "scale it down first"
                    )
                image.load()
                return convert(image)
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is not a picture, or one without pixels; give one of {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombError, MemoryError):
        raise UserError(f"{path} is too large; at most {MAX_PIXELS:,} pixels are read, scale it down first") from None
    except Exception as error:  # decoders meet broken bytes with whatever error comes first
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path!s:.200} is broken or cut short ({why}); give a whole picture") from None


def upright_rgb(image: Image.Image) -> Image.Image:
    """As `to_rgb`, turned as its EXIF notes say."""
    try:
        turned = ImageOps.exif_transpose(image)
    except Exception:  # a damaged note about rotation is no reason to refuse whole pixels
        return to_rgb(image)
    # Turning makes a new image, which forgets what `to_rgb` asks for.
    turned.format = image.format
    return to_rgb(turned)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode as 8-bit RGB.

    Transparency (LA, RGBA, PA, or a transparent palette entry or colour) is laid on white. Deep grey is scaled so that
    white is white: 65535 for 16 bits; for 32-bit whole numbers the smallest of 255, 65535 and 2^31 - 1 that holds the
    brightest pixel (65535 always where the file is a PGM); for floats the smallest of 1, 255 and 65535. Deep grey with
    negative values, or floats above 65535, has no agreed white and is stretched from its darkest to its brightest.

    Raises:
        UserError: float pixels that are NaN or infinite.
    """
    if image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.int64)
        grey = _to_byte(deep, 65535.0)
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            grey[deep == clear] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "I":
        whites = (65535.0,) if image.format == "PPM" else (255.0, 65535.0, 2.0**31 - 1)
        return Image.fromarray(_deep_grey(np.asarray(image), whites)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(_deep_grey(np.asarray(image), (1.0, 255.0, 65535.0))).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def side_of(size: int, crop: float) -> int:
    """What the short side is resized to where its share `crop` is seen, `size` px; rounded down, as timm does it."""
    return math.floor(size / crop)


def crop_of(size: int, side: int) -> float:
    """The share that is seen where `side` px are cut to `size`: the one of which `side_of` makes this very side."""
    share = size / side
    return share if side_of(size, share) == side else math.nextafter(share, 0)


def to_pixels(
    image: Image.Image, size: int, fit: str = "crop", *, side: int | None = None, interpolation: str = "bicubic"
) -> Tensor:
    """A picture as a square of bytes, uint8 [3, size, size], as timm, torchvision and open_clip make it for evaluation.

    Args:
        image: Of any mode and size.
        size: Side of the square.
        fit: `crop` resizes the short side to `side`, `squash` both sides; then the centre is cut out.
        side: In pixels; None: `size`. Where it is smaller, a black border fills the square.
        interpolation: `bicubic` or `bilinear`, antialiased.
    """
    square = _square(to_rgb(image), size, side or size, fit, Image.Resampling[interpolation.upper()])
    return torch.from_numpy(np.array(square, dtype=np.uint8)).permute(2, 0, 1).contiguous()


def to_tensor(
    image: Image.Image, size: int, fit: str = "crop", *, side: int | None = None, interpolation: str = "bicubic"
) -> Tensor:
    """A picture as `to_pixels` has it, as float32 [3, size, size] in [0, 1]."""
    return to_pixels(image, size, fit, side=side, interpolation=interpolation).float().div_(255.0)


def region_to_tensor(region: NDArray[np.bool_], size: int, fit: str = "crop", *, side: int | None = None) -> Tensor:
    """A region [H, W] of a picture, brought to where `to_pixels` brings the picture: bool [size, size].

    A pixel belongs to it when half of the area it came from does.
    """
    mask = _square(Image.fromarray(region.astype(np.uint8) * 255), size, side or size, fit, Image.Resampling.BOX)
    return torch.from_numpy(np.array(mask) > 127)


def _numbers(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode not in ("1", "L", "P"):
        raise UserError(f"the label map has pixels of type {image.mode}; 8-bit grey or palette ones are needed")
    return np.array(image, dtype=np.uint8)


def _deep_grey(pixels: NDArray[np.generic], whites: tuple[float, ...]) -> NDArray[np.uint8]:
    values = pixels.astype(np.float64)
    if not np.isfinite(values).all():
        raise UserError("the picture has NaN or infinite pixels; finite ones are needed")
    low, high = float(values.min()), float(values.max())
    white = next((white for white in whites if high <= white), None)
    if low < 0 or white is None:
        return _to_byte(values - low, high - low if high > low else 1.0)
    return _to_byte(values, white)


def _to_byte(values: NDArray[np.generic], white: float) -> NDArray[np.uint8]:
    return np.floor(values.astype(np.float64) * 255.0 / white + 0.5).astype(np.uint8)


def _square(image: Image.Image, size: int, side: int, fit: str, resample: Image.Resampling) -> Image.Image:
    if fit == "squash":
        image = image.resize((side, side), resample)
    else:
        image = _cut_long_ends(image)
        width, height = image.size
        short = min(width, height)
        image = image.resize((side * width // short, side * height // short), resample)
    left, top = _margin(image.width - size), _margin(image.height - size)
    return image.crop((left, top, left + size, top + size))


def _margin(room: int) -> int:
    """What is cut off before the centre, or, below 0, filled with black; torchvision rounds the one to even."""
    return round(room / 2) if room >= 0 else -(-room // 2)


def _cut_long_ends(image: Image.Image) -> Image.Image:
    """A strip a thousand times longer than wide would be blown up to a thousand crops; keep the middle of it."""
    width, height = image.size
    reach = _LONGEST * min(width, height)
    if max(width, height) <= reach:
        return image
    left, top = max(width - reach, 0) // 2, max(height - reach, 0) // 2
    return image.crop((left, top, left + min(width, reach), top + min(height, reach)))
