from dataclasses import replace

import pytest
import torch
from torch.func import functional_call

from tests.classifiers.tiny import FIT, MODEL
from tests.models.tiny_clip import classifier, pictures
from tests.toolbox import refusal
from xai import vectors
from xai.core.errors import UserError
from xai.methods.self_explainer import classification_loss
from xai.models.clip import trainable
from xai.papers.vectors.base import ModelParams
from xai.papers.vectors.diagnostics import _diagonal, _risks
from xai.papers.vectors.transfer import TransferParams, transferred


@pytest.mark.parametrize("chunk", [1, 4, 5, 10, 32])
def test_the_curvature_in_chunks_is_the_one_over_all_images(chunk: int) -> None:
    network, images, labels = classifier(), pictures(10), torch.arange(10) % 5
    theta = {name: value.detach() for name, value in trainable(network).items()}

    def loss(at: dict[str, torch.Tensor]) -> torch.Tensor:
        return classification_loss(functional_call(network, at, (images,)), labels)

    taus = [vectors.random_like(theta, torch.Generator().manual_seed(drawn)) for drawn in (0, 1)]
    expected = [vectors.curvature_risk(loss, theta, tau) for tau in taus]
    assert min(map(abs, expected)) > 1e-6
    assert _risks(network, theta, images, labels, taus, chunk) == pytest.approx(expected, rel=1e-8)


def test_the_diagonal_weighs_chunks_by_their_images() -> None:
    network, images, labels = classifier(), pictures(6), torch.arange(6) % 5
    theta = {name: value.detach() for name, value in trainable(network).items()}
    drawn = torch.Generator().manual_seed(0)
    parts = []
    for first, last in ((0, 4), (4, 6)):

        def loss(at: dict[str, torch.Tensor], chosen: slice = slice(first, last)) -> torch.Tensor:
            return classification_loss(functional_call(network, at, (images[chosen],)), labels[chosen])

        parts.append(vectors.hessian_diagonal(loss, theta, drawn, 3))
    found = _diagonal(network, theta, images, labels, torch.Generator().manual_seed(0), chunk=4, samples=3)
    for name, value in found.items():
        torch.testing.assert_close(value, ((4 * parts[0][name] + 2 * parts[1][name]) / 6).float())


PARAMS = TransferParams(
    alpha=0.1,
    alpha_grid=(0.1, 0.5),
    lambda1=1.0,
    lambda2=None,
    lambda2_grid=(0.4, 0.8),
    accuracy_tolerance=0.02,
    source_images=None,
    target_images=None,
    fixed_target=False,
    bound_images=None,
    validation_images=None,
    other_column=False,
    bound_coalitions=16,
    source_fit=FIT,
    target_fit=FIT,
    bound_fit=FIT,
)


def test_the_ranges_include_their_ends() -> None:
    replace(PARAMS, alpha=0.0, lambda1=0.0, lambda2=10.0, lambda2_grid=(0.0,), accuracy_tolerance=0.0)


def test_transferred_is_equation_8_and_needs_no_base_at_lambda1_one() -> None:
    generator = torch.Generator().manual_seed(0)
    base, ft, tau = ({"visual.w": torch.randn(50, generator=generator)} for _ in range(3))
    task = vectors.difference(ft, base)
    expected = vectors.transfer(base, task, tau, lambda1=0.7, lambda2=0.4)
    torch.testing.assert_close(transferred(base, ft, tau, 0.7, 0.4), expected)
    alone = vectors.apply(ft, [(0.4, tau)])
    assert torch.equal(transferred(base, ft, tau, 1.0, 0.4)["visual.w"], alone["visual.w"])


REAL = ModelParams("real", 224, 32, (0.5,) * 3, (0.5,) * 3, architecture="ViT-B-32", pretrained="openai")


def test_random_weights_may_stand_beside_the_configured_tag() -> None:
    assert replace(REAL, random_weights=True).random_weights
    assert replace(REAL, weights="a.pt").weights == "a.pt"
    with pytest.raises(UserError, match=r"^weights=a.pt and random_weights=true exclude each other"):
        replace(REAL, random_weights=True, weights="a.pt")
    assert refusal(replace, REAL, pretraining=MODEL.pretraining).startswith("name=real is an open_clip model")
