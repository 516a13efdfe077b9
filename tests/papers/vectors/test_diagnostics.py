import pytest
import torch
from torch.func import functional_call

from tests.models.tiny_clip import classifier, pictures
from xai import vectors
from xai.methods.self_explainer import classification_loss
from xai.models.clip import trainable
from xai.papers.vectors.diagnostics import _diagonal, _risk


@pytest.mark.parametrize("chunk", [1, 4, 5, 10, 32])
def test_the_curvature_in_chunks_is_the_one_over_all_images(chunk: int) -> None:
    network, images, labels = classifier(), pictures(10), torch.arange(10) % 5
    theta = {name: value.detach() for name, value in trainable(network).items()}
    tau = vectors.random_like(theta, torch.Generator().manual_seed(0))

    def loss(at: dict[str, torch.Tensor]) -> torch.Tensor:
        return classification_loss(functional_call(network, at, (images,)), labels)

    expected = vectors.curvature_risk(loss, theta, tau)
    assert abs(expected) > 1e-6
    assert _risk(network, theta, tau, images, labels, chunk) == pytest.approx(expected, rel=1e-8)


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
