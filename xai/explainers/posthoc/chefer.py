"""Chefer's relevance in its generic form, from attention and its gradients alone (Chefer, Gur and Wolf, ICCV 2021)."""

import torch
from torch import Tensor

from xai.explainers.posthoc.traced import TracedExplainer, traced
from xai.explainers.registry import ExplainerParams, explainer
from xai.models.attention import patch_map


@explainer(
    "chefer",
    label="Chefer relevance",
    about="what of each layer's attention spoke for the class, added up through all layers; no rules are needed",
    needs={"attention", "gradients"},
    passes=lambda params, patches: 3,
)
class Chefer(TracedExplainer[ExplainerParams]):
    """Explains with the relevance of the patches to the tokens that the logits are read from.

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
