"""Weights of the best epoch, and of a network on its way, also where a run was killed and went on."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
import torch
from pytorch_lightning.loggers import CSVLogger, Logger
from torch import Tensor

from tests.core.test_training import CPU, KilledError, Moving, equal, network
from tests.methods.tiny_salvage import batch, classifier, copied
from xai.core.checkpoints import BEST, kept_weights, on_the_way
from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.core.training import fit
from xai.data.module import Batch, ImageDataModule
from xai.data.registry import Images
from xai.methods.classifier import Classifier
from xai.methods.learner import schedule
from xai.methods.self_explainer import SelfExplainer

FIT = FitParams(6, 5, 3e-2, 0.0, 0.0, 0.0, keep="best")
SHARES = (0.25, 0.5)
STEPS = 12


class Fixed:
    """Twelve images to learn by heart, and twelve others of the same labels, of which nothing can be learned."""

    classes = ("a", "b", "c")

    def __init__(self, deadline: int | None = None) -> None:
        self.deadline, self.read = deadline, 0

    def labels(self, split: str) -> Tensor:
        return torch.arange(12) % 3

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        if split == "train":
            self.read += 1
        if self.read == self.deadline:
            raise KilledError
        pixels = batch(12, seed={"train": 0, "validation": 5}[split]).pixels
        return Images(pixels[indices], None)


class Watched(Classifier):
    """Remembers its weights after every step, and what they say of the other images after every epoch."""

    def __init__(self, params: FitParams) -> None:
        super().__init__(classifier().requires_grad_(True), params, 0.0, 3, "test")
        self.states: dict[int, dict[str, Tensor]] = {}
        self.losses: dict[int, float] = {}

    def on_train_batch_end(self, *_: Any) -> None:
        self.states[self.global_step] = copied(self)

    def on_train_epoch_end(self) -> None:
        source = Fixed()
        pixels = source.images("validation", torch.arange(12), 0).pixels
        with torch.no_grad():
            chances = self.model(pixels).double().softmax(1)[torch.arange(12), source.labels("validation")]
        self.losses[self.global_step] = float(-chances.log().mean())


def trained(
    folder: Path, source: Fixed, params: FitParams = FIT, minutes: float = 5.0, logger: Logger | Literal[False] = False
) -> Watched:
    module = Watched(params)
    data = ImageDataModule(source, 8, params.batch_size, seed=3)  # type: ignore[arg-type]
    trainer = replace(CPU, checkpoint_minutes=minutes)
    fit(module, data, params, trainer, folder, "training", logger, shares=SHARES)
    return module


def test_the_best_epoch_is_what_is_left_and_the_last_where_that_is_asked_for(tmp_path: Path) -> None:
    module = trained(tmp_path / "best", Fixed())
    best = min(module.losses, key=lambda step: module.losses[step])
    assert len(module.losses) == 6
    assert best < STEPS, "the last epoch is the best: nothing is shown"
    assert equal(copied(module), module.states[best])
    last = trained(tmp_path / "last", Fixed(), FitParams(6, 5, 3e-2, 0.0, 0.0, 0.0))
    assert equal(copied(last), module.states[STEPS])
    assert not (tmp_path / "last" / BEST).exists()


class Alone(Fixed):
    """One picture of each class, and none is held out."""

    def labels(self, split: str) -> Tensor:
        return super().labels(split)[: 0 if split == "validation" else 12]


def test_without_images_to_look_at_no_curve_is_drawn_of_them_and_no_epoch_is_the_best(tmp_path: Path) -> None:
    last, logger = replace(FIT, keep="last"), CSVLogger(tmp_path, name="csv", version="")
    found = trained(tmp_path / "logged", Alone(), last, logger=logger)
    assert equal(copied(found), copied(trained(tmp_path / "silent", Fixed(), last)))
    assert "test/validation_loss" not in pd.read_csv(tmp_path / "csv" / "metrics.csv")
    with pytest.raises(UserError, match="keep=best needs images of the validation split, which has none"):
        trained(tmp_path / "best", Alone())


def test_of_epochs_without_a_loss_that_is_a_number_none_is_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(self: Watched, batch: Batch, step: int) -> Tensor:
        return Classifier.loss(self, batch, step) * (1.0 if self.training else torch.inf)

    monkeypatch.setattr(Watched, "loss", loss)
    with pytest.raises(
        UserError, match="training: keep=best finds no epoch whose loss on the validation split is a finite"
    ):
        trained(tmp_path, Fixed())


def test_the_network_on_its_way_is_that_of_the_one_training(tmp_path: Path) -> None:
    module = trained(tmp_path, Fixed())
    for share in SHARES:
        assert equal(kept_weights(tmp_path, on_the_way(share)), module.states[round(share * STEPS)])


def test_curves_have_the_validation_loss_the_rate_and_the_gradient_and_change_nothing(tmp_path: Path) -> None:
    last = replace(FIT, keep="last", warmup=0.5, clip=1e-3)
    expected = trained(tmp_path / "silent", Fixed(), last)
    logger = CSVLogger(tmp_path, name="csv", version="")
    # Killed where curves are drawn, and gone on with where they are not.
    with pytest.raises(KilledError):
        trained(tmp_path / "logged", Fixed(8), last, minutes=0.0, logger=logger)
    assert equal(copied(trained(tmp_path / "logged", Fixed(), last)), copied(expected))
    logger = CSVLogger(tmp_path, name="whole", version="")
    assert equal(copied(trained(tmp_path / "whole", Fixed(), last, logger=logger)), copied(expected))
    found = pd.read_csv(tmp_path / "whole" / "metrics.csv")
    losses = found.dropna(subset="test/validation_loss").set_index("step")["test/validation_loss"]
    # Lightning counts the steps of its logs from 0.
    assert losses.to_dict() == pytest.approx({step - 1: loss for step, loss in expected.losses.items()}, rel=1e-5)
    rates = found.dropna(subset="test/learning_rate").set_index("step")["test/learning_rate"]
    assert rates.to_dict() == pytest.approx({9: 3e-2 * schedule(9, STEPS, 0.5)})
    # As it was before it was clipped to a thousandth.
    assert found["test/gradient_norm"].dropna().min() > 0.01


@pytest.mark.parametrize("params", [FIT, replace(FIT, epochs=None, steps=STEPS)], ids=["epochs", "steps"])
@pytest.mark.parametrize(("deadline", "minutes"), [(2, 5.0), (5, 5.0), (12, 5.0), (4, 0.0), (8, 0.0)])
def test_a_run_that_was_killed_keeps_the_same(tmp_path: Path, deadline: int, minutes: float, params: FitParams) -> None:
    expected = trained(tmp_path / "undisturbed", Fixed(), params)
    with pytest.raises(KilledError):
        trained(tmp_path / "killed", Fixed(deadline), params, minutes)
    found = trained(tmp_path / "killed", Fixed(), params)
    assert equal(copied(found), copied(expected))
    for name in (BEST, *map(on_the_way, SHARES)):
        assert equal(*(kept_weights(tmp_path / run, name) for run in ("undisturbed", "killed")))


@pytest.mark.parametrize("name", [BEST, on_the_way(0.25)])
@pytest.mark.parametrize("harm", ["flip", "remove", "folder"])
def test_kept_weights_that_were_damaged_before_a_resume_start_the_stage_anew(
    tmp_path: Path, name: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = trained(tmp_path / "undisturbed", Fixed())
    with pytest.raises(KilledError):
        trained(tmp_path / "killed", Fixed(12))
    kept = tmp_path / "killed" / name
    content = bytearray(kept.read_bytes())
    kept.unlink()
    if harm == "flip":
        weights = next(iter(torch.load(tmp_path / "undisturbed" / on_the_way(0.25), weights_only=True).values()))
        start = content.find(weights.numpy().tobytes()[:8])
        content[start + 5 if start >= 0 else len(content) // 2] ^= 1
        kept.write_bytes(content)
    elif harm == "folder":
        kept.mkdir()
    found = trained(tmp_path / "killed", Fixed())
    assert equal(copied(found), copied(expected))
    assert equal(*(kept_weights(tmp_path / run, name) for run in ("undisturbed", "killed")))
    [told] = [record.getMessage() for record in caplog.records if "starts anew" in record.getMessage()]
    assert f"needs {name}, which is missing or damaged" in told


def test_a_training_without_a_validation_loss_has_no_best_epoch(tmp_path: Path) -> None:
    data = ImageDataModule(Moving(), 16, 5, seed=3)
    with pytest.raises(UserError, match="keep=best needs a loss on the validation split"):
        fit(SelfExplainer(network(), FIT, 1.0, "t"), data, FIT, CPU, tmp_path, "training", False)


def test_the_best_epoch_is_not_asked_for_where_the_last_steps_end_within_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"epochs of 2 steps, and steps=5 ends within one: use a multiple"):
        trained(tmp_path, Fixed(), replace(FIT, epochs=None, steps=5))
