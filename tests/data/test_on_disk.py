"""Folders and lists in their true form on disk, read back pixel by pixel; every damage ends as one line."""

import itertools
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from tests.data.disk_forms import (
    content,
    expected,
    folders,
    open_disk_set,
    picture,
    refusal,
    sizes,
    train_and_validation,
)
from tests.toolbox import Trap, cases
from xai.core.errors import UserError
from xai.data.disk_set import DISK_SETS, DiskSet, Files, check_classes, tidy_name
from xai.data.prompts import EUROSAT_NAMES, GTSRB_NAMES
from xai.data.registry import SPLITS


def test_folder_in_one_piece(tmp_path: Path) -> None:
    made = folders(tmp_path, {"dog_breed": 10, "Cat": 20})
    assert sizes("folder", tmp_path) == [24, 3, 3]
    parts = [open_disk_set("folder", tmp_path, split) for split in SPLITS]
    assert all(part.classes == ("Cat", "dog breed") for part in parts)
    assert all(torch.bincount(part.labels).tolist() == [2, 1] for part in parts[1:])
    assert sorted(itertools.chain(*(content(part) for part in parts))) == expected(
        [(pixels, tidy_name(name.split("/")[0])) for name, pixels in made.items()]
    )


def test_folder_with_all_splits(tmp_path: Path) -> None:
    made = folders(tmp_path, {"train/a": 3, "train/b": 2, "val/a": 1, "val/b": 2, "test/b": 2})
    assert sizes("folder", tmp_path) == [5, 3, 2]
    test = open_disk_set("folder", tmp_path, "test")
    # Classes are those of train, so that b keeps its number where a is absent.
    assert test.classes == ("a", "b")
    assert test.labels.tolist() == [1, 1]
    assert content(test) == expected([(made[f"test/b/00{n}.jpg"], "b") for n in (0, 1)])


def test_folder_without_validation_or_without_test(tmp_path: Path) -> None:
    folders(tmp_path / "x", {"train/a": 20, "train/b": 10, "test/a": 1, "test/b": 1})
    assert sizes("folder", tmp_path / "x") == [27, 3, 2]
    folders(tmp_path / "y", {"train/a": 20, "train/b": 10, "val/a": 1, "val/b": 1})
    assert sizes("folder", tmp_path / "y") == [27, 3, 2]
    folders(tmp_path / "z", {"train/a": 20, "train/b": 10})
    assert "has no test split beside train" in refusal("folder", tmp_path / "z", "test")
    folders(tmp_path / "w", {"test/a": 2, "test/b": 1})
    assert len(open_disk_set("folder", tmp_path / "w", "test")) == 3
    assert "has no train split beside test" in refusal("folder", tmp_path / "w", "train")


def test_a_split_folder_with_nothing_in_it(tmp_path: Path) -> None:
    folders(tmp_path, {"train/a": 20, "train/b": 10, "test/a": 5, "test/b": 5})
    (tmp_path / "val").mkdir()
    assert "the validation split has no pictures" in refusal("folder", tmp_path, "validation")
    assert sizes("folder", tmp_path, "pooled") == [34, 3, 3]


def test_folder_ignores_what_is_no_picture_and_follows_links(tmp_path: Path) -> None:
    root = tmp_path / "set"
    folders(root, {"a": 3, "b/inner": 3})
    for name in ("a/.hidden.jpg", "a/notes.txt", "a/Thumbs.db", ".git/x.jpg", "__MACOSX/x.jpg", "readme.jpg"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("x")
    picture(root / "a" / "UPPER.JPEG")
    picture(tmp_path / "elsewhere" / "x.png")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "inner" / "loop").symlink_to(root / "b")
    data = [open_disk_set("folder", root, split) for split in SPLITS]
    assert data[0].classes == ("a", "b", "c")
    assert sum(torch.bincount(part.labels, minlength=3) for part in data).tolist() == [4, 3, 1]


def test_the_order_of_a_folder_is_that_of_its_names(tmp_path: Path) -> None:
    folders(tmp_path, {"train/b": 4, "train/a": 4, "train/a/z": 2, "val/a": 1, "test/a": 1, "test/b": 1})
    records = open_disk_set("folder", tmp_path, "train").records
    assert list(records.names) == sorted(records.names)
    assert len(records) == 10


@pytest.mark.parametrize(("split", "counts", "why"), cases(__file__, "refused_folders.txt"))
def test_folders_that_cannot_be_used(tmp_path: Path, split: str, counts: dict[str, int], why: str) -> None:
    folders(tmp_path, counts)
    assert re.search(re.escape(why).replace(re.escape("..."), ".*"), refusal("folder", tmp_path, split))


def test_a_class_folder_without_pictures(tmp_path: Path) -> None:
    folders(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "c").mkdir()
    assert f"class folder {tmp_path / 'c'} has no pictures" in refusal("folder", tmp_path)


def test_a_broken_picture_is_named_when_read(tmp_path: Path) -> None:
    folders(tmp_path, {"train/a": 2, "train/b": 2, "val/a": 1, "test/a": 1})
    (tmp_path / "train/b/001.jpg").write_bytes(b"\xff\xd8\xff")
    data = open_disk_set("folder", tmp_path, "train")
    with pytest.raises(UserError, match=r"train/b/001\.jpg"):
        data.records.image(3)


def test_imagenet(tmp_path: Path) -> None:
    # 657 and 744 are both "missile", 836 and 837 both "sunglasses" in open_clip's list.
    ids = {"n01440764": "tench", "n03773504": "missile", "n04008634": "projectile", "n04356056": "dark glasses"}
    root = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    made = folders(root, {f"train/{key}": 10 for key in ids} | {f"val/{key}": 1 for key in ids})
    assert sizes("imagenet", tmp_path) == [36, 4, 4]
    test = open_disk_set("imagenet", root, "test")
    assert test.classes == tuple(ids.values())
    assert content(test) == expected([(made[f"val/{key}/000.jpg"], name) for key, name in ids.items()])


def test_imagenet_in_forms_that_cannot_be_used(tmp_path: Path) -> None:
    folders(tmp_path / "x", {"train/n01440764": 1, "train/tench": 1})
    assert "tench is no ImageNet-1k class" in refusal("imagenet", tmp_path / "x")
    folders(tmp_path / "y", {"train/n01440764": 1, "train/n01443537": 1, "val": 3})
    assert "side by side" in refusal("imagenet", tmp_path / "y", "test")
    folders(tmp_path / "z", {"train/n01440764": 1})
    assert "needs val; not found" in refusal("imagenet", tmp_path / "z", "test")


def test_imagenets_thousand_names_tell_apart() -> None:
    from xai.data.folder import imagenet_names

    names = imagenet_names()
    assert len(names) == 1000
    assert list(names) == sorted(names)
    check_classes(tuple(names.values()))


def test_eurosat(tmp_path: Path) -> None:
    made = folders(tmp_path / "2750", dict.fromkeys(EUROSAT_NAMES, 10))
    assert sizes("eurosat", tmp_path) == [80, 10, 10]
    parts = [content(open_disk_set("eurosat", tmp_path, split)) for split in SPLITS]
    pairs = [(pixels, EUROSAT_NAMES[name.split("/")[0]]) for name, pixels in made.items()]
    assert sorted(itertools.chain(*parts)) == expected(pairs)
    (tmp_path / "2750" / "Forest").rename(tmp_path / "Forest")
    assert "needs the class folder Forest" in refusal("eurosat", tmp_path)


def test_resisc45_with_and_without_lists(tmp_path: Path) -> None:
    root = tmp_path / "NWPU-RESISC45"
    made = {
        f"{name}_{number:03d}.jpg": picture(root / name / f"{name}_{number:03d}.jpg")
        for name in ("airplane", "dense_residential")
        for number in range(1, 11)
    }
    assert sizes("resisc45", tmp_path) == [16, 2, 2]
    (tmp_path / "resisc45-val.txt").write_text("dense_residential_004.jpg\nairplane_010.jpg\n")
    listed = open_disk_set("resisc45", tmp_path, "validation")
    assert listed.labels.tolist() == [1, 0]
    assert content(listed) == expected(
        [(made["airplane_010.jpg"], "airplane"), (made["dense_residential_004.jpg"], "dense residential")]
    )
    (tmp_path / "resisc45-val.txt").write_text("zoo_004.jpg\n")
    assert 'names "zoo_004.jpg"' in refusal("resisc45", tmp_path, "validation")
    (tmp_path / "resisc45-val.txt").write_text("airplane_999.jpg\n")
    assert "lacks 1 of the 1 pictures" in refusal("resisc45", tmp_path, "validation")


def make_cars(root: Path) -> dict[str, list[tuple[np.ndarray, str]]]:
    classes = ["Acura TL Sedan 2012", "BMW M3 Coupe 2012", "smart fortwo Convertible 2012"]
    (root / "devkit").mkdir(parents=True)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": np.array([classes], dtype=object)})
    fields = [("bbox_x1", object), ("class", object), ("fname", object)]
    made: dict[str, list[tuple[np.ndarray, str]]] = {}
    for part, count, leaf in (("train", 30, "devkit/cars_train_annos"), ("test", 3, "cars_test_annos_withlabels")):
        rows = np.zeros((1, count), dtype=fields)
        made[part] = []
        for number in range(count):
            name = f"{number + 1:05d}.jpg"
            rows[0, number] = (1, number % 3 + 1, name)
            made[part].append((picture(root / f"cars_{part}" / name), classes[number % 3]))
        savemat(root / f"{leaf}.mat", {"annotations": rows})
    return made


@pytest.mark.parametrize("inside", [".", "stanford_cars"])
def test_cars(tmp_path: Path, inside: str) -> None:
    made = make_cars(tmp_path / inside)
    assert sizes("cars", tmp_path) == [27, 3, 3]
    everything, validation = train_and_validation("cars", tmp_path)
    assert everything == expected(made["train"])
    assert torch.bincount(validation.labels).tolist() == [1, 1, 1]
    assert content(open_disk_set("cars", tmp_path, "test")) == expected(made["test"])


def test_cars_with_parts_missing_or_broken(tmp_path: Path) -> None:
    make_cars(tmp_path)
    (tmp_path / "cars_train" / "00007.jpg").unlink()
    assert "lacks 1 of the 30 pictures named in cars_train_annos.mat, first" in refusal("cars", tmp_path)
    source = tmp_path / "cars_test_annos_withlabels.mat"
    whole = source.read_bytes()
    source.write_bytes(whole[:300])
    assert "cannot be read as a MATLAB file" in refusal("cars", tmp_path, "test")
    savemat(source, {"other": 1})
    assert 'no variable "annotations"' in refusal("cars", tmp_path, "test")
    for row, why in (((9, "00001.jpg"), "outside its 3 classes"), ((1, "../devkit/x.jpg"), "plain file name")):
        rows = np.zeros((1, 1), dtype=[("class", object), ("fname", object)])
        rows[0, 0] = row
        savemat(source, {"annotations": rows})
        assert why in refusal("cars", tmp_path, "test")
    rows = np.zeros((1, 2), dtype=[("fname", object)])
    rows[:] = ("00001.jpg",)
    savemat(source, {"annotations": rows})
    assert "no field class" in refusal("cars", tmp_path, "test")
    source.unlink()
    assert "needs cars_test_annos_withlabels.mat" in refusal("cars", tmp_path, "test")


def test_a_pickle_posing_as_an_archive_runs_nothing(tmp_path: Path) -> None:
    make_cars(tmp_path)
    sprung = tmp_path / "sprung"
    trap = pickle.dumps(Trap(sprung))
    (tmp_path / "devkit" / "cars_meta.mat").write_bytes(trap)
    (tmp_path / "train_32x32.mat").write_bytes(trap)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(trap)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(trap)
    for name in ("cars", "svhn", "mnist"):
        refusal(name, tmp_path)
    assert not sprung.exists()


def test_dtd(tmp_path: Path) -> None:
    lists = {
        "train": ["banded/banded_0002.jpg", "zigzagged/zigzagged_0001.jpg", "banded/banded_0001.jpg"],
        "val": ["zigzagged/zigzagged_0002.jpg"],
        "test": ["zigzagged/zigzagged_0003.jpg", "banded/banded_0003.jpg"],
    }
    (tmp_path / "labels").mkdir()
    made: dict[str, list[tuple[np.ndarray, str]]] = {}
    for part, lines in lists.items():
        (tmp_path / "labels" / f"{part}1.txt").write_text("\n".join(lines) + "\n")
        made[part] = [(picture(tmp_path / "images" / line), line.split("/")[0]) for line in lines]
    for split, part in zip(SPLITS, lists, strict=True):
        data = open_disk_set("dtd", tmp_path, split)
        assert data.classes == ("banded", "zigzagged")
        assert [data.classes[label] for label in data.labels] == [line.split("/")[0] for line in lists[part]]
        assert content(data) == expected(made[part])
    for line, why in (("dotted/x.jpg", '"dotted"'), ("../banded/x.jpg", "expected <class>"), ("x.jpg", "expected <")):
        (tmp_path / "labels" / "test1.txt").write_text(line)
        assert why in refusal("dtd", tmp_path, "test")
    (tmp_path / "labels" / "test1.txt").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as text" in refusal("dtd", tmp_path, "test")
    (tmp_path / "labels" / "test1.txt").write_text("\n\n")
    assert "is empty" in refusal("dtd", tmp_path, "test")


@pytest.mark.parametrize("names", [("Training", "Final_Test/Images"), ("Final_Training/Images", "Final_Test/Images")])
def test_gtsrb(tmp_path: Path, names: tuple[str, str]) -> None:
    made = []
    for label in (0, 14):
        for track in range(10):
            for frame in range(3):
                name = f"{label:05d}/{track:05d}_{frame:05d}.ppm"
                made.append((picture(tmp_path / "GTSRB" / names[0] / name), GTSRB_NAMES[label]))
        (tmp_path / "GTSRB" / names[0] / f"{label:05d}" / f"GT-{label:05d}.csv").write_text("Filename;Width\n")
    everything, validation = train_and_validation("gtsrb", tmp_path)
    assert everything == expected(made)
    assert validation.classes == GTSRB_NAMES
    # One whole track of each class.
    assert len(validation) == 6
    assert len({name.rpartition("_")[0] for name in validation.records.names}) == 2

    tests = [
        (picture(tmp_path / "GTSRB" / names[1] / leaf), GTSRB_NAMES[label])
        for leaf, label in (("00000.ppm", 7), ("00001.ppm", 42))
    ]
    table = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"
    source = tmp_path / "GT-final_test.csv"
    source.write_text(table + "00000.ppm;4;3;1;1;2;2;7\n00001.ppm;4;3;1;1;2;2;42\n")
    assert content(open_disk_set("gtsrb", tmp_path, "test")) == expected(tests)
    assert content(open_disk_set("gtsrb", tmp_path / "GTSRB", "test")) == expected(tests)
    source.write_text("Filename;Width\n00000.ppm;4\n")
    assert "no columns Filename and ClassId" in refusal("gtsrb", tmp_path, "test")
    for row, why in (
        ("00000.ppm;4;3;1;1;2;2;43", "outside its 43"),
        ("00000.ppm;4;3;1;1;2;2;x", "has 'x' where a class number"),
    ):
        source.write_text(table + row)
        assert why in refusal("gtsrb", tmp_path, "test")
    source.write_text(table + "00000.ppm;4\n")
    assert "has None where a class number" in refusal("gtsrb", tmp_path, "test")


def test_gtsrb_with_strange_folders(tmp_path: Path) -> None:
    picture(tmp_path / "Training" / "00043" / "00000_00000.ppm")
    assert "no GTSRB class" in refusal("gtsrb", tmp_path)
    (tmp_path / "Training" / "00043" / "00000_00000.ppm").unlink()
    (tmp_path / "Training" / "00043").rename(tmp_path / "Training" / "00042")
    assert "has no .ppm pictures" in refusal("gtsrb", tmp_path)
    (tmp_path / "Training" / "00042").rmdir()
    assert "none found" in refusal("gtsrb", tmp_path)


@pytest.mark.parametrize("lists", [".", "Partitions"])
def test_sun397(tmp_path: Path, lists: str) -> None:
    root = tmp_path / "SUN397"
    spoken = {"/a/abbey": "abbey", "/c/church/indoor": "church indoor", "/c/church/outdoor": "church outdoor"}
    (root / lists).mkdir(parents=True)
    (root / "ClassName.txt").write_text("\n".join(spoken) + "\n")
    made: dict[str, list[tuple[np.ndarray, str]]] = {}
    for leaf, numbers in (("Training", range(10)), ("Testing", range(10, 12))):
        lines = [f"{folder}/sun_{number:04d}.jpg" for number in numbers for folder in reversed(spoken)]
        made[leaf] = [(picture(root / line.lstrip("/")), spoken[line.rpartition("/")[0]]) for line in lines]
        (root / lists / f"{leaf}_01.txt").write_text("\r\n".join(lines) + "\r\n")
    everything, validation = train_and_validation("sun397", tmp_path)
    assert everything == expected(made["Training"])
    assert torch.bincount(validation.labels).tolist() == [1, 1, 1]
    test = open_disk_set("sun397", root, "test")
    assert test.classes == tuple(spoken.values())
    assert content(test) == expected(made["Testing"])
    (root / lists / "Testing_01.txt").write_text("/a/attic/sun_0001.jpg\n")
    assert '"a/attic"' in refusal("sun397", tmp_path, "test")
    (root / lists / "Testing_01.txt").unlink()
    assert "needs Testing_01.txt" in refusal("sun397", tmp_path, "test")


@pytest.mark.parametrize("name", sorted(DISK_SETS))
@pytest.mark.parametrize("split", SPLITS)
def test_every_set_says_what_it_needs(tmp_path: Path, name: str, split: str) -> None:
    layout = DISK_SETS[name].layout
    for root in (None, "", tmp_path / "nowhere"):
        message = refusal(name, root, split)
        assert layout in message
        assert "set data.root=..." in message
    message = refusal(name, tmp_path, split)
    assert str(tmp_path) in message
    assert layout in message


def test_an_index_past_the_end(tmp_path: Path) -> None:
    folders(tmp_path, {"a": 3, "b": 3})
    data = open_disk_set("folder", tmp_path, "train")
    with pytest.raises(IndexError):
        data.records.image(len(data))


@pytest.mark.parametrize(
    ("classes", "labels", "why"),
    [
        (("a", "b"), [0, 2], "class number 2"),
        (("a", "b"), [-1, 0], "class number -1"),
        ((), [0], "no classes"),
        (("a", "A"), [0, 1], "clash"),
        (("a", " _"), [0, 1], "empty"),
        (("é", "e\u0301"), [0, 1], "clash"),
    ],
)
def test_what_could_not_be_trained_on(classes: tuple[str, ...], labels: list[int], why: str) -> None:
    with pytest.raises(UserError, match=why):
        DiskSet(classes, torch.tensor(labels, dtype=torch.long), Files(Path(), [str(n) for n in range(len(labels))]))
    with pytest.raises(UserError, match="1 labels for 2 pictures"):
        DiskSet(("a", "b"), torch.tensor([0]), Files(Path(), ["x", "y"]))
