"""What a run leaves behind, as the tests compare it."""

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tests.end_to_end.jobs import Ended

STAGES = ("base", "head", "classifier", "maps", "explainer", "vector", "diagnostics", "curvature", "scores", "logits")

KINDS = ("maps", "scores")

UNDRAWN = ("tables=[]", "claims=[]", "figures=[]", "pictures=0", "gallery=0")
"""What is drawn of the numbers does not change them, and takes longer than they do."""


@dataclass(frozen=True)
class Run:
    """A folder in which a smoke run has ended, and what the job said."""

    folder: Path
    ended: Ended

    @property
    def store(self) -> Path:
        return self.folder / "outputs" / "store"

    @property
    def output(self) -> Path:
        return self.folder / "outputs" / "smoke"


def artifacts(store: Path, *kinds: str) -> list[Path]:
    """Folders of the whole artifacts of these kinds, of all kinds where none is given."""
    found = (path for kind in kinds or STAGES for path in (store / kind).glob("*"))
    return sorted(path for path in found if "." not in path.name)


def measured(store: Path) -> dict[str, bytes]:
    """The bytes of all maps and scores, by their keys."""
    return {path.name: (path / f"{kind}.safetensors").read_bytes() for kind in KINDS for path in artifacts(store, kind)}


def check_undrawn(store: Path, whole: Path) -> None:
    """What a run left that drew nothing is what one left that did, but for the maps of the pictures it drew."""
    assert measured(store).items() <= measured(whole).items()
    assert [path.name for path in artifacts(store, "scores")] == [path.name for path in artifacts(whole, "scores")]


def times(store: Path) -> dict[str, int]:
    """When each file of the store was last written, in nanoseconds; locks are left out."""
    files = (path for path in store.rglob("*") if path.is_file() and ".locks" not in path.parts)
    return {str(path.relative_to(store)): path.stat().st_mtime_ns for path in files}


def link_store(source: Path, folder: Path, kinds: Collection[str] = STAGES) -> Path:
    """Give a folder its own store with these kinds of artifacts of another one, as hard links; returns it."""
    store = folder / "outputs" / "store"
    for kind in kinds:
        shutil.copytree(source / kind, store / kind, copy_function=os.link)
    return store
