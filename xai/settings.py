"""What can be set: the typed settings of each task and method, which a configuration is built into."""

from typing import Annotated, Any

from pydantic import Field

from xai.classifiers.params import ClassifierParams, SalvageParams, SurrogateParams, VitShapleyParams
from xai.core.loggers import LoggerParams
from xai.core.settings import FieldError, Whole, settings
from xai.core.training import TrainerParams
from xai.models.cnn import CnnParams
from xai.models.vit import VitParams
from xai.papers.ranking.params import PerturbationParams, RankingParams, RefinementSettings
from xai.papers.ranking.shortcut import ShortcutParams
from xai.papers.vectors.base import ModelParams
from xai.ranking.objective import ObjectiveParams
from xai.ranking.refinement import RefinementParams
from xai.stages.apply_vector import ApplyParams
from xai.stages.removal import EvaluationParams


@settings
class Common:
    """Settings of every task and method."""

    task: str
    method: str
    name: str
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    store: str
    trainer: TrainerParams
    logger: LoggerParams


@settings
class ClassifierConfig(Common):
    """Settings of method=classifier."""

    model: VitParams | CnnParams
    data: Any
    classifier: ClassifierParams


@settings
class SurrogateConfig(ClassifierConfig):
    """Settings of method=surrogate."""

    model: VitParams
    surrogate: SurrogateParams


@settings
class StudyConfig(SurrogateConfig):
    """Settings of method=salvage and method=vit_shapley."""

    salvage: SalvageParams
    vit_shapley: VitShapleyParams
    baselines: Any
    rows: tuple[str, ...]
    evaluation: EvaluationParams
    probe: Any
    lengths: tuple[float, ...]
    likelihood: bool
    pictures: Whole

    def __post_init__(self) -> None:
        """Refuse rows without the method's own."""
        if self.method not in self.rows:
            raise FieldError("rows", f"has no {self.method}, which method={self.method} is about: add it")


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


@settings
class ApplyConfig(Common):
    """Settings of method=apply_vector."""

    model: ModelParams
    data: Any
    vector: str
    checkpoint: str
    apply_vector: ApplyParams


@settings
class ExplainConfig(Common):
    """Settings of method=explain."""

    model: ModelParams | VitParams | CnnParams
    image: str
    checkpoint: str | None
    target: Any
    supervision: Any
    refine: int
    refinement: RefinementParams
    objective: ObjectiveParams
