"""What the tests of the stages share: a tiny model beside the small data set in memory."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.models.tiny_clip import PARAMS, TOWERS
from tests.study.shades import DATA as DATA
from tests.study.shades import Shades as Shades
from tests.study.shades import runtime as runtime
from xai.core.loggers import LoggerParams
from xai.core.optimisation import FitParams
from xai.core.runtime import Runtime
from xai.core.store import Artifact
from xai.core.training import TrainerParams
from xai.data.scatter import ScatterParams
from xai.models.factory import build_clip
from xai.models.weights import write_weights
from xai.papers.vectors import base as base_stage
from xai.papers.vectors.base import Base, ModelParams, PretrainParams

SCENE = ScatterParams(canvas=16, cells=2, object_size=7)
MODEL = ModelParams(
    *(PARAMS.name, PARAMS.image_size, PARAMS.patch_size, PARAMS.mean, PARAMS.std),
    towers=TOWERS,
    pretraining=PretrainParams(50, 25, 4, 1e-3, 0.0, 0.1, 1.0, SCENE),
)
FIT = FitParams(epochs=2, batch_size=5, learning_rate=1e-2, weight_decay=0.0, warmup=0.1, clip=1.0)


def of_a_job(task: str, folder: Path, seed: int = 3) -> dict[str, Any]:
    """What every job is asked for, here with the tiny model and a store in `folder`."""
    where = {"task": task, "name": "out", "seed": seed, "store": str(folder / "store"), "model": MODEL, "data": {}}
    return {**where, "trainer": TrainerParams(accelerator="cpu"), "logger": LoggerParams("none"), "plugins": ()}


def base(own_runtime: Runtime) -> Base:
    """Random base weights."""
    state = build_clip(MODEL, 4).state_dict()
    spec = {"random": True}
    artifact = own_runtime.store.get("base", spec, lambda work: write_weights(work / "base.safetensors", state, {}))
    return base_stage.load(MODEL, artifact)


def explained(own_runtime: Runtime, split: str, rows: Tensor, seed: int = 0) -> Artifact:
    """Maps of the true classes that were drawn, not computed."""
    maps = torch.randn(len(rows), 4, 4, generator=torch.Generator().manual_seed(seed))
    tensors = {"rows": rows, "targets": DATA.source.labels(split)[rows], "attributions": maps}
    spec = {"split": split, "rows": rows.tolist(), "seed": seed, "explainer": {"name": "drawn"}}

    def make(work: Path) -> None:
        write_weights(work / "maps.safetensors", tensors, {})

    return own_runtime.store.get("maps", spec, make)
