"""The file a classifier lives in: visual tower, class embeddings, and in its metadata what it is."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from xai.core.errors import UserError
from xai.core.settings import build
from xai.models.clip import SelfExplainingClip, load_parameters, trainable
from xai.models.factory import ClipParams, build_clip, build_explainer
from xai.models.maskable import Removal
from xai.models.weights import match_weights, read_weights, write_weights

_KEY = "xai.classifier"


@dataclass(frozen=True)
class ClassifierInfo:
    """What a classifier file says of itself.

    Args:
        model: Name of the model configuration.
        architecture: Hash of the names and shapes of its parameters.
        base: Fingerprint of the base weights it was fine-tuned from; empty if nobody knows.
        data: Data set it was fine-tuned on.
        classes: Its C class names.
        explains: Whether it has learned, or been given, explanations.
    """

    model: str
    architecture: str
    base: str
    data: str
    classes: tuple[str, ...]
    explains: bool


def architecture_hash(parameters: Mapping[str, Tensor]) -> str:
    """Sixteen hexadecimal digits that two models share when their parameters have the same names and shapes."""
    shapes = sorted((name, list(value.shape)) for name, value in parameters.items())
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16]


def write_classifier(path: Path, model: SelfExplainingClip, info: ClassifierInfo) -> None:
    """Write a classifier as safetensors, atomically."""
    tensors = {**trainable(model), "head": model.head, "logit_scale": model.logit_scale}
    write_weights(path, tensors, {_KEY: json.dumps(asdict(info), sort_keys=True)})


def read_parameters(path: Path, params: ClipParams) -> tuple[dict[str, Tensor], ClassifierInfo | None]:
    """Read the parameters theta (the visual tower) of a classifier.

    Takes what this framework wrote, and any open_clip checkpoint of the architecture.

    Returns:
        The parameters, and what the file says of itself; None for a file that others wrote.

    Raises:
        UserError: Where the file is missing, broken, executable, of another architecture, or holds NaN.
    """
    weights = read_weights(path, what="checkpoint", require_finite=True)
    if "xai.vector" in weights.metadata:
        raise UserError(
            f"{path} is an explainability vector, not a classifier: give it as vector=..., and a classifier here"
        )
    info = _info(path, weights.metadata)
    parameters = {name: value for name, value in weights.tensors.items() if name.startswith("visual.")}
    if not parameters:
        raise UserError(f"{path} holds no visual tower (no tensor named visual.*): it is no open_clip checkpoint")
    expected = {
        name: value.shape for name, value in build_clip(params).state_dict().items() if name.startswith("visual.")
    }
    match_weights(parameters, expected, what=f"checkpoint {path}", model=params.name)
    return parameters, info


def read_classifier(
    path: Path, params: ClipParams, removal: Removal | None = None
) -> tuple[SelfExplainingClip, ClassifierInfo]:
    """Read a classifier this framework wrote, ready to predict and explain.

    Raises:
        UserError: As `read_parameters` does, and where the file does not say which classes it tells apart.
    """
    parameters, info = read_parameters(path, params)
    tensors = read_weights(path, what="checkpoint").tensors
    if info is None or "head" not in tensors or "logit_scale" not in tensors:
        raise UserError(
            f"{path} does not say which classes it tells apart: task=apply_vector with its data set "
            "writes a model.safetensors that does"
        )
    clip = build_clip(params)
    head = tensors["head"]
    if head.shape != (clip.visual.output_dim, len(info.classes)):
        raise UserError(f"{path} has a head of shape {list(head.shape)}, but names {len(info.classes)} classes")
    if tensors["logit_scale"].ndim:
        raise UserError(
            f"{path} has a logit_scale of shape {list(tensors['logit_scale'].shape)}: it is a single number"
        )
    model = build_explainer(params, clip, head.float(), removal)
    model.logit_scale.copy_(tensors["logit_scale"])
    load_parameters(model, parameters)
    return model.eval().requires_grad_(False), info


def _info(path: Path, metadata: Mapping[str, str]) -> ClassifierInfo | None:
    if _KEY not in metadata:
        return None
    try:
        fields = json.loads(metadata[_KEY])
        return build(ClassifierInfo, fields)
    except (ValueError, RecursionError, UserError) as error:
        raise UserError(
            f"{path} was written by another version of this framework, or edited: its metadata cannot be read"
        ) from error
