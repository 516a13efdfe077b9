from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from tests.models.tiny_vit import MEAN, STD, normalised
from tests.toolbox import refusal
from xai.models.families import seeded
from xai.models.features import FrozenFeatures

SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3}
TRANSFORMERS = {
    "plain": {"model_name": "vit_tiny_patch16_224", **SMALL},
    "registers": {"model_name": "vit_tiny_patch16_224", "reg_tokens": 4, "no_embed_class": True, **SMALL},
    "dinov3": {"model_name": "vit_small_patch16_dinov3", **SMALL},
}
CNNS = {
    "efficientnet": {"model_name": "tf_efficientnet_lite0"},
    "resnet": {"model_name": "test_resnet"},
    "dilated_resnet": {"model_name": "test_resnet", "output_stride": 8},
}


@seeded(0)
def network(**settings: Any) -> Any:
    """A network of timm whose norms and statistics are not those of a fresh one."""
    created = timm.create_model(num_classes=5, **settings)
    for name, value in created.named_parameters():
        if "norm" in name or "bn" in name:
            value.data += 0.3 * torch.randn(value.shape)
    for name, value in created.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            value.normal_(std=0.1)
    return created


def features(of: nn.Module, levels: list[int], size: int) -> FrozenFeatures:
    return FrozenFeatures(of, levels, MEAN, STD, size)


def pictures(size: int) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def outputs(of: nn.Module, parts: list[nn.Module], images: Tensor) -> list[Tensor]:
    """What some parts of a network give on its way to an answer."""
    seen: list[Tensor] = []
    hooks = [part.register_forward_hook(lambda *call: seen.append(call[-1])) for part in parts]
    with torch.no_grad():
        of(normalised(images))
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_levels_of_a_transformer_are_its_blocks_normed_and_without_prefix_tokens(kind: str) -> None:
    built = network(**TRANSFORMERS[kind]).eval()
    found = features(built, [0, 2], 16)(pictures(16))
    assert len(found) == 2
    for level, tokens in zip(found, outputs(built, [built.blocks[0], built.blocks[2]], pictures(16)), strict=True):
        patches = built.norm(tokens)[:, built.num_prefix_tokens :]
        assert level.shape == (2, 24, 4, 4)
        for patch in range(16):
            torch.testing.assert_close(level[:, :, patch // 4, patch % 4], patches[:, patch])


def test_levels_of_an_efficientnet_are_the_last_features_of_each_size() -> None:
    built = network(**CNNS["efficientnet"]).eval()
    parts = [built.blocks[stage] for stage in (0, 1, 2, 4, 6)]
    expected = outputs(built, parts, pictures(42))
    for level, other in zip(features(built, [0, 1, 2, 3, 4], 42)(pictures(42)), expected, strict=True):
        torch.testing.assert_close(level, other)


@pytest.mark.parametrize("kind", ["resnet", "dilated_resnet"])
def test_levels_of_a_resnet_are_its_stem_and_its_stages(kind: str) -> None:
    built = network(**CNNS[kind]).eval()
    expected = outputs(built, [built.act1, built.layer1, built.layer2, built.layer3, built.layer4], pictures(42))
    for level, other in zip(features(built, [0, 1, 2, 3, 4], 42)(pictures(42)), expected, strict=True):
        torch.testing.assert_close(level, other)


@pytest.mark.parametrize(
    ("settings", "levels", "size", "channels", "grids"),
    [
        (TRANSFORMERS["plain"], [1], 16, (24,), ((4, 4),)),
        (TRANSFORMERS["dinov3"], [0, 1], 24, (24, 24), ((6, 6), (6, 6))),
        (CNNS["resnet"], [1, 3], 42, (32, 192), ((11, 11), (3, 3))),
        (CNNS["dilated_resnet"], [3, 4], 42, (192, 96), ((6, 6), (6, 6))),
    ],
)
def test_channels_and_grids_are_those_of_the_levels(
    settings: dict[str, Any], levels: list[int], size: int, channels: tuple[int, ...], grids: tuple[tuple[int, int]]
) -> None:
    built = features(network(**settings), levels, size)
    assert (built.channels, built.grids) == (channels, grids)
    assert [level.shape for level in built(pictures(size))] == [
        (2, width, *grid) for width, grid in zip(channels, grids, strict=True)
    ]


@pytest.mark.parametrize("settings", [CNNS["resnet"], {**TRANSFORMERS["plain"], "drop_rate": 0.5}], ids=["cnn", "vit"])
def test_training_changes_nothing_in_a_frozen_network(settings: dict[str, Any]) -> None:
    around = nn.Sequential(features(network(**settings), [0, 1], 16))
    before = {name: value.clone() for name, value in around.state_dict().items()}
    expected = around(pictures(16))
    around.train()
    assert not any(part.training for part in around[0].modules())
    found = around(pictures(16).requires_grad_())
    for level, other in zip(found, expected, strict=True):
        assert torch.equal(level, other)
        assert not level.requires_grad
    assert not any(value.requires_grad for value in around.parameters())
    assert all(torch.equal(value, before[name]) for name, value in around.state_dict().items())


def test_every_level_that_a_network_has_can_be_asked_for_and_none_beyond() -> None:
    for settings, count in [(TRANSFORMERS["plain"], 3), (TRANSFORMERS["dinov3"], 3), (CNNS["resnet"], 5)]:
        built = network(**settings)
        assert len(features(built, list(range(count)), 16).channels) == count
        for level in (-1, count):
            told, kind = refusal(features, built, [level], 16), type(built).__name__
            assert told == f"levels: {kind} has no feature level {level}: there are 0 to {count - 1}"


@pytest.mark.parametrize("levels", [[], [1, 0], [1, 1]], ids=str)
def test_levels_come_once_each_and_in_order(levels: list[int]) -> None:
    told = refusal(features, network(**TRANSFORMERS["plain"]), levels, 16)
    assert told == f"levels={levels}: name one or more levels, each once, in rising order"


def test_a_network_without_intermediate_features_is_refused() -> None:
    told = refusal(features, nn.Sequential(nn.Conv2d(3, 4, 3)), [0], 16)
    assert told == "Sequential gives no intermediate features: use a network of timm that does"


def test_a_network_of_another_size_is_refused_in_one_line() -> None:
    told = refusal(features, network(**TRANSFORMERS["plain"]), [0], 24)
    assert told.startswith("VisionTransformer cannot take images of 24 px (Input height (24) doesn't match")
