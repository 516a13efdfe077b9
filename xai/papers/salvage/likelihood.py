"""Figure 6 of SALVAGE: how likely the class is on masked images, masks drawn at random and by Algorithm 3."""

import torch
from torch import Tensor

from xai.core.settings import Count, settings
from xai.metrics.registry import Column, Measured, given, metric
from xai.shapley.masks import informed_coalitions, random_masks


@settings
class LikelihoodParams:
    """How many masks.

    Args:
        masks: For each size.
    """

    masks: Count = 8


@metric(
    "mask_likelihood",
    columns=[
        Column("spread_random", "Spread, random masks", "mean |p - 1/2| over masks drawn at random", better=None),
        Column(
            "spread_informed", "Spread, informed masks", "mean |p - 1/2| over masks drawn by the map", better="lower"
        ),
    ],
    needs={"maps", "game"},
    params=LikelihoodParams,
    level="patch",
    curves=("likelihood_random", "likelihood_informed"),
    passes=lambda params, players: 2 * params.masks * players,
)
def mask_likelihood(block: Measured, params: LikelihoodParams) -> dict[str, Tensor]:
    """Likelihood of the explained class by the number of patches that are present, 1 ... M.

    Returns:
        `spread_*` [B], measured before masks are averaged: what informed masks are for is that single ones are neither
        hopeless nor certain; `likelihood_*` [B, M], the means over masks.
    """
    flat = given(block.maps).flatten(1)
    images, players = flat.shape
    sizes = torch.arange(1, players + 1).repeat(params.masks)
    generator, game = block.generator, block.game()
    coalitions = {
        "random": random_masks(images, players, sizes, generator),
        "informed": informed_coalitions(flat, sizes, generator),
    }
    found = {}
    for name, keep in coalitions.items():
        values = game.value(keep).cpu().double()
        found[f"spread_{name}"] = (values - 0.5).abs().mean(1)
        found[f"likelihood_{name}"] = values.unflatten(1, (params.masks, players)).mean(1)
    return found
