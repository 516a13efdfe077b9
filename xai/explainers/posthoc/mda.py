"""Metric-driven attributions (MDA, Walker et al. 2025) as an explainer: an order searched for by the metrics.

The steps are those of the authors' published code; where they are ours, it says so.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import nnls
from torch import Tensor

from xai.core.errors import check_finite
from xai.core.settings import Count, Share, settings
from xai.explainers.block import OfClassifier
from xai.explainers.params import GameParams
from xai.explainers.registry import explainer
from xai.games import PatchGame
from xai.shapley.design import Game

_MOST_CANDIDATES = 28


@settings
class MdaParams(GameParams):
    """How the order is searched, and what a place in it is worth.

    Args:
        candidates: L, patches that are tried for each place; null takes 2 sqrt(M), and 28 at most, as published.
        cutoff: Share of the answer for the whole image at which insertion stops and deletion takes over.
        gamma: 0 for the sparse map, what a patch adds to the curves; 1 for the dense one, in which all patches that add
            anything go by their place.
        kappa: What a patch has to add for that.
    """

    candidates: Count | None = None
    cutoff: Share = 0.9
    gamma: Share = 0.0
    kappa: Share = 0.005


@explainer(
    "mda",
    label="MDA",
    about="patches in the order that insertion and deletion are best with, searched greedily",
    params=MdaParams,
    needs={"game"},
    passes=lambda params, patches: 3 * patches + _searched(patches, _tried(params, patches)),
)
class Mda(OfClassifier[MdaParams]):
    """Searches an order for each image, all images a place at a time.

    Ours: the map that the search starts from is the game's own, what the answer loses with each patch alone, and both
    curves remove patches as the game does (the authors insert into a blurred image, delete to black, and start from a
    map by attention).
    """

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Maps [B, h, w] of images [B, 3, H, W] for the classes `targets` [B]."""
        params, grid = self.params, self.classifier.grid
        game = PatchGame(self.classifier, images, targets, output=params.output)
        players = game.players
        alone = ~torch.eye(players, dtype=torch.bool)
        ends = torch.tensor([[False], [True]]).expand(-1, players)
        answers = game.value(torch.cat([ends, alone]))
        empty, full = answers[:, 0].double(), answers[:, 1].double()
        start = full[:, None] - answers[:, 2:].double()
        order = search(game, start, empty, full, _tried(params, players), params.cutoff)
        curve = removed_curve(game, order, empty, full)
        pixels = images.shape[-2] * images.shape[-1] // players
        worth = by_place(nearest_convex(curve), pixels, params.gamma, params.kappa)
        return torch.zeros_like(worth).scatter_(1, order, worth).to(answers.dtype).reshape(-1, *grid)


def search(game: Game, start: Tensor, empty: Tensor, full: Tensor, candidates: int, cutoff: float) -> Tensor:
    """The patches of each image, most important first, [B, M].

    First what is inserted: of the patches that `start` has highest the one with which the answer is highest, again and
    again, until it has risen by `cutoff` of what the whole image gives. Then, from the other end, what is deleted last:
    of the patches that `start` has lowest the one with which the answer stays lowest.

    Args:
        game: B games of M players.
        start: [B, M] float64, the map that says which patches are tried.
        empty: [B] float64, the answer for no patch.
        full: [B] float64, that for all.
        candidates: L.
        cutoff: Share of the rise.
    """
    games, players = start.shape
    device = start.device
    by_start = start.argsort(dim=1, descending=True, stable=True)
    # What is shown grows at either end of the order: `front` is what was inserted, `back` what was not deleted.
    front, back = (torch.zeros(games, players, dtype=torch.bool, device=device) for _ in range(2))
    order = torch.zeros(games, players, dtype=torch.long, device=device)
    inserting = torch.full((games,), cutoff > 0, device=device)
    rise = (full - empty).abs().clamp(min=torch.finfo(torch.float32).tiny)
    each = torch.arange(games, device=device)
    for place in range(players):
        left = by_start[~(front | back).gather(1, by_start)].reshape(games, players - place)
        tried = torch.where(inserting[:, None], left, left.flip(1))[:, :candidates]
        shown = torch.where(inserting[:, None], front, back)[:, None] | F.one_hot(tried, players).bool()
        answers = game.value(shown).double()
        best = torch.where(inserting[:, None], answers, -answers).argmax(1)
        patch, answer = tried[each, best], answers[each, best]
        end = torch.where(inserting, front.sum(1), players - 1 - back.sum(1))
        order[each, end] = patch
        chosen = F.one_hot(patch, players).bool()
        front, back = front | (chosen & inserting[:, None]), back | (chosen & ~inserting[:, None])
        inserting = inserting & ((answer - empty) / rise < cutoff)
    return order


def removed_curve(game: Game, order: Tensor, empty: Tensor, full: Tensor) -> Tensor:
    """What is lost after 0, 1, ..., M places of the order, from 1 to 0, [B, M + 1]: the mean of both metrics' curves.

    Each curve is brought to [0, 1] by its ends and made monotone; insertion counts what it has not yet gained.

    Raises:
        UserError: An answer is NaN or infinite.
    """
    places, players = order.argsort(1), order.shape[1]
    inserted = places[:, None] < torch.arange(1, players, device=order.device)[:, None]
    answers = game.value(torch.cat([inserted, ~inserted], dim=1)).double()
    asked = torch.cat([empty[:, None], answers, full[:, None]], dim=1)
    check_finite(asked, "the classifier's answers with patches removed", "give one with finite outputs")
    rise = (full - empty).abs().clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    ends = [((end - empty)[:, None] / rise).clamp(0, 1) for end in (empty, full)]
    gained, kept = ((answers - empty[:, None]) / rise).clamp(0, 1).chunk(2, dim=1)
    insertion = torch.cat([ends[0], gained, ends[1]], dim=1).cummax(1).values
    deletion = torch.cat([ends[1], kept, ends[0]], dim=1).cummin(1).values
    return 1 - (insertion + 1 - deletion) / 2


def nearest_convex(curve: Tensor) -> Tensor:
    """The convex curve [B, K] with the same ends that is nearest to `curve` [B, K] in squares.

    A convex curve lies below the line between its ends, by tents with non-negative weights, one for each bend: those of
    the non-negative least squares fit.
    """
    last = curve.shape[1] - 1
    if last < 2:
        return curve
    place = np.arange(last + 1, dtype=float)
    bend = np.arange(1, last)[:, None]
    tents = np.minimum(place * (last - bend), bend * (last - place)).T / last
    found = []
    for each in curve.detach().cpu().double().numpy():
        line = each[0] + (each[-1] - each[0]) * place / last
        found.append(line - tents @ nnls(tents, line - each)[0])
    return torch.from_numpy(np.stack(found)).to(curve)


def by_place(curve: Tensor, pixels: int, gamma: float = 0.0, kappa: float = 0.005) -> Tensor:
    """What each place of the order is worth, [B, M], from a convex curve [B, M + 1] that falls from 1 to 0.

    Args:
        curve: What is left to lose after each place.
        pixels: Of a patch.
        gamma: As in `MdaParams`.
        kappa: As there.
    """
    drop = -curve.diff(dim=1)
    places = drop.shape[1]
    later = torch.arange(places - 1, -1, -1, device=curve.device, dtype=curve.dtype) / places
    sparse = drop / pixels + drop * later
    dense = torch.where(sparse >= kappa, later.expand_as(sparse), sparse)
    highest = dense.amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return (1 - gamma) * sparse + gamma * dense / highest * sparse.amax(1, keepdim=True)


def _tried(params: MdaParams, patches: int) -> int:
    return params.candidates or max(1, min(_MOST_CANDIDATES, 2 * math.isqrt(patches)))


def _searched(patches: int, candidates: int) -> int:
    """Passes of the search: every place tries as many patches as there are left, and no more than the candidates."""
    return sum(min(candidates, left) for left in range(1, patches + 1))
