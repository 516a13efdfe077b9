"""A small study: a tiny CLIP that counts how often it is asked, and an explainer and a metric that keep a journal."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from tests.models.tiny_clip import PARAMS, classifier
from tests.study.shades import DATA, runtime
from xai.core.settings import NonNegative, Whole, settings
from xai.data.catalogue import OpenData
from xai.explainers import registry as explainers
from xai.explainers.block import Block, Explanation
from xai.explainers.registry import ExplainerParams, Prepared, Row, explainer
from xai.explainers.rows import load_row, open_row
from xai.metrics import registry as metrics
from xai.metrics.registry import Column, Measured, given, metric
from xai.models.maskable import Removal
from xai.study.case import Case, CaseParams, ExplainedModel
from xai.study.study import Study, open_metrics

asked: list[int] = []
"""Images that the classifier was asked about, call by call, in this process."""

RISE: dict[str, Any] = {"masks": 8, "output": "probability", "removal": {"kind": "tokens"}}
"""Less than its file asks for."""


class _Counted:
    """What a classifier answers, counted."""

    def encode(self, images: Tensor) -> Any:
        asked.append(len(images))
        return super().encode(images)  # type: ignore[misc]


def counted(removal: Removal | None) -> Any:
    model = classifier(removal).float()
    model.__class__ = type("Counted", (_Counted, type(model)), {})
    return model


MODEL = ExplainedModel("tiny", lambda: "weights 1", 16, PARAMS.mean, ("a", "b", "c", "d", "e"), counted)


@settings
class NotedParams(ExplainerParams):
    """How the explainer of the tests behaves.

    Args:
        step: Which stage of its path of three maps the row is.
        pause: Seconds that a block takes.
        broken: Rows of the split whose maps are NaN.
    """

    step: Whole = 0
    pause: NonNegative = 0.0
    broken: tuple[Whole, ...] = ()


class Noted:
    """A path of maps [B, 3, 4, 4] that follows from the generator and the image; every block is put down."""

    def __init__(self, journal: Path, name: str, params: NotedParams) -> None:
        self._journal, self._name, self._params = journal, name, params

    def explain(self, block: Block) -> Explanation:
        note(self._journal, f"maps {self._name} {block.rows.tolist()}")
        time.sleep(self._params.pause)
        maps = torch.rand(len(block.images), 3, 4, 4, generator=block.generator)
        maps = maps + block.targets[:, None, None, None] + block.images.mean((1, 2, 3))[:, None, None, None]
        maps[torch.isin(block.rows, torch.tensor(self._params.broken))] = torch.nan
        return Explanation(maps)


def note(journal: Path, line: str) -> None:
    for path, said in ((journal, line), (workers(journal), str(os.getpid()))):
        with open(path, "a", encoding="utf-8") as file:
            file.write(said + "\n")


def workers(journal: Path) -> Path:
    """Where the process is put down that has written a line of the journal."""
    return journal.with_suffix(".workers")


def lines(journal: Path) -> list[str]:
    return journal.read_text(encoding="utf-8").splitlines()


def register(monkeypatch: pytest.MonkeyPatch, journal: Path) -> None:
    """Have the explainers `noted` and `noted_too` and the metric `peak` for the time of a test."""
    explainers.names(), metrics.names()
    monkeypatch.setattr(explainers, "_ENTRIES", dict(explainers._ENTRIES))
    monkeypatch.setattr(metrics, "_ENTRIES", dict(metrics._ENTRIES))
    journal.touch()
    for name in ("noted", "noted_too"):

        def prepare(context: Any, params: NotedParams, name: str = name) -> Prepared:
            made_from = {"noted": name, "broken": list(params.broken)}
            notes = {"step": float(params.step)}
            return Prepared(made_from, lambda: Noted(journal, name, params), pick=params.step, notes=notes)

        explainer(name, label=name, about="for tests", params=NotedParams)(prepare)

    @metric("peak", columns=[Column("peak", "Peak", "The highest value.")], needs={"maps"})
    def peak(block: Measured, params: object) -> dict[str, Tensor]:
        note(journal, f"scores {block.rows.tolist()}")
        return {"peak": given(block.maps).flatten(1).amax(1)}


def rows(names: Sequence[str], changes: Mapping[str, Mapping[str, Any]] | None = None) -> list[Row]:
    """Rows of the framework by their files, and `noted`, `noted_too` with what a name says after `@` as their step."""
    found = []
    for name in names:
        own = dict((changes or {}).get(name, {}))
        if name.startswith("noted"):
            kind, _, step = name.partition("@")
            found.append(open_row(name, {"name": kind, "step": int(step or 0), **own}))
        else:
            found.append(load_row(name, {name: {**(RISE if name == "rise" else {}), **own}}))
    return found


def study(
    folder: Path,
    explainers: Sequence[str],
    metrics: Sequence[str] = ("localisation",),
    *,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    data: OpenData = DATA,
    block: int = 4,
    images: int | None = None,
    seed: int = 3,
    targets: Literal["label", "predicted", "second", "other", "wrong"] = "label",
    **more: Any,
) -> Study:
    """A study in a store of its own, as another process would open it."""
    case = Case(runtime(folder), MODEL, data, CaseParams("test", images, block, targets), seed)
    chosen = open_metrics(metrics, {"removal": {"masks": 2}, "perturbation": {"steps": 3}})
    return Study(rows(explainers, changes), [(case, chosen)], **more)


def made(study: Study) -> list[str]:
    """The kinds of what a study has put into the store, sorted; what the classifier says of the images is left out."""
    kinds = [artifact.kind for artifact in study.cases[0][0].runtime.store.made]
    return sorted(kind for kind in kinds if kind != "logits")


def stored(folder: Path) -> dict[str, bytes]:
    """The tensors in a store by kind and key, byte for byte."""
    root = folder / "store"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.safetensors")}
