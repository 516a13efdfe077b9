"""Explainers that are made from another row's: what they share, and the plainest of them, `pooled`."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, replace
from typing import Any

from xai.core.errors import UserError
from xai.core.settings import settings
from xai.explainers.block import BlockExplainer, Explainer
from xai.explainers.registry import Context, ExplainerParams, Prepared, Row, explainer, lineage, passes_of, refusal

Either = Explainer | BlockExplainer


@settings
class OfRowParams(ExplainerParams):
    """Whose maps.

    Args:
        of: The row.
    """

    _: KW_ONLY
    of: str


def row_of(context: Context, of: str, name: str) -> Row:
    """The other row.

    Raises:
        UserError: It gives no maps, is made from itself, or does not fit the classifier or the data set; nothing is
            trained to know.
    """
    row, *_ = lineage(context.row(of), context.row)
    if row.entry.info.kind == "classifier":
        raise UserError(f"{name}: of={of} gives no maps: name a row that explains")
    if reason := refusal(row.entry, row.params, context):
        raise UserError(f"{name} is made from {of}, which cannot be had here: {reason}")
    return row


def own_row_of(context: Context, of: str, name: str) -> Row:
    """The other row, as of `row_of`, where its maps are its explainer's own: no stages of a path, nor averaged later.

    Raises:
        UserError: They are not, or cannot be had.
    """
    row = row_of(context, of, name)
    if row.entry.name in ("refined", "pooled"):
        raise UserError(f"{name}: of={of} is a {row.entry.name} row: name the one that it is made from")
    return row


def row_by_class(context: Context, of: str, name: str) -> Row:
    """The other row, as of `row_of`, where its maps are of a class.

    Raises:
        UserError: They are the same for every class, or cannot be had.
    """
    row = row_of(context, of, name)
    if not row.entry.info.class_specific:
        raise UserError(f"{name}: the maps of {of} are the same for every class")
    return row


def made_from_row(
    context: Context,
    of: str,
    name: str,
    build: Callable[[Either], Either],
    passes: Callable[[float], float],
    params: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Prepared:
    """What is made from another row's explainer.

    Args:
        context: What it is prepared with.
        of: The other row.
        name: Of the explainer that is made.
        build: Makes it from that of the other row.
        passes: What an image costs, where the other row costs so much.
        params: What else determines its maps.
        changes: What of `Prepared` is not that of the other row.
    """
    row = context.row(of)
    source = row.entry.prepare(context, row.params)
    cost = passes_of(context, row, source)
    return replace(
        source,
        made_from={**(params or {}), "name": name, "of": dict(source.made_from)},
        build=lambda: build(source.build()),
        passes=None if cost is None else passes(cost),
        **changes,
    )


def _has_pixels(context: Context, params: OfRowParams) -> None:
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
    check=_has_pixels,
    params=OfRowParams,
)
def pooled(context: Context, params: OfRowParams) -> Prepared:
    """The other row's own maps, found or made, and averaged when they are read."""
    row = context.row(params.of)
    source = row.entry.prepare(context, row.params)
    return replace(source, pool=context.blank().grid, passes=passes_of(context, row, source))
