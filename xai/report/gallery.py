"""Images of a study with the maps of its rows, for the sheets of pictures."""

from collections.abc import Sequence

import torch
from torch import Tensor

from xai.data.registry import Images
from xai.explainers.registry import Row
from xai.report.pictures import Gallery
from xai.study.case import Case
from xai.study.maps import explain
from xai.study.scores import wants_second
from xai.study.study import Study


def gallery(case: Case, rows: Sequence[Row], count: int, second: bool = True, measured: bool = False) -> Gallery | None:
    """A few images, the maps that were measured, and beside them those of each image's second class; None without any.

    A third of the images are ones the classifier is wrong about, where there are so many: their second class is the
    true one. Maps of the second class are made of these images alone, unless they were `measured`, too.
    """
    explaining = [row for row in rows if row.entry.info.kind != "classifier"]
    if not count or not explaining:
        return None
    right = case.logits.argmax(1) == case.labels if case.is_labelled else torch.ones(len(case.rows), dtype=torch.bool)
    chosen = chosen_images(right, count)
    few, names = case.at(chosen), case.model.classes
    maps, others = {}, {}
    for row in explaining:
        found = explain(case, row).attributions
        assert found is not None
        maps[row.label] = found[chosen]
        if second and row.entry.info.class_specific and row.entry.info.kind != "control":
            other = explain(case.second if measured else few.second, row).attributions
            assert other is not None
            others[row.label] = other[chosen] if measured else other
    pixels, regions = images_of(few)
    return Gallery(
        pixels,
        maps,
        [names[target] for target in few.targets.tolist()],
        true=[names[label] for label in few.labels.tolist()] if case.is_labelled else None,
        predicted=[names[label] for label in few.logits.argmax(1).tolist()],
        second=others,
        second_classes=[names[target] for target in few.second.targets.tolist()] if others else None,
        regions=regions,
        rows=few.rows.tolist(),
    )


def of_study(study: Study, rows: Sequence[Row], count: int, second: bool) -> Gallery | None:
    """`gallery` of the main case of a study."""
    case, metrics = study.cases[0]
    return gallery(case, rows, count, second, wants_second(case, metrics, study.reference))


def images_of(case: Case) -> Images:
    """All images of a case of few, and where their objects are."""
    blocks = [case.images(number) for number in range(len(case.blocks))]
    regions = [each.regions for each in blocks if each.regions is not None]
    return Images(torch.cat([each.pixels for each in blocks]), torch.cat(regions) if regions else None)


def chosen_images(right: Tensor, count: int) -> Tensor:
    """Positions of images, sorted, spread over the split, which may be sorted by class: a third wrong where it can.

    Args:
        right: Bool [N], whether the classifier is right about an image.
        count: How many are wanted.
    """
    hits, misses = right.nonzero()[:, 0], (~right).nonzero()[:, 0]
    wrong = min(len(misses), max(count // 3, count - len(hits)))
    return torch.cat([_spread(misses, wrong), _spread(hits, count - wrong)]).sort().values


def _spread(numbers: Tensor, count: int) -> Tensor:
    """`count` of some numbers at even distances, all of them where there are fewer."""
    places = torch.linspace(0, max(len(numbers) - 1, 0), min(count, len(numbers)))
    return numbers[places.round().long()]
