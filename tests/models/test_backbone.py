"""Published weights in the layouts of their authors, and the names that configurations use."""

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from packaging.requirements import Requirement
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from xai.core.errors import UserError
from xai.models.backbone import body_of, read_body
from xai.models.families import seeded

ROOT = Path(__file__).parents[2]
WIDTH, DEPTH = 24, 2
SHAPE = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2, "num_classes": 0}


@seeded(0)
def meta(image_size: int, patch: int, *, version: int) -> dict[str, Tensor]:
    """A small file as Meta publishes DINOv2 with registers and DINOv3: names, shapes and order of their code."""

    def drawn(*shape: int) -> Tensor:
        return 0.1 * torch.randn(shape)

    cells = (image_size // patch) ** 2
    state = {"cls_token": drawn(1, 1, WIDTH)}
    if version == 2:
        state |= {"pos_embed": drawn(1, 1 + cells, WIDTH), "register_tokens": drawn(1, 4, WIDTH)}
    else:
        state |= {"storage_tokens": drawn(1, 4, WIDTH), "rope_embed.periods": torch.rand(WIDTH // 2 // 4)}
    state |= {"mask_token": torch.zeros(1, WIDTH)}
    state |= {"patch_embed.proj.weight": drawn(WIDTH, 3, patch, patch), "patch_embed.proj.bias": drawn(WIDTH)}
    for block in range(DEPTH):
        own = {"norm1.weight": drawn(WIDTH), "norm1.bias": drawn(WIDTH)}
        own |= {"attn.qkv.weight": drawn(3 * WIDTH, WIDTH), "attn.qkv.bias": drawn(3 * WIDTH)}
        if version == 3:
            mask = torch.cat([torch.ones(WIDTH), torch.zeros(WIDTH), torch.ones(WIDTH)])
            own |= {"attn.qkv.bias": own["attn.qkv.bias"] * mask, "attn.qkv.bias_mask": mask}
        own |= {"attn.proj.weight": drawn(WIDTH, WIDTH), "attn.proj.bias": drawn(WIDTH), "ls1.gamma": drawn(WIDTH)}
        own |= {"norm2.weight": drawn(WIDTH), "norm2.bias": drawn(WIDTH), "ls2.gamma": drawn(WIDTH)}
        own |= {"mlp.fc1.weight": drawn(4 * WIDTH, WIDTH), "mlp.fc1.bias": drawn(4 * WIDTH)}
        own |= {"mlp.fc2.weight": drawn(WIDTH, 4 * WIDTH), "mlp.fc2.bias": drawn(WIDTH)}
        state |= {f"blocks.{block}.{name}": value for name, value in own.items()}
    return state | {"norm.weight": drawn(WIDTH), "norm.bias": drawn(WIDTH)}


@pytest.mark.parametrize("wrapped", [False, True])
def test_metas_file_of_dinov2_starts_its_timm_twin(tmp_path: Path, wrapped: bool) -> None:
    given = meta(56, 14, version=2)
    torch.save({"model": {f"module.{k}": v for k, v in given.items()}} if wrapped else given, tmp_path / "dinov2.pth")
    network = timm.create_model("vit_small_patch14_reg4_dinov2", img_size=28, **SHAPE)
    found = read_body(network, tmp_path / "dinov2.pth", what="weights x", model="m")
    network.load_state_dict(found)
    # timm adds the position of the class token to it once for all, and leaves that of the patches to be interpolated.
    torch.testing.assert_close(found["cls_token"], given["cls_token"] + given["pos_embed"][:, :1])
    torch.testing.assert_close(found["reg_token"], given["register_tokens"])
    expected = resample_abs_pos_embed(given["pos_embed"][:, 1:], (2, 2), num_prefix_tokens=0)
    torch.testing.assert_close(found["pos_embed"], expected)
    for name in ("blocks.1.attn.qkv.bias", "blocks.0.ls2.gamma", "norm.weight", "patch_embed.proj.weight"):
        assert torch.equal(found[name], given[name])


@pytest.mark.parametrize("biased", [False, True])
def test_metas_file_of_dinov3_starts_its_timm_twin(tmp_path: Path, biased: bool, capfd: Any) -> None:
    given = meta(32, 16, version=3)
    torch.save(given, tmp_path / "dinov3.pth")
    network = timm.create_model(f"vit_small_patch16_dinov3{'_qkvb' if biased else ''}", **SHAPE)
    found = read_body(network, tmp_path / "dinov3.pth", what="weights x", model="m")
    network.load_state_dict(found)
    torch.testing.assert_close(found["reg_token"], given["storage_tokens"])
    for name in ("blocks.1.attn.qkv.weight", "cls_token", "norm.weight", "blocks.0.mlp.fc2.bias"):
        assert torch.equal(found[name], given[name])
    assert torch.equal(found["blocks.1.gamma_1"], given["blocks.1.ls1.gamma"])
    assert torch.equal(found["blocks.1.gamma_2"], given["blocks.1.ls2.gamma"])
    if biased:
        query, _, value = given["blocks.1.attn.qkv.bias"].chunk(3)
        assert torch.equal(found["blocks.1.attn.q_bias"], query)
        assert torch.equal(found["blocks.1.attn.v_bias"], value)
    assert capfd.readouterr().out == ""
    # A block by hand from Meta's own tensors, where there is one token, which attends to itself alone.
    block, token = "blocks.0.", torch.randn(1, 1, WIDTH)
    normed = torch.nn.functional.layer_norm(
        token, (WIDTH,), given[f"{block}norm1.weight"], given[f"{block}norm1.bias"], eps=network.blocks[0].norm1.eps
    )
    bias = given[f"{block}attn.qkv.bias"] if biased else torch.zeros(3 * WIDTH)
    value = (normed @ given[f"{block}attn.qkv.weight"].T + bias)[..., 2 * WIDTH :]
    attended = value @ given[f"{block}attn.proj.weight"].T + given[f"{block}attn.proj.bias"]
    with torch.no_grad():
        got = network.eval().blocks[0].attn(network.blocks[0].norm1(token)) * network.blocks[0].gamma_1
    torch.testing.assert_close(got, attended * given[f"{block}ls1.gamma"])


def test_a_file_of_another_depth_is_refused() -> None:
    given = {name: value for name, value in meta(32, 16, version=3).items() if not name.startswith("blocks.1")}
    network = timm.create_model("vit_small_patch16_dinov3", **SHAPE)
    with pytest.raises(UserError, match=r"w does not fit model=m: .* are missing"):
        body_of(network, given, what="w", model="m")


def test_timm_has_every_network_that_configurations_name() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "conf").rglob("*.yaml"))
    text = re.sub(r"#.*", "", text)
    names = {name for name in re.findall(r"architecture: ([\w.-]+)", text) if name != "null" and name[:4] != "ViT-"}
    assert {"vit_large_patch16_dinov3", "vit_base_patch14_reg4_dinov2", "tf_efficientnet_lite0"} <= names
    for name in names:
        assert timm.is_model(name), name
        _, _, tag = name.partition(".")
        assert not tag or timm.models.get_pretrained_cfg(name) is not None, name
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = Requirement(re.findall(r'"(timm[^"]*)"', text)[0])
    # DINOv3 came with 1.0.20.
    assert not wanted.specifier.contains("1.0.19")
    assert wanted.specifier.contains(timm.__version__)
