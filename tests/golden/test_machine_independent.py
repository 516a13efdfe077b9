"""What must not differ between machines: data sets, splits, masks, coalitions, and the scores of given maps.

Whole numbers and truth values are kept as digests and must be the same bit by bit. Pixels and scores are kept as a few
sums, because the normal deviates and the matrix products behind them are rounded differently from one processor to the
next. The fonts of `glyphs_scattered` and what draws them come inside the wheels of matplotlib and Pillow: those numbers
are the same on every machine, and another version of the two may change them.

`python -m tests.golden.test_machine_independent` writes the file anew.
"""

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from tests.metrics.test_registry import everything
from tests.toolbox import seeded
from xai.core.composing import choices, compose_choice
from xai.data.catalogue import open_data
from xai.data.marked import MarkedSet, MarkParams
from xai.data.registry import SPLITS, subset
from xai.methods.classifier import focused_patches
from xai.metrics import registry as metrics
from xai.ranking.objective import ObjectiveParams, draw
from xai.sampling import ranks_with_random_ties, step_generator, weighted_ranks
from xai.shapley.coalitions import SAMPLERS, sample
from xai.shapley.masks import informed_coalitions, paired_masks, random_masks, uniform_sizes

GOLDEN = Path(__file__).with_suffix(".json")
ON_DISK = ("root", "folder", "file", "path")
"""Settings of data sets that are read from files of one's own."""

CLOSE = 1e-4
"""Sums agree to this share of their size."""


def digest(*values: Tensor) -> str:
    """Of whole numbers and truth values, with their shapes."""
    found = hashlib.sha256()
    for value in values:
        assert not value.is_floating_point()
        found.update(f"{list(value.shape)}".encode() + value.long().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def sums(values: Tensor) -> list[float]:
    """Mean, root mean square and mean by place of the values that are defined, and how many these are."""
    flat = values.double().flatten()
    place, there = torch.linspace(-1, 1, len(flat), dtype=torch.float64), flat.isfinite()
    if not there.any():
        return [0.0, 0.0, 0.0, 0.0]
    known = flat[there]
    return [float(v) for v in (known.mean(), known.square().mean().sqrt(), (known * place[there]).mean(), there.sum())]


@functools.cache
def packaged() -> dict[str, dict[str, Any]]:
    """The settings of the data sets that come with the framework or its packages, by their files."""
    found: dict[str, Any] = {name: OmegaConf.to_container(compose_choice("data", name)) for name in choices("data")}
    # Photographs come with an extra, and a JPEG is decoded as the library of the day has it.
    return {name: own for name, own in found.items() if name != "photos" and not set(ON_DISK) & set(own)}


def of_data(name: str) -> dict[str, Any]:
    source = open_data(packaged()[name], "data").source
    found: dict[str, Any] = {f"labels of {split}": digest(source.labels(split)) for split in SPLITS}
    found["subset"] = digest(subset(source, "train", 100, 3))
    for split, epoch in (("train", 1), ("test", 0)):
        rows = torch.arange(0, len(source.labels(split)), 7)[:48]
        pixels, regions = source.images(split, rows, epoch)
        found[f"pixels of {split}"] = sums(pixels)
        if regions is not None:
            found[f"regions of {split}"] = digest(regions)
        if hasattr(source, "cells"):
            found[f"cells of {split}"] = digest(source.cells(split, rows, epoch))
    return found


def of_marks() -> dict[str, Any]:
    source = MarkedSet(open_data(packaged()["mnist5k"], "data").source, MarkParams(radius=0.1, seed=2), label=3)
    return {split: digest(source.marks(split, torch.arange(300), 1, (42, 42))) for split in SPLITS}


def of_coalitions(name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for players, rows, seed in ((4, 6, 0), (16, 64, 1), (49, 256, 2), (196, 500, 3)):
        design = sample(name, players, rows, seeded(seed))
        found[f"{rows} of {players}"] = digest(design.coalitions)
        found[f"weights of {rows} of {players}"] = sums(design.weights)
    return found


def of_masks() -> dict[str, Any]:
    """Training masks; enough of them that equal random numbers occur, which sorting may order in any way."""
    sizes = uniform_sizes(196, 200, seeded(1))
    phi = torch.rand(4, 196, generator=seeded(2))
    regions = torch.zeros(64, 28, 28, dtype=torch.bool)
    regions[:, 3:9, 11:15] = True
    return {
        "sizes": digest(sizes),
        "random": digest(random_masks(16, 196, sizes, seeded(3))),
        "paired": digest(paired_masks(16, 196, 100, seeded(4), seeded(5))),
        "informed": digest(informed_coalitions(phi, sizes, seeded(6))),
        "around objects": digest(focused_patches(regions, (14, 14), 20, seeded(7))),
        "orders": digest(weighted_ranks(phi, seeded(8))),
        "ties": digest(ranks_with_random_ties((4 * phi).round(), seeded(9))),
        "steps": digest(*(torch.randint(1000, (5,), generator=step_generator(3, step, torch.device("cpu"), rank))
                          for step in range(3) for rank in range(2))),
    }  # fmt: skip


def of_ranking() -> dict[str, Any]:
    params = ObjectiveParams(
        steps=4, grid_min=4, grid_max=21, references=("black", "mean", "blur"), iterations=30, sigma=1.0,
        peak_weight=0.0, peak_window=15, shift=False, chunk=0,
    )  # fmt: skip
    drawn = [draw(params, 2, seeded(seed)) for seed in range(20)]
    return {
        "grids": [each.grid for each in drawn],
        "references": [each.reference for each in drawn],
        "noise": sums(torch.cat([each.noise.flatten() for each in drawn])),
    }


def of_scores(name: str) -> dict[str, Any]:
    entry = metrics.entry(name)
    block = everything(second=None) if name == "perturbation" else everything()
    return {column: sums(values) for column, values in metrics.compute(entry, block, None).items()}


WHAT: dict[str, Callable[[], dict[str, Any]]] = {
    **{f"data/{name}": lambda name=name: of_data(name) for name in packaged()},  # type: ignore[misc]
    **{f"coalitions/{name}": lambda name=name: of_coalitions(name) for name in SAMPLERS},  # type: ignore[misc]
    **{f"scores/{name}": lambda name=name: of_scores(name) for name in metrics.names()},  # type: ignore[misc]
    "masks": of_masks,
    "marks": of_marks,
    "ranking": of_ranking,
}


def numbers(found: Any) -> Any:
    """Lists of numbers compare with a tolerance, all else as it is."""
    if isinstance(found, list) and all(isinstance(value, float) for value in found):
        return pytest.approx(found, rel=CLOSE, abs=CLOSE)
    return found


@pytest.mark.parametrize("what", WHAT)
def test_what_no_machine_may_change_is_what_it_was(what: str) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))[what]
    assert WHAT[what]() == {key: numbers(value) for key, value in golden.items()}


if __name__ == "__main__":
    everything_found = {what: measure() for what, measure in WHAT.items()}
    GOLDEN.write_text(json.dumps(everything_found, indent=1) + "\n", encoding="utf-8")
