"""Networks of others: their own forward pass is what counts, and nothing in them changes."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models.test_timm_vit import EXACT, ragged
from tests.models.tiny_clip import classifier
from tests.models.tiny_clip import pictures as small_pictures
from tests.models.tiny_vit import FAMILIES, MEAN, STD, maskable, masked_out, network, normalised, pictures, small_cnn
from tests.toolbox import refusal
from xai.games import PatchGame
from xai.models.clip import SelfExplainingClip
from xai.models.maskable import PaintedClassifier, Removal, of_ours


def turned(built: Any) -> Any:
    """A network with a hook on a block, which the packed pass does not call."""
    built.blocks[1].register_forward_hook(lambda module, given, tokens: 1.5 * tokens - 0.2)
    return built


@pytest.mark.parametrize("family", ["class_token", "distilled", "average", "qk_norm"])
@pytest.mark.parametrize("kind", ["tokens", "pixels"])
def test_a_hook_on_a_block_counts(family: str, kind: str) -> None:
    built = turned(network(**FAMILIES[family])).requires_grad_(False)
    model, images, keep = maskable(built, Removal(kind)), pictures(built, 12), ragged()
    with pytest.warns(UserWarning, match="its blocks are called as they are, which takes longer"):
        torch.testing.assert_close(model(images), built(normalised(images)), **EXACT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if kind == "tokens":
            torch.testing.assert_close(model(images, keep), masked_out(built, images, keep), **EXACT)
        game = PatchGame(model, images, output="logit", tokens=40)
        torch.testing.assert_close(game.value(keep[:, None])[:, 0], model(images, keep).float())


def test_a_hook_on_a_block_of_a_clip_counts() -> None:
    plain = classifier(Removal("tokens"))
    plain.visual.transformer.resblocks[0].register_forward_hook(lambda module, given, tokens: 1.5 * tokens)
    given = (plain.visual, plain.head, float(plain.logit_scale), MEAN, STD, Removal("tokens"))
    model = SelfExplainingClip(*given).to(plain.head.dtype)
    with pytest.warns(UserWarning, match="a hook or a changed block"):
        found = model(small_pictures(2))
    torch.testing.assert_close(found, model.explain(small_pictures(2)).logits)


def calls(module: nn.Module) -> list[int]:
    """How many images each call of a module got, as it goes on."""
    seen: list[int] = []
    module.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    return seen


def test_an_unchanged_network_is_asked_once_for_one_image_and_ours_never() -> None:
    for model, expected in ((maskable(network()), [1]), (of_ours(maskable(network())), [])):
        seen = calls(model.network)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(2):
                model(pictures(model.network, 3))
        assert seen == expected


def test_a_network_that_is_more_than_its_blocks_and_head_is_refused() -> None:
    built = network()
    built.register_forward_hook(lambda module, given, logits: logits.flip(-1))
    model = maskable(built)
    for _ in range(2):
        assert "explain it as a whole, with removal.kind=pixels" in refusal(model, pictures(built, 2))
    painted = PaintedClassifier(built, (4, 4), MEAN, STD).double()
    torch.testing.assert_close(painted(pictures(built, 2)), built(normalised(pictures(built, 2))), **EXACT)


def test_whoever_forgot_eval_keeps_his_statistics() -> None:
    cnn = small_cnn().train()
    before = {name: value.clone() for name, value in cnn.state_dict().items()}
    model = PaintedClassifier(cnn, (4, 4), MEAN, STD)
    images: Tensor = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    PatchGame(model, images).value(torch.ones(1, 16, dtype=torch.bool))
    torch.testing.assert_close(model(images), small_cnn()(normalised(images)))
    assert all(torch.equal(value, before[name]) for name, value in cnn.state_dict().items())
