"""Transformer Input Sampling (Englebert et al., ICCV Workshops 2023) as an explainer: RISE by leaving tokens out.

Masks are not drawn at random: they are where the channels of the network's own tokens are high.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from xai.core.settings import Count, settings
from xai.explainers.params import GameParams
from xai.explainers.posthoc.gradients import in_parts
from xai.explainers.posthoc.traced import OfTransformer
from xai.explainers.registry import explainer
from xai.games import PatchGame
from xai.models.attention import trace
from xai.models.maskable import exact
from xai.rounding import at_least_float32, is_constant


@settings
class TisParams(GameParams):
    """How masks are made.

    Args:
        masks: Clusters that the channels of all layers are put into, at most one a channel.
        ratio: Share of the tokens that a mask keeps: those where its cluster's centre is highest.
        iterations: Of k-means at most; it ends when no channel changes its cluster.
        normalise: Stretch each map to [0, 1], as the published code does.
    """

    masks: Count = 1024
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    iterations: Count = 100
    normalise: bool = True


@explainer(
    "tis",
    label="TIS",
    about="mean answer when only the tokens are kept at which a cluster of the network's channels is high",
    params=TisParams,
    needs={"features", "game"},
    passes=lambda params, patches: 1 + params.masks,
)
class Tis(OfTransformer[TisParams]):
    """Explains with coalitions of tokens that are made from the tokens after every block.

    What the paper leaves open: k-means starts from channels that are drawn, the same ones for all images of a call; a
    cluster that loses all its channels keeps its centre; a centre that is the same at every patch makes no mask. Kept
    tokens run through the network alone where `removal` says `tokens`, as in the paper. `passes` is the most there are.
    """

    @torch.no_grad()
    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Maps [B, h, w] of images [B, 3, H, W] for the classes `targets` [B]."""
        maps = in_parts(self._maps, images, targets, generator)
        if self.params.normalise:
            low, high = maps.aminmax(dim=1, keepdim=True)
            maps = torch.where(is_constant(maps)[:, None], 0, (maps - low) / (high - low))
        return maps.unflatten(1, self.classifier.grid)

    def _maps(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Mean answers [b, M] of a part of the images."""
        params, channels = self.params, self._channels(images)
        order = torch.randperm(channels.shape[1], generator=generator)[: params.masks]
        centres = kmeans(channels, order.to(channels.device), params.iterations)
        masks = highest(centres, params.ratio)
        values = PatchGame(self.classifier, images, targets, output=params.output).value(masks)
        return tis(values, masks, ~is_constant(centres))

    def _channels(self, images: Tensor) -> Tensor:
        """[B, P, M]: each channel of each block's output, at each patch."""
        tokens = torch.cat(trace(self.classifier, images).tokens, -1)
        return at_least_float32(tokens[:, -self.classifier.players :]).mT.contiguous()


def kmeans(points: Tensor, start: Tensor, iterations: int) -> Tensor:
    """Lloyd's algorithm for many sets of points at once.

    Args:
        points: [B, P, M].
        start: [K], which of the points the centres are at first, in every set.
        iterations: At most; it ends when no point changes its cluster.

    Returns:
        Centres [B, K, M]. One that no point is nearest to stays where it was.
    """
    centres, nearest = points[:, start], None
    for _ in range(iterations):
        with exact(points):  # half precision would take many centres for equally near
            squares = centres.square().sum(-1)[:, None] - 2 * points @ centres.mT
        last, nearest = nearest, squares.argmin(-1)
        if last is not None and torch.equal(last, nearest):
            break
        sums = torch.zeros_like(centres).scatter_add_(1, nearest[..., None].expand_as(points), points)
        counts = torch.zeros_like(centres[..., 0]).scatter_add_(1, nearest, torch.ones_like(points[..., 0]))
        centres = torch.where(counts[..., None] > 0, sums / counts.clamp(min=1)[..., None], centres)
    return centres


def highest(values: Tensor, ratio: float) -> Tensor:
    """Bool [B, K, M]: the share `ratio` of each row of values [B, K, M] that is highest; ties go to the first."""
    kept = max(1, int(ratio * values.shape[-1]))
    first = values.argsort(dim=-1, descending=True, stable=True)[..., :kept]
    return torch.zeros_like(values, dtype=torch.bool).scatter_(-1, first, True)


def tis(values: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
    """The mean answer over the masks that keep a token: the sum of scores over what the paper calls coverage.

    Args:
        values: Answers [B, K].
        masks: Bool [B, K, M].
        counted: Bool [B, K], which of the masks count.

    Returns:
        [B, M]. A token that no mask keeps gets the mean over all masks that count.
    """
    answers, kept = values.double(), (masks & counted[..., None]).to(values.device, torch.float64)
    times = kept.sum(1)
    mean = (answers * counted).sum(1) / counted.sum(1).clamp(min=1)
    sums = (answers[:, None] @ kept)[:, 0]
    return torch.where(times > 0, sums / times.clamp(min=1), mean[:, None]).to(values.dtype)
