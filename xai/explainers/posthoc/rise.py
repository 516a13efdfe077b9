"""RISE (Petsiuk, Das and Saenko 2018) as an explainer: on the patches of an image, and with its own smooth masks."""

import math
from dataclasses import KW_ONLY
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from xai.core.settings import Count, Several, settings
from xai.explainers.block import OfClassifier, check_targets, source
from xai.explainers.params import GameParams, MapParams, OutputParams
from xai.explainers.posthoc.baselines import baseline_of, settle_baseline
from xai.explainers.posthoc.game_values import OfGame
from xai.explainers.posthoc.gradients import images_at_once
from xai.explainers.registry import explainer
from xai.games import read_out
from xai.models.explainer import column
from xai.models.maskable import MaskableClassifier
from xai.shapley.design import Game


@settings
class RiseParams(GameParams):
    """How many masks are drawn, and how their answers are averaged.

    Args:
        masks: N, the masked images evaluated for each image.
        keep_probability: p, with which a mask shows a patch, independently of all others.
        normalise: Divide by the number of masks that show a patch, rather than by its expectation N p.
    """

    masks: Several
    keep_probability: Annotated[float, Field(gt=0, lt=1)] = 0.5
    normalise: bool = True


@explainer(
    "rise",
    label="RISE",
    about="mean answer over random masks that show the patch",
    params=RiseParams,
    needs={"game"},
    passes=lambda params, patches: params.masks,
)
class Rise(OfGame[RiseParams]):
    """Explains all images of a call with one set of masks.

    The paper draws masks on a coarse grid and scales them up to smooth ones at random offsets; here a mask is a
    coalition of patches, as for all other explainers that play the game.
    """

    def values(self, game: Game, generator: torch.Generator) -> Tensor:
        """Mean answers; see `rise`."""
        params = self.params
        masks = torch.rand(params.masks, game.players, generator=generator) < params.keep_probability
        return rise(game.value(masks), masks, None if params.normalise else params.keep_probability)


def rise(values: Tensor, masks: Tensor, keep_probability: float | None = None) -> Tensor:
    """RISE from the answers to masks.

    With p given it is equation 6 of the paper, the sum over masks of v(S) 1[i in S], divided by N p. Each entry is an
    unbiased estimate of E[v(S) | i in S], and so is the mean over the masks that show i, which is taken without p: it
    does not charge a patch with how often it happened to be shown, and shifts with v.

    Args:
        values: v(S), [B, N].
        masks: Bool [N, M]; True is shown.
        keep_probability: p, or None.

    Returns:
        [B, M] in the dtype of `values`; computed in float64. Without p, a patch that no mask shows gets the mean over
        all masks.
    """
    # In float64, which autocast leaves alone.
    answers, shown = values.double(), masks.to(values.device, torch.float64)
    if keep_probability is not None:
        return (answers @ shown / (len(masks) * keep_probability)).to(values.dtype)
    times = shown.sum(0)
    means = torch.where(times > 0, answers @ shown / times.clamp(min=1), answers.mean(1, keepdim=True))
    return means.to(values.dtype)


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
        self._baseline = baseline_of(classifier, params.baseline)

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
            values = read_out(logits.double(), params.output).unflatten(0, (len(images), -1))
            total += torch.einsum("bn,nhw->bhw", column(values, targets), masks.double())
            shown += masks.double().sum(0)
        # Equation 6 divides by N E[M].
        expected = params.masks * params.keep_probability
        maps = total / (shown.clamp(min=torch.finfo(torch.float32).tiny) if params.normalise else expected)
        maps = maps.to(torch.promote_types(images.dtype, torch.float32))
        return maps if params.of_pixels else F.adaptive_avg_pool2d(maps, self.classifier.grid)


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
