"""A picture becomes the very pixels that timm, torchvision and open_clip show the network in evaluation."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
import torchvision
from open_clip.transform import image_transform
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

import xai
from tests.api.networks import Plain
from tests.toolbox import cases, refusal
from xai.api import loading
from xai.data.images import crop_of, side_of
from xai.models.named import named_settings

SHAPES = [(97, 131), (131, 97), (64, 64), (301, 38), (600, 451)]
"""Width and height of pictures: smaller and larger than the network's, upright and lying, odd and even."""


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)) for width, height in SHAPES]


def seen(model: Any, picture: Image.Image) -> Tensor:
    """What the network is handed of a picture, normalised."""
    mean, std = (torch.tensor(each).reshape(3, 1, 1) for each in (model.mean, model.std))
    return (model.pixels(picture)[0] - mean) / std


class Published(nn.Module):
    """A small network that says of itself what timm's networks do."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.small, self.pretrained_cfg = Plain(), {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3), **config}

    def forward(self, images: Tensor) -> Tensor:
        return self.small(images)


@pytest.mark.parametrize(("size", "crop", "mode", "interpolation"), cases(__file__, "as_timm.txt"))
def test_pixels_are_timms(size: int, crop: float, mode: str, interpolation: str) -> None:
    config = {"input_size": (3, size, size), "crop_pct": crop, "crop_mode": mode, "interpolation": interpolation}
    network = Published(**config)
    model = xai.wrap(network)
    theirs = create_transform(**resolve_data_config(pretrained_cfg=network.pretrained_cfg))
    for picture in pictures():
        torch.testing.assert_close(seen(model, picture), theirs(picture), rtol=0, atol=1e-6)


def test_what_timm_has_and_this_has_not_is_refused() -> None:
    said = refusal(lambda: xai.wrap(Published(crop_mode="border")))
    assert "border" in said
    assert "fit='crop' or fit='squash'" in said
    assert xai.wrap(Published(crop_mode="border"), fit="squash").fit == "squash"
    assert "interpolation='nearest' must be" in refusal(lambda: xai.wrap(Published(), interpolation="nearest"))


def test_a_share_and_the_side_it_makes_are_inverse() -> None:
    assert (side_of(224, 0.95), side_of(224, 0.875)) == (math.floor(224 / 0.95), 256)
    assert all(side_of(size, crop_of(size, side)) == side for size in (28, 160, 224) for side in range(size, 2 * size))


@pytest.mark.parametrize(
    ("architecture", "weights"),
    [
        ("swin_t", "Swin_T_Weights.IMAGENET1K_V1"),  # torchvision's alone, 232 px, bicubic
        ("regnet_y_400mf", "RegNet_Y_400MF_Weights.IMAGENET1K_V2"),  # the second of its weights
        ("resnet18", "ResNet18_Weights.IMAGENET1K_V1"),  # timm's too, for whom it sees other pixels
        ("mobilenet_v3_small", "MobileNet_V3_Small_Weights.IMAGENET1K_V1"),
    ],
)
def test_pixels_are_torchvisions_for_its_weights(architecture: str, weights: str) -> None:
    of_file = torchvision.models.get_weight(weights)
    params = named_settings(architecture, {}, Path(of_file.url.rpartition("/")[2]))
    names = ("mean", "std", "image_size", "crop", "interpolation")
    model = xai.wrap(Plain(), **{name: params[name] for name in names})
    for picture in pictures():
        torch.testing.assert_close(seen(model, picture), of_file.transforms()(picture), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("googlenet", torchvision.models.GoogLeNet), ("inception_v3", torchvision.models.Inception3)],
)
def test_networks_that_normalise_once_more_get_what_comes_of_it(architecture: str, kind: Any) -> None:
    """With published weights torchvision builds them so; built without, they take their pixels as they come."""
    (weights,) = torchvision.models.get_model_weights(architecture)
    params = named_settings(architecture, {}, Path(weights.url.rpartition("/")[2]))
    model = xai.wrap(Plain(), **{name: params[name] for name in ("mean", "std", "image_size", "crop", "interpolation")})
    for picture in pictures():
        shown = weights.transforms()(picture)[None]
        theirs = kind._transform_input(SimpleNamespace(transform_input=True), shown)[0]
        torch.testing.assert_close(seen(model, picture), theirs, rtol=0, atol=1e-5)


def test_settings_are_of_the_library_that_the_weights_are_of(tmp_path: Path) -> None:
    """EfficientNets are in both, by other names of tensors."""
    shown = {}
    for name, network in (
        ("timm", timm.create_model("efficientnet_b1", num_classes=2)),
        ("torchvision", torchvision.models.get_model("efficientnet_b1", num_classes=2)),
    ):
        file = tmp_path / f"{name}.pt"
        torch.save({f"module.{key}": value.half() for key, value in network.state_dict().items()}, file)
        loaded = xai.load(file, architecture="efficientnet_b1")
        params = named_settings("efficientnet_b1", {}, file)
        shown[name] = side_of(params["image_size"], params["crop"]), params["interpolation"]
        assert (loaded.crop, loaded.interpolation) == (params["crop"], params["interpolation"])
    assert shown == {"timm": (266, "bicubic"), "torchvision": (256, "bicubic")}


@pytest.mark.parametrize("tag", ["openai", "laion400m_e32", None])
@pytest.mark.parametrize("resized", [("bicubic", "shortest"), ("bilinear", "squash")])
def test_pixels_are_open_clips(tag: str | None, resized: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "load_base", lambda params, tensors: None)
    monkeypatch.setattr(loading, "read_base_weights", lambda params, file: None)
    monkeypatch.setattr(loading, "class_embeddings", lambda *_: None)
    published = open_clip.get_pretrained_cfg("ViT-B-32", tag) if tag else {}
    if tag:
        published |= {"interpolation": resized[0], "resize_mode": resized[1]}
        monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: published)
    model = loading.load_clip(Path("own.pt"), "ViT-B-32", ["cat", "dog"], "cpu", {"pretrained": tag} if tag else {})
    how = {key: published.get(key) for key in ("mean", "std", "interpolation", "resize_mode")}
    theirs = image_transform(224, is_train=False, **how)
    for picture in pictures():
        torch.testing.assert_close(seen(model, picture), theirs(picture), rtol=0, atol=1e-6)
