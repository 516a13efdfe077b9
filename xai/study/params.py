"""Settings of a study, and the rows and metrics they name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from xai.core.errors import UserError
from xai.core.job import Common
from xai.explainers.registry import Row
from xai.explainers.rows import load_row
from xai.metrics import registry as metrics
from xai.study.case import CaseParams
from xai.study.scores import Chosen


@dataclass(frozen=True)
class StudySettings(Common):
    """What every study has.

    Args:
        study: Its name.
        data: The data set: `name` and its settings.
        rows: Explainers, in order: files of conf/explainer.
        explainers: By row, settings that replace those of its file.
        metrics: Metrics, by their names or those of their columns.
        metric: By metric, its settings.
        case: Which images, and which class of each.
        tables: Files of conf/table.
        claims: Files of conf/claims.
        figures: Registered figures.
        pictures: Images on the sheets of pictures.
    """

    study: str
    data: Any
    rows: tuple[str, ...]
    explainers: Any
    metrics: tuple[str, ...]
    metric: Any
    case: CaseParams
    tables: tuple[str, ...]
    claims: tuple[str, ...]
    figures: tuple[str, ...]
    pictures: int

    def __post_init__(self) -> None:
        """Refuse a negative number of pictures, and settings of rows and metrics that are no groups."""
        super().__post_init__()
        if self.pictures < 0:
            raise UserError(f"pictures={self.pictures} must be 0 or more")
        for group in ("explainers", "metric"):
            value = getattr(self, group)
            if not isinstance(value, Mapping):
                raise UserError(f"{group}={value} must be a group of settings: {group}.<name>.<setting>=...")


def open_rows(names: Sequence[str], explainers: Mapping[str, Any], config: DictConfig | None = None) -> list[Row]:
    """The rows of a study, each with the settings of its file and those of `explainers.<row>`.

    Raises:
        UserError: No row, an unknown one, or a wrong setting of one.
    """
    if not names:
        raise UserError("rows is empty: name at least one explainer")
    return [load_row(name, explainers, config) for name in names]


def open_metrics(names: Sequence[str], settings: Mapping[str, Any]) -> list[Chosen]:
    """Metrics by their own name or that of one of their columns, with the settings of `metric.<name>`.

    Raises:
        UserError: An unknown metric, or a wrong setting of one.
    """
    for name in settings:
        metrics.entry(name)
    wanted = [metrics.entry(name) if name in metrics.names() else metrics.metric_of(name) for name in names]
    return [Chosen(each, each.settings(settings.get(each.name))) for each in dict.fromkeys(wanted)]
