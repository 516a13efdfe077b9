"""`task=study`: rows by metrics, as a paper has them, shown as tables, claims, figures and a page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xai.core.errors import UserError
from xai.core.folders import shown
from xai.core.progress import console
from xai.core.runtime import Runtime, open_runtime, say_end, say_heading
from xai.core.settings import unknown
from xai.papers.ranking.study import RankingStudy
from xai.papers.ranking.study import open_study as open_ranking
from xai.papers.salvage.study import SalvageStudy
from xai.papers.salvage.study import open_study as open_salvage
from xai.papers.vectors.study import VectorsStudy
from xai.papers.vectors.study import open_study as open_vectors
from xai.report.present import Told, present
from xai.report.ranking import told as tell_of_ranking
from xai.report.salvage import told as tell_of_salvage
from xai.report.vectors import told as tell_of_vectors
from xai.study.cost import asked_of, cost_line
from xai.study.frame import Frames
from xai.study.study import Study, StudySettings
from xai.tasks.registry import Task


@dataclass(frozen=True)
class Paper:
    """A study that comes with the framework: its settings, what opens it, and what it says of its frames."""

    settings: type[StudySettings]
    open: Callable[[Any, Runtime], Study]
    tell: Callable[[Any, Frames, Path], Told]


STUDIES = {
    "ranking": Paper(RankingStudy, open_ranking, tell_of_ranking),
    "salvage": Paper(SalvageStudy, open_salvage, tell_of_salvage),
    "vectors": Paper(VectorsStudy, open_vectors, tell_of_vectors),
}
"""By the name of a file of conf/study."""


def task(values: Mapping[str, Any]) -> Task:
    """The study that is asked for; UserError: there is none of its name, or none was named."""
    name = values.get("study")
    if name in STUDIES:
        return Task(f"study={name}", STUDIES[str(name)].settings, run_study)
    if name is None:
        raise UserError(f"study is not set: choose from {', '.join(STUDIES)}")
    raise UserError(unknown(f"study={name}", str(name), STUDIES, "study", "choose from"))


def run_study(settings: StudySettings, output: Path) -> None:
    """Measure what is missing, and show everything."""
    model: Any = getattr(settings, "model")  # noqa: B009 - each study has a model of a family of its own
    runtime = open_runtime(settings, output, small=model.embedded)
    names = [data.get("title", data["name"]) for data in (getattr(settings, "source", None), settings.data) if data]
    say_heading(" -> ".join(names), model.name, seed=settings.seed)
    paper = STUDIES[settings.study]
    study = paper.open(settings, runtime)
    console.print(f"  {cost_line(asked_of(study, model.grid**2))}", highlight=False, style="dim")
    frames = study.run()
    page = present(study, frames, settings, output, paper.tell(study, frames, output))
    say_end(runtime, f"report: [bold]{shown(page)}[/]")
