"""Maps of a case: what they are made from, and that nothing which has changed is mixed with them."""

import gc
import logging
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.classifiers.tiny import DATA
from tests.study.explaining import Silent, case, drawn, register, row
from xai.core.store import Artifact, Store
from xai.data.catalogue import OpenData
from xai.data.registry import load_images, subset
from xai.models.maskable import Removal
from xai.study.blocks import read_blocks
from xai.study.maps import explain, key

BLOCKS = [DATA.source.labels("test")[rows].tolist() for rows in torch.arange(9).split(2)]


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    register(monkeypatch, tmp_path / "journal")
    return tmp_path / "journal"


def fill(folder: Path, split: str = "test", gain: float = 1.0, **asked: Any) -> Artifact:
    return explain(case(folder, split, **asked), row(gain)).artifact


def bytes_of(artifact: Artifact) -> bytes:
    return artifact.file("maps.safetensors").read_bytes()


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def begun(journal: Path) -> list[list[int]]:
    """The labels of each block that any process has begun to explain."""
    return [[int(label) for label in line[1:-1].split(",")] for line in journal.read_text().splitlines()]


# What is made.


@pytest.mark.parametrize(("split", "gain"), [("train", 1.5), ("test", 3.0)])
def test_every_image_is_explained_for_its_label_with_the_draws_of_its_block(
    tmp_path: Path, journal: Path, split: str, gain: float
) -> None:
    found = read_blocks(fill(tmp_path, split, gain=1.5))
    labels = DATA.source.labels(split)
    assert torch.equal(found["rows"], torch.arange(len(labels)))
    assert torch.equal(found["targets"], labels)
    pixels = DATA.source.images(split, found["rows"], 0).pixels
    for number, rows in enumerate(found["rows"].split(2)):
        expected = drawn(gain, pixels[rows], labels[rows], 3 * 1_000_003 + number)
        torch.testing.assert_close(found["attributions"][rows], expected, rtol=0, atol=0)


def test_maps_do_not_keep_the_networks_that_made_them(tmp_path: Path, journal: Path) -> None:
    of = case(tmp_path, "test")
    found, network = explain(of, row()), weakref.ref(of.network())
    del of
    gc.collect()
    assert found.attributions is not None
    assert network() is None


def test_a_subset_is_explained_in_the_order_of_its_rows(tmp_path: Path, journal: Path) -> None:
    found = read_blocks(fill(tmp_path, "train", images=5))
    rows = subset(DATA.source, "train", 5, 3)
    assert torch.equal(found["rows"], rows)
    assert torch.equal(found["targets"], DATA.source.labels("train")[rows])
    assert begun(journal) == [block.tolist() for block in found["targets"].split(2)]
    pixels = DATA.source.images("train", rows[2:4], 0).pixels
    expected = drawn(1.0, pixels, found["targets"][2:4], 3 * 1_000_003 + 1)
    torch.testing.assert_close(found["attributions"][2:4], expected, rtol=0, atol=0)


def test_the_classifier_is_made_once_with_the_removal_of_the_explainer(tmp_path: Path, journal: Path) -> None:
    asked = []

    def make(removal: Removal | None) -> Silent:
        asked.append(removal)
        return Silent()

    fill(tmp_path, make=make)
    assert asked == [Removal("tokens")]


def test_the_time_that_maps_take_is_neither_building_nor_reading(
    tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*given: Any) -> Any:
        time.sleep(0.1)
        return load_images(*given)

    def make(removal: Removal | None) -> Silent:
        time.sleep(0.5)
        return Silent()

    monkeypatch.setattr("xai.study.case.load_images", slow)
    assert fill(tmp_path, make=make).seconds < 0.4


def test_threads_that_read_images_change_nothing(tmp_path: Path, journal: Path) -> None:
    several = case(tmp_path / "several")
    several.runtime.trainer = replace(several.runtime.trainer, workers=3)
    assert bytes_of(explain(several, row()).artifact) == bytes_of(fill(tmp_path / "one"))


# What changed is never mixed.


def test_whatever_changes_is_explained_anew(tmp_path: Path, journal: Path) -> None:
    other = OpenData("shades", {"name": "shades", "fingerprint": "other"}, DATA.source)
    asked = [
        (case(tmp_path), row()),
        (case(tmp_path, "validation"), row()),
        (case(tmp_path), row(gain=2.0)),
        (case(tmp_path, classifier="other"), row()),
        (case(tmp_path, data=other), row()),
        (case(tmp_path, images=9), row()),
        (replace(case(tmp_path), seed=4), row()),
    ]
    assert len({key(*each) for each in asked}) == len(asked)
    for each in (*asked, *asked):
        assert explain(*each).artifact.key == key(*each)
    assert len(begun(journal)) == sum([5, 4, 5, 5, 5, 5, 5])


def test_shards_of_another_classifier_are_noticed_and_not_used(
    tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = bytes_of(fill(tmp_path / "whole", classifier="b"))
    journal.write_text("")
    before, wanted = case(tmp_path, classifier="a"), case(tmp_path, classifier="b")
    # Killed when every block was there and nothing was put together.
    with monkeypatch.context() as patch:
        patch.setattr(Store, "get", interrupted)
        for each in (before, wanted):
            with pytest.raises(KeyboardInterrupt):
                explain(each, row())
    there, here = (tmp_path / "store" / "maps" / f"{key(each, row())}.partial/scratch" for each in (before, wanted))
    for shard in there.glob("*.safetensors"):
        shard.rename(here / shard.name)
    journal.write_text("")
    assert bytes_of(explain(wanted, row()).artifact) == expected
    assert begun(journal) == BLOCKS
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == len(BLOCKS)
    assert all("belongs to other work; it is computed anew" in line for line in said)
