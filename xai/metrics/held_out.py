"""Deletion and insertion asked otherwise than any explainer has asked: what is shown, and who is asked, are others.

An explainer that removes what it takes for unimportant, or refines a map by its own score, has an advantage where it is
measured by the same removal of the same classifier. Here pixels give way to white or to another image, or the maps of
one classifier are put to another that was trained apart.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from xai.core.settings import Several, settings
from xai.metrics import functional
from xai.metrics.perturbation import PerturbationParams, measured_curves, reference_of
from xai.metrics.registry import Column, Measured, given, metric, percent

HeldOut = Literal["white", "image"]
_SHOWN = {"white": "white", "image": "what another image has there"}


@settings
class HeldOutParams:
    """How maps are measured by removals that no explainer here uses.

    Args:
        steps: Points of a curve; 21 are every 5 %.
        references: What stands in place of a removed pixel: `white`, or what another `image` of the block has there.
    """

    steps: Several = 21
    references: Annotated[tuple[HeldOut, ...], Field(min_length=1)] = ("white", "image")


def _columns(params: HeldOutParams) -> list[Column]:
    shown = " and ".join(_SHOWN[name] for name in params.references)
    about = f"Insertion less deletion, with {shown} in place of removed pixels, which no explainer has seen there."
    more = [
        percent(
            f"held_out_{name}", f"Held-out {name}", f"The same with {_SHOWN[name]} alone.", chance=0.0, control="random"
        )
        for name in params.references
    ]
    whole = percent("held_out", "Held-out removal", about, chance=0.0, control="random")
    return [whole, *(more if len(more) > 1 else [])]


@metric(
    "held_out_removal",
    columns=_columns,
    needs=("maps", "network"),
    params=HeldOutParams,
    passes=lambda params, players: (2 * params.steps - 2) * len(params.references),
)
def held_out_removal(block: Measured, params: HeldOutParams) -> dict[str, Tensor]:
    """Insertion less deletion [B]; with another `image`, NaN where the block has only one."""
    found = {}
    for name in params.references:
        shown = torch.ones_like(block.images[:1]) if name == "white" else block.images.roll(1, 0)
        deletion, insertion = _areas(block, given(block.network), shown, params.steps)
        alone = name == "image" and len(block.images) == 1
        found[f"held_out_{name}"] = (insertion - deletion).masked_fill(torch.tensor(alone), torch.nan)
    mean = torch.stack(list(found.values())).mean(0)
    return {"held_out": mean, **(found if len(found) > 1 else {})}


@metric(
    "transfer",
    columns=(
        percent(
            "transfer",
            "Transfer",
            "Insertion less deletion of the maps of this classifier, asked of another one that was trained apart: what "
            "is left of a map where it cannot profit from what one network alone is misled by.",
            chance=0.0,
            control="object_mask",
        ),
        percent("transfer_insertion", "Insertion, other classifier", "Insertion, asked of the other classifier."),
        percent(
            "transfer_deletion",
            "Deletion, other classifier",
            "Deletion, asked of the other classifier.",
            better="lower",
        ),
    ),
    needs=("maps", "judge"),
    params=PerturbationParams,
    passes=lambda params, players: (2 * params.steps - 2) * len(params.references),
)
def transfer(block: Measured, params: PerturbationParams) -> dict[str, Tensor]:
    """The areas [B], means over references, of the class that the explained classifier was asked for."""
    areas = []
    for reference in params.references:
        shown = reference_of(block, params, reference)
        areas.append(torch.stack(_areas(block, given(block.judge), shown, params.steps)))
    deletion, insertion = torch.stack(areas).mean(0)
    return {"transfer": insertion - deletion, "transfer_insertion": insertion, "transfer_deletion": deletion}


def _areas(block: Measured, classify: functional.Classify, shown: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Areas [B] under deletion and insertion."""
    deletion, insertion = measured_curves(block, classify, shown, steps)
    return functional.area(deletion), functional.area(insertion)
