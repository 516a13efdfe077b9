"""MIF, LIF, SRG and their relative forms (Naouar et al. 2025, appendix A.1), and the grid pointing game."""

from typing import Any, Literal

import torch
from torch import Tensor

from xai.core.errors import check_finite
from xai.core.settings import Whole, settings
from xai.metrics import functional
from xai.metrics.registry import Column, Measured, given, metric, percent
from xai.sampling import generator_on

_NO_GAIN: dict[str, Any] = {"chance": 0.0, "control": "random"}


@settings
class RemovalParams:
    """How maps are measured by removal.

    Args:
        masks: n_masks of R-MIF and R-LIF (Algorithm 2), for each size; 128 in the paper. 0 leaves them out, which
            leaves two passes a size.
        constant: What to do with a constant map: score it as a `random` order, or `refuse` it.
    """

    masks: Whole = 128
    constant: Literal["random", "refuse"] = "random"


_RANKED = (
    percent(
        "srg",
        "SRG",
        "Symmetric relevance gain: LIF less MIF. 0 is what a random order scores, whatever the way of masking.",
        **_NO_GAIN,
    ),
    percent(
        "lif",
        "LIF",
        "Least influential first: mean probability of the class over all numbers of patches removed, those of the "
        "lowest attribution first.",
    ),
    percent("mif", "MIF", "Most influential first: the same, those of the highest attribution first.", better="lower"),
)
_DRAWN = (
    percent(
        "r_srg",
        "R-SRG",
        "R-LIF less R-MIF: as SRG, but what counts is how much more one patch gets than another.",
        **_NO_GAIN,
    ),
    percent("r_lif", "R-LIF", "LIF with the patches that stay drawn by their attribution instead of ranked by it."),
    percent("r_mif", "R-MIF", "MIF with the patches that stay drawn by one minus their attribution.", better="lower"),
)


def _columns(params: RemovalParams) -> tuple[Column, ...]:
    if not params.masks:
        return _RANKED
    return (_RANKED[0], _DRAWN[0], *_RANKED[1:], *_DRAWN[1:])


def _curves(params: RemovalParams) -> tuple[str, ...]:
    return ("curve_lif", "curve_mif", "curve_r_lif", "curve_r_mif") if params.masks else ("curve_lif", "curve_mif")


@metric(
    "removal",
    columns=_columns,
    curves=_curves,
    needs=("maps", "game"),
    params=RemovalParams,
    level="patch",
    passes=lambda params, players: functional.passes(players, params.masks),
)
def removal(block: Measured, params: RemovalParams) -> dict[str, Tensor]:
    """The scores of Algorithms 1 and 2, and the curves [B, M] they are means of.

    Every row is given the same draws; on a GPU they are made there, and are others than those of the CPU.
    """
    game, maps = block.game(), given(block.maps)
    functional.check_players(maps, game.players)
    generator = generator_on(getattr(game, "device", torch.device("cpu")), block.generator)
    asked, phi = game.value, maps.flatten(1)
    if params.masks:
        curves = functional.removal_curves(asked, phi, params.masks, generator, params.constant)
        found = functional.scores(curves) | {f"curve_{name}": curve for name, curve in curves._asdict().items()}
    else:
        lif, mif = functional.ranked_curves(asked, phi, generator, params.constant)
        found = {"curve_lif": lif, "curve_mif": mif, "lif": lif.mean(-1), "mif": mif.mean(-1)}
        found["srg"] = found["lif"] - found["mif"]
    answers = torch.stack([value for name, value in found.items() if name.startswith("curve_")], dim=1)
    check_finite(answers, "the classifier's answers with patches removed", "all values must be finite", block.rows)
    return found


def _share_of_cell(block: Measured) -> Tensor:
    return given(block.cells).double().mean((1, 2))


@metric(
    "grid_pointing",
    columns=(
        percent(
            "grid_pointing",
            "Grid pointing",
            "With several objects on an image: share of the positive attribution on the one that is asked about.",
            chance_from=_share_of_cell,
        ),
    ),
    needs=("maps", "cells"),
)
def grid_pointing(block: Measured, params: object) -> dict[str, Tensor]:
    """Grid pointing game (Böhle et al. 2021); NaN without positive attribution.

    The image is a grid of images of different classes; of the relevance mass it is the share in the cell asked about.
    """
    maps = given(block.maps)
    return {"grid_pointing": functional.relevance_mass_accuracy(maps, given(block.cells).to(maps.device))}
