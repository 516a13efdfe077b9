"""Files of networks: safetensors that say all of themselves, one reader for them, and for those of earlier versions."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from torch import Tensor, nn

from xai.core.composing import CONF
from xai.core.errors import UserError
from xai.core.settings import build as build_settings
from xai.models.backbone import headless
from xai.models.clip import SelfExplainingClip
from xai.models.cnn import CnnParams, build_cnn, maskable_cnn
from xai.models.dense import DenseExplainer
from xai.models.explainer import ExplainerNetwork, SalvageNetwork, ShapleyNetwork
from xai.models.factory import ClipParams, build_clip, build_explainer
from xai.models.features import FrozenFeatures
from xai.models.maskable import MaskableClassifier, Removal
from xai.models.segmenter import build_decoder
from xai.models.spec import ModelSettings, Spec, describe
from xai.models.vit import VitParams, build_vit, maskable, outputs_of
from xai.models.weights import (
    load_weights,
    match_weights,
    printable,
    read_metadata,
    read_weights,
    without_prefix,
    write_weights,
)

KEY = "xai.file"
"""Where the metadata of a file hold its `Spec`, as JSON."""
_LONGEST = 2**24
# Settings that only one family has, among those in conf/model.
_TELLING: tuple[tuple[str, Any], ...] = (
    ("towers", ClipParams),
    ("random_weights", ClipParams),
    ("output_stride", CnnParams),
    ("binary", VitParams),
)


@dataclass(frozen=True)
class Network:
    """What a file holds, built.

    Attributes:
        spec: What it says of itself.
        network: A `MaskableClassifier` (of a CLIP a `SelfExplainingClip`), `ExplainerNetwork` or `DenseExplainer`.
        classifier: What that explains: itself, or the classifier beside it; None where the file holds none.
        parts: The modules that the tensors belong to, by what their names begin with.
    """

    spec: Spec
    network: nn.Module
    classifier: MaskableClassifier | None
    parts: Mapping[str, nn.Module]


def write(path: Path, networks: nn.Module | Mapping[str, nn.Module], spec: Spec) -> None:
    """Write a network, or several by name, as safetensors, atomically."""
    named = {"": networks} if isinstance(networks, nn.Module) else {f"{name}.": part for name, part in networks.items()}
    tensors = {f"{prefix}{key}": value for prefix, part in named.items() for key, value in part.state_dict().items()}
    write_weights(path, tensors, {KEY: spec.model_dump_json()})


def read(path: Path, params: ModelSettings | None = None) -> tuple[Spec | None, dict[str, Tensor]]:
    """What a file says of itself (None for one that others wrote), and its tensors.

    Args:
        path: The file.
        params: Settings of the model, for a file of an earlier version, which only names it; null takes the settings
            that are shipped under that name.

    Raises:
        UserError: It is missing, broken, executable, holds NaN, or says of itself what cannot be or is none of ours.
    """
    weights = read_weights(path, what="checkpoint", require_finite=True)
    return _said(path, weights.metadata, params), weights.tensors


def read_spec(path: Path, params: ModelSettings | None = None) -> Spec | None:
    """As `read`, without the tensors; None also for a file that cannot be read."""
    return _said(path, read_metadata(path), params)


def build(spec: Spec, removal: Removal | None = None) -> Network:
    """The network of a file with weights that mean nothing.

    Args:
        spec: What the file says of itself.
        removal: How patches are removed; null takes the file's way, or the family's.
    """
    params, classes, removal = spec.model.settings(), len(spec.classes), removal or _own_removal(spec)
    if isinstance(params, ClipParams):
        clip = build_clip(params)
        clip.logit_scale = nn.Parameter(torch.zeros((), device="cpu"))
        network = build_explainer(params, clip, torch.zeros(clip.visual.output_dim, classes), removal)
        return Network(spec, network, network, {"": network})
    outputs = outputs_of(classes, spec.binary)
    if spec.decoder is not None:
        assert isinstance(params, VitParams)
        made: type[ExplainerNetwork] = SalvageNetwork if spec.kind == "salvage" else ShapleyNetwork
        backbone, shape = build_vit(params, outputs, 0), spec.decoder
        scores = outputs * (2 if spec.kind == "salvage" else 1)
        decoder = build_decoder(shape.kind, backbone.embed_dim, scores, shape.depth, shape.heads)
        explainer = made(backbone, decoder, params.mean, params.std)
        return Network(spec, explainer, None, {"": explainer})
    classifier: Any
    if isinstance(params, CnnParams):
        classifier = maskable_cnn(params, build_cnn(params, outputs, 0), removal)
    else:
        classifier = maskable(params, build_vit(params, outputs, 0), removal)
    if spec.ranking is None:
        return Network(spec, classifier, classifier, {"": classifier.network})
    parts, seen, mean, std = {"classifier.": classifier.network}, classifier.network, params.mean, params.std
    if spec.ranking.backbone is not None:
        seen = headless(spec.ranking.backbone.architecture, params.image_size)
        parts["backbone."], mean, std = seen, spec.ranking.backbone.mean, spec.ranking.backbone.std
    features = FrozenFeatures(seen, spec.ranking.levels, mean, std, params.image_size)
    dense = DenseExplainer(features, spec.ranking.decoder.settings(), classes, classifier, params.mean)
    return Network(spec, dense, classifier, {**parts, "decoder.": dense.decoder})


def load(path: Path, params: ModelSettings | None = None, removal: Removal | None = None) -> Network:
    """A network of a file, frozen and in evaluation mode, with everything needed to ask it.

    What it would be is compared with the tensors that are there before any of it is allocated.

    Args:
        path: The file.
        params: As in `read`.
        removal: As in `build`.

    Raises:
        UserError: As `read`; it is none of our files, or its tensors are not those that it says.
    """
    spec, tensors = read(path, params)
    if spec is None:
        raise UserError(
            f"{path} says nothing of itself: give the classifier.safetensors of task=train method=classifier, the "
            "model.safetensors of study=vectors, the salvage.safetensors of task=train method=salvage or the "
            "ranking.safetensors of task=train method=ranking"
        )
    with torch.device("meta"):
        shell = build(spec, removal)
    what, name = f"checkpoint {path}", spec.model.name
    state = {
        f"{prefix}{key}": value for prefix, part in shell.parts.items() for key, value in part.state_dict().items()
    }
    tensors = match_weights(tensors, {key: value.shape for key, value in state.items()}, what=what, model=name)
    made = build(spec, removal)
    for prefix, part in made.parts.items():
        own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        load_weights(part, own, what=what, model=name)
    for network in filter(None, (made.network, made.classifier)):
        network.eval().requires_grad_(False)
    return made


def load_classifier(path: Path, params: ClipParams | None = None, removal: Removal | None = None) -> SelfExplainingClip:
    """As `load`, of a file that holds a CLIP.

    Raises:
        UserError: As `load`, and where it holds another network.
    """
    network = load(path, params, removal).network
    if not isinstance(network, SelfExplainingClip):
        raise UserError(f"{path} is no CLIP classifier: give the classifier.safetensors of a run of study=vectors")
    return network


def read_parameters(path: Path, params: ClipParams) -> tuple[dict[str, Tensor], Spec | None]:
    """The parameters theta (the visual tower) of a CLIP classifier: of ours, or of any open_clip checkpoint.

    Returns:
        The parameters, and what the file says of itself; None for a file that others wrote.

    Raises:
        UserError: As `read`; where the file is of another architecture, or has no visual tower.
    """
    spec, tensors = read(path, params)
    with torch.device("meta"):
        shell = build_clip(params).state_dict()
    expected = {name: value.shape for name, value in shell.items() if name.startswith("visual.")}
    tensors = without_prefix(tensors, expected)
    parameters = {name: value for name, value in tensors.items() if name.startswith("visual.")}
    if not parameters:
        raise UserError(f"{path} holds no visual tower (no tensor named visual.*): it is no open_clip checkpoint")
    return match_weights(parameters, expected, what=f"checkpoint {path}", model=params.name), spec


def shipped_settings(name: str) -> dict[str, Any]:
    """The settings in conf/model under a name; nothing where there are none."""
    # Looked up among those there are: a name out of a file makes no path.
    found = [path for path in (CONF / "model").glob("*.yaml") if path.stem == name]
    return dict(yaml.safe_load(found[0].read_text(encoding="utf-8"))) if found else {}


def _own_removal(spec: Spec) -> Removal | None:
    return None if spec.removal is None else spec.removal.settings()


def _said(path: Path, metadata: Mapping[str, str], params: ModelSettings | None) -> Spec | None:
    if "xai.vector" in metadata:
        raise UserError(
            f"{path} is an explainability vector, not a classifier: give it as vector=..., and a classifier here"
        )
    key = next((key for key in (KEY, *_EARLIER) if key in metadata), None)
    if key is None:
        return None
    text = metadata[key]
    try:
        if len(text) > _LONGEST:
            raise ValueError("it is too long")
        if key == KEY:
            return Spec.model_validate_json(text)
        said = json.loads(text)
        return _EARLIER[key](said, _settings_of(path, said["model"], params))
    except _UnknownError:
        raise
    except (ValidationError, ValueError, TypeError, KeyError, RecursionError, UserError) as error:
        why = printable(_reason(error))
        raise UserError(
            f"{path} was written by another version of this framework, or edited ({why}): train it again"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'metadata'}: {first['msg']}"
    return " ".join(str(error).split()) or type(error).__name__


class _UnknownError(UserError):
    """A file of an earlier version names a model that is not shipped."""


def _settings_of(path: Path, name: Any, params: ModelSettings | None) -> ModelSettings:
    """The settings of a model that a file of an earlier version only names."""
    if not isinstance(name, str):
        raise TypeError("model: a name is wanted")
    if params is not None and params.name == name:
        return params
    values = shipped_settings(name)
    if not values:
        raise _UnknownError(
            f"{path} is of model={printable(name)}, and was written when files did not say what that is: give its "
            "settings as model=..."
        )
    kind = next(kind for field, kind in _TELLING if field in values)
    made: ModelSettings = build_settings(kind, {key: value for key, value in values.items() if key != "pretraining"})
    return made


def _earlier_clip(said: dict[str, Any], params: ModelSettings) -> Spec:
    _check_keys(said, "model", "architecture", "base", "data", "classes", "explains")
    if not isinstance(said["explains"], bool):
        raise TypeError("explains: true or false is wanted")
    kind = "self_explaining" if said["explains"] else "classifier"
    return describe(params, kind, said["data"], _listed(said["classes"]), base=said["base"])


def _earlier_vit(said: dict[str, Any], params: ModelSettings) -> Spec:
    _check_keys(said, "kind", "model", "data", "classes", "binary", "decoder", "decoder_depth", "decoder_heads")
    shape = {"kind": said["decoder"], "depth": said["decoder_depth"], "heads": said["decoder_heads"]}
    _check_binary(said, params)
    return describe(
        params, said["kind"], said["data"], _listed(said["classes"]), decoder=shape if said["decoder"] else None
    )


def _earlier_ranking(said: dict[str, Any], params: ModelSettings) -> Spec:
    _check_keys(said, "model", "data", "classes", "binary", "backbone", "mean", "std", "levels", "decoder")
    channels = {"mean": _listed(said["mean"]), "std": _listed(said["std"])}
    backbone = {"architecture": said["backbone"], **channels} if said["backbone"] else None
    decoder = {**said["decoder"], "resize": _listed(said["decoder"]["resize"])}
    ranking = {"levels": _listed(said["levels"]), "decoder": decoder, "backbone": backbone}
    _check_binary(said, params)
    return describe(params, "ranking", said["data"], _listed(said["classes"]), ranking=ranking)


_EARLIER: dict[str, Any] = {"xai.classifier": _earlier_clip, "xai.vit": _earlier_vit, "xai.ranking": _earlier_ranking}
"""Readers of what earlier versions wrote, by the key of the metadata."""


def _check_keys(said: Any, *names: str) -> None:
    if set(said) != set(names):
        raise ValueError(f"its keys are not {', '.join(names)}")


def _check_binary(said: dict[str, Any], params: ModelSettings) -> None:
    if said["binary"] is not getattr(params, "binary", False):
        raise ValueError(f"binary={said['binary']}, unlike model={params.name}")


def _listed(values: Any) -> tuple[Any, ...]:
    if not isinstance(values, list):
        raise TypeError("a list is wanted")
    return tuple(values)
