"""What is refused before any work: results among the pictures that are read."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from tests.toolbox import cases, refusal
from xai import cli
from xai.tasks.checks import check_apart


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
