"""Folders of runs: never two runs in one, and never a user's own files."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toolbox import refusal
from xai.core.errors import UserError
from xai.core.folders import final_folder, no_folder, put_now, run_folder, shown

ROOT = Path(__file__).parents[2]


def write(folder: Path, seed: int, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(str(seed))


def visible(folder: Path) -> dict[str, str]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_text() for name, path in found.items() if not name.startswith(".xai")}


def run(final: Path, seed: int, *names: str, adds: bool = False) -> None:
    with run_folder(final, adds=adds) as folder:
        write(folder, seed, *names)


def begin(final: Path) -> None:
    """What is refused only when a run has ended fails here: the run would have worked in vain."""
    with run_folder(final):
        raise AssertionError("begun")


def test_a_run_takes_the_place_of_the_last_and_leaves_the_rest(tmp_path: Path) -> None:
    final = tmp_path / "outputs" / "a"
    run(final, 0, ".hydra/config.yaml", "scores.csv", "old.csv")
    (final / "notes.txt").write_text("mine")
    run(final, 1, ".hydra/config.yaml", "scores.csv")
    assert visible(final) == {".hydra/config.yaml": "1", "scores.csv": "1", "notes.txt": "mine"}
    run(final, 2, "more.csv", adds=True)
    assert visible(final) == {".hydra/config.yaml": "1", "scores.csv": "1", "notes.txt": "mine", "more.csv": "2"}
    run(final, 3, "scores.csv")
    assert visible(final) == {"scores.csv": "3", "notes.txt": "mine"}


def test_of_sheets_no_number_of_an_earlier_run_stays(tmp_path: Path) -> None:
    sheets = [f"sheet_{number}.rise.png" for number in (1, 2, 3)]
    run(tmp_path, 0, *sheets, "sheet_2.grad_cam.png", "photo_2.rise.png", adds=True)
    run(tmp_path, 1, sheets[0], "photo_1.rise.png", adds=True)
    kept = {"sheet_2.grad_cam.png": "0", "photo_2.rise.png": "0"}
    assert visible(tmp_path) == {sheets[0]: "1", "photo_1.rise.png": "1", **kept}


def test_two_runs_at_once_do_not_see_each_other_and_the_last_one_stays_whole(tmp_path: Path) -> None:
    with run_folder(tmp_path) as first:
        write(first, 0, "scores.csv", ".hydra/config.yaml", "only0")
        with run_folder(tmp_path) as second:
            write(second, 1, "scores.csv", ".hydra/config.yaml", "only1")
            assert visible(first) == {"scores.csv": "0", ".hydra/config.yaml": "0", "only0": "0"}
        assert set(visible(tmp_path).values()) >= {"1"}
        assert (tmp_path / "scores.csv").read_text() == "1"
        assert (first / "scores.csv").read_text() == "0"
    assert visible(tmp_path) == {"scores.csv": "0", ".hydra/config.yaml": "0", "only0": "0"}


def test_a_run_that_fails_leaves_the_last_good_one_alone(tmp_path: Path) -> None:
    run(tmp_path / "a", 0, "scores.csv", ".hydra/config.yaml")
    before = visible(tmp_path / "a")

    def fail(final: Path) -> None:
        with run_folder(final) as folder:
            write(folder, 1, "scores.csv")
            raise UserError("wrong")

    assert "wrong" in refusal(fail, tmp_path / "a")
    assert visible(tmp_path / "a") == before
    assert "wrong" in refusal(fail, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_of_a_run_that_ends_early_stays_what_it_has_put_in_its_place(tmp_path: Path) -> None:
    run(tmp_path / "a", 0, "old", "both")

    def fail(final: Path) -> None:
        with run_folder(final, adds=True) as folder:
            write(folder, 1, "both", "new")
            put_now(folder)
            write(folder, 2, "half")
            raise UserError("wrong")

    for name, before in (("a", {"old": "0"}), ("b", {})):
        assert "wrong" in refusal(fail, tmp_path / name)
        assert visible(tmp_path / name) == {**before, "both": "1", "new": "1"}


@pytest.mark.parametrize("name", ["report.html", "figures/mine.png", ".hydra/config.yaml"])
def test_what_no_run_has_written_is_refused_at_once(tmp_path: Path, name: str) -> None:
    write(tmp_path, 7, name)
    told = refusal(begin, tmp_path)
    assert "no run has written it: move or remove it" in told
    assert "older version" in told
    assert visible(tmp_path) == {name: "7"}


def test_nothing_is_written_beside_a_users_pictures(tmp_path: Path) -> None:
    write(tmp_path, 7, "photo.JPG", "below/other.png")
    told = refusal(begin, tmp_path)
    assert "holds pictures of yours, such as photo.JPG: " in told
    assert "name=" in told
    assert {path.name for path in tmp_path.iterdir()} == {"photo.JPG", "below"}  # neither a mark nor a lock
    (tmp_path / "photo.JPG").unlink()
    run(tmp_path, 0, "ours.png")
    run(tmp_path, 1, "ours.png")
    assert visible(tmp_path) == {"ours.png": "1", "below/other.png": "7"}


@pytest.mark.parametrize("name", ["a.jp2", "b.TGA", "c.heif", "d.ppm", "e.jpe", "f.DNG"])
def test_a_picture_of_any_kind_is_a_users(tmp_path: Path, name: str) -> None:
    write(tmp_path, 7, name)
    assert "holds pictures of yours" in refusal(begin, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_what_stands_in_the_way_of_a_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    assert no_folder(tmp_path / "file" / "x") == "file is a file and no folder"
    assert no_folder(tmp_path / "link") == "link is a link to nowhere, which is not there"
    assert no_folder(tmp_path / "new" / "x") is None


@pytest.mark.parametrize("name", ["results/mine", "sweep/mine"])
def test_what_no_run_has_written_is_never_replaced(tmp_path: Path, name: str) -> None:
    write(tmp_path, 7, name)
    assert "no run has written it" in refusal(run, tmp_path, 0, f"{Path(name).parent}/ours", "other")
    assert visible(tmp_path) == {name: "7"}
    run(tmp_path, 0, "other")
    assert visible(tmp_path) == {name: "7", "other": "0"}


def test_a_marker_cannot_name_what_lies_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "a").mkdir()
    texts = [json.dumps({"written": names}) for names in (["../precious"], [".."], [""], [1], None)]
    for text in (*texts, "[" * 100_000):
        (tmp_path / "a" / ".xai.json").write_text(text)
        assert "does not say what a run has written" in refusal(run, tmp_path / "a", 0, "x")
    assert (tmp_path / "precious").read_text() == "mine"


KILLED = """
import os, signal, sys
from pathlib import Path
from xai.core import folders
at, renames = int(sys.argv[2]), 0
rename = os.rename
def counted(a, b):
    global renames
    renames += 1
    if renames > at:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(a, b)
os.rename = counted
with folders.run_folder(Path(sys.argv[1])) as folder:
    for name in ("scores.csv", "config", "b"):
        (folder / name).write_text("1")
"""


def test_a_kill_at_any_moment_of_the_change_never_leaves_a_mixture(tmp_path: Path) -> None:
    for at in range(7):
        final = tmp_path / str(at)
        run(final, 0, "scores.csv", "config", "a")
        done = subprocess.run([sys.executable, "-c", KILLED, str(final), str(at)], cwd=ROOT, check=False)
        assert done.returncode == (0 if at == 6 else -signal.SIGKILL)
        assert len(set(visible(final).values())) <= 1
        run(final, 2, "scores.csv", "config")
        assert visible(final) == {"scores.csv": "2", "config": "2"}
        assert not [path for path in final.iterdir() if path.name.startswith(".xai-run-")]


def test_paths_are_told_as_they_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with run_folder(Path("outputs/a")) as folder:
        assert shown(folder / "report.html") == "outputs/a/report.html"
        assert final_folder(folder) == tmp_path / "outputs" / "a"
    assert final_folder(Path("outputs/a")) == Path("outputs/a")
    assert os.listdir("outputs") == ["a"]


def test_what_takes_a_folders_place_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """A link to a user's folder, swapped in between the look and the write."""
    final, theirs = tmp_path / "outputs" / "a", tmp_path / "theirs"
    write(theirs, 7, "scores.csv")

    def swapped() -> None:
        with run_folder(final):
            final.rename(tmp_path / "away")
            final.symlink_to(theirs)

    assert "moved or replaced" in refusal(swapped)
    assert {path.name: path.read_text() for path in theirs.iterdir()} == {"scores.csv": "7"}


def test_a_link_that_looks_like_a_killed_run_is_not_followed(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    write(theirs, 7, "mine.txt")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".xai-run-x").symlink_to(theirs)
    run(tmp_path / "a", 0, "scores.csv")
    assert [path.name for path in theirs.iterdir()] == ["mine.txt"]
