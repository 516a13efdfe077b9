"""RISE (Petsiuk, Das and Saenko 2018) as an explainer, on the patches of an image."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from xai.core.settings import Several, settings
from xai.explainers.params import GameParams
from xai.explainers.posthoc.of_game import OfGame
from xai.explainers.registry import explainer
from xai.games import PatchGame


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

    def values(self, game: PatchGame, generator: torch.Generator) -> Tensor:
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
