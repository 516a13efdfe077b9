"""`task=explain`: pictures, one class and one heat map each."""

import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from rich.markup import escape
from rich.table import Table

from xai.core.common import Common
from xai.core.entries import UNREADABLE
from xai.core.files import write_atomically
from xai.core.folders import final_folder, put_now, shown
from xai.core.progress import Stopwatch, console
from xai.core.runtime import set_threads
from xai.core.settings import Whole, settings
from xai.data.pictures import check_readable, find_pictures
from xai.explainers.registry import Row
from xai.explainers.rows import budget_of, load_row, of_no_split, of_photographs, removing_as_the_model
from xai.models.families import Geometry
from xai.models.files import read_spec
from xai.models.maskable import Reference
from xai.models.named import NamedParams
from xai.papers.families import AnyModel
from xai.ranking.objective import ObjectiveParams
from xai.ranking.refinement import RefinementParams
from xai.report.figures import to_bytes
from xai.report.pictures import Gallery, sheets
from xai.study.cost import Asked, say_cost
from xai.tasks.picture import (
    PASSES_OF_CURVES,
    Explained,
    Measured,
    Opened,
    PostHocParams,
    explain_picture,
    open_classifier,
)
from xai.tasks.registry import Task

PREDICTIONS = "predictions.json"
"""What is said of each picture, and which files hold its maps."""
_INCHES = 4.4
_A_SHEET, _INCHES_OF_SHEET, _PANELS_ACROSS = 12, 2.2, 6
_QUICK, _PASSES_OF_A_STEP = 100, 100
_FEW = 3
"""Pictures that are refined unless `refine` says otherwise: it takes as long as 500 passes a picture."""
_MANY_REFERENCES: tuple[Reference, ...] = ("mean",)


@settings
class ExplainSettings(Common):
    """Settings of task=explain.

    Args:
        model: The classifier.
        checkpoint: Its file; null takes one as it was published.
        classes: Names of the classes of a classifier that is not of this framework, or a text file with one a line.
        image: A picture, a folder or a glob, or several.
        target: Name of the class that is explained; null takes the predicted one.
        row: The explainer of a classifier that does not explain itself: a file of conf/explainer.
        outside: Whether that explains one which could explain itself, too.
        explainers: By row, settings that replace those of its file.
        refine: T; null refines where there are few pictures.
        areas: References by which maps are measured, of black, mean and blur; null takes those of `objective` for few
            pictures and mean for more.
        refinement: How its map is refined.
        objective: What that improves, and by which references maps are measured.
    """

    model: AnyModel
    checkpoint: str | None
    classes: str | tuple[str, ...] | None
    image: str | tuple[str, ...]
    target: str | int | float | bool | None
    row: str
    outside: bool
    explainers: dict[str, dict[str, Any]]
    refine: Whole | None
    areas: tuple[Reference, ...] | None
    refinement: RefinementParams
    objective: ObjectiveParams


def _settle(values: dict[str, Any], typed: Sequence[str]) -> dict[str, Any]:
    """Whoever names an explainer wants it, also for a classifier that explains itself."""
    named = bool({"explainer", "row"} & set(typed))
    return {**values, "outside": named if values["outside"] is None else values["outside"]}


def run(asked: ExplainSettings, output: Path) -> None:
    """Explain each picture, and write its heat map, the map itself and what was predicted."""
    watch = Stopwatch()
    set_threads(asked.trainer, small=asked.model.embedded and not isinstance(asked.model, NamedParams))
    pictures = find_pictures(asked.image, "image")
    check_readable(pictures)
    steps = asked.refine
    if steps is None:
        steps = asked.refinement.steps if len(pictures) <= _FEW else 0
    row = _row(asked)
    references = asked.areas
    if references is None:
        references = asked.objective.references if len(pictures) <= _FEW else _MANY_REFERENCES
    how = PostHocParams(
        row, asked.objective, replace(asked.refinement, steps=steps), asked.seed, tuple(references), asked.outside
    )
    checkpoint = None if asked.checkpoint is None else Path(asked.checkpoint)
    target = None if asked.target is None else str(asked.target)
    watch.lap("start")
    opened = open_classifier(asked.model, checkpoint, asked.trainer, how, asked.classes)
    watch.lap("opening the classifier")
    if opened.classifier is None and (unheeded := [name for name in ("refine", "areas") if getattr(asked, name)]):
        console.print(f"{' and '.join(unheeded)}: nothing changes, for this classifier explains itself")
    elif opened.classifier is not None and asked.refine is None and steps < asked.refinement.steps:
        console.print(f"{len(pictures)} pictures: their maps are not refined (refine={asked.refinement.steps} does)")
    _say_cost(opened, how, len(pictures), asked.model, asked.trainer.device)
    name = opened.name or "own"
    said = _said(row) if opened.name == row.name else {}
    classifier = asked.model.name if checkpoint is None else str(checkpoint.resolve())
    writer = Writer(output, name, said, references, pictures, classifier)
    try:
        for picture in pictures:
            writer.add(picture, explain_picture(opened, picture, target, asked.trainer, how, watch))
            watch.lap("drawing and writing")
    except BaseException as end:
        writer.leave()
        end.add_note("the same command begins with the first picture again")
        raise
    writer.end()
    watch.lap("drawing and writing")
    watch.tell()
    if not opened.explains:
        console.print(
            "this classifier has not learned to explain itself: give it a vector first (task=apply_vector), or name an "
            "explainer (explainer=rise)"
        )


def _say_cost(opened: Opened, how: PostHocParams, pictures: int, model: Geometry, device: torch.device) -> None:
    """What is to come of maps and areas, where an explainer from outside makes them."""
    passes, classifier = how.row.entry.info.passes, opened.classifier
    if classifier is None or opened.name != how.row.name or passes is None:
        return
    asked = [Asked(how.row.name, passes(how.row.params.for_split("test"), classifier.players), pictures)]
    if how.references:
        maps = 2 if how.refinement.steps else 1
        asked.append(Asked("areas", float(maps * len(how.references) * PASSES_OF_CURVES), pictures))
    if how.refinement.steps:
        asked.append(Asked("refining", float(_PASSES_OF_A_STEP * how.refinement.steps), pictures))
    blank = torch.full((1, 3, model.image_size, model.image_size), 0.5, device=device)
    setting, number = budget_of(how.row)
    less = f"explainers.{how.row.name}.{setting}={_QUICK} asks less"
    say_cost(asked, opened.logits, blank, less if number > _QUICK else "")


def _row(asked: ExplainSettings) -> Row:
    """The explainer; of a classifier of photographs patches are removed as it does it, unless it is said otherwise."""
    given = asked.explainers.get(asked.row, {})
    row = of_no_split(load_row(asked.row, asked.explainers), given)
    # Without a file it is a published one of photographs, which the grey of the scattered sets has nothing to do with.
    if isinstance(asked.model, NamedParams) or asked.checkpoint is None:
        return removing_as_the_model(row, given)
    spec = read_spec(Path(asked.checkpoint), asked.model)
    return row if spec is None or spec.square is None else of_photographs(row, given)


def _said(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(asdict(row.params), default=str))
    return found


class Writer:
    """Writes what is said of pictures, and tells it: each as it comes, a sheet of some of them, the list at the end.

    Args:
        output: The folder of the run.
        explainer: Name of what explains.
        settings: Of it.
        references: By which maps are measured.
        pictures: All that will come.
        classifier: Its file, or its name where it has none: runs of several classifiers may share the folder.
    """

    def __init__(
        self,
        output: Path,
        explainer: str,
        settings: Mapping[str, Any],
        references: Sequence[str],
        pictures: Sequence[Path],
        classifier: str = "",
    ) -> None:
        self._classifier = classifier
        self._output, self._explainer, self._settings, self._references = output, explainer, settings, list(references)
        self._final = final_folder(output)
        self._before = _read(self._final / PREDICTIONS)
        self._stems = stems(pictures, {line["picture"]: line["stem"] for line in self._before})
        self._lines: list[dict[str, Any]] = []
        self._on_sheet: list[Explained] = []  # the others are not held: a folder may have more than memory
        self._sheets: list[str] = []
        self._measured: list[list[Measured]] = []
        self._replaced = 0

    def add(self, picture: Path, found: Explained) -> None:
        """Write the files of a picture."""
        place = str(picture.resolve())
        stem = self._stems[place]
        name = self._name(stem, found.target)
        maps, files = _maps(found), {"heat_map": f"{name}.png"}
        self._write(f"{name}.png", to_bytes(sheets(_gallery([found], []), inches=_INCHES)[0]))
        for kind, values in zip(("map", "refined"), maps.values(), strict=False):
            files[kind] = f"{name}.npy" if kind == "map" else f"{name}.{kind}.npy"
            self._replaced += (self._final / files[kind]).exists()
            # By way of memory, because NumPy does not say that a disk is full.
            whole = io.BytesIO()
            np.save(whole, values.numpy(), allow_pickle=False)
            self._write(files[kind], whole.getvalue())
        areas = {
            kind: {"deletion": each.deletion, "insertion": each.insertion, "seconds": round(each.seconds, 2)}
            for kind, each in zip(("map", "refined"), found.measured, strict=False)
        }
        said = {"predicted": found.predicted, "explained": found.target, "probability": found.probability}
        how = {"explainer": self._explainer, "settings": self._settings, "refined": list(maps)[1:]}
        top = [list(each) for each in found.top]
        by = {"references": self._references} if areas else {}
        of = {"picture": place, "stem": stem, "classifier": self._classifier}
        line = {**of, **said, "top": top, **how, "areas": areas, **by, "files": files}
        self._lines.append(line)
        self._measured.append([replace(each, attributions=torch.empty(0)) for each in found.measured])
        self._on_sheet.append(found)
        if len(self._on_sheet) == _A_SHEET:
            self._draw_sheet()
        words = f"predicted: {found.predicted}; explained: {found.target} (probability {found.probability:.3f})"
        console.print(escape(f"{picture.name}: {words}"), highlight=False, soft_wrap=True)

    def end(self) -> None:
        """Write the last sheet and the list of all pictures, and say where they are."""
        self._draw_sheet()
        kept = self._write_list()
        if any(self._measured):
            console.print(_table(self._measured, self._references))
        counts = {"of the same name replaced": self._replaced, "of earlier runs kept": kept}
        if told := [f"{count} map{'s' * (count != 1)} {what}" for what, count in counts.items() if count]:
            console.print(f"{'; '.join(told)} (name=... writes to another folder)")
        for name in self._sheets or [line["files"]["heat_map"] for line in self._lines]:
            console.print(f"heat map: [bold]{shown(self._output / name)}[/]", highlight=False, soft_wrap=True)
        console.print(f"maps and predictions: [bold]{shown(self._output)}[/]", highlight=False, soft_wrap=True)

    def leave(self) -> None:
        """Of a run that ends early, leave what is said of the pictures that are done, and nothing else."""
        if not self._lines or self._final == self._output:
            return
        done = {name for line in self._lines for name in line["files"].values()}
        for path in [*self._output.glob("*.png"), *self._output.glob("*.npy")]:
            if path.name not in done:
                path.unlink()
        self._write_list()
        put_now(self._output)
        count = f"{len(self._lines)} of {len(self._stems)} pictures are done, their maps stay"
        console.print(f"{count}: [bold]{shown(self._final)}[/]", highlight=False, soft_wrap=True)

    def _draw_sheet(self) -> None:
        """Write a sheet of the pictures since the last one; none of a picture that comes alone."""
        found, names = self._on_sheet, [line["stem"] for line in self._lines[-len(self._on_sheet) :]]
        if found and len(self._stems) > 1:
            drawn = _gallery(found, names)
            self._sheets.append(f"sheet_{len(self._sheets) + 1}.{_short(self._explainer, 40)}.png")
            beside = max(1, _PANELS_ACROSS // (1 + len(drawn.maps)))
            self._write(self._sheets[-1], to_bytes(sheets(drawn, inches=_INCHES_OF_SHEET, beside=beside)[0]))
        self._on_sheet = []

    def _write_list(self) -> int:
        """Write what is said of all pictures, those of earlier runs first; returns how many maps these have."""
        ours = {line["files"]["heat_map"] for line in self._lines}
        # Read once more: another run may have ended meanwhile.
        kept = [line for line in _read(self._final / PREDICTIONS) if line["files"]["heat_map"] not in ours]
        text = json.dumps([*kept, *self._lines], indent=1, ensure_ascii=False) + "\n"
        # A file's name may have bytes that are no text; they are told as JSON has them.
        self._write(PREDICTIONS, text.encode(errors="backslashreplace"))
        return len(kept)

    def _name(self, stem: str, target: str) -> str:
        """How the files of a map are called, with a number of its own where another class is called so."""
        name, own = f"{stem}.{_short(self._explainer, 40)}.{_short(target, 60)}", (self._explainer, target)
        of = {line["files"]["heat_map"]: (line.get("explainer"), line.get("explained")) for line in self._before}
        taken = any(heat_map.lower() == f"{name}.png".lower() and each != own for heat_map, each in of.items())
        return f"{name}-{hashlib.sha256(repr(own).encode()).hexdigest()[:10]}" if taken else name

    def _write(self, name: str, content: bytes) -> None:
        write_atomically(self._output / name, content)


def stems(pictures: Sequence[Path], earlier: Mapping[str, str]) -> dict[str, str]:
    """How the names of the files of each picture begin, by its place; no two alike.

    A picture is called as its file without the suffix; where that is another's too, with the folder before it, with the
    suffix, with both, and at last with a number of its own.
    """
    places = [picture.resolve() for picture in pictures]
    ways = [
        [_short(each.stem, 90) for each in places],
        [_short(f"{each.parent.name}_{each.stem}", 90) for each in places],
        [_short(each.name, 90) for each in places],
        [_short(f"{each.parent.name}_{each.name}", 90) for each in places],
        [f"{_short(each.stem, 70)}-{hashlib.sha256(os.fsencode(each)).hexdigest()[:10]}" for each in places],
    ]
    # Some file systems do not tell upper from lower case.
    counts = [Counter(name.lower() for name in names) for names in ways]
    taken = {name.lower(): place for place, name in earlier.items()}
    found = {}
    for place, *names in zip(map(str, places), *ways, strict=True):
        free = (
            name
            for name, count in zip(names, counts, strict=True)
            if count[name.lower()] == 1 and taken.get(name.lower(), place) == place
        )
        found[place] = earlier.get(place) or next(free)
        taken[found[place].lower()] = place
    return found


def _short(text: str, most: int) -> str:
    """A text as a part of a file's name, of so many bytes at most."""
    return re.sub(r"[^\w.+-]+", "_", text).strip("._-").encode()[:most].decode(errors="ignore") or "_"


def _read(path: Path) -> list[dict[str, Any]]:
    """What earlier runs said; nothing where there is none, or somebody has edited it."""
    try:
        return [line for line in json.loads(path.read_text(encoding="utf-8")) if _is_ours(line)]
    except (OSError, *UNREADABLE):
        return []


def _is_ours(line: Any) -> bool:
    place, *names = (line["picture"], line["stem"], line["files"]["heat_map"])
    return all(isinstance(each, str) and each for each in (place, *names)) and all(n == Path(n).name for n in names)


def _maps(found: Explained) -> dict[str, torch.Tensor]:
    """By name the map that was asked for, and the refined one where there is one."""
    return {each.name: each.attributions for each in found.measured} or {"its own": found.attributions}


def _gallery(found: Sequence[Explained], names: Sequence[str]) -> Gallery:
    """Pictures with their maps beside them, and below the first of these what the pictures are called."""
    listed = [_maps(each) for each in found]
    explained, predicted = [each.target for each in found], [each.predicted for each in found]
    # Below the picture stands what is predicted; that the maps are of another class, above them.
    of = f", for {explained[0]}" if explained != predicted else ""
    maps = {f"{name}{of}": torch.stack([each[name] for each in listed]) for name in listed[0]}
    notes = {next(iter(maps)): names} if names else {}
    return Gallery(torch.stack([each.pixels for each in found]), maps, explained, predicted=predicted, notes=notes)


def _table(measured: Sequence[Sequence[Measured]], references: Sequence[str]) -> Table:
    """Areas under the curves of the class's probability, means over the pictures, a row a map; and what a map took."""
    areas = ("deletion ↓", "insertion ↑") if references else ()
    table = Table("map", *areas, "seconds", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for rows in zip(*measured, strict=True):
        pairs = ([row.deletion for row in rows], [row.insertion for row in rows]) if references else ()
        means = (f"{mean(value for value in values if value is not None):.3f}" for values in pairs)
        table.add_row(escape(rows[0].name), *means, f"{mean(row.seconds for row in rows):.1f}")
    return table


TASK = Task("task=explain", ExplainSettings, run, adds=True, settle=_settle)
