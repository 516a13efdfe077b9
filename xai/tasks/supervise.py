"""`task=supervise`: the attributions of a whole split, made by any number of processes, as files to hold."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from xai.classifiers.clip import clip_of_file
from xai.core.common import Common
from xai.core.entries import canonical
from xai.core.errors import UserError
from xai.core.files import write_atomically
from xai.core.folders import final_folder, shown
from xai.core.runtime import Runtime, open_runtime, provenance, say_end, say_heading
from xai.core.settings import Count, settings
from xai.data.catalogue import OpenData, check_side, open_data
from xai.data.registry import Split, subset
from xai.explainers.registry import Row
from xai.explainers.rows import load_row, of_photographs, warn_of_grey
from xai.models.spec import square_of
from xai.models.weights import write_weights
from xai.papers.vectors import base as base_stage
from xai.papers.vectors.base import ModelParams
from xai.papers.vectors.fine_tuning import Domain
from xai.papers.vectors.transfer import TransferParams
from xai.study.case import Case, CaseParams, ExplainedModel
from xai.study.maps import Maps, explain, key
from xai.tasks.registry import Task

FILE, ABOUT = "supervision.safetensors", "supervision.json"
REVISION = 4
"""Raised when the same settings give other numbers, so that what older code made is not taken for them."""

_WAY = f"choose another name=... or remove {ABOUT} there"


@settings
class SuperviseSettings(Common):
    """Settings of task=supervise.

    Args:
        model: The CLIP that is explained.
        data: The data set.
        supervision: The row that explains.
        explainers: By row, settings that replace those of its file.
        transfer: How its classifier is fine-tuned, where there is no checkpoint.
        checkpoint: A classifier file of this framework; null takes the classifier that study=vectors fine-tunes on the
            data set, from the store or made.
        split: Which split.
        images: Size of a random subset; null takes all.
        block: Images that are explained together.
    """

    model: ModelParams
    data: Any
    supervision: str
    explainers: dict[str, dict[str, Any]]
    transfer: TransferParams
    checkpoint: str | None
    split: Split
    images: Count | None
    block: Count


def run(asked: SuperviseSettings, output: Path) -> None:
    """Write `supervision.safetensors` and `supervision.json` into a folder, from the store or made.

    Raises:
        UserError: The folder holds attributions made from something else; the checkpoint is broken, of another
            architecture or tells other classes apart; there are fewer images than asked for.
    """
    data = open_data(asked.data, "data")
    row = _row(asked, data)
    if row.entry.info.kind == "classifier":
        raise UserError(f"supervision={row.name} gives no maps: name a row that explains")
    check_side(data, asked.model.image_size, asked.model.name)
    if row.params.of_pixels:
        raise UserError(
            f"explainers.{row.name}.resolution=pixel: maps of patches are wanted here, use resolution=patch"
        )
    runtime = open_runtime(asked, output, small=asked.model.embedded)
    say_heading(f"{data.name} {asked.split}", asked.model.name, row.name, seed=asked.seed)
    images, *grid = Supervise(asked, runtime, data, row).run(output)
    file = shown(output / FILE)
    line = f"safetensors.torch.load_file({str(file)!r})"
    say_end(
        runtime,
        f"[bold]{file}[/] holds {' x '.join(map(str, (images, *grid)))} attributions; to use them:",
        f"{line}  # rows [N] of the split, labels [N], attributions [N, h, w]",
    )


def _row(asked: SuperviseSettings, data: OpenData) -> Row:
    """The row that explains; photographs lose patches as the classifier of a file does it, unless it is said otherwise.

    Without a file the maps are those that study=vectors makes with the row as it is, which warns of them too.
    """
    row = load_row(asked.supervision, asked.explainers, asked="supervision")
    given = asked.explainers.get(asked.supervision, {})
    if square_of(data.spec) is None:
        return row
    if asked.checkpoint is None:
        warn_of_grey(row, given, [data.name])
        return row
    return of_photographs(row, given)


@dataclass
class Supervise:
    """One split of one data set, to be explained into one folder.

    Args:
        asked: Everything that was asked for.
        runtime: Where to work.
        data: The data set.
        row: What explains.
    """

    asked: SuperviseSettings
    runtime: Runtime
    data: OpenData
    row: Row

    def run(self, output: Path) -> tuple[int, ...]:
        """Fill the folder; returns the shape of the attributions."""
        # What can be refused is refused before a classifier is trained for it.
        asked = self.asked
        subset(self.data.source, asked.split, asked.images, asked.seed)
        self._refuse_others(output)
        params = CaseParams(asked.split, asked.images, asked.block)
        case = Case(self.runtime, self._model, self.data, params, asked.seed)
        self._refuse_others(output, key(case, self.row))
        maps = explain(case, self.row)
        # Another run may have taken the folder meanwhile.
        self._refuse_others(output, maps.artifact.key)
        return self._write(output, case, maps)

    @cached_property
    def made_from(self) -> dict[str, Any]:
        """All that determines the attributions, as far as it is known before any work."""
        asked = self.asked
        classifier: dict[str, Any] = {"checkpoint": None}
        if asked.checkpoint is None:
            classifier |= {"fit": asdict(asked.transfer.target_fit), "images": asked.transfer.target_images}
        else:
            classifier["checkpoint"] = self._model.identity["tensors"]
        explainer = {"name": self.row.entry.name, **asdict(self.row.params.for_split(asked.split))}
        return {
            "data": dict(self.data.spec),
            "split": asked.split,
            "images": asked.images,
            "block": asked.block,
            "model": asdict(asked.model),
            "classifier": classifier,
            "explainers": {self.row.name: explainer},
            "seed": asked.seed,
            "precision": self.runtime.trainer.precision,
            "revision": REVISION,
        }

    @cached_property
    def _model(self) -> ExplainedModel:
        if self.asked.checkpoint is not None:
            return clip_of_file(self.runtime, self.asked.model, self.data, Path(self.asked.checkpoint))
        model, seed, transfer = self.asked.model, self.asked.seed, self.asked.transfer
        base = base_stage.load(model, base_stage.base_weights(self.runtime, model, seed))
        domain = Domain(self.runtime, model, base, self.data)
        return domain.explained(domain.fine_tune(transfer.target_fit, seed, images=transfer.target_images))

    def _refuse_others(self, output: Path, key: str | None = None) -> None:
        """Refuse a folder that holds attributions made from something else, or of another key."""
        held = _read_about(final_folder(output))
        if held is None:
            return
        before, now = _flat(held["made_from"]), _flat(self.made_from)
        differing = [name for name in {**now, **before} if before.get(name) != now.get(name)]
        if differing:
            name = differing[0]
            theirs, ours = before.get(name, "nothing"), now.get(name, "nothing")
            others = f" (settings that differ: {len(differing)})" if len(differing) > 1 else ""
            raise UserError(
                f"{shown(output)} holds attributions with {name}={theirs}, this run asks for {ours}{others}: {_WAY}"
            )
        if key not in (None, held["key"]):
            # The settings are the same, so a file that they name has changed: the base weights.
            theirs = f"of another classifier ({held['key']}, this run makes {key})"
            raise UserError(f"{shown(output)} holds attributions {theirs}: {_WAY}")

    def _write(self, output: Path, case: Case, maps: Maps) -> tuple[int, ...]:
        assert maps.attributions is not None
        shape = tuple(maps.attributions.shape)
        about = {
            "made_from": self.made_from,
            "key": maps.artifact.key,
            "classifier": case.model.identity,
            "n_images": shape[0],
            "grid": shape[1:],
            "seconds": maps.artifact.seconds,
            **provenance(),
        }
        tensors = {"rows": case.rows, "labels": case.labels, "attributions": maps.attributions}
        write_weights(output / FILE, tensors, {"xai.supervision": maps.artifact.key})
        write_atomically(output / ABOUT, (json.dumps(about, indent=2, allow_nan=False) + "\n").encode())
        return shape


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


TASK = Task("task=supervise", SuperviseSettings, run)
