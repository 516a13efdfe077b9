"""Every setting out of its range is refused in one line, which begins with the path that the user typed."""

import copy
import functools
import math
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.composed import plain
from tests.toolbox import refusal
from xai.core.composing import compose_choice
from xai.core.errors import UserError
from xai.core.settings import build
from xai.data.augment import Augmentation
from xai.data.copies import CopiesParams
from xai.data.disk import DiskParams
from xai.data.fashion import FashionParams
from xai.data.marked import MarkParams
from xai.data.packaged import GlyphParams
from xai.data.pair import PairParams
from xai.data.scatter import ScatterParams
from xai.explainers.rows import load_row
from xai.models.maskable import Removal
from xai.tasks.registry import choose

CONF = Path(__file__).parents[1] / "conf"

GROUPS: dict[type, tuple[dict[str, Any], dict[str, list[Any]]]] = {
    Augmentation: (
        {},
        {
            **{key: [-0.1, 1.1] for key in ("crop", "horizontal", "vertical", "jitter", "brightness", "contrast")},
            "saturation": [math.nan],
            "hue": [-0.1, 0.6],
        },
    ),
    CopiesParams: ({"canvas": 147, "cells": 7}, {"copies": [0, 41, 50]}),
    DiskParams: ({"root": "x", "size": 8}, {"size": [0], "fit": ["stretch"], "resize": [0, 7], "splits": ["mine"]}),
    FashionParams: ({}, {"images": [29], "cells": [0]}),
    GlyphParams: ({}, {"images_per_class": [0, 2, 2**31]}),
    MarkParams: ({"radius": 0.1}, {"radius": [0.0, 0.5, math.nan], "level": [1.5, -0.1]}),
    PairParams: ({"object_size": 10}, {"cells": [1]}),
    Removal: ({}, {"kind": ["token", ""], "reference": ["white", "-0.1", "1.01", "nan", "inf", ""]}),
    ScatterParams: (
        {},
        {
            "canvas": [0],
            "cells": [0],
            "object_size": [0, 21],
            "jitter": [-1],
            "clutter": [-1],
            "polarity": ["bright"],
            "ground": [1.5],
            "ground_spread": [-0.1],
            "texture": [math.nan],
            "noise": [math.inf],
        },
    ),
}
"""Settings of a part: what it needs, and for each setting values that will not do."""

FIT: dict[str, list[Any]] = {
    "epochs": [0],
    "batch_size": [0],
    "learning_rate": [0.0, math.nan, math.inf],
    "weight_decay": [-0.1],
    "warmup": [1.1, -0.1],
    "clip": [-1.0],
}
OBJECTIVE: dict[str, list[Any]] = {
    "steps": [2, 10_001],
    "grid_min": [1],
    "grid_max": [3],
    "references[1]": ["white"],
    "references": [[]],
    "iterations": [0],
    "chunk": [-1],
    "sigma": [-1.0, math.nan],
    "peak_weight": [-0.1],
    "peak_window": [4, -1],
}
METHODS: dict[str, dict[str, Any]] = {
    "vectors": {
        "seed": [-1, 2**31],
        "pictures": [-1],
        "trainer": {"accelerator": ["tpu"], "precision": ["8"], "devices": [0], "workers": [-1], "threads": [0]},
        "logger": {"kind": ["paper"]},
        "model": {
            "image_size": [0, -4],
            "patch_size": [0, 5, 42],
            "mean": [[0.5]],
            "std": [[0.5] * 4],
            "std[2]": [0.0, math.nan],
            "name": [1],
            "architecture": [1],
            "weights": [1],
            "towers": {
                "layers": [0],
                "head_width": [0],
                "embed_dim": [-1],
                "width": [0, 18, 100],
                "text_width": [65],
            },
            "pretraining": {"steps": [0, 75], "focused_steps": [-1, 2000], "scene": {"canvas": [48]}},
        },
        "transfer": {
            "alpha": [1.0, -0.1],
            "lambda1": [-0.1, 11.0],
            "lambda2": [11.0, math.nan],
            "lambda2_grid": [[]],
            "lambda2_grid[0]": [-1.0],
            "accuracy_tolerance": [1.0],
            "bound_coalitions": [0, 3],
            "source_fit": FIT,
        },
    },
    "salvage": {
        "pictures": [-1],
        "model": {
            "patch_size": [5],
            "tower": {
                "width": [0, 6],
                "depth": [0],
                "heads": [0],
                "registers": [-1],
                "mlp_ratio": [0.0],
            },
        },
        "classifier": {"focus": [1.1]},
        "surrogate": {"teacher": ["nobody"], "sizes": [0]},
        "case": {"split": ["tests"], "images": [0], "block": [0], "targets": ["none"]},
        "probe_images": [-2, 3],
        "lengths[0]": [0.0, 2.0],
    },
    "apply_vector": {"apply_vector": {"lambda1": [math.inf, -1.0], "lambda2": [11.0]}},
}
"""Settings of a method: values that will not do, for each as it is composed without them."""


ROWS: dict[str, dict[str, Any]] = {
    "salvage": {
        "masks": [1, 0, 3],
        "decoder": ["none"],
        "depth": [0],
        "heads": [0],
        "sampling": ["odd"],
        "temperature": [0.0, math.inf],
        "divergence": ["none"],
    },
    "ranking": {
        "backbone": {"mean": [[0.5, 0.5]]},
        "decoder": {
            "channels": [7],
            "head": [0],
            "resize": [[]],
            "resize[1]": [0],
            "conditioning": ["film"],
            "norm": ["layer"],
            "dropout": [1.0],
            "pixels": [-1],
            "scale": [0.0],
        },
        "objective": OBJECTIVE,
        "loss": {"own_class": [1.5], "runner_up": [-0.1], "temperature_start": [0.0], "temperature_end": [0.0]},
    },
    "refined": {
        "steps": [-1],
        "draws": [0],
        "size": [0.0],
        "temperature": [0.0],
        "learning_rate": [math.nan],
        "sigma": [-1.0],
        "objective": OBJECTIVE,
    },
}
"""Settings of rows that are trained or refined: values that will not do."""


def leaves(wrong: dict[str, Any], path: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, values in wrong.items():
        full = f"{path}.{name}" if path else name
        found += leaves(values, full) if isinstance(values, dict) else [(full, value) for value in values]
    return found


@functools.cache
def composed(method: str) -> dict[str, Any]:
    given = ["vector=v", "checkpoint=c"] if method == "apply_vector" else []
    asked = "task=apply_vector" if method == "apply_vector" else f"study={method}"
    given += ["lengths=[0.5]"] if method == "salvage" else []
    return plain(asked, *given)


def changed(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    made = inner = copy.deepcopy(values)
    *groups, last = path.replace("[", ".[").split(".")
    for group in groups:
        inner = inner[group]
    inner[int(last[1:-1]) if last.startswith("[") else last] = value  # type: ignore[index]
    return made


@pytest.mark.parametrize("method", METHODS)
def test_a_setting_out_of_range_is_refused_by_its_path(method: str) -> None:
    schema = choose(composed(method)).settings
    names = schema.__dataclass_fields__
    values = {key: value for key, value in composed(method).items() if key in names}
    build(schema, values)
    for path, value in leaves(METHODS[method]):
        assert refusal(build, schema, changed(values, path, value)).startswith(f"{path}="), path


@pytest.mark.parametrize("row", ROWS)
def test_a_setting_of_a_row_out_of_range_is_refused_by_its_path(row: str) -> None:
    load_row(row)
    for path, value in leaves(ROWS[row]):
        given = changed(OmegaConf.to_container(compose_choice("explainer", row)), path, value)  # type: ignore[arg-type]
        with pytest.raises(UserError) as caught:
            load_row(row, {row: given})
        assert str(caught.value).startswith(f"explainers.{row}.{path}="), path


@pytest.mark.parametrize("schema", GROUPS, ids=lambda schema: schema.__name__)
def test_a_part_out_of_range_is_refused_by_the_path_of_its_group(schema: type) -> None:
    needed, wrong = GROUPS[schema]
    build(schema, needed, "data@x")
    for name, value in leaves(wrong):
        assert refusal(build, schema, needed | {name: value}, "data@x").startswith(f"data@x.{name}="), name


@pytest.mark.parametrize(
    ("method", "changes", "line"),
    [
        ("vectors", {"model.towers": None}, "model.name=clip_tiny needs either"),
        ("vectors", {"model.architecture": "ViT-B-32"}, "model.name=clip_tiny needs either"),
        ("vectors", {"model.weights": "x"}, "model.weights=x does nothing"),
        ("vectors", {"model.weights": "x", "model.random_weights": True}, "model.weights=x and random_weights=true"),
        ("vectors", {"model.patch_size": 40}, "model.patch_size=40 .* use patch_size=21$"),
        ("salvage", {"model.tower": None}, "model.name=vit_tiny needs either"),
        ("salvage", {"model.pretrained": True}, "model.name=vit_tiny is trained from nothing"),
        ("salvage", {"model.tower.heads": 3}, r"model.tower.width=64 .* heads=3"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_each_other_are_refused(method: str, changes: dict[str, Any], line: str) -> None:
    schema = choose(composed(method)).settings
    values = {key: value for key, value in composed(method).items() if key in schema.__dataclass_fields__}
    for path, value in changes.items():
        values = changed(values, path, value)
    with pytest.raises(UserError, match=f"^{line}"):
        build(schema, values)
