"""The explainer of Learn to Rank: frozen features, and a decoder that draws one map for an image and a class."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xai.core.calling import captum_names
from xai.core.errors import UserError
from xai.models.dpt import DecoderParams, DptDecoder
from xai.models.evidence import Look, evidence
from xai.models.features import FrozenFeatures
from xai.models.maskable import MaskableClassifier


class DenseExplainer(nn.Module):
    """Images and classes to maps of pixels.

    Args:
        features: The frozen backbone.
        params: The decoder.
        classes: C.
        classifier: What is explained; needed where the decoder looks at its gradient. It is no part of the state.
        mean: [3] of the classifier's input normalisation.

    Raises:
        UserError: A factor of the decoder's that leaves nothing of a level, or factors for other levels than these.
    """

    def __init__(
        self,
        features: FrozenFeatures,
        params: DecoderParams,
        classes: int,
        classifier: MaskableClassifier | None = None,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        super().__init__()
        if params.gradient and classifier is None:
            raise ValueError("a decoder that looks at the gradient of the classifier needs the classifier")
        self.look: Look = params.gradient
        # In a list, so that it is neither trained nor written with the explainer.
        self.explained = [classifier] if params.gradient and classifier is not None else []
        self.mean = tuple(mean)
        self.features, self.classes = features, classes
        self.decoder = DptDecoder(params, features.channels, classes)
        for level, grid, factor in zip(features.levels, features.grids, params.resize, strict=True):
            if params.resampling == "bilinear" and min(grid) * factor < 1:
                raise UserError(
                    f"decoder.resize={list(params.resize)} leaves nothing of level {level}, which has {grid[0]} x "
                    f"{grid[1]} cells: use a factor of at least {1 / min(grid):g} there"
                )

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Maps [B, H, W] of images [B, 3, H, W] in [0, 1] for the classes `targets` [B]; higher is more important."""
        return self.decoder(*self.seen(images, targets))

    def seen(self, images: Tensor, targets: Tensor) -> tuple[list[Tensor], Tensor, Tensor, Tensor | None]:
        """All that the decoder is given: features, classes, images and, where it looks at the gradient, that."""
        shown = None
        for classifier in self.explained:
            shown = evidence(self.look, classifier, images, targets, torch.tensor(self.mean))
        return self.features(images), targets, images, shown

    @captum_names
    @torch.no_grad()
    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """As `forward`, without gradients; nothing is drawn; UserError: a class that the explainer does not know."""
        check_classes(targets, self.classes)
        return self(images, targets)


def check_classes(targets: Tensor, classes: int) -> None:
    """Refuse class indices out of range; UserError: with the first of them."""
    wrong = targets[(targets < 0) | (targets >= classes)]
    if len(wrong):
        raise UserError(f"class {int(wrong[0])} is unknown: the classifier has {classes}, 0 to {classes - 1}")
