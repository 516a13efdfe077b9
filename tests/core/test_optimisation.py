from dataclasses import replace

import pytest

from tests.toolbox import refusal
from xai.core.optimisation import FitParams
from xai.core.settings import build

FIT = FitParams(epochs=2, batch_size=4, learning_rate=1e-2, weight_decay=0.3, warmup=0.2, clip=1.0)


@pytest.mark.parametrize(("epochs", "steps"), [(2, 5), (None, None)])
def test_a_training_has_one_length(epochs: int | None, steps: int | None) -> None:
    values = {"batch_size": 4, "learning_rate": 1.0, "weight_decay": 0.0, "warmup": 0.1, "clip": 0.0}
    told = refusal(build, FitParams, {**values, "epochs": epochs, "steps": steps}, "fit")
    assert told.startswith(("fit.steps=5 and epochs=2: one of", "fit.steps=null and epochs=null: one of"))


def test_a_length_in_steps_is_the_same_for_any_number_of_batches() -> None:
    steps = replace(FIT, epochs=None, steps=5)
    assert [FIT.total(batches) for batches in (1, 7)] == [2, 14]
    assert [steps.total(batches) for batches in (1, 7)] == [5, 5]
