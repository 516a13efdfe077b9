"""One job on two devices: two processes on the CPU, against one process that takes the same images."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.end_to_end.jobs import forked_groups
from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.core.training import TrainerParams, _Watch, fit
from xai.data.module import Batch, ImageDataModule
from xai.data.registry import Images
from xai.methods.learner import adamw
from xai.sampling import common_and_own

ONE, TWO = (TrainerParams(accelerator="cpu", devices=devices) for devices in (1, 2))
EPOCHS, STEPS = 3, 6
"""Steps of an epoch: 13 images, one at a time on each of two devices."""


class Scenes:
    """Thirteen random images, others in each epoch."""

    classes = ("a", "b", "c")
    templates = ("{}",)
    varies = True

    def labels(self, split: str) -> Tensor:
        return torch.arange(13) % 3

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        return Images(torch.rand(13, 3, 6, 6, generator=torch.Generator().manual_seed(epoch))[indices], None)


class Tiny(LightningModule):
    """A network with BatchNorm and a parameter that is never used, beside a frozen one that says what to aim at.

    It notes what it has drawn and where it has arrived, and has no loss at step `fatal` of the second process.
    """

    def __init__(self, params: FitParams, notes: Path, seed: int, fatal: int | None) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(99)
            self._frozen = [nn.Linear(108, 3).requires_grad_(False)]
            torch.manual_seed(seed)
            # No bias before BatchNorm: its gradient is nothing but rounding, and Adam makes steps of that.
            first = nn.Conv2d(3, 4, 3, bias=False)
            self.body = nn.Sequential(first, nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(64, 3))
        self.idle = nn.Parameter(torch.ones(2))
        self._params, self._notes, self._fatal = params, notes, fatal
        self._drawn: list[list[float]] = []

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        sources = common_and_own(5, self.global_step, torch.device("cpu"), self.global_rank)
        self._drawn.append([float(torch.rand((), generator=source)) for source in sources])
        aim = self._frozen[0](batch.pixels.flatten(1)).softmax(1)
        found = self.body(batch.pixels)
        loss = F.cross_entropy(found, batch.labels) + (found - aim).square().mean()
        self.log("tiny/loss", loss)
        return loss * torch.nan if self.global_rank and self.global_step == self._fatal else loss

    def on_train_end(self) -> None:
        arrived = {name: value.clone() for name, value in self.state_dict().items()}
        save_file({**arrived, "drawn": torch.tensor(self._drawn)}, self._notes / f"rank{self.global_rank}")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        return adamw(self, self._params)


def train(
    folder: Path, trainer: TrainerParams, batch_size: int, seed: int = 0, fatal: int | None = None
) -> dict[str, Tensor]:
    folder.mkdir(exist_ok=True)
    params = FitParams(EPOCHS, batch_size, learning_rate=1e-2, weight_decay=0.1, warmup=0.3, clip=1.0)
    module, logger = Tiny(params, folder, seed, fatal), CSVLogger(folder, name="curves", version="")
    fit(module, ImageDataModule(Scenes(), 6, batch_size, seed=3), params, trainer, folder, "training", logger)
    assert not module.training
    return module.state_dict()


class Runs(NamedTuple):
    """`two` on two devices, stopped by a NaN in its second epoch and resumed; `one` on one device, undisturbed."""

    folder: Path
    complaint: str
    left: int
    two: dict[str, Tensor]
    one: dict[str, Tensor]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("devices")
    with forked_groups():
        with pytest.raises(UserError) as complaint:
            train(folder / "two", TWO, 1, fatal=2 * STEPS - 1)
        left = torch.load(folder / "two" / "checkpoint.ckpt", weights_only=True)["epoch"]
        # What a resumed run starts from must not matter.
        two = train(folder / "two", TWO, 1, seed=8)
    return Runs(folder, str(complaint.value), left, two, train(folder / "one", ONE, 2))


def notes(runs: Runs, run: str, rank: int = 0) -> dict[str, Tensor]:
    return load_file(runs.folder / run / f"rank{rank}")


def test_a_loss_that_is_no_number_on_one_device_stops_all_before_a_checkpoint_is_written(runs: Runs) -> None:
    assert runs.complaint.startswith(f"the loss is no longer a finite number at step {2 * STEPS}: lower learning_rate")
    assert "\n" not in runs.complaint
    assert runs.left == 0


def test_two_devices_resumed_end_where_one_with_twice_the_batch_does(runs: Runs) -> None:
    for name, value in runs.one.items():
        torch.testing.assert_close(runs.two[name], value, atol=1e-5, rtol=1e-4)
    start = Tiny(FitParams(1, 1, 1.0, 0.0, 0.0, 0.0), runs.folder, 0, None).state_dict()
    for name in ("body.0.weight", "body.1.weight", "body.1.running_var", "body.4.weight"):
        assert (runs.one[name] - start[name]).abs().max() > 1e-2


def test_both_devices_hold_the_weights_that_come_back(runs: Runs) -> None:
    for rank in range(2):
        arrived = notes(runs, "two", rank)
        assert all(torch.equal(arrived[name], value) for name, value in runs.two.items())


def test_devices_draw_alike_what_is_common_and_the_first_what_one_alone_would(runs: Runs) -> None:
    first, second = (notes(runs, "two", rank)["drawn"] for rank in range(2))
    assert torch.equal(first, notes(runs, "one")["drawn"][STEPS:])
    assert torch.equal(first[:, 0], second[:, 0])
    assert (first[:, 1] != second[:, 1]).all()


def test_the_first_device_s_curves_reach_the_logger(runs: Runs) -> None:
    def curve(run: str) -> list[tuple[str, float]]:
        with (runs.folder / run / "curves" / "metrics.csv").open() as file:
            return [(row["step"], float(row["tiny/loss"])) for row in csv.DictReader(file)]

    (step, loss), (same_step, other_loss) = *curve("two"), *curve("one")
    assert step == same_step == "9"
    assert loss > 0
    assert loss != pytest.approx(other_loss)


@pytest.mark.parametrize("devices", [1, 2])
def test_zero_minutes_are_a_checkpoint_after_each_step_on_any_number_of_devices(tmp_path: Path, devices: int) -> None:
    trainer: Any = SimpleNamespace(world_size=devices, global_step=3)
    assert _Watch(tmp_path, 0.0, print)._is_time(trainer)


def test_what_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^devices=0 must be at least 1"):
        TrainerParams(accelerator="cpu", devices=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert TrainerParams(devices=2).device.type == "cuda"
    with pytest.raises(UserError, match=r"devices=3 is more than the 2 GPU\(s\) that are visible"):
        TrainerParams(devices=3)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert TrainerParams().devices == 1
    with pytest.raises(UserError, match="devices=2 starts the processes itself: start the job once, without torchrun"):
        TrainerParams(accelerator="cpu", devices=2)
