"""`task=supervise`: the attributions of a whole split, made by any number of processes, as files to hold."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from xai.core.canonical import canonical
from xai.core.errors import UserError
from xai.core.files import write_atomically
from xai.core.runtime import Runtime
from xai.core.store import Artifact
from xai.data.catalogue import OpenData
from xai.data.registry import Split, subset
from xai.models.checkpoint import read_classifier
from xai.models.maskable import MaskableClassifier, Removal
from xai.models.weights import fingerprint, read_weights
from xai.papers.vectors import base as base_stage
from xai.papers.vectors.base import ModelParams
from xai.papers.vectors.fine_tuning import fine_tune
from xai.papers.vectors.params import TransferParams
from xai.stages.evaluation import provenance
from xai.stages.supervision import FILE, REVISION, Order, Subject, SupervisionParams, fine_tuned, load
from xai.tasks.apply_vector import check_classes

ABOUT = "supervision.json"
_SHAPING = ("architecture", "towers", "image_size", "patch_size", "mean", "std")
_WAY = f"choose another name=... or remove {ABOUT} there"


@dataclass(frozen=True)
class Written:
    """What lies in the folder of the run: the attributions, how many, and their size down and across."""

    file: Path
    images: int
    grid: tuple[int, int]


@dataclass
class Supervise:
    """One split of one data set, to be explained into one folder.

    Args:
        runtime: Where to work.
        model: The model.
        data: The data set.
        split: Which split.
        params: The explainer.
        seed: Seed of the run.
        images: Size of a random subset; None explains all.
        checkpoint: A classifier file of this framework; None takes the classifier that `method=transfer` fine-tunes on
            the data set, from the store or made.
        transfer: How that one is fine-tuned.
    """

    runtime: Runtime
    model: ModelParams
    data: OpenData
    split: Split
    params: SupervisionParams
    seed: int
    images: int | None
    checkpoint: Path | None
    transfer: TransferParams

    def __post_init__(self) -> None:
        """Take the settings of the split."""
        self.params = self.params.of(self.split)

    def run(self, output: Path) -> Written:
        """Write `supervision.safetensors` and `supervision.json` into a folder, from the store or made.

        Raises:
            UserError: The folder holds attributions made from something else; the checkpoint is broken, of another
                architecture or tells other classes apart; there are fewer images than asked for.
        """
        # What can be refused is refused before a classifier is trained for it.
        subset(self.data.source, self.split, self.images, self.seed)
        self._refuse_others(output)
        order = Order(self.runtime, self._subject, self.data, self.split, self.params, self.seed, self.images)
        self._refuse_others(output, order.key)
        artifact = order.fill()
        # Another run may have taken the folder meanwhile.
        self._refuse_others(output, artifact.key)
        return self._write(output, artifact)

    @cached_property
    def made_from(self) -> dict[str, Any]:
        """All that determines the attributions, as far as it is known before any work."""
        classifier: dict[str, Any] = {"checkpoint": None if self.checkpoint is None else self._file[1]}
        if self.checkpoint is None:
            classifier |= {"fit": asdict(self.transfer.target_fit), "images": self.transfer.target_images}
        return {
            "data": dict(self.data.spec),
            "split": self.split,
            "images": self.images,
            "model": asdict(self.model),
            "classifier": classifier,
            "supervision": self.params.flat(),
            "seed": self.seed,
            "precision": self.runtime.trainer.precision,
            "revision": REVISION,
        }

    @cached_property
    def _subject(self) -> Subject:
        if self.checkpoint is not None:
            return self._file[0]
        base = base_stage.load(self.model, base_stage.base_weights(self.runtime, self.model, self.seed))
        fit, images = self.transfer.target_fit, self.transfer.target_images
        classifier = fine_tune(self.runtime, self.model, base, self.data, fit, self.seed, images=images)
        return fine_tuned(self.runtime, self.model, base, self.data, classifier)

    @cached_property
    def _file(self) -> tuple[Subject, str]:
        """The classifier of a file, and the fingerprint of its tensors."""
        path = self.checkpoint
        assert path is not None
        _, info = read_classifier(path, self.model)
        check_classes(path, info, self.data)
        tensors = fingerprint(read_weights(path, what="checkpoint").tensors)

        def assemble(removal: Removal | None) -> MaskableClassifier:
            return read_classifier(path, self.model, removal)[0].to(self.runtime.trainer.device)

        # Tensors do not say how pixels are normalised and heads are split; the settings of the model do.
        settings = asdict(self.model)
        identity = {"tensors": tensors, **{name: settings[name] for name in _SHAPING}}
        return Subject(identity, self.model.image_size, assemble), tensors

    def _refuse_others(self, output: Path, key: str | None = None) -> None:
        """Refuse a folder that holds attributions made from something else, or of another key."""
        held = _read_about(output)
        if held is None:
            return
        before, now = _flat(held["made_from"]), _flat(self.made_from)
        differing = [name for name in {**now, **before} if before.get(name) != now.get(name)]
        if differing:
            name = differing[0]
            theirs, ours = before.get(name, "nothing"), now.get(name, "nothing")
            others = f" (settings that differ: {len(differing)})" if len(differing) > 1 else ""
            raise UserError(
                f"{os.path.relpath(output)} holds attributions with {name}={theirs}, this run asks for {ours}{others}: "
                f"{_WAY}"
            )
        if key not in (None, held["key"]):
            # The settings are the same, so a file that they name has changed: the base weights.
            theirs = f"of another classifier ({held['key']}, this run makes {key})"
            raise UserError(f"{os.path.relpath(output)} holds attributions {theirs}: {_WAY}")

    def _write(self, output: Path, artifact: Artifact) -> Written:
        supervision = load(artifact)
        images, *grid = supervision.attributions.shape
        about = {
            "made_from": self.made_from,
            "key": artifact.key,
            "classifier": artifact.spec["classifier"],
            "n_images": images,
            "grid": grid,
            "seconds": artifact.seconds,
            **provenance(),
        }
        write_atomically(output / FILE, lambda path: shutil.copyfile(artifact.file(FILE), path))
        write_atomically(output / ABOUT, (json.dumps(about, indent=2, allow_nan=False) + "\n").encode())
        return Written(output / FILE, images, (grid[0], grid[1]))


def _read_about(output: Path) -> dict[str, Any] | None:
    """What a folder says of the attributions it holds; None where it holds none."""
    path = output / ABOUT
    if not path.exists():
        return None
    try:
        about = json.loads(path.read_bytes())
        return {"made_from": dict(about["made_from"]), "key": str(about["key"])}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UserError(f"{path} does not say what the attributions beside it were made from: {_WAY}") from None


def _flat(settings: Mapping[str, Any], where: str = "") -> dict[str, str]:
    """Dotted names of all settings, with their values as JSON."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        found |= _flat(value, f"{where}{name}.") if isinstance(value, Mapping) else {f"{where}{name}": canonical(value)}
    return found
