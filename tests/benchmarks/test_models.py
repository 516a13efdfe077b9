from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks import models
from benchmarks.models import (
    Model,
    Reference,
    best_batches,
    checked_game,
    configured,
    images,
    paint,
    reference,
    targets_of,
)
from benchmarks.setup import Setup
from tests.models.tiny_clip import PARAMS, coalitions
from xai.games import PatchGame
from xai.models.factory import build_clip, build_explainer
from xai.models.maskable import Removal

MODEL = Model(PARAMS, classes=5)
CPU = Setup()


def test_the_reference_is_the_library_and_equals_our_classifier() -> None:
    clip, head = models._parts(MODEL)
    ours = build_explainer(PARAMS, clip, head).eval()
    pictures = images(MODEL, 3, CPU)
    with torch.no_grad():
        logits = ours(pictures)
        torch.testing.assert_close(reference(MODEL, CPU)(pictures), logits, rtol=1e-4, atol=1e-4)
    assert logits.shape == (3, 5)
    assert logits.std() > 0.1


def test_configured_models_have_random_weights_and_the_shape_asked_for() -> None:
    assert configured("clip_tiny", patch_size=6).grid == 7
    large = configured("clip_vit_b32")
    assert (large.architecture, large.grid, large.pretrained) == ("ViT-B-32", 7, None)


def test_a_removed_token_changes_nothing_under_the_attention_mask() -> None:
    network, keep = reference(MODEL, CPU).double(), coalitions(12)
    tokens = network.embed(images(MODEL, 1, CPU).double()).expand(12, -1, -1)
    noise = torch.randn(16, tokens.shape[-1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    changed, shown = tokens.clone(), tokens.clone()
    changed[:, 1:] += noise * ~keep[..., None]
    shown[:, 1:] += noise * keep[..., None]
    torch.testing.assert_close(network.masked(changed, keep), network.masked(tokens, keep), rtol=1e-12, atol=1e-12)
    assert (network.masked(shown, keep) - network.masked(tokens, keep))[1:].abs().amax(1).min() > 1e-3


def test_nothing_hidden_is_the_plain_pass() -> None:
    network, pictures = reference(MODEL, CPU).double(), images(MODEL, 2, CPU).double()
    everything = torch.ones(2, 16, dtype=torch.bool)
    torch.testing.assert_close(network.masked(network.embed(pictures), everything), network(pictures))


def test_a_packed_pair_is_both_coalitions() -> None:
    network, keep = reference(MODEL, CPU).double(), coalitions(10)
    tokens = network.embed(images(MODEL, 1, CPU).double()).expand(10, -1, -1)
    both = torch.stack([network.masked(tokens, keep), network.masked(tokens, ~keep)], dim=1)
    torch.testing.assert_close(network.packed(tokens, keep), both, rtol=1e-10, atol=1e-10)


def test_removed_patches_are_painted_with_the_mean_and_others_stay() -> None:
    pictures, keep = images(MODEL, 2, CPU), torch.ones(2, 16, dtype=torch.bool)
    keep[1, 6] = False
    painted = paint(MODEL, pictures, keep)
    torch.testing.assert_close(painted[0], pictures[0])
    torch.testing.assert_close(painted[1, :, 4:8, 8:12].mean((1, 2)), torch.tensor(PARAMS.mean))
    pictures[1, :, 4:8, 8:12] = painted[1, :, 4:8, 8:12]
    torch.testing.assert_close(painted, pictures)


@pytest.mark.parametrize("kind", ["tokens", "pixels"])
def test_a_game_of_other_values_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = reference(MODEL, CPU)
    game = checked_game(MODEL, network, Removal(kind, "mean"), CPU)(images(MODEL, 2, CPU), torch.tensor([1, 2]))
    assert game.players == 16

    def careless(value: Callable[[PatchGame, Tensor], Tensor]) -> Callable[[PatchGame, Tensor], Tensor]:
        return lambda game, keep: value(game, torch.ones_like(keep))

    monkeypatch.setattr(PatchGame, "value", careless(PatchGame.value))
    with pytest.raises(ValueError, match=r"off by .* from the library's own"):
        checked_game(MODEL, network, Removal(kind, "mean"), CPU)


def test_targets_are_the_predicted_classes() -> None:
    network, pictures = reference(MODEL, CPU), images(MODEL, 4, CPU)
    assert targets_of(network, pictures).tolist() == network(pictures).argmax(1).tolist()


def test_the_best_batch_is_the_one_that_does_the_same_number_of_images_fastest_and_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lucky = iter([0.1] + [9.0] * 99)

    def seconds(network: Reference, batch: Tensor, passes: int, setup: Setup) -> float:
        if len(batch) == 24:
            raise torch.OutOfMemoryError
        assert len(batch) * passes == 24
        return {2: next(lucky), 3: 0.8, 4: 0.9}[len(batch)]

    monkeypatch.setattr(models, "_seconds", seconds)
    assert best_batches([MODEL, MODEL], (2, 3, 4, 24), CPU) == [3, 3]
    assert best_batches([MODEL], (24,), CPU) == [24]


def test_the_build_is_the_same_each_time() -> None:
    first, second = reference(MODEL, CPU).state_dict(), reference(MODEL, CPU).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert build_clip(PARAMS).visual.grid_size == (4, 4)
