"""Explainers that are trained: for a classifier, on images, to be used by name or as what comes back."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import yaml
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from xai.api.case import InMemory, case_of, row_of, workplace
from xai.api.model import Model, check_model
from xai.api.ready import Ready
from xai.classifiers.networks import ClassifierStages
from xai.classifiers.params import ClassifierParams, SurrogateParams
from xai.core.composing import CONF
from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.core.runtime import Runtime
from xai.core.settings import build
from xai.models import files
from xai.models.cnn import CnnParams
from xai.models.families import NetworkParams
from xai.models.spec import describe
from xai.models.vit import VitParams
from xai.papers.families import classifier_stages

_FILE = "given.safetensors"
_PRETRAINED = "training/vit_b14_dinov2"
"""The settings of SALVAGE's paper for vision transformers that come pre-trained."""


def fit(
    explainer: str,
    model: Model,
    images: Any,
    labels: Any = None,
    *,
    normalised: bool = False,
    seed: int = 0,
    surrogate: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Ready:
    """Train an explainer of a model on images: what their parts make the classifier say.

    Args:
        explainer: A trained one: `salvage`, `vit_shapley` (both for vision transformers), `fast_shap` (for CNNs),
            `ranking`.
        model: Of `xai.load` or `xai.wrap`; a plain vision transformer or a convolutional network of timm, or a
            checkpoint of this framework.
        images: What it learns from: pictures (PIL, or paths), uint8, or floats [N, 3, H, W] in [0, 1].
        labels: Their classes, numbers or names; None takes what the model predicts.
        normalised: Whether the floats have been normalised as the model does, which is undone.
        seed: Of all that is drawn.
        surrogate: Settings of the fine-tuning on masked images that comes first, instead of conf/method/surrogate.yaml.
        settings: Of the explainer, instead of those of conf/explainer.

    Returns:
        The explainer. `model.fitted` has it by its name, so that `xai.explain(model, images, "salvage")` finds it.

    Raises:
        UserError: It cannot be trained for this model; in one line, before anything is trained.
    """
    check_model(model)
    pixels = model.pixels(images, normalised=normalised)
    source = InMemory(model.classes, pixels, model.targets(labels, pixels))
    kind = row_of(explainer, {}, {}).entry.info.kind
    if kind != "trained":
        raise UserError(f"{explainer} is {kind} and learns nothing: use xai.explain(model, images, ...)")
    shape = _shape(model)
    shipped = _training(shape)
    row = row_of(explainer, {**shipped.get("explainers", {}).get(explainer, {}), **settings}, {})
    with workplace(model.device) as runtime:
        given = {**_conf("method/surrogate")["surrogate"], **shipped.get("surrogate", {}), **(surrogate or {})}
        networks = _networks(model, shape, runtime, source, seed, build(SurrogateParams, given, "surrogate"))
        case = case_of(runtime, model, source, targets="label", seed=seed)
        case = replace(case, model=replace(case.model, networks=networks))
        row.entry.check(case, row.params)
        prepared = row.entry.prepare(case, row.params)
        made = prepared.build()
    found = Ready(explainer, row.label, made, prepared.pick, model)
    model.fitted[explainer] = found
    return found


def _networks(
    model: Model, shape: NetworkParams, runtime: Runtime, source: InMemory, seed: int, surrogate: SurrogateParams
) -> ClassifierStages:
    """What trains explainers of the model; the classifier itself is a file by now."""
    path = model.source
    if not isinstance(path, Path):
        path = runtime.store.root / _FILE
        files.write(path, model.source, describe(shape, "classifier", "images", model.classes))
    how = build(FitParams, _conf("method/classifier")["classifier"]["fit"], "classifier.fit")
    classifier = ClassifierParams(focus=0.0, fit=how, checkpoint=str(path))
    return classifier_stages(runtime, shape, source.opened, classifier, surrogate, seed)


def _shape(model: Model) -> NetworkParams:
    """The settings of a model, by what its file or its network says of itself.

    Raises:
        UserError: It is of no family that explainers are trained for.
    """
    if isinstance(model.source, Path):
        spec = files.read_spec(model.source)
        assert spec is not None
        if not isinstance(spec.model, NetworkParams):
            raise UserError(f"{model.name} is a CLIP: xai.fit trains explainers of classifiers of other families")
        return spec.model
    network: nn.Module = model.source
    config = getattr(network, "pretrained_cfg", None) or {}
    architecture = config.get("architecture") or ""
    if not timm.is_model(architecture):
        raise UserError(
            f"{model.name} is no network of timm: explainers are trained for those (xai.load(path, "
            "architecture=<timm's name>)), and for the checkpoints of this framework"
        )
    shape: dict[str, Any] = {"name": architecture, "image_size": model.image_size, "mean": model.mean, "std": model.std}
    if isinstance(network, VisionTransformer):
        return VitParams(**shape, patch_size=network.patch_embed.patch_size[0], architecture=architecture)
    down, _ = model.network().grid
    return CnnParams(**shape, patch_size=model.image_size // down, architecture=architecture, crop=model.crop)


def _training(shape: NetworkParams) -> dict[str, Any]:
    """How explainers of a large network are trained, where that is not what small ones need."""
    if not isinstance(shape, VitParams) or shape.embedded:
        return {}
    found = _conf(_PRETRAINED)
    for each in found["explainers"].values():
        each["heads"] = shape.build(2).blocks[0].attn.num_heads  # type: ignore[union-attr]
    return found


def _conf(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    return found
