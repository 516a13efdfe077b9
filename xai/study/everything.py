"""`rows=[all]`: every explainer that there is, once for maps of patches and once for maps of pixels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xai.core.composing import choices
from xai.core.errors import UserError
from xai.explainers.registry import Context, Row, passes_of
from xai.explainers.rows import load_row

ALL = "all"
_ORDER = ("post-hoc", "control")


def every_row(
    named: Sequence[Row], overrides: Mapping[str, Any], cost_of: Callable[[Row], float], budget: int | None
) -> tuple[list[Row], dict[str, str]]:
    """The rows of conf/explainer that need no training, one of each explainer and kind of map.

    Refined maps are not among them: they are moved until they do well by a metric.

    Of several rows of one explainer that is the one of its own name, else the first; what is named besides is not
    repeated. What a classifier or a data set does not have is found out later, by asking the row.

    Args:
        named: Rows that are there already.
        overrides: By row, settings that replace those of its file.
        cost_of: Forward passes that a map by a row costs.
        budget: Forward passes that a map may cost; None: any number.

    Returns:
        The rows, post-hoc methods before controls; and why others are not among them, by name.
    """
    found: dict[tuple[str, bool], Row] = {(row.entry.name, row.params.of_pixels): row for row in named}
    left: dict[str, str] = {}
    for name in sorted(choices("explainer"), key=lambda name: (name not in _names_of(name), name)):
        row = _opened(name, overrides)
        if row is None or row.entry.info.kind not in _ORDER or _is_trained(row, overrides):
            continue
        if (row.entry.name, row.params.of_pixels) in found:
            continue
        if budget is not None and (cost := cost_of(row)) > budget:
            left[name] = f"a map costs {cost:,.0f} passes, more than budget={budget}; by its name it is taken"
            continue
        found[row.entry.name, row.params.of_pixels] = row
    new = [row for row in found.values() if row not in named]
    return sorted(new, key=lambda row: (_ORDER.index(row.entry.info.kind), row.params.of_pixels)), left


def cost_of(context: Context, row: Row) -> float:
    """Passes that a map costs; nothing where the row does not fit, which is said later."""
    try:
        return passes_of(context, row) or 0.0
    except UserError:
        return 0.0


def _names_of(name: str) -> tuple[str, ...]:
    """What the row of an explainer is called whose name is that of the explainer."""
    row = _opened(name, {})
    return () if row is None else (row.entry.name, f"{row.entry.name}_pixels")


def _opened(name: str, overrides: Mapping[str, Any]) -> Row | None:
    """A row; None where its file leaves something to whoever names it."""
    try:
        return load_row(name, overrides)
    except UserError:
        if name in overrides:
            raise
        return None


def _is_trained(row: Row, overrides: Mapping[str, Any]) -> bool:
    """Whether a row, or the one it is made from, has to be trained."""
    if row.entry.info.kind == "trained" or "training" in row.entry.info.needs:
        return True
    of = getattr(row.params, "of", None)
    made_from = None if of is None else _opened(of, overrides)
    return made_from is not None and _is_trained(made_from, overrides)
