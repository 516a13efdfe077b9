"""Removals and classifiers that no explainer has asked, one image and one share at a time."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.metrics.test_registry import IMAGES, MEAN, SIDE, Network, drawn, everything, values
from xai.core.errors import UserError
from xai.metrics import registry
from xai.metrics.held_out import HeldOutParams
from xai.metrics.perturbation import PerturbationParams

MAPS = drawn(IMAGES, SIDE, SIDE, seed=30)


def gained(image: int, shown: Tensor, judge: bool = False) -> float:
    """Insertion less deletion over five shares."""
    block = everything(maps=MAPS)
    network = registry.given(block.judge) if judge else Network()
    order = MAPS[image].flatten().argsort(descending=True)
    areas = []
    for insertion in (True, False):
        found = []
        for share in np.linspace(0, 1, 5):
            gone = torch.zeros(SIDE**2, dtype=torch.bool)
            gone[order[: round(share * SIDE**2)]] = True
            away = gone.reshape(SIDE, SIDE) ^ insertion
            changed = torch.where(away, shown, block.images[image])
            found.append(network(changed[None]).softmax(1)[0, block.targets[image]].item())
        areas.append(np.trapezoid(found, dx=0.25))
    return areas[0] - areas[1]


def test_held_out_removal_shows_white_or_another_image() -> None:
    block = everything(maps=MAPS)
    found = values("held_out_removal", block, HeldOutParams(5))
    for image in range(IMAGES):
        expected = gained(image, torch.ones(3, SIDE, SIDE)), gained(image, block.images[image - 1])
        assert found["held_out_white"][image].item() == pytest.approx(expected[0], abs=1e-5)
        assert found["held_out_image"][image].item() == pytest.approx(expected[1], abs=1e-5)
        assert found["held_out"][image].item() == pytest.approx(np.mean(expected), abs=1e-5)
    assert set(values("held_out_removal", block, HeldOutParams(3, ("white",)))) == {"held_out"}


def test_transfer_asks_the_other_classifier() -> None:
    block = everything(maps=MAPS)
    found = values("transfer", block, PerturbationParams(5, ("black", "mean")))
    for image in range(IMAGES):
        mean = torch.tensor(MEAN)[:, None, None].expand(3, SIDE, SIDE)
        expected = [gained(image, shown, judge=True) for shown in (torch.zeros(3, SIDE, SIDE), mean)]
        assert found["transfer"][image].item() == pytest.approx(np.mean(expected), abs=1e-5)
    torch.testing.assert_close(found["transfer"], found["transfer_insertion"] - found["transfer_deletion"])
    with pytest.raises(UserError, match="transfer is left out: there is no second classifier to ask: give"):
        values("transfer", everything(judge=None))
