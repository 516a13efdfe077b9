"""Classifiers of every family, each beside its library's own forward pass on images in [0, 1]."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tests.explainers.settings import explainer
from tests.models import tiny_clip
from tests.models.tiny_vit import FAMILIES, MEAN, STD, maskable, network, normalised, small_cnn
from xai.models.maskable import MaskableClassifier, PaintedClassifier

TARGETS = torch.tensor([4, 0, 2, 2])


class Case(NamedTuple):
    """A classifier of five classes, the same as a plain function, and four images.

    `patch` is the size (h, w) of a patch in pixels, `mean` the channel means of the input normalisation.
    """

    model: MaskableClassifier
    logits: Callable[[Tensor], Tensor]
    images: Tensor
    patch: tuple[int, int]
    mean: tuple[float, ...]


def images(height: int, width: int) -> Tensor:
    return torch.rand(4, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def clip() -> Case:
    model = tiny_clip.classifier()
    return Case(model, lambda pixels: model.explain(pixels).logits, images(16, 16), (4, 4), tiny_clip.PARAMS.mean)


def vit(family: str) -> Case:
    built = network(**FAMILIES[family]).requires_grad_(False)
    height, width = built.patch_embed.img_size
    return Case(maskable(built), lambda pixels: built(normalised(pixels)), images(height, width), (4, 4), MEAN)


def cnn() -> Case:
    built = small_cnn().requires_grad_(False)
    model = PaintedClassifier(built, (2, 5), MEAN, STD).double()
    return Case(model, lambda pixels: built(normalised(pixels)), images(12, 20), (6, 4), MEAN)


CASES: dict[str, Callable[[], Case]] = {
    "clip": clip,
    "registers": lambda: vit("registers"),
    "average": lambda: vit("average"),
    "oblong": lambda: vit("oblong"),
    "cnn": cnn,
}


class Answers(nn.Module):
    """A plain function as the module that captum wants: logits or probabilities."""

    def __init__(self, case: Case, output: str) -> None:
        super().__init__()
        self.case, self.output = case, output

    def forward(self, pixels: Tensor) -> Tensor:
        logits = self.case.logits(pixels)
        return logits.exp() / logits.exp().sum(1, keepdim=True) if self.output == "probability" else logits


def check_maps(
    case: Case, name: str, expected: Tensor, within: str, rtol: float = 1e-8, atol: float = 1e-10, **settings: Any
) -> None:
    """Maps of pixels are `expected` [B, H, W], and those of patches its `sum` or `mean` within each."""
    pixels, maps = (
        explainer(name, case.model, resolution=resolution, **settings).attribute(case.images, TARGETS)
        for resolution in ("pixel", "patch")
    )
    torch.testing.assert_close(pixels, expected, rtol=rtol, atol=atol)
    check_patches(case, maps, expected, within, rtol, atol)


def check_patches(
    case: Case, maps: Tensor, pixels: Tensor, within: str, rtol: float = 1e-8, atol: float = 1e-10
) -> None:
    """Maps of patches are the `sum` or `mean` of pixels [B, H, W] within each."""
    taken = [[float(getattr(patch, within)()) for patch in image] for image in patches(case, pixels)]
    assert maps.shape == (4, *case.model.grid)
    torch.testing.assert_close(maps.flatten(1), torch.tensor(taken, dtype=torch.float64), rtol=rtol, atol=atol)


def patches(case: Case, pixels: Tensor) -> list[list[Tensor]]:
    """The pixels [B, H, W] of each image's patches, row by row, each [h, w]."""
    (down, across), (height, width) = case.model.grid, case.patch
    assert pixels.shape[1:] == (down * height, across * width)
    corners = [(height * row, width * column) for row in range(down) for column in range(across)]
    return [[image[y : y + height, x : x + width] for y, x in corners] for image in pixels]
