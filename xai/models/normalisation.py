"""The input normalisation of a network, and what removed patches show."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xai.models.maskable import Removal, reference_image


class Normalisation(nn.Module):
    """Images in [0, 1] to what a network was trained on.

    Args:
        mean: Channel means.
        std: Channel deviations.
        removal: How patches are removed.
        reference: What a removed patch shows, where `pixels` removal knows no name for it: [3, H, W], or of a shape
            that broadcasts to it, in [0, 1].
    """

    mean: Tensor
    std: Tensor
    reference: Tensor | None

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], removal: Removal, reference: Tensor | None = None
    ) -> None:
        super().__init__()
        self.removal = removal
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1), persistent=False)
        self.register_buffer("reference", reference, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images [B, 3, H, W]."""
        return (images - self.mean) / self.std

    def versions(self, images: Tensor) -> list[Tensor]:
        """The normalised images [B, 3, H, W] and, for `pixels` removal, their reference, [1 or B, 3, H, W]."""
        if self.removal.kind == "tokens":
            return [self(images)]
        return [self(images), self(reference_image(images, self.removal, self.mean.flatten(), self.reference))]
