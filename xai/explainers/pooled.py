"""Maps of pixels averaged within patches: a pixel-level row as a patch-level one, beside those that have no pixels."""

from dataclasses import replace

from xai.core.errors import UserError
from xai.core.settings import settings
from xai.explainers.registry import Context, ExplainerParams, Prepared, explainer, passes_of, refusal


@settings
class PooledParams(ExplainerParams):
    """Whose maps.

    Args:
        of: The row of pixels.
    """

    of: str


def check(context: Context, params: PooledParams) -> None:
    """Refuse what has no pixels to average.

    Raises:
        UserError: The other row does not fit the classifier, or its maps are of patches.
    """
    row = context.row(params.of)
    if not row.params.of_pixels:
        raise UserError(f"pooled: the maps of {params.of} are not of pixels")
    if reason := refusal(row.entry, row.params, context):
        raise UserError(f"it averages {params.of}, which cannot be had here: {reason}")


@explainer(
    "pooled",
    label="Pooled",
    about="maps of pixels of another row, averaged within patches",
    check=check,
    params=PooledParams,
)
def pooled(context: Context, params: PooledParams) -> Prepared:
    """The other row's own maps, found or made, and averaged when they are read."""
    row = context.row(params.of)
    source = row.entry.prepare(context, row.params)
    return replace(source, pool=context.blank().grid, passes=passes_of(context, row, source))
