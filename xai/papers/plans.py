"""What a study needs, from its settings alone: the graph of its stages, their forward passes, and what they leave.

Nothing is opened, fetched or built, so that a paper's data and weights need not be there. A backward pass counts as two
forward ones; numbers of images are those of `xai.data.facts`, and everything is what an empty store would have to be
filled with.
"""

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import timm
import torch

from xai.classifiers.params import ClassifierParams, SurrogateParams
from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.data.facts import counts
from xai.explainers.registry import Row
from xai.explainers.rows import ALL, every_row, load_row, made_from
from xai.models import evidence
from xai.models.factory import ClipParams, build_clip
from xai.models.families import NetworkParams, published_classes
from xai.models.named import torchvisions
from xai.papers.ranking.params import RefinedSettings
from xai.papers.ranking.study import RankingStudy, over_path_steps, over_steps
from xai.papers.salvage.study import SalvageStudy, over_length
from xai.papers.vectors.study import VectorsStudy, over_lambda2
from xai.papers.vectors.transfer import with_coalitions
from xai.study.study import StudySettings, open_metrics, open_rows

_FORWARD_AND_BACKWARD = 3
_STATES = 3
"""A checkpoint of AdamW has the weights and two moments of each; what is left has the weights."""
_FLOAT = 4
_READ_OFF = {"reading", "share", "correction"}
"""Settings of a row that say how a trained network is used, and nothing of its training."""


@dataclass(frozen=True)
class Stage:
    """Something that the store keeps.

    Args:
        name: What it is.
        passes: Forward passes of making it.
        kept: Bytes of it in the store.
        meanwhile: Bytes that it takes besides, while it is being made.
        needs: Stages that have to be there first.
        own: What it is made of besides: two jobs with the same of this and of the needs share it.
        kind: Of the artifact. Its name is what it is for: a classifier of a source may be that of another job's target.
        model: Whose passes they are, its settings.
    """

    name: str
    passes: float
    kept: float
    meanwhile: float = 0.0
    needs: tuple["Stage", ...] = ()
    own: Any = field(default=None, repr=False)
    kind: str = ""
    model: Any = field(default=None, repr=False)

    @cached_property
    def identity(self) -> str:
        """The same for the same stage of two jobs."""
        said = repr((self.kind or self.name, self.own, [each.identity for each in self.needs]))
        return hashlib.sha256(said.encode()).hexdigest()


def stages_of(asked: StudySettings) -> list[Stage]:
    """The stages of a study, each after those that it needs.

    Raises:
        UserError: Nobody has said how many images the data set has, or no study that trains is asked for.
    """
    plan = _Plan(asked)
    if isinstance(asked, VectorsStudy):
        explained, rows = plan.vectors(asked), _rows_of(asked)
    elif isinstance(asked, SalvageStudy | RankingStudy):
        rows = _rows_of(asked)
        explained = plan.networks(asked, rows)
    elif asked.study == "compare":
        # The classifier is there, and no more is trained than the rows that were named.
        settings: Any = asked
        explained, rows = [], plan.compared(settings.budget)
        plan.learned(rows, settings.surrogate)
    else:
        raise UserError(f"task=plan knows study=vectors, salvage, ranking and compare: {asked.study} is none of them")
    plan.measured(explained, rows)
    return plan.stages


class _Plan:
    def __init__(self, asked: StudySettings) -> None:
        model: Any = getattr(asked, "model")  # noqa: B009 - each study has a model of a family of its own
        self.asked, self.model, self.players = asked, model, model.grid**2
        self.images = _images(asked.data)
        self.stages: list[Stage] = []
        self.trained: dict[str, Stage] = {}
        self.names: dict[str, str] = {}
        self.size = _FLOAT * _weights(model)

    def add(self, stage: Stage) -> Stage:
        """Put a stage behind the others, once."""
        found = next((each for each in self.stages if each.identity == stage.identity), None)
        if found is None:
            found = replace(stage, model=self.model)
            self.stages.append(found)
        return found

    def train(
        self, name: str, fit: FitParams, images: int, each: float, *needs: Stage, own: Any = None, on: Any = None
    ) -> Stage:
        """A training of so many passes an image, on the data set or another one."""
        unit, length = fit.length
        seen = length * images if unit == "epochs" else length * fit.batch_size
        made_of = (self.model, on or self.asked.data, self.asked.seed, fit, images, own)
        return self.add(Stage(name, seen * each, self.size, _STATES * self.size, needs, made_of, "training"))

    def explain(
        self, row: Row, images: int, split: str, what: str, *needs: Stage, on: Any = None, classes: int = 1
    ) -> Stage:
        """The maps of a row, of images of a split of the data set or of another one, for so many classes of each."""
        side = self.model.image_size if row.params.of_pixels else self.model.grid
        shown = 1
        if isinstance(row.params, RefinedSettings):
            # One path serves the rows of all its steps.
            shown += row.params.steps
            row = replace(row, params=replace(row.params, step=row.params.steps))
        kept = 0.0 if row.entry.info.kind == "classifier" else images * classes * shown * side**2 * _FLOAT
        asked = images, classes
        made_of = (self.model, on or self.asked.data, self.asked.seed, row.entry.info.name, row.params, split, asked)
        passes = images * (1 if row.entry.asks_once else classes) * self.cost(row, split)
        return self.add(Stage(f"{row.name} of {what}", passes, kept, kept, needs, made_of, "maps"))

    def cost(self, row: Row, split: str = "test") -> float:
        """Passes of explaining an image of a split by a row."""
        params: Any = row.params.for_split(split)
        if isinstance(params, RefinedSettings):
            return float(params.step * params.passes_a_step)
        return float(row.entry.info.passes(params, self.players)) if row.entry.info.passes else 1.0

    def networks(self, asked: SalvageStudy | RankingStudy, rows: Sequence[Row]) -> list[Stage]:
        """The classifier, where rows are learned from masks the surrogate, and every row's own training."""
        wanted = [*rows, *made_from(rows, asked.explainers).values()]
        explained = self.classifier(asked.classifier)
        if judge := getattr(asked, "judge", None):
            fit = asked.classifier.fit
            self.train(f"second classifier, {judge}", fit, self.images["train"], 3, own=(judge, asked.classifier))
        surrogate = self.learned(wanted, asked.surrogate, explained, always=isinstance(asked, SalvageStudy))
        return [surrogate if isinstance(asked, SalvageStudy) and surrogate else explained]

    def classifier(self, how: ClassifierParams) -> Stage:
        """The classifier: trained, but for the user's own, and for one that is published for all of ImageNet."""
        published = self.asked.data["name"] == "imagenet" and self.model.is_published_for(published_classes())
        if how.checkpoint is None and not published:
            return self.train("classifier", how.fit, self.images["train"], 3, own=how)
        own = (self.model, self.asked.data, self.asked.seed, how.checkpoint)
        return self.add(Stage("classifier", 0, self.size, own=own))

    def learned(
        self, rows: Sequence[Row], how: SurrogateParams, *classifier: Stage, always: bool = False
    ) -> Stage | None:
        """The trainings that rows ask for, and the surrogate that those learn from which are learned from masks."""
        surrogate, learning = None, [row for row in rows if _fit(row) is not None]
        if always or any(_of_surrogate(row) for row in learning):
            passes = _FORWARD_AND_BACKWARD + float(how.teacher == "classifier")
            surrogate = self.train("surrogate", how.fit, self.images["train"], passes, *classifier, own=how)
        for row in learning:
            needs = (surrogate,) if surrogate and _of_surrogate(row) else classifier
            # Two rows may read one network differently.
            own = repr((row.entry.info.name, [(k, v) for k, v in vars(row.params).items() if k not in _READ_OFF]))
            name = self.names.setdefault(own, f"training of {row.name}")
            self.trained[row.name] = self.corrected(row, self.learn(name, row, self.images["train"], *needs, own=own))
        return surrogate

    def corrected(self, row: Row, learned: Stage) -> Stage:
        """The same, or what validation images leave of its correction of the paths."""
        params: Any = row.params
        choice = getattr(params, "correction", None)
        if choice is None:
            return learned
        curves = len(choice.shares) * len(params.objective.references) * (2 * choice.steps - 2)
        passes = choice.images * (1 + self.cost(row) + curves)
        return self.add(Stage(f"choice of {row.name}", passes, self.size, 0, (learned,), choice))

    def learn(self, name: str, row: Row, images: int, *needs: Stage, own: Any = None, on: Any = None) -> Stage:
        """The training of an explainer."""
        fit = _fit(row)
        assert fit is not None
        passes = _FORWARD_AND_BACKWARD + _learning(row.params)
        return self.train(name, fit, images, passes, *needs, own=own or row, on=on)

    def vectors(self, asked: VectorsStudy) -> list[Stage]:
        """Classifiers of source and target, supervision, the explaining network of the source, and the bound."""
        params, source = asked.transfer, _images(asked.source)
        supervision = load_row(asked.supervision, asked.explainers)
        alphas = params.alpha_grid if params.alpha is None else (params.alpha,)
        lambdas = params.lambda2_grid if params.lambda2 is None else (params.lambda2,)
        supervised, columns = params.source_images or source["train"], 2 if params.other_column else 1
        fixed, moving = {"fixed": True}, {"fixed": params.fixed_target}
        ft_source = self.train("ft source", params.source_fit, supervised, 3, on=asked.source, own=fixed)
        train = params.target_images or self.images["train"]
        ft_target = self.train("ft target", params.target_fit, train, 3, own=moving)
        explaining, bounding = [ft_source], [ft_target]
        if _fit(supervision) is not None:
            # Beside each classifier a network of its own.
            name, whole = f"training of {supervision.name}", source["train"]
            explaining.append(self.learn(f"{name} on the source", supervision, whole, ft_source, on=asked.source))
            bounding.append(self.learn(name, supervision, self.images["train"], ft_target))
        source_x = self.explain(
            supervision,
            supervised,
            "train",
            f"the source, {_title(asked.source)}",
            *explaining,
            on=asked.source,
            classes=columns,
        )
        moved = [
            self.train(
                f"ft source+X, alpha {alpha:g}", params.source_fit, supervised, 3, source_x, own=alpha, on=asked.source
            )
            for alpha in alphas
        ]
        chosen: list[Stage] = [*moved, ft_target]
        if len(alphas) * len(lambdas) > 1:
            held_out = params.validation_images or self.images["validation"]
            reference = self.explain(supervision, held_out, "validation", "the validation split", *bounding)
            passes = float(len(alphas) * len(lambdas) * held_out)
            own = (self.asked.data, self.model, self.asked.seed, params)
            chosen = [self.add(Stage("choice of alpha, lambda2", passes, 0, 0, (*moved, ft_target, reference), own))]
        if "ft_target_x" in asked.rows:
            images = params.bound_images or train
            bound = with_coalitions(supervision, params.bound_coalitions)
            target_x = self.explain(bound, images, "train", "the target's training images", *bounding, classes=columns)
            alpha = alphas[0] if len(alphas) == 1 else None
            chosen.append(self.train("ft target+X", params.bound_fit, images, 3, target_x, own=alpha))
        split = asked.case.split
        self.explain(supervision, asked.case.images or self.images[split], split, f"the {split} images", *bounding)
        return chosen

    def compared(self, budget: int | None) -> list[Row]:
        """The rows of a comparison; `all` are those that are not too dear, whether they fit the model or not."""
        asked = self.asked
        named = [name for name in asked.rows if name != ALL]
        rows = open_rows(named, asked.explainers) if named else []
        return [*rows, *(every_row(rows, asked.explainers, self.cost, budget)[0] if ALL in asked.rows else ())]

    def measured(self, explained: Sequence[Stage], rows: Sequence[Row]) -> None:
        """Maps of all rows, and scores of all metrics for each."""
        asked = self.asked
        images = asked.case.images or self.images[asked.case.split]
        metrics = open_metrics(asked.metrics, asked.metric)
        targets = 2 if any("second" in each.needs for each in metrics) else 1
        maps, split, probe = [], asked.case.split, getattr(asked, "probe", None)
        pairs = (
            getattr(asked, "probe_images", images + images % 2) if any("cells" in each.needs for each in metrics) else 0
        )
        reference = getattr(asked, "reference", None)
        for row in [*rows, *([] if reference is None else [load_row(reference, asked.explainers)])]:
            mine = [self.trained[row.name]] if row.name in self.trained else []
            maps.append(self.explain(row, images, split, f"the {split} images", *explained, *mine, classes=targets))
            if probe is not None and pairs:
                maps.append(self.explain(row, pairs, split, f"the probe, {_title(probe)}", *explained, *mine, on=probe))
        scored = sum(row.entry.info.kind != "classifier" for row in rows)
        for each in metrics:
            passes = images * scored * each.metric.passes(each.params, self.players) if each.metric.passes else 0.0
            kept = float(images * len(rows) * 2 * _FLOAT)
            self.add(Stage(f"scores: {each.metric.name}", passes, kept, kept, tuple(maps), (each.params, asked.case)))


def _rows_of(asked: VectorsStudy | SalvageStudy | RankingStudy) -> list[Row]:
    """The rows of a study, and those that it measures beside them for a figure."""
    rows = open_rows(asked.rows, asked.explainers)
    if isinstance(asked, VectorsStudy):
        return [*rows, *over_lambda2(load_row("proposed", asked.explainers), asked.transfer.lambda2_grid)]
    if isinstance(asked, SalvageStudy):
        return [*rows, *over_length(rows, asked.lengths)]
    ranking = load_row("ranking", asked.explainers)
    return [*rows, *over_steps(rows), *over_path_steps(ranking, rows, asked.path_steps)]


def _fit(row: Row) -> FitParams | None:
    return getattr(row.params, "fit", None)


def _of_surrogate(row: Row) -> bool:
    """Whether a row is learned from masks, and not beside a classifier that is asked as it is."""
    return hasattr(row.params, "masks") and getattr(row.params, "network", None) is None


def _learning(params: Any) -> float:
    """Passes of the classifier for one training image of an explainer, beside its own."""
    if hasattr(params, "objective"):
        return 2.0 * params.objective.steps * _FORWARD_AND_BACKWARD + evidence.passes(params.decoder.gradient)
    return float(getattr(params, "masks", 0))


def _title(data: Mapping[str, Any]) -> str:
    return str(data.get("title", data["name"]))


def _images(data: Mapping[str, Any]) -> dict[str, int]:
    found = counts(data)
    if found is None:
        raise UserError(f"data={_title(data)} has not been counted: task=plan knows the sets of task=data")
    return found


def _weights(model: Any) -> int:
    """Parameters of a network."""
    architecture = getattr(model, "architecture", None)
    network = untrained(model, torch.device("cpu")) if architecture is None else _without_memory(architecture)
    return sum(parameter.numel() for parameter in network.parameters())


@cache
def _without_memory(architecture: str) -> torch.nn.Module:
    with torch.device("meta"):  # and without numbers
        return _published(architecture, torch.device("meta"))


def untrained(model: Any, device: torch.device) -> torch.nn.Module:
    """A network of a model's settings with random weights, which costs what the trained one does."""
    if isinstance(model, NetworkParams):
        return model.build(10).to(device)
    if isinstance(model, ClipParams):
        return build_clip(model).to(device)
    return _published(model.architecture, device).to(device)


def _published(architecture: str, device: torch.device) -> torch.nn.Module:
    import open_clip

    if architecture in open_clip.list_models():
        logging.disable(logging.WARNING)  # that no weights are loaded, which is what is wanted
        try:
            clip: torch.nn.Module = open_clip.create_model(architecture, device=device)
        finally:
            logging.disable(logging.NOTSET)
        return clip
    network = timm.create_model(architecture) if timm.is_model(architecture) else torchvisions(architecture)
    assert network is not None
    return network


def passes_a_second(model: Any, device: torch.device, seconds: float = 3.0, batch: int = 32) -> float:
    """Forward passes of whole images that a device does in a second; of a CLIP, those of its visual tower."""
    network = untrained(model, device).eval()
    network = getattr(network, "visual", network)
    images = torch.rand(batch, 3, model.image_size, model.image_size, device=device)
    done = 0
    with torch.no_grad():
        network(images)
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            network(images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            done += batch
    return done / (time.perf_counter() - start)
