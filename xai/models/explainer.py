"""The network of a learned explainer: the backbone of the classifier, and a decoder from its tokens to attributions.

The decoders are the two of Segmenter (Strudel et al. 2021): a score for each patch and class. Their last layer computes
in float32 under autocast too: bfloat16 has eight bits, and what all patches have in common, about which a softmax does
not care, would take most of them away from what tells patches apart.
"""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from xai.core.errors import UserError
from xai.models.maskable import Normalisation, Removal, check_size, class_logits, exact
from xai.rounding import at_least_float32

if TYPE_CHECKING:
    from xai.models.spec import TokenDecoder

Decoder = Literal["mask_transformer", "linear"]


class MaskTransformer(nn.Module):
    """Patch tokens and learned class tokens attend to each other; a score is the product of the two.

    Segmenter normalises both sides of that product and then the scores over classes. An additive explainer must be able
    to say "nothing here", and to any degree, so scores are plain scaled products here, and the projection of the
    patches starts at zero: an untrained explainer attributes nothing, and its prediction is the uniform distribution.
    Class tokens start as large as patch tokens: at Segmenter's .02, what attention adds to all of them alike drowns
    their differences, and the embedded explainer learned half as fast.

    Args:
        width: D of the patch tokens.
        scores: K, how many scores each patch gets.
        depth: Blocks; 2 in Segmenter.
        heads: Attention heads of a block.
    """

    def __init__(self, width: int, scores: int, depth: int, heads: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, width)
        self.class_tokens = nn.Parameter(torch.empty(1, scores, width))
        self.blocks = _blocks(width, depth, heads)
        self.norm = nn.LayerNorm(width)
        self.patch_projection = nn.Linear(width, width, bias=False)
        self.class_projection = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.class_tokens)
        nn.init.normal_(self.class_projection.weight, std=width**-0.5)
        nn.init.zeros_(self.patch_projection.weight)

    def forward(self, patches: Tensor) -> Tensor:
        """Scores [B, M, K], never in half precision, of patch tokens [B, M, D]."""
        count = patches.shape[1]
        tokens = torch.cat([self.project(patches), self.class_tokens.expand(len(patches), -1, -1)], dim=1)
        tokens = at_least_float32(self.blocks(tokens))
        with exact(tokens):
            patches, classes = self.norm(tokens).split([count, self.class_tokens.shape[1]], dim=1)
            scores = self.patch_projection(patches) @ self.class_projection(classes).transpose(1, 2)
        return scores * patches.shape[-1] ** -0.5


class LinearDecoder(nn.Module):
    """Some blocks more, and a linear map of each patch token that starts at zero; arguments as of `MaskTransformer`."""

    def __init__(self, width: int, scores: int, depth: int, heads: int) -> None:
        super().__init__()
        self.blocks = _blocks(width, depth, heads)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, scores)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, patches: Tensor) -> Tensor:
        """Scores [B, M, K], never in half precision, of patch tokens [B, M, D]."""
        tokens = at_least_float32(self.blocks(patches))
        with exact(tokens):
            return self.head(self.norm(tokens))


def build_decoder(kind: str, width: int, scores: int, depth: int, heads: int) -> MaskTransformer | LinearDecoder:
    """A decoder by name; UserError: heads do not divide the width."""
    if width % heads:
        raise UserError(f"heads={heads} of a decoder must divide the {width} channels of the backbone")
    made = MaskTransformer if kind == "mask_transformer" else LinearDecoder
    return made(width, scores, depth, heads)


def _blocks(width: int, depth: int, heads: int) -> nn.Sequential:
    return nn.Sequential(*(Block(width, heads, mlp_ratio=4.0, qkv_bias=True) for _ in range(depth)))


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
        return self.decoder(tokens[:, self.backbone.num_prefix_tokens :])


class ShapleyParts(NamedTuple):
    """The two halves of equation 3: `present` phi+ and `absent` phi-, each [B, M, C]."""

    present: Tensor
    absent: Tensor


class SalvageNetwork(ExplainerNetwork):
    """SALVAGE (Naouar et al. 2025): phi+ and phi- of every patch and class; a classifier as well (equation 6).

    Args:
        parts: As of `ExplainerNetwork`.
        temperature: What the sum of equation 4 is divided by, wherever u(S) is learned or read.
    """

    def __init__(self, *parts: Any, temperature: float = 1.0) -> None:
        super().__init__(*parts)
        self.temperature = temperature

    def parts(self, images: Tensor) -> ShapleyParts:
        """phi+ and phi- [B, M, C] of images [B, 3, H, W] in [0, 1], in float32."""
        present, absent = self(images).float().chunk(2, dim=-1)
        return ShapleyParts(class_logits(present), class_logits(absent))

    def classify(self, images: Tensor) -> Tensor:
        """Equation 6 before its sigma: logits [B, C], the sum of phi+ over all patches by the temperature."""
        return self.parts(images).present.sum(1) / self.temperature


class AnchoredSalvageNetwork(SalvageNetwork):
    """SALVAGE with u(empty) = v(empty): phi- is one constant for all patches and images. Ours, not the paper's.

    As published phi- is free for every patch, and all M of them together say what is left when nothing is shown, of
    which there is nothing to learn: the classifier answers the same for every image. `empty`, log v(empty) [C]
    times the temperature, is asked once instead, and each patch has its Mth share of it.
    """

    empty: Tensor

    def __init__(self, *parts: Any, classes: int, temperature: float = 1.0) -> None:
        super().__init__(*parts, temperature=temperature)
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


def column(values: Tensor, targets: Tensor) -> Tensor:
    """The scores of one class of each image: [B, M, C] and targets [B] to [B, M]."""
    return values.gather(2, targets[:, None, None].expand(-1, values.shape[1], 1))[..., 0]


def vit_explainer(
    kind: str,
    backbone: VisionTransformer,
    outputs: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    shape: "TokenDecoder",
) -> ExplainerNetwork:
    """An untrained explainer around a backbone.

    Args:
        kind: `salvage` or `vit_shapley`.
        backbone: A ViT; its head is taken off.
        outputs: Width of that head: 1 for a binary classifier.
        mean: Channel means of the input normalisation.
        std: Channel deviations of it.
        shape: Of the decoder; SALVAGE's temperature, and whether its phi- is one constant (`AnchoredSalvageNetwork`).

    Raises:
        UserError: Heads of the decoder do not divide the width.
    """
    halves = 2 if kind == "salvage" and not shape.anchored else 1
    decoder = build_decoder(shape.kind, backbone.embed_dim, halves * outputs, shape.depth, shape.heads)
    parts = (backbone, decoder, mean, std)
    if shape.anchored:
        return AnchoredSalvageNetwork(*parts, classes=max(2, outputs), temperature=shape.temperature)
    return SalvageNetwork(*parts, temperature=shape.temperature) if kind == "salvage" else ShapleyNetwork(*parts)
