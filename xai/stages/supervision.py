"""Explanation supervision ("+X"): the attributions of a split, by any registered explainer."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.core.files import explain_disk_errors
from xai.core.progress import bar
from xai.core.runtime import Runtime
from xai.core.settings import Count, build, settings, unknown
from xai.core.shards import Shards
from xai.core.store import PROMISE, SCRATCH, Artifact
from xai.data.catalogue import OpenData
from xai.data.module import load_images
from xai.data.registry import subset
from xai.explainers import registry
from xai.explainers.registry import ExplainerParams
from xai.models.maskable import MaskableClassifier, Removal
from xai.models.weights import read_weights, write_weights
from xai.papers.vectors.base import Base, ModelParams
from xai.papers.vectors.fine_tuning import assemble, parameters

FILE = "supervision.safetensors"
REVISION = 3
"""Raised when the same settings give other numbers, so that what older code made is not taken for them."""

_KEY = "xai.supervision"
_MOST_ROWS_NAMED = 5


@settings
class _Named:
    name: str
    block: Count


@settings
class SupervisionParams(_Named):
    """How explanation supervision is computed.

    Args:
        name: A registered explainer.
        block: Images that are explained together: they share one design of coalitions. Also what a kill can cost.
        explainer: The explainer's own settings.
    """

    explainer: ExplainerParams

    def of(self, split: str, coalitions: int | None = None) -> "SupervisionParams":
        """The settings for images of a split; `coalitions` replaces P where the explainer has one."""
        explainer = self.explainer.for_split(split)
        if coalitions is not None and any(field.name == "coalitions" for field in fields(explainer)):
            explainer = replace(explainer, coalitions=coalitions)  # type: ignore[call-arg]
        return replace(self, explainer=explainer)

    def flat(self) -> dict[str, Any]:
        """As the configuration has it: the explainer's settings beside name and block."""
        return {"name": self.name, "block": self.block, **asdict(self.explainer)}


def open_supervision(
    settings: Mapping[str, Any], where: str = "supervision", pixels: bool = False
) -> SupervisionParams:
    """Read the settings of an explainer.

    Args:
        settings: `name` of the explainer, `block`, and the parameters of that explainer.
        where: The name of the configuration group, for messages.
        pixels: Whether maps of pixels will do; what is learned from or measured with patches is on the patch grid.

    Raises:
        UserError: For an unknown name or a wrong parameter, or maps of pixels where patches are wanted.
    """
    name = settings.get("name")
    if not isinstance(name, str):
        raise UserError(f"{where}.name is not set: choose from {', '.join(registry.names())}")
    if name not in registry.names():
        raise UserError(unknown(f"{where}={name}", name, registry.names(), "explainer", "choose from"))
    named = build(_Named, {key: value for key, value in settings.items() if key in ("name", "block")}, where)
    own = {key: value for key, value in settings.items() if key not in ("name", "block")}
    schema = registry.entry(name).params
    known = {"name", "block", *(field.name for field in fields(schema))}
    for key in settings:
        if key not in known:
            raise UserError(unknown(f"{where}.{key}", key, known) + f" with {where}={name}")
    explainer = build(schema, own, where)
    if explainer.of_pixels and not pixels:
        raise UserError(f"{where}.resolution=pixel: maps of patches are wanted here, use {where}.resolution=patch")
    return SupervisionParams(named.name, named.block, explainer)


@dataclass(frozen=True)
class Subject:
    """The classifier that is explained.

    Args:
        identity: What tells it from all others.
        image_size: Side of its images in pixels.
        assemble: Makes it, on its device and in evaluation mode, with a way to remove patches.
    """

    identity: Any
    image_size: int
    assemble: Callable[[Removal | None], MaskableClassifier]


def fine_tuned(runtime: Runtime, model: ModelParams, base: Base, data: OpenData, classifier: Artifact) -> Subject:
    """A classifier of the store, fine-tuned on a data set."""

    def network(removal: Removal | None) -> MaskableClassifier:
        return assemble(runtime, model, base, data, parameters(classifier), removal)

    return Subject(classifier.key, model.image_size, network)


@dataclass(frozen=True)
class Order:
    """Attributions of the true class of every image of a split (section 6.1), to be made or found.

    Args:
        runtime: Where to work.
        subject: The classifier.
        data: The data set.
        split: Which split.
        params: The explainer, with its settings for this split.
        seed: Of all that is drawn, and of the subset.
        images: Size of the subset; None explains all.
    """

    runtime: Runtime
    subject: Subject
    data: OpenData
    split: str
    params: SupervisionParams
    seed: int
    images: int | None = None

    @property
    def key(self) -> str:
        """The key of the artifact."""
        return self.runtime.store.key("supervision", self._spec)

    @property
    def title(self) -> str:
        """What progress bars and logs call it."""
        return f"{self.params.name} of {self.data.name} {self.split}"

    def fill(self) -> Artifact:
        """Make the attributions together with every other process that fills the same order, or find them.

        The images are cut into blocks, which processes share as `xai.core.shards` says. Every block draws from a
        generator
        of its own, so the bytes depend neither on who computed what nor on who was killed when. The artifact's seconds
        are those that its blocks took, in all processes together.

        Returns:
            An artifact with `supervision.safetensors`: `rows` [N], `labels` [N], `attributions` [N, h, w].

        Raises:
            UserError: The split has fewer images than asked for, or attributions are not finite.
        """
        rows = subset(self.data.source, self.split, self.images, self.seed)
        labels = self.data.source.labels(self.split)[rows]
        blocks = list(torch.arange(len(rows)).split(self.params.block))
        explain = self._explaining(rows, labels, blocks)

        def shards(folder: Path) -> Shards:
            return Shards(folder, self.key, [rows[block] for block in blocks])

        def merge(workdir: Path) -> float:
            (workdir / SCRATCH).mkdir(exist_ok=True)
            together = shards(workdir / SCRATCH)
            together.fill(explain, lambda _: None)
            maps, seconds = together.collect()
            # One entry, because safetensors writes several in an order that changes from run to run.
            about = {_KEY: json.dumps({"data": self.data.name, "split": self.split, "key": self.key})}
            write_weights(workdir / FILE, {"rows": rows, "labels": labels, **maps}, about)
            return seconds

        scratch = self.runtime.store.scratch("supervision", self._spec)
        if scratch is not None:
            with explain_disk_errors(self.runtime.store.root, PROMISE), bar(self.title, len(rows), "images") as advance:
                shards(scratch).fill(explain, advance)
        return self.runtime.store.get("supervision", self._spec, merge, title=self.title)

    @property
    def _spec(self) -> dict[str, Any]:
        return self.runtime.with_precision(
            {
                "classifier": self.subject.identity,
                "data": self.data.spec,
                "split": self.split,
                "images": self.images,
                "seed": self.seed,
                "explainer": self.params.flat(),
                "revision": REVISION,
            }
        )

    def _explaining(self, rows: Tensor, labels: Tensor, blocks: list[Tensor]) -> Callable[[int], dict[str, Tensor]]:
        """What computes a block from its number; the classifier is assembled for the first one."""
        entry, trainer = registry.entry(self.params.name), self.runtime.trainer
        network = cache(lambda: self.subject.assemble(self.params.explainer.classifier_removal))

        def explain(number: int) -> dict[str, Tensor]:
            block = blocks[number]
            size, threads = self.subject.image_size, trainer.workers
            pixels = load_images(self.data.source, self.split, rows[block], 0, size, threads).pixels
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            explainer = entry.build(network(), self.params.explainer)
            with trainer.autocast():
                maps = explainer.attribute(pixels.to(trainer.device), labels[block].to(trainer.device), generator)
            maps = maps.detach().float().cpu()
            if maps.shape != (len(block), *network().grid):
                raise ValueError(
                    f"{self.params.name} gave {list(maps.shape)} for {len(block)} images, {network().grid}"
                )
            self._check_finite(maps, rows[block])
            return {"attributions": maps}

        return explain

    def _check_finite(self, maps: Tensor, rows: Tensor) -> None:
        bad = rows[~maps.isfinite().flatten(1).all(1)].tolist()
        if bad:
            named = ", ".join(map(str, bad[:_MOST_ROWS_NAMED])) + (", ..." if len(bad) > _MOST_ROWS_NAMED else "")
            raise UserError(
                f"{self.params.name} gives NaN or infinite attributions for {len(bad)} images of {self.data.name} "
                f"{self.split} (rows {named}): give a classifier with finite outputs, or use trainer.precision=32-true"
            )


@dataclass(frozen=True)
class Supervision:
    """Supervision that has been loaded: `rows` [N] of the split, `labels` [N], `attributions` [N, h, w]."""

    rows: Tensor
    labels: Tensor
    attributions: Tensor


def load(artifact: Artifact) -> Supervision:
    """Load supervision."""
    tensors = read_weights(artifact.file(FILE), what="supervision").tensors
    return Supervision(tensors["rows"], tensors["labels"], tensors["attributions"])
