from dataclasses import replace
from typing import Any

import pytest
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tests.models.tiny_clip import PARAMS, TOWERS, classifier, pictures
from xai.core.errors import UserError
from xai.explainers.posthoc.cam_targets import cam_target, tokens_to_grid
from xai.models.maskable import Removal, class_logits
from xai.models.painted import PaintedClassifier
from xai.models.timm_vit import MaskableVit


class Strange(nn.Module):
    grid = (2, 2)


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_tokens_lie_row_by_row_behind_the_prefix(prefix: int) -> None:
    tokens = torch.randn(2, prefix + 6, 7, generator=torch.Generator().manual_seed(0))
    laid = tokens_to_grid((2, 3), prefix)(tokens)
    assert laid.shape == (2, 7, 2, 3)
    for row in range(2):
        for column in range(3):
            assert torch.equal(laid[:, :, row, column], tokens[:, prefix + 3 * row + column])


@pytest.mark.parametrize("shape", [(2, 7, 4), (2, 9, 4), (4, 8)])
def test_other_tokens_are_refused_with_their_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"tokens are \[{', '.join(map(str, shape))}\], expected \[B, 2 \+ 2 \* 3, D"):
        tokens_to_grid((2, 3), 2)(torch.zeros(shape))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("removal", [Removal("tokens"), Removal("pixels", "mean")], ids=["tokens", "pixels"])
def test_the_layer_of_clip_runs_once_on_all_tokens_and_all_patches_bear_on_the_logits(
    layers: int, removal: Removal
) -> None:
    model = classifier(removal, replace(PARAMS, towers=replace(TOWERS, layers=layers)))
    network, layer, to_grid = cam_target(model)
    assert layer is model.visual.transformer.resblocks[layers - 1].ln_1
    seen: list[Tensor] = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits = network(pictures(2).requires_grad_())
    assert [tuple(output.shape) for output in seen] == [(2, 17, 16)]
    torch.testing.assert_close(logits, model(pictures(2)))
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), seen[0])
    assert to_grid(gradient).abs().sum(1).gt(0).all()


@pytest.mark.parametrize(
    ("kind", "settings", "prefix"),
    [
        (VisionTransformer, {}, 1),
        (VisionTransformer, {"reg_tokens": 4}, 5),
        (VisionTransformer, {"class_token": False, "global_pool": "avg"}, 0),
        (VisionTransformerDistilled, {}, 2),
    ],
    ids=["class", "registers", "none", "distilled"],
)
def test_the_layer_of_a_timm_vit_runs_once_on_all_tokens_and_all_patches_bear_on_the_logits(
    kind: type[VisionTransformer], settings: dict[str, Any], prefix: int
) -> None:
    shape = {"img_size": (8, 16), "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
    vit = kind(**shape, **settings).double()
    generator = torch.Generator().manual_seed(0)
    for weight in vit.parameters():
        weight.data = 0.5 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    model = MaskableVit(vit, (0.5, 0.4, 0.3), (0.25, 0.3, 0.2)).double().eval()
    network, layer, to_grid = cam_target(model)
    assert layer is vit.blocks[1].norm1
    seen: list[Tensor] = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    images = pictures(2)[:, :, :8]
    logits = network(images.clone().requires_grad_())
    assert [tuple(output.shape) for output in seen] == [(2, prefix + 8, 16)]
    torch.testing.assert_close(logits, model(images))
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), seen[0])
    assert to_grid(gradient).shape == (2, 16, 2, 4)
    assert to_grid(gradient).abs().sum(1).gt(0).all()


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_layer_of_a_painted_network_is_found_by_a_forward_pass(outputs: int) -> None:
    convolutions = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU())
    plain = nn.Sequential(convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, outputs)).double()
    model = PaintedClassifier(plain, (2, 2), (0.5, 0.4, 0.3), (0.25, 0.3, 0.2)).double()
    network, find, to_grid = cam_target(model)
    assert not isinstance(find, nn.Module)
    assert find(network, pictures(1)) is convolutions
    torch.testing.assert_close(network(pictures(2)), class_logits(plain(model.normalisation(pictures(2)))))
    cells = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    laid = to_grid(cells)
    assert torch.equal(laid, cells)
    assert laid.data_ptr() == cells.data_ptr(), "what is written to it is written to the output"


def test_the_map_of_a_binary_vit_explains_either_class() -> None:
    vit = VisionTransformer(img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=1).double()
    model = MaskableVit(vit, (0.5, 0.4, 0.3), (0.25, 0.3, 0.2)).double().eval()
    network, _, _ = cam_target(model)
    assert network(pictures(2)).shape == (2, 2)
    torch.testing.assert_close(network(pictures(2)), model(pictures(2)))


def test_a_classifier_nobody_has_registered_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^class activation maps know no layer of a Strange .*kernel_shap$"):
        cam_target(Strange())
