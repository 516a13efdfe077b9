"""ROAD: its imputation against the authors' own code, its scores against one image at a time."""

import pytest
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer

from tests.metrics.test_registry import IMAGES, SIDE, Network, drawn, everything, values
from xai.metrics.functional import impute
from xai.metrics.road import RoadParams


@pytest.mark.parametrize("share", [0.1, 0.6, 0.95])
def test_imputation_is_the_authors(share: float) -> None:
    images = torch.rand(2, 3, 11, 14, generator=torch.Generator().manual_seed(1))
    removed = torch.rand(2, 11, 14, generator=torch.Generator().manual_seed(2)) < share
    removed[1, 3:] = True
    found = impute(images.double(), removed, tolerance=1e-9)
    for image, hole, filled in zip(images, removed, found, strict=True):
        expected = NoisyLinearImputer(noise=0.0)(image, (~hole).float())
        torch.testing.assert_close(filled.float(), expected, rtol=1e-5, atol=1e-5)


def test_imputation_is_as_good_under_mixed_precision() -> None:
    images = torch.rand(2, 3, 11, 14, generator=torch.Generator().manual_seed(1))
    removed = torch.rand(2, 11, 14, generator=torch.Generator().manual_seed(2)) < 0.6
    with torch.autocast("cpu", torch.bfloat16):
        found = impute(images, removed)
    assert torch.equal(found, impute(images, removed))


def test_without_anything_left_it_is_the_mean_colour_and_with_everything_the_image() -> None:
    images = torch.rand(1, 3, 6, 6)
    nothing = impute(images, torch.ones(1, 6, 6, dtype=torch.bool))
    torch.testing.assert_close(nothing, images.mean((2, 3), keepdim=True).expand_as(images))
    assert torch.equal(impute(images, torch.zeros(1, 6, 6, dtype=torch.bool)), images)


def test_the_score_is_what_is_left_without_the_least_less_that_without_the_most() -> None:
    maps = drawn(IMAGES, SIDE, SIDE, seed=5)
    block = everything(maps=maps)
    found = values("remove_and_debias", block, RoadParams((0.25, 0.5), noise=0.0))
    for image in range(IMAGES):
        order = maps[image].flatten().argsort(descending=True)
        expected = []
        for places in (order, order.flip(0)):
            for count in (16, 32):
                hole = torch.zeros(SIDE**2, dtype=torch.bool)
                hole[places[:count]] = True
                filled = impute(block.images[image : image + 1], hole.reshape(1, SIDE, SIDE))
                expected.append(Network()(filled).softmax(1)[0, block.targets[image]].item())
        most, least = sum(expected[:2]) / 2, sum(expected[2:]) / 2
        assert found["road_morf"][image].item() == pytest.approx(most, abs=1e-4)
        assert found["road_lerf"][image].item() == pytest.approx(least, abs=1e-4)
    torch.testing.assert_close(found["road"], found["road_lerf"] - found["road_morf"])
    noisy = values("remove_and_debias", block, RoadParams((0.25, 0.5), noise=0.1))
    assert not torch.equal(noisy["road"], found["road"])
