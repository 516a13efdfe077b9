"""What a metric may ask: about some images, the maps of a row, and the classifier that is explained."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from xai.models.maskable import MaskableClassifier

T = TypeVar("T")


class TargetGame(Protocol):
    """The patches of B images, each with its target class; `xai.games.PatchGame` with targets is one."""

    @property
    def players(self) -> int:
        """M, the number of patches."""

    def value(self, coalitions: Tensor) -> Tensor:
        """Values [B, S] of coalitions, Bool [B, S, M]."""


class Measured(Protocol):
    """What a metric may ask about B images; None where the case or the row has it not.

    A metric that says `whole` is asked once about all images of the split and reads no images and no game.
    """

    @property
    def rows(self) -> Tensor:
        """Numbers of the images [B] in their split; errors name them."""

    @property
    def images(self) -> Tensor:
        """Pixels [B, 3, H, W] in [0, 1], on the device of the network."""

    @property
    def labels(self) -> Tensor | None:
        """True classes [B]."""

    @property
    def targets(self) -> Tensor:
        """The classes [B] the maps are of."""

    @property
    def second_targets(self) -> Tensor | None:
        """A second class [B] of each image: the runner-up or, where the prediction is wrong, the true one."""

    @property
    def maps(self) -> Tensor | None:
        """The row's maps [B, h, w] of patches, or [B, H, W] of pixels; higher is more important."""

    @property
    def second(self) -> Tensor | None:
        """The row's maps of the second classes, shaped like `maps`."""

    @property
    def reference(self) -> Tensor | None:
        """Reference maps [B, h, w] of the targets."""

    @property
    def reference_second(self) -> Tensor | None:
        """Reference maps [B, h, w] of the second classes."""

    @property
    def logits(self) -> Tensor | None:
        """What the row itself predicts, [B, C]."""

    @property
    def classifier_logits(self) -> Tensor | None:
        """What the explained classifier predicts, [B, C]."""

    @property
    def regions(self) -> Tensor | None:
        """Regions of the objects, bool [B, H, W]."""

    @property
    def cells(self) -> Tensor | None:
        """Where several objects share an image: the cell of the one that is explained, bool [B, H, W]."""

    @property
    def network(self) -> MaskableClassifier | None:
        """The classifier that is asked."""

    @property
    def judge(self) -> Callable[[Tensor], Tensor] | None:
        """A second classifier of the same images, [B, 3, H, W] in [0, 1] to logits [B, C], that was trained apart."""

    @property
    def again(self) -> Sequence[Tensor] | None:
        """The row's maps, shaped like `maps`, in the variations that the metric has named, in their order."""

    @property
    def mean(self) -> Sequence[float]:
        """The three channel means the classifier normalises with."""

    @property
    def generator(self) -> torch.Generator:
        """A new source of randomness each time, always with the same draws: the same for every row."""

    def game(self) -> TargetGame:
        """The game of the targets, in probabilities."""

    def asked(self, coalitions: Tensor) -> Tensor:
        """Values [B, S] in that game of coalitions [B, S, M] that are the same for every row, and are asked once."""


def given(value: T | None) -> T:
    """What a metric said it needs, which is therefore there: `compute` has looked."""
    if value is None:
        raise ValueError("a metric reads what is not there and what it has not said it needs")
    return value
