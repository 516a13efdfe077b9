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
from xai.models.backbone import headless
from xai.models.clip import SelfExplainingClip, visual_tower
from xai.models.dense import DenseExplainer
from xai.models.explainer import vit_explainer
from xai.models.factory import ClipParams, build_clip, build_explainer
from xai.models.families import Geometry, NetworkParams, named, open_model, seeded
from xai.models.features import FrozenFeatures
from xai.models.maskable import MaskableClassifier, Removal
from xai.models.spec import Spec, said_of
from xai.models.unet import FastShapNetwork
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


@dataclass(frozen=True)
class Network:
    """What a file holds, built.

    Attributes:
        spec: What it says of itself.
        network: A `MaskableClassifier` (of a CLIP a `SelfExplainingClip`), `ExplainerNetwork`, `FastShapNetwork` or
            `DenseExplainer`.
        classifier: What that explains: itself, or the classifier beside it; None where the file holds none.
        parts: The modules that the tensors belong to, by what their names begin with.
    """

    spec: Spec
    network: nn.Module
    classifier: MaskableClassifier | None
    parts: Mapping[str, nn.Module]


def write(path: Path, networks: nn.Module | Mapping[str, nn.Module], spec: Spec) -> None:
    """Write a network, or several by name, as safetensors, atomically."""
    parts = {"": networks} if isinstance(networks, nn.Module) else {f"{name}.": part for name, part in networks.items()}
    write_weights(path, _state(parts), {KEY: spec.model_dump_json()})


def _state(parts: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The tensors of modules, by what the names of each begin with."""
    return {f"{prefix}{key}": value for prefix, part in parts.items() for key, value in part.state_dict().items()}


def read(path: Path, params: Geometry | None = None) -> tuple[Spec | None, dict[str, Tensor]]:
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


def held(path: Path, params: Geometry | None = None) -> tuple[Spec, dict[str, Tensor]]:
    """As `read`, of a file of ours, in memory: the file may be another one when its network is asked for again.

    Raises:
        UserError: As `read`; it is none of our files.
    """
    spec, tensors = _of_ours(path, params)
    return spec, {name: value.clone() for name, value in tensors.items()}


def read_spec(path: Path, params: Geometry | None = None) -> Spec | None:
    """As `read`, without the tensors; None also for a file that cannot be read."""
    return _said(path, read_metadata(path), params)


def build(spec: Spec, removal: Removal | None = None) -> Network:
    """The network of a file with weights that mean nothing; patches are removed in the file's way, or the family's."""
    params, classes, removal = spec.model, len(spec.classes), removal or spec.removal
    if isinstance(params, ClipParams):
        clip = build_clip(params)
        clip.logit_scale = nn.Parameter(torch.zeros((), device="cpu"))
        network = build_explainer(params, clip, torch.zeros(clip.visual.output_dim, classes), removal)
        return Network(spec, network, network, {"": network})
    assert isinstance(params, NetworkParams)
    outputs = params.outputs(classes)
    inner: Any = params.build(outputs, 0)
    if spec.decoder is not None:
        explainer = vit_explainer(spec.kind, inner, outputs, params.mean, params.std, spec.decoder)
        return Network(spec, explainer, None, {"": explainer})
    if spec.unet is not None:
        grid, size = (params.grid, params.grid), params.image_size
        values = FastShapNetwork(inner, spec.unet.width, outputs, grid, size, params.mean, params.std)
        return Network(spec, values, None, {"": values})
    classifier = params.maskable(inner, removal)
    if spec.ranking is None:
        return Network(spec, classifier, classifier, {"": inner})
    parts, seen, mean, std = {"classifier.": inner}, inner, params.mean, params.std
    if spec.ranking.backbone is not None:
        seen = headless(spec.ranking.backbone.architecture, params.image_size)
        parts["backbone."], mean, std = seen, spec.ranking.backbone.mean, spec.ranking.backbone.std
    features = FrozenFeatures(seen, spec.ranking.levels, mean, std, params.image_size)
    dense = DenseExplainer(features, spec.ranking.decoder, classes, classifier, params.mean)
    return Network(spec, dense, classifier, {**parts, "decoder.": dense.decoder})


def load(path: Path, params: Geometry | None = None, removal: Removal | None = None) -> Network:
    """A network of a file, frozen and in evaluation mode, with everything needed to ask it.

    What it would be is compared with the tensors that are there before any of it is allocated.

    Raises:
        UserError: As `read`; it is none of our files, or its tensors are not those that it says.
    """
    spec, tensors = _of_ours(path, params)
    return filled(spec, tensors, f"checkpoint {path}", removal)


def _of_ours(path: Path, params: Geometry | None) -> tuple[Spec, dict[str, Tensor]]:
    spec, tensors = read(path, params)
    if spec is None:
        raise UserError(
            f"{path} says nothing of itself: give a file that this framework wrote; of weights of timm or torchvision "
            "task=explain and task=compare are told model.architecture=NAME, and no other model"
        )
    return spec, tensors


def filled(spec: Spec, tensors: Mapping[str, Tensor], what: str, removal: Removal | None = None) -> Network:
    """The network of a file that has been read, as `load` gives it; UserError: the tensors are not those it says."""
    with torch.device("meta"):
        shell = build(spec, removal)
    name = spec.model.name
    expected = {key: value.shape for key, value in _state(shell.parts).items()}
    tensors = match_weights(tensors, expected, what=what, model=name)
    with seeded(0):
        made = build(spec, removal)
    for prefix, part in made.parts.items():
        own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        load_weights(part, own, what=what, model=name)
    for network in filter(None, (made.network, made.classifier)):
        network.eval().requires_grad_(False)
    return made


def load_classifier(path: Path, params: ClipParams | None = None) -> SelfExplainingClip:
    """As `load`, of a file that holds a CLIP; UserError as `load`, and where it holds another network."""
    network = load(path, params).network
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
    expected = {name: value.shape for name, value in visual_tower(shell).items()}
    parameters = visual_tower(without_prefix(tensors, expected))
    if not parameters:
        raise UserError(f"{path} holds no visual tower (no tensor named visual.*): it is no open_clip checkpoint")
    return match_weights(parameters, expected, what=f"checkpoint {path}", model=params.name), spec


def shipped_settings(name: str) -> dict[str, Any]:
    """The settings in conf/model under a name; nothing where there are none."""
    # Looked up among those there are: a name out of a file makes no path.
    found = [path for path in (CONF / "model").glob("*.yaml") if path.stem == name]
    return dict(yaml.safe_load(found[0].read_text(encoding="utf-8"))) if found else {}


def _said(path: Path, metadata: Mapping[str, str], params: Geometry | None) -> Spec | None:
    if "xai.vector" in metadata:
        raise UserError(
            f"{path} is an explainability vector, not a classifier: give it as vector=..., and a classifier here"
        )
    key = next((key for key in (KEY, *_EARLIER) if key in metadata), None)
    if key is None:
        return None
    try:
        if len(metadata[key]) > _LONGEST:
            raise ValueError("it is too long")
        if key == KEY:
            _check_family(path, metadata[key])
            return Spec.model_validate_json(metadata[key])
        said = json.loads(metadata[key])
        if set(said) != set(_EARLIER[key]):
            raise ValueError(f"its keys are not {', '.join(_EARLIER[key])}")
        return _earlier(said, _settings_of(path, said["model"], params))
    except _UnknownError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, UserError) as error:
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
    """A file is of a model that is not shipped, or of a family that nobody has registered."""


def _check_family(path: Path, text: str) -> None:
    """Refuse a file of a family that nobody has registered."""
    model = json.loads(text).get("model")
    family = model.get("family") if isinstance(model, dict) else None
    if isinstance(family, str):
        try:
            named(family)
        except UserError as error:
            raise _UnknownError(f"{path} cannot be read here: {error}") from None


def _settings_of(path: Path, name: Any, params: Geometry | None) -> Geometry:
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
    return open_model({key: value for key, value in values.items() if key != "pretraining"})


_COMMON = ("model", "data", "classes")
_EARLIER = {
    "xai.classifier": (*_COMMON, "architecture", "base", "explains"),
    "xai.vit": (*_COMMON, "kind", "binary", "decoder", "decoder_depth", "decoder_heads"),
    "xai.ranking": (*_COMMON, "binary", "backbone", "mean", "std", "levels", "decoder"),
}
"""What earlier versions wrote, by the key of the metadata."""


def _earlier(said: dict[str, Any], params: Geometry) -> Spec:
    """What a file of an earlier version says: of a CLIP (`explains`), of a ranking explainer (`levels`), of a ViT."""
    if said.get("binary", False) is not getattr(params, "binary", False):
        raise ValueError(f"binary={said['binary']}, unlike model={params.name}")
    values: dict[str, Any] = {"data": said["data"], "classes": said["classes"]}
    if "explains" in said:
        kind = {True: "self_explaining", False: "classifier"}[said["explains"]]
        values |= {"kind": kind, "made_by": {"base": said["base"]}}
    elif "levels" in said:
        backbone = {"architecture": said["backbone"], "mean": said["mean"], "std": said["std"]}
        seen = backbone if said["backbone"] else None
        ranking = {"levels": said["levels"], "decoder": said["decoder"], "backbone": seen}
        values |= {"kind": "ranking", "ranking": ranking}
    else:
        shape = {"kind": said["decoder"], "depth": said["decoder_depth"], "heads": said["decoder_heads"]}
        values |= {"kind": said["kind"], "decoder": shape if said["decoder"] else None}
    return Spec.model_validate_json(json.dumps({**values, "model": said_of(params)}))
