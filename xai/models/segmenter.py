"""The two decoders of Segmenter (Strudel et al. 2021) as heads of explainers: a score for each patch and class.

The last layer computes in float32 under autocast too: bfloat16 has eight bits, and what all patches have in common,
about which a softmax does not care, would take most of them away from what tells patches apart.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from xai.core.errors import UserError

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
        tokens = _unrounded(self.blocks(tokens))
        with _exact(tokens):
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
        tokens = _unrounded(self.blocks(patches))
        with _exact(tokens):
            scores: Tensor = self.head(self.norm(tokens))
        return scores


def build_decoder(kind: str, width: int, scores: int, depth: int, heads: int) -> MaskTransformer | LinearDecoder:
    """A decoder by name; UserError: the name is unknown, or heads do not divide the width."""
    if kind not in get_args(Decoder):
        raise UserError(f"decoder={kind} is unknown: use {' or '.join(get_args(Decoder))}")
    if width % heads:
        raise UserError(f"heads={heads} of a decoder must divide the width of the backbone, {width}")
    made = MaskTransformer if kind == "mask_transformer" else LinearDecoder
    return made(width, scores, depth, heads)


def _blocks(width: int, depth: int, heads: int) -> nn.Sequential:
    return nn.Sequential(*(Block(width, heads, mlp_ratio=4.0, qkv_bias=True) for _ in range(depth)))


def _exact(tokens: Tensor) -> AbstractContextManager[None]:
    """Without autocast, where the device has it at all; that of shapes without numbers has not."""
    device = tokens.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def _unrounded(tokens: Tensor) -> Tensor:
    return tokens.to(torch.promote_types(tokens.dtype, torch.float32))
