"""Images in memory as a case of a study, so that what measures a data set measures them too."""

import inspect
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xai.api.model import Model
from xai.core.common import TrainerParams
from xai.core.composing import choices, stem
from xai.core.errors import UserError, check_finite
from xai.core.runtime import Runtime
from xai.core.settings import settings, unknown
from xai.core.store import Store
from xai.data.catalogue import OpenData
from xai.data.registry import Images
from xai.explainers import registry
from xai.explainers.block import Block, BlockExplainer, Explainer, Explanation
from xai.explainers.registry import Entry, ExplainerParams, Info, Prepared, Row
from xai.explainers.rows import load_row, of_no_split, open_row, removing_as_the_model
from xai.study.case import Case, CaseParams, ExplainedModel

_SEEDS = 2**31


@dataclass(frozen=True)
class InMemory:
    """Images in memory as a data set whose splits are all the same; see `ImageSource`.

    Args:
        classes: Names of the classes.
        pixels: [N, 3, H, W] in [0, 1].
        known: True classes [N], None where they are not known.
    """

    classes: Sequence[str]
    pixels: Tensor
    known: Tensor | None = None
    templates: Sequence[str] = ("a photo of a {}.",)
    varies: bool = False

    @property
    def labelled(self) -> bool:
        """Whether true classes are known."""
        return self.known is not None

    def labels(self, split: str) -> Tensor:
        """True classes [N]; zeros where they are not known."""
        return torch.zeros(len(self.pixels), dtype=torch.int64) if self.known is None else self.known

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        """The images at `indices` [B]; where the objects are is not known."""
        return Images(self.pixels[indices], None)

    @cached_property
    def opened(self) -> OpenData:
        """As the engine has data sets."""
        return OpenData("images", {"name": "images"}, self)


@settings
class _OnOne(TrainerParams):
    """Where a model is: on one device, of any kind.

    Args:
        place: Its name, such as `cuda:1`.
    """

    place: str = "cpu"

    @property
    def device(self) -> torch.device:
        """That one."""
        return torch.device(self.place)


@contextmanager
def workplace(device: torch.device) -> Iterator[Runtime]:
    """A runtime on a device, whose store is gone afterwards."""
    place = "cpu" if device.type == "cpu" else str(device)  # of processors there is one, whatever its number
    with tempfile.TemporaryDirectory(prefix="xai-") as folder:
        yield Runtime(Store(Path(folder)), _OnOne(place=place))


def case_of(
    runtime: Runtime, model: Model, source: InMemory, *, targets: str = "predicted", block: int = 10, seed: int = 0
) -> Case:
    """What is explained: these images, by this model.

    Raises:
        UserError: The seed is none.
    """
    if not isinstance(seed, int) or not 0 <= seed < _SEEDS:
        raise UserError(f"seed={seed!r} must be a whole number from 0 to {_SEEDS - 1}")
    params = CaseParams("test", None, block, targets)  # type: ignore[arg-type]
    opened = partial(_made_from, model.fitted)
    return Case(runtime, explained_by(model), source.opened, params, seed, open_row=opened)


def _made_from(fitted: Mapping[str, Any], name: str) -> Row:
    """A row that another one is made from: as it was fitted, else removing patches as the model does it, too."""
    return _ready(fitted[name]) if name in fitted else _trained_first(removing_as_the_model(load_row(name), {}))


def explained_by(model: Model) -> ExplainedModel:
    """As the engine has classifiers."""
    return ExplainedModel(
        name=model.name,
        identify=lambda: model.name,
        image_size=model.image_size,
        mean=model.mean,
        classes=model.classes,
        make=model.network,
    )


def row_of(explainer: Any, settings: Mapping[str, Any], fitted: Mapping[str, Any]) -> Row:
    """An explainer as a row.

    Args:
        explainer: A name: of conf/explainer, also one that says another budget or `_pooled`, of the registry, or of
            `fitted`; what `xai.fit` or `xai.explainer` returned; or any object with `attribute(images, targets)`.
        settings: Those that replace the explainer's own. Patches are removed as the model does it, unless `removal`
            says otherwise, or the explainer leaves out tokens, as `tis` does.
        fitted: Explainers that were trained for the model, by name.

    Raises:
        UserError: There is no such explainer, or no such setting.
    """
    if isinstance(explainer, str) and explainer in fitted:
        explainer = fitted[explainer]
    if not isinstance(explainer, str):
        if settings:
            raise UserError(f"{explainer!r} is ready made and takes no settings: leave {', '.join(settings)} out")
        return _ready(explainer)
    if stem(explainer) in choices("explainer"):
        row = load_row(explainer, {explainer: dict(settings)})
    elif explainer in registry.names():
        row = open_row(explainer, dict(settings))
    else:
        known = {*choices("explainer"), *registry.names(), *fitted}
        raise UserError(unknown(f"explainer {explainer!r}", explainer, known, "explainer", "choose from"))
    return of_no_split(_trained_first(removing_as_the_model(row, settings)), settings)


def _trained_first(row: Row) -> Row:
    """A row; that of an explainer of ours which learns is refused, but within `xai.fit`, with the call that trains it.

    With a network of its own it would learn from the images that it explains, every time.
    """
    own, make = row.entry, row.entry.of_context
    ours = own.made_by.startswith("xai.")  # of a plug-in nobody knows what it learns from
    if make is None or not ours or own.info.kind != "trained" or not hasattr(row.params, "fit"):
        return row
    network = ", network=..." if getattr(row.params, "network", None) else ""
    line = f"{row.name} is trained first: use xai.fit({row.name!r}, model, images{network}), and name it then"

    def check(context: Any, params: Any) -> None:
        if context.model.networks is None:
            raise UserError(line)
        if own.fits is not None:
            own.fits(context, params)

    def prepare(context: Any, params: Any) -> Prepared:
        check(context, params)
        return make(context, params)

    return replace(row, entry=replace(own, fits=check, of_context=prepare))


@settings
class _OfPixels(ExplainerParams):
    """Of what is ready made, and gives maps of pixels."""

    @property
    def of_pixels(self) -> bool:
        """It does."""
        return True


def _ready(explainer: Any) -> Row:
    if not isinstance(explainer, (Explainer, BlockExplainer)):
        raise UserError(
            f"{type(explainer).__name__} is no explainer: give a name, what xai.fit returned, or an object with "
            "attribute(images, targets) -> maps [B, h, w]"
        )
    name = getattr(explainer, "name", type(explainer).__name__)
    info = Info(str(name), str(getattr(explainer, "label", name)), "an object of the user's", "post-hoc")

    def prepare(context: Any, params: Any) -> Prepared:
        return Prepared({"object": f"{name}-{id(explainer)}"}, lambda: Theirs(explainer, str(name)))

    return Row(
        info.name,
        info.label,
        Entry(info, ExplainerParams, __name__, of_context=prepare, opaque=True),
        _OfPixels() if getattr(explainer, "of_pixels", False) else ExplainerParams(),
    )


@dataclass(frozen=True)
class Theirs:
    """An explainer of a user's own, called by whichever names it has, and what it gives looked at.

    Args:
        made: Something with `attribute(images, targets[, generator])`, `attribute(inputs, target)` or `explain(block)`.
        name: What messages call it.
    """

    made: Any
    name: str

    def explain(self, block: Block) -> Explanation:
        """Maps of a block.

        Raises:
            UserError: They are no maps of these images.
        """
        if isinstance(self.made, BlockExplainer):
            found = self.made.explain(block)
            return found if found.maps is None else found._replace(maps=self._checked(found.maps, block))
        parameters = inspect.signature(self.made.attribute).parameters
        if "inputs" in parameters:
            maps = self.made.attribute(block.images, target=block.targets)
        elif "generator" in parameters or _takes(parameters, 3):
            maps = self.made.attribute(block.images, block.targets, block.generator)
        else:
            maps = self.made.attribute(block.images, block.targets)
        return Explanation(self._checked(maps, block))

    def _checked(self, maps: Any, block: Block) -> Tensor:
        found = torch.as_tensor(maps) if isinstance(maps, (Tensor, np.ndarray)) else None
        came = type(maps).__name__ if found is None else str(list(found.shape))
        if found is None or found.ndim != 3 or len(found) != len(block.images):
            channels = "; of channels, add them up" if found is not None and found.ndim == 4 else ""
            raise UserError(
                f"{self.name} gives {came} for {len(block.images)} images: maps are [{len(block.images)}, h, w], a "
                f"number a patch or a pixel{channels}"
            )
        if found.is_complex():
            raise UserError(f"{self.name} gives complex numbers: maps are real ones")
        check_finite(found, f"the maps of {self.name}", "an explainer has to give finite ones", block.rows)
        return found


def _takes(parameters: Mapping[str, inspect.Parameter], count: int) -> bool:
    kinds = [each.kind for each in parameters.values()]
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return inspect.Parameter.VAR_POSITIONAL in kinds or sum(kind in places for kind in kinds) >= count
