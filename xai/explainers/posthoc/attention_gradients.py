"""Attention weighted by its gradients, followed through all layers: Chefer's relevance, and a rollout of a class."""

from typing import Any

import torch
from torch import Tensor

from xai.explainers.posthoc.traced import TracedExplainer, traced
from xai.explainers.registry import ExplainerParams, explainer
from xai.models.attention import patch_map

_COST: dict[str, Any] = {"needs": {"attention", "gradients"}, "passes": lambda params, patches: 3}


@explainer(
    "chefer",
    label="Chefer relevance",
    about="what of each layer's attention spoke for the class, added up through all layers; no rules are needed",
    **_COST,
)
class Chefer(TracedExplainer[ExplainerParams]):
    """The relevance of the patches to the tokens that the logits are read from (Chefer, Gur and Wolf, ICCV 2021).

    All layers count, as in the paper; its published code for CLIP looks at the last one unless told otherwise.
    """

    def maps(self, images: Tensor, targets: Tensor) -> Tensor:
        """See `relevance`."""
        return patch_map(self.classifier, relevance(traced(self.classifier, images, targets)))


def relevance(layers: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Equations 1, 5 and 6 of the paper for self-attention: R = I; then, layer by layer, R = R + E R.

    E is the mean over heads of relu(gradient x attention). In place of attention it may be told what else is to be
    weighted by the gradient.

    Args:
        layers: Attention and the gradient of the class's logit towards it, [B, heads, N, N] each; first layer first.

    Returns:
        [B, N, N]: row i is how relevant each token that entered the first layer is to token i after the last.
    """
    found = torch.eye(layers[0][0].shape[-1]).to(layers[0][0])
    for attention, gradient in layers:
        found = found + (gradient * attention).relu().mean(1) @ found
    return found


@explainer(
    "gradient_rollout",
    label="Gradient rollout",
    about="attention times its gradient, followed through all layers from the class token to the patches",
    **_COST,
)
class GradientRollout(TracedExplainer[ExplainerParams]):
    """Rollout of what of each layer's attention spoke for the class (Gildenblat 2020, "vit-explain")."""

    def maps(self, images: Tensor, targets: Tensor) -> Tensor:
        """See `gradient_rollout`."""
        return patch_map(self.classifier, gradient_rollout(traced(self.classifier, images, targets)))


def gradient_rollout(layers: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The product of G(L) ... G(1): G is I + relu(mean over heads of gradient x attention), its rows adding up to 1.

    The published code also drops the nine tenths of each G that are smallest, among all images of a batch together;
    here nothing is dropped. The residual connection counts as much as one unit of attention times gradient: where the
    gradients are small, a layer leaves the map nearly as it is.

    Args:
        layers: Attention and the gradient of the class's logit towards it, [B, heads, N, N] each; first layer first.

    Returns:
        [B, N, N]: row i is what token i has, after the last layer, of each token that entered the first.
    """
    flow = torch.eye(layers[0][0].shape[-1]).to(layers[0][0])
    for attention, gradient in layers:
        mixed = (attention * gradient).mean(1).relu() + torch.eye(attention.shape[-1]).to(attention)
        flow = mixed / mixed.sum(-1, keepdim=True) @ flow
    return flow
