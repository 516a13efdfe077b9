"""Attention rollout as an explainer (Abnar and Zuidema 2020)."""

from collections.abc import Iterable

import torch
from torch import Tensor

from xai.explainers.posthoc.attention_last import AttentionLast
from xai.explainers.registry import explainer


@explainer(
    "attention_rollout",
    label="Attn. rollout",
    about="attention followed through all layers from the class token to the patches, the same for every class",
    class_specific=False,
    needs={"attention"},
    passes=lambda params, patches: 1,
)
class AttentionRollout(AttentionLast):
    """Explains with the product of all layers' attention, the mean over heads, and else as `AttentionLast`."""

    def joined(self, layers: Iterable[Tensor]) -> Tensor:
        """The rollout of all layers."""
        return rollout(layers)


def rollout(layers: Iterable[Tensor]) -> Tensor:
    """Equation 1 of the paper: the product of A(L) ... A(2) A(1), where A = 0.5 W + 0.5 I.

    Half of each layer is its residual connection.

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
