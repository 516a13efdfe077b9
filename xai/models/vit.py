"""Vision transformers of timm from their configuration: small ones trained here, published ones from their files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import timm
import torch
from open_clip.pos_embed import get_2d_sincos_pos_embed
from pydantic import Field
from timm.models.vision_transformer import VisionTransformer

from xai.core.errors import UserError
from xai.core.settings import FieldError, settings
from xai.models.backbone import not_fetched, read_body
from xai.models.families import (
    Depth,
    Heads,
    NetworkParams,
    Scale,
    Text,
    check_architecture,
    is_of_timm,
    outputs_of,
    published_classes,
    seeded,
)
from xai.models.maskable import Removal, of_ours
from xai.models.timm_vit import MaskableVit

_PLAIN = "vit_base_patch14_reg4_dinov2"


@settings
class SmallVit:
    """Shape of the embedded ViT.

    Args:
        width: Of its tokens: sine and cosine of two coordinates share it.
        depth: Number of blocks.
        heads: Attention heads; they divide the width.
        mlp_ratio: Width of the MLP as a multiple of the tokens'.
        registers: Register tokens (Darcet et al. 2024).
        position_scale: Size of the sin-cos position embedding the training starts from.
    """

    width: Annotated[int, Field(ge=1, le=2**14, multiple_of=4)]
    depth: Depth
    heads: Heads
    mlp_ratio: Annotated[float, Field(gt=0, le=64)]
    registers: Annotated[int, Field(ge=0, le=256)]
    position_scale: Scale

    def __post_init__(self) -> None:
        """Refuse widths that cannot be cut into heads."""
        if self.width % self.heads:
            raise FieldError("width", f"must be a multiple of heads={self.heads}")


@settings
class VitParams(NetworkParams):
    """A vision transformer.

    Args:
        architecture: timm's name of the architecture, or null for a small tower.
        weights: A local file of timm weights to start from (safetensors, or a torch file without code).
        pretrained: Fetch timm's published weights of the architecture from the hub.
        tower: Shape of the small tower that is trained from nothing.
        binary: Give the head one logit with a sigmoid instead of one a class with a softmax; for data of two classes.
    """

    architecture: Text | None = None
    weights: str | None = None
    pretrained: bool = False
    tower: SmallVit | None = None
    binary: bool = False

    def __post_init__(self) -> None:
        """Refuse shapes that do not fit together."""
        super().__post_init__()
        if (self.architecture is None) == (self.tower is None):
            raise FieldError("name", "needs either architecture (a timm name) or tower, and not both")
        if self.architecture is None and (self.weights is not None or self.pretrained):
            raise FieldError("name", "is trained from nothing: weights and pretrained need an architecture")
        if self.weights is not None and self.pretrained:
            raise FieldError("weights", "and pretrained=true exclude each other: set one")
        if self.architecture is not None:
            check_architecture(self.architecture, "*vit*")

    @property
    def embedded(self) -> bool:
        """Whether the framework trains the model from nothing."""
        return self.tower is not None

    @property
    def file(self) -> Path | None:
        """The file that its weights come from."""
        return None if self.weights is None else Path(self.weights)

    def build(self, outputs: int, seed: int = 0) -> VisionTransformer:
        """The network with random weights, a single output for a binary classifier.

        Raises:
            UserError: The architecture is no plain ViT, or cuts images in another way than the settings say.
        """
        return _build(self, outputs, seed)

    def maskable(self, network: Any, removal: Removal | None = None) -> MaskableVit:
        """A network that drops tokens of removed patches, unless `removal` says otherwise."""
        return of_ours(MaskableVit(network, self.mean, self.std, removal or Removal("tokens")))

    def outputs(self, classes: int) -> int:
        """One logit a class, or a single one of a binary classifier."""
        return outputs_of(classes, self.binary)

    def start(self, outputs: int, seed: int = 0) -> VisionTransformer:
        """The network with its weights; with random ones where there are none.

        Raises:
            UserError: As `build`; the weights cannot be fetched or read.
        """
        network = _build(self, outputs, seed, published=self.pretrained)
        if self.weights is not None:
            network.load_state_dict(read_body(network, self.weights, what=f"weights {self.weights}", model=self.name))
        return network

    def is_published_for(self, classes: Sequence[str]) -> bool:
        """Whether timm publishes the architecture with a head of these classes, and it is to be fetched."""
        if not self.pretrained or self.binary or not is_of_timm(self.architecture or ""):
            return False
        published = timm.models.get_pretrained_cfg(self.architecture or "")
        return published is not None and published.num_classes == len(classes) and tuple(classes) == published_classes()

    def published(self, outputs: int) -> VisionTransformer:
        """The network of timm's hub; its head too, where that has as many outputs."""
        return _build(self, outputs, 0, published=True)


def _build(params: VitParams, outputs: int, seed: int, *, published: bool = False) -> VisionTransformer:
    with seeded(seed):
        network = (
            _small(params, params.tower, outputs) if params.tower is not None else _of_timm(params, outputs, published)
        )
    if not isinstance(network, VisionTransformer):
        raise UserError(
            f"model.architecture={params.architecture} is a {type(network).__name__}, no plain vision transformer: "
            f"use one such as {_PLAIN}"
        )
    patch = tuple(network.patch_embed.patch_size)
    if patch != (params.patch_size,) * 2:
        raise UserError(
            f"model.architecture={params.architecture} has patches of {patch[0]} px, not "
            f"patch_size={params.patch_size}: use model.patch_size={patch[0]}"
        )
    return network


def _of_timm(params: VitParams, outputs: int, published: bool) -> torch.nn.Module:
    try:
        return timm.create_model(
            params.architecture or "", pretrained=published, num_classes=outputs, img_size=params.image_size
        )
    except Exception as error:
        if not published:
            raise UserError(
                f"model.architecture={params.architecture} cannot be built for {params.image_size} px "
                f"({' '.join(str(error).split())[:120]}): use a plain vision transformer such as {_PLAIN}"
            ) from error
        raise not_fetched(params.architecture, error) from error


def _small(params: VitParams, tower: SmallVit, outputs: int) -> VisionTransformer:
    network = VisionTransformer(
        img_size=params.image_size,
        patch_size=params.patch_size,
        num_classes=outputs,
        embed_dim=tower.width,
        depth=tower.depth,
        num_heads=tower.heads,
        mlp_ratio=tower.mlp_ratio,
        reg_tokens=tower.registers,
        no_embed_class=True,
    )
    # A start that knows the plane: from random positions a small ViT does not learn to find an object in minutes.
    positions = get_2d_sincos_pos_embed(tower.width, params.grid, cls_token=False)
    with torch.no_grad():
        network.pos_embed.copy_(  # type: ignore[union-attr]
            tower.position_scale * torch.from_numpy(positions).float()
        )
    return network
