"""`task=study`: rows by metrics, as a paper has them, shown as tables, claims, figures and a page."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from xai.core.job import open_runtime, say_end, say_heading
from xai.core.runtime import Runtime
from xai.papers.ranking.study import RankingStudy
from xai.papers.ranking.study import open_study as open_ranking
from xai.papers.salvage.study import SalvageStudy
from xai.papers.salvage.study import open_study as open_salvage
from xai.report.present import present
from xai.study.params import StudySettings
from xai.study.study import Study


@dataclass(frozen=True)
class Paper:
    """A study that comes with the framework: its settings, and what opens it."""

    settings: type[StudySettings]
    open: Callable[[Any, Runtime], Study]


STUDIES = {"salvage": Paper(SalvageStudy, open_salvage), "ranking": Paper(RankingStudy, open_ranking)}
"""By the name of a file of conf/study."""


def run_study(settings: StudySettings, output: Path) -> None:
    """Measure what is missing, and show everything."""
    model: Any = getattr(settings, "model")  # noqa: B009 - each study has a model of a family of its own
    runtime = open_runtime(settings, output, small=model.embedded)
    say_heading(settings.data["name"], model.name, seed=settings.seed)
    study = STUDIES[settings.study].open(settings, runtime)
    frames = study.run()
    present(frames, output, settings.tables, settings.claims, study.unfit)
    say_end(runtime, f"frames, tables and figures: [bold]{escape(os.path.relpath(output))}[/]")
