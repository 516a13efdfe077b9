from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from tests.toolbox import refusal
from xai.models.backbone import read_body
from xai.models.families import outputs_of, seeded
from xai.models.maskable import Removal
from xai.models.vit import SmallVit, VitParams

TOWER = SmallVit(width=16, depth=2, heads=2, mlp_ratio=2.0, registers=3, position_scale=0.3)
SMALL = VitParams("small", 12, 4, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), tower=TOWER)
TIMM = VitParams("timm", 48, 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), architecture="test_vit")


def test_a_small_tower_has_the_shape_asked_for() -> None:
    network = SMALL.build(outputs=5, seed=0)
    assert network.patch_embed.grid_size == (3, 3)
    assert (len(network.blocks), network.embed_dim, network.blocks[0].attn.num_heads) == (2, 16, 2)
    assert network.blocks[0].mlp.fc1.out_features == 32
    assert network.num_prefix_tokens == 4
    assert network(torch.rand(2, 3, 12, 12)).shape == (2, 5)


def test_its_positions_are_sines_and_cosines_of_row_and_column() -> None:
    network = SMALL.build(outputs=5, seed=0)
    rates = 1 / 10_000 ** (np.arange(4) / 4)
    found = network.pos_embed.detach()[0].double().numpy() / 0.3
    for patch in range(9):
        row, column = patch // 3 * rates, patch % 3 * rates
        halves = [np.concatenate([np.sin(place), np.cos(place)]) for place in (column, row)]
        np.testing.assert_allclose(found[patch], np.concatenate(halves), atol=1e-6)


def test_one_seed_gives_one_network_and_leaves_all_other_generators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the GPUs' draws were set back"))
    state = torch.random.get_rng_state()
    first, again, other = (SMALL.build(5, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_architecture_of_timm_is_built_for_the_size_of_the_images() -> None:
    model = TIMM.maskable(TIMM.build(3, 0))
    assert model.grid == (TIMM.grid, TIMM.grid) == (3, 3)
    assert model.removal == Removal("tokens")
    assert TIMM.maskable(TIMM.build(3, 0), Removal("pixels")).removal == Removal("pixels")


def test_the_width_of_a_head() -> None:
    assert [outputs_of(10, False), outputs_of(2, False), outputs_of(2, True)] == [10, 2, 1]
    assert refusal(outputs_of, 10, True) == "model.binary=true needs a data set of two classes, this one has 10"
    for binary in (False, True):
        assert refusal(outputs_of, 1, binary).startswith("a classifier of 1 class has nothing to tell apart")


def body(path: Path, network: Any) -> dict[str, Tensor]:
    """The weights of a file, as a training starts from them."""
    return read_body(network, path, what=f"weights {path}", model=TIMM.name)


def published(path: Path, side: int, **settings: Any) -> dict[str, Tensor]:
    """The file of a network of timm with 1000 classes, for images of another size."""
    with seeded(7):
        made = timm.create_model("test_vit", img_size=side, num_classes=1000, **settings)
    state = made.state_dict()
    save_file(state, path)
    return state


@pytest.mark.parametrize("side", [48, 80])
def test_published_weights_start_all_but_the_head_and_positions_are_interpolated(tmp_path: Path, side: int) -> None:
    path = tmp_path / "model.safetensors"
    given, network = published(path, side), TIMM.build(3, 0)
    own = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(body(path, network))
    found = network.state_dict()
    prefix = network.num_prefix_tokens
    for name, value in found.items():
        if name.startswith("head."):
            assert torch.equal(value, own[name])
        elif name != "pos_embed":
            assert torch.equal(value, given[name])
    expected = resample_abs_pos_embed(given["pos_embed"], (3, 3), num_prefix_tokens=prefix)
    torch.testing.assert_close(found["pos_embed"], expected)
    assert torch.equal(found["pos_embed"], given["pos_embed"]) == (side == 48)


def test_both_heads_of_a_distilled_network_stay_as_they_are(tmp_path: Path) -> None:
    shape = {"embed_dim": 24, "depth": 1, "num_heads": 2, "img_size": 32}
    given = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=1000, **shape).state_dict()
    network = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3, **shape)
    save_file(given, tmp_path / "deit")
    found = body(tmp_path / "deit", network)
    assert found["head_dist.weight"].shape == (3, 24)
    assert torch.equal(found["norm.weight"], given["norm.weight"])
    network.load_state_dict(found)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    network = TIMM.build(3, 0)
    path = tmp_path / "model.safetensors"
    assert "does not exist" in refusal(body, path, network)
    published(path, 48, depth=2)
    assert "are missing" in refusal(body, path, network)
    save_file({"mask_token": torch.zeros(1, 3), "pos_embed": torch.zeros(7)}, path)
    assert refusal(body, path, network) == f"weights {path} are not those of a VisionTransformer of timm"
