"""Another row asked about other classes: a wrong one, and all of them. How much of its maps is of the class?"""

from collections.abc import Iterator

import torch
from torch import Tensor

from xai.core.settings import Count, settings
from xai.explainers.block import Block, BlockExplainer, Explainer, Explanation, ManyClassExplainer, explain
from xai.explainers.of_row import OfRowParams, made_from_row, row_by_class
from xai.explainers.registry import Context, Prepared, explainer

_MIXERS = (2_654_435_761, 2_246_822_519)
"""Odd numbers of 32 bits: multiplied by them and folded, whole numbers lose whatever order they had."""


class WrongClass:
    """Asks about a class other than the target.

    Which one follows from the image's number in its split: the same whatever is measured, and in whatever company.

    Args:
        of: What explains.
        classes: C, at least 2.
    """

    def __init__(self, of: Explainer | BlockExplainer, classes: int) -> None:
        self._of, self._classes = of, classes

    def explain(self, block: Block) -> Explanation:
        """Maps of the wrong classes; the logits are those of the image."""
        return explain(self._of, block._replace(targets=self.wrong(block)))

    def wrong(self, block: Block) -> Tensor:
        """The classes [B] that are asked about."""
        return wrong_classes(block.targets, block.rows, self._classes)


def wrong_classes(targets: Tensor, rows: Tensor, classes: int) -> Tensor:
    """For each of `targets` [B] another class, every one as often, by the numbers `rows` [B] of the images."""
    mixed = rows % 2**31
    for mixer in _MIXERS:
        mixed = mixed * mixer % 2**31
        mixed = mixed ^ (mixed >> 15)
    shift = 1 + mixed % (classes - 1)
    return (targets + shift.to(targets.device)) % classes


@explainer(
    "wrong_class",
    label="Wrong class",
    about="another row asked about a wrong class, its map measured as if it were of the right one",
    params=OfRowParams,
    kind="control",
    check=lambda context, params: row_by_class(context, params.of, "wrong_class"),
)
def wrong_class(context: Context, params: OfRowParams) -> Prepared:
    """The other row's explainer, with the targets changed."""
    classes = len(context.model.classes)
    return made_from_row(
        context, params.of, "wrong_class", lambda of: WrongClass(of, classes), lambda passes: passes, notes={}
    )


@settings
class MeanOverClassesParams(OfRowParams):
    """Over which classes the mean is taken.

    Args:
        classes: How many, spread evenly over all there are; null takes all.
    """

    classes: Count | None = None


class MeanOverClasses:
    """Explains every class, and gives the mean, whichever is asked for.

    Args:
        of: What explains.
        classes: [K] class indices.
    """

    def __init__(self, of: Explainer | BlockExplainer, classes: Tensor) -> None:
        self._of, self._classes = of, classes

    def explain(self, block: Block) -> Explanation:
        """Mean maps. Every class is explained with the same draws."""
        total, last = None, Explanation(None)
        for last in self._each(block):
            assert last.maps is not None
            total = last.maps.double() if total is None else total + last.maps
        assert total is not None
        assert last.maps is not None
        return last._replace(maps=(total / len(self._classes)).to(last.maps.dtype))

    def _each(self, block: Block) -> Iterator[Explanation]:
        if isinstance(self._of, ManyClassExplainer):
            targets = self._classes.to(block.targets).expand(len(block.targets), -1)
            yield from map(Explanation, self._of.attribute_classes(block.images, targets, block.generator))
            return
        state = block.generator.get_state()
        for index in self._classes.tolist():
            block.generator.set_state(state)
            yield explain(self._of, block._replace(targets=torch.full_like(block.targets, index)))


@explainer(
    "mean_over_classes",
    label="Mean over classes",
    about="the mean over classes of another row's maps of the image: what they have in common",
    params=MeanOverClassesParams,
    kind="control",
    class_specific=False,
    check=lambda context, params: row_by_class(context, params.of, "mean_over_classes"),
)
def mean_over_classes(context: Context, params: MeanOverClassesParams) -> Prepared:
    """The other row's explainer for each class, which some have for the passes of one."""
    count = len(context.model.classes)
    classes = torch.arange(count)
    if params.classes is not None and params.classes < count:
        classes = torch.arange(params.classes) * count // params.classes
    times = 1 if context.row(params.of).entry.asks_once else len(classes)
    return made_from_row(
        context,
        params.of,
        "mean_over_classes",
        lambda of: MeanOverClasses(of, classes),
        lambda passes: passes * times,
        {"classes": classes.tolist()},
        notes={},
    )
