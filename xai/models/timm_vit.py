"""Any plain vision transformer of timm as a maskable classifier: class, distillation and register tokens."""

from collections.abc import Sequence
from typing import Any

from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from xai.core.errors import UserError
from xai.models import packed
from xai.models.maskable import Normalisation, Removal, class_logits
from xai.models.packed import TransformerClassifier


class MaskableVit(TransformerClassifier):
    """A timm ViT that can answer with patches removed; it is put into evaluation mode, and so is the network.

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

    def __init__(
        self,
        network: VisionTransformer,
        mean: Sequence[float],
        std: Sequence[float],
        removal: Removal | None = None,
        reference: Tensor | None = None,
    ) -> None:
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
        normalisation = Normalisation(mean, std, removal or Removal(), reference)
        patches = network.patch_embed
        super().__init__(normalisation, patches.grid_size, patches.img_size, network.num_prefix_tokens)
        self.network = network
        if network.global_pool == "token":
            self.read = slice(0, 2 if isinstance(network, VisionTransformerDistilled) else 1)
        else:
            self.read = slice(0 if network.pool_include_prefix else network.num_prefix_tokens, None)
        self.eval()

    def read_out(self, tokens: Tensor, groups: packed.Groups) -> Tensor:
        """Logits [N, C] of the tokens that are read, of N sequences; see `TransformerClassifier.read_out`."""
        network = self.network
        tokens = network.norm(tokens)
        if network.global_pool == "token":
            return class_logits(network.forward_head(tokens.unflatten(0, (-1, self.read.stop))))
        pooled = packed.pool(tokens, groups, skip=self.read.start)
        return class_logits(network.head(network.head_drop(network.fc_norm(pooled))))

    @property
    def _transformer(self) -> Any:
        return self.network.blocks

    @property
    def blocks(self) -> Any:
        """Of the network."""
        return self.network.blocks

    def _embed(self, images: Tensor) -> Tensor:
        return self.network.norm_pre(self.network._pos_embed(self.network.patch_embed(images)))

    def _plain(self, images: Tensor) -> Tensor:
        return class_logits(self.network(images))
