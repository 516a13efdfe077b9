"""Deletion and insertion of pixels (Petsiuk et al. 2018; Schinagl et al. 2026), and how maps of two classes differ."""

import torch
from torch import Tensor

from xai.core.errors import check_finite
from xai.core.settings import Channels, Several, settings
from xai.games import asked_at_once
from xai.metrics import functional
from xai.metrics.registry import Column, Measured, given, metric, percent
from xai.models.maskable import References, Removal, reference_image

_SHOWN = {"black": "black", "mean": "the mean colour of the data set", "blur": "the blurred image"}
_ASKS = {
    "deletion": "mean probability of the class over the share of pixels removed, those of the highest attribution "
    "first",
    "insertion": "mean probability of the class over the share of pixels shown, those of the highest attribution first",
    "difference": "insertion less deletion; 0 is what a random order scores on average",
}
_CLASSES = {"": "explained", "_true": "true"}


@settings
class PerturbationParams:
    """How maps of pixels are measured.

    Args:
        steps: Points of a curve; 21 are every 5 %.
        references: What stands in place of a removed pixel, of black, mean and blur; scores are averaged over them.
        mean: Channels that the reference `mean` shows: null takes the classifier's own, of its normalisation. Name one,
            as the paper does with ImageNet's, to compare classifiers that normalise otherwise.
    """

    steps: Several = 21
    references: References = ("black", "mean", "blur")
    mean: Channels | None = None


def _area(kind: str, target: str, params: PerturbationParams, reference: str = "") -> Column:
    said = ["true"] * bool(target) + [reference] * bool(reference)
    where = _SHOWN[reference] if reference else f"{', '.join(params.references)}, averaged where there are several"
    return percent(
        f"{kind}_auc{target}" + (f"_{reference}" if reference else ""),
        ", ".join([kind.capitalize(), *said]),
        f"Of the {_CLASSES[target]} class: {_ASKS[kind]}. In place of removed pixels: {where}.",
        better="lower" if kind == "deletion" else "higher",
        needs=frozenset({"labels", "second"}) if target else frozenset(),
        chance=0.0 if kind == "difference" else None,
        control="random",
    )


def _columns(params: PerturbationParams) -> list[Column]:
    means = [_area(kind, target, params) for target in _CLASSES for kind in _ASKS]
    kinds = ("deletion", "insertion")
    return means + [
        _area(kind, target, params, name) for target in _CLASSES for kind in kinds for name in params.references
    ]


def _curves(params: PerturbationParams) -> list[str]:
    kinds = ("deletion", "insertion")
    return [f"curve_{kind}{target}_{name}" for target in _CLASSES for kind in kinds for name in params.references]


@metric(
    "perturbation",
    columns=_columns,
    curves=_curves,
    needs=("maps", "network"),
    params=PerturbationParams,
    passes=lambda params, players: (2 * params.steps - 2) * len(params.references) * len(_CLASSES),
)
def perturbation(block: Measured, params: PerturbationParams) -> dict[str, Tensor]:
    """Areas [B] under deletion and insertion, by reference and averaged over them, and the curves [B, S].

    Maps of patches are enlarged first. The values of the true class are those of the explained one where the two are
    the same, and else those along the map of the second class. An image costs 2 S - 2 passes a reference and class.
    """
    network, shown = given(block.network), [reference_of(block, params, name) for name in params.references]
    of_targets = {"": [measured_curves(block, network, each, params.steps) for each in shown]}
    if block.labels is not None and block.second is not None:
        pairs = zip(shown, of_targets[""], strict=True)
        of_targets["_true"] = [_of_truth(block, each, params.steps, curves) for each, curves in pairs]
    values: dict[str, Tensor] = {}
    for target, of_references in of_targets.items():
        for position, kind in enumerate(("deletion", "insertion")):
            curves = [pair[position] for pair in of_references]
            areas = [functional.area(curve) for curve in curves]
            values[f"{kind}_auc{target}"] = torch.stack(areas).mean(0)
            for name, curve, area in zip(params.references, curves, areas, strict=True):
                values[f"curve_{kind}{target}_{name}"] = curve
                values[f"{kind}_auc{target}_{name}"] = area
        values[f"difference_auc{target}"] = values[f"insertion_auc{target}"] - values[f"deletion_auc{target}"]
    return values


@metric(
    "class_correlation",
    columns=(
        Column(
            "class_correlation",
            "Class corr.",
            "Correlation of the maps of the class that is explained and of a second one (the runner-up, or the true "
            "class where the prediction is wrong): 1 is the same map whatever class is asked about.",
            better="lower",
            digits=2,
        ),
    ),
    needs=("maps", "second"),
)
def class_correlation(block: Measured, params: object) -> dict[str, Tensor]:
    """Pearson correlation over pixels, patches enlarged; NaN where one of the maps is constant."""
    wide = (functional.enlarge_map(given(maps), block.images.shape[-2:]) for maps in (block.maps, block.second))
    return {"class_correlation": functional.correlation(*(each.flatten(1) for each in wide))}


def reference_of(block: Measured, params: PerturbationParams, reference: str) -> Tensor:
    """What the images show where a pixel is removed, [B or 1, 3, H, W]."""
    return reference_image(block.images, Removal("pixels", reference), torch.tensor(params.mean or block.mean))


def measured_curves(
    block: Measured, classify: functional.Classify, shown: Tensor, steps: int, chosen: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Deletion and insertion curves [B, S], on the CPU, of the explained class; in float32 whatever autocast says.

    Args:
        block: Images and maps; those of patches are enlarged.
        classify: Who is asked.
        shown: In place of removed pixels, [B or 1, 3, H, W].
        steps: S.
        chosen: Bool [B]; these images alone, along their second map and of their true class.
    """
    images, maps, targets = block.images, block.maps, block.targets
    if chosen is not None:
        here = chosen.to(images.device)
        images, shown = images[here], shown if len(shown) == 1 else shown[here]
        maps, targets = given(block.second)[chosen], given(block.labels)[chosen]
    ranked = functional.enlarge_map(given(maps), images.shape[-2:]).to(images)
    with torch.autocast(images.device.type, enabled=False):
        found = functional.perturbation_curves(
            classify, images, ranked, targets[:, None], shown, block.generator, steps, asked_at_once(images)
        )
    rows, answers = block.rows if chosen is None else block.rows[chosen], torch.stack(list(found), dim=1)
    check_finite(answers, "the classifier's answers with pixels replaced", "all values must be finite", rows)
    return found.deletion[..., 0].cpu(), found.insertion[..., 0].cpu()


def _of_truth(block: Measured, shown: Tensor, steps: int, explained: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Curves [B, S] of the true class, each along its own map; NaN where the second class is not the true one."""
    labels, targets = given(block.labels).cpu(), block.targets.cpu()
    deletion, insertion = (curve.clone() for curve in explained)
    wrong = targets != labels
    if wrong.any():
        other = measured_curves(block, given(block.network), shown, steps, wrong)
        for curve, values in zip((deletion, insertion), other, strict=True):
            curve[wrong] = values
            curve[wrong & (given(block.second_targets).cpu() != labels)] = torch.nan
    return deletion, insertion
