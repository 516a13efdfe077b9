"""Submodular subset selection (Less is More, Chen et al. 2024) as an explainer, on the patches of an image."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from xai.core.errors import check_finite
from xai.core.settings import NonNegative, settings
from xai.explainers.block import OfClassifier
from xai.explainers.params import GameParams
from xai.explainers.registry import explainer
from xai.games import PatchGame, read_out
from xai.models.explainer import column


@settings
class SubmodularParams(GameParams):
    """What each score counts.

    Args:
        effectiveness: Of how different the chosen patches are from each other.
        consistency: Of the answer with the chosen patches alone.
        collaboration: Of one less the answer without them.
    """

    effectiveness: NonNegative = 1.0
    consistency: NonNegative = 1.0
    collaboration: NonNegative = 1.0


@explainer(
    "submodular",
    label="Less is More",
    about="the order in which patches are chosen greedily, by what they say together and what is left without them",
    params=SubmodularParams,
    needs={"game"},
    passes=lambda params, patches: patches * (patches + 1) + patches,
)
class Submodular(OfClassifier[SubmodularParams]):
    """Chooses the patches of all images one place at a time, trying all that are left.

    Ours: patches in place of superpixels, and the logits as the features that tell patches apart, for a game answers
    with nothing else. As in the authors' code for transformers, consistency is the answer for the class, and the
    confidence score, which needs a network trained for it, is left out.
    """

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Maps [B, h, w] of images [B, 3, H, W] for the classes `targets` [B]: 1 for the first, 1 / M for the last."""
        params, grid = self.params, self.classifier.grid
        game = PatchGame(self.classifier, images, output="logit")
        players, device = game.players, game.device

        def logits_of(coalitions: Tensor) -> Tensor:
            logits = game.value(coalitions).double()
            # What is no number would be the largest score of all.
            check_finite(logits, "the classifier's answers with patches removed", "give one with finite outputs")
            return logits

        def asked(coalitions: Tensor) -> Tensor:
            return column(read_out(logits_of(coalitions), params.output), targets.to(device))

        distance = angles(logits_of(torch.eye(players, dtype=torch.bool)))
        chosen = torch.zeros(len(images), players, dtype=torch.bool, device=device)
        nearest = torch.full((len(images), players), torch.inf, dtype=torch.float64, device=device)
        order: list[Tensor] = []
        for place in range(players):
            left = (~chosen).nonzero()[:, 1].reshape(len(images), players - place)
            with_each = chosen[:, None] | F.one_hot(left, players).bool()
            alone, without = asked(torch.cat([with_each, ~with_each], dim=1)).chunk(2, dim=1)
            score = params.consistency * alone + params.collaboration * (1 - without)
            score = score + params.effectiveness * spread(distance, nearest, chosen, left)
            patch = left.gather(1, score.argmax(1, keepdim=True))
            order.append(patch)
            chosen = chosen.scatter(1, patch, True)
            nearest = torch.minimum(nearest, distance.gather(2, patch[:, None].expand(-1, players, 1))[..., 0])
        worth = torch.linspace(1, 1 / players, players, device=device).expand(len(images), -1)
        maps = torch.zeros(len(images), players, device=device).scatter_(1, torch.cat(order, dim=1), worth)
        return maps.reshape(-1, *grid)


def angles(features: Tensor) -> Tensor:
    """Angles between features [B, M, D] as shares of a half turn, [B, M, M] float64; infinite to oneself."""
    unit = F.normalize(features.double(), dim=-1)
    apart = (unit @ unit.mT).clamp(-1, 1).arccos() / math.pi
    return apart + torch.diag(apart.new_full((apart.shape[-1],), torch.inf))


def spread(distance: Tensor, nearest: Tensor, chosen: Tensor, left: Tensor) -> Tensor:
    """The effectiveness score of what is chosen and one more: how far each is from the one nearest to it, added up.

    Args:
        distance: [B, M, M].
        nearest: [B, M], how far each patch is from the nearest that is chosen and not itself; infinite where none is.
        chosen: Bool [B, M].
        left: [B, K], the patches that may be the one more; a patch that is alone counts 1, as in the authors' code.

    Returns:
        [B, K].
    """
    from_each = distance.gather(2, left[:, None].expand(-1, distance.shape[1], -1))
    before = torch.minimum(nearest[:, :, None], from_each).where(chosen[:, :, None], 0.0).sum(1)
    own = nearest.gather(1, left)
    return before + own.where(own.isfinite(), 1.0)
