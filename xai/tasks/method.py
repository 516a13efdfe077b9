"""`method=transfer`, `method=ranking` and `task=supervise` as they are until their studies take their place."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from rich.markup import escape

from xai.classifiers.params import ClassifierParams, SalvageParams, SurrogateParams, VitShapleyParams
from xai.classifiers.vit import VitStages
from xai.core.job import Common, command, open_runtime, say_heading
from xai.core.progress import console
from xai.core.settings import FieldError, Whole, settings
from xai.data.catalogue import open_data
from xai.data.registry import Split
from xai.models.cnn import CnnParams
from xai.models.vit import VitParams
from xai.papers.ranking.params import PerturbationParams, RankingParams, RefinementSettings
from xai.papers.ranking.shortcut import ShortcutParams
from xai.papers.vectors.base import ModelParams
from xai.papers.vectors.params import TransferParams
from xai.stages.families import classifier_stages
from xai.stages.supervision import open_supervision
from xai.tasks.registry import Task


@settings
class TransferConfig(Common):
    """Settings of method=transfer."""

    model: ModelParams
    data: Any
    source: Any
    supervision: Any
    transfer: TransferParams
    pictures: Whole


@settings
class SuperviseConfig(Common):
    """Settings of task=supervise."""

    model: ModelParams
    data: Any
    supervision: Any
    transfer: TransferParams
    checkpoint: str | None
    split: Split
    images: int | None


@settings
class RankingConfig(Common):
    """Settings of method=ranking; the model may be a vision transformer or a CNN."""

    model: VitParams | CnnParams
    data: Any
    classifier: ClassifierParams
    surrogate: SurrogateParams
    salvage: SalvageParams
    vit_shapley: VitShapleyParams
    baselines: Any
    rows: tuple[str, ...]
    ranking: RankingParams
    refinement: RefinementSettings
    perturbation: PerturbationParams
    path_steps: tuple[Annotated[int, Field(ge=3)], ...]
    shortcut: ShortcutParams | None
    pictures: Whole

    def __post_init__(self) -> None:
        """Refuse rows without the method's own."""
        if "ranking" not in self.rows:
            raise FieldError("rows", "has no ranking, which method=ranking is about: add it")


def _transfer(settings: TransferConfig, output: Path) -> None:
    from xai.papers.vectors.transfer import Transfer
    from xai.reports.transfer_run import present

    source, target = open_data(settings.source, "source"), open_data(settings.data, "data")
    supervision = open_supervision(settings.supervision)
    runtime = open_runtime(settings, output, small=settings.model.embedded)
    say_heading(f"{source.name} -> {target.name}", settings.model.name, seed=settings.seed)
    job = Transfer(runtime, settings.model, source, target, supervision, settings.transfer, settings.seed)
    outcome = job.run()
    present(runtime, job, outcome, output, settings.pictures, command())


def _supervise(settings: SuperviseConfig, output: Path) -> None:
    from xai.stages.supervise import Supervise

    data, supervision = open_data(settings.data, "data"), open_supervision(settings.supervision)
    runtime = open_runtime(settings, output, small=settings.model.embedded)
    checkpoint = None if settings.checkpoint is None else Path(settings.checkpoint)
    job = Supervise(
        runtime,
        settings.model,
        data,
        settings.split,
        supervision,
        settings.seed,
        settings.images,
        checkpoint,
        settings.transfer,
    )
    say_heading(f"{data.name} {settings.split}", settings.model.name, supervision.name, seed=settings.seed)
    written = job.run(output)
    file, size = escape(os.path.relpath(written.file)), " x ".join(map(str, (written.images, *written.grid)))
    store = escape(os.path.relpath(runtime.store.root))
    console.print(f"store: {runtime.store.summary()} ({store})", highlight=False, soft_wrap=True)
    console.print(f"[bold]{file}[/] holds {size} attributions; to use them:", highlight=False, soft_wrap=True)
    line = f"safetensors.torch.load_file({str(file)!r})"
    console.print(
        f"{line}  # rows [N] of the split, labels [N], attributions [N, h, w]", highlight=False, soft_wrap=True
    )


def _ranking(settings: RankingConfig, output: Path) -> None:
    from xai.papers.ranking.networks import RankingStages
    from xai.reports.ranking_study_run import run_ranking
    from xai.stages.perturbation import PerturbationExamination
    from xai.stages.ranking_study import RankingStudy, Rivals
    from xai.stages.study import open_baselines

    data = open_data(settings.data, "data")
    baselines = open_baselines(settings.baselines, pixels=True)
    runtime = open_runtime(settings, output, small=settings.model.embedded)
    say_heading(data.name, settings.model.name, seed=settings.seed)
    stages = classifier_stages(runtime, settings.model, data, settings.classifier, settings.surrogate, settings.seed)
    study = RankingStudy(
        RankingStages(stages, settings.ranking),
        PerturbationExamination(stages, settings.perturbation),
        settings.refinement,
        Rivals(stages if isinstance(stages, VitStages) else None, settings.salvage, settings.vit_shapley),
        baselines,
        settings.rows,
        settings.path_steps,
        settings.shortcut,
    )
    run_ranking(study, output, settings.pictures, command())


def task(values: Mapping[str, Any]) -> Task:
    """`task=supervise`."""
    return Task("task=supervise", SuperviseConfig, _supervise)


OLD_STUDIES = {
    "transfer": Task("method=transfer", TransferConfig, _transfer),
    "ranking": Task("method=ranking", RankingConfig, _ranking),
}
"""By the name that conf/method/<name>.yaml gives as `study`."""
