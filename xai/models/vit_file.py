"""The file a ViT or a CNN of this framework lives in: classifier, surrogate or explainer, and what it is."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from xai.core.errors import UserError
from xai.core.settings import build
from xai.models.weights import Weights, match_weights, read_weights, write_weights

KINDS = ("classifier", "surrogate", "salvage", "vit_shapley")
_KEY = "xai.vit"

Info = TypeVar("Info")


@dataclass(frozen=True)
class VitInfo:
    """What a file says of itself.

    Args:
        kind: One of `KINDS`.
        model: Name of the model configuration.
        data: Data set it was trained on.
        classes: Its C class names.
        binary: Whether one logit with a sigmoid stands for two classes.
        decoder: Of an explainer, by name; empty for a classifier.
        decoder_depth: Its blocks.
        decoder_heads: Attention heads of one of them.
    """

    kind: str
    model: str
    data: str
    classes: tuple[str, ...]
    binary: bool
    decoder: str = ""
    decoder_depth: int = 0
    decoder_heads: int = 0

    def __post_init__(self) -> None:
        """Refuse a kind that nothing here writes."""
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} is unknown: use one of {', '.join(KINDS)}")


def write_vit(path: Path, network: nn.Module, info: VitInfo) -> None:
    """Write a network as safetensors, atomically."""
    write_weights(path, network.state_dict(), {_KEY: json.dumps(asdict(info), sort_keys=True)})


def read_vit(path: Path) -> tuple[dict[str, Tensor], VitInfo | None]:
    """The tensors of a file, and what it says of itself; None for one that others wrote.

    Raises:
        UserError: Where the file is missing, broken, executable, holds NaN, or says of itself what cannot be read.
    """
    weights = read_weights(path, what="checkpoint", require_finite=True)
    return weights.tensors, vit_info(weights, path)


def vit_info(weights: Weights, path: Path) -> VitInfo | None:
    """What the file at `path` says of itself; None for one that others wrote."""
    return described(weights, path, _KEY, VitInfo)


def described(weights: Weights, path: Path, key: str, kind: type[Info]) -> Info | None:
    """What the metadata of a file say under a key; None where they say nothing there.

    Raises:
        UserError: What they say cannot be read.
    """
    if key not in weights.metadata:
        return None
    try:
        return build(kind, json.loads(weights.metadata[key]))
    except (ValueError, RecursionError, UserError) as error:
        raise UserError(f"{path} was written by another version of this framework, or edited") from error


def load_vit(network: nn.Module, tensors: Mapping[str, Tensor], what: str, model: str) -> None:
    """Load tensors into a network of the same architecture.

    Raises:
        UserError: Where names or shapes differ; the line names the first that does.
    """
    expected = {name: value.shape for name, value in network.state_dict().items()}
    match_weights(dict(tensors), expected, what=what, model=model)
    network.load_state_dict(dict(tensors))
