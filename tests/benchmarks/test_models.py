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
    images,
    reference,
)
from benchmarks.setup import Setup
from tests.models.tiny_clip import PARAMS
from xai.games import PatchGame
from xai.models.maskable import Removal

MODEL = Model(PARAMS, classes=5)
CPU = Setup()


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
