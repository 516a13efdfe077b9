"""Scattered scenes: one small object at a random place of a larger, textured canvas, and the region it covers.

Where every object sits in the centre, a map that ignores the image (the mean map) explains as well as any method.
Scattering takes that shortcut away: position says nothing, so an explanation has to look.
"""

from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import PlainValidator
from torch import Tensor

from xai.core.settings import Count, FieldError, Share, Side, Whole, settings

_SCENES_AT_ONCE = 64
"""Scenes whose strokes are drawn together: as many as a processor's cache holds."""


def _number_or_range(value: Any) -> Any:
    least, most = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
    if not all(type(each) is int for each in (least, most)) or not 0 <= least <= most:
        raise ValueError("must be a whole number of at least 0, or the least and the most, as [0, 5]")
    return tuple(value) if isinstance(value, list) else value


Strokes = Annotated[int | tuple[int, int], PlainValidator(_number_or_range)]
"""So many strokes; or the least and the most of an image."""


@settings
class ScatterParams:
    """How a scene is laid out. Lengths in pixels, grey levels in [0, 1].

    Args:
        canvas: Side of the square canvas.
        cells: The object is put into one of cells x cells equal cells.
        object_size: Side of the square the object is drawn in; it must fit into a cell.
        jitter: Largest shift of the object from its place in the cell, towards the canvas' far corner.
        clutter: Number of distracting strokes, as bright as the object, drawn outside of its region; the least and the
            most, as [0, 5], draw a number for each image.
        polarity: `light` (bright object on a dark ground), `dark`, or `random` for each image.
        ground: Mean grey level of the ground.
        ground_spread: Standard deviation of that level between images.
        texture: Standard deviation of the smooth texture.
        noise: Standard deviation of the pixel noise.
    """

    canvas: Side = 42
    cells: Count = 2
    object_size: Count = 20
    jitter: Whole = 1
    clutter: Strokes = 0
    polarity: Literal["light", "dark", "random"] = "light"
    ground: Share = 0.25
    ground_spread: Share = 0.06
    texture: Share = 0.05
    noise: Share = 0.03

    def __post_init__(self) -> None:
        """Refuse layouts that cannot be drawn."""
        cell = self.canvas // self.cells
        if self.object_size + self.jitter > cell:
            raise FieldError(
                "object_size",
                f"with jitter={self.jitter} does not fit into a cell of {cell} px (canvas={self.canvas} / "
                f"cells={self.cells}): lower object_size, jitter or cells",
            )


class Scene(NamedTuple):
    """Scenes: images [N, H, W] in [0, 1], regions bool [N, H, W], corners [N, 2] (top, left) of the objects.

    Scenes of K objects each have regions [N, K, H, W] and corners [N, K, 2].
    """

    images: Tensor
    regions: Tensor
    corners: Tensor


def scatter(objects: Tensor, params: ScatterParams, generator: torch.Generator) -> Scene:
    """Place each object somewhere on a canvas of its own.

    Args:
        objects: [N, s, s] in [0, 1], ink is 1, with s = `params.object_size`.
        params: The layout.
        generator: Source of all randomness.

    Returns:
        The scenes. A region is the bounding box of the object's ink above 0.25.
    """
    n, side = len(objects), params.canvas
    cell = torch.randint(params.cells, (n, 2), generator=generator) * (side // params.cells)
    corners = cell + torch.randint(params.jitter + 1, (n, 2), generator=generator)
    ink = _place(objects, corners, side)
    regions = _bounding_boxes(ink > 0.25)
    return Scene(_paint(ink, regions, params, generator), regions, corners)


def scatter_groups(objects: Tensor, params: ScatterParams, generator: torch.Generator) -> Scene:
    """Place K objects on one canvas, each in a cell of its own.

    Args:
        objects: [N, K, s, s] in [0, 1], ink is 1, with s = `params.object_size`.
        params: The layout, of at least K cells.
        generator: Source of all randomness.

    Returns:
        The scenes, with regions [N, K, H, W] and corners [N, K, 2] in the order of the objects.
    """
    (n, k), side = objects.shape[:2], params.canvas
    places = torch.rand(n, params.cells**2, generator=generator).argsort(dim=1, stable=True)[:, :k]
    cell = torch.stack([places // params.cells, places % params.cells], dim=2) * (side // params.cells)
    corners = cell + torch.randint(params.jitter + 1, (n, k, 2), generator=generator)
    ink = _place(objects.flatten(0, 1), corners.flatten(0, 1), side)
    regions = _bounding_boxes(ink > 0.25).unflatten(0, (n, k))
    images = _paint(ink.unflatten(0, (n, k)).amax(1), regions.any(1), params, generator)
    return Scene(images, regions, corners)


def cell_masks(corners: Tensor, params: ScatterParams) -> Tensor:
    """The cells that objects lie in, for the grid pointing game.

    Args:
        corners: [N, 2], top and left of each object, as in `Scene`.
        params: The layout the objects were scattered by.

    Returns:
        Bool [N, H, W], all of the cell. Rows and columns left over where the cells do not fill the canvas are False.
    """
    size = params.canvas // params.cells
    of_pixel = torch.arange(params.canvas) // size
    rows, columns = (corners // size)[:, :, None].unbind(1)
    return (of_pixel == rows)[:, :, None] & (of_pixel == columns)[:, None, :]


def _paint(ink: Tensor, taken: Tensor, params: ScatterParams, generator: torch.Generator) -> Tensor:
    """Images [N, H, W] of ink: strokes outside of what is `taken` [N, H, W], a ground, a polarity and noise."""
    n, side = len(ink), params.canvas
    clear = _grow(taken)
    least, most = params.clutter if isinstance(params.clutter, tuple) else (params.clutter, params.clutter)
    number = torch.randint(least, most + 1, (n, 1, 1), generator=generator) if least < most else torch.tensor(most)
    for drawn in range(most):
        left_out = clear | (drawn >= number)
        ink = torch.maximum(ink, _stroke(n, side, generator).masked_fill_(left_out, 0))
    images = _ground(n, params, generator)
    images = images + ink * (1 - images)
    if params.polarity == "dark":
        images = 1 - images
    elif params.polarity == "random":
        images = torch.where(torch.rand(n, 1, 1, generator=generator) < 0.5, 1 - images, images)
    images = images + params.noise * torch.randn(n, side, side, generator=generator)
    return images.clamp(0, 1)


def _place(objects: Tensor, corners: Tensor, side: int) -> Tensor:
    """Copy each object to its corner of an empty canvas: [N, side, side]."""
    n, size = len(objects), objects.shape[-1]
    steps = torch.arange(size)
    rows = (corners[:, 0, None] + steps)[:, :, None]
    columns = (corners[:, 1, None] + steps)[:, None, :]
    canvas = objects.new_zeros(n, side, side)
    canvas[torch.arange(n)[:, None, None], rows, columns] = objects
    return canvas


def _bounding_boxes(mask: Tensor) -> Tensor:
    """Fill the bounding box of each [H, W] mask."""

    def span(line: Tensor) -> Tensor:
        forwards = line.cumsum(-1) > 0
        backwards = line.flip(-1).cumsum(-1).flip(-1) > 0
        return forwards & backwards

    return span(mask.any(2).long())[:, :, None] & span(mask.any(1).long())[:, None, :]


def _ground(n: int, params: ScatterParams, generator: torch.Generator) -> Tensor:
    """Grounds [N, side, side]: a level of its own for each image, and a smooth texture."""
    level = params.ground + params.ground_spread * torch.randn(n, 1, 1, generator=generator)
    coarse = torch.randn(n, 1, 8, 8, generator=generator)
    waves = F.interpolate(coarse, size=(params.canvas, params.canvas), mode="bicubic", align_corners=True)[:, 0]
    return (level + params.texture * waves).clamp(0, 1)


def _stroke(n: int, side: int, generator: torch.Generator) -> Tensor:
    """One short anti-aliased stroke on each of N canvases: [N, side, side] in [0, 1]."""
    centre = side * torch.rand(n, 2, generator=generator)
    angle = 2 * torch.pi * torch.rand(n, generator=generator)
    half = side * (0.05 + 0.07 * torch.rand(n, generator=generator))
    parts = zip(*(tensor.split(_SCENES_AT_ONCE) for tensor in (centre, angle, half)), strict=True)
    return torch.cat([_draw_strokes(side, *part) for part in parts])


def _draw_strokes(side: int, centre: Tensor, angle: Tensor, half: Tensor) -> Tensor:
    """Strokes [n, side, side] through centres [n, 2] (top, left), at angles [n], of half lengths [n]."""
    steps, half = torch.arange(side) + 0.5, half[:, None, None]
    down = (steps[:, None] - centre[:, 0, None, None]).expand(-1, -1, side)
    right = (steps[None, :] - centre[:, 1, None, None]).expand(-1, side, -1)
    sine, cosine = angle.sin()[:, None, None], angle.cos()[:, None, None]
    along = (down * sine + right * cosine).clamp(-half, half)
    distance = torch.hypot(down - along * sine, right - along * cosine)
    return (1.8 - distance).clamp(0, 1)


def _grow(regions: Tensor) -> Tensor:
    """Regions with a margin of one pixel, which clutter keeps clear of."""
    return F.max_pool2d(regions[:, None].float(), 3, stride=1, padding=1)[:, 0] > 0
