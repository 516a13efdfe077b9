"""The file an explainer of Learn to Rank lives in, together with the classifier that it explains."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor, nn

from xai.models.dpt import DecoderParams
from xai.models.vit_file import described
from xai.models.weights import Weights, read_weights, write_weights

_KEY = "xai.ranking"


@dataclass(frozen=True)
class RankingInfo:
    """What a file says of itself.

    Args:
        model: Name of the model configuration of the classifier.
        data: Data set it was trained on.
        classes: Its C class names.
        binary: Whether one logit with a sigmoid stands for two classes.
        backbone: timm's name of what the explainer looks through; empty where that is the classifier itself.
        mean: Channel means of the backbone's input normalisation.
        std: Channel deviations of it.
        levels: Its feature levels.
        decoder: Shape of the decoder.
    """

    model: str
    data: str
    classes: tuple[str, ...]
    binary: bool
    backbone: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    levels: tuple[int, ...]
    decoder: DecoderParams


def write_ranking(path: Path, networks: Mapping[str, nn.Module], info: RankingInfo) -> None:
    """Write networks as safetensors, atomically; their tensors are found again under the names of the networks."""
    tensors = {f"{name}.{key}": value for name, part in networks.items() for key, value in part.state_dict().items()}
    write_weights(path, tensors, {_KEY: json.dumps(asdict(info), sort_keys=True)})


def read_ranking(path: Path) -> tuple[dict[str, Tensor], RankingInfo | None]:
    """The tensors of a file, and what it says of itself; None for any other file of weights.

    Raises:
        UserError: Where the file is missing, broken, executable, holds NaN, or says of itself what cannot be read.
    """
    weights = read_weights(path, what="checkpoint", require_finite=True)
    return weights.tensors, ranking_info(weights, path)


def ranking_info(weights: Weights, path: Path) -> RankingInfo | None:
    """What the file at `path` says of itself; None for any other file of weights."""
    return described(weights, path, _KEY, RankingInfo)


def part_of(tensors: Mapping[str, Tensor], network: str) -> dict[str, Tensor]:
    """The tensors of one network of a file."""
    prefix = f"{network}."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
