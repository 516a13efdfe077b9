"""Grids of four images: what is in each cell, and that the game knows the cell that is asked about."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.study.engine import register, study
from tests.study.shades import DATA, Shades
from tests.toolbox import refusal
from xai.core.errors import UserError
from xai.data.catalogue import OpenData
from xai.data.registry import Images
from xai.study.mosaic import lay_out, mosaic_of, no_mosaic, probed
from xai.study.study import Study, open_metrics


@pytest.fixture(autouse=True)
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, tmp_path / "journal")


def test_each_image_is_asked_about_once_beside_three_of_other_classes() -> None:
    classes = torch.tensor([0, 0, 1, 2, 1])
    members, place = lay_out(classes, torch.Generator().manual_seed(1))
    assert members.shape == (5, 4)
    for image in range(5):
        assert members[image, place[image]] == image
        others = [int(other) for cell, other in enumerate(members[image]) if cell != place[image]]
        assert all(classes[other] != classes[image] for other in others)
    assert len({int(each) for each in lay_out(torch.arange(9), torch.Generator()).place}) > 1
    assert "all images are of one class" in refusal(lay_out, torch.zeros(3), torch.Generator())


def test_cells_hold_the_images_at_half_their_size_and_the_region_is_that_of_the_class(tmp_path: Path) -> None:
    case = study(tmp_path, ["noted"], targets="predicted").cases[0][0]
    grid = mosaic_of(case)
    assert no_mosaic(case) is None
    pixels = torch.cat([case.images(number).pixels for number in range(3)])
    shown = torch.cat([grid.images(number).pixels for number in range(3)])
    regions = torch.cat([grid.images(number).regions for number in range(3)])  # type: ignore[misc]
    assert shown.shape == pixels.shape
    assert torch.equal(grid.targets, case.targets)
    for image, region, own in zip(shown, regions, pixels, strict=True):
        assert region.sum() == 64
        cell = image[:, region.any(1)][..., region.any(0)]
        torch.testing.assert_close(cell, F.avg_pool2d(own[None], 2)[0])


class Counted(Shades):
    """Notes how many images are read."""

    def __init__(self) -> None:
        self.read = 0

    def images(self, split: str, indices: torch.Tensor, epoch: int) -> Images:
        self.read += len(indices)
        return super().images(split, indices, epoch)


def test_images_are_read_once_for_all_grids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xai.study.case._CACHED_BYTES", 0)  # too many to be kept
    source = Counted()
    case = study(tmp_path, ["noted"], data=OpenData("shades", DATA.spec, source)).cases[0][0]
    grid = mosaic_of(case)
    for number in range(len(grid.blocks)):
        grid.images(number)
    assert len(grid.blocks) == 3
    assert source.read == len(case.rows)


def test_every_explainer_plays_the_game_on_a_data_set_of_single_objects(tmp_path: Path) -> None:
    base = study(tmp_path, ["noted", "object_mask", "constant"])
    case = base.cases[0][0]
    found = Study(base.rows, [(mosaic_of(case), open_metrics(["grid_pointing"], {}))]).run()
    by = found.scores.groupby("explainer").value.mean()
    assert by["object_mask"] == 1
    assert by["constant"] == 0.25
    assert found.scores.chance.eq(0.25).all()
    assert set(found.scores.case) == {"grid"}


class Pairs(Shades):
    """Two questions about each image; who is asked about has the left or the right half."""

    def cells(self, split: str, indices: torch.Tensor, epoch: int) -> torch.Tensor:
        left = torch.arange(16).lt(8).expand(16, 16)
        return torch.stack([left if row % 2 == 0 else ~left for row in indices.tolist()])


def test_a_data_set_with_several_objects_takes_the_place_of_grids(tmp_path: Path) -> None:
    case = study(tmp_path, ["noted", "constant"], images=3).cases[0][0]
    named = replace(case, model=replace(case.model, classes=Shades.classes))
    grid = probed(named, OpenData("pairs", {"name": "pairs"}, Pairs()))
    # Whole pairs of questions, of the first images.
    assert grid.rows.tolist() == [0, 1, 2, 3]
    assert torch.equal(grid.targets, Pairs().labels("test")[:4])
    # Of each image its own class, whatever class of the others is explained and however many those are.
    predicted = replace(named, params=replace(named.params, targets="predicted"))
    few = probed(predicted, OpenData("pairs", {"name": "pairs"}, Pairs()), images=2)
    assert few.rows.tolist() == [0, 1]
    assert torch.equal(few.targets, grid.targets[:2])
    found = Study(study(tmp_path, ["constant"]).rows, [(grid, open_metrics(["grid_pointing"], {}))]).run().scores
    assert found.value.tolist() == [0.5] * 4
    assert "probe=shades has not several objects an image: use mnist_pair" in refusal(probed, named, DATA)
    with pytest.raises(UserError, match="probe=pairs has other classes than data=shades"):
        probed(case, OpenData("pairs", {"name": "pairs"}, Pairs()))
