"""What lies below the folder of outputs: runs, and the sweeps that some of them belong to."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from xai.core.files import read_text
from xai.core.folders import MARKER, written_in
from xai.core.overrides import apart
from xai.study.frame import NAMES

_LARGEST = 2**22
"""Bytes of a configuration or a list that is read."""
_OWN = ("figures", "jobs", "results", "gallery", "store")
"""Folders of a run, of a sweep or of the store, in which no run lies."""
_DEPTH = 4


@dataclass(frozen=True)
class Run:
    """The folder of a run that has ended, or of a sweep with its runs; named by its place below the outputs."""

    folder: Path
    name: str
    runs: tuple["Run", ...] = field(default=())

    @property
    def is_measured(self) -> bool:
        """Whether it wrote the numbers of a study."""
        return all(is_plain(self.folder / f"{name}.csv") for name in NAMES)

    @property
    def called(self) -> list[str]:
        """What the runs of a sweep are called on its page and below it in the index."""
        return apart([each.name.removeprefix(f"{self.name}/") for each in self.runs])

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """What Hydra composed, as it was recorded; empty where it was not, or is no mapping."""
        return mapping(_read_yaml(self.folder / ".hydra" / "config.yaml"))

    @cached_property
    def made(self) -> Mapping[str, Any]:
        """The command, the commit and the versions that made it, as far as they were recorded."""
        # Of a sweep that task=report has shown again, its own results know what made the runs.
        made = mapping(_read_yaml(self.folder / ".hydra" / "made.yaml"))
        return {**made, **mapping(_read_yaml(self.folder / "results" / "about.yaml"))}

    @property
    def asked(self) -> list[str]:
        """The settings that were typed for it; empty where nobody knows."""
        overrides = _read_yaml(self.folder / ".hydra" / "overrides.yaml")
        return list(map(str, overrides)) if isinstance(overrides, list) else []

    @property
    def command(self) -> str:
        """What was typed; empty where nobody knows."""
        if self.made.get("command"):
            return str(self.made["command"])
        return " ".join(["python run.py", *self.asked]) if self.asked else ""

    @property
    def commit(self) -> str:
        """Of the repository; empty where nobody knows."""
        return str(self.made.get("commit") or "")

    @property
    def what(self) -> str:
        """The study of a run or a sweep, or the task of what is none; of a training its method."""
        config = next((each.config for each in (*self.runs, self) if each.config), {})
        task, method, study = (str(config.get(key) or "") for key in ("task", "method", "study"))
        if task == "train":
            return f"{task} {method}"
        return study if task in ("", "study") else task

    @property
    def ended(self) -> str:
        """When it ended: `2026-11-28 00:40`."""
        at = (self.folder / MARKER).stat().st_mtime if (self.folder / MARKER).is_file() else 0
        return datetime.fromtimestamp(at or self.folder.stat().st_mtime).strftime("%Y-%m-%d %H:%M")

    @property
    def files(self) -> dict[str, int]:
        """Bytes of each file, by its place in the folder; no further down than one folder."""
        paths = [*self.folder.glob("*"), *self.folder.glob("figures/*"), *self.folder.glob(".hydra/*")]
        plain = (path for path in sorted(paths) if is_plain(path) and not path.name.startswith(".xai"))
        return {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in plain}


def find(outputs: Path, without: Path, prefix: str = "") -> list[Run]:
    """Runs and sweeps below a folder, the last one first; only folders that `run_folder` has marked, and no sites."""
    found = sorted(_marked(outputs, outputs, without.absolute(), 0))
    marked = [each for each in found if Run(each, "").config.get("task") != "site"]
    around: dict[Path, list[Path]] = {}
    for folder in marked:
        around.setdefault(folder.parent, []).append(folder)
    listed = []
    for folder in sorted({*marked, *around}):
        if folder == outputs:
            continue
        runs = tuple(Run(each, prefix + _name(each, outputs)) for each in around.get(folder, ()))
        listed.append(Run(folder, prefix + _name(folder, outputs), runs))
    return sorted(listed, key=lambda run: (run.ended, run.name), reverse=True)


def is_plain(path: Path) -> bool:
    """Whether it is a file, and no link to one that lies elsewhere."""
    return path.is_file() and not path.is_symlink()


def _marked(folder: Path, outputs: Path, without: Path, depth: int) -> Iterator[Path]:
    # Of a run that has written something; the mark of one that is at it for the first time names nothing.
    if folder != outputs and is_plain(folder / MARKER) and written_in(folder):
        yield folder
    if depth == _DEPTH:
        return
    for entry in os.scandir(folder):
        left_out = entry.name.startswith(".") or entry.name in _OWN or Path(entry.path).absolute() == without
        if not left_out and entry.is_dir(follow_symlinks=False):
            yield from _marked(Path(entry.path), outputs, without, depth + 1)


def _name(folder: Path, outputs: Path) -> str:
    return folder.relative_to(outputs).as_posix()


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(read_text(path, _LARGEST)) if is_plain(path) else None
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None


def mapping(value: Any) -> Mapping[str, Any]:
    """What a file holds, where it is a mapping; else nothing."""
    return value if isinstance(value, dict) else {}
