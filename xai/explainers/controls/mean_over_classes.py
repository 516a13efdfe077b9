"""The mean of another row's maps over the classes: what all of its maps of an image have in common."""

from dataclasses import replace

import torch

from xai.core.settings import Count, settings
from xai.explainers.block import Block, BlockExplainer, Explainer, Explanation, explain
from xai.explainers.of_row import OfRowParams, made_from_row, row_by_class
from xai.explainers.registry import Context, Prepared, explainer


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

    def __init__(self, of: Explainer | BlockExplainer, classes: torch.Tensor) -> None:
        self._of, self._classes = of, classes

    def explain(self, block: Block) -> Explanation:
        """Mean maps. Every class is explained with the same draws."""
        state, total, logits = block.generator.get_state(), None, None
        for index in self._classes.tolist():
            block.generator.set_state(state)
            maps, logits = explain(self._of, block._replace(targets=torch.full_like(block.targets, index)))
            assert maps is not None
            total = maps.double() if total is None else total + maps
        assert total is not None
        assert maps is not None
        return Explanation((total / len(self._classes)).to(maps.dtype), logits)


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
    """The other row's explainer, once for each class."""
    count = len(context.model.classes)
    classes = torch.arange(count)
    if params.classes is not None and params.classes < count:
        classes = torch.arange(params.classes) * count // params.classes
    prepared = made_from_row(
        context,
        params.of,
        "mean_over_classes",
        lambda of: MeanOverClasses(of, classes),
        lambda passes: passes * len(classes),
        {"classes": classes.tolist()},
    )
    return replace(prepared, notes={})
