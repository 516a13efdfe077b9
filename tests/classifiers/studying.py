"""What the tests of classifiers share: a tiny ViT on small images, and a training that takes no time."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.classifiers.tiny import DATA, FIT, runtime
from xai.classifiers.learned import VitStages
from xai.classifiers.params import ClassifierParams, SalvageParams, SurrogateParams, VitShapleyParams
from xai.data.catalogue import OpenData
from xai.models.families import published_classes
from xai.models.vit import SmallVit, VitParams

MODEL = VitParams("tiny", 16, 4, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), tower=SmallVit(8, 1, 2, 2.0, 1, 1.0))
CLASSIFIER = ClassifierParams(0.5, FIT)
SURROGATE = SurrogateParams("classifier", 2, FIT)
SALVAGE = SalvageParams(masks=4, decoder="mask_transformer", depth=1, heads=2, fit=FIT)
VIT_SHAPLEY = VitShapleyParams(masks=4, decoder="mask_transformer", depth=1, heads=2, fit=FIT)
STEP = 0.125
"""What the training that takes no time adds to every parameter."""


@dataclass
class Trained:
    """What was trained, in order: (name of the module, its epochs, its sampling of masks)."""

    journal: list[tuple[str, int, str | None]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.journal]


def train_in_no_time(monkeypatch: pytest.MonkeyPatch) -> Trained:
    """For the time of a test, training moves every parameter, of the decoders at random, and writes itself down."""
    seen = Trained()

    def fit(module: Any, batches: Any, params: Any, *_: Any) -> None:
        seen.journal.append((type(module).__name__, params.epochs, getattr(module, "_sampling", None)))
        generator = torch.Generator().manual_seed(len(seen.journal))
        for name, value in module.named_parameters():
            assert value.requires_grad
            noise = torch.randn(value.shape, generator=generator) if "decoder" in name else 1.0
            value.data += STEP * noise

    monkeypatch.setattr("xai.classifiers.networks.fit", fit)
    return seen


class Photographs(type(DATA.source)):  # type: ignore[misc]
    """The tiny images, told apart as ImageNet's classes."""

    classes = published_classes()


PHOTOGRAPHS = OpenData("photographs", {"name": "photographs"}, Photographs())


def stages(folder: Path, **changes: Any) -> VitStages:
    """The networks of a store in `folder`; `changes` are fields of `VitStages`."""
    made = VitStages(runtime(folder), MODEL, DATA, CLASSIFIER, 0, SURROGATE)
    return replace(made, **changes)
