"""Faithfulness as the peers ask it: infidelity, sufficiency and comprehensiveness, two kinds of monotonicity.

All of them remove patches as the classifier does, and take maps of patches. What does not depend on the map is asked
once for all rows (`Measured.asked`).
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from xai.core.errors import check_finite
from xai.core.settings import Count, settings
from xai.metrics import functional
from xai.metrics.registry import Column, Measured, given, metric, percent
from xai.sampling import random_masks, ranks_with_random_ties


@settings
class InfidelityParams:
    """Which patches are removed.

    Args:
        masks: Random sets of removed patches for each image, of all sizes from 1 to M - 1; the same for every row.
    """

    masks: Count = 64


@metric(
    "infidelity",
    columns=(
        Column(
            "infidelity",
            "Infidelity",
            "Mean square of what the map, at its best scale, gets wrong of how much the probability falls when random "
            "patches are removed.",
            better="lower",
            digits=4,
            control="random",
        ),
    ),
    needs=("maps", "game"),
    params=InfidelityParams,
    level="patch",
    passes=lambda params, players: params.masks + 1,
)
def infidelity(block: Measured, params: InfidelityParams) -> dict[str, Tensor]:
    """Infidelity (Yeh et al. 2019, equation 1), removal of random patches as the perturbation."""
    maps = given(block.maps).flatten(1).cpu()
    images, players = maps.shape
    generator = block.generator
    sizes = torch.randint(1, max(players, 2), (params.masks,), generator=generator)
    keep = random_masks(images, players, sizes, generator)
    values = _with_full(block, keep)
    drops = values[:, :1] - values[:, 1:]
    return {"infidelity": functional.infidelity(maps, ~keep, drops)}


@settings
class TopPatchesParams:
    """How many patches are the important ones.

    Args:
        shares: Of the patches, rounded up; the scores are means over them. Those of DeYoung et al. (2020).
    """

    shares: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (
        0.01,
        0.05,
        0.1,
        0.2,
        0.5,
    )


@metric(
    "top_patches",
    columns=(
        percent(
            "comprehensiveness",
            "Comprehensiveness",
            "How much the probability falls when the most important 1, 5, 10, 20, 50 % of the patches are removed.",
            control="random",
        ),
        percent(
            "sufficiency",
            "Sufficiency",
            "How much it falls when nothing but them is left; below 0 where it rises.",
            better="lower",
            control="random",
        ),
    ),
    needs=("maps", "game"),
    params=TopPatchesParams,
    level="patch",
    passes=lambda params, players: 2 * len(params.shares) + 1,
    revision=1,
)
def top_patches(block: Measured, params: TopPatchesParams) -> dict[str, Tensor]:
    """Comprehensiveness and sufficiency (DeYoung et al. 2020, equations 1 and 2), as areas over shares."""
    maps, game = given(block.maps).flatten(1).cpu(), block.game()
    functional.check_players(maps, game.players)
    shares = torch.tensor(params.shares, dtype=torch.float64)
    top = functional.retained(ranks_with_random_ties(maps, block.generator), shares)
    values = _finite(game.value(torch.cat([~top, top], dim=1)), block)
    without, alone = values.split(len(params.shares), dim=1)
    full = _with_full(block, None)[:, 0]
    return {
        "comprehensiveness": functional.comprehensiveness(full, without, maps),
        "sufficiency": functional.comprehensiveness(full, alone, maps),
    }


@metric(
    "monotonicity",
    columns=(
        percent(
            "monotonicity",
            "Monotonicity",
            "As patches come in, the least important first: share of those that do not lower the probability.",
            control="random",
        ),
        Column(
            "monotonicity_effects",
            "Monotonicity, effects",
            "Rank correlation of the size of a patch's attribution with what removing it alone changes.",
            chance=0.0,
            control="random",
        ),
    ),
    needs=("maps", "game"),
    level="patch",
    passes=lambda params, players: 3 * players + 1,
)
def monotonicity(block: Measured, params: object) -> dict[str, Tensor]:
    """Monotonicity of Arya et al. 2019 and of Nguyen and Martinez 2020."""
    maps, game = given(block.maps).flatten(1).cpu(), block.game()
    functional.check_players(maps, game.players)
    images, players = maps.shape
    alone = ~torch.eye(players, dtype=torch.bool).expand(images, -1, -1)
    values = _with_full(block, alone)
    _, rising = functional.ranked_curves(game.value, maps, block.generator, "random")
    none = block.asked(torch.zeros(images, 1, players, dtype=torch.bool))
    curves = torch.cat([_finite(none, block), _finite(rising, block)], dim=1)
    return {
        "monotonicity": functional.monotonicity(curves),
        "monotonicity_effects": functional.monotonicity_of_effects(maps, values[:, :1] - values[:, 1:]),
    }


def _with_full(block: Measured, coalitions: Tensor | None) -> Tensor:
    """v(N), and values of coalitions [B, S, M]: float64 [B, 1 + S], on the CPU."""
    maps = given(block.maps).flatten(1)
    full = block.asked(torch.ones(len(maps), 1, maps.shape[1], dtype=torch.bool))
    return _finite(full if coalitions is None else torch.cat([full, block.asked(coalitions)], dim=1), block)


def _finite(answers: Tensor, block: Measured) -> Tensor:
    """Answers [B, S] in float64, on the CPU; a `UserError` where they are none, which no comparison would notice."""
    check_finite(answers, "the classifier's answers with patches removed", "all values must be finite", block.rows)
    return answers.double().cpu()
