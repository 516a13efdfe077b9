"""What the tokens of a transformer attend to, layer by layer."""

from collections.abc import Iterator

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.models import packed
from xai.models.maskable import MaskableClassifier
from xai.models.transformer import TransformerClassifier


def transformer(classifier: MaskableClassifier) -> TransformerClassifier:
    """The classifier as a transformer.

    Raises:
        UserError: It is none that is known here.
    """
    if isinstance(classifier, TransformerClassifier):
        return classifier
    raise UserError(
        f"a {type(classifier).__name__} shows no attention: use a CLIP or a ViT of timm, or an explainer that "
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
        UserError: For a classifier without attention, or images of another size than it takes.
    """
    layers = packed.layers(transformer(classifier).blocks)
    # The first of the versions is the image; another would be what removed patches show.
    tokens, inputs = (version[:, 0] for version in classifier.encode(images))
    sequences = (tokens.shape[0], tokens.shape[1])
    tokens, inputs = tokens.flatten(0, 1), inputs.flatten(0, 1)
    for number, layer in enumerate(layers):
        if number:
            tokens = packed.run(layers[number - 1 : number], tokens, inputs, [sequences])
            inputs = layer.attention_input(tokens)
        yield _probabilities(layer, inputs.unflatten(0, sequences))


def patch_map(classifier: MaskableClassifier, weights: Tensor) -> Tensor:
    """How much the tokens that the logits are read from draw from each patch, the mean over these tokens.

    Args:
        classifier: A transformer.
        weights: [B, L, L], what each token (row) draws from each.

    Returns:
        [B, h, w]. What is drawn from other tokens than patches is left out.
    """
    read = transformer(classifier).read
    return weights[:, read, -classifier.players :].mean(1).unflatten(1, classifier.grid)


def _probabilities(layer: packed.Layer, inputs: Tensor) -> Tensor:
    """From queries, keys and values [B, L, 3 D] to [B, heads, L, L]."""
    query, key, _ = inputs.unflatten(2, (3, layer.heads, -1)).transpose(1, 3).unbind(2)
    query, key = layer.query_norm(query), layer.key_norm(key)
    scores = query @ key.mT / query.shape[-1] ** 0.5
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
