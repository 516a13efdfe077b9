"""Figure 6 of SALVAGE: how likely the class is on masked images, masks drawn at random and by Algorithm 3."""

import torch
from torch import Tensor

from xai.core.errors import check_finite
from xai.core.settings import EvenCount, settings
from xai.metrics.registry import Measured, given, metric, percent
from xai.sampling import random_masks
from xai.shapley.masks import informed_coalitions


@settings
class LikelihoodParams:
    """How many masks.

    Args:
        masks: For each size; even, because half of them are of the patches that seem to matter, half of the others.
    """

    masks: EvenCount = 8


@metric(
    "mask_likelihood",
    columns=[
        percent("spread_random", "Spread, random masks", "mean |p - 1/2| over masks drawn at random", better=None),
        percent(
            "spread_informed", "Spread, informed masks", "mean |p - 1/2| over masks drawn by the map", better="lower"
        ),
        percent(
            "imbalance_random",
            "Imbalance, random masks",
            "|mean p - 1/2| over an image's random masks of a size, mean over sizes",
            better=None,
        ),
        percent(
            "imbalance_informed",
            "Imbalance, informed masks",
            "|mean p - 1/2| over an image's masks of a size, drawn by the map, mean over sizes",
            better="lower",
        ),
    ],
    needs={"maps", "game"},
    params=LikelihoodParams,
    level="patch",
    curves=("likelihood_random", "likelihood_informed"),
    revision=1,
    passes=lambda params, players: 2 * params.masks * players,
)
def mask_likelihood(block: Measured, params: LikelihoodParams) -> dict[str, Tensor]:
    """Likelihood of the explained class by the number of patches that are present, 1 ... M.

    Returns:
        `likelihood_*` [B, M], the means over the masks of a size, which Figure 6 draws, averaged over images too;
        `imbalance_*` [B], how far they are from one half, of each image by itself; `spread_*` [B], how far single masks
        are: Algorithm 3 balances hopeless masks with certain ones, so it need not bring single ones nearer to one half.
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
        check_finite(values, "the classifier's answers with patches removed", "all values must be finite", block.rows)
        found[f"spread_{name}"] = (values - 0.5).abs().mean(1)
        found[f"likelihood_{name}"] = by_size = values.unflatten(1, (params.masks, players)).mean(1)
        found[f"imbalance_{name}"] = (by_size - 0.5).abs().mean(1)
    return found
