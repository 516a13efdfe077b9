"""Grids of four images: what is in each cell, and that the game knows the cell that is asked about."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.study.engine import register, study
from xai.core.errors import UserError
from xai.study.mosaic import lay_out, mosaic_of, no_mosaic
from xai.study.params import open_metrics
from xai.study.study import Study


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
    with pytest.raises(UserError, match="all images are of one class"):
        lay_out(torch.zeros(3), torch.Generator())


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


def test_every_explainer_plays_the_game_on_a_data_set_of_single_objects(tmp_path: Path) -> None:
    base = study(tmp_path, ["noted", "object_mask", "constant"])
    case = base.cases[0][0]
    found = Study(base.rows, [(mosaic_of(case), open_metrics(["grid_pointing"], {}))]).run()
    by = found.scores.groupby("explainer").value.mean()
    assert by["object_mask"] == 1
    assert by["constant"] == 0.25
    assert found.scores.chance.eq(0.25).all()
    assert set(found.scores.case) == {"grid"}
