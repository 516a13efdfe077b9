from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models import tiny_clip
from tests.models.tiny_vit import FAMILIES, MEAN, STD, maskable, network, normalised, pictures, small_cnn
from tests.toolbox import refusal
from xai.models.attention import attentions, transformer
from xai.models.clip import SelfExplainingClip
from xai.models.maskable import PaintedClassifier, Removal, of_ours

EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(params=FAMILIES, scope="module")
def built(request: pytest.FixtureRequest) -> Any:
    return network(**FAMILIES[request.param]).requires_grad_(False)


def hooked(built: Any, images: Tensor) -> list[Tensor]:
    """Attention as timm's own unfused pass hands it to dropout."""
    kept: list[Tensor] = []
    handles = []
    for block in built.blocks:
        block.attn.fused_attn = False
        handles.append(block.attn.attn_drop.register_forward_hook(lambda m, inputs, output: kept.append(output)))
    built(normalised(images))
    for block, handle in zip(built.blocks, handles, strict=True):
        block.attn.fused_attn = True
        handle.remove()
    return kept


def needed(model: SelfExplainingClip, images: Tensor) -> list[Tensor]:
    """Attention as PyTorch's own module returns it when asked for its weights."""
    tokens, kept = model.visual._embeds(model.normalisation(images)), []
    for block in model.visual.transformer.resblocks:
        normed = block.ln_1(tokens)
        kept.append(block.attn(normed, normed, normed, need_weights=True, average_attn_weights=False)[1])
        tokens = block(tokens)
    return kept


@pytest.mark.parametrize("kind", ["tokens", "pixels"])
def test_a_timm_networks_attentions_are_those_of_its_own_pass(built: Any, kind: str) -> None:
    images = pictures(built, 3)
    expected = hooked(built, images)
    found = list(attentions(maskable(built, Removal(kind)), images))
    assert len(found) == len(expected) == 3
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)
    # Far from even, and so are the heads from one another.
    assert all(layer.std(-1).mean() > 0.01 and layer.std(1).mean() > 0.01 for layer in found)


@pytest.mark.parametrize("kind", ["tokens", "pixels"])
def test_a_clips_attentions_are_those_of_its_own_modules(kind: str) -> None:
    model, images = tiny_clip.classifier(Removal(kind)), tiny_clip.pictures(3)
    for mine, theirs in zip(attentions(model, images), needed(model, images), strict=True):
        assert mine.shape == (3, 2, 17, 17)
        torch.testing.assert_close(mine, theirs, **EXACT)


def test_the_tokens_read_are_those_that_the_logits_depend_on(built: Any) -> None:
    kept: list[Tensor] = []
    handle = built.blocks[-1].register_forward_hook(lambda m, inputs, output: kept.append(output.requires_grad_()))
    logits = built(normalised(pictures(built, 2)))
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.square().sum(), kept)
    expected = torch.zeros(kept[0].shape[1], dtype=torch.bool)
    expected[transformer(maskable(built)).read] = True
    assert (gradient.abs().amax((0, 2)) > 0).tolist() == expected.tolist()


def test_a_layer_runs_when_it_is_asked_for_and_the_last_one_not_to_its_end() -> None:
    built, ran = network(), []
    for number, block in enumerate(built.blocks):
        block.mlp.register_forward_hook(lambda m, inputs, output, number=number: ran.append(number))
    layers = attentions(of_ours(maskable(built)), pictures(built, 1))
    next(layers)
    assert ran == []
    next(layers)
    assert ran == [0]
    assert len(list(layers)) == 1
    assert ran == [0, 1]


def test_gradients_flow_where_the_caller_has_them_on() -> None:
    built = network().requires_grad_(False)
    images = pictures(built, 2).requires_grad_()
    *_, last = attentions(maskable(built), images)
    expected = torch.autograd.grad(hooked(built, images)[-1][:, :, 0, 3].sum(), images)
    torch.testing.assert_close(torch.autograd.grad(last[:, :, 0, 3].sum(), images), expected, **EXACT)
    with torch.no_grad():
        assert not any(layer.requires_grad for layer in attentions(maskable(built), images))


@pytest.mark.parametrize("halved", [False, True], ids=["autocast", "bfloat16"])
def test_brain_floats_come_close_and_rows_still_add_up(halved: bool) -> None:
    model = maskable(network(**FAMILIES["registers"])).requires_grad_(False)
    images = pictures(model.network, 3)
    exact = list(attentions(model, images))
    images = images.float()
    if halved:
        found = list(attentions(model.bfloat16(), images.bfloat16()))
    else:
        with torch.autocast("cpu", torch.bfloat16):
            found = list(attentions(model.float(), images))
    for mine, theirs in zip(found, exact, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine.sum(-1), torch.ones(mine.shape[:-1]))
        assert 0 < (mine - theirs).abs().mean() < 0.01


def test_what_is_no_transformer_is_refused_in_one_line() -> None:
    assert refusal(transformer, PaintedClassifier(small_cnn(), (4, 4), MEAN, STD)) == (
        "this classifier shows no attention: use a CLIP or a ViT of timm, or an explainer that needs none, such "
        "as saliency"
    )
