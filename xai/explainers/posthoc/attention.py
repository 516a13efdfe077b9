"""Attention itself as an explainer: of the last layer, and followed through all layers by rollout or by flow."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from xai.core.settings import settings
from xai.explainers.block import check_targets
from xai.explainers.posthoc.traced import OfTransformer
from xai.explainers.registry import ExplainerParams, explainer
from xai.models.attention import attentions, of_patches, patch_map

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


@settings
class AttentionFlowParams(ExplainerParams):
    """Which bound of the flow is the map.

    Args:
        bound: `widest` is the flow along the best single path, and so below the maximum flow; `cut` is what the layers
            let through if none of them had to be shared, and so above it.
    """

    bound: Literal["widest", "cut"] = "widest"


@explainer(
    "attention_flow",
    label="Attn. flow bound",
    about="how much attention can flow from the class token to a patch at least, by its widest path; for every class",
    params=AttentionFlowParams,
    **_OF_IMAGE,
)
class AttentionFlow(OfTransformer[AttentionFlowParams]):
    """Explains with a bound of the maximum flow from the tokens that are read to each patch.

    The network of the paper (Abnar and Zuidema 2020) has an edge from each token after a layer to each before it, as
    wide as the attention, the mean over heads, of which half is the residual connection: 0.5 A + 0.5 I. Its maximum
    flow costs a solver's run for every patch of every image, O(L^2 N^4) together. These bounds cost O(L N^2) an image,
    and both are exact where a patch has one path only.
    """

    @torch.no_grad()
    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Bounds [B, h, w] in [0, 1] of images [B, 3, H, W]; `targets` [B] change nothing."""
        check_targets(images, targets)
        layers = [attention.mean(1) for attention in attentions(self.classifier, images)]
        through = widest_path if self.params.bound == "widest" else cut_bound
        sources = range(*self.classifier.read.indices(layers[0].shape[-1]))
        # A row for each token that is read, and no other: all pairs would cost N times as much.
        rows = torch.stack([through(layers, source) for source in sources], 1)
        return of_patches(self.classifier, rows.mean(1))


def widest_path(layers: Iterable[Tensor], source: int) -> Tensor:
    """Lower bound of the maximum flow: over all paths from a token after the last layer, the widest narrowest edge.

    A path that is w wide at its narrowest carries a flow of w, so the maximum flow is at least that.

    Args:
        layers: Attention W [B, N, N] of each layer, rows adding up to 1, first layer first; an edge is 0.5 W + 0.5 I.
        source: The token.

    Returns:
        [B, N]: of each token that entered the first layer.
    """
    return _backwards(layers, source, lambda passing: passing.amax(1))


def cut_bound(layers: Iterable[Tensor], source: int) -> Tensor:
    """Upper bound of the maximum flow: what edges let through layer by layer, if paths to other tokens took nothing.

    No more can leave a token than reaches it, nor more pass an edge than it is wide: u(k) = sum over i of min(u(i),
    A(i, k)), and never more than 1, which is all that leaves the source. Arguments and result as of `widest_path`.
    """
    return _backwards(layers, source, lambda passing: passing.sum(1).clamp(max=1))


def _backwards(layers: Iterable[Tensor], source: int, joined: Callable[[Tensor], Tensor]) -> Tensor:
    """From the last layer to the first: what passes each edge [B, N, N], and `joined` over where it comes from."""
    edges = list(layers)
    reached = torch.zeros_like(edges[0][:, 0])
    reached[:, source] = 1
    for attention in reversed(edges):
        width = 0.5 * attention + 0.5 * torch.eye(attention.shape[-1]).to(attention)
        reached = joined(torch.minimum(reached[:, :, None], width))
    return reached
