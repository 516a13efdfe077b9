"""LeGrad (Bousselham et al., ICCV 2025) as an explainer: how the scores of all layers depend on their attention."""

from typing import Literal

import torch
from torch import Tensor

from xai.core.settings import Count, settings
from xai.explainers.posthoc.traced import TracedExplainer, target_logits
from xai.explainers.registry import ExplainerParams, explainer
from xai.models.attention import logits_of, of_patches, trace
from xai.models.packed import TransformerClassifier


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
    needs={"attention", "gradients"},
    passes=lambda params, patches: 3,
)
class LeGrad(TracedExplainer[LeGradParams]):
    """Explains with the positive part of each layer's gradient, the mean over layers, heads and tokens that attend.

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
