from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.models.test_dpt import TINY
from tests.models.test_features import CNNS, TRANSFORMERS, features, network, pictures
from tests.toolbox import refusal
from xai.models.dense import DenseExplainer, check_classes
from xai.models.evidence import gradient_evidence
from xai.models.families import seeded
from xai.models.maskable import MaskableClassifier

TARGETS = torch.tensor([2, 0])


def explainer(kind: str = "plain") -> DenseExplainer:
    """Of three classes; its last layer is as large as the others."""
    settings, size, factors = (CNNS[kind], 42, (1, 1)) if kind in CNNS else (TRANSFORMERS[kind], 16, (2, 1))
    with seeded(0):
        params = replace(TINY, resize=factors, norm="group")
        made = DenseExplainer(features(network(**settings), [0, 2], size), params, 3).eval()
    made.decoder.refinement[-1].weight.data *= 30
    return made


@pytest.mark.parametrize(("kind", "size"), [("plain", 16), ("dinov3", 24), ("resnet", 42)])
def test_a_map_has_a_number_for_every_pixel(kind: str, size: int) -> None:
    made = explainer(kind)
    maps = made(pictures(size), TARGETS)
    assert maps.shape == (2, size, size)
    assert maps.dtype == torch.float32
    expected = made.decoder(made.features(pictures(size)), TARGETS, pictures(size))
    assert torch.equal(maps, expected)
    assert maps.std() > 0.01


def test_attributions_are_the_maps_without_gradients() -> None:
    made = explainer()
    maps, attributions = made(pictures(16), TARGETS), made.attribute(pictures(16), TARGETS)
    assert maps.requires_grad
    assert not attributions.requires_grad
    assert torch.equal(maps, attributions)


def test_only_the_decoder_learns() -> None:
    made = explainer()
    made.train()(pictures(16), TARGETS).square().mean().backward()
    assert {name.split(".")[0] for name, value in made.named_parameters() if value.requires_grad} == {"decoder"}
    assert all(value.grad is None for value in made.features.parameters())
    assert made.decoder.embedding.weight.grad is not None
    assert not made.features.network.training


class Still(MaskableClassifier):
    """Its gradient is the same number for every image, and another one for every pixel and class."""

    grid = (1, 1)
    encode = decode = cost = None  # type: ignore[assignment]

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        weights = torch.randn(3, *images.shape[1:], generator=torch.Generator().manual_seed(0))
        return torch.einsum("bcij,kcij->bk", images, weights)


def test_a_decoder_may_look_at_the_gradient_of_the_classifier_which_is_no_part_of_it() -> None:
    params = replace(TINY, resize=(2, 1), norm="group", pixels=2, gradient=True)
    built = features(network(**TRANSFORMERS["plain"]), [0, 2], 16)
    explained = Still()
    made = DenseExplainer(built, params, 3, explained, (0.1, 0.2, 0.3)).eval()
    seen = made.features(pictures(16)), TARGETS, pictures(16)
    slopes = gradient_evidence(explained, pictures(16), TARGETS, torch.tensor([0.1, 0.2, 0.3]))
    found = made(pictures(16), TARGETS)
    assert torch.equal(found, made.decoder(*seen, slopes))
    assert not torch.equal(found, made.decoder(*seen, -slopes))
    assert explained not in list(made.modules())
    with pytest.raises(ValueError, match="needs the classifier"):
        DenseExplainer(built, params, 3)


@pytest.mark.parametrize("targets", [torch.tensor([0, 3]), torch.tensor([0, 7])], ids=str)
def test_a_class_beyond_the_last_is_refused(targets: Tensor) -> None:
    told = refusal(explainer().attribute, pictures(16), targets)
    assert told == f"class {int(targets[1])} is unknown: the classifier has 3, 0 to 2"


def test_the_first_class_out_of_range_is_named() -> None:
    check_classes(torch.tensor([[0, 2], [1, 0]]), 3)
    told = refusal(check_classes, torch.tensor([[0, 2], [-1, 9]]), 3)
    assert told == "class -1 is unknown: the classifier has 3, 0 to 2"


def test_a_level_that_nothing_would_be_left_of_is_refused() -> None:
    built = features(network(**CNNS["resnet"]), [0, 4], 42)
    assert built.grids[1] == (2, 2)
    assert DenseExplainer(built, replace(TINY, resize=(1, 0.5)), 3)(pictures(42), TARGETS).shape == (2, 42, 42)
    assert refusal(DenseExplainer, built, replace(TINY, resize=(1, 0.25)), 3) == (
        "decoder.resize=[1.0, 0.25] leaves nothing of level 4, which has 2 x 2 cells: "
        "use a factor of at least 0.5 there"
    )
