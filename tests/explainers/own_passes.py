"""Transformers run by their libraries' own modules, in float64, with attention that can be differentiated."""

from typing import Any, NamedTuple

from torch import Tensor

from tests.models import tiny_clip
from tests.models.tiny_vit import FAMILIES, maskable, network, normalised, pictures
from xai.models.maskable import Removal
from xai.models.packed import TransformerClassifier


class Own(NamedTuple):
    """A classifier of five classes and four images, and its library's own pass.

    `prefix` is how many tokens stand before the patches, `read` which are read; `attention` [B, heads, L, L] and
    `tokens` [B, L, D] are of each layer, and part of the graph of `logits` [B, C].
    """

    name: str
    model: TransformerClassifier
    images: Tensor
    prefix: int
    read: list[int]
    logits: Tensor
    attention: list[Tensor]
    tokens: list[Tensor]


# Tokens before the patches, and those that the logits are read from.
READ: dict[str, tuple[int, list[int]]] = {
    "clip": (1, [0]),
    "registers": (5, [0]),
    "distilled": (2, [0, 1]),
    "average_fc_norm": (1, list(range(1, 17))),
    "average_with_prefix": (3, list(range(19))),
    "oblong": (1, [0]),
}


def own(name: str, removal: Removal | None = None) -> Own:
    if name == "clip":
        model = tiny_clip.classifier(removal)
        images = tiny_clip.pictures(4)
        return Own(name, model, images, *READ[name], *_clip(model, images))
    built = network(**FAMILIES[name]).requires_grad_(False)
    images = pictures(built, 4)
    return Own(name, maskable(built, removal), images, *READ[name], *_timm(built, images))


def _timm(built: Any, images: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    attention: list[Tensor] = []
    tokens: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: Tensor) -> Tensor:
        attention.append(output.requires_grad_())
        return output

    handles = [block.attn.attn_drop.register_forward_hook(keep) for block in built.blocks]
    handles += [block.register_forward_hook(lambda m, i, output: tokens.append(output)) for block in built.blocks]
    for block in built.blocks:
        block.attn.fused_attn = False
    logits = built(normalised(images))
    for block in built.blocks:
        block.attn.fused_attn = True
    for handle in handles:
        handle.remove()
    return logits, attention, tokens


def _clip(model: Any, images: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Literally, because PyTorch's own module gives no attention that its output depends on."""
    visual, attention, tokens = model.visual, [], []
    x = visual._embeds(model.normalisation(images))
    for block in visual.transformer.resblocks:
        inputs = block.ln_1(x) @ block.attn.in_proj_weight.T + block.attn.in_proj_bias
        query, key, value = (part.unflatten(2, (2, 8)).transpose(1, 2) for part in inputs.split(16, dim=2))
        weights = (query @ key.transpose(2, 3) / 8**0.5).exp()
        weights = (weights / weights.sum(-1, keepdim=True)).requires_grad_()
        x = x + block.attn.out_proj((weights @ value).transpose(1, 2).reshape(x.shape))
        x = x + block.mlp(block.ln_2(x))
        attention.append(weights)
        tokens.append(x)
    return head(model, x, "clip"), attention, tokens


def head(model: Any, tokens: Tensor, name: str) -> Tensor:
    """The network's own logits of the tokens [B, L, D] of its last block."""
    if name == "clip":
        features = model.visual.ln_post(tokens[:, 0]) @ model.visual.proj
        return model.logit_scale * features / features.norm(dim=1, keepdim=True) @ model.head
    return model.network.forward_head(model.network.norm(tokens))
