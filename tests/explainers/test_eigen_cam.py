import numpy as np
import torch
import torch.nn.functional as F
from pytorch_grad_cam import EigenCAM
from torch import Tensor, nn

from tests.explainers.settings import explainer
from tests.models.tiny_clip import classifier, pictures
from xai.models.clip import SelfExplainingClip
from xai.models.painted import PaintedClassifier

TARGETS = torch.tensor([0, 1, 2, 3, 4, 0])


def activations(model: SelfExplainingClip, images: Tensor) -> np.ndarray:
    """What the first layer norm of the last block returns for patches: [B, h w, D]."""
    seen: list[Tensor] = []
    with model.visual.transformer.resblocks[-1].ln_1.register_forward_hook(lambda m, i, output: seen.append(output)):
        model.explain(images)
    return seen[0][:, 1:].detach().numpy()


def component(patches: np.ndarray) -> np.ndarray:
    """Projections [h w] of centred activations [h w, D] on their first principal component, by an eigenvector."""
    centred = patches - patches.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return centred @ vectors[:, -1]


def by_hand(projection: np.ndarray) -> Tensor:
    """Positive part, stretched, up-scaled to 16 x 16 px, stretched, averaged within 4 x 4 patches."""

    def stretched(values: Tensor) -> Tensor:
        return (values - values.min()) / (values.max() - values.min())

    cells = torch.from_numpy(projection).reshape(1, 1, 4, 4).relu()
    pixels = F.interpolate(stretched(cells), (16, 16), mode="bilinear", align_corners=False)
    return stretched(pixels).reshape(4, 4, 4, 4).mean((1, 3)).float()


def test_it_is_the_first_principal_component_with_the_largest_deviation_positive() -> None:
    model, images = classifier(), pictures(6)
    found = explainer("eigen_cam", model).attribute(images, TARGETS)
    assert found.dtype == torch.float32
    for patches, ours in zip(activations(model, images), found, strict=True):
        projection = component(patches)
        projection *= np.sign(projection[np.abs(projection).argmax()])
        torch.testing.assert_close(ours, by_hand(projection), rtol=1e-4, atol=1e-4)


def test_the_librarys_sign_is_that_of_numpys_decomposition() -> None:
    model, images = classifier().float(), pictures(6).float()
    found = explainer("eigen_cam", model, sign="library").attribute(images, TARGETS)
    turned = []
    for patches, ours in zip(activations(model, images), found, strict=True):
        centred = patches - patches.mean(0)
        projection = centred @ np.linalg.svd(centred)[2][0]
        turned.append(bool(projection.max() < -projection.min()))
        torch.testing.assert_close(ours, by_hand(projection), rtol=1e-3, atol=1e-3)
    assert set(turned) == {False, True}, "images of both signs are needed, or nothing is told from sign=largest"


def test_with_the_librarys_sign_it_is_the_library_on_a_painted_network() -> None:
    torch.manual_seed(0)
    stage = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU())
    network = nn.Sequential(stage, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    model = PaintedClassifier(network, (2, 2), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    images = pictures(6).float()
    with EigenCAM(network, [stage]) as cam:
        pixels = torch.from_numpy(cam(images, []))
    found = explainer("eigen_cam", model, sign="library").attribute(images, TARGETS)
    torch.testing.assert_close(found, pixels.reshape(6, 2, 8, 2, 8).mean((2, 4)), rtol=1e-4, atol=1e-5)


def test_no_graph_is_built() -> None:
    model, seen = classifier().requires_grad_(True), []
    hook = model.visual.ln_post.register_forward_hook(lambda m, i, output: seen.append(output.requires_grad))
    explainer("eigen_cam", model).attribute(pictures(2), TARGETS[:2])
    hook.remove()
    assert seen == [False]


def test_patches_that_are_all_alike_make_a_map_of_zeros() -> None:
    model = classifier()
    model.visual.transformer.resblocks[-1].ln_1.weight.data.zero_()
    assert torch.equal(explainer("eigen_cam", model).attribute(pictures(2), TARGETS[:2]), torch.zeros(2, 4, 4))
