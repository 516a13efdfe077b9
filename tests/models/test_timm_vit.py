import copy
from typing import Any

import pytest
import timm
import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock, VisionTransformer
from torch import Tensor

from tests import toolbox
from tests.models.tiny_clip import coalitions
from tests.models.tiny_vit import (
    FAMILIES,
    MEAN,
    PLAYERS,
    maskable,
    masked_out,
    network,
    normalised,
    painted_over,
    pictures,
)
from xai.core.errors import UserError
from xai.models.maskable import Removal, class_logits, reference_image
from xai.models.timm_vit import MaskableVit

EXACT = {"rtol": 1e-10, "atol": 1e-10}
TOKENS = Removal("tokens")


@pytest.fixture(params=FAMILIES, scope="module")
def built(request: pytest.FixtureRequest) -> Any:
    return network(**FAMILIES[request.param]).requires_grad_(False)


def ragged(rows: int = 12) -> Tensor:
    """Unsorted, of many sizes; the empty one, the full one and one of a single patch among them."""
    keep = coalitions(rows)
    keep[2] = torch.arange(PLAYERS) == 9
    assert len(keep.sum(1).unique()) > 5
    assert keep.sum(1).tolist() != sorted(keep.sum(1).tolist())
    return keep


def test_dropping_tokens_equals_masking_them_out_of_every_attention(built: Any) -> None:
    model, images, keep = maskable(built, TOKENS), pictures(built, 12), ragged()
    torch.testing.assert_close(model(images, keep), masked_out(built, images, keep), **EXACT)
    # Attention is uneven enough for a removed patch to be missed.
    assert (model(images, keep) - model(images)).abs().amax(1)[2:].min() > 1e-3


def test_coalitions_of_one_size_are_masked_too(built: Any) -> None:
    images = pictures(built, 6)
    keep = torch.stack([torch.randperm(PLAYERS, generator=torch.Generator().manual_seed(i)) < 5 for i in range(6)])
    torch.testing.assert_close(maskable(built, TOKENS)(images, keep), masked_out(built, images, keep), **EXACT)


@pytest.mark.parametrize("kind", ["tokens", "pixels"])
def test_with_every_patch_it_is_the_plain_network(built: Any, kind: str) -> None:
    model, images = maskable(built, Removal(kind)), pictures(built, 3)
    expected = built(normalised(images))
    torch.testing.assert_close(model(images), expected, **EXACT)
    torch.testing.assert_close(model(images, torch.ones(3, PLAYERS, dtype=torch.bool)), expected, **EXACT)
    assert expected.std() > 0.1


@pytest.mark.parametrize("reference", ["mean", "blur"])
def test_removing_pixels_equals_the_plain_network_on_painted_images(built: Any, reference: str) -> None:
    removal, images, keep = Removal("pixels", reference), pictures(built, 12), ragged()
    model = maskable(built, removal)
    painted = painted_over(images, reference_image(images, removal, torch.tensor(MEAN)), keep, model.grid)
    torch.testing.assert_close(model(images, keep), built(normalised(painted)), **EXACT)


@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 1, 1), (1, 3, 16, 16)], ids=str)
def test_a_reference_of_ones_own_is_what_shows(shape: tuple[int, ...]) -> None:
    built = network()
    behind = torch.rand(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    images, keep = pictures(built, 12), ragged()
    model = maskable(built, Removal("pixels", "black"), behind)
    painted = painted_over(images, behind, keep, model.grid)
    torch.testing.assert_close(model(images, keep), built(normalised(painted)), **EXACT)


@pytest.mark.parametrize("family", ["class_token", "distilled", "qk_norm", "deit3", "average_with_prefix"])
def test_gradients_are_those_of_the_masked_network(family: str) -> None:
    built = network(**FAMILIES[family])
    images, keep = pictures(built, 6).requires_grad_(), ragged()[:6]
    weights = [value for name, value in built.named_parameters() if value.requires_grad]
    steering = torch.randn(6, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64)

    def gradients(logits: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((logits * steering).sum(), [images, *weights])

    found = gradients(maskable(built, TOKENS)(images, keep))
    for mine, theirs in zip(found, gradients(masked_out(built, images, keep)), strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)
    assert all(value.abs().max() > 0 for value in found)


def test_a_copy_answers_with_parameters_of_its_own() -> None:
    model = maskable(network(), TOKENS)
    images, keep = pictures(model.network, 12), ragged()
    before, twin = model(images, keep), copy.deepcopy(model)
    with torch.no_grad():
        for value in twin.parameters():
            value.mul_(1.5)
    torch.testing.assert_close(model(images, keep), before, rtol=0, atol=0)
    torch.testing.assert_close(twin(images, keep), masked_out(twin.network, images, keep), **EXACT)
    assert not torch.allclose(twin(images, keep), before)


@pytest.mark.parametrize("kind", ["tokens", "pixels"])
def test_brain_floats_come_close(built: Any, kind: str) -> None:
    model = maskable(copy.deepcopy(built), Removal(kind)).float()
    images, keep = pictures(built, 12).float(), ragged()
    exact = model(images, keep)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(images, keep).float()
    halved = model.bfloat16()(images.bfloat16(), keep).float()
    spread = exact.std()
    for found in (mixed, halved):
        assert found.isfinite().all()
        assert 0 < (found - exact).abs().mean() < 0.04 * spread


def refusal(built: Any) -> str:
    return toolbox.refusal(maskable, built, TOKENS)


@pytest.mark.parametrize("pooling", ["map", "avgmax", "max", "prr", ""])
def test_other_poolings_are_refused(pooling: str) -> None:
    message = refusal(network(global_pool=pooling))
    assert "cannot drop tokens: use one that pools by token or avg" in message
    assert f"global_pool={pooling or 'none'} " in message


class Wider(VisionTransformer):
    """May do anything with its tokens."""


def test_a_transformer_derived_from_timms_is_refused() -> None:
    built = Wider(img_size=16, patch_size=4, embed_dim=24, depth=1, num_heads=3, num_classes=2)
    assert refusal(built).startswith("Wider is no plain VisionTransformer of timm")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("eva02_tiny_patch14_224", "Eva"),
        ("vit_relpos_small_patch16_224", "VisionTransformerRelPos"),
        ("cait_xxs24_224", "Cait"),
    ],
)
def test_other_transformers_are_refused(name: str, kind: str) -> None:
    settings = {} if kind == "VisionTransformerRelPos" else {"img_size": 28}
    built = timm.create_model(name, embed_dim=24, depth=1, num_heads=3, num_classes=2, **settings)
    assert refusal(built).startswith(f"{kind} is no plain VisionTransformer of timm")


@pytest.mark.parametrize("block", [ResPostBlock, ParallelScalingBlock])
def test_blocks_of_another_kind_are_refused(block: type) -> None:
    assert f"transformer blocks of type {block.__name__} " in refusal(network(block_fn=block))


class Louder(Attention):
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return 2 * super().forward(*args, **kwargs)


def test_an_attention_that_was_swapped_is_refused() -> None:
    assert "with attention DiffAttention " in refusal(network(attn_layer="diff", embed_dim=48))
    for swapped in (Louder(24, 3), Attention(24, 3, gated=True)):
        built = network()
        built.blocks[1].attn = swapped
        assert f"blocks of type Block with attention {type(swapped).__name__} cannot run packed" in refusal(built)


@pytest.mark.parametrize("family", ["class_token", "dynamic"])
@pytest.mark.parametrize("size", [(24, 24), (8, 32), (20, 16)])
def test_images_of_another_size_are_refused(family: str, size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=rf"^images of {size[0]} x {size[1]} px do not fit a network of 16 x 16: .*$"):
        maskable(network(**FAMILIES[family]), TOKENS)(torch.rand(2, 3, *size, dtype=torch.float64))


def test_a_reference_that_does_not_broadcast_is_refused() -> None:
    model = maskable(network(), Removal("pixels"), torch.zeros(3, 5, 5, dtype=torch.float64))
    with pytest.raises(UserError, match=r"^the reference is \[3, 5, 5\]: it must broadcast to \[1, 3, 16, 16\]$"):
        model(pictures(model.network, 2))


def test_a_coalition_costs_its_tokens() -> None:
    built = network(reg_tokens=4)
    assert [maskable(built, TOKENS).cost(kept) for kept in (0, 3, 16)] == [5, 8, 21]
    assert [maskable(built, Removal("pixels")).cost(kept) for kept in (0, 3, 16)] == [21] * 3
    # A budget is divided by it.
    assert maskable(network(**FAMILIES["average_of_patches_only"]), TOKENS).cost(0) == 1


def test_the_grid_is_the_networks() -> None:
    assert MaskableVit(network(**FAMILIES["oblong"]), MEAN, (1.0, 1.0, 1.0)).grid == (2, 8)
    assert maskable(network()).players == PLAYERS
    assert maskable(network()).removal == Removal()


def test_a_single_output_is_the_log_odds_of_the_second_of_two_classes() -> None:
    built = network(num_classes=1)
    images, keep = pictures(built, 12), ragged()
    found, log_odds = maskable(built, TOKENS)(images, keep), masked_out(built, images, keep)
    torch.testing.assert_close(found.softmax(1)[:, 1:], log_odds.sigmoid(), **EXACT)
    torch.testing.assert_close(found[:, 0], -found[:, 1], rtol=0, atol=0)
    assert found.shape == (12, 2)
    assert log_odds.std() > 0.1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_two_outputs_or_more_are_logits_already(dtype: torch.dtype) -> None:
    two = torch.tensor([[2.0, -1.0], [0.0, 3.0]], dtype=dtype)
    assert class_logits(two) is two
    single = class_logits(two[:, None, :1])
    assert single.tolist() == [[[-1.0, 1.0]], [[0.0, 0.0]]]
    assert single.dtype == dtype
