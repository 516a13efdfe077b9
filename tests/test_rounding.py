"""No decision rests on the last bits of a number, which differ from one processor to the next."""

import os
import subprocess
import sys

import pytest
import torch

from xai.data.scatter import ScatterParams, scatter_groups
from xai.methods.classifier import focused_patches
from xai.ranking.refinement import in_units
from xai.rounding import is_constant
from xai.sampling import importance_weights
from xai.shapley.masks import random_masks


def nearly_constant(level: float = 0.1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A map [1, 196] whose values differ by their last bits."""
    steps = torch.arange(196, dtype=torch.float64) % 5 - 2
    return (level * (1 + torch.finfo(dtype).eps * steps)).to(dtype)[None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [1e-5, 0.1, -3e4])
def test_a_map_that_differs_by_its_last_bits_says_nothing(level: float, dtype: torch.dtype) -> None:
    flat = nearly_constant(level, dtype)
    assert len(flat.unique()) > 2
    assert is_constant(flat).all()
    assert (importance_weights(flat) == 0.5).all()
    assert (in_units(flat.unflatten(1, (14, 14)), 1.0) == 0).all()
    told_apart = flat + abs(level) * 1e-4 * torch.eye(196, dtype=dtype)[:1]
    assert not is_constant(told_apart).any()
    assert importance_weights(told_apart).amax() == 1
    assert in_units(told_apart.unflatten(1, (14, 14)), 1.0).std().item() == pytest.approx(1, rel=1e-2)


def test_equal_random_numbers_are_taken_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 196 numbers of 24 bits two are equal in one row of a thousand; how a sort orders them is up to it."""
    draw = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *size, **how: (4 * draw(*size, **how)).floor() / 4)
    generator = torch.Generator().manual_seed(0)
    sizes = torch.full((50,), 70)
    rows = [
        *random_masks(1, 196, sizes, generator)[0],
        *random_masks(1, 196, sizes, generator)[0],
        *(focused_patches(torch.zeros(50, 14, 14, dtype=torch.bool), (14, 14), 70, generator)),
    ]
    state = torch.Generator().manual_seed(0)
    for row, numbers in zip(rows, draw(150, 196, generator=state).mul(4).floor(), strict=True):
        expected = sorted(range(196), key=lambda place, of=numbers: (of[place], place))[:70]
        assert row.nonzero()[:, 0].tolist() == sorted(expected)


def test_objects_of_a_scene_are_put_into_different_cells_whatever_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *size, **how: torch.zeros(*size))
    params = ScatterParams(canvas=40, cells=5, object_size=4, jitter=0)
    corners = scatter_groups(torch.ones(1, 25, 4, 4), params, torch.Generator()).corners[0]
    assert corners.tolist() == [[8 * row, 8 * column] for row in range(5) for column in range(5)]


def test_pixels_along_the_border_of_an_enlarged_map_are_as_important_as_their_neighbours() -> None:
    """They lie beyond the last centres of patches; plain kernels interpolate them with rounding of their own."""
    ask = (
        "import torch; from xai.metrics.functional import enlarge_map\n"
        "wide = enlarge_map(torch.randn(20, 7, 7, generator=torch.Generator().manual_seed(0)), (84, 84))\n"
        "for strip in (wide, wide.flip(1), wide.mT, wide.mT.flip(1)):\n"
        "    assert (strip[:, :6] == strip[:, :1]).all()\n"
    )
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    found = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
