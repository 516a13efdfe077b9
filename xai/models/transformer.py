"""What a ViT of timm and a CLIP share as maskable classifiers: tokens that are embedded once an image, and packed."""

import warnings
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from xai.core.errors import UserError
from xai.models import packed
from xai.models.maskable import Encoded, MaskableClassifier, Normalisation, Rows, check_size

_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3}
_COARSE, _TENSOR_CORES = 0.1, 1e-2  # of half precision, and of float32 on a GPU, which may round its factors


class TransformerClassifier(MaskableClassifier):
    """A transformer that can answer with patches removed; see `packed`.

    The packed pass calls the parts of a block, and so passes by what somebody has changed in a network of his own: a
    hook on a block, another forward. The first image that a foreign network sees in evaluation mode goes both ways;
    where the logits differ, a warning says so, and the blocks are called as they are from then on, which takes longer.

    Args:
        normalisation: Of the images; it knows how patches are removed.
        grid: Patches down and across.
        size: Of the images, (H, W).
        prefix: Tokens before the patches.
    """

    normalisation: Normalisation
    read: slice = slice(0, 1)
    """The tokens that the logits are computed from. Patches are always the last M."""

    def __init__(self, normalisation: Normalisation, grid: Iterable[int], size: tuple[int, int], prefix: int) -> None:
        super().__init__()
        self.normalisation, self.removal = normalisation, normalisation.removal
        down, across = grid
        self.grid = (int(down), int(across))
        self._size, self._prefix = size, prefix
        self._compared = False
        self._packs = True

    @property
    @abstractmethod
    def _transformer(self) -> Any:
        """All blocks as one module: [B, L, D] to [B, L, D]."""

    @property
    @abstractmethod
    def blocks(self) -> Iterable[nn.Module]:
        """The blocks that `packed.layers` takes apart; their tokens are the first that `encode` returns."""

    @abstractmethod
    def _embed(self, images: Tensor) -> Tensor:
        """Normalised images to what the first block sees."""

    @abstractmethod
    def _plain(self, images: Tensor) -> Tensor:
        """Normalised images to logits, by the network's own forward pass."""

    @abstractmethod
    def read_out(self, tokens: Tensor, groups: packed.Groups) -> Tensor:
        """What the network makes of the tokens of its last block.

        Args:
            tokens: [T, D], sequences end to end: of each the tokens up to `read.stop`, or all where it is None.
            groups: How the sequences lie in them, where those are all.

        Returns:
            Logits [N, C] of N sequences.
        """

    def encode(self, images: Tensor) -> Encoded:
        """Embedded tokens of the images and, for `pixels` removal, of their reference; see `packed.encode`.

        Raises:
            UserError: For images of another size than the network's, even where it could adapt: M is fixed.
        """
        check_size(images, self._size)
        if self.foreign and not self._compared and not self.training:
            self._compare(images[:1])
        return packed.encode(self._layers, [self._embed(version) for version in self.normalisation.versions(images)])

    def decode(self, encoded: Encoded, rows: Rows) -> Tensor:
        """Logits [N, C] of N coalitions of encoded images."""
        tokens, inputs, groups = packed.select(encoded, rows, self._prefix)
        return self.read_out(self._run(tokens, inputs, groups, self.read.stop), groups)

    def cost(self, kept: int) -> int:
        """Tokens of a coalition."""
        # Without a class token nothing may be left of an image.
        return max(1, self._prefix + (kept if self.removal.kind == "tokens" else self.players))

    @property
    def packs(self) -> bool:
        """Whether the packed pass gives the network's own logits, as far as they have been compared."""
        return self._packs

    @property
    def _layers(self) -> list[packed.Layer]:
        return packed.layers(self.blocks)

    def _run(self, tokens: Tensor, inputs: Tensor, groups: packed.Groups, read: int | None = None) -> Tensor:
        """As `packed.run`."""
        if self._packs:
            return packed.run(self._layers, tokens, inputs, groups, read)
        return torch.cat([self._transformer(part)[:, :read].flatten(0, 1) for part in packed.sequences(tokens, groups)])

    @torch.no_grad()
    def _compare(self, image: Tensor) -> None:
        self._compared = True
        if image.is_meta:
            return
        expected = self._plain(self.normalisation(image))
        if _agree(self.forward(image), expected):
            return
        self._packs = False
        if not _agree(self.forward(image), expected):
            raise UserError(
                "this network's own logits are not what its blocks and its head give: explain it as a whole, with "
                "removal.kind=pixels (PaintedClassifier)"
            )
        warnings.warn(
            "this network's own logits are not those of the fast pass (a hook or a changed block?): its blocks are "
            "called as they are, which takes longer",
            stacklevel=2,
        )


def _agree(found: Tensor, expected: Tensor) -> bool:
    dtype = torch.get_autocast_dtype(found.device.type) if torch.is_autocast_enabled(found.device.type) else found.dtype
    tolerance = _TOLERANCES.get(dtype, _COARSE)
    if found.is_cuda:
        tolerance = max(tolerance, _TENSOR_CORES)
    found, expected = found.float(), expected.float()
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1))
