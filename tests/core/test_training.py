import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.models.tiny_clip import PARAMS
from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.core.training import TrainerParams, fit
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
        generator = torch.Generator().manual_seed(epoch)
        return Images(torch.rand(12, 3, 16, 16, generator=generator)[indices], None)


def network(seed: int = 1) -> SelfExplainingClip:
    return build_explainer(PARAMS, build_clip(PARAMS, seed), torch.randn(12, 5, generator=_generator()))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def train(
    workdir: Path, source: Moving, params: FitParams = FIT, supervised: bool = False, seed: int = 1
) -> dict[str, Tensor]:
    model = network(seed)
    maps = torch.randn(12, 4, 4, generator=_generator()) if supervised else None
    data = ImageDataModule(source, 16, params.batch_size, seed=3, attributions=maps)
    fit(SelfExplainer(model, params, 0.5 if supervised else 1.0, "t"), data, params, CPU, workdir, "training", False)
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


def test_supervised_runs_resume_too(tmp_path: Path) -> None:
    expected = train(tmp_path / "undisturbed", Moving(), supervised=True)
    source = Moving()

    def stop_at_the_fifth(split: str, indices: Tensor, epoch: int) -> Images:
        if len(source.seen) == 5:
            raise KilledError
        return Moving.images(source, split, indices, epoch)

    source.images = stop_at_the_fifth  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        train(tmp_path / "killed", source, supervised=True)
    assert equal(train(tmp_path / "killed", Moving(), supervised=True, seed=9), expected)


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
    with pytest.raises(UserError, match="none is visible: use trainer=cpu"):
        TrainerParams(accelerator="gpu")
    assert TrainerParams().device == torch.device("cpu")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "cuda"),
        ({"LOCAL_RANK": "0"}, "cuda:0"),
        ({"LOCAL_RANK": "3"}, "cuda:3"),
        ({"SLURM_LOCALID": "2"}, "cuda:2"),
        ({"LOCAL_RANK": "1", "SLURM_LOCALID": "2"}, "cuda:1"),
        ({"SLURM_LOCALID": "4"}, "cuda"),
        ({"LOCAL_RANK": "-1"}, "cuda"),
        ({"LOCAL_RANK": "x"}, "cuda"),
    ],
)
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
    with pytest.raises(UserError, match="use bf16-mixed or 32-true"):
        TrainerParams(accelerator="cpu", precision="16-mixed")


def test_a_torn_checkpoint_is_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = train(tmp_path / "whole", Moving())
    kept = tmp_path / "whole" / "checkpoint.ckpt"
    for size in (0, 1000, kept.stat().st_size - 100):
        folder = tmp_path / str(size)
        folder.mkdir()
        (folder / "checkpoint.ckpt").write_bytes(kept.read_bytes()[:size])
        caplog.clear()
        again = train(folder, Moving())
        assert all(torch.equal(whole[name], again[name]) for name in whole)
        told = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
        assert len(told) == 1
        assert "\n" not in told[0]


def test_precision_reaches_what_is_not_training() -> None:
    a = torch.ones(2, 2)
    with TrainerParams(accelerator="cpu", precision="bf16-mixed").autocast():
        assert (a @ a).dtype == torch.bfloat16
    with CPU.autocast():
        assert (a @ a).dtype == torch.float32
