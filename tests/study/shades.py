"""A small data set in memory, and where small studies work."""

from pathlib import Path

import torch
from torch import Tensor

from xai.core.runtime import Runtime
from xai.core.store import Store
from xai.core.training import TrainerParams
from xai.data.catalogue import OpenData
from xai.data.registry import Images

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


class Borderless(Shades):
    """The same images, of which nobody says where the objects are."""

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        return super().images(split, indices, epoch)._replace(regions=None)


class Unseen(Shades):
    """The same images, of which none is held out while something is trained, nor after."""

    def labels(self, split: str) -> Tensor:
        return super().labels(split)[: None if split == "train" else 0]


DATA = OpenData("shades", {"name": "shades"}, Shades())
BORDERLESS = OpenData("borderless", {"name": "borderless"}, Borderless())


def runtime(folder: Path) -> Runtime:
    return Runtime(Store(folder / "store"), TrainerParams(accelerator="cpu"))
