import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import LightningModule

from tests.toolbox import refusal
from xai.core.optimisation import FitParams, adamw, schedule
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


def test_the_schedule_by_hand() -> None:
    found = [schedule(step, 10, 0.2) for step in range(10)]
    half = math.sqrt(0.5)
    falling = [1, (1 + math.cos(math.pi / 8)) / 2, (1 + half) / 2, (1 + math.cos(3 * math.pi / 8)) / 2, 0.5]
    falling += [1 - falling[3], (1 - half) / 2, 1 - falling[1]]
    assert found == pytest.approx([0.5, 1.0, *falling])
    assert schedule(10, 10, 0.2) == pytest.approx(0)


@pytest.mark.parametrize(
    ("total", "warmup", "expected"),
    [
        (4, 0.0, [1, 0.5 + math.sqrt(0.5) / 2, 0.5, 0.5 - math.sqrt(0.5) / 2]),
        (4, 1.0, [0.25, 0.5, 0.75, 1.0]),
        (1, 0.1, [1.0]),
        (5, 0.5, [0.4, 0.8, 1.0, (1 + math.cos(math.pi / 5)) / 2, (1 + math.cos(3 * math.pi / 5)) / 2]),
    ],
)
def test_the_schedule_at_its_ends(total: int, warmup: float, expected: list[float]) -> None:
    assert [schedule(step, total, warmup) for step in range(total)] == pytest.approx(expected)
    assert 0 <= schedule(total, total, warmup) <= 1  # asked for after the last step


def test_adamw_has_the_parameters_asked_for_and_leaves_frozen_ones_out() -> None:
    module = LightningModule()
    module.free, module.frozen = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).requires_grad_(False)
    module._trainer = SimpleNamespace(estimated_stepping_batches=10)  # type: ignore[assignment]
    made = adamw(module, FIT)
    optimiser, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    (group,) = optimiser.param_groups
    assert {id(value) for value in group["params"]} == {id(value) for value in module.free.parameters()}
    assert isinstance(optimiser, torch.optim.AdamW)
    assert group["weight_decay"] == 0.3
    assert made["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(10):
        rates.append(group["lr"])
        optimiser.step()
        scheduler.step()
    assert rates == pytest.approx([1e-2 * schedule(step, 10, 0.2) for step in range(10)])
