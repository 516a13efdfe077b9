"""Attention rollout weighted by gradients, so that it is of a class (Gildenblat 2020, "vit-explain")."""

import torch
from torch import Tensor

from xai.explainers.posthoc.traced import TracedExplainer, traced
from xai.explainers.registry import ExplainerParams, explainer
from xai.models.attention import patch_map


@explainer(
    "gradient_rollout",
    label="Gradient rollout",
    about="attention times its gradient, followed through all layers from the class token to the patches",
    needs={"attention", "gradients"},
    passes=lambda params, patches: 3,
)
class GradientRollout(TracedExplainer[ExplainerParams]):
    """Explains with rollout of what of each layer's attention spoke for the class."""

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
