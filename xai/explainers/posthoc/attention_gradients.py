"""Gradients of attention: Chefer's relevance and a rollout of a class, through all layers; LeGrad, layer by layer."""

from typing import Any, Literal

import torch
from torch import Tensor

from xai.core.settings import Count, settings
from xai.explainers.posthoc.traced import TracedExplainer, target_logits, traced
from xai.explainers.registry import ExplainerParams, explainer
from xai.models.attention import logits_of, of_patches, patch_map, trace
from xai.models.packed import TransformerClassifier

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


@settings
class LeGradParams(ExplainerParams):
    """Which layers are looked at, and how each is asked for its score.

    Args:
        layers: The last so many; null takes all.
        tokens: What the score of a layer is read from: `mean` of all its tokens, as the published code does for CLIP,
            or those that the network itself reads (`read`), such as the class token.
    """

    layers: Count | None = None
    tokens: Literal["mean", "read"] = "mean"


@explainer(
    "legrad",
    label="LeGrad",
    about="gradients of every layer's score for the class with respect to that layer's attention",
    params=LeGradParams,
    **_COST,
)
class LeGrad(TracedExplainer[LeGradParams]):
    """LeGrad (Bousselham et al., ICCV 2025): how the scores of all layers depend on their attention.

    Explains with the positive part of each layer's gradient, the mean over layers, heads and tokens that attend.

    The published code stretches each map to [0, 1]; here maps are left as they come. Registers and class tokens are
    among those that attend, and not among those that are attended to.
    """

    def maps(self, images: Tensor, targets: Tensor) -> Tensor:
        """Equations of section 3.2 of the paper: the mean over layers of `sensitivity`."""
        passed = trace(self.classifier, images)
        layers = list(zip(passed.attention, passed.tokens, strict=True))[-(self.params.layers or 0) :]
        found = []
        for attention, tokens in layers:
            score = target_logits(score_of(self.classifier, tokens, self.params.tokens), targets)
            # A layer's score depends on earlier attention too; asked for is that of its own layer, a block away.
            (gradient,) = torch.autograd.grad(score, attention, retain_graph=True)
            found.append(sensitivity(gradient))
        return of_patches(self.classifier, torch.stack(found).mean(0))


def sensitivity(gradient: Tensor) -> Tensor:
    """A layer's part of the map, [B, heads, N, N] to [B, N]: mean over heads and attending tokens of relu(gradient)."""
    return gradient.relu().mean((1, 2))


def score_of(classifier: TransformerClassifier, tokens: Tensor, read: str) -> Tensor:
    """Logits [B, C] that the network's head gives for the tokens [B, L, D] of any layer.

    With `read="mean"` all tokens that the head looks at are the mean over the layer's; a head that averages patches by
    itself is left to do so.
    """
    first = classifier.read.stop
    if read == "mean" and first is not None:
        tokens = tokens.mean(1, keepdim=True).expand(-1, first, -1)
    return logits_of(classifier, tokens)
