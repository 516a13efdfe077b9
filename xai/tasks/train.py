"""`task=train`: a classifier, its surrogate, or an explainer learns; its file is written into the folder of the run."""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.markup import escape

from xai.classifiers.networks import ClassifierStages, explained
from xai.classifiers.params import ClassifierParams, SurrogateParams
from xai.core.common import Common
from xai.core.errors import UserError
from xai.core.files import write_atomically
from xai.core.folders import shown
from xai.core.progress import console
from xai.core.runtime import Runtime, open_runtime, say_end, say_heading
from xai.core.settings import settings, unknown
from xai.core.store import Store
from xai.data.catalogue import open_data
from xai.explainers import registry
from xai.explainers.registry import Prepared, Row, refusal
from xai.explainers.rows import load_row
from xai.models.vit import VitParams
from xai.papers.families import AnyNetwork, classifier_stages
from xai.study.case import Case, CaseParams
from xai.tasks.registry import Task

_BLOCK = 50


@settings
class ClassifierTraining(Common):
    """Settings of method=classifier.

    Args:
        method: What is trained.
        model: The network.
        data: What it learns from.
        classifier: How it is trained.
    """

    method: str
    model: AnyNetwork
    data: Any
    classifier: ClassifierParams


@settings
class SurrogateTraining(ClassifierTraining):
    """Settings of method=surrogate.

    Args:
        surrogate: How the classifier is fine-tuned on masked images.
    """

    model: VitParams
    surrogate: SurrogateParams


@settings
class ExplainerTraining(ClassifierTraining):
    """Settings of a method that is an explainer.

    Args:
        surrogate: How the classifier is fine-tuned on masked images, where that is what the explainer learns from.
        explainers: By row, settings that replace those of its file.
    """

    surrogate: SurrogateParams
    explainers: dict[str, dict[str, Any]]


def task(values: Mapping[str, Any]) -> Task:
    """What is trained, by `method`; UserError: the method is nothing that can be trained by itself."""
    method, own = str(values.get("method")), {"classifier": ClassifierTraining, "surrogate": SurrogateTraining}
    if method in own:
        return Task(f"method={method}", own[method], train_classifier)
    trained = [name for name in registry.names() if registry.entry(name).info.kind == "trained"]
    if method not in trained:
        known = [*own, *trained]
        raise UserError(unknown(f"method={method}", method, known, "network that can be trained alone", "choose from"))
    return Task(f"method={method}", ExplainerTraining, train_explainer)


def train_classifier(asked: ClassifierTraining, output: Path) -> None:
    """Train a classifier, or its surrogate, where the store has it not; say how good it is."""
    runtime, networks = _open(asked, output)
    written = networks.hand_over(asked.method, output)
    for images, accuracy in networks.validation_accuracy(asked.method).items():
        console.print(f"  validation accuracy, {images:<24} {accuracy:.3f}", highlight=False)
    say_end(runtime, f"[bold]{shown(written)}[/] is the {asked.method}")


def train_explainer(asked: ExplainerTraining, output: Path) -> None:
    """Train an explainer for a classifier, which is trained first where there is none.

    Raises:
        UserError: The explainer does not fit the classifier or the data set; said before anything is trained.
    """
    row = load_row(asked.method, asked.explainers)
    runtime, networks = _open(asked, output)
    prepared = _prepared(row, runtime, networks, asked.seed)
    written = _hand_over(runtime.store, prepared, output)
    networks.hand_over("classifier", output)
    found = ", ".join(shown(path) for path in written)
    say_end(runtime, f"[bold]{found}[/] is {escape(row.label)}, classifier.safetensors what it explains")


def _open(asked: ClassifierTraining, output: Path) -> tuple[Runtime, ClassifierStages]:
    data = open_data(asked.data, "data")
    runtime = open_runtime(asked, output, small=asked.model.embedded)
    say_heading(data.name, asked.model.name, seed=asked.seed)
    # A surrogate that nobody asks for is never made, so how it would be trained does not matter.
    surrogate = getattr(asked, "surrogate", None)
    return runtime, classifier_stages(runtime, asked.model, data, asked.classifier, surrogate, asked.seed)


def _prepared(row: Row, runtime: Runtime, networks: ClassifierStages, seed: int) -> Prepared:
    case = Case(runtime, explained(networks), networks.data, CaseParams("validation", None, _BLOCK), seed)
    if reason := refusal(row.entry, row.params, case):
        raise UserError(f"method={row.name}: {reason}")
    return row.entry.prepare(case, row.params)


def _hand_over(store: Store, prepared: Prepared, output: Path) -> list[Path]:
    """Copy the weights out of the artifacts that an explainer is made from; returns where they lie."""
    keys = list(prepared.made_from.values())
    named = [artifact.path for artifact in (*store.made, *store.found) if artifact.key in keys]
    files = [path for folder in named for path in sorted(folder.glob("*.safetensors"))]
    for path in files:
        write_atomically(output / path.name, partial(shutil.copyfile, path))
    return [output / path.name for path in files]
