"""What is explained: which classifier, which images, which class of each."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from xai.core.errors import UserError, check_finite
from xai.core.runtime import Runtime
from xai.core.settings import Count, settings
from xai.data.catalogue import OpenData
from xai.data.registry import Images, Split, load_images, subset
from xai.explainers.controls.other_classes import wrong_classes
from xai.explainers.registry import Row
from xai.explainers.rows import load_row
from xai.games import PatchGame
from xai.metrics.variations import Variation, calibrate
from xai.models.maskable import MaskableClassifier, Removal
from xai.study.blocks import PRIME, fill_blocks, read_blocks

_CACHED_BYTES = 1 << 28
_REVISION = 1
_BESIDE = {"label": "other", "predicted": "second", "second": "predicted", "other": "label", "wrong": "label"}
"""Of the classes that are explained, those that are never the same of any image."""


@dataclass(frozen=True)
class ExplainedModel:
    """The classifier that is explained.

    Args:
        name: What tables call it.
        identify: Says what tells it from all others, a key of the store or a fingerprint; where it is not there yet, it
            is trained then.
        image_size: Side of its images in pixels.
        mean: What it normalises with, three channels; what a removed pixel shows where the reference is `mean`.
        classes: Names of its classes.
        make: Makes it on its device, in evaluation mode and frozen, with a way to remove patches.
        networks: Where it comes from; what a trained explainer needs beside the classifier stands there.
        blank: Makes one of the same build whose weights may mean nothing, without training anything; None: `make`.
    """

    name: str
    identify: Callable[[], Any]
    image_size: int
    mean: tuple[float, ...]
    classes: tuple[str, ...]
    make: Callable[[Removal | None], MaskableClassifier]
    networks: Any = None
    blank: Callable[[Removal | None], MaskableClassifier] | None = None

    @cached_property
    def identity(self) -> Any:
        """What tells it from all others."""
        return self.identify()


@settings
class CaseParams:
    """Which images are explained, and for which class.

    Args:
        split: `validation` for choosing, `test` for reporting.
        images: How many, drawn with the seed; null takes all.
        block: Images that are explained and measured together; also what shares one design of coalitions, and what a
            kill can cost.
        targets: The class that is explained: the true one (`label`) or the `predicted` one; or the one that stands
            second to the predicted one (`second`: the true class, or the runner-up where the prediction is right) or to
            the true one (`other`: the predicted class, or the runner-up); or any other than the true one (`wrong`),
            as the control wrong_class draws it.
    """

    split: Split
    images: Count | None
    block: Count
    targets: Literal["label", "predicted", "second", "other", "wrong"] = "label"


@dataclass(frozen=True)
class Case:
    """Classifier x data set x split x images x which class x seed: what every explainer of a study is asked.

    Args:
        runtime: Where to work.
        model: The classifier that is explained, and asked by metrics.
        data: The data set.
        params: Which images, and which class.
        seed: Of the subset, and of all that is drawn.
        name: What the frame calls it.
        source: The data set that explanations were learned on, where it is another.
        compared: The classifier that rows which classify are compared with; None: `model`.
        only: These rows [N] of the split, instead of what `params.images` draws.
        home: The case whose images a prior is learned from, where it is another one.
        others: The rows of a study by name, for an explainer that is made from another one.
        open_row: Opens such a row that is not among them.
        judge: A second classifier of the same images, which was trained apart; None where there is none.
        varied_from: The case that this one is a variation of, and the variation; see `varied`.
    """

    runtime: Runtime
    model: ExplainedModel
    data: OpenData
    params: CaseParams
    seed: int
    name: str = "main"
    source: str | None = None
    compared: ExplainedModel | None = None
    only: tuple[int, ...] | None = None
    home: "Case | None" = None
    others: Mapping[str, Row] = field(default_factory=dict)
    open_row: Callable[[str], Row] = load_row
    judge: ExplainedModel | None = None
    varied_from: "tuple[Case, Variation] | None" = None
    _answers: dict[tuple[int, bytes], Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    _kept: dict[int, Images] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Blocks that were read last: every explainer and every metric comes by them."""
    _variations: "dict[Variation, Case]" = field(default_factory=dict, init=False, repr=False, compare=False)
    _varied_parts: set[nn.Module] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse before any work what could not be measured after it."""
        check_images(self.data, self.params)

    @property
    def split(self) -> str:
        """Of the data set."""
        return self.params.split

    @cached_property
    def rows(self) -> Tensor:
        """Row numbers [N] in the split, sorted."""
        if self.only is not None:
            return torch.tensor(self.only)
        return subset(self.data.source, self.split, self.params.images, self.seed)

    @cached_property
    def blocks(self) -> list[Tensor]:
        """Positions [B] in `rows` of the images of each block."""
        return list(torch.arange(len(self.rows)).split(self.params.block))

    @property
    def is_labelled(self) -> bool:
        """Whether true classes are known."""
        return bool(getattr(self.data.source, "labelled", True))

    @cached_property
    def labels(self) -> Tensor:
        """True classes [N]."""
        return self.data.source.labels(self.split)[self.rows]

    @cached_property
    def has_regions(self) -> bool:
        """Whether the data set says where the objects are."""
        return self.data.source.images(self.split, self.rows[:1], 0).regions is not None

    @property
    def spec(self) -> dict[str, Any]:
        """What determines the images, the classes that are explained, and the draws."""
        varied = {} if self.varied_from is None else {"variation": self.varied_from[1].spec}
        return {**self._images_spec, "targets": self.params.targets, **varied}

    @property
    def _images_spec(self) -> dict[str, Any]:
        return {
            "model": self.model.identity,
            "data": self.data.spec,
            "split": self.split,
            "images": self.params.images if self.only is None else list(self.only),
            "block": self.params.block,
            "seed": self.seed,
        }

    @cached_property
    def targets(self) -> Tensor:
        """The class that is explained of each image, [N]."""
        if self.params.targets == "label":
            return self.labels
        if self.params.targets == "wrong":
            return wrong_classes(self.labels, self.rows, len(self.model.classes))
        first, second = self.logits.topk(2, dim=1).indices.unbind(1)
        if self.params.targets == "predicted":
            return first
        if not self.is_labelled:
            return second
        return torch.where(first == self.labels, second, first if self.params.targets == "other" else self.labels)

    @cached_property
    def logits(self) -> Tensor:
        """What the model says of the whole images, [N, C], from the store or asked."""
        return self._logits(self.model, self.network)

    @cached_property
    def compared_logits(self) -> Tensor:
        """What the classifier says that rows are compared with, [N, C]."""
        if self.compared is None:
            return self.logits
        return self._logits(self.compared, partial(self.compared.make, None))

    def _logits(self, model: ExplainedModel, make: Callable[[], MaskableClassifier]) -> Tensor:
        trainer, network = self.runtime.trainer, cache(make)

        @torch.no_grad()
        def ask(number: int) -> dict[str, Tensor]:
            with trainer.autocast():
                logits = network()(self.images(number).pixels.to(trainer.device)).float().cpu()
            advice = "give a classifier with finite outputs, or use trainer.precision=32-true"
            check_finite(logits, f"the answers of {model.name}", advice, self.rows[self.blocks[number]])
            return {"logits": logits}

        spec = {**self._images_spec, "model": model.identity, "revision": _REVISION}
        rows = [self.rows[block] for block in self.blocks]
        return read_blocks(fill_blocks(self.runtime, "logits", spec, rows, ask, f"answers of {model.name}"))["logits"]

    def network(self, removal: Removal | None = None) -> MaskableClassifier:
        """The classifier, on the device, in evaluation mode; `removal` None: as the model removes by itself."""
        return self._networks(removal)

    def blank(self, removal: Removal | None = None) -> MaskableClassifier:
        """A classifier of the same build, whose weights may mean nothing; nothing is trained."""
        return self._blanks(removal)

    @cached_property
    def _blanks(self) -> Callable[[Removal | None], MaskableClassifier]:
        return self._networks if self.model.blank is None else cache(self.model.blank)

    @cached_property
    def _networks(self) -> Callable[[Removal | None], MaskableClassifier]:
        return cache(self.model.make if self.varied_from is None else self._varied_network)

    def _varied_network(self, removal: Removal | None) -> MaskableClassifier:
        assert self.varied_from is not None
        original, variation = self.varied_from
        network = variation.network(original.network(removal))
        calibrate(network, original.images(0).pixels.to(self.runtime.trainer.device))
        self._varied_parts.update(network.modules())
        return network

    def vary(self, network: nn.Module) -> nn.Module:
        """What is asked in place of a network that an explainer brought; the case's own is varied already."""
        if self.varied_from is None or not self._varied_parts.isdisjoint(network.modules()):
            return network
        return self.varied_from[1].network(network)

    @cached_property
    def the_judge(self) -> MaskableClassifier:
        """The second classifier, on the device."""
        assert self.judge is not None
        return self.judge.make(None)

    def answers(self, number: int, coalitions: Tensor) -> Tensor:
        """Values [B, S] of coalitions [B, S, M] of a block in the game of the targets, asked once in this process."""
        key = (number, hashlib.sha256(coalitions.numpy().tobytes()).digest())
        if key not in self._answers:
            device = self.runtime.trainer.device
            targets = self.targets[self.blocks[number]].to(device)
            game = PatchGame(self.network(), self.images(number).pixels.to(device), targets)
            self._answers[key] = game.value(coalitions).float().cpu()
        return self._answers[key]

    def images(self, number: int) -> Images:
        """Pixels [B, 3, H, W] and regions [B, H, W] or None of a block, on the CPU."""
        kept = self._kept
        if self.varied_from is not None:
            original, variation = self.varied_from
            found = original.images(number)
            return found._replace(pixels=variation.images(found.pixels, self.seed * PRIME + number))
        if number not in kept:
            rows, workers = self.rows[self.blocks[number]], self.runtime.trainer.workers
            found = load_images(self.data.source, self.split, rows, 0, self.model.image_size, workers)
            size = found.pixels.nbytes + (0 if found.regions is None else found.regions.nbytes)
            while kept and size * (len(kept) + 1) > _CACHED_BYTES:
                kept.pop(next(iter(kept)))
            kept[number] = found
        return kept[number]

    def row(self, name: str) -> Row:
        """Another row of the same study, or one of the configuration's; UserError: there is none of this name."""
        return self.others[name] if name in self.others else self.open_row(name)

    @property
    def learned_from(self) -> OpenData:
        """The data set whose images explainers learn from: its own, or that of the case which it goes with."""
        return (self.home or self).data

    @property
    def learned_in(self) -> dict[str, Any]:
        """What tells the case that a prior is learned in, where it is another one."""
        home = self.home
        return {} if home is None else {"home": {"data": home.data.spec, "targets": home.params.targets}}

    def maps_of(self, name: str, split: str, images: int | None) -> Tensor:
        """Maps [N, h, w] or [N, H, W] of another row, over other images of the same data set.

        Args:
            name: Of the row.
            split: Whose images.
            images: How many, drawn with the seed; null or more than there are takes all.

        Raises:
            UserError: There is no such row, or it gives no maps.
        """
        from xai.study.maps import explain  # maps are made of cases

        home = self.home or self
        available = len(home.data.source.labels(split))
        wanted = None if images is None or images >= available else images
        found = explain(home.with_params(split=split, images=wanted), self.row(name)).attributions
        if found is None:
            raise UserError(f"of={name} gives no maps: name a row that explains")
        return found

    @cached_property
    def second(self) -> "Case":
        """The same images, explained for another class each: one that stands beside the class of this case."""
        targets = _BESIDE[self.params.targets]
        # Without labels `other` is the runner-up, as `second` is.
        other = self.with_params(targets=targets if self.is_labelled or targets == "second" else "predicted")
        # A prior says nothing of the class: it stays the one of the classes that are explained first.
        other = replace(other, home=self.home or self)
        # They share what is read, built and asked.
        for name in ("rows", "_kept", "_networks", "logits"):
            other.__dict__[name] = getattr(self, name)
        return other

    def varied(self, variation: Variation) -> "Case":
        """The same images, explained for the same classes, in a variation that a metric has named."""
        if variation not in self._variations:
            # A prior says nothing of single images nor of weights: it stays the one of this case.
            other = replace(self, varied_from=(self, variation), home=self.home or self)
            shared = ["rows", "targets", "logits"] + ([] if variation.changes_network else ["_networks"])
            for name in shared:
                other.__dict__[name] = getattr(self, name)
            self._variations[variation] = other
        return self._variations[variation]

    def at(self, positions: Tensor) -> "Case":
        """The same case of some of its images, by their positions [n] in `rows`; the classifier is not asked again."""
        few = replace(self, only=tuple(self.rows[positions].tolist()))
        few.__dict__["logits"] = self.logits[positions]
        return few

    def with_params(self, **changes: Any) -> "Case":
        """The same case but for some of its parameters; another split has other rows."""
        only = None if "split" in changes or "images" in changes else self.only
        return replace(self, params=replace(self.params, **changes), only=only)


def facts(case: Case) -> Mapping[str, str | None]:
    """What metrics may need: None where the case has it, else why not, in words that end a sentence."""
    data = f"data={case.data.name}"
    return {
        "regions": None if case.has_regions else f"{data} does not say where the objects are",
        "labels": None if case.is_labelled else f"{data} has no labels",
        "cells": None if hasattr(case.data.source, "cells") else f"{data} has not several objects an image",
        "judge": None if case.judge is not None else "no judge is given",
    }


def check_judge(judge: str, size: int, of: int) -> None:
    """Refuse a second classifier that takes images of another `size` than the first, which takes those `of` so many."""
    if size != of:
        raise UserError(
            f"judge={judge} takes images of {size} px, and the classifier of {of} px: they have to see the same"
        )


def check_images(data: OpenData, params: CaseParams) -> None:
    """Refuse images that a split has not, and true classes that nobody knows.

    Raises:
        UserError: The split has none, or fewer than are asked for; labels are asked for, and there are none.
    """
    if params.targets in ("label", "wrong") and not getattr(data.source, "labelled", True):
        raise UserError(f"case.targets={params.targets}: data={data.name} has no labels; set case.targets=predicted")
    available = len(data.source.labels(params.split))
    if not available:
        raise UserError(f"the {params.split} split of data={data.name} has no images: choose another split")
    if params.images is not None and params.images > available:
        raise UserError(
            f"case.images={params.images}: the {params.split} split of data={data.name} has {available} images; null "
            "takes all of them"
        )
