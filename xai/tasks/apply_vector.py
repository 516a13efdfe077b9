"""`task=apply_vector`: any compatible classifier receives its explanations, without training."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xai import vectors
from xai.classifiers.clip import check_classes
from xai.core.common import Common
from xai.core.errors import UserError
from xai.core.folders import shown
from xai.core.progress import console
from xai.core.runtime import Runtime, open_runtime
from xai.core.settings import FieldError, settings
from xai.data.catalogue import OpenData, open_data
from xai.data.module import Batch, in_order
from xai.metrics.streaming import torchmetric
from xai.models import files
from xai.models.clip import SelfExplainingClip, load_parameters, trainable
from xai.models.explainer import column
from xai.models.factory import build_explainer
from xai.models.spec import Spec, describe
from xai.models.weights import architecture_hash
from xai.papers.vectors import base as base_stage
from xai.papers.vectors.base import ModelParams
from xai.papers.vectors.transfer import Factor, transferred
from xai.tasks.registry import Task

log = logging.getLogger(__name__)

_BATCH = 128
"""Images a pass, and in memory at a time."""


@settings
class ApplyParams:
    """Equation 8's factors.

    Args:
        lambda1: Of the classifier's own task vector; other values than 1 need the base weights.
        lambda2: Of the explainability vector.
        again: Whether a classifier that explains itself already may be given one more.
    """

    lambda1: Factor
    lambda2: Factor
    again: bool = False


@settings
class ApplySettings(Common):
    """Settings of task=apply_vector.

    Args:
        model: The classifier's architecture.
        data: Its data set, by which it is measured before and after.
        vector: File of the explainability vector.
        checkpoint: File of the classifier.
        apply_vector: How much of each.
    """

    model: ModelParams
    data: Any
    vector: str
    checkpoint: str | None
    apply_vector: ApplyParams

    def __post_init__(self) -> None:
        """Refuse to go on without a classifier."""
        if self.checkpoint is None:
            raise FieldError("checkpoint", "must be the file of the classifier: give checkpoint=FILE")


@dataclass(frozen=True)
class Applied:
    """The file of the explained classifier, and its metrics on the test split before and after."""

    file: Path
    before: dict[str, float]
    after: dict[str, float]


def run(asked: ApplySettings, output: Path) -> None:
    """Apply the vector, and say what it changed."""
    runtime = open_runtime(asked, output, small=asked.model.embedded)
    applied = apply_vector(asked, runtime, open_data(asked.data, "data"), output)
    for name, before in applied.before.items():
        console.print(f"  {name:<14} {before:.3f} -> {applied.after[name]:.3f}", highlight=False)
    file = shown(applied.file)
    console.print(f"[bold]{file}[/] now explains itself; a picture of yours:", highlight=False)
    console.print(f"python run.py task=explain checkpoint={file} image=photo.png", highlight=False, soft_wrap=True)


def apply_vector(asked: ApplySettings, runtime: Runtime, data: OpenData, output: Path) -> Applied:
    """Add an explainability vector to a classifier and write `model.safetensors` into `output`.

    Raises:
        UserError: For a vector or checkpoint that is broken, holds NaN, or belongs to another architecture or base.
    """
    model, params, checkpoint = asked.model, asked.apply_vector, Path(str(asked.checkpoint))
    if not len(data.source.labels("test")):
        raise UserError(f"the test split of data={data.name} has no images to measure on: give another data set")
    tau, vector_info = vectors.load_vector(Path(asked.vector))
    theta, info = files.read_parameters(checkpoint, model)
    warning = vectors.check_compatible(
        vector_info,
        tau,
        model=model.name,
        architecture=architecture_hash(theta),
        base=(info.made_by.base or None) if info else None,
        parameters=theta,
    )
    if warning:
        log.warning("%s", warning)
    network = _network(asked, runtime, data, info)
    if info and info.explains and not params.again:
        raise UserError(
            f"{checkpoint} explains itself already: give the classifier without a vector, or apply_vector.again=true, "
            "which adds this one on top"
        )
    explained = vectors.apply(theta, [(params.lambda2, tau)])
    if params.lambda1 != 1:
        base = base_stage.load(model, base_stage.base_weights(runtime, model, asked.seed))
        if base.fingerprint != vector_info.base:
            raise UserError(
                f"lambda1={params.lambda1} needs the base weights the vector was made from; "
                f"model={model.name} seed={asked.seed} has others"
            )
        explained = transferred(base.theta, theta, tau, params.lambda1, params.lambda2)
    batches = in_order(data.source, "test", model.image_size, _BATCH, runtime.trainer.workers)
    metrics = [_measure(runtime, network, parameters, batches) for parameters in (theta, explained)]
    # Nobody knows the base of another's file, and the vector's would be a guess that passes for knowledge later.
    spec = describe(model, "self_explaining", data, data.source.classes)
    if info:
        spec = spec.model_copy(update={"data": info.data, "square": info.square, "made_by": info.made_by})
    file = output / "model.safetensors"
    files.write(file, network, spec)
    return Applied(file, *metrics)


def _network(asked: ApplySettings, runtime: Runtime, data: OpenData, info: Spec | None) -> SelfExplainingClip:
    """The classifier's architecture with its class embeddings: its own, or those of the data set's names."""
    model, checkpoint = asked.model, Path(str(asked.checkpoint))
    if info is None:
        base = base_stage.load(model, base_stage.base_weights(runtime, model, asked.seed))
        _, head = base_stage.head(runtime, model, base, data)
        return build_explainer(model, base.clip, head, copied=True).requires_grad_(False)
    check_classes(checkpoint, info.classes, info.data, data)
    return files.load_classifier(checkpoint, model)


def _measure(
    runtime: Runtime, network: SelfExplainingClip, theta: dict[str, Tensor], batches: Iterable[Batch]
) -> dict[str, float]:
    """Accuracy, and where the objects are known how the maps of the true classes fit them."""
    load_parameters(network, theta)
    assert set(trainable(network)) == set(theta)
    network.to(runtime.trainer.device).eval()
    accuracy, placed = torchmetric("accuracy"), {name: torchmetric(name) for name in ("rma", "pointing_game")}
    located = False
    for batch in batches:
        with torch.inference_mode():
            logits, attributions = (
                each.float().cpu() for each in network.explain(batch.pixels.to(network.head.device))
            )
        accuracy.update(logits=logits, labels=batch.labels)
        if batch.regions is not None:
            located = True
            maps = column(attributions, batch.labels).reshape(-1, *network.grid)
            for metric in placed.values():
                metric.update(maps=maps, regions=batch.regions)
    network.cpu()
    measured = {"accuracy": accuracy} | (placed if located else {})
    return {name: float(metric.compute()) for name, metric in measured.items()}


TASK = Task("task=apply_vector", ApplySettings, run)
