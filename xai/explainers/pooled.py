"""Maps of pixels averaged within patches: a pixel-level row as a patch-level one, beside those that have no pixels."""

from dataclasses import replace

from xai.core.errors import UserError
from xai.explainers.of_row import OfRowParams, row_of
from xai.explainers.registry import Context, Prepared, explainer, passes_of


def check(context: Context, params: OfRowParams) -> None:
    """Refuse what has no pixels to average.

    Raises:
        UserError: The other row does not fit the classifier, or its maps are of patches.
    """
    if not row_of(context, params.of, "pooled").params.of_pixels:
        raise UserError(f"pooled: the maps of {params.of} are not of pixels")


@explainer(
    "pooled",
    label="Pooled",
    about="maps of pixels of another row, averaged within patches",
    check=check,
    params=OfRowParams,
)
def pooled(context: Context, params: OfRowParams) -> Prepared:
    """The other row's own maps, found or made, and averaged when they are read."""
    row = context.row(params.of)
    source = row.entry.prepare(context, row.params)
    return replace(source, pool=context.blank().grid, passes=passes_of(context, row, source))
