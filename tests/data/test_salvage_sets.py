"""ImageNette, MURA, Oxford-IIIT Pet and WBC in their true form on disk, read back pixel by pixel."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests import toolbox
from tests.data.disk_forms import (
    content,
    expected,
    folders,
    noise,
    open_disk_set,
    picture,
    refusal,
    sizes,
    train_and_validation,
)
from tests.toolbox import there
from xai.data.disk import DiskSource, RegionParams
from xai.data.prompts import IMAGENETTE_NAMES, WBC_NAMES
from xai.data.registry import SPLITS


@pytest.mark.parametrize("inside", [".", "imagenette2", "imagenette2-320"])
def test_imagenette(tmp_path: Path, inside: str) -> None:
    root = tmp_path / inside
    made = folders(
        root, {f"train/{key}": 10 for key in IMAGENETTE_NAMES} | {f"val/{key}": 2 for key in IMAGENETTE_NAMES}
    )
    (root / "noisy_imagenette.csv").write_text("path,noisy_labels_0\n")
    assert sizes("imagenette", tmp_path) == [90, 10, 20]
    test = open_disk_set("imagenette", tmp_path, "test")
    assert test.classes[0] == "tench"
    assert test.classes[9] == "parachute"
    for part, found in (("train", train_and_validation("imagenette", tmp_path)[0]), ("val", content(test))):
        pairs = [(made[name], IMAGENETTE_NAMES[name.split("/")[1]]) for name in made if name.startswith(part)]
        assert found == expected(pairs)


def test_imagenette_of_other_classes(tmp_path: Path) -> None:
    folders(tmp_path, {f"{part}/{key}": 3 for part in ("train", "val") for key in IMAGENETTE_NAMES})
    folders(tmp_path, {"train/n02086240": 1})
    assert "n02086240 is not among the classes" in refusal("imagenette", tmp_path)
    (tmp_path / "val" / "n01440764").rename(tmp_path / "n01440764")
    assert "needs the class folder n01440764; not found in" in refusal("imagenette", tmp_path, "test")


def test_imagenettes_ids_are_imagenets() -> None:
    from xai.data.folder import imagenet_names

    names = imagenet_names()
    said = {key: names[key].lower().replace(" ", "") for key in IMAGENETTE_NAMES}
    # The one that open_clip says with more words.
    assert said.pop("n02102040") == "englishspringerspaniel"
    assert all(IMAGENETTE_NAMES[key].lower().replace(" ", "") == name for key, name in said.items())


@pytest.mark.parametrize("inside", [".", "any folder"])
def test_wbc(tmp_path: Path, inside: str) -> None:
    made = {
        f"{folder}/{number}.bmp": picture(tmp_path / inside / folder / f"{number}.bmp")
        for folder in WBC_NAMES
        for number in range(10)
    }
    assert sizes("wbc", tmp_path) == [72, 9, 9]
    parts = [content(open_disk_set("wbc", tmp_path, split)) for split in SPLITS]
    pairs = [(pixels, WBC_NAMES[name.split("/")[0]]) for name, pixels in made.items()]
    assert sorted(itertools.chain(*parts)) == expected(pairs)
    (tmp_path / inside / "Neutrophile Band").rename(tmp_path / "elsewhere")
    assert "needs the class folder Neutrophile Band" in refusal("wbc", tmp_path)


def make_mura(root: Path) -> dict[str, list[tuple[np.ndarray, str]]]:
    """Forty patients: every fourth has an abnormal study, every eighth a normal one beside it."""
    made: dict[str, list[tuple[np.ndarray, str]]] = {"train": [], "valid": []}
    for part, patients in (("train", range(40)), ("valid", range(40, 44))):
        lines = []
        for patient in patients:
            signs = ["negative"] if patient % 4 else ["positive"] if patient % 8 else ["positive", "negative"]
            for (study, sign), number in itertools.product(enumerate(signs, 1), (1, 2)):
                name = f"{part}/XR_ELBOW/patient{patient:05d}/study{study}_{sign}/image{number}.png"
                kind = "abnormal" if sign == "positive" else "normal"
                made[part].append((picture(root / name), kind))
                lines.append(f"MURA-v1.1/{name}")
        (root / f"{part}_image_paths.csv").write_text("\n".join(lines) + "\n")
    return made


@pytest.mark.parametrize("inside", [".", "MURA-v1.1"])
def test_mura(tmp_path: Path, inside: str) -> None:
    made = make_mura(tmp_path / inside)
    everything, validation = train_and_validation("mura", tmp_path)
    assert everything == expected(made["train"])
    assert validation.classes == ("normal", "abnormal")
    assert content(open_disk_set("mura", tmp_path, "test")) == expected(made["valid"])
    # Whole patients: one of the ten with an abnormal study, three of the thirty others.
    train = open_disk_set("mura", tmp_path, "train")
    patients = []
    for part in (train, validation):
        patients.append({name.split("/")[2] for name in part.records.names})
    assert not patients[0] & patients[1]
    assert sorted(int(name[-5:]) % 4 == 0 for name in patients[1]) == [False, False, False, True]


def test_mura_with_broken_lists(tmp_path: Path) -> None:
    make_mura(tmp_path)
    source = tmp_path / "valid_image_paths.csv"
    for line in (
        "MURA-v1.1/valid/XR_ELBOW/patient00040/study1/image1.png",
        "MURA-v1.1/valid/XR_ELBOW/patient00040/study1_positive/../../image1.png",
        "valid/XR_ELBOW/patient00040/study1_positive/image1.png",
    ):
        source.write_text(line)
        assert f'has the line "{line[:80]}"' in refusal("mura", tmp_path, "test")
    source.write_text("MURA-v1.1/valid/XR_ELBOW/patient00040/study1_positive/image9.png")
    assert "lacks 1 of the 1 pictures named in valid_image_paths.csv" in refusal("mura", tmp_path, "test")
    source.unlink()
    assert "needs valid_image_paths.csv" in refusal("mura", tmp_path, "test")


PETS = {"Abyssinian": 1, "american_bulldog": 2, "basset_hound": 3}
HEAD = "#Image CLASS-ID SPECIES BREED ID\n#ID: 1:37 Class ids\n"


def make_pets(root: Path) -> dict[str, list[tuple[np.ndarray, str]]]:
    made: dict[str, list[tuple[np.ndarray, str]]] = {}
    for leaf, numbers in (("trainval", range(1, 11)), ("test", range(11, 13))):
        names = [(f"{breed}_{number}", label) for breed, label in PETS.items() for number in numbers]
        made[leaf] = []
        for name, _ in names:
            breed = name.rpartition("_")[0].replace("_", " ")
            made[leaf].append((picture(root / "images" / f"{name}.jpg", noise(8, 12, 3)), breed))
            picture(root / "annotations" / "trimaps" / f"{name}.png", noise(8, 12) % 3 + 1)
        lines = [f"{name} {label} 1 {label}" for name, label in names]
        (root / "annotations" / f"{leaf}.txt").write_text((HEAD if leaf == "test" else "") + "\n".join(lines) + "\n")
    return made


@pytest.mark.parametrize("inside", [".", "oxford-iiit-pet"])
def test_pet(tmp_path: Path, inside: str) -> None:
    made = make_pets(tmp_path / inside)
    assert sizes("pet", tmp_path) == [27, 3, 6]
    everything, validation = train_and_validation("pet", tmp_path)
    assert everything == expected(made["trainval"])
    assert validation.classes == ("Abyssinian", "american bulldog", "basset hound")
    assert torch.bincount(validation.labels).tolist() == [1, 1, 1]
    assert content(open_disk_set("pet", tmp_path, "test")) == expected(made["test"])


def opened(root: Path, **given: Any) -> DiskSource:
    return DiskSource("pet", RegionParams(str(root), **{"size": 8, **given}))


@pytest.mark.parametrize("border", [False, True])
def test_pets_regions_are_the_animal_where_the_picture_is_cropped(tmp_path: Path, border: bool) -> None:
    make_pets(tmp_path)
    source = opened(tmp_path, border=border)
    for split in SPLITS:
        rows = torch.arange(len(source.labels(split))).flip(0)
        images, regions = source.images(split, rows, 0)
        records = open_disk_set("pet", tmp_path, split).records
        for row, image, region in zip(rows.tolist(), images, there(regions), strict=True):
            trimap = np.asarray(
                Image.open(tmp_path / "annotations" / "trimaps" / f"{Path(records.names[row]).stem}.png")
            )
            colours = np.asarray(Image.open(tmp_path / records.names[row]))
            np.testing.assert_array_equal(region.numpy(), np.isin(trimap[:, 2:10], (1, 3) if border else (1,)))
            np.testing.assert_allclose(image.numpy(), colours[:, 2:10].transpose(2, 0, 1) / 255, atol=1e-6)


def test_the_border_of_a_trimap_is_left_out_unless_it_is_asked_for(tmp_path: Path) -> None:
    # As on the authors' disk: 8-bit grey, 1 the animal, 2 the background, and a band of 3 along the outline.
    make_pets(tmp_path)
    down, across = np.mgrid[:200, :300]
    distance = np.hypot((down - 100) / 80, (across - 150) / 120)
    trimap = np.select([distance < 0.9, distance < 1.1], [1, 3], 2).astype(np.uint8)
    for path in (tmp_path / "images").iterdir():
        picture(path, noise(200, 300, 3))
        picture(tmp_path / "annotations" / "trimaps" / f"{path.stem}.png", trimap)
    # Areas of the ellipses, in a picture of 200 x 300 squashed to 100 x 100.
    for border, radius in ((False, 0.9), (True, 1.1)):
        found = opened(tmp_path, size=100, fit="squash", border=border).images("test", torch.arange(6), 0)
        share = np.pi * 80 * 120 * radius**2 / (200 * 300)
        assert there(found.regions).float().mean().item() == pytest.approx(share, abs=0.005)


def test_pets_pooled_are_cut_anew_and_imagenettes_val_is_halved(tmp_path: Path) -> None:
    made = make_pets(tmp_path / "pet")
    assert sizes("pet", tmp_path / "pet", "pooled") == [30, 3, 3]
    parts = [open_disk_set("pet", tmp_path / "pet", split, "pooled") for split in SPLITS]
    assert sorted(itertools.chain(*map(content, parts))) == expected(made["trainval"] + made["test"])
    records, regions = parts[2].records, parts[2].regions
    assert [Path(name).stem for name in records.names] == [Path(name).stem for name in there(regions).files.names]

    root = tmp_path / "nette"
    made_files = folders(
        root, {f"train/{key}": 3 for key in IMAGENETTE_NAMES} | {f"val/{key}": 5 for key in IMAGENETTE_NAMES}
    )
    # The larger half is the test, as published: 1,963 of 3,925.
    assert sizes("imagenette", root, "halved") == [30, 20, 30]
    halves = [content(open_disk_set("imagenette", root, split, "halved")) for split in ("validation", "test")]
    pairs = [(pixels, IMAGENETTE_NAMES[name.split("/")[1]]) for name, pixels in made_files.items() if name[0] == "v"]
    assert sorted(itertools.chain(*halves)) == expected(pairs)


def test_pooled_patients_stay_on_one_side(tmp_path: Path) -> None:
    make_mura(tmp_path)
    names = []
    for split in SPLITS:
        records = open_disk_set("mura", tmp_path, split, "pooled").records
        names.append({name.split("/")[2] for name in records.names})
    assert sum(map(len, names)) == len(set.union(*names)) == 44


def test_a_set_without_a_test_part_has_nothing_to_halve(tmp_path: Path) -> None:
    folders(tmp_path, dict.fromkeys(WBC_NAMES, 10))
    told = toolbox.refusal(open_disk_set, "wbc", tmp_path, "test", "halved")
    assert "comes in one piece: use splits=official" in told
    folders(tmp_path / "NWPU-RESISC45", {"airplane": 3, "airport": 3})
    (tmp_path / "resisc45-train.txt").write_text("airplane_000.jpg\n")
    told = toolbox.refusal(open_disk_set, "resisc45", tmp_path, "validation", "halved")
    assert "data=resisc45 has no test split beside train" in told


def test_pets_fingerprint_changes_with_the_trimaps(tmp_path: Path) -> None:
    make_pets(tmp_path)
    first = opened(tmp_path).fingerprint
    assert opened(tmp_path).fingerprint == first
    picture(tmp_path / "annotations" / "trimaps" / "Abyssinian_3.png", np.ones((8, 12), dtype=np.uint8))
    assert opened(tmp_path).fingerprint != first


def test_a_trimap_of_another_size_or_kind_is_named_when_read(tmp_path: Path) -> None:
    make_pets(tmp_path)
    trimap = tmp_path / "annotations" / "trimaps" / "Abyssinian_11.png"
    for pixels, why in (
        (np.ones((12, 8), dtype=np.uint8), "is 8 x 12 and its picture 12 x 8"),
        (np.ones((8, 12, 3), dtype=np.uint8), "pixels of type RGB"),
    ):
        picture(trimap, pixels)
        told = toolbox.refusal(opened(tmp_path).images, "test", torch.tensor([0]), 0)
        assert why in told
        assert str(trimap) in told


def test_pets_with_parts_missing_or_broken(tmp_path: Path) -> None:
    make_pets(tmp_path)
    (tmp_path / "annotations" / "trimaps" / "basset_hound_12.png").unlink()
    assert "lacks 1 of the 6 pictures named in test.txt" in refusal("pet", tmp_path, "test")
    (tmp_path / "images" / "Abyssinian_2.jpg").unlink()
    assert "Abyssinian_2.jpg" in refusal("pet", tmp_path)
    for text, why in (
        ("Abyssinian_11 2 1 2", '"Abyssinian_11" the class number of another breed'),
        ("poodle_1 4 1 4", '"poodle_1" the class number of another breed'),
        ("Abyssinian_11 1", 'the line "Abyssinian_11 1"; expected'),
        ("Abyssinian_11 x 1 1", "has 'x' where a class number"),
        ("../Abyssinian_11 1 1 1", "plain file name"),
        (HEAD, "names no pictures"),
    ):
        (tmp_path / "annotations" / "test.txt").write_text(text)
        assert why in refusal("pet", tmp_path, "test")
    (tmp_path / "annotations" / "trainval.txt").write_text("Abyssinian_1 1 1 1\nbasset_hound_1 3 1 3\n")
    assert "classes beside 1 to 2" in refusal("pet", tmp_path, "test")
    (tmp_path / "annotations" / "trimaps").rename(tmp_path / "trimaps")
    assert "needs annotations/trimaps" in refusal("pet", tmp_path, "test")
