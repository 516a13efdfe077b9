"""MIF, LIF, SRG and their relative forms (Naouar et al. 2025, appendix A.1), and the grid pointing game."""

from typing import Any, Literal

import torch
from torch import Tensor

from xai.core.finite import check_finite
from xai.core.settings import Count, settings
from xai.metrics import functional
from xai.metrics.registry import Measured, given, metric, percent
from xai.sampling import generator_on

_NO_GAIN: dict[str, Any] = {"chance": 0.0, "control": "random"}


@settings
class RemovalParams:
    """How maps are measured by removal.

    Args:
        masks: n_masks of R-MIF and R-LIF (Algorithm 2), for each size; 128 in the paper.
        constant: What to do with a constant map: score it as a `random` order, or `refuse` it.
    """

    masks: Count = 128
    constant: Literal["random", "refuse"] = "random"


@metric(
    "removal",
    columns=(
        percent(
            "srg",
            "SRG",
            "Symmetric relevance gain: LIF less MIF. 0 is what a random order scores, whatever the way of masking.",
            **_NO_GAIN,
        ),
        percent(
            "r_srg",
            "R-SRG",
            "R-LIF less R-MIF: as SRG, but what counts is how much more one patch gets than another.",
            **_NO_GAIN,
        ),
        percent(
            "lif",
            "LIF",
            "Least influential first: mean probability of the class over all numbers of patches removed, those of the "
            "lowest attribution first.",
        ),
        percent(
            "mif", "MIF", "Most influential first: the same, those of the highest attribution first.", better="lower"
        ),
        percent("r_lif", "R-LIF", "LIF with the patches that stay drawn by their attribution instead of ranked by it."),
        percent(
            "r_mif", "R-MIF", "MIF with the patches that stay drawn by one minus their attribution.", better="lower"
        ),
    ),
    curves=("curve_lif", "curve_mif", "curve_r_lif", "curve_r_mif"),
    needs=("maps", "game"),
    params=RemovalParams,
    level="patch",
    passes=lambda params, players: functional.passes(players, params.masks)["removal_curves"],
)
def removal(block: Measured, params: RemovalParams) -> dict[str, Tensor]:
    """All six scores of Algorithms 1 and 2, and the four curves [B, M] they are means of.

    Every row is given the same draws; on a GPU they are made there, and are others than those of the CPU.
    """
    game, maps = block.game(), given(block.maps)
    functional.check_players(maps, game.players)
    generator = generator_on(getattr(game, "device", torch.device("cpu")), block.generator)
    curves = functional.removal_curves(game.value, maps.flatten(1), params.masks, generator, params.constant)
    check_finite(
        torch.stack(list(curves), dim=1),
        "the classifier's answers with patches removed",
        "all values must be finite",
        block.rows,
    )
    return functional.scores(curves) | {f"curve_{name}": curve for name, curve in curves._asdict().items()}


def _share_of_cell(block: Measured) -> Tensor:
    return given(block.cells).double().mean((1, 2))


@metric(
    "grid_pointing",
    columns=(
        percent(
            "grid_pointing",
            "Grid pointing",
            "With two objects on an image: share of the positive attribution that lies on the one that is asked about.",
            short="Grid",
            chance_from=_share_of_cell,
        ),
    ),
    needs=("maps", "cells"),
)
def grid_pointing(block: Measured, params: object) -> dict[str, Tensor]:
    """Grid pointing game (Böhle et al. 2021); NaN without positive attribution."""
    maps = given(block.maps)
    return {"grid_pointing": functional.grid_pointing_game(maps, given(block.cells).to(maps.device))}
