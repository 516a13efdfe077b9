"""What can be set: the typed settings of each task and method, which a configuration is built into."""

from dataclasses import dataclass
from typing import Any

from xai.classifiers.params import ClassifierParams, SalvageParams, SurrogateParams, VitShapleyParams
from xai.core.errors import UserError
from xai.core.loggers import LoggerParams
from xai.core.training import TrainerParams
from xai.models.cnn import CnnParams
from xai.models.vit import VitParams
from xai.papers.ranking.params import PerturbationParams, RankingParams, RefinementSettings
from xai.papers.ranking.shortcut import ShortcutParams
from xai.papers.vectors.base import ModelParams
from xai.papers.vectors.params import TransferParams
from xai.ranking.objective import ObjectiveParams
from xai.ranking.refinement import RefinementParams
from xai.stages.apply_vector import ApplyParams
from xai.stages.removal import EvaluationParams


@dataclass(frozen=True)
class Common:
    """Settings of every task and method."""

    task: str
    method: str
    name: str
    seed: int
    store: str
    trainer: TrainerParams
    logger: LoggerParams

    def __post_init__(self) -> None:
        """Refuse seeds that generators do not take."""
        if not 0 <= self.seed < 2**31:
            raise UserError(f"seed={self.seed} must lie between 0 and 2147483647")


@dataclass(frozen=True)
class TransferConfig(Common):
    """Settings of method=transfer."""

    model: ModelParams
    data: Any
    source: Any
    supervision: Any
    transfer: TransferParams
    pictures: int

    def __post_init__(self) -> None:
        """Refuse a negative number of pictures."""
        super().__post_init__()
        if self.pictures < 0:
            raise UserError(f"pictures={self.pictures} must be 0 or more")


@dataclass(frozen=True)
class SuperviseConfig(Common):
    """Settings of task=supervise."""

    model: ModelParams
    data: Any
    supervision: Any
    transfer: TransferParams
    checkpoint: str | None
    split: str
    images: int | None


@dataclass(frozen=True)
class ClassifierConfig(Common):
    """Settings of method=classifier."""

    model: VitParams | CnnParams
    data: Any
    classifier: ClassifierParams


@dataclass(frozen=True)
class SurrogateConfig(ClassifierConfig):
    """Settings of method=surrogate."""

    model: VitParams
    surrogate: SurrogateParams


@dataclass(frozen=True)
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
    pictures: int

    def __post_init__(self) -> None:
        """Refuse a negative number of pictures, and rows without the method's own."""
        super().__post_init__()
        if self.pictures < 0:
            raise UserError(f"pictures={self.pictures} must be 0 or more")
        if self.method not in self.rows:
            raise UserError(f"rows has no {self.method}, which method={self.method} is about: add it")


@dataclass(frozen=True)
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
    path_steps: tuple[int, ...]
    shortcut: ShortcutParams | None
    pictures: int

    def __post_init__(self) -> None:
        """Refuse a negative number of pictures, and rows without the method's own."""
        super().__post_init__()
        if self.pictures < 0:
            raise UserError(f"pictures={self.pictures} must be 0 or more")
        if "ranking" not in self.rows:
            raise UserError("rows has no ranking, which method=ranking is about: add it")


@dataclass(frozen=True)
class ApplyConfig(Common):
    """Settings of method=apply_vector."""

    model: ModelParams
    data: Any
    vector: str
    checkpoint: str
    apply_vector: ApplyParams


@dataclass(frozen=True)
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
