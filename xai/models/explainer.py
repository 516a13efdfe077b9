"""The network of a learned explainer: the backbone of the classifier, and a decoder from its tokens to attributions."""

from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from xai.core.captum_names import captum_names
from xai.models.maskable import Normalisation, Removal, check_size, class_logits
from xai.models.segmenter import build_decoder


class ExplainerNetwork(nn.Module):
    """Images to K scores a patch.

    Args:
        backbone: A ViT; its head is not used.
        decoder: Patch tokens [B, M, D] to scores [B, M, K].
        mean: Channel means of the input normalisation.
        std: Channel deviations of it.
    """

    def __init__(
        self, backbone: VisionTransformer, decoder: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.backbone, self.decoder = backbone, decoder
        self.backbone.head = nn.Identity()
        self.normalisation = Normalisation(mean, std, Removal("tokens"))
        down, across = backbone.patch_embed.grid_size
        self.grid = (int(down), int(across))

    def forward(self, images: Tensor) -> Tensor:
        """Scores [B, M, K] of images [B, 3, H, W] in [0, 1].

        Raises:
            UserError: For images of another size than the backbone's.
        """
        check_size(images, self.backbone.patch_embed.img_size)
        tokens = self.backbone.forward_features(self.normalisation(images))
        scores: Tensor = self.decoder(tokens[:, self.backbone.num_prefix_tokens :])
        return scores


class ShapleyParts(NamedTuple):
    """The two halves of equation 3: `present` phi+ and `absent` phi-, each [B, M, C]."""

    present: Tensor
    absent: Tensor


class SalvageNetwork(ExplainerNetwork):
    """SALVAGE (Naouar et al. 2025): phi+ and phi- of every patch and class; a classifier as well (equation 6)."""

    def parts(self, images: Tensor) -> ShapleyParts:
        """phi+ and phi- [B, M, C] of images [B, 3, H, W] in [0, 1], in float32."""
        present, absent = self(images).float().chunk(2, dim=-1)
        return ShapleyParts(class_logits(present), class_logits(absent))

    @captum_names
    def attribute(self, images: Tensor, targets: Tensor) -> Tensor:
        """Phi = phi+ - phi- of the classes `targets` [B]: [B, h, w], of images [B, 3, H, W]."""
        present, absent = self.parts(images)
        return column(present - absent, targets).reshape(-1, *self.grid)

    def classify(self, images: Tensor) -> Tensor:
        """Equation 6 before its sigma: logits [B, C], the sum of phi+ over all patches."""
        return self.parts(images).present.sum(1)


class AnchoredSalvageNetwork(SalvageNetwork):
    """SALVAGE with u(empty) = v(empty): phi- is one constant for all patches and images. Ours, not the paper's.

    As published phi- is free for every patch, and all M of them together say what is left when nothing is shown, of
    which there is nothing to learn: the classifier answers the same for every image. `empty`, log v(empty) [C], is
    asked once instead, and each patch has its Mth share of it.
    """

    empty: Tensor

    def __init__(self, *parts: Any, classes: int) -> None:
        super().__init__(*parts)
        self.register_buffer("empty", torch.zeros(classes))

    def parts(self, images: Tensor) -> ShapleyParts:
        """phi+ [B, M, C] of images [B, 3, H, W] in [0, 1], and phi-, the same for all patches; in float32."""
        present = class_logits(self(images).float())
        return ShapleyParts(present, (self.empty / present.shape[1]).expand_as(present))


class ShapleyNetwork(ExplainerNetwork):
    """ViT-Shapley (Covert et al. 2023): a Shapley value of every patch and class."""

    def values(self, images: Tensor) -> Tensor:
        """Phi [B, M, C] of images [B, 3, H, W] in [0, 1], in float32, not normalised."""
        return class_logits(self(images).float())

    def classify(self, images: Tensor) -> Tensor:
        """The raw sum of phi over all patches [B, C]: what Table 4 of SALVAGE judges."""
        return self.values(images).sum(1)


def column(values: Tensor, targets: Tensor) -> Tensor:
    """The scores of one class of each image: [B, M, C] and targets [B] to [B, M]."""
    return values.gather(2, targets[:, None, None].expand(-1, values.shape[1], 1))[..., 0]


def vit_explainer(
    kind: str,
    backbone: VisionTransformer,
    outputs: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    decoder: str,
    depth: int,
    heads: int,
    anchored: bool = False,
) -> ExplainerNetwork:
    """An untrained explainer around a backbone.

    Args:
        kind: `salvage` or `vit_shapley`.
        backbone: A ViT; its head is taken off.
        outputs: Width of that head: 1 for a binary classifier.
        mean: Channel means of the input normalisation.
        std: Channel deviations of it.
        decoder: Its kind, see `build_decoder`.
        depth: Blocks of the decoder.
        heads: Attention heads of each.
        anchored: Whether SALVAGE's phi- is one constant; see `AnchoredSalvageNetwork`.

    Raises:
        UserError: There is no such decoder, or it does not fit.
    """
    halves = 2 if kind == "salvage" and not anchored else 1
    parts = (backbone, build_decoder(decoder, backbone.embed_dim, halves * outputs, depth, heads), mean, std)
    if anchored:
        return AnchoredSalvageNetwork(*parts, classes=max(2, outputs))
    return SalvageNetwork(*parts) if kind == "salvage" else ShapleyNetwork(*parts)
