"""What one call of an explainer is about, and what it gives back."""

from collections.abc import Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from xai.models.maskable import MaskableClassifier

P = TypeVar("P")


class Block(NamedTuple):
    """Images that are explained together.

    Attributes:
        images: [B, 3, H, W] in [0, 1], on the classifier's device.
        targets: [B] class indices that are explained.
        labels: [B] true classes, where they are known.
        regions: Bool [B, H, W], where the objects are, in data sets that say so.
        rows: [B] numbers of the images in their split, on the CPU.
        generator: On the CPU, the source of all that is drawn for these images.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor | None
    regions: Tensor | None
    rows: Tensor
    generator: torch.Generator


class Explanation(NamedTuple):
    """Maps, and logits of explainers that classify as well.

    Attributes:
        maps: [B, h, w] on the patch grid or [B, H, W] of pixels, or [B, K, h, w]: K stages of one path, as of a
            refinement. Higher is more evidence for the target. None of what only classifies.
        logits: [B, C], or None.
    """

    maps: Tensor | None
    logits: Tensor | None = None


@runtime_checkable
class Explainer(Protocol):
    """Attributions of images for target classes, in Captum's calling convention."""

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Explain.

        Args:
            images: [B, 3, H, W] in [0, 1].
            targets: [B] class indices.
            generator: Source of all that is drawn; None draws the same in every call.

        Returns:
            [B, h, w] on the classifier's patch grid, or of pixels, [B, H, W], where the settings ask for them
            (`ExplainerParams.of_pixels`); higher is more evidence for the target.
        """


@runtime_checkable
class BlockExplainer(Protocol):
    """An explainer that gives more than maps, or needs more than images and classes."""

    def explain(self, block: Block) -> Explanation:
        """Explain the images of a block."""


@runtime_checkable
class ManyClassExplainer(Protocol):
    """An explainer that explains several classes of an image for hardly more than one costs."""

    def attribute_classes(
        self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Explain K classes of each image, bit for bit as K calls of `attribute` that draw the same.

        Args:
            images: [B, 3, H, W] in [0, 1].
            targets: [B, K] class indices.
            generator: As in `attribute`; nobody else draws from it meanwhile.

        Yields:
            Maps [B, h, w], K times. What all classes share is computed for the first.
        """


class OfClassifier(Generic[P]):
    """An explainer that is made of a classifier and settings, and keeps both.

    Args:
        classifier: To explain, on its device. Its parameters may or may not require gradients; neither that, nor the
            gradients they hold, nor its mode is changed.
        params: The settings.
    """

    def __init__(self, classifier: MaskableClassifier, params: P) -> None:
        self.classifier, self.params = classifier, params


def explain(explainer: Explainer | BlockExplainer, block: Block) -> Explanation:
    """Explain a block with either kind of explainer; `explain` goes before `attribute` where there are both."""
    if isinstance(explainer, BlockExplainer):
        return explainer.explain(block)
    return Explanation(explainer.attribute(block.images, block.targets, block.generator))


def source(generator: torch.Generator | None) -> torch.Generator:
    """What an explainer draws from: what it is given, or a generator that always starts alike."""
    return torch.Generator().manual_seed(0) if generator is None else generator


def check_targets(images: Tensor, targets: Tensor) -> None:
    """Refuse anything but one class for each of one or more images; ValueError: with the shapes that came."""
    if not len(images) or targets.shape != (len(images),):
        raise ValueError(
            f"images are {list(images.shape)} and targets {list(targets.shape)}: one class an image is needed"
        )
