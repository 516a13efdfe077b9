"""An explainer for tests: its maps follow from what it is given, and it keeps a journal that processes share."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.classifiers.tiny import DATA, runtime
from xai.data.catalogue import OpenData
from xai.explainers import registry
from xai.explainers.registry import Entry, ExplainerParams, Info, Row
from xai.models.maskable import Removal
from xai.study.case import Case, CaseParams, ExplainedModel


class Silent(nn.Module):
    """A classifier that nobody asks anything."""

    grid = (4, 4)


@dataclass(frozen=True)
class DrawnParams(ExplainerParams):
    gain: float = 1.0

    @property
    def classifier_removal(self) -> Removal:
        return Removal("tokens")

    def for_split(self, split: str) -> "DrawnParams":
        return self if split == "train" else replace(self, gain=2 * self.gain)


def drawn(gain: float, pixels: Tensor, labels: Tensor, seed: int) -> Tensor:
    """The maps [B, 4, 4] of a block."""
    noise = torch.rand(len(pixels), 4, 4, generator=torch.Generator().manual_seed(seed))
    return gain * (noise + labels[:, None, None] + pixels.mean((1, 2, 3))[:, None, None])


class Drawn:
    """The explainer; `journal` gets a line for each block it has explained."""

    def __init__(self, journal: Path, params: DrawnParams) -> None:
        self._journal, self._params = journal, params

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        with open(self._journal, "a") as file:
            file.write(f"{targets.tolist()}\n")
        return drawn(self._params.gain, images, targets, generator.initial_seed())


def register(monkeypatch: pytest.MonkeyPatch, journal: Path) -> None:
    """Have an explainer called `drawn` for the time of a test."""
    registry.names()
    journal.touch()

    def build(_: Any, params: DrawnParams) -> Drawn:
        return Drawn(journal, params)

    info = Info("drawn", "Drawn", "for tests")
    monkeypatch.setitem(registry._ENTRIES, "drawn", Entry(info, DrawnParams, __name__, of_classifier=build))


def row(gain: float = 1.0) -> Row:
    """The explainer as a row."""
    return Row("drawn", "Drawn", registry.entry("drawn"), DrawnParams(gain))


def case(
    folder: Path,
    split: Any = "test",
    *,
    data: OpenData = DATA,
    classifier: str = "theta",
    images: int | None = None,
    block: int = 2,
    make: Callable[[Removal | None], Any] = lambda removal: Silent(),
) -> Case:
    """True classes of a split, asked of a classifier, with a store in `folder`."""
    model = ExplainedModel("silent", lambda: classifier, 16, (0.5, 0.5, 0.5), tuple(data.source.classes), make)
    return Case(runtime(folder), model, data, CaseParams(split, images, block), 3)
