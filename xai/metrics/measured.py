"""What a metric may ask: about some images, the maps of a row, and the classifier that is explained."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

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


class Measured:
    """What a metric may ask about B images; None where the case or the row has it not.

    A metric that says `whole` is asked once about all images of the split and reads no images and no game.

    Args:
        game: Makes the game of the targets, in probabilities.
        asked: Values [B, S] in that game of coalitions [B, S, M] that are the same for every row, and are asked once.
        draws: Makes the `generator`.
        parts: What gives each of the attributes; called when the attribute is first asked for.

    Attributes:
        rows: Numbers of the images [B] in their split; errors name them.
        images: Pixels [B, 3, H, W] in [0, 1], on the device of the network.
        labels: True classes [B].
        targets: The classes [B] the maps are of.
        second_targets: Another class [B] of each image: as a rule the runner-up or, where the prediction is wrong, the
            true one.
        maps: The row's maps [B, h, w] of patches, or [B, H, W] of pixels; higher is more important.
        second: The row's maps of the second classes, shaped like `maps`.
        reference: Reference maps [B, h, w] of the targets.
        reference_second: Reference maps [B, h, w] of the second classes.
        logits: What the row itself predicts, [B, C].
        classifier_logits: What the explained classifier predicts, [B, C].
        regions: Regions of the objects, bool [B, H, W].
        cells: Where several objects share an image: the cell of the one that is explained, bool [B, H, W].
        network: The classifier that is asked.
        judge: A second classifier of the same images, [B, 3, H, W] in [0, 1] to logits [B, C], that was trained apart.
        again: The row's maps, shaped like `maps`, in the variations that the metric has named, in their order.
        mean: The three channel means the classifier normalises with.
    """

    rows: Tensor
    images: Tensor
    labels: Tensor | None
    targets: Tensor
    second_targets: Tensor | None
    maps: Tensor | None
    second: Tensor | None
    reference: Tensor | None
    reference_second: Tensor | None
    logits: Tensor | None
    classifier_logits: Tensor | None
    regions: Tensor | None
    cells: Tensor | None
    network: MaskableClassifier | None
    judge: Callable[[Tensor], Tensor] | None
    again: Sequence[Tensor] | None
    mean: Sequence[float]

    def __init__(
        self,
        game: Callable[[], TargetGame],
        asked: Callable[[Tensor], Tensor],
        draws: Callable[[], torch.Generator],
        **parts: Callable[[], Any],
    ) -> None:
        self.game, self.asked, self._draws, self._parts = game, asked, draws, parts

    @property
    def generator(self) -> torch.Generator:
        """A new source of randomness each time, always with the same draws: the same for every row."""
        return self._draws()

    def __getattr__(self, name: str) -> Any:
        """A part that was not asked for before."""
        if name not in type(self).__annotations__:
            raise AttributeError(name)
        value = self._parts[name]()
        setattr(self, name, value)
        return value


def given(value: T | None) -> T:
    """What a metric said it needs, which is therefore there: `compute` has looked."""
    if value is None:
        raise ValueError("a metric reads what is not there and what it has not said it needs")
    return value
