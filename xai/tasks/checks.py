"""What settings name and is not there: said before any job of a sweep begins, and not when its turn has come."""

from pathlib import Path
from typing import Any

from xai.core.errors import UserError
from xai.data.catalogue import check_data
from xai.explainers.registry import Row
from xai.explainers.rows import load_row
from xai.metrics.registry import metric_of
from xai.models.families import NetworkParams
from xai.models.weights import check_file
from xai.papers.ranking.networks import check_levels
from xai.papers.ranking.params import RankingSettings
from xai.report.present import check_views
from xai.study.everything import ALL
from xai.study.params import StudySettings, open_metrics, open_rows
from xai.tasks.train import ExplainerTraining

_DATA = ("data", "source", "probe")
_FILES = ("checkpoint", "vector")


def check_named(settings: Any) -> None:
    """Check rows, metrics, tables, claims, figures, data sets and files by their names; nothing large is opened.

    Raises:
        UserError: For the first that is not there, or does not fit.
    """
    for key in _DATA:
        if hasattr(settings, key) and (key != "probe" or settings.probe is not None):
            check_data(getattr(settings, key), key)
    for key in _FILES:
        for owner in (settings, getattr(settings, "classifier", None)):
            if (file := getattr(owner, key, None)) is not None:
                check_file(Path(file), key)
    if isinstance(settings, StudySettings):
        check_views(settings)
        open_metrics(settings.metrics, settings.metric)
    if hasattr(settings, "rank_by"):
        metric_of(settings.rank_by)
    rows = _rows(settings)
    if isinstance(model := getattr(settings, "model", None), NetworkParams):
        for row in rows:
            if isinstance(row.params, RankingSettings):
                _check_levels(model, row.name, row.params)


def _rows(settings: Any) -> list[Row]:
    if isinstance(getattr(settings, "supervision", None), str):
        load_row(settings.supervision, settings.explainers, asked="supervision")
    if isinstance(settings, ExplainerTraining):
        return [load_row(settings.method, settings.explainers)]
    if not isinstance(settings, StudySettings):
        return []
    named = [name for name in settings.rows if name != ALL]  # `all` is another word for what task=compare finds
    return open_rows(named, settings.explainers) if named or not settings.rows else []


def _check_levels(model: NetworkParams, row: str, params: RankingSettings) -> None:
    try:
        check_levels(model, params)
    except UserError as error:
        raise UserError(f"explainers.{row}: {error}") from error
