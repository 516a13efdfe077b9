"""Any network at all as a maskable classifier: removed patches are painted over in its input."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xai.core.errors import UserError
from xai.models.maskable import PIXELS_A_TOKEN, Encoded, MaskableClassifier, Normalisation, Removal, Rows


class PaintedClassifier(MaskableClassifier):
    """A network, a CNN for example, that answers for images with patches painted over; it is put into evaluation mode.

    Args:
        network: Normalised images [B, 3, H, W] to logits [B, C].
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
        return self.network(painted.contiguous(memory_format=self._format))

    def cost(self, kept: int) -> int:
        """The image's share of tokens; a painted image costs the same however much of it is left."""
        return max(1, self._pixels // PIXELS_A_TOKEN)
