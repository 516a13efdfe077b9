"""What a person can type wrongly: one line, exit status 2, and nothing made."""

import signal
import sys
from dataclasses import asdict

import pytest
import torch

from tests.cli.shared import SMOKE, Cli
from tests.composed import plain
from tests.toolbox import refusal
from xai import cli
from xai.app import settings_of
from xai.core.errors import UserError
from xai.core.settings import build
from xai.data.scatter import ScatterParams
from xai.models.cnn import CnnParams
from xai.models.vit import VitParams
from xai.papers.families import family
from xai.papers.vectors.base import ModelParams
from xai.tasks.registry import TASKS, choose

# Names, numbers and types.


def test_help_explains_itself(run: Cli) -> None:
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    for words in ("Usage: python run.py", "mnist_scattered", "clip_vit_b32", "lambda2", "task=apply_vector", "-m"):
        assert words in out
    for words in (*TASKS, "study=salvage", "task=train method=salvage", "explainers.rise.masks", "checkpoint="):
        assert words in out


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (cli.CONF / group).glob("*.yaml"))


def test_every_task_has_a_configuration() -> None:
    assert choices("task") == sorted(TASKS)


@pytest.mark.parametrize("model", choices("model"))
def test_every_model_is_of_one_family(model: str) -> None:
    settings, families = plain(f"model={model}")["model"], {"vit": VitParams, "clip": ModelParams}
    own = families.get(model.partition("_")[0], CnnParams)
    assert build(own, settings, "model").name == model
    assert family(settings) is own
    for other in {VitParams, ModelParams, CnnParams} - {own}:
        assert "is not a known setting" in refusal(build, other, settings, "model")


@pytest.mark.parametrize("method", ["salvage", "vit_shapley", "ranking", "surrogate", "classifier"])
def test_defaults_of_a_method_are_its_settings(method: str) -> None:
    values = plain("task=train", f"method={method}")
    settings = settings_of(choose(values), values)
    assert settings.method == settings.name == method


def test_settings_of_metrics_are_refused_where_they_are_typed_and_not_where_an_experiment_has_them() -> None:
    asked = ("task=report", "sweep=ranking_figures", "experiment=ranking")
    values = plain(*asked)
    assert values["metric"], "the experiment has some"
    assert settings_of(choose(values), values, asked).name
    with pytest.raises(UserError, match="is nothing that task=report can use"):
        settings_of(choose(values), values, (*asked, "metric.removal.masks=3"))


def test_every_setting_of_a_scene_is_shown_with_its_default() -> None:
    expected, shown = asdict(ScatterParams()), plain()
    for scene in (shown["data"], shown["source"], shown["model"]["pretraining"]["scene"]):
        assert {key: value for key, value in scene.items() if key not in ("name", "images_per_class")} == expected


def test_an_error_in_a_worker_is_told_in_its_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(torch.utils.data.Dataset[int]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> int:
            try:
                raise UserError("inner")
            except UserError as error:
                raise UserError("picture.png is broken: replace it") from error

    loader = torch.utils.data.DataLoader(Broken(), num_workers=1)
    assert cli.report_errors(lambda: [*loader].clear()) == 2
    assert capsys.readouterr().err == "error: picture.png is broken: replace it\n"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_that_a_gpu_has_no_memory_is_a_line(capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    def job() -> None:
        raise error

    assert cli.report_errors(job) == 2
    assert capsys.readouterr().err == f"error: there is not enough memory ({error}): choose smaller sizes\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_stop_says_how_to_go_on(capsys: pytest.CaptureFixture[str], number: signal.Signals, status: int) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
        cli.prepare()
        assert cli.report_errors(lambda: signal.raise_signal(number)) == status

        def swallowed() -> None:
            try:
                signal.raise_signal(number)
            except KeyboardInterrupt as stop:
                raise RuntimeError("Error calling __set_name__") from stop

        assert cli.report_errors(swallowed) == status
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        cli.prepare()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # as nohup asks for
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        cli._stops.clear()
    assert "the same command goes on" in capsys.readouterr().err


def test_a_launched_job_that_ends_in_order_is_not_stopped_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_stops", [])
    monkeypatch.setattr(cli, "is_launched", lambda: True)
    with pytest.raises(KeyboardInterrupt):
        cli._terminate(signal.SIGINT, None)
    cli._terminate(signal.SIGTERM, None)  # of the launcher, beside that of the terminal
    assert cli._stops == [signal.SIGINT, signal.SIGTERM]


def test_what_steers_a_terminal_is_spelt_out(capsys: pytest.CaptureFixture[str]) -> None:
    def job() -> None:
        raise UserError("class \x1b[31mred\udc80 is unknown")

    assert cli.report_errors(job) == 2
    assert capsys.readouterr().err == "error: class \\x1b[31mred\\udc80 is unknown\n"


# Folders.


@pytest.mark.parametrize("setting", ["name=file/below", "store=file/below", "store=file", "hydra.run.dir=file/x"])
def test_an_output_that_cannot_be_written(run: Cli, setting: str) -> None:
    (run.folder / "outputs").mkdir()
    for place in ("file", "outputs/file"):
        (run.folder / place).write_text("kept")
    line = run.refused(*SMOKE, setting)
    assert "file" in line
    assert (run.folder / "file").read_text() == (run.folder / "outputs" / "file").read_text() == "kept"


def test_an_output_that_is_no_name_at_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["xai", "task=explain", "hydra.run.dir="])  # would be the folder one is in
    assert cli.main() == 2
    assert capsys.readouterr().err == "error: hydra.run.dir is empty: give a folder, or leave it out\n"
