"""What the tests of the stages share: a bench in a temporary folder, a tiny model, a small data set in memory."""

from pathlib import Path

import torch
from torch import Tensor

from tests.models.tiny_clip import PARAMS, TOWERS
from xai.core.optimisation import FitParams
from xai.core.runtime import Runtime
from xai.core.store import Artifact, Store
from xai.core.training import TrainerParams
from xai.data.catalogue import OpenData
from xai.data.registry import Images
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
SIZES = {"train": 12, "validation": 8, "test": 9}


class Shades:
    """A bright quadrant tells the class; the region is that quadrant."""

    classes = ("north", "east", "south", "west")
    templates = ("a photo of {}.", "the {}")
    varies = True

    def labels(self, split: str) -> Tensor:
        return (torch.arange(SIZES[split]) * 7 + len(split)) % 4

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        generator = torch.Generator().manual_seed(epoch * 10 + len(split))
        noise = torch.rand(SIZES[split], 3, 16, 16, generator=generator)[indices]
        regions = torch.zeros(len(indices), 16, 16, dtype=torch.bool)
        for row, label in enumerate(self.labels(split)[indices].tolist()):
            top, left = 8 * (label // 2), 8 * (label % 2)
            regions[row, top : top + 8, left : left + 8] = True
        return Images(0.5 * noise + 0.5 * regions[:, None], regions)


DATA = OpenData("shades", {"name": "shades"}, Shades())


def runtime(folder: Path) -> Runtime:
    return Runtime(Store(folder / "store"), TrainerParams(accelerator="cpu"))


def base(bench: Runtime) -> Base:
    """Random base weights."""
    state = build_clip(MODEL, 4).state_dict()
    spec = {"random": True}
    artifact = bench.store.get("base", spec, lambda work: write_weights(work / "base.safetensors", state, {}))
    return base_stage.load(MODEL, artifact)


def explained(bench: Runtime, split: str, rows: Tensor, seed: int = 0) -> Artifact:
    """Maps of the true classes that were drawn, not computed."""
    maps = torch.randn(len(rows), 4, 4, generator=torch.Generator().manual_seed(seed))
    tensors = {"rows": rows, "targets": DATA.source.labels(split)[rows], "attributions": maps}
    spec = {"split": split, "rows": rows.tolist(), "seed": seed, "explainer": {"name": "drawn"}}

    def make(work: Path) -> None:
        write_weights(work / "maps.safetensors", tensors, {})

    return bench.store.get("maps", spec, make)
