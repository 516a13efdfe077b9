import gc
import math
import os
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.tiny_clip import PARAMS
from tests.toolbox import cases, refusal, seeded
from xai.core import training
from xai.core.checkpoints import CheckpointFiles, steps_done
from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.core.training import CHECKPOINT, TrainerParams, fit
from xai.data.captions import GlyphStream
from xai.data.module import ImageDataModule
from xai.data.registry import Images
from xai.data.scatter import ScatterParams
from xai.methods.contrastive import ContrastivePretraining
from xai.methods.self_explainer import SelfExplainer
from xai.models.clip import SelfExplainingClip
from xai.models.factory import build_clip, build_explainer, build_tokenizer
from xai.papers.vectors.base import _Stream

CPU = TrainerParams(accelerator="cpu")
FIT = FitParams(epochs=4, batch_size=5, learning_rate=1e-2, weight_decay=0.1, warmup=0.3, clip=1.0)


class KilledError(Exception):
    """What stands in for kill -9."""


class Moving:
    """Twelve random images, others in each epoch; `deadline` is the epoch in which somebody pulls the plug."""

    classes = ("a", "b", "c", "d", "e")
    templates = ("{}",)
    varies = True

    def __init__(self, deadline: int | None = None) -> None:
        self.deadline, self.seen = deadline, []  # type: ignore[var-annotated]

    def labels(self, split: str) -> Tensor:
        return torch.arange(12) % 5

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        if epoch == self.deadline and len(self.seen) % 2:
            raise KilledError
        self.seen.append((epoch, indices.tolist()))
        return Images(torch.rand(12, 3, 16, 16, generator=seeded(epoch))[indices], None)


def network(seed: int = 1) -> SelfExplainingClip:
    return build_explainer(PARAMS, build_clip(PARAMS, seed), torch.randn(12, 5, generator=seeded()))


def train(
    workdir: Path,
    source: Moving,
    params: FitParams = FIT,
    supervised: bool = False,
    seed: int = 1,
    trainer: TrainerParams = CPU,
) -> dict[str, Tensor]:
    model = network(seed)
    maps = torch.randn(12, 4, 4, generator=seeded()) if supervised else None
    data = ImageDataModule(source, 16, params.batch_size, seed=3, attributions=maps)
    fit(
        SelfExplainer(model, params, 0.5 if supervised else 1.0, "t"), data, params, trainer, workdir, "training", False
    )
    assert not model.training
    return model.state_dict()


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("deadline", [0, 1, 3])
def test_a_run_that_was_interrupted_ends_with_the_same_numbers_bit_for_bit(tmp_path: Path, deadline: int) -> None:
    undisturbed = Moving()
    expected = train(tmp_path / "undisturbed", undisturbed)
    killed, resumed = Moving(deadline), Moving()
    with pytest.raises(KilledError):
        train(tmp_path / "killed", killed)
    # A new process builds the model anew; what it starts from must not matter.
    found = train(tmp_path / "killed", resumed, seed=1 if deadline == 0 else 9)
    assert equal(found, expected)
    assert resumed.seen == undisturbed.seen[2 * deadline :]
    assert not equal(expected, network().state_dict())


def test_what_a_training_has_held_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_LARGE", 0)
    model = network()
    learner = SelfExplainer(model, replace(FIT, epochs=1), 1.0, "t")
    gc.disable()
    try:
        fit(learner, ImageDataModule(Moving(), 16, 5, seed=3), learner._params, CPU, tmp_path, "training", False)
        assert all(value.grad is None for value in model.parameters())
        weights = weakref.ref(model.visual.proj)
        del model, learner
        assert weights() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("steps", [1, 3, 4])  # half an epoch, one and a half, and two whole ones
def test_a_training_may_be_measured_in_steps(tmp_path: Path, steps: int) -> None:
    source, by_steps = Moving(), replace(FIT, epochs=None, steps=steps)
    found = train(tmp_path / "steps", source, by_steps)
    assert len(source.seen) == steps
    # A kill between the last step and the end of the stage costs nothing, and changes nothing.
    again = Moving()
    assert equal(train(tmp_path / "steps", again, by_steps, seed=9), found)
    assert not again.seen
    if steps == 4:
        assert equal(train(tmp_path / "epochs", Moving(), replace(FIT, epochs=2)), found)


def stopped_at(step: int) -> Moving:
    """Somebody pulls the plug at a step."""
    source = Moving()

    def images(split: str, indices: Tensor, epoch: int) -> Images:
        if len(source.seen) == step:
            raise KilledError
        return Moving.images(source, split, indices, epoch)

    source.images = images  # type: ignore[method-assign]
    return source


@pytest.mark.parametrize("supervised", [False, True])
@pytest.mark.parametrize("steps", [[1], [3], [2, 5, 6, 9], [10, 11]])
def test_a_run_that_was_killed_within_an_epoch_goes_on_at_the_very_step(
    tmp_path: Path, steps: list[int], supervised: bool
) -> None:
    long = replace(FIT, batch_size=3)
    often = replace(CPU, checkpoint_minutes=0.0)
    undisturbed = Moving()
    expected = train(tmp_path / "undisturbed", undisturbed, long, supervised)
    done = 0
    for step in steps:
        killed = stopped_at(step - done)
        with pytest.raises(KilledError):
            train(tmp_path / "killed", killed, long, supervised, seed=9 if done else 1, trainer=often)
        assert killed.seen == undisturbed.seen[done:step]
        # The batch that a loader has fetched ahead is not done.
        done = steps_done(tmp_path / "killed" / CHECKPOINT, SelfExplainer(network(), long, 1.0, "t"))
        assert done >= step - 2
    last = Moving()
    assert equal(train(tmp_path / "killed", last, long, supervised, seed=9 if done else 1, trainer=often), expected)
    assert last.seen == undisturbed.seen[done:]


@pytest.mark.parametrize("step", [2, 3, 4])  # between two epochs, or in the middle of one
def test_a_training_in_steps_goes_on_where_the_last_whole_epoch_has_ended(tmp_path: Path, step: int) -> None:
    by_steps = replace(FIT, epochs=None, steps=5)
    undisturbed, resumed = Moving(), Moving()
    expected = train(tmp_path / "undisturbed", undisturbed, by_steps)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", stopped_at(step), by_steps)
    assert equal(train(tmp_path / "killed", resumed, by_steps, seed=9), expected)
    assert resumed.seen == undisturbed.seen[step - step % 2 :]


def test_checkpoints_within_an_epoch_are_as_far_apart_as_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, written = iter(range(0, 10**6, 60)), []
    monkeypatch.setattr("xai.core.training.time.monotonic", lambda: float(next(clock)))
    save = CheckpointFiles.save_checkpoint

    def noting(self: CheckpointFiles, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        written.append(checkpoint["global_step"])
        save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(CheckpointFiles, "save_checkpoint", noting)
    params = FitParams(epochs=2, batch_size=1, learning_rate=1e-3, weight_decay=0.0, warmup=0.0, clip=0.0)
    train(tmp_path, Moving(), params, trainer=replace(CPU, checkpoint_minutes=5.0))
    assert written == [5, 10, 12, 17, 22, 24]


def test_a_finished_run_that_is_started_again_trains_nothing(tmp_path: Path) -> None:
    expected = train(tmp_path, Moving())
    again = Moving()
    assert equal(train(tmp_path, again, seed=9), expected)
    assert again.seen in ([], Moving().seen)


def test_pretraining_resumes_at_the_very_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xai.papers.vectors.base._STEPS_BETWEEN_CHECKPOINTS", 3)
    params = FitParams(epochs=3, batch_size=4, learning_rate=1e-2, weight_decay=0.1, warmup=0.3, clip=1.0)
    scene = ScatterParams(canvas=16, cells=2, object_size=7)

    def pretrain(workdir: Path, deadline: int | None, seed: int) -> tuple[dict[str, Tensor], list[int]]:
        steps: list[int] = []

        class Watched(GlyphStream):
            def __getitem__(self, step: int):  # type: ignore[no-untyped-def]
                if step == deadline:
                    raise KilledError
                steps.append(step)
                return super().__getitem__(step)

        clip = build_clip(PARAMS, seed)
        stream = Watched(build_tokenizer(PARAMS), scene, 4, 4, 9, 0)
        module = ContrastivePretraining(clip, params, 5, list(PARAMS.mean), list(PARAMS.std))
        fit(module, _Stream(stream), params, CPU, workdir, "pre-training", False)
        return clip.state_dict(), steps

    expected, steps = pretrain(tmp_path / "undisturbed", None, 1)
    assert steps == list(range(9))
    with pytest.raises(KilledError):
        pretrain(tmp_path / "killed", 7, 1)
    found, steps = pretrain(tmp_path / "killed", None, 9)
    assert steps == [6, 7, 8]
    assert equal(found, expected)


@pytest.mark.parametrize("level", [math.nan, math.inf])
@pytest.mark.parametrize("fatal", [0, 3])
def test_a_loss_that_is_no_number_is_refused_before_a_checkpoint_is_written(
    tmp_path: Path, level: float, fatal: int
) -> None:
    class Broken(Moving):
        def images(self, split: str, indices: Tensor, epoch: int) -> Images:
            made = super().images(split, indices, epoch)
            if len(self.seen) == fatal + 1:
                made.pixels[0, 0, 0, 0] = level
            return made

    with pytest.raises(UserError, match=r"the loss is no longer a finite number at step \d+: lower learning_rate"):
        train(tmp_path, Broken())
    if fatal < 2:
        assert not (tmp_path / "checkpoint.ckpt").exists()
    else:
        weights = torch.load(tmp_path / "checkpoint.ckpt", weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in weights.values())


def test_gradients_are_clipped_to_the_norm_asked_for(tmp_path: Path) -> None:
    one_step = FitParams(epochs=1, batch_size=12, learning_rate=1e-3, weight_decay=0.0, warmup=0.0, clip=1e-12)
    free = FitParams(epochs=1, batch_size=12, learning_rate=1e-3, weight_decay=0.0, warmup=0.0, clip=0.0)
    before = network().state_dict()

    def moved(state: dict[str, Tensor]) -> float:
        return max(float((state[name] - before[name]).abs().max()) for name in before)

    # Adam divides by the gradient's size plus 1e-8: what is far below that hardly moves.
    assert moved(train(tmp_path / "clipped", Moving(), one_step)) < 1e-6
    assert moved(train(tmp_path / "free", Moving(), free)) > 5e-4


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "none is visible: use trainer=cpu" in refusal(TrainerParams, accelerator="gpu")
    assert TrainerParams().device == torch.device("cpu")


@pytest.mark.parametrize(("environment", "expected"), cases(__file__, "own_gpus.txt"))
def test_each_process_of_a_machine_has_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert TrainerParams().device == torch.device(expected)
    assert TrainerParams(accelerator="cpu").device == torch.device("cpu")


def test_half_precision_without_a_gpu_is_refused() -> None:
    assert "use bf16-mixed or 32-true" in refusal(TrainerParams, accelerator="cpu", precision="16-mixed")


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    found = torch.load(path, weights_only=True)
    change(found)
    torch.save(found, path)


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    weights = torch.load(path, weights_only=True)["state_dict"]["model.head"].numpy().tobytes()
    content[content.index(weights) + 5] ^= 1
    path.write_bytes(content)


def a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "torn": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "cannot be read"),
    "flipped": (flipped, "checksum differs"),
    "link": (a_link, "is no file"),
    "folder": (a_folder, "is no file"),
    **{
        f"no {part}": (lambda path, part=part: changed(path, lambda found: found.pop(part)), f"has no {part}")
        for part in ("optimizer_states", "loops", "lr_schedulers", "state_dict")
    },
    "no moments": (
        lambda path: changed(path, lambda found: found["optimizer_states"][0]["state"].clear()),
        "optimiser",
    ),
    "other step": (lambda path: changed(path, lambda found: found.update(global_step=1)), "optimiser and loops"),
    "other version": (lambda path: changed(path, lambda found: found["made_by"].update(torch="1")), "other versions"),
    "other network": (lambda path: changed(path, lambda found: found["state_dict"].popitem()), "another network"),
    "nan": (
        lambda path: changed(path, lambda found: found["state_dict"]["model.head"].fill_(torch.nan)),
        "NaN",
    ),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_checkpoint_that_cannot_be_gone_on_from_is_put_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    short = replace(FIT, epochs=2, batch_size=12)
    whole = train(tmp_path, Moving(), short)
    spoil, why = HARM[harm]
    spoil(tmp_path / CHECKPOINT)
    again = train(tmp_path, Moving(), short)
    assert equal(whole, again)
    [told] = [record.getMessage() for record in caplog.records if "starts anew" in record.getMessage()]
    assert why in told
    assert "\n" not in told
    assert os.path.lexists(tmp_path / "checkpoint.damaged")


def test_checkpoints_are_written_beside_their_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", lambda: pytest.fail("the temporary folder was asked for"))
    train(tmp_path / "work", Moving())
    assert [path.name for path in (tmp_path / "work").iterdir()] == [CHECKPOINT]


def test_a_cluster_changes_nothing_and_nothing_is_said_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    expected = train(tmp_path / "beside", Moving())
    for name, value in {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "a"}.items():
        monkeypatch.setenv(name, value)
    assert equal(train(tmp_path / "within", Moving()), expected)
    assert not [warning for warning in recwarn if "srun" in str(warning.message)]
    assert "srun" not in "".join(capfd.readouterr())


def test_precision_reaches_what_is_not_training() -> None:
    a = torch.ones(2, 2)
    with TrainerParams(accelerator="cpu", precision="bf16-mixed").autocast():
        assert (a @ a).dtype == torch.bfloat16
    with CPU.autocast():
        assert (a @ a).dtype == torch.float32
