"""A context for tests: a classifier, four images with or without regions, and whatever rows a test gives it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tests.explainers.settings import small_clip, small_pictures
from tests.toolbox import seeded, there
from xai.data.registry import Images
from xai.explainers.block import Block, explain
from xai.explainers.registry import Row
from xai.models.maskable import MaskableClassifier, Removal


@dataclass
class Source:
    """Four images a split, or as many as `sizes` says; those of the validation split are other ones."""

    regions: Tensor | None
    sizes: Mapping[str, int] = field(default_factory=dict)

    def labels(self, split: str) -> Tensor:
        return torch.arange(self.sizes.get(split, 4))

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        pixels = small_pictures(8)[4 * (split == "validation") :][indices]
        return Images(pixels, None if self.regions is None else self.regions[indices])


@dataclass
class Data:
    name: str
    source: Source
    spec: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Context:
    rows: Mapping[str, Row] = field(default_factory=dict)
    regions: Tensor | None = None
    split: str = "test"
    seed: int = 0
    classifier: MaskableClassifier | None = None
    asked: list[Removal | None] = field(default_factory=list)
    runtime: Any = None
    model: Any = None
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def data(self) -> Any:
        return Data("pictures", Source(self.regions, self.sizes))

    @property
    def learned_from(self) -> Any:
        return self.data

    @property
    def learned_in(self) -> dict[str, Any]:
        return {}

    def network(self, removal: Removal | None = None) -> MaskableClassifier:
        self.asked.append(removal)
        return self.classifier or small_clip(removal)

    def blank(self, removal: Removal | None = None) -> MaskableClassifier:
        return self.network(removal)

    def row(self, name: str) -> Row:
        return self.rows[name]

    def maps_of(self, name: str, split: str, images: int | None) -> Tensor:
        row = self.rows[name]
        found = self.data.source.images(split, torch.arange(4)[:images], 0)
        labels = self.data.source.labels(split)[:images]
        block = Block(found.pixels, labels, labels, found.regions, torch.arange(len(labels)), seeded())
        return there(explain(row.entry.prepare(self, row.params).build(), block).maps)
