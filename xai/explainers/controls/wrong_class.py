"""Another row asked about a wrong class: how much of its maps is not of the class."""

from dataclasses import replace

from torch import Tensor

from xai.explainers.block import Block, BlockExplainer, Explainer, Explanation, explain
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
        wrong = wrong_classes(block.targets, block.rows, self._classes)
        return explain(self._of, block._replace(targets=wrong))


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
    prepared = made_from_row(
        context, params.of, "wrong_class", lambda of: WrongClass(of, classes), lambda passes: passes
    )
    return replace(prepared, notes={})
