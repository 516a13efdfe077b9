"""The first contract: a classifier that can answer with patches removed. Any network can, that is painted over."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Literal, NamedTuple, TypeVar, get_args

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from xai.core.errors import UserError
from xai.core.settings import FieldError, settings

T = TypeVar("T", bound="MaskableClassifier")
Kind = Literal["tokens", "pixels"]
Reference = Literal["black", "mean", "blur"]
References = Annotated[tuple[Reference, ...], Field(min_length=1)]
PIXELS_A_TOKEN = 256
"""What the costs of passes are told in: an image of 16 x 16 px is one token."""
REFERENCES: tuple[str, ...] = get_args(Reference)
"""What a removed part of an image may show, by name."""


@settings
class Removal:
    """How a patch is removed.

    Args:
        kind: `tokens` (a transformer never sees the patch's token) or `pixels` (the patch is painted over).
        reference: What it is painted over with: `black`, `mean` (the mean the model normalises with), `blur` (the
            image itself, blurred beyond recognition), or a grey level between 0 and 1, as a number or as text; it is
            kept as text. Unused by `tokens`.
    """

    kind: Kind = "pixels"
    reference: str | float = "mean"

    def __post_init__(self) -> None:
        """Refuse what no model knows."""
        if self.reference not in REFERENCES and self.grey is None:
            raise FieldError("reference", f"is unknown: use {', '.join(REFERENCES)}, or a grey level between 0 and 1")
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


Encoded = tuple[Tensor, ...]
"""What all coalitions of an image share, each tensor [B, ...] with one row an image."""


class Rows(NamedTuple):
    """N coalitions that are decoded together, in the order of their sizes.

    `keep` [N, M] is True where a patch is visible, `owner` [N] says to which of the encoded images a coalition belongs,
    and `groups` holds (rows, patches kept) of each size: it is known on the host, so no device is waited for.
    """

    keep: Tensor
    owner: Tensor
    groups: Sequence[tuple[int, int]]


def class_logits(outputs: Tensor) -> Tensor:
    """What a head gives as one logit a class.

    A binary classifier has a single logit z and a sigmoid. The pair (-z/2, z/2) under a softmax is the same
    distribution, and it leaves all that asks for logits of C classes as it is: games, explainers, metrics.

    Args:
        outputs: [..., C], or [..., 1] for a binary classifier.

    Returns:
        [..., C], C >= 2.
    """
    return outputs if outputs.shape[-1] > 1 else torch.cat([-outputs / 2, outputs / 2], dim=-1)


def sort_rows(keep: Tensor) -> tuple[Tensor, list[tuple[int, int]]]:
    """The order that sorts coalitions [N, M] by size, [N], and the groups of one size: (rows, patches kept)."""
    sizes, order = keep.sum(1).sort(stable=True)
    kept, rows = sizes.unique_consecutive(return_counts=True)
    return order, list(zip(rows.tolist(), kept.tolist(), strict=True))


class MaskableClassifier(nn.Module, ABC):
    """A classifier `(images [B, 3, H, W], keep [B, M] | None) -> logits [B, C]`.

    `keep[b, m]` is True where patch m is visible; None keeps all. The work is cut in two so that many coalitions of one
    image share what does not depend on them: `encode` runs once an image, `decode` once a coalition.
    """

    grid: tuple[int, int]
    """Patches down and across; M is their product, patches are numbered row by row."""
    foreign: bool = True
    """Whether nobody here has built the network: it is run by one thread at a time, and its fast pass is checked."""

    @property
    def players(self) -> int:
        """M, the number of patches."""
        return self.grid[0] * self.grid[1]

    @abstractmethod
    def encode(self, images: Tensor) -> Encoded:
        """Compute what all coalitions of images [B, 3, H, W] in [0, 1] share."""

    @abstractmethod
    def decode(self, encoded: Encoded, rows: Rows) -> Tensor:
        """Logits [N, C] of N coalitions of encoded images."""

    @abstractmethod
    def cost(self, kept: int) -> int:
        """About how many tokens a coalition of `kept` patches costs to decode; an image of 16 x 16 px counts as one."""

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Logits [B, C] of images [B, 3, H, W] in [0, 1] with the patches `keep` [B, M] visible.

        Raises:
            ValueError: Where `keep` is of another shape.
        """
        batch = len(images)
        if keep is not None and keep.shape != (batch, self.players):
            raise ValueError(f"keep is {list(keep.shape)}, the classifier needs {[batch, self.players]}")
        encoded = self.encode(images)
        if keep is None:
            everything = torch.ones(batch, self.players, dtype=torch.bool, device=images.device)
            owner = torch.arange(batch, device=images.device)
            return self.decode(encoded, Rows(everything, owner, [(batch, self.players)]))
        order, groups = sort_rows(keep)
        logits = self.decode(encoded, Rows(keep[order], order, groups))
        return logits[order.argsort()]


def of_ours(classifier: T) -> T:
    """A classifier whose network is built here, as its library built it."""
    classifier.foreign = False
    return classifier


def check_size(images: Tensor, size: Sequence[int]) -> None:
    """Refuse images [B, 3, H, W] of another size (H, W) than a network was built for.

    Raises:
        UserError: Where they are; another grid may have as many patches, and the numbers would mean nothing.
    """
    if tuple(images.shape[-2:]) != tuple(size):
        raise UserError(
            f"images of {images.shape[-2]} x {images.shape[-1]} px do not fit a network of {size[0]} x {size[1]}: "
            "resize them, or build the network for their size"
        )


def reference_image(images: Tensor, removal: Removal, mean: Tensor, given: Tensor | None = None) -> Tensor:
    """What shows where a patch is painted over.

    Args:
        images: [B, 3, H, W] in [0, 1].
        removal: The reference asked for.
        mean: [3] channel means of the model's normalisation.
        given: A reference of the user's own, of a shape that broadcasts to [1, 3, H, W]; it comes before `removal`.

    Returns:
        [B, 3, H, W], or [1, 3, H, W] where it is the same for every image.
    """
    if given is not None:
        try:
            return given.to(images).expand_as(images[:1])
        except RuntimeError:
            raise UserError(
                f"the reference is {list(given.shape)}: it must broadcast to {[1, *images.shape[1:]]}"
            ) from None
    if removal.grey is not None:
        return torch.full_like(images[:1], removal.grey)
    if removal.reference == "black":
        return torch.zeros_like(images[:1])
    if removal.reference == "mean":
        return mean.to(images).reshape(1, 3, 1, 1).expand_as(images[:1])
    return _blur(images)


def exact(values: Tensor) -> AbstractContextManager[None]:
    """Without autocast on a tensor's device, where that has it at all; that of shapes without numbers has not."""
    device = values.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


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


def _blur(images: Tensor) -> Tensor:
    """Gaussian blur, kernel and sigma both a sixth of the side (37 px at 224), reflected at the border."""
    reach = min(max(1, images.shape[-1] // 12), images.shape[-1] - 1, images.shape[-2] - 1)
    sigma = 2 * reach + 1
    steps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, -1)
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    with exact(images):  # in half precision it would show bands, and be of another kind than the images
        across = F.conv2d(padded, kernel[:, :, None, :], groups=images.shape[1])
        return F.conv2d(across, kernel[:, :, :, None], groups=images.shape[1])


class PaintedClassifier(MaskableClassifier):
    """A network, a CNN for example, that answers for images with patches painted over; it is put into evaluation mode.

    Args:
        network: Normalised images [B, 3, H, W] to logits [B, C]; one of a single output is a binary classifier, see
            `class_logits`.
        grid: Patches down and across; they must divide the image's sides.
        mean: Channel means of the network's input normalisation.
        std: Channel deviations of it.
        removal: The reference to paint with.
        reference: A reference of one's own, in [0, 1], that broadcasts to [3, H, W].

    Raises:
        UserError: For `tokens` removal, which needs a transformer, or a grid without patches.
    """

    def __init__(
        self,
        network: nn.Module,
        grid: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        removal: Removal | None = None,
        reference: Tensor | None = None,
    ) -> None:
        super().__init__()
        removal = removal or Removal()
        if removal.kind != "pixels":
            raise UserError(
                f"removal.kind={removal.kind} needs a transformer whose tokens can be dropped: use pixels for "
                f"{type(network).__name__}"
            )
        if min(grid) < 1:
            raise UserError(f"a grid of {grid[0]} x {grid[1]} has no patches: it needs at least 1 x 1")
        # Convolutions are fastest with channels last, and a network takes what its input has.
        has_convolutions = any(isinstance(module, nn.Conv2d) for module in network.modules())
        self._format = torch.channels_last if has_convolutions else torch.contiguous_format
        self.network = network.to(memory_format=self._format)
        self.grid = grid
        self.normalisation = Normalisation(mean, std, removal, reference)
        self._pixels = 0
        self.eval()

    def encode(self, images: Tensor) -> Encoded:
        """The normalised images and their references, both [B, 3, H, W]."""
        height, width = images.shape[-2:]
        if height % self.grid[0] or width % self.grid[1]:
            raise UserError(f"a grid of {self.grid[0]} x {self.grid[1]} does not divide an image of {height} x {width}")
        self._pixels = height * width
        versions = [version.contiguous(memory_format=self._format) for version in self.normalisation.versions(images)]
        return tuple(version.expand_as(images) for version in versions)

    def decode(self, encoded: Encoded, rows: Rows) -> Tensor:
        """Logits [N, C] of N coalitions of encoded images."""
        images, reference = encoded
        height, width = images.shape[-2:]
        visible = rows.keep.unflatten(1, self.grid)[:, None]
        visible = visible.repeat_interleave(height // self.grid[0], 2).repeat_interleave(width // self.grid[1], 3)
        painted = torch.where(visible, images[rows.owner], reference[rows.owner])
        return class_logits(self.network(painted.contiguous(memory_format=self._format)))

    def cost(self, kept: int) -> int:
        """The image's share of tokens; a painted image costs the same however much of it is left."""
        return max(1, self._pixels // PIXELS_A_TOKEN)
