"""Attention of the last layer as an explainer (Clark et al. 2019).

With register tokens (Darcet et al. 2024) it is a baseline of SALVAGE (Naouar et al. 2025, section 4).
"""

from collections import deque

import torch
from torch import Tensor

from xai.core.settings import settings
from xai.explainers.registry import ExplainerParams, explainer
from xai.models.attention import attentions, patch_map, transformer
from xai.models.maskable import MaskableClassifier


@settings
class AttentionLastParams(ExplainerParams):
    """The last layer leaves nothing to be set."""


@explainer(
    "attention_last",
    label="Attention, last",
    about="what the class token attends to in the last layer, the same for every class",
    params=AttentionLastParams,
    class_specific=False,
    needs={"attention"},
    passes=lambda params, patches: 1,
)
class AttentionLast:
    """Explains with the attention from the class token to the patches, averaged over heads.

    Where the logits are read from several tokens (a distillation token beside the class token, or an average of
    patches) the map is the mean over these tokens' rows.

    Args:
        classifier: The classifier to explain, on its device.
        params: No settings.

    Raises:
        UserError: Where the classifier is no transformer whose attention is known.
    """

    def __init__(self, classifier: MaskableClassifier, params: AttentionLastParams) -> None:
        # What has no attention is refused here, before anything is computed.
        transformer(classifier)
        self._classifier = classifier

    @torch.no_grad()
    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Shares of attention [B, h, w], at least 0, of images [B, 3, H, W]; `targets` [B] change nothing.

        What class, distillation and register tokens draw is left out: a map adds up to 1 less their shares.
        """
        (last,) = deque(attentions(self._classifier, images), maxlen=1)
        return patch_map(self._classifier, last.mean(1))
