"""How much is asked for a comparison: of a few pictures in a minute, or as the papers measure."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from xai.core.common import LoggerParams
from xai.core.errors import UserError
from xai.core.settings import settings

FEW = 20
"""Up to so many pictures no number of passes tells explainers apart that differ little: a minute is enough."""


@settings
class Quick:
    """Settings in the place of others where a comparison is quick; each may be left out.

    Args:
        rows: Explainers.
        metrics: Metrics.
        explainers: By row, its settings.
        metric: By metric, its settings.
        figures: Figures.
        logger: Where results go.
    """

    rows: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    explainers: dict[str, dict[str, Any]] = field(default_factory=dict)
    metric: dict[str, dict[str, Any]] = field(default_factory=dict)
    figures: tuple[str | dict[str, Any], ...] = ()
    logger: LoggerParams = field(default_factory=LoggerParams)


def is_quick(effort: str | None, pictures: int | None) -> bool:
    """Whether to take fewer passes.

    Args:
        effort: `quick`, `full`, or None, which is quick for few pictures.
        pictures: How many there are; None of a data set.

    Raises:
        UserError: It is none of these.
    """
    if effort not in (None, "quick", "full"):
        raise UserError(f"effort={effort} is unknown: use quick, full, or null (quick for up to {FEW} pictures)")
    return effort == "quick" or (effort is None and pictures is not None and pictures <= FEW)


def lighter(values: Mapping[str, Any], quick: Mapping[str, Any], typed: Sequence[str] = ()) -> dict[str, Any]:
    """Settings with those of `quick` in place of their own, but for what the user typed.

    Args:
        values: Settings, groups within groups.
        quick: Some of them with other values.
        typed: Dotted paths, relative to `values`.
    """
    found = dict(values)
    for key, value in quick.items():
        below = [each.partition(".")[2] for each in typed if each.split(".")[0] == key]
        if "" in below:
            continue
        found[key] = lighter(found.get(key) or {}, value, below) if isinstance(value, Mapping) else value
    return found
