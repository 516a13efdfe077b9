import pytest
import torch
from torch.func import functional_call

from tests.models.tiny_clip import classifier, pictures
from xai import vectors
from xai.methods.self_explainer import classification_loss
from xai.models.clip import trainable
from xai.papers.vectors.diagnostics import _risk


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
