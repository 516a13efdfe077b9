"""What the tokens of a transformer attend to, layer by layer."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.models import packed
from xai.models.maskable import MaskableClassifier
from xai.models.packed import TransformerClassifier


class Trace(NamedTuple):
    """A forward pass with what it came by.

    Attributes:
        logits: [B, C].
        attention: Of each layer, the first one first, [B, heads, L, L]: row i is what token i attends to and adds up to
            1. Where gradients are on, the logits can be differentiated with respect to every one of them.
        tokens: After each layer, [B, L, D].
    """

    logits: Tensor
    attention: list[Tensor]
    tokens: list[Tensor]


def transformer(classifier: MaskableClassifier) -> TransformerClassifier:
    """The classifier as a transformer; UserError: it is none that is known here."""
    if isinstance(classifier, TransformerClassifier):
        return classifier
    raise UserError(
        "this classifier shows no attention: use a CLIP or a ViT of timm, or an explainer that "
        "needs none, such as saliency"
    )


def attentions(classifier: MaskableClassifier, images: Tensor) -> Iterator[Tensor]:
    """Attention probabilities of every layer in turn, nothing removed; a layer is run when it is asked for.

    One layer of many images may be large, so what is not kept is not held. Gradients flow where the caller has them on.

    Args:
        classifier: A transformer.
        images: [B, 3, H, W] in [0, 1].

    Yields:
        [B, heads, L, L], at least in float32: row i is what token i attends to and adds up to 1. The tokens are class,
        distillation and register tokens where there are any, then the M patches.

    Raises:
        UserError: As `embedded`.
    """
    layers = packed.layers(transformer(classifier).blocks)
    tokens, inputs = embedded(classifier, images)
    sequences = (tokens.shape[0], tokens.shape[1])
    tokens, inputs = tokens.flatten(0, 1), inputs.flatten(0, 1)
    for number, layer in enumerate(layers):
        if number:
            tokens = packed.run(layers[number - 1 : number], tokens, inputs, [sequences])
            inputs = layer.attention_input(tokens)
        yield _probabilities(layer, inputs.unflatten(0, sequences))


def embedded(classifier: MaskableClassifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """What enters the first layer: tokens [B, L, D], and its queries, keys and values [B, L, 3 D].

    Raises:
        UserError: For a classifier without attention, images of another size than it takes, or a network whose own
            logits are not those of its blocks and its head, as where somebody has set a hook on a block.
    """
    model = transformer(classifier)
    # The first of the versions is the image; another would be what removed patches show.
    tokens, inputs = (version[:, 0] for version in model.encode(images))
    if not model.packs:
        raise UserError(
            "this network's own logits are not those of its blocks (a hook or a changed block?), so its attention "
            "would be another network's: use an explainer that needs no attention, such as saliency"
        )
    return tokens, inputs


def trace(classifier: MaskableClassifier, images: Tensor) -> Trace:
    """Run a transformer on whole images and keep attention and tokens of every layer.

    Attention is computed as probabilities, and not fused, in this pass and nowhere else: no hook is set and no module
    is changed. With gradients on, everything up to the last layer is held until the trace is let go.

    Args:
        classifier: A transformer.
        images: [B, 3, H, W] in [0, 1].

    Raises:
        UserError: As `embedded`.
    """
    model = transformer(classifier)
    tokens, inputs = embedded(model, images)
    attention, after = [], []
    for number, layer in enumerate(packed.layers(model.blocks)):
        if number:
            inputs = layer.attention_input(tokens)
        weights = _probabilities(layer, inputs)
        if torch.is_grad_enabled() and not weights.requires_grad:
            weights.requires_grad_()
        value = inputs.unflatten(2, (3, layer.heads, -1))[:, :, 2].transpose(1, 2)
        joined = (weights.to(value.dtype) @ value).transpose(1, 2).flatten(2)
        tokens = tokens + layer.attention_output(joined)
        tokens = tokens + layer.feed_forward(tokens)
        attention.append(weights)
        after.append(tokens)
    return Trace(logits_of(model, tokens), attention, after)


def logits_of(classifier: TransformerClassifier, tokens: Tensor) -> Tensor:
    """Logits [B, C] that a network would give if its last layer gave the tokens [B, L, D]."""
    wanted = tokens[:, : classifier.read.stop]
    return classifier.read_out(wanted.flatten(0, 1), [(tokens.shape[0], tokens.shape[1])])


def patch_map(classifier: MaskableClassifier, weights: Tensor) -> Tensor:
    """How much the tokens that the logits are read from draw from each patch, the mean over these tokens.

    Args:
        classifier: A transformer.
        weights: [B, L, L], what each token (row) draws from each.

    Returns:
        [B, h, w]. What is drawn from other tokens than patches is left out.
    """
    read = transformer(classifier).read
    return of_patches(classifier, weights[:, read].mean(1))


def of_patches(classifier: MaskableClassifier, tokens: Tensor) -> Tensor:
    """Numbers of all tokens [B, L], of which the patches are the last, as a map [B, h, w]."""
    return tokens[:, -classifier.players :].unflatten(1, classifier.grid)


def _probabilities(layer: packed.Layer, inputs: Tensor) -> Tensor:
    """From queries, keys and values [B, L, 3 D] to [B, heads, L, L]."""
    query, key, _ = inputs.unflatten(2, (3, layer.heads, -1)).transpose(1, 3).unbind(2)
    query, key = layer.query_norm(query), layer.key_norm(key)
    scores = query @ key.mT / query.shape[-1] ** 0.5
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
