"""SESS (Tursun et al. 2022) as an explainer: another row's maps of enlarged pieces of the image, put together."""

from dataclasses import asdict

import torch
import torch.nn.functional as F
from torch import Tensor

from xai.core.errors import check_finite
from xai.core.settings import Count, NonNegative, Positive, Share, settings
from xai.explainers.block import Block, BlockExplainer, Explainer, Explanation, explain
from xai.explainers.of_row import OfRowParams, made_from_row, own_row_of
from xai.explainers.params import MapParams
from xai.explainers.registry import Context, Prepared, explainer
from xai.metrics.functional import enlarge_map
from xai.models.explainer import column
from xai.models.maskable import MaskableClassifier

_AT_ONCE = 256
"""Pieces that are classified in one pass."""


@settings
class SessParams(OfRowParams, MapParams):
    """Which pieces are looked at, and which of them count.

    Args:
        of: The row.
        scales: Sizes that the image is enlarged to, the first its own.
        step: How much larger each is than the one before, as a share of the image's own size.
        dropped: Share of the pieces that is left out, those in which the class is least likely.
        theta: What a piece's map has to have at a place to count there.
    """

    scales: Count = 6
    step: Positive = 2 / 7
    dropped: Share = 0.5
    theta: NonNegative = 0.0


class Sess:
    """Slides a window of the size of the classifier's input over enlarged images.

    Args:
        of: What explains a piece.
        classifier: What says how likely the class is in it.
        params: Which pieces.
    """

    def __init__(self, of: Explainer | BlockExplainer, classifier: MaskableClassifier, params: SessParams) -> None:
        self._of, self._classifier, self._params = of, classifier, params

    @torch.no_grad()
    def explain(self, block: Block) -> Explanation:
        """Maps [B, h, w], or [B, H, W] of pixels."""
        params, (images, targets) = self._params, block[:2]
        side = images.shape[-1]
        sizes = [round(side * (1 + number * params.step)) for number in range(params.scales)]
        places = [
            (size, down, across) for size in sizes for down in starts(size, side) for across in starts(size, side)
        ]
        pieces = torch.cat([windows(images, size) for size in sizes], dim=1)
        parts = pieces.split(max(1, _AT_ONCE // len(images)), dim=1)
        score = torch.cat([self._score(few, targets) for few in parts], 1)
        count = max(1, round(len(places) * (1 - params.dropped)))
        kept = score.argsort(dim=1, descending=True, stable=True)[:, :count]
        maps = torch.zeros(*pieces.shape[:2], side, side, dtype=torch.float64, device=images.device)
        each = torch.arange(len(images), device=images.device)
        for which in kept.unbind(1):
            found = explain(self._of, block._replace(images=pieces[each, which])).maps
            assert found is not None
            positive = enlarge_map(found.double(), (side, side)).clamp(min=0)
            highest = positive.amax((1, 2), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
            maps[each, which] = positive / highest
        weight = score / score.amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        fused = fuse(maps * weight[:, :, None, None], places, params.theta).to(torch.float32)
        return Explanation(fused if params.of_pixels else F.adaptive_avg_pool2d(fused, self._classifier.grid))

    def _score(self, pieces: Tensor, targets: Tensor) -> Tensor:
        """How likely the class is in pieces [B, K, 3, H, W], [B, K]."""
        chances = self._classifier(pieces.flatten(0, 1)).double().softmax(-1).unflatten(0, pieces.shape[:2])
        check_finite(chances, "the classifier's answers to pieces of the image", "give one with finite outputs")
        return column(chances, targets)


def starts(size: int, window: int) -> list[int]:
    """Where windows begin along a side, one beside the other; the last is moved back to end where the image does."""
    return [min(start, size - window) for start in range(0, size, window)]


def windows(images: Tensor, size: int) -> Tensor:
    """All windows of images [B, 3, H, H] that were enlarged to `size`, row by row, [B, K, 3, H, H]."""
    side = images.shape[-1]
    large = images if size == side else F.interpolate(images, (size, size), mode="bilinear", align_corners=False)
    begin = starts(size, side)
    return torch.stack([large[..., y : y + side, x : x + side] for y in begin for x in begin], dim=1)


def fuse(maps: Tensor, places: list[tuple[int, int, int]], theta: float) -> Tensor:
    """The mean over the windows that have something to say at a place, [B, H, H].

    Args:
        maps: [B, K, H, H] float64 of the windows.
        places: Of each the size that the image was enlarged to, and where the window begins there.
        theta: What a map has to have at a place to count.
    """
    side = maps.shape[-1]
    total, count = torch.zeros_like(maps[:, 0]), torch.zeros_like(maps[:, 0])
    for each, (size, down, across) in zip(maps.unbind(1), places, strict=True):
        whole = F.pad(each, (across, size - side - across, down, size - side - down))
        small = F.interpolate(whole[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
        counts = small > theta
        total, count = total + small.where(counts, 0.0), count + counts
    return total / count.clamp(min=1)


def pieces_of(params: SessParams, side: int) -> int:
    """How many windows there are in all, for images of `side` pixels."""
    return sum(len(starts(round(side * (1 + number * params.step)), side)) ** 2 for number in range(params.scales))


@explainer(
    "sess",
    label="SESS",
    about="another row's maps of enlarged pieces of the image, weighed by how likely the class is in each",
    params=SessParams,
    kind="refined",
    check=lambda context, params: own_row_of(context, params.of, "sess"),
)
def sess(context: Context, params: SessParams) -> Prepared:
    """The other row's explainer, asked about each piece that is kept."""
    pieces = pieces_of(params, context.model.image_size)
    kept = max(1, round(pieces * (1 - params.dropped)))
    return made_from_row(
        context,
        params.of,
        "sess",
        lambda of: Sess(of, context.network(), params),
        lambda passes: pieces + kept * passes,
        asdict(params),
    )
