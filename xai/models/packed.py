"""Masked forward passes through a pre-norm transformer, packed: a removed patch costs nothing.

A removed patch is a token that is absent, which equals masking it out of every attention. Sequences of a chunk then
have different lengths, yet most of a transformer never looks across tokens: norms, projections and the MLP run on all
tokens of the chunk end to end, [T, D], without padding. Only attention is done group by group, a group being the
sequences of one length.

Three more savings leave the result as it is. The first layer's queries, keys and values depend on a token and nothing
else, so they are computed once an image. The last layer computes only the tokens that are read. And `pixels` removal
is the same pass: a removed patch has the token of the reference image instead of none.
"""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from xai.core.errors import UserError
from xai.models.maskable import Encoded, MaskableClassifier, Normalisation, Rows, check_size

Groups = Sequence[tuple[int, int]]
"""Sequences that lie end to end: (how many, of how many tokens each), in order."""


@dataclass(frozen=True)
class Layer:
    """A pre-norm block, seen as the parts that a packed pass calls; the parameters stay the library's.

    Args:
        heads: Attention heads.
        attention_input: Tokens [..., D] to queries, keys and values [..., 3 D].
        query_norm: Of a head's queries.
        key_norm: Of a head's keys.
        attention_output: Joined heads [..., D] to what is added to the tokens.
        feed_forward: Tokens [..., D] to what is added to them.
    """

    heads: int
    attention_input: Callable[[Tensor], Tensor]
    query_norm: Callable[[Tensor], Tensor]
    key_norm: Callable[[Tensor], Tensor]
    attention_output: Callable[[Tensor], Tensor]
    feed_forward: Callable[[Tensor], Tensor]


def layers(blocks: Iterable[nn.Module]) -> list[Layer]:
    """The parts of the blocks of a transformer of open_clip or timm.

    Ask anew for every pass: what is returned stays bound to these very blocks, also in a copy of their owner.

    Raises:
        UserError: For a block that is neither's plain pre-norm block.
    """
    return [_layer(block) for block in blocks]


def _layer(block: Any) -> Layer:
    attention = type(getattr(block, "attn", None))
    if type(block) is ResidualAttentionBlock and attention is nn.MultiheadAttention and not hasattr(block, "ln_1_kv"):
        return _of_open_clip(block)
    if type(block) is Block and attention is Attention and getattr(block.attn, "gate", None) is None:
        return _of_timm(block)
    raise UserError(
        f"transformer blocks of type {type(block).__name__} with attention {attention.__name__} cannot run packed: "
        "explain the network as a whole, with removal.kind=pixels"
    )


def _of_open_clip(block: Any) -> Layer:
    attention = block.attn
    return Layer(
        attention.num_heads,
        lambda tokens: F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias),
        nn.Identity(),
        nn.Identity(),
        lambda joined: block.ls_1(attention.out_proj(joined)),
        lambda tokens: block.ls_2(block.mlp(block.ln_2(tokens))),
    )


def _of_timm(block: Any) -> Layer:
    attention = block.attn
    return Layer(
        attention.num_heads,
        lambda tokens: attention.qkv(block.norm1(tokens)),
        attention.q_norm,
        attention.k_norm,
        lambda joined: block.ls1(attention.proj_drop(attention.proj(attention.norm(joined)))),
        lambda tokens: block.ls2(block.mlp(block.norm2(tokens))),
    )


def encode(layers: Sequence[Layer], versions: Sequence[Tensor]) -> Encoded:
    """What all coalitions of an image share.

    Args:
        layers: Of the transformer.
        versions: Embedded tokens [B, L, D] of the images and, for `pixels` removal, of their reference ([1, L, D] where
            it is the same for all images).

    Returns:
        Tokens [B, R, L, D], and the first layer's queries, keys and values [B, R, L, 3 D].
    """
    inputs = [layers[0].attention_input(tokens) for tokens in versions]
    batch = len(versions[0])
    return (
        torch.stack([tokens.expand(batch, -1, -1) for tokens in versions], dim=1),
        torch.stack([tokens.expand(batch, -1, -1) for tokens in inputs], dim=1),
    )


def select(encoded: Encoded, rows: Rows, prefix: int) -> tuple[Tensor, Tensor, Groups]:
    """The tokens that coalitions are made of, end to end.

    Args:
        encoded: As `encode` gives it; with R = 1 removed patches are dropped, with R = 2 replaced.
        rows: N coalitions, sorted by size.
        prefix: Tokens before the patches ([CLS], distillation, registers); they are never removed.

    Returns:
        Tokens [T, D], first queries, keys and values [T, 3 D], and how the sequences lie in them.
    """
    tokens, inputs = encoded
    versions, length = tokens.shape[1:3]
    keep = F.pad(rows.keep, (prefix, 0), value=True)
    groups: Groups
    if versions == 1:
        # The number of kept patches is known, so no device has to be waited for to learn it.
        total = sum(count * (prefix + size) for count, size in rows.groups)
        row, position = torch.nonzero_static(keep, size=total).unbind(1)
        index = rows.owner[row] * length + position
        groups = [(count, prefix + size) for count, size in rows.groups]
    else:
        position = torch.arange(length, device=keep.device) + torch.where(keep, 0, length)
        index = (rows.owner[:, None] * (2 * length) + position).flatten()
        groups = [(len(keep), length)]
    return (tokens.flatten(0, 2).index_select(0, index), inputs.flatten(0, 2).index_select(0, index), groups)


def run(layers: Sequence[Layer], tokens: Tensor, inputs: Tensor, groups: Groups, read: int | None = None) -> Tensor:
    """Run the transformer.

    Args:
        layers: Of the transformer.
        tokens: [T, D], sequences end to end.
        inputs: [T, 3 D], queries, keys and values of the first layer.
        groups: How the sequences lie in them.
        read: How many tokens at the start of each sequence are wanted; None wants all.

    Returns:
        [T, D], or [N read, D]: the wanted tokens after the last layer, end to end.
    """
    for number, each in enumerate(layers):
        if number:
            inputs = each.attention_input(tokens)
        wanted = read if number == len(layers) - 1 else None
        joined = [_attend(each, part, wanted) for part in sequences(inputs, groups)]
        if wanted is not None:
            tokens = _join([part[:, :wanted].flatten(0, 1) for part in sequences(tokens, groups)])
        tokens = tokens + each.attention_output(_join(joined))
        tokens = tokens + each.feed_forward(tokens)
    return tokens


def class_tokens(layers: Sequence[Layer], tokens: Tensor) -> Tensor:
    """The first token of each sequence after the last layer: [B, L, D] to [B, D]."""
    flat = tokens.flatten(0, 1)
    return run(layers, flat, layers[0].attention_input(flat), [(tokens.shape[0], tokens.shape[1])], read=1)


def pool(tokens: Tensor, groups: Groups, skip: int) -> Tensor:
    """Mean over each sequence without its first `skip` tokens: [T, D] to [N, D]; zero where nothing is left."""
    rest = [part[:, skip:] for part in sequences(tokens, groups)]
    return torch.cat([part.sum(1) / max(1, part.shape[1]) for part in rest])


def _attend(each: Layer, inputs: Tensor, read: int | None) -> Tensor:
    """Attention within sequences of one length: [n, length, 3 D] to [n length, D], or to [n read, D]."""
    query, key, value = inputs.unflatten(2, (3, each.heads, inputs.shape[-1] // (3 * each.heads))).unbind(2)
    query = query if read is None else query[:, :read]
    query, key = each.query_norm(query), each.key_norm(key)
    joined = F.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    return joined.transpose(1, 2).flatten(2).flatten(0, 1)


def sequences(tokens: Tensor, groups: Groups) -> list[Tensor]:
    """Tokens [T, ...] that lie end to end, as the sequences of each group: [n, length, ...]."""
    parts = tokens.split([count * length for count, length in groups])
    return [part.unflatten(0, group) for part, group in zip(parts, groups, strict=True)]


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3}
_COARSE, _TENSOR_CORES = 0.1, 1e-2  # of half precision, and of float32 on a GPU, which may round its factors


class TransformerClassifier(MaskableClassifier):
    """A transformer that can answer with patches removed: its tokens are embedded once an image, and packed.

    The packed pass calls the parts of a block, and so passes by what somebody has changed in a network of his own: a
    hook on a block, another forward. The first image that a foreign network sees in evaluation mode goes both ways;
    where the logits differ, a warning says so, and the blocks are called as they are from then on, which takes longer.

    Args:
        normalisation: Of the images; it knows how patches are removed.
        grid: Patches down and across.
        size: Of the images, (H, W).
        prefix: Tokens before the patches.

    Attributes:
        packs: Whether the packed pass gives the network's own logits, as far as they have been compared.
    """

    normalisation: Normalisation
    read: slice = slice(0, 1)
    """The tokens that the logits are computed from. Patches are always the last M."""

    def __init__(self, normalisation: Normalisation, grid: Iterable[int], size: tuple[int, int], prefix: int) -> None:
        super().__init__()
        self.normalisation, self.removal = normalisation, normalisation.removal
        down, across = grid
        self.grid = (int(down), int(across))
        self._size, self._prefix = size, prefix
        self._compared = False
        self.packs = True

    @property
    @abstractmethod
    def _transformer(self) -> Any:
        """All blocks as one module: [B, L, D] to [B, L, D]."""

    @property
    @abstractmethod
    def blocks(self) -> Iterable[nn.Module]:
        """The blocks that `layers` takes apart; their tokens are the first that `encode` returns."""

    @abstractmethod
    def _embed(self, images: Tensor) -> Tensor:
        """Normalised images to what the first block sees."""

    @abstractmethod
    def _plain(self, images: Tensor) -> Tensor:
        """Normalised images to logits, by the network's own forward pass."""

    @abstractmethod
    def read_out(self, tokens: Tensor, groups: Groups) -> Tensor:
        """What the network makes of the tokens of its last block.

        Args:
            tokens: [T, D], sequences end to end: of each the tokens up to `read.stop`, or all where it is None.
            groups: How the sequences lie in them, where those are all.

        Returns:
            Logits [N, C] of N sequences.
        """

    def encode(self, images: Tensor) -> Encoded:
        """Embedded tokens of the images and, for `pixels` removal, of their reference; see `encode`.

        Raises:
            UserError: For images of another size than the network's, even where it could adapt: M is fixed.
        """
        check_size(images, self._size)
        if self.foreign and not self._compared and not self.training:
            self._compare(images[:1])
        return encode(self._layers, [self._embed(version) for version in self.normalisation.versions(images)])

    def decode(self, encoded: Encoded, rows: Rows) -> Tensor:
        """Logits [N, C] of N coalitions of encoded images."""
        tokens, inputs, groups = select(encoded, rows, self._prefix)
        return self.read_out(self._run(tokens, inputs, groups, self.read.stop), groups)

    def cost(self, kept: int) -> int:
        """Tokens of a coalition."""
        # Without a class token nothing may be left of an image.
        return max(1, self._prefix + (kept if self.removal.kind == "tokens" else self.players))

    @property
    def _layers(self) -> list[Layer]:
        return layers(self.blocks)

    def _run(self, tokens: Tensor, inputs: Tensor, groups: Groups, read: int | None = None) -> Tensor:
        """As `run`."""
        if self.packs:
            return run(self._layers, tokens, inputs, groups, read)
        return torch.cat([self._transformer(part)[:, :read].flatten(0, 1) for part in sequences(tokens, groups)])

    @torch.no_grad()
    def _compare(self, image: Tensor) -> None:
        self._compared = True
        if image.is_meta:
            return
        expected = self._plain(self.normalisation(image))
        if _agree(self.forward(image), expected):
            return
        self.packs = False
        if not _agree(self.forward(image), expected):
            # Whoever asks again is refused again.
            self._compared, self.packs = False, True
            raise UserError(
                "this network's own logits are not what its blocks and its head give: explain it as a whole, with "
                "removal.kind=pixels (PaintedClassifier)"
            )
        warnings.warn(
            "this network's own logits are not those of the fast pass (a hook or a changed block?): its blocks are "
            "called as they are, which takes longer",
            stacklevel=2,
        )


def _agree(found: Tensor, expected: Tensor) -> bool:
    dtype = torch.get_autocast_dtype(found.device.type) if torch.is_autocast_enabled(found.device.type) else found.dtype
    tolerance = _TOLERANCES.get(dtype, _COARSE)
    if found.is_cuda:
        tolerance = max(tolerance, _TENSOR_CORES)
    found, expected = found.float(), expected.float()
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1))
