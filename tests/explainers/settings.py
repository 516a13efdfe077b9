"""What the tests of explainers share: explainers as conf/explainer/ sets them up, and a classifier set by hand."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from torch import Tensor

from tests.models.tiny_clip import PARAMS, TOWERS, classifier
from tests.models.tiny_vit import MEAN, STD, maskable, network, small_cnn
from xai.core import composing
from xai.core.errors import UserError
from xai.explainers.registry import ExplainerParams, entry, names
from xai.explainers.rows import load_row
from xai.models.clip import SelfExplainingClip
from xai.models.factory import ClipParams, build_clip, build_explainer
from xai.models.maskable import MaskableClassifier, PaintedClassifier, Removal

COLOUR_PARAMS = ClipParams("colour", 12, 4, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), towers=TOWERS)
NAMES = names()
OF_CLASSIFIERS = [name for name in NAMES if entry(name).of_classifier is not None]
"""Explainers that a classifier is enough for."""


def configured(row: str, **changes: Any) -> ExplainerParams:
    """Settings as a file of conf/explainer/ has them."""
    return load_row(row, {row: changes}).params


def explainer(name: str, model: MaskableClassifier, **changes: Any) -> Any:
    return entry(name).build(model, configured(name, **changes))


def configured_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the configuration in a folder for the time of a test, whatever job ran in this process before."""
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    monkeypatch.setattr(composing, "CONF", folder)


def small_clip(removal: Removal | None = None) -> SelfExplainingClip:
    """The tiny CLIP of the models' tests, in float64 on a 3 x 3 grid: 512 coalitions are all there are."""
    return classifier(removal, replace(PARAMS, image_size=12))


def small_pictures(count: int) -> Tensor:
    return torch.rand(count, 3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def small_vit() -> MaskableClassifier:
    """A tiny ViT of timm, in float64 on a 3 x 3 grid."""
    return maskable(network(img_size=12, depth=2).requires_grad_(False))


def small_painted() -> MaskableClassifier:
    """A tiny convolutional network, in float64 on a 3 x 3 grid."""
    return PaintedClassifier(small_cnn().requires_grad_(False), (3, 3), MEAN, STD).double()


SMALL: dict[str, Callable[[], Any]] = {"clip": small_clip, "vit": small_vit, "cnn": small_painted}
"""One network of five classes for images of 12 x 12 px from each family."""


def fitting(name: str) -> list[str]:
    """The families of `SMALL` that an explainer fits: the others are refused as it is made."""

    params = configured(name)

    def fits(model: MaskableClassifier) -> bool:
        try:
            entry(name).build(model, params)
        except UserError:
            return False
        return True

    return [family for family, model in _models().items() if fits(model)]


@functools.cache
def _models() -> dict[str, Any]:
    return {family: build() for family, build in SMALL.items()}


def colour_clip() -> SelfExplainingClip:
    """Class 0 is red and class 1 is green, by weights set by hand: [CLS] takes the mean colour of the 3 x 3 patches.

    What is black adds nothing, so that where one patch alone has a colour, this patch is a dictator in the game.
    """
    model = build_explainer(
        COLOUR_PARAMS, build_clip(COLOUR_PARAMS, seed=0), torch.eye(12)[:, :3], Removal("pixels", "black")
    )
    visual, last = model.visual, model.visual.transformer.resblocks[-1]
    for name, value in visual.named_parameters():
        value.data.fill_(float("ln_" in name and name.endswith("weight")))
    for channel in (0, 1):
        visual.conv1.weight.data[channel, channel] = 1 / 16
    visual.class_embedding.data[8] = 1.0
    visual.proj.data.copy_(torch.eye(16, 12))
    last.attn.in_proj_weight.data[32:] = torch.eye(16)
    last.attn.out_proj.weight.data.copy_(torch.eye(16))
    return model.eval().requires_grad_(False)


def coloured(patches: list[dict[int, int]]) -> Tensor:
    """Black images [B, 3, 12, 12]; each names its coloured patches, and the channel they are bright in."""
    images = torch.zeros(len(patches), 3, 3, 4, 3, 4)
    for image, places in enumerate(patches):
        for patch, channel in places.items():
            images[image, channel, patch // 3, :, patch % 3, :] = 1.0
    return images.reshape(-1, 3, 12, 12)
