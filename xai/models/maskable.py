"""The first contract: a classifier that can answer with patches removed."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai.errors import UserError

_NAMED_REFERENCES = ("black", "mean", "blur")


@dataclass(frozen=True)
class Removal:
    """How a patch is removed.

    Args:
        kind: `tokens` (a transformer never sees the patch's token) or `pixels` (the patch is painted over).
        reference: What it is painted over with: `black`, `mean` (the mean the model normalises with), `blur` (the
            image itself, blurred beyond recognition), or a grey level between 0 and 1, as a number or as text; it is
            kept as text. Unused by `tokens`.
    """

    kind: str = "pixels"
    reference: str | float = "mean"

    def __post_init__(self) -> None:
        """Refuse what no model knows."""
        if self.kind not in ("tokens", "pixels"):
            raise UserError(f"removal.kind={self.kind} is unknown: use tokens or pixels")
        if self.reference not in _NAMED_REFERENCES and self.grey is None:
            names = ", ".join(_NAMED_REFERENCES)
            raise UserError(
                f"removal.reference={self.reference} is unknown: use {names}, or a grey level between 0 and 1"
            )
        if self.grey is not None:
            # One text for one level, because what is made is found again by it; + 0.0 takes the sign off zero.
            object.__setattr__(self, "reference", f"{self.grey + 0.0:.15g}")

    @property
    def grey(self) -> float | None:
        """The grey level, where the reference is one."""
        try:
            level = float(self.reference)
        except ValueError:
            return None
        return level if 0 <= level <= 1 else None


class MaskableClassifier(nn.Module, ABC):
    """A classifier `(images [B, 3, H, W], keep [B, M] | None) -> logits [B, C]`.

    `keep[b, m]` is True where patch m is visible; None keeps all. The work is cut in two so that many coalitions of one
    image share what does not depend on them: `encode` runs once an image, `decode` once a coalition.
    """

    grid: tuple[int, int]
    """Patches down and across; M is their product, patches are numbered row by row."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Compute what all coalitions of an image share: [B, ...], one row an image."""

    @abstractmethod
    def decode(self, encoded: Tensor, keep: Tensor | None) -> Tensor:
        """Logits [B, C] of encoded images [B, ...] with the patches `keep` [B, M] visible."""

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Logits [B, C] of images [B, 3, H, W] in [0, 1] with the patches `keep` [B, M] visible."""
        return self.decode(self.encode(images), keep)


def reference_image(images: Tensor, removal: Removal, mean: Tensor) -> Tensor:
    """What shows where a patch is painted over.

    Args:
        images: [B, 3, H, W] in [0, 1].
        removal: The reference asked for.
        mean: [3] channel means of the model's normalisation.

    Returns:
        [B, 3, H, W], or [1, 3, H, W] where it is the same for every image.
    """
    if removal.grey is not None:
        return torch.full_like(images[:1], removal.grey)
    if removal.reference == "black":
        return torch.zeros_like(images[:1])
    if removal.reference == "mean":
        return mean.to(images).reshape(1, 3, 1, 1).expand_as(images[:1])
    return _blur(images)


def _blur(images: Tensor) -> Tensor:
    """Gaussian blur, kernel and sigma both a sixth of the side (37 px at 224), reflected at the border."""
    reach = min(max(1, images.shape[-1] // 12), images.shape[-1] - 1, images.shape[-2] - 1)
    sigma = 2 * reach + 1
    steps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, -1)
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    across = F.conv2d(padded, kernel[:, :, None, :], groups=images.shape[1])
    return F.conv2d(across, kernel[:, :, :, None], groups=images.shape[1])
