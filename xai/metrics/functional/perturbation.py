"""How a classifier's confidence falls as the most important pixels go, and rises as they come: deletion and insertion.

The metrics of Petsiuk et al. 2018 (RISE) as Learn to Rank measures them (Schinagl et al. 2026): the pixels of the
full-resolution map are ranked, and at evenly spaced shares, every 5 %, those ranked first are replaced by a reference
or are all that is shown. A score is the area under the curve of the class's probability over the share.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from xai.core.errors import UserError, check_finite
from xai.rounding import is_constant
from xai.sampling import ranks_with_random_ties

Classify = Callable[[Tensor], Tensor]
"""Images [N, 3, H, W] in [0, 1] to logits [N, C]."""


class PerturbationCurves(NamedTuple):
    """Probabilities of K classes, each float64 [B, S, K], over the shares 0, 1 / (S - 1), ..., 1 of the pixels.

    `deletion` begins with the image and ends with the reference: a share of the pixels is gone. `insertion` begins with
    the reference and ends with the image: a share is all there is.
    """

    deletion: Tensor
    insertion: Tensor


@torch.no_grad()
def perturbation_curves(
    classify: Classify,
    images: Tensor,
    maps: Tensor,
    targets: Tensor,
    reference: Tensor,
    generator: torch.Generator,
    steps: int = 21,
    chunk: int = 256,
) -> PerturbationCurves:
    """Deletion and insertion curves of any number of classes, from one pass of each perturbed image.

    The two curves have their ends in common, so that an image costs 2 S - 2 passes. A share that is no whole number of
    pixels is rounded, so that what a map inserts is exactly what its negative deletes, read backwards.

    Args:
        classify: The classifier, in the mode it is measured in.
        images: [B, 3, H, W] in [0, 1].
        maps: [B, H, W]; higher is more important. `enlarge_map` makes them of maps of patches.
        targets: [B, K] class indices, the classes whose probabilities are wanted.
        reference: [B or 1, 3, H, W], what shows where a pixel is not; `xai.models.maskable.reference_image` makes it.
        generator: Orders the ties, see `pixel_ranks`.
        steps: S, the points of a curve.
        chunk: Perturbed images in one pass; 0 takes all at once.

    Raises:
        UserError: Maps, steps, chunk or a class do not fit.
        ValueError: Other shapes than these, or no image at all.
    """
    _check(images, maps, targets, reference, steps, chunk)
    ranks = pixel_ranks(maps, generator).reshape(maps.shape).to(images.device)
    targets, reference = targets.to(images.device), reference.to(images)
    begin, end = _shown(maps[0].numel(), steps, images.device)
    points = len(begin)
    lowest, highest = int(targets.min()), int(targets.max())
    found = []
    rows = torch.arange(len(images) * points, device=images.device)
    for part in rows.split(chunk or len(rows)):
        owner, point = part // points, part % points
        order = ranks[owner]
        shown = (begin[point, None, None] <= order) & (order < end[point, None, None])
        elsewhere = reference if len(reference) == 1 else reference[owner]
        logits = classify(torch.where(shown[:, None], images[owner], elsewhere))
        if logits.ndim != 2 or len(logits) != len(part):
            raise ValueError(f"classify answers {len(part)} images with {list(logits.shape)}: it has to be [N, C]")
        if lowest < 0 or highest >= logits.shape[1]:
            wrong = lowest if lowest < 0 else highest
            raise UserError(
                f"class index {wrong} is out of range: the classifier has {logits.shape[1]} classes, counted from 0"
            )
        found.append(logits.double().softmax(-1).gather(1, targets[owner]))
    values = torch.cat(found).unflatten(0, (-1, points))
    deletion, inner = values[:, :steps], values[:, steps:]
    return PerturbationCurves(deletion, torch.cat([deletion[:, -1:], inner, deletion[:, :1]], dim=1))


def pixel_ranks(maps: Tensor, generator: torch.Generator) -> Tensor:
    """The place of each pixel in the order of importance, integers [B, H * W]; 0 is the most important.

    Pixels of equal importance come in random order, because an order by position would earn points. A map that varies
    by rounding only counts as constant. Arguments and errors are those of `perturbation_curves`.
    """
    if maps.ndim != 3 or not maps.numel():
        raise ValueError(f"maps are {list(maps.shape)}: they have to be [B, H, W] with at least one pixel")
    check_finite(maps, "the batch's maps", "all values must be finite", torch.arange(len(maps)))
    flat = maps.detach().flatten(1)
    return ranks_with_random_ties(flat.masked_fill(is_constant(flat)[:, None], 0), generator)


def area(curves: Tensor) -> Tensor:
    """Areas [...] under curves [..., S], S >= 2, over the shares from 0 to 1, by the trapezoid rule, in float64."""
    if curves.ndim == 0 or curves.shape[-1] < 2:
        raise ValueError(f"curves are {list(curves.shape)}: they have to be [..., S] with S >= 2 points")
    return torch.trapezoid(curves.double(), dx=1 / (curves.shape[-1] - 1))


def enlarge_map(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps of patches [B, h, w] as maps of pixels [B, H, W], by bilinear interpolation, as is customary.

    The value of a patch is that of its centre; beyond the outermost centres it stays what it is there. What already has
    the size (H, W) is returned as it is, and what is larger refused: pixels would be left out.
    """
    if maps.ndim != 3:
        raise ValueError(f"maps are {list(maps.shape)}: they have to be [B, h, w]")
    (h, w), (height, width) = maps.shape[1:], size
    if h > height or w > width:
        raise UserError(f"a map of {h} x {w} cannot be enlarged to {height} x {width}: give at least its own size")
    if (h, w) == (height, width):
        return maps
    # Along the border pixels have the same value; which of them rounding would put first is the processor's own.
    wide = F.interpolate(maps[:, None].double(), (height, width), mode="bilinear", align_corners=False)[:, 0]
    return wide.to(maps.dtype)


def _shown(pixels: int, steps: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of each of the 2 S - 2 images asked for, the first rank that is shown and the first that is not any more.

    The S points of deletion come first, then those of insertion between its ends, which deletion has too.
    """
    # Whole numbers throughout: a share of pixels in floating point may fall to either side of a half.
    gone = (2 * pixels * torch.arange(steps, device=device) + steps - 1) // (2 * (steps - 1))
    present = (pixels - gone).flip(0)[1:-1]
    begin = torch.cat([gone, torch.zeros_like(present)])
    return begin, torch.cat([torch.full_like(gone, pixels), present])


def _check(images: Tensor, maps: Tensor, targets: Tensor, reference: Tensor, steps: int, chunk: int) -> None:
    if steps < 2:
        raise UserError(f"steps={steps}: a curve has its two ends at least, use 2 or more")
    if chunk < 0:
        raise UserError(f"chunk={chunk} must be 0, for all at once, or more")
    shapes = [list(tensor.shape) for tensor in (images, maps, targets, reference)]
    batch, frame = len(images), images.shape[1:]
    if (
        [len(shape) for shape in shapes] != [4, 3, 2, 4]
        or [len(maps), len(targets)] != [batch, batch]
        or len(reference) not in (1, batch)
        or reference.shape[1:] != frame
        or not images.numel() * targets.numel()
    ):
        raise ValueError(
            f"images, maps, targets and reference are {', '.join(map(str, shapes))}: they have to be [B, 3, H, W], "
            "[B, H, W], [B, K] and [B or 1, 3, H, W] with B >= 1"
        )
    if maps.shape[1:] != images.shape[2:]:
        raise UserError(
            f"maps of {maps.shape[1]} x {maps.shape[2]} do not rank the pixels of images of {frame[1]} x {frame[2]}: "
            "enlarge them first, with xai.metrics.functional.enlarge_map"
        )
