"""What settings name and is not there: said before any job of a sweep begins, and not when its turn has come."""

import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xai.core.errors import UserError
from xai.core.folders import holds_pictures
from xai.data.catalogue import check_data
from xai.explainers.registry import Row
from xai.explainers.rows import ALL, load_row, made_from
from xai.metrics.registry import ranked_by
from xai.models.families import NetworkParams
from xai.models.weights import check_file
from xai.papers.ranking.networks import check_levels
from xai.papers.ranking.params import RankingSettings
from xai.report.present import check_views
from xai.study.study import StudySettings, open_metrics, open_rows
from xai.tasks.train import ExplainerTraining

_DATA = ("data", "source", "probe")
_FILES = ("checkpoint", "vector")
_OF_SHORTCUT = ("ranking_t1", "flat_t1")
_OF_STUDIES = ("proposed", "ft_target", "ranking", *_OF_SHORTCUT, "constant_pixels")
"""Rows that studies of papers open whether they are among the rows or not."""


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
        check_views(settings.tables, settings.claims, settings.figures)
        open_metrics(settings.metrics, settings.metric)
    if hasattr(settings, "rank_by"):
        ranked_by(settings.rank_by, "rank_by=")
    rows = _rows(settings)
    if isinstance(model := getattr(settings, "model", None), NetworkParams):
        for row in rows:
            if isinstance(row.params, RankingSettings):
                _check_levels(model, row.name, row.params)


def check_apart(settings: Any, output: Path) -> None:
    """Refuse to write among the pictures that are asked for: next time it would be read as pictures, or as classes.

    A folder of pictures in which the user himself is, or above him, is not meant: `outputs` stands in it.

    Args:
        settings: Of any task.
        output: The folder of the run, or of all runs of a sweep.

    Raises:
        UserError: It is a folder of pictures, or stands in one.
    """
    here = Path.cwd().resolve()
    areas = set(_areas(settings))
    for what, place in (("the results", output), ("store", Path(settings.store))):
        final = place.expanduser().resolve()
        for folder in (final, *final.parents):
            if not any(area in (folder, *folder.parents) for area in areas):
                break
            if folder not in (here, *here.parents) and (folder in areas or holds_pictures(folder)):
                raise UserError(
                    f"{what} would be written to {os.path.relpath(final)}, among the pictures of "
                    f"{os.path.relpath(folder)}: leave the folder out (it is below outputs), or choose another"
                )


def unasked(settings: Any, typed: Iterable[str]) -> list[str]:
    """Of rows whose settings were typed, those that no row which is asked for is, starts from or is made from.

    Args:
        settings: Of any task; of one that asks for `all` rows, for none by name, or hands them on to the studies of a
            search, nobody says so.
        typed: Names of rows.
    """
    single = (getattr(settings, key, None) for key in ("row", "supervision", "reference"))
    asked = [*getattr(settings, "rows", ()), *(name for name in single if name is not None)]
    if not asked or ALL in asked or hasattr(settings, "over"):
        return []
    # These start from the settings of another row, which is heeded then.
    asked += _OF_SHORTCUT if getattr(settings, "shortcut", None) is not None else ()

    def opened(explainers: Mapping[str, Any]) -> dict[str, Row]:
        rows = [load_row(name, explainers) for name in asked]
        return {row.name: row for row in rows} | made_from(rows, explainers)

    here, given = opened(settings.explainers), settings.explainers
    others = [name for name in typed if name not in {*here, *_OF_STUDIES}]
    return [name for name in others if opened({key: given[key] for key in given if key != name}) == here]


def _areas(settings: Any) -> Iterator[Path]:
    """The folders that hold the pictures that are asked for."""
    image = getattr(settings, "image", None)
    asked = [image] if isinstance(image, str) else list(image or ())
    for data in (getattr(settings, key, None) for key in _DATA):
        if isinstance(data, Mapping):
            path = data.get("path") or ()
            asked += [data["root"]] if isinstance(data.get("root"), str) else []
            asked += [path] if isinstance(path, str) else [each for each in path if isinstance(each, str)]
    for each in asked:
        place = Path(each).expanduser()
        while not place.is_dir() and (place.exists() or glob.has_magic(str(place))):
            place = place.parent
        yield place.resolve()


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
