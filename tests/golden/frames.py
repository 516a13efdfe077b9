"""Golden numbers of a study of the engine: read from the frames it wrote, and its maps from the store."""

from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import load_file
from torch import Tensor

from xai.study.frame import read_frames

MAPS = 2
"""Images whose maps are kept."""


def read_study(store: Path, output: Path, renamed: dict[str, str]) -> dict[str, Any]:
    """Rows, values of images, and maps of the main case.

    Args:
        store: Where the maps lie.
        output: Where the frames lie.
        renamed: Names that rows had before, by their names now.
    """
    frames = read_frames(output)
    found: dict[str, Any] = {"rows": {}, "images": {}, "maps": {}}
    for (case, row), lines in frames.scores.groupby(["case", "explainer"], sort=False):
        name = renamed.get(str(row), str(row))
        for metric, values in lines.groupby("metric", sort=False):
            found["rows"].setdefault(name, {})[str(metric)] = float(values["value"].mean())
            if case == "main" and len(values) > 1:
                found["images"].setdefault(name, {})[str(metric)] = values["value"].tolist()
    for line in frames.costs[frames.costs["case"] == "main"].to_dict("records"):
        name = renamed.get(line["explainer"], line["explainer"])
        tensors = load_file(store / "maps" / line["maps"] / "maps.safetensors")
        if "attributions" in tensors:
            maps = tensors["attributions"]
            stage = line.get("stage")
            maps = maps if stage is None or pd.isna(stage) else maps[:, int(stage)]
            found["maps"][name] = few(maps).tolist()
        if "logits" in tensors:
            found["images"].setdefault(name, {})["logits"] = tensors["logits"].tolist()
    return found


def few(maps: Tensor) -> Tensor:
    """A few maps [2, h, w], or [2, T, h, w] with T steps; of pixels every third each way."""
    every = 3 if maps.shape[-1] > 14 else 1
    return maps[:MAPS, ..., ::every, ::every]
