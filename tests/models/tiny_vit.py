"""What the tests of timm's transformers share: every family on a 4 x 4 grid, and attention masks for reference."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from xai.models.families import seeded
from xai.models.maskable import Removal
from xai.models.timm_vit import MaskableVit
from xai.models.vit import VitParams

CLASSES = 5
PLAYERS = 16
# Whole sixteenths, which every type of number holds exactly.
MEAN, STD = (0.5, 0.375, 0.25), (0.25, 0.3125, 0.1875)

# What sets a family apart from a ViT with a class token, a bias everywhere and nothing else.
FAMILIES: dict[str, dict[str, Any]] = {
    "class_token": {},
    "deit3": {"no_embed_class": True, "init_values": 0.5},
    "registers": {"reg_tokens": 4, "no_embed_class": True, "init_values": 0.5},
    "embedded_registers": {"reg_tokens": 2},
    "average": {"global_pool": "avg", "fc_norm": False},
    "average_fc_norm": {"global_pool": "avg", "fc_norm": True},
    "average_with_prefix": {"global_pool": "avg", "reg_tokens": 2, "pool_include_prefix": True},
    "average_past_registers": {"global_pool": "avg", "class_token": False, "reg_tokens": 2},
    "average_of_patches_only": {"global_pool": "avg", "class_token": False},
    "distilled": {"model_name": "deit_tiny_distilled_patch16_224"},
    "token_fc_norm": {"fc_norm": True},
    "no_final_norm": {"final_norm": False},
    "pre_norm": {"pre_norm": True},
    "qk_norm": {"qk_norm": True},
    "no_qkv_bias": {"qkv_bias": False},
    "no_positions": {"pos_embed": "none"},
    "dynamic": {"dynamic_img_size": True},
    "inner_norms": {"scale_attn_norm": True, "scale_mlp_norm": True},
    "larger_patches": {"img_size": 24, "patch_size": 6},
    "oblong": {"img_size": (8, 32), "patch_size": (4, 4)},
}


@seeded(0)
def network(**settings: Any) -> Any:
    """A network of timm in float64; weights are scaled up so that attention is far from even."""
    shape = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": CLASSES}
    created = timm.create_model(**{"model_name": "vit_tiny_patch16_224", **shape, **settings})
    for value in created.parameters():
        value.data = value.data + 0.3 * torch.randn(value.shape)
    return created.double().eval()


def maskable(built: Any, removal: Removal | None = None, reference: Tensor | None = None) -> MaskableVit:
    return MaskableVit(built, MEAN, STD, removal, reference)


def normalised(images: Tensor) -> Tensor:
    return torch.stack([(images[:, c] - MEAN[c]) / STD[c] for c in range(3)], dim=1)


def devices_of_vits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where the weights of every ViT come to lie that is built from now on."""
    devices, true = [], VitParams.build

    def watched(*given: Any) -> Any:
        built = true(*given)
        devices.append(next(built.parameters()).device.type)
        return built

    monkeypatch.setattr(VitParams, "build", watched)
    return devices


def pictures(built: Any, count: int, seed: int = 0) -> Tensor:
    """Of the size that a network takes."""
    shape = (count, 3, *built.patch_embed.img_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masked_out(built: Any, images: Tensor, keep: Tensor) -> Tensor:
    """Logits where no layer may attend to a removed patch, and no pooling may read one.

    Nothing is dropped: the network runs on all tokens with a mask of timm's own. A row of keep that is empty in a
    network without prefix tokens attends to nothing, so what is averaged there is nothing: zero.
    """
    prefix = built.num_prefix_tokens
    seen = torch.cat([torch.ones(len(keep), prefix, dtype=torch.bool), keep], dim=1)
    allowed = seen[:, None, None, :].expand(-1, 1, seen.shape[1], -1)
    tokens = built.norm_pre(built._pos_embed(built.patch_embed(normalised(images))))
    for block in built.blocks:
        tokens = block(tokens, attn_mask=allowed)
    tokens = built.norm(tokens)
    if built.global_pool == "token":
        return built.forward_head(tokens)
    pooled = torch.zeros_like(tokens[:, 0])
    for row in range(len(keep)):
        places = [place for place in range(seen.shape[1]) if seen[row, place]]
        places = places if built.pool_include_prefix else [place for place in places if place >= prefix]
        for place in places:
            pooled[row] = pooled[row] + tokens[row, place] / len(places)
    return built.head(built.fc_norm(pooled))


def painted_over(images: Tensor, behind: Tensor, keep: Tensor, grid: tuple[int, int]) -> Tensor:
    """Images whose removed patches show what is behind them, patch by patch."""
    painted, behind = images.clone(), behind.expand_as(images)
    height, width = images.shape[2] // grid[0], images.shape[3] // grid[1]
    for image in range(len(keep)):
        for patch in range(keep.shape[1]):
            if not keep[image, patch]:
                top, left = height * (patch // grid[1]), width * (patch % grid[1])
                place = (image, slice(None), slice(top, top + height), slice(left, left + width))
                painted[place] = behind[place]
    return painted


class SmallCnn(nn.Module):
    """Two convolutions, and batch statistics that are not those of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU()
        )
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.layers(images).mean((2, 3)))


@seeded(0)
def small_cnn() -> SmallCnn:
    """In float64, and sure of itself."""
    cnn = SmallCnn()
    for value in cnn.parameters():
        value.data = value.data + 0.3 * torch.randn(value.shape)
    statistics: Any = cnn.layers[1]
    statistics.running_mean.normal_()
    statistics.running_var.uniform_(0.5, 2)
    return cnn.double().eval()
