"""Maps that are made again: their distance against Captum, scipy and a literal SSIM; noise and random weights."""

import math

import numpy as np
import pytest
import torch
from captum.metrics import sensitivity_max
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torch import Tensor, nn

from tests.metrics.test_registry import IMAGES, drawn, everything, values
from tests.toolbox import there
from xai.core.errors import UserError
from xai.metrics import functional as F
from xai.metrics import registry
from xai.metrics.robustness import RandomisationParams, SensitivityParams
from xai.metrics.variations import Noise, RandomWeights, calibrate, randomise


def test_sensitivity_is_captums() -> None:
    images, noise = drawn(2, 3, 4, seed=1), drawn(2, 5, 3, 4, seed=2) / 9

    def explain(inputs: Tensor) -> Tensor:
        return inputs**2 * torch.arange(12).reshape(3, 4)

    def perturb(inputs: Tensor, radius: float) -> Tensor:
        return inputs + noise.flatten(0, 1)

    def explained(inputs: tuple[Tensor] | Tensor) -> tuple[Tensor]:
        return (explain(inputs if isinstance(inputs, Tensor) else inputs[0]),)

    expected = sensitivity_max(explained, images, perturb, n_perturb_samples=5)
    again = [explain(images + noise[:, draw]) for draw in range(5)]
    found = registry.compute(
        registry.entry("sensitivity"), everything(maps=explain(images), again=again, **NOTHING), SensitivityParams()
    )
    torch.testing.assert_close(found["sensitivity_max"], expected.double(), rtol=1e-5, atol=1e-6)
    assert F.relative_change(torch.zeros(1, 4), torch.ones(1, 4)).isnan().all()


NOTHING: dict[str, object] = dict.fromkeys(
    ("images", "labels", "targets", "second_targets", "regions", "cells", "logits", "classifier_logits", "second",
     "reference", "reference_second")
)  # fmt: skip


def test_rank_correlation_is_scipys_and_a_map_without_order_has_none_in_common() -> None:
    first, second = drawn(3, 20, seed=1).round(decimals=1), drawn(3, 20, seed=2).round(decimals=1)
    expected = [spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(F.spearman(first, second), expected)
    assert F.spearman(first, torch.ones(3, 20)).tolist() == [0, 0, 0]
    assert F.spearman(torch.ones(3, 20), first).isnan().all()


def test_similarity_of_structure_follows_the_formula() -> None:
    first, second = (gaussian_filter(drawn(16, 20, seed=seed).double().numpy(), 2) for seed in (1, 2))
    a, b = ((each - each.min()) / (each.max() - each.min()) for each in (first, second))

    def mean(values: np.ndarray) -> np.ndarray:
        # Eleven pixels wide, reflected at the border.
        return gaussian_filter(values, 1.5, truncate=3.5, mode="mirror")

    variance = [mean(x * y) - mean(x) * mean(y) for x, y in ((a, a), (b, b), (a, b))]
    top = (2 * mean(a) * mean(b) + 1e-4) * (2 * variance[2] + 9e-4)
    below = (mean(a) ** 2 + mean(b) ** 2 + 1e-4) * (variance[0] + variance[1] + 9e-4)
    found = F.structural_similarity(torch.tensor(3 * first)[None], torch.tensor(second - 7)[None])
    assert found.item() == pytest.approx(np.mean(top / below), abs=1e-6)
    same = torch.tensor(first)[None]
    assert F.structural_similarity(same, same).item() == pytest.approx(1)
    assert F.structural_similarity(torch.zeros_like(same), same).isnan().all()


def test_randomisation_looks_at_every_stage_and_scores_the_last() -> None:
    block, params = everything(again=[drawn(IMAGES, 2, 2, seed=s) for s in (20, 21, 22)]), RandomisationParams(3)
    found = values("randomisation", block, params)
    maps, again = registry.given(block.maps), registry.given(block.again)
    expected = [[1.0, *(abs(spearmanr(m[i].flatten(), maps[i].flatten()).statistic) for m in again)] for i in range(6)]
    np.testing.assert_allclose(found["curve_randomisation"], expected)
    assert found["randomisation"].tolist() == found["curve_randomisation"][:, -1].tolist()
    assert params.shares == [1 / 3, 2 / 3, 1]
    assert [each.share for each in registry.entry("randomisation").again(params)] == params.shares  # type: ignore[misc,attr-defined]
    same = values("randomisation", everything(again=[registry.given(block.maps)]))
    torch.testing.assert_close(same["randomisation"], torch.ones(6, dtype=torch.float64))


def test_the_chance_level_is_the_size_of_a_correlation_of_unrelated_orders() -> None:
    maps = drawn(4000, 6, 6, seed=3)
    sizes = F.spearman(maps[:2000], maps[2000:]).abs()
    column = registry.columns()["randomisation"]
    level = there(column.chance_of(everything(maps=drawn(IMAGES, 6, 6))))
    assert sizes.mean().item() == pytest.approx(level[0].item(), rel=0.05)
    assert level[0].item() == pytest.approx(math.sqrt(2 / (math.pi * 35)))


class Tied(nn.Module):
    """Three layers, of which two have one tensor in common."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 8)
        self.twin = nn.Linear(8, 8)
        self.twin.weight = self.last.weight

    def forward(self, images: Tensor) -> Tensor:
        return self.twin(self.last(self.norm(self.first(images)).mean((2, 3))))


def test_random_weights_are_the_same_numbers_elsewhere_from_the_top_down_and_the_network_stays() -> None:
    network = Tied().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    half = randomise(network, 0.5, torch.Generator().manual_seed(1))
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(half.first.weight, network.first.weight)
    assert half.twin.weight is half.last.weight
    assert not torch.equal(half.last.weight, network.last.weight)
    whole = randomise(network, 1.0, torch.Generator().manual_seed(1))
    for name, value in whole.named_parameters():
        assert torch.equal(value.flatten().sort().values, before[name].flatten().sort().values), name
    assert not torch.equal(whole.first.weight, network.first.weight)
    again = RandomWeights().network(network)
    torch.testing.assert_close(again.state_dict(), RandomWeights().network(network).state_dict(), rtol=0, atol=0)
    assert not torch.equal(RandomWeights(draw=1).network(network).first.weight, again.first.weight)


def test_one_image_cannot_calibrate_a_batch_norm_that_sees_one_cell() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4))
    with pytest.raises(UserError, match=r"cannot be measured by one image.*case\.block"):
        calibrate(network, torch.rand(1, 3, 8, 8))
    calibrate(network, torch.rand(2, 3, 8, 8))


def test_batch_norms_are_calibrated_to_the_images_and_stay_in_evaluation() -> None:
    network, images = Tied().eval(), drawn(8, 3, 6, 6, seed=4)
    calibrate(network, images)
    seen = network.first(images)
    torch.testing.assert_close(network.norm.running_mean, seen.mean((0, 2, 3)))
    torch.testing.assert_close(network.norm.running_var, seen.var((0, 2, 3)))
    assert not network.norm.training
    assert network.norm.momentum == 0.1


def test_noise_is_as_large_as_it_says_within_the_range_and_another_for_each_draw_and_block() -> None:
    images = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    found = Noise(0.1).images(images, 5)
    assert torch.equal(found, Noise(0.1).images(images, 5))
    assert 0.09 < (found - images).abs().max() <= 0.1 + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    for other in (Noise(0.1, 1).images(images, 5), Noise(0.1).images(images, 6)):
        assert (other - found).abs().max() > 0.05
