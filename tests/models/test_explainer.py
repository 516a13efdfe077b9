from typing import TypeVar

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tests.models.tiny_vit import MEAN, STD, network, normalised, pictures
from xai.core.errors import UserError
from xai.models.explainer import ExplainerNetwork, SalvageNetwork, ShapleyNetwork, column
from xai.models.segmenter import MaskTransformer
from xai.shapley.distribution import shapley_distribution

GRID = (2, 8)
PLAYERS = 16
Network = TypeVar("Network", bound=ExplainerNetwork)


def backbone() -> VisionTransformer:
    """Oblong, so that down and across cannot be taken for one another."""
    return network(img_size=(8, 32), patch_size=(4, 4), reg_tokens=2)


def explainer(kind: type[Network], scores: int) -> Network:
    """In float64, trained to anything but zero."""
    made = kind(backbone(), MaskTransformer(24, scores, 1, 3), MEAN, STD).double().eval()
    generator = torch.Generator().manual_seed(0)
    for value in made.decoder.parameters():
        value.data += 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
    return made.requires_grad_(False)


def images(count: int = 3) -> Tensor:
    return pictures(backbone(), count)


def test_the_decoder_reads_the_patch_tokens_of_normalised_images() -> None:
    plain = backbone()
    expected = plain.forward_features(normalised(images()))[:, 3:]
    made = ExplainerNetwork(backbone(), nn.Identity(), MEAN, STD)
    torch.testing.assert_close(made(images()), expected)
    assert made.grid == GRID
    assert expected.shape == (3, PLAYERS, 24)


def test_the_head_of_the_classifier_is_no_part_of_it() -> None:
    assert not [name for name in explainer(ShapleyNetwork, 3).state_dict() if "head" in name]


@pytest.mark.parametrize("outputs", [3, 1])
def test_phi_plus_and_phi_minus_are_the_two_halves_of_the_scores(outputs: int) -> None:
    made = explainer(SalvageNetwork, 2 * outputs)
    scores, parts = made(images()).float(), made.parts(images())
    for number, part in enumerate(parts):
        half = scores[..., outputs * number : outputs * (number + 1)]
        expected = torch.stack([-half[..., 0] / 2, half[..., 0] / 2], dim=-1) if outputs == 1 else half
        assert torch.equal(part, expected)
        assert part.dtype == torch.float32
    assert not torch.allclose(parts.present, parts.absent)


@pytest.mark.parametrize("outputs", [3, 1])
def test_as_a_classifier_it_is_equation_6_and_u_of_the_full_coalition(outputs: int) -> None:
    made = explainer(SalvageNetwork, 2 * outputs)
    parts, logits = made.parts(images()), made.classify(images())
    summed = sum(parts.present[:, patch].double() for patch in range(PLAYERS))
    torch.testing.assert_close(logits.double(), summed, rtol=1e-5, atol=1e-5)
    everything = torch.ones(3, 1, PLAYERS, dtype=torch.bool)
    torch.testing.assert_close(logits.log_softmax(1), shapley_distribution(*parts, everything)[:, 0])
    assert logits.std(0).min() > 1e-3


def test_attributions_are_phi_plus_less_phi_minus_of_the_class_asked_for() -> None:
    made, targets = explainer(SalvageNetwork, 6), torch.tensor([2, 0, 1])
    parts, maps = made.parts(images()), made.attribute(images(), targets)
    assert maps.shape == (3, *GRID)
    for image, patch in ((image, patch) for image in range(3) for patch in range(PLAYERS)):
        phi = parts.present[image, patch, targets[image]] - parts.absent[image, patch, targets[image]]
        assert maps[image, patch // 8, patch % 8] == phi


@pytest.mark.parametrize("outputs", [3, 1])
def test_values_of_vit_shapley_are_its_scores_and_their_raw_sum_classifies(outputs: int) -> None:
    made = explainer(ShapleyNetwork, outputs)
    values = made.values(images())
    assert values.shape == (3, PLAYERS, max(outputs, 2))
    torch.testing.assert_close(made.classify(images()), values.sum(1))
    if outputs == 1:
        assert torch.equal(values[..., 0], -values[..., 1])
    else:
        assert torch.equal(values, made(images()).float())


def test_mixed_precision_ends_before_anything_is_added_up() -> None:
    made = explainer(SalvageNetwork, 6).float()
    with torch.autocast("cpu", torch.bfloat16):
        parts, logits = made.parts(images().float()), made.classify(images().float())
        assert made(images().float()).dtype == torch.float32
    assert {part.dtype for part in parts} == {torch.float32}
    torch.testing.assert_close(logits, parts.present.sum(1), rtol=1e-6, atol=1e-6)


def test_a_column_belongs_to_its_images_class() -> None:
    values, targets = torch.arange(24.0).reshape(2, 4, 3), torch.tensor([2, 1])
    assert column(values, targets).tolist() == [[2, 5, 8, 11], [13, 16, 19, 22]]


def test_images_of_another_size_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="images of 16 x 32 px do not fit a network of 8 x 32"):
        explainer(SalvageNetwork, 6)(torch.rand(1, 3, 16, 32, dtype=torch.float64))
