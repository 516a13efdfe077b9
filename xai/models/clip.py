"""The self-explaining CLIP of "Transferring visual explainability" (Yoshikawa et al.), Figure 1 and section 4.1.

One visual tower, one fixed matrix W of class embeddings. The [CLS] token through W gives logits; the patch tokens,
through the same layer norm, the same projection and the same W, give patch attributions. The parameters theta of the
paper are those of the visual tower; W comes from the text tower, which is never trained on a data set.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock, Transformer, VisionTransformer
from torch import Tensor, nn

from xai.errors import UserError
from xai.models.maskable import MaskableClassifier, Removal, reference_image


class Tokenizer(Protocol):
    """Captions to token numbers [B, L]."""

    def __call__(self, texts: list[str]) -> Tensor:
        """Tokenise."""
        ...


class Explained(NamedTuple):
    """Prediction with explanation: logits [B, C] and unnormalised patch attributions [B, M, C]."""

    logits: Tensor
    attributions: Tensor


@torch.no_grad()
def class_embeddings(clip: CLIP, tokenizer: Tokenizer, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
    """The fixed head W: for each class the mean text embedding over the prompt templates (section 4.1, footnote 1).

    Args:
        clip: The model whose text tower is asked.
        tokenizer: The one that belongs to it.
        classes: C class names.
        templates: Captions with `{}` where the class name goes.

    Returns:
        W [K, C], unit columns.
    """
    device = next(clip.parameters()).device
    columns = []
    for name in classes:
        tokens = tokenizer([template.format(name) for template in templates]).to(device)
        columns.append(F.normalize(clip.encode_text(tokens, normalize=True).mean(0), dim=0))
    return torch.stack(columns, dim=1)


class SelfExplainingClip(MaskableClassifier):
    """A CLIP image classifier that can also explain itself, if its parameters have learned to.

    Args:
        visual: open_clip's visual tower with a [CLS] token; theta in the paper.
        head: W [K, C], unit columns.
        logit_scale: The factor that turns cosines into logits.
        mean: Channel means of the input normalisation.
        std: Channel deviations of the input normalisation.
        removal: How patches are removed.
    """

    head: Tensor
    logit_scale: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        visual: VisionTransformer,
        head: Tensor,
        logit_scale: float,
        mean: Sequence[float],
        std: Sequence[float],
        removal: Removal | None = None,
    ) -> None:
        super().__init__()
        if getattr(visual, "attn_pool", None) is not None or visual.pool_type != "tok" or visual.final_ln_after_pool:
            raise UserError(
                "a self-explaining CLIP needs a visual tower that pools by its [CLS] token, such as ViT-B-32"
            )
        self.visual = visual
        self.removal = removal or Removal()
        self.grid = (int(visual.grid_size[0]), int(visual.grid_size[1]))
        self.register_buffer("head", head)
        self.register_buffer("logit_scale", torch.tensor(float(logit_scale)))
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1))

    def normalise(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] to what the tower was trained on."""
        return (images - self.mean) / self.std

    def explain(self, images: Tensor) -> Explained:
        """Predict and explain in one forward pass (Figure 1, right).

        Args:
            images: [B, 3, H, W] in [0, 1].

        Returns:
            Logits [B, C] and attributions [B, M, C]; `attributions[b, :, c]` is the paper's column c of Phi-tilde.
        """
        tokens = self.visual.transformer(self.visual._embeds(self.normalise(images)))
        features = self._project(tokens)
        return Explained(self._logits(features[:, 0]), features[:, 1:] @ self.head)

    def encode(self, images: Tensor) -> Tensor:
        """Embedded tokens; for `pixels` removal those of the image and of its reference: [B, 1 or 2, 1 + M, D]."""
        tokens = self.visual._embeds(self.normalise(images))
        if self.removal.kind == "tokens":
            return tokens[:, None]
        reference = reference_image(images, self.removal, self.mean.flatten())
        removed = self.visual._embeds(self.normalise(reference))
        return torch.stack([tokens, removed.expand_as(tokens)], dim=1)

    def decode(self, encoded: Tensor, keep: Tensor | None) -> Tensor:
        """Logits [B, C] from encoded images [B, 1 or 2, 1 + M, D], `keep` [B, M] visible."""
        tokens, mask = encoded[:, 0], None
        if keep is not None and self.removal.kind == "pixels":
            visible = F.pad(keep, (1, 0), value=True)[..., None]
            tokens = torch.where(visible, tokens, encoded[:, 1])
        elif keep is not None:
            tokens, mask = drop_tokens(tokens, keep)
            mask = (
                None if mask is None else mask.repeat_interleave(self.visual.transformer.resblocks[0].attn.num_heads, 0)
            )
        return self._logits(self._project(class_token(self.visual.transformer, tokens, mask)))

    def _project(self, tokens: Tensor) -> Tensor:
        return self.visual.ln_post(tokens) @ self.visual.proj

    def _logits(self, features: Tensor) -> Tensor:
        return self.logit_scale * F.normalize(features, dim=-1) @ self.head


def class_token(transformer: Transformer, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """Run a transformer for its [CLS] token alone: the last block computes one row, where it would compute all.

    Args:
        transformer: open_clip's, of residual attention blocks.
        tokens: [B, L, D], the first is [CLS].
        mask: Additive attention mask [B * heads, L, L], or None.

    Returns:
        [B, D], equal to the first row of `transformer(tokens, mask)`.
    """
    *blocks, last = transformer.resblocks
    if not isinstance(last, ResidualAttentionBlock):
        return transformer(tokens, attn_mask=mask)[:, 0]
    for block in blocks:
        tokens = block(tokens, attn_mask=mask)
    normed, first = last.ln_1(tokens), tokens[:, :1]
    row = None if mask is None else mask[:, :1]
    first = first + last.ls_1(last.attention(normed[:, :1], normed, normed, row))
    return (first + last.ls_2(last.mlp(last.ln_2(first))))[:, 0]


def drop_tokens(tokens: Tensor, keep: Tensor) -> tuple[Tensor, Tensor | None]:
    """Drop removed patches from a sequence; the same as masking them out of every attention, with less work.

    Args:
        tokens: [B, 1 + M, D], the first is [CLS].
        keep: [B, M] True where visible.

    Returns:
        [B, 1 + k, D] with k the largest number of kept patches in the batch, and, where rows keep different numbers, a
        mask [B, 1 + k, 1 + k] that is 0 at real tokens and -inf at padding; None where all keep k.
    """
    counts = keep.sum(1)
    longest, shortest = int(counts.max()), int(counts.min())
    order = keep.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :longest]
    index = F.pad(order + 1, (1, 0))
    kept = tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))
    if longest == shortest:
        return kept, None
    padding = torch.arange(longest + 1, device=keep.device) > counts[:, None]
    mask = torch.zeros_like(padding, dtype=tokens.dtype).masked_fill(padding, float("-inf"))
    return kept, mask[:, None, :].expand(-1, longest + 1, -1)


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The parameters theta of the paper: those of the visual tower, by name, detached copies."""
    return {name: value.detach().clone() for name, value in model.state_dict().items() if name.startswith("visual.")}


def load_parameters(model: nn.Module, parameters: Mapping[str, Tensor]) -> None:
    """Put parameters theta (names as `trainable` gives them) into a model."""
    missing = [name for name in trainable_names(model) if name not in parameters]
    if missing:
        raise UserError(f"{len(missing)} parameters are missing, the first is {missing[0]}")
    result: Any = model.load_state_dict(dict(parameters), strict=False)
    if result.unexpected_keys:
        raise UserError(
            f"{len(result.unexpected_keys)} parameters are unknown here, the first is {result.unexpected_keys[0]}"
        )


def trainable_names(model: nn.Module) -> list[str]:
    """Names of the parameters theta."""
    return [name for name in model.state_dict() if name.startswith("visual.")]
