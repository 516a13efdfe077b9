"""ROAD, remove and debias (Rong et al. 2022): pixels are removed by linear imputation, which leaks no mask."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from xai.core.errors import check_finite
from xai.core.settings import NonNegative, settings
from xai.metrics import functional
from xai.metrics.registry import Measured, given, metric, percent

_CHUNK = 64
Portion = Annotated[float, Field(gt=0, lt=1)]


@settings
class RoadParams:
    """Which pixels are removed, and what is put there.

    Args:
        shares: Of the pixels that are removed; scores are means over them.
        noise: Deviation of what is added to an imputed pixel, of a range of 1.
    """

    shares: Annotated[tuple[Portion, ...], Field(min_length=1)] = (0.2, 0.4, 0.6, 0.8)
    noise: NonNegative = 0.01


@metric(
    "remove_and_debias",
    columns=(
        percent(
            "road",
            "ROAD",
            "Remove and debias: probability of the class with the least important pixels imputed from those around "
            "them, less that with the most important ones imputed.",
            chance=0.0,
            control="random",
        ),
        percent("road_lerf", "ROAD, least first", "The probability with the least important pixels imputed."),
        percent(
            "road_morf", "ROAD, most first", "The probability with the most important pixels imputed.", better="lower"
        ),
    ),
    needs=("maps", "network"),
    params=RoadParams,
    passes=lambda params, players: 2 * len(params.shares),
    revision=1,
)
@torch.no_grad()
def remove_and_debias(block: Measured, params: RoadParams) -> dict[str, Tensor]:
    """Probabilities [B] of the explained class, means over shares; maps of patches are enlarged first."""
    images, generator = block.images, block.generator
    height, width = images.shape[-2:]
    maps = functional.enlarge_map(given(block.maps), images.shape[-2:])
    ranks = functional.pixel_ranks(maps, generator).reshape(maps.shape).to(images.device)
    counts = [round(share * height * width) for share in params.shares]
    removed = [ranks < count for count in counts] + [ranks >= height * width - count for count in counts]
    holes = torch.stack(removed, dim=1)
    targets = block.targets.to(images.device)
    found = []
    for image, hole, target in zip(images, holes, targets, strict=True):
        parts = []
        for part in hole.split(_CHUNK):
            filled = functional.impute(image.expand(len(part), -1, -1, -1), part)
            noise = torch.randn(filled.shape, generator=generator, dtype=filled.dtype).to(filled.device)
            changed = torch.where(part[:, None], filled + params.noise * noise, filled)
            parts.append(given(block.network)(changed).double().softmax(1)[:, target])
        found.append(torch.cat(parts))
    answers = torch.stack(found).cpu()
    check_finite(answers, "the classifier's answers with pixels imputed", "all values must be finite", block.rows)
    most, least = (each.mean(1) for each in answers.split(len(counts), dim=1))
    return {"road": least - most, "road_lerf": least, "road_morf": most}
