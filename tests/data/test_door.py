"""A user's own folder: understood or refused in one line, and never taken for something else in silence."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.data.disk_forms import folders, open_disk_set, picture, refusal, sizes
from xai.core.errors import UserError
from xai.data import contents
from xai.data.catalogue import open_data
from xai.data.disk import DiskParams, DiskSource
from xai.data.folder import folder_parts, pictures_in


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("Training", "", "Testing"),
        ("training_set", "", "test_set"),
        ("Train", "Val", "Test"),
        ("TRAIN", "valid", "TEST"),
        ("train_images", "validation-set", "test images"),
        ("trainset", "dev", "testset"),
    ],
)
def test_folders_that_are_called_after_splits_are_splits(
    tmp_path: Path, train: str, validation: str, test: str
) -> None:
    named = {train: 10, test: 2} | ({validation: 3} if validation else {})
    folders(tmp_path, {f"{name}/{label}": count for name, count in named.items() for label in ("cat", "dog")})
    assert sizes("folder", tmp_path) == ([20, 6, 4] if validation else [18, 2, 4])
    assert open_disk_set("folder", tmp_path, "test").classes == ("cat", "dog")


def test_classes_may_have_folders_of_their_own(tmp_path: Path) -> None:
    folders(tmp_path, {"cat/images": 5, "dog/images": 5, "pets/tabby": 5, "pets/images": 5})
    assert sum(sizes("folder", tmp_path)) == 20


@pytest.mark.parametrize("names", [("bullet_train", "test_tube"), ("train", "boat"), ("valid", "invalid")])
def test_classes_with_such_words_in_their_names_stay_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    folders(tmp_path, dict.fromkeys(names, 10))
    assert sizes("folder", tmp_path) == [16, 2, 2]
    assert folder_parts(tmp_path) == ("whole",)


def test_classes_and_counts_of_a_users_folder_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders(tmp_path, {"train/cat": 10, "train/dog": 20, "test/cat": 1, "test/dog": 2, "extra/x": 1})
    open_data({"name": "folder", "root": str(tmp_path), "size": 8}, "data")
    said = " ".join(capsys.readouterr().out.split())
    assert "2 classes, 27 train + 3 validation + 3 test: cat 9/1/1, dog 18/2/2; not read: extra" in said


def fingerprint(root: Path) -> str:
    return DiskSource("folder", DiskParams(str(root), 8)).fingerprint


def test_pictures_of_the_same_size_that_are_edited_or_swapped_are_noticed(tmp_path: Path) -> None:
    folders(tmp_path, {"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1, "test/a": 1, "test/b": 1})
    seen = [fingerprint(tmp_path)]
    assert fingerprint(tmp_path) == seen[0]
    one, other = tmp_path / "train/a/000.jpg", tmp_path / "train/b/000.jpg"
    body = bytearray(one.read_bytes())
    body[-20] ^= 1
    stamp = one.stat()
    one.write_bytes(body)
    # Not even a program that sets the time back, as `touch -r` does, hides an edit.
    os.utime(one, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    seen.append(fingerprint(tmp_path))
    bodies = one.read_bytes(), other.read_bytes()
    one.write_bytes(bodies[1])
    other.write_bytes(bodies[0])
    seen.append(fingerprint(tmp_path))
    one.rename(tmp_path / "c.jpg")
    other.rename(one)
    (tmp_path / "c.jpg").rename(other)
    assert fingerprint(tmp_path) == seen[1]
    assert len(set(seen)) == 3


def test_contents_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    original = contents._hash
    monkeypatch.setattr(contents, "_hash", lambda path: read.append(path) or original(path))
    monkeypatch.setattr(contents, "_SETTLED", -(10**12))
    folders(tmp_path, {"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1, "test/a": 1, "test/b": 1})
    first = fingerprint(tmp_path)
    assert len(read) == 8
    assert fingerprint(tmp_path) == first
    assert len(read) == 8
    picture(tmp_path / "test/a/000.jpg")
    assert fingerprint(tmp_path) != first
    assert [path.name for path in read[8:]] == ["000.jpg"]
    found, memory = fingerprint(tmp_path), contents.memory_of(tmp_path / "train")
    for spoilt in ("{broken", "[]", '{"a/000.jpg": 1}', '{"a/000.jpg": [[1, 2], null]}', '{"a/000.jpg": [[1], "x"]}'):
        memory.write_text(spoilt)
        assert fingerprint(tmp_path) == found
    memory.unlink()
    os.mkfifo(memory)
    assert fingerprint(tmp_path) == found


def test_what_was_changed_by_a_clock_that_is_ahead_is_not_remembered(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    stamp = 2**32 * 10**9
    for day in range(2):
        (tmp_path / "a.jpg").write_bytes(bytes([day]))
        os.utime(tmp_path / "a.jpg", ns=(stamp, stamp))
        (found,) = contents.hashes(tmp_path, ["a.jpg"])
        assert found == hashlib.blake2b(bytes([day]), digest_size=16).hexdigest()
    assert json.loads(contents.memory_of(tmp_path).read_text()) == {}


def test_jfif_is_read_and_heic_is_refused_by_name(tmp_path: Path) -> None:
    folders(tmp_path, {"a": 10, "b": 10})
    Image.new("RGB", (4, 4)).save(tmp_path / "a" / "x.jfif", format="JPEG")
    assert sum(sizes("folder", tmp_path)) == 21
    for name in ("IMG_1.HEIC", "b.cr2", "scan.dcm"):
        (tmp_path / "b" / name).write_bytes(b"x")
        assert f"{tmp_path / 'b' / name} is of a kind that is not read; convert it" in refusal("folder", tmp_path)
        (tmp_path / "b" / name).unlink()


def test_a_link_to_nothing_is_told_as_such(tmp_path: Path) -> None:
    folders(tmp_path, {"a": 10, "b": 10})
    for link in (tmp_path / "a" / "gone.jpg", tmp_path / "c"):
        link.symlink_to(tmp_path / "nowhere")
        assert f"{link} is a link to {tmp_path / 'nowhere'}, which is not there" in refusal("folder", tmp_path)
        link.unlink()
    source = DiskSource("folder", DiskParams(str(tmp_path), 8))
    (tmp_path / "a" / "000.jpg").unlink()
    (tmp_path / "a" / "000.jpg").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"000\.jpg is a link to .*nowhere, which is not there"):
        _ = source.fingerprint


def test_an_empty_split_is_named_with_its_folder(tmp_path: Path) -> None:
    folders(tmp_path, {"train/a": 3, "train/b": 3})
    (tmp_path / "test").mkdir()
    message = refusal("folder", tmp_path, "test")
    assert f"the test split has no pictures: none, or too few of a class, are in {tmp_path / 'test'}" in message
    folders(tmp_path / "few", {"a": 1, "b": 2})
    assert f"the validation split has no pictures: none, or too few of a class, are in {tmp_path / 'few'}" in refusal(
        "folder", tmp_path / "few", "validation"
    )


def test_a_folder_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    folders(tmp_path, {"a": 10, "b": 10})
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    assert "has a name that is no UTF-8; rename it" in refusal("folder", tmp_path)


def test_what_a_run_wrote_is_no_data(tmp_path: Path) -> None:
    folders(tmp_path, {"a": 10, "b": 10})
    picture(tmp_path / "a" / "000.explained.png")
    for folder, mark in (("outputs/explain", ".hydra"), ("a/outputs/explain", ".xai.json"), ("b/maps", ".xai.json")):
        picture(tmp_path / folder / "heat.png")
        (tmp_path / folder / mark).touch()
    parts = [open_disk_set("folder", tmp_path, split) for split in ("train", "validation", "test")]
    assert parts[0].classes == ("a", "b")
    assert torch.bincount(torch.cat([part.labels for part in parts])).tolist() == [10, 10]


def test_a_run_into_a_folder_of_data_hides_nothing_but_what_it_wrote(tmp_path: Path) -> None:
    folders(tmp_path, {"a/tabby": 10, "b": 10})
    for folder, marked in ((tmp_path, ["sheet.png"]), (tmp_path / "a", ["heat.png", "figures"])):
        (folder / ".xai.json").write_text(json.dumps({"written": marked}))
        for name in marked:
            picture(folder / name if name.endswith(".png") else folder / name / "1.png")
    assert sum(sizes("folder", tmp_path)) == 20
    assert open_disk_set("folder", tmp_path, "test").classes == ("a", "b")
    assert len(pictures_in(tmp_path)) == 20
