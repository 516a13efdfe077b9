"""Attention of the last layer as an explainer (Clark et al. 2019).

With register tokens (Darcet et al. 2024) it is a baseline of SALVAGE (Naouar et al. 2025, section 4).
"""

from collections import deque
from collections.abc import Iterable

import torch
from torch import Tensor

from xai.explainers.posthoc.traced import OfTransformer
from xai.explainers.registry import ExplainerParams, explainer
from xai.models.attention import attentions, patch_map


@explainer(
    "attention_last",
    label="Attention, last",
    about="what the class token attends to in the last layer, the same for every class",
    class_specific=False,
    needs={"attention"},
    passes=lambda params, patches: 1,
)
class AttentionLast(OfTransformer[ExplainerParams]):
    """Explains with the attention from the class token to the patches, averaged over heads.

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
