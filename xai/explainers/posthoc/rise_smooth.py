"""RISE as its paper has it (Petsiuk, Das and Saenko 2018): smooth masks at random offsets, over pixels."""

import math
from dataclasses import KW_ONLY
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from xai.core.settings import Count, Several, settings
from xai.explainers.block import OfClassifier, check_targets, source
from xai.explainers.params import MapParams, OutputParams
from xai.explainers.posthoc.baselines import Baseline, settle_baseline
from xai.explainers.posthoc.gradients import images_at_once
from xai.explainers.registry import explainer
from xai.models.maskable import MaskableClassifier


@settings
class RiseSmoothParams(MapParams, OutputParams):
    """How many masks are drawn, of what, and how their answers are averaged.

    Args:
        masks: N, the masked images evaluated for each image.
        cells: s, cells of the coarse grid along a side; 7 in the paper.
        keep_probability: p, with which a cell is shown, independently of all others.
        normalise: Divide by how much the masks show of a pixel, rather than by its expectation N p.
        baseline: What shows where a mask hides: `black`, `mean`, `blur`, or a grey level between 0 and 1.
    """

    _: KW_ONLY
    masks: Several
    cells: Count = 7
    keep_probability: Annotated[float, Field(gt=0, lt=1)] = 0.5
    normalise: bool = True
    baseline: str | float = "mean"

    def __post_init__(self) -> None:
        """Refuse baselines that there are not."""
        settle_baseline(self)


@explainer(
    "rise_smooth",
    label="RISE, smooth",
    about="mean answer over random smooth masks, by how much each shows of a pixel",
    params=RiseSmoothParams,
    passes=lambda params, patches: params.masks,
)
class RiseSmooth(OfClassifier[RiseSmoothParams]):
    """Explains all images of a call with one set of masks.

    A smooth mask is no coalition of patches, so that pixels are blended with the baseline, and no patch is removed.

    Raises:
        UserError: For the mean as a baseline, where the classifier's normalisation is not known.
    """

    def __init__(self, classifier: MaskableClassifier, params: RiseSmoothParams) -> None:
        super().__init__(classifier, params)
        self._baseline = Baseline(classifier, params.baseline)

    @torch.no_grad()
    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Mean answers of images [B, 3, H, W] for the classes `targets` [B]: [B, h, w], or [B, H, W] of pixels."""
        check_targets(images, targets)
        params, size = self.params, (images.shape[-2], images.shape[-1])
        cells, offsets = draw(params.masks, params.cells, size, params.keep_probability, source(generator))
        elsewhere, at_once = self._baseline(images), images_at_once(images)
        total = torch.zeros(len(images), *size, dtype=torch.float64, device=images.device)
        shown = torch.zeros(size, dtype=torch.float64, device=images.device)
        for few in torch.arange(params.masks).split(max(1, at_once // len(images))):
            masks = smooth_masks(cells[few], offsets[few], size).to(images)
            blended = torch.lerp(elsewhere[:, None], images[:, None], masks[:, None]).flatten(0, 1)
            logits = torch.cat([self.classifier(part) for part in blended.split(at_once)])
            values = logits.double().softmax(-1) if params.output == "probability" else logits.double()
            answers = values.unflatten(0, (len(images), -1)).gather(2, targets[:, None, None].expand(-1, len(few), 1))
            total += torch.einsum("bn,nhw->bhw", answers[..., 0], masks.double())
            shown += masks.double().sum(0)
        maps = total / (shown.clamp(min=torch.finfo(torch.float32).tiny) if params.normalise else _expected(params))
        maps = maps.to(torch.promote_types(images.dtype, torch.float32))
        return maps if params.of_pixels else F.adaptive_avg_pool2d(maps, self.classifier.grid)


def _expected(params: RiseSmoothParams) -> float:
    """N E[M], the divisor of equation 6."""
    return params.masks * params.keep_probability


def draw(
    masks: int, cells: int, size: tuple[int, int], keep_probability: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Coarse grids [N, s, s] of zeros and ones, and offsets [N, 2] in pixels, each less than a cell's side."""
    grids = (torch.rand(masks, cells, cells, generator=generator) < keep_probability).double()
    sides = torch.tensor(cell_sides(cells, size))
    offsets = (torch.rand(masks, 2, generator=generator, dtype=torch.float64) * sides).floor().long()
    return grids, offsets


def cell_sides(cells: int, size: tuple[int, int]) -> tuple[int, int]:
    """(C_H, C_W), the pixels that a cell of the coarse grid is high and wide."""
    return math.ceil(size[0] / cells), math.ceil(size[1] / cells)


def smooth_masks(grids: Tensor, offsets: Tensor, size: tuple[int, int]) -> Tensor:
    """Section 3.2 of the paper: grids [N, s, s] enlarged bilinearly to s + 1 cells a side, cut out at the offsets.

    Returns:
        [N, H, W] in [0, 1].
    """
    cells, (height, width) = grids.shape[-1], size
    high, wide = cell_sides(cells, size)
    large = F.interpolate(grids[:, None], ((cells + 1) * high, (cells + 1) * wide), mode="bilinear")[:, 0]
    down = offsets[:, :1] + torch.arange(height)
    across = offsets[:, 1:] + torch.arange(width)
    return large[torch.arange(len(large))[:, None, None], down[:, :, None], across[:, None, :]]
