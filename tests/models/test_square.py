"""A checkpoint says how its training made squares of photographs, and whoever explains does the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import xai
from tests.toolbox import there
from xai.core.training import TrainerParams
from xai.data.catalogue import OpenData, open_data
from xai.explainers.rows import open_row
from xai.models import files
from xai.models.cnn import CnnParams
from xai.models.spec import describe
from xai.ranking.objective import ObjectiveParams
from xai.ranking.refinement import RefinementParams
from xai.tasks.picture import PostHocParams, open_classifier

PUBLISHED = CnnParams("small_cnn", 32, 8, (0.5,) * 3, (0.25,) * 3, "test_efficientnet", crop=0.5)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a user has it, whose pictures are twice as wide as high."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number in range(20):
        path = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number).integers(0, 256, (6, 12, 3), np.uint8)
        Image.fromarray(coarse).resize((160, 80), Image.Resampling.BICUBIC).save(path)
    return tmp_path / "photos"


def opened(pictures: Path, **settings: Any) -> OpenData:
    return open_data({"name": "folder", "root": str(pictures), "size": 32, **settings}, "data")


def written(data: OpenData | str, path: Path) -> Path:
    files.write(path, PUBLISHED.build(2), describe(PUBLISHED, "classifier", data, ("cat", "dog")))
    return path


def as_explained(checkpoint: Path, picture: Path) -> Tensor:
    how = PostHocParams(
        open_row("saliency", {"output": "logit"}),
        ObjectiveParams(5, 2, 4, ("black",), 10, 1.0, 0.0, 3),
        RefinementParams(steps=0, draws=2, size=0.25, sigma=1.0, temperature=0.3, learning_rate=1e-3),
        seed=0,
        references=("black",),
    )
    return open_classifier(PUBLISHED, checkpoint, TrainerParams("cpu"), how).seen(Image.open(picture))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"resize": 40},
        {"fit": "squash"},
        {"fit": "squash", "resize": 48},
        {"interpolation": "bilinear"},
        {"interpolation": "bilinear", "fit": "squash", "resize": 48},
    ],
)
def test_a_picture_is_explained_as_it_was_trained_on(pictures: Path, settings: Any) -> None:
    data = opened(pictures, **settings)
    checkpoint = written(data, pictures.parent / "mine.safetensors")
    trained_on = data.source.images("test", torch.tensor([0]), 0).pixels[0]
    # The one picture that became this.
    paths = sorted(pictures.rglob("*.png"))
    model = xai.load(checkpoint)
    seen = [model.pixels(path)[0] for path in paths]
    (same,) = [number for number, each in enumerate(seen) if torch.equal(each, trained_on)]
    assert torch.equal(as_explained(checkpoint, paths[same]), trained_on)


def test_a_file_that_says_nothing_of_it_takes_the_crop_of_its_model(pictures: Path) -> None:
    checkpoint = written("images", pictures.parent / "mine.safetensors")
    spec = there(files.read_spec(checkpoint))
    assert (spec.square, spec.side, spec.fit) == (None, 64, "crop")
    assert xai.load(checkpoint).crop == 0.5
