"""Attention rollout as an explainer (Abnar and Zuidema 2020)."""

from collections.abc import Iterable

import torch
from torch import Tensor

from xai.core.settings import settings
from xai.explainers.registry import ExplainerParams, explainer
from xai.models.attention import attentions, patch_map, transformer
from xai.models.maskable import MaskableClassifier


@settings
class AttentionRolloutParams(ExplainerParams):
    """Rollout leaves nothing to be set: it takes the mean over heads, as in the paper."""


@explainer(
    "attention_rollout",
    label="Attn. rollout",
    about="attention followed through all layers from the class token to the patches, the same for every class",
    params=AttentionRolloutParams,
    class_specific=False,
    needs={"attention"},
    passes=lambda params, patches: 1,
)
class AttentionRollout:
    """Explains with the product of all layers' attention, the residual connection counted as half of each layer.

    Where the logits are read from several tokens (a distillation token beside the class token, or an average of
    patches) the map is the mean over these tokens' rows.

    Args:
        classifier: The classifier to explain, on its device.
        params: No settings.

    Raises:
        UserError: Where the classifier is no transformer whose attention is known.
    """

    def __init__(self, classifier: MaskableClassifier, params: AttentionRolloutParams) -> None:
        # What has no attention is refused here, before anything is computed.
        transformer(classifier)
        self._classifier = classifier

    @torch.no_grad()
    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Shares of attention [B, h, w], at least 0, of images [B, 3, H, W]; `targets` [B] change nothing.

        What flows to class, distillation and register tokens is left out: a map adds up to 1 less their shares.
        """
        layers = (attention.mean(1) for attention in attentions(self._classifier, images))
        return patch_map(self._classifier, rollout(layers))


def rollout(layers: Iterable[Tensor]) -> Tensor:
    """Equation 1 of the paper: the product of A(L) ... A(2) A(1), where A = 0.5 W + 0.5 I.

    Args:
        layers: W [B, N, N] of each layer for N tokens, rows adding up to 1, the first layer first; one at least.

    Returns:
        [B, N, N]: row i is what token i has, after the last layer, of each token that entered the first.
    """
    flow = None
    for attention in layers:
        # Rows of both add up to 1, so those of A do without being normalised.
        mixed = 0.5 * attention + 0.5 * torch.eye(attention.shape[-1]).to(attention)
        # Rounding in half precision would add up over the layers.
        with torch.autocast(attention.device.type, enabled=False):
            flow = mixed if flow is None else mixed @ flow
    if flow is None:
        raise ValueError("rollout needs the attention of one layer at least, and was given none")
    return flow
