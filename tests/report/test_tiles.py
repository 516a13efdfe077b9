"""The grid of a comparison: a tile for each row, in one file without a server and mostly without a script."""

import base64
import html
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.report.study_frames import study
from tests.report.test_page import read
from xai.report.page import Page, Part, write_page
from xai.report.pictures import Gallery, single_maps
from xai.report.tiles import Tiles, tiles_of


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    labels = study().of("srg")["label"].unique()
    generator = torch.Generator().manual_seed(0)
    maps = {str(label): torch.randn(2, 4, 4, generator=generator) for label in [*labels, "Unmeasured"]}
    return Gallery(torch.rand(2, 3, 16, 16, generator=generator), maps, ["cat", "<dog>"])


@pytest.fixture(scope="module")
def grid(gallery: Gallery) -> Tiles:
    return tiles_of(gallery, study())


def test_tiles_are_sorted_by_the_means_of_the_frame_the_best_first(grid: Tiles) -> None:
    source = study()
    means = source.averaged("srg", source.of("srg"), ["label"]).to_dict()
    placed = sorted((tile for tile in grid.tiles if "srg" in tile.places), key=lambda tile: tile.places["srg"])
    assert [tile.label for tile in placed] == sorted(means, key=means.__getitem__, reverse=True)
    assert all(tile.values["srg"] == f"{means[tile.label]:.1f}" for tile in placed)
    assert grid.orders["srg"] == source.column("srg").label
    (unmeasured,) = (tile for tile in grid.tiles if tile.label == "Unmeasured")
    assert not unmeasured.places


def test_a_tile_shows_the_map_over_its_image_in_the_colours_of_the_sheets(gallery: Gallery, grid: Tiles) -> None:
    images, maps = single_maps(gallery)
    tile = grid.tiles[0]
    held = Image.open(io.BytesIO(base64.b64decode(tile.maps[1].split(",")[1])))
    shown, drawn = np.asarray(held, dtype=float), maps[tile.label][1].repeat(10, 0).repeat(10, 1)
    assert shown.shape == drawn.shape == (160, 160, 3)
    assert np.abs(shown - drawn).mean() < 8
    assert images[0].shape == (16, 16, 3)


def test_the_page_is_one_well_formed_file_and_has_a_script_only_for_its_grid(tmp_path: Path, grid: Tiles) -> None:
    text = write_page(tmp_path / "a.html", Page("T", parts=[Part("Maps", tiles=grid)])).read_text(encoding="utf-8")
    reader = read(tmp_path / "a.html")
    assert all(link.startswith(("data:", "#")) for link in reader.links)
    assert not re.search(r"https?:|@import|url\(|src=\"(?!data:)", text)
    assert text.count("<script>") == 1
    places = [json.loads(html.unescape(found)) for found in re.findall(r'data-place="([^"]*)"', text)]
    assert places == [dict(tile.places) for tile in grid.tiles]
    assert "&lt;dog&gt;" in text
    assert "<dog>" not in text
    plain = write_page(tmp_path / "b.html", Page("T", parts=[Part("Maps", notes=["x"])])).read_text(encoding="utf-8")
    assert "<script" not in plain
