"""How much of a map lies on the mark that a classifier has learned (Schinagl et al. 2026, Figure 5)."""

import torch
from torch import Tensor

from xai.metrics import functional
from xai.metrics.registry import Column, Measured, given, metric, percent


def _mark_area(block: Measured) -> Tensor:
    return given(block.regions).double().mean((1, 2)).cpu()


def _columns(before: bool) -> list[Column]:
    suffix, said = ("_before", ", classifier before") if before else ("", "")
    whose = " The classifier is the one before the mark, and the class what it sees." if before else ""
    return [
        percent(
            f"mass{suffix}",
            f"Mass on the mark{said}",
            f"Share of what lies above the map's mean that lies on the mark.{whose}",
            chance_from=_mark_area,
        ),
        percent(
            f"mark_rra{suffix}",
            f"RRA of the mark{said}",
            f"Of the highest pixels, as many as the mark has, the share that lies on it.{whose}",
            chance_from=_mark_area,
        ),
    ]


@metric(
    "mark",
    columns=[
        *_columns(before=False),
        percent(
            "other_mass",
            "Mass on the mark, other classes",
            "The same share for images of other classes alone, which nothing but the mark speaks for.",
            needs=frozenset({"labels"}),
            chance_from=_mark_area,
        ),
        percent("mark_area", "Area of the mark", "Share of the image that the mark covers.", better=None),
    ],
    needs={"maps", "regions"},
)
def mark(block: Measured, params: object) -> dict[str, Tensor]:
    """Where the maps of the marked class lie; the regions are the marks. NaN for a constant map."""
    maps, marks = given(block.maps), given(block.regions)
    mass = mass_on_mark(maps, marks)
    values = {"mass": mass, "mark_rra": functional.relevance_rank_accuracy(maps, marks), "mark_area": _mark_area(block)}
    if block.labels is not None:
        values["other_mass"] = mass.masked_fill((block.labels == block.targets).to(mass.device), torch.nan)
    return values


@metric("mark_before", columns=_columns(before=True), needs={"maps", "regions"})
def mark_before(block: Measured, params: object) -> dict[str, Tensor]:
    """The same of the classifier that has not learned the mark, whose maps have no reason to move to it."""
    found = mark(block, params)
    return {f"{name}_before": found[name] for name in ("mass", "mark_rra")}


def mass_on_mark(maps: Tensor, marks: Tensor) -> Tensor:
    """The share of what stands out above a map's mean that lies on the mark.

    Args:
        maps: [N, H, W]; only the order and the spacing of their values mean something, so each is read from its mean.
        marks: Bool [N, H, W].

    Returns:
        Float64 [N] in [0, 1]; NaN for a constant map or no mark.
    """
    wide = maps.double()
    share = functional.relevance_mass_accuracy(wide - wide.mean((1, 2), keepdim=True), marks)
    # The mean of equal numbers may be beside them by a rounding error, which is no attribution.
    return share.masked_fill(functional.is_constant(maps.flatten(1)), torch.nan)
