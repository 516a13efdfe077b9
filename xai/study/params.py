"""Settings of a study, and the rows and metrics they name."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from xai.core.common import Common
from xai.core.errors import UserError
from xai.core.settings import Distinct, Whole, settings, unknown
from xai.explainers.registry import Row
from xai.explainers.rows import load_row
from xai.metrics import registry as metrics
from xai.study.case import CaseParams
from xai.study.scores import Chosen


@settings
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
        claims: Files of conf/claim.
        figures: Registered figures.
        pictures: Images on the sheets of pictures.
        gallery: Images that the site can show.
    """

    title: ClassVar[str]
    """Of its page."""

    study: str
    data: Any
    rows: Annotated[tuple[str, ...], Distinct]
    explainers: dict[str, dict[str, Any]]
    metrics: Annotated[tuple[str, ...], Field(min_length=1), Distinct]
    metric: dict[str, dict[str, Any]]
    case: CaseParams
    tables: Annotated[tuple[str, ...], Distinct]
    claims: Annotated[tuple[str, ...], Distinct]
    figures: tuple[str | dict[str, Any], ...]
    pictures: Whole
    gallery: Whole


def open_rows(names: Sequence[str], explainers: Mapping[str, Any]) -> list[Row]:
    """The rows of a study, each with the settings of its file and those of `explainers.<row>`.

    Raises:
        UserError: No row, an unknown one, or a wrong setting of one.
    """
    if not names:
        raise UserError("rows is empty: name at least one explainer")
    return [load_row(name, explainers, asked="rows") for name in names]


def open_metrics(names: Sequence[str], given: Mapping[str, Any], above: str = "") -> list[Chosen]:
    """Metrics with the settings of `metric.<name>`.

    By its own name a metric gives all of its columns; by the name of a column it gives those that need no maps of a
    second class, unless that one does.

    Args:
        names: Of metrics or columns.
        given: By metric, its settings.
        above: What the user typed before `metrics` and `metric`.

    Raises:
        UserError: An unknown metric, or a wrong setting of one.
    """
    known, families, columns = metrics.names(), metrics.families(), metrics.columns()
    for name, values in given.items():
        if name not in known:
            raise UserError(unknown(f"{above}metric.{name}", str(name), known, "metric", "choose from"))
        metrics.entry(name).settings(values, above)
    wanted: dict[str, bool] = {}
    for name in names:
        if name not in known and name not in families:
            every = {*known, *families}
            raise UserError(unknown(f"{above}metrics={name}", str(name), every, "metric", "choose from"))
        whole = name in known or "second" in columns[name].needs
        metric = name if name in known else families[name]
        wanted[metric] = wanted.get(metric, False) or whole
    entries = {name: metrics.entry(name) for name in wanted}
    return [Chosen(each, each.settings(given.get(name)), wanted[name]) for name, each in entries.items()]
