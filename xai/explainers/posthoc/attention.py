"""Attention itself as an explainer: that of the last layer, and that of all layers followed through (rollout)."""

from collections import deque
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from xai.explainers.posthoc.traced import OfTransformer
from xai.explainers.registry import ExplainerParams, explainer
from xai.models.attention import attentions, patch_map

_OF_IMAGE: dict[str, Any] = {"class_specific": False, "needs": {"attention"}, "passes": lambda params, patches: 1}


@explainer(
    "attention_last",
    label="Attention, last",
    about="what the class token attends to in the last layer, the same for every class",
    **_OF_IMAGE,
)
class AttentionLast(OfTransformer[ExplainerParams]):
    """The attention from the class token to the patches, averaged over heads (Clark et al. 2019).

    With register tokens (Darcet et al. 2024) it is a baseline of SALVAGE (Naouar et al. 2025, section 4).

    Where the logits are read from several tokens (a distillation token beside the class token, or an average of
    patches) the map is the mean over these tokens' rows.
    """

    @torch.no_grad()
    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Shares of attention [B, h, w], at least 0, of images [B, 3, H, W]; `targets` [B] change nothing.

        What class, distillation and register tokens draw is left out: a map adds up to 1 less their shares.
        """
        layers = (attention.mean(1) for attention in attentions(self.classifier, images))
        return patch_map(self.classifier, self.joined(layers))

    def joined(self, layers: Iterable[Tensor]) -> Tensor:
        """One matrix [B, N, N] of those of all layers, the first layer first: here the last."""
        (last,) = deque(layers, maxlen=1)
        return last


@explainer(
    "attention_rollout",
    label="Attn. rollout",
    about="attention followed through all layers from the class token to the patches, the same for every class",
    **_OF_IMAGE,
)
class AttentionRollout(AttentionLast):
    """Rollout (Abnar and Zuidema 2020): the product of all layers' attention, and else as `AttentionLast`."""

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
