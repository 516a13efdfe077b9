"""What is refused before any work: results among the pictures that are read."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from PIL import Image

from tests.composed import composed
from tests.toolbox import cases, refusal
from xai import app, cli
from xai.tasks.checks import check_apart, unasked
from xai.tasks.registry import Task


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("photos/a/one.png", "photos/b/one.jpg", "photos/b/two.heic", "more/x.png", "here.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name, format="png")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "link").symlink_to(tmp_path / "photos" / "a", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(asked: dict[str, Any]) -> Any:
    return SimpleNamespace(**{"store": "outputs/store", **asked})


@pytest.mark.parametrize(("asked", "output"), cases(__file__, "among_pictures.txt"))
def test_nothing_is_written_among_the_pictures(place: Path, asked: dict[str, Any], output: str) -> None:
    told = refusal(check_apart, settings(asked), Path(output))
    assert "among the pictures of " in told
    assert ": leave the folder out" in told
    assert "among the pictures of" in refusal(check_apart, settings(asked), (place / output).absolute())


@pytest.mark.parametrize(("asked", "output"), cases(__file__, "beside_pictures.txt"))
def test_beside_them_there_is_room(place: Path, asked: dict[str, Any], output: str) -> None:
    check_apart(settings(asked), Path(output))


@pytest.mark.parametrize(
    ("task", "given"),
    [("explain", ["hydra.run.dir=photos/maps"]), ("compare", ["-m", "seed=0,1", "hydra.sweep.dir=photos/maps"])],
)
def test_it_is_refused_in_a_line_before_any_work(
    place: Path, given: list[str], task: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(place.rglob("*"))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # main sets it; this puts it back
    asked = ("image=photos/*/*.png", "model=efficientnet_lite0", "trainer=cpu", "logger=none")
    monkeypatch.setattr(sys, "argv", ["xai", f"task={task}", *asked, *given])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.exit", lambda status: status)
        cli.main()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert "photos/maps, among the pictures of photos" in lines[0]
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("asked", "rows", "left"),
    [
        ({"rows": ("grad_cam", "random")}, ["rise", "grad_cam"], ["rise"]),
        ({"row": "grad_cam"}, ["rise"], ["rise"]),
        ({"supervision": "kernel_shap"}, ["kernel_shap", "rise"], ["rise"]),
        ({"rows": ("random",), "reference": "kernel_shap"}, ["kernel_shap"], []),
        # What a row starts from, is a budget of, or is made from, is heeded.
        ({"rows": ("kernel_shap_ridge",)}, ["kernel_shap_proxy"], []),
        ({"rows": ("kernel_shap_few",)}, ["kernel_shap"], ["kernel_shap"]),  # its file has those of the other's file
        ({"rows": ("rise_64",)}, ["rise"], []),
        ({"rows": ("mean_over_classes",)}, ["grad_cam", "rise"], ["rise"]),
        ({"rows": ("random",), "shortcut": None}, ["refined"], ["refined"]),
        ({"rows": ("random",), "shortcut": {}}, ["refined"], []),
        # Nobody has named them all; a search asks for those of its study, such as its supervision, besides.
        ({"rows": ("all",)}, ["rise"], []),
        ({"method": "salvage"}, ["salvage"], []),
        ({"row": "random", "beside": ("rise",), "over": {}}, ["rise", "kernel_shap"], []),
    ],
)
def test_settings_of_what_is_no_row_are_told(asked: dict[str, Any], rows: list[str], left: list[str]) -> None:
    given = {"rise": {"keep_probability": 0.4}, "kernel_shap": {"output": "probability"}}
    given |= {"kernel_shap_proxy": {"output": "logit"}, "refined": {"draws": 2}}
    assert unasked(SimpleNamespace(**asked, explainers={row: given.get(row, {}) for row in rows}), rows) == left


def test_a_run_says_which_typed_settings_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = SimpleNamespace(row="grad_cam", explainers={"rise": {"masks": 64}, "lime": {"samples": 8}})
    task = Task("task=explain", SimpleNamespace, lambda settings, output: None)
    monkeypatch.setattr("xai.app.check", lambda *_: (task, asked))
    config = composed("experiment=smoke")
    OmegaConf.set_struct(config, False)
    config.sweep.axes = {"explainers.lime.samples": 8}  # for some of the jobs
    app.run(config, tmp_path / "out", ["name", "explainers.rise.masks", "explainers.lime.samples"])
    told = [record.getMessage() for record in caplog.records if record.name == "xai.app"]
    assert told == ["explainers.rise was typed and changes nothing: rise is none of the rows here"]
    assert told[0] in (tmp_path / "out" / "run.log").read_text()
