"""Explainers that are trained: for a classifier, on images, to be used by name or as what comes back."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
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
from xai.models.named import of_torchvision
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
        model: Of `xai.load` or `xai.wrap`; a plain vision transformer or a convolutional network of timm, one of
            torchvision that timm has too, or a checkpoint of this framework.
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
    network = None if isinstance(model.source, Path) else _of_timm(model)
    shape = _shape(model, network)
    shipped = _training(shape)
    row = row_of(explainer, {**shipped.get("explainers", {}).get(explainer, {}), **settings}, {})
    with workplace(model.device) as runtime:
        given = {**_conf("method/surrogate")["surrogate"], **shipped.get("surrogate", {}), **(surrogate or {})}
        how = build(SurrogateParams, given, "surrogate")
        networks = _networks(model, network, shape, runtime, source, seed, how)
        case = case_of(runtime, model, source, targets="label", seed=seed)
        case = replace(case, model=replace(case.model, networks=networks))
        row.entry.check(case, row.params)
        prepared = row.entry.prepare(case, row.params)
        made = prepared.build()
    found = Ready(explainer, row.label, made, prepared.pick, model)
    model.fitted[explainer] = found
    return found


def _networks(
    model: Model,
    network: nn.Module | None,
    shape: NetworkParams,
    runtime: Runtime,
    source: InMemory,
    seed: int,
    surrogate: SurrogateParams,
) -> ClassifierStages:
    """What trains explainers of the model; the classifier itself is a file by now."""
    path = model.source
    if network is not None:
        path = runtime.store.root / _FILE
        files.write(path, network, describe(shape, "classifier", "images", model.classes))
    how = build(FitParams, _conf("method/classifier")["classifier"]["fit"], "classifier.fit")
    classifier = ClassifierParams(focus=0.0, fit=how, checkpoint=str(path))
    return classifier_stages(runtime, shape, source.opened, classifier, surrogate, seed)


def _of_timm(model: Model) -> nn.Module:
    """The model's network as timm builds it, which says of itself what it is; one of torchvision where timm has it too.

    Raises:
        UserError: It is somebody's own. What is trained goes on from layers of the classifier, which are found by the
            architecture's name, and is kept in a file that it is built from again.
    """
    network: nn.Module = model.source
    config = getattr(network, "pretrained_cfg", None) or {}
    if timm.is_model(config.get("architecture") or ""):
        return network
    if type(network).__module__.startswith("torchvision."):
        shapes = _shapes(network)
        for name in filter(timm.is_model, of_torchvision()):
            with torch.device("meta"):
                twin = timm.create_model(name, num_classes=len(model.classes))
            if _shapes(twin) == shapes and (found := _with_its_weights(name, network, model)) is not None:
                return found
    raise UserError(
        f"{model.name} is no network of timm, or not as it is there (output=, channels=, probabilities=): what is "
        "trained starts from layers that are known of those (xai.load(path, architecture=<timm's name>)) and of "
        "checkpoints of this framework; xai.explain has explainers for any network, such as kernel_shap"
    )


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items()}


@torch.no_grad()
def _with_its_weights(name: str, network: nn.Module, model: Model) -> nn.Module | None:
    """Timm's network of the name with the weights of torchvision's, where both say the same of an image."""
    twin = timm.create_model(name, num_classes=len(model.classes)).eval()
    twin.load_state_dict(network.state_dict())
    noise = torch.randn(1, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(0))
    return twin if torch.allclose(twin(noise), network(noise), rtol=1e-3, atol=1e-4) else None


def _shape(model: Model, network: nn.Module | None) -> NetworkParams:
    """The settings of a model, by what its file or its network says of itself.

    Raises:
        UserError: It is of no family that explainers are trained for.
    """
    if network is None:
        spec = files.read_spec(model.source)
        assert spec is not None
        if not isinstance(spec.model, NetworkParams):
            raise UserError(f"{model.name} is a CLIP: xai.fit trains explainers of classifiers of other families")
        return spec.model
    name: str = network.pretrained_cfg["architecture"]  # type: ignore[index, assignment]
    shape: dict[str, Any] = {"name": name, "image_size": model.image_size, "mean": model.mean, "std": model.std}
    if isinstance(network, VisionTransformer):
        return VitParams(**shape, patch_size=network.patch_embed.patch_size[0], architecture=name)
    down, across = model.network().grid
    if down != across:
        raise UserError(f"grid=({down}, {across}): explainers are trained for as many patches down as across")
    return CnnParams(**shape, patch_size=model.image_size // down, architecture=name, crop=model.crop)


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
