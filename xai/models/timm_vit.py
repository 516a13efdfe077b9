"""Any plain vision transformer of timm as a maskable classifier: class, distillation and register tokens."""

from collections.abc import Sequence
from typing import Any

from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from xai.core.errors import UserError
from xai.models import packed
from xai.models.maskable import Encoded, MaskableClassifier, Removal, Rows, check_size, class_logits
from xai.models.normalisation import Normalisation


class MaskableVit(MaskableClassifier):
    """A timm ViT that can answer with patches removed.

    In training mode dropout is timm's own, except that paths, patches and attention weights are never dropped. Where
    the network averages its patch tokens, the average is over the visible ones, and zero where there are none.

    Args:
        network: A `VisionTransformer` of timm (ViT, DeiT, DeiT-III, DINOv2 with or without registers, AugReg, ...). One
            with a single output is a binary classifier; see `class_logits`.
        mean: Channel means of its input normalisation.
        std: Channel deviations of it.
        removal: How patches are removed.
        reference: A reference of one's own for `pixels` removal, in [0, 1], that broadcasts to [3, H, W].

    Raises:
        UserError: For a network of another kind, or one that pools in another way.
    """

    network: Any
    normalisation: Normalisation
    removal: Removal

    def __init__(
        self,
        network: VisionTransformer,
        mean: Sequence[float],
        std: Sequence[float],
        removal: Removal | None = None,
        reference: Tensor | None = None,
    ) -> None:
        super().__init__()
        kind: type[object] = type(network)
        # Other subclasses embed, pool or number their tokens in ways of their own.
        if kind is not VisionTransformer and kind is not VisionTransformerDistilled:
            raise UserError(
                f"{kind.__name__} is no plain VisionTransformer of timm: "
                "explain the network as a whole, with removal.kind=pixels"
            )
        if network.global_pool not in ("token", "avg"):
            pooling = network.global_pool or "none"
            raise UserError(f"a ViT with global_pool={pooling} cannot drop tokens: use one that pools by token or avg")
        packed.layers(network.blocks)
        self.network = network
        self.normalisation = Normalisation(mean, std, removal or Removal(), reference)
        down, across = network.patch_embed.grid_size
        self.grid = (int(down), int(across))
        self.removal = self.normalisation.removal

    def encode(self, images: Tensor) -> Encoded:
        """Embedded tokens of the images and, for `pixels` removal, of their reference; see `packed.encode`.

        Raises:
            UserError: For images of another size than the network's, even where it could adapt: M is fixed.
        """
        check_size(images, self.network.patch_embed.img_size)
        return packed.encode(self._layers, [self._embed(version) for version in self.normalisation.versions(images)])

    def decode(self, encoded: Encoded, rows: Rows) -> Tensor:
        """Logits [N, C] of N coalitions of encoded images."""
        network, prefix = self.network, self.network.num_prefix_tokens
        tokens, inputs, groups = packed.select(encoded, rows, prefix)
        if network.global_pool == "token":
            read = 2 if isinstance(network, VisionTransformerDistilled) else 1
            tokens = packed.run(self._layers, tokens, inputs, groups, read)
            return class_logits(network.forward_head(network.norm(tokens).unflatten(0, (-1, read))))
        tokens = network.norm(packed.run(self._layers, tokens, inputs, groups))
        pooled = packed.pool(tokens, groups, skip=0 if network.pool_include_prefix else prefix)
        return class_logits(network.head(network.head_drop(network.fc_norm(pooled))))

    def cost(self, kept: int) -> int:
        """Tokens of a coalition."""
        # Without a class token nothing may be left of an image.
        return max(1, self.network.num_prefix_tokens + (kept if self.removal.kind == "tokens" else self.players))

    @property
    def _layers(self) -> list[packed.Layer]:
        return packed.layers(self.network.blocks)

    def _embed(self, images: Tensor) -> Tensor:
        return self.network.norm_pre(self.network._pos_embed(self.network.patch_embed(images)))
