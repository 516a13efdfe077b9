"""Convolutional networks of timm from their configuration: trained here, or published and taken as they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import timm
from pydantic import Field
from torch import Tensor, nn

from xai.core.errors import UserError
from xai.core.settings import FieldError, settings
from xai.data.images import side_of
from xai.models.backbone import body_of, not_fetched
from xai.models.cnn_packages import check_package, package_file, package_weights
from xai.models.families import NetworkParams, published_classes, seeded
from xai.models.geometry import Text, check_architecture
from xai.models.maskable import MaskableClassifier, Removal, of_ours
from xai.models.weights import load_weights, read_weights

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
        package: A Python package that ships its weights, by the name in `xai.models.cnn_packages`.
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
        if self.package is not None:
            check_package(self.package, self.architecture)

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

    @property
    def resized(self) -> int:
        """What the short side of a photograph is resized to before its middle is cut out."""
        return side_of(self.image_size, self.crop)

    def build(self, outputs: int, seed: int = 0) -> nn.Module:
        """See `build_cnn`."""
        return build_cnn(self, outputs, seed)

    def maskable(self, network: Any, removal: Removal | None = None) -> MaskableClassifier:
        """A network that is painted over; timm's may be run by several threads."""
        return of_ours(super().maskable(network, removal))

    def start(self, outputs: int, seed: int = 0) -> nn.Module:
        """The network with published weights, except for its head; with random ones where there are none."""
        network = build_cnn(self, outputs, seed)
        if not self.embedded:
            weights = published_weights(self)
            network.load_state_dict(body_of(network, weights, what=f"weights {_source(self)}", model=self.name))
        return network

    def is_published_for(self, classes: Sequence[str]) -> bool:
        """Whether there are published weights, and these are the classes that published networks know."""
        return not self.embedded and tuple(classes) == published_classes()

    def published(self, outputs: int) -> nn.Module:
        """See `published_cnn`."""
        return published_cnn(self)


def build_cnn(params: CnnParams, outputs: int, seed: int) -> nn.Module:
    """Build a convolutional network with random weights.

    Raises:
        UserError: For a transformer, or settings that timm cannot build.
    """
    network = _of_timm(params, seed, num_classes=outputs)
    if hasattr(network, "patch_embed"):
        raise UserError(
            f"model.architecture={params.architecture} is a {type(network).__name__}, a transformer and no "
            f"convolutional network: use {_VITS}, and give it this architecture"
        )
    return network


def published_weights(params: CnnParams) -> dict[str, Tensor]:
    """The tensors that a model's weights are, head included, by timm's names.

    Raises:
        UserError: They cannot be read or fetched.
    """
    if params.package is not None:
        return package_weights(params.package)
    if params.weights is not None:
        return read_weights(Path(params.weights), what="weights", require_finite=True).tensors
    return _of_timm(params, 0, pretrained=True).state_dict()


def published_cnn(params: CnnParams) -> nn.Module:
    """A network as it was published, its head included.

    Raises:
        UserError: There are no weights, or they do not fit: of another architecture, or of other classes.
    """
    network = build_cnn(params, len(published_classes()), 0)
    load_weights(network, published_weights(params), what=f"weights {_source(params)}", model=params.name)
    return network


def _source(params: CnnParams) -> str:
    return params.package or params.weights or params.architecture


def _of_timm(params: CnnParams, seed: int, **settings: Any) -> nn.Module:
    if params.output_stride is not None:
        settings["output_stride"] = params.output_stride
    try:
        with seeded(seed):
            network: nn.Module = timm.create_model(params.architecture, **settings)
    except Exception as error:  # whatever a hundred builders, and a network, make of settings that they do not have
        if settings.get("pretrained"):
            raise not_fetched(params.architecture, error) from error
        asked = "" if params.output_stride is None else f" with output_stride={params.output_stride}"
        raise UserError(
            f"model.architecture={params.architecture} cannot be built{asked} ({' '.join(str(error).split())[:120]}): "
            f"use a convolutional network such as {_PLAIN}"
        ) from error
    return network
