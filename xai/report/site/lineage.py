"""What an artifact was made from, read from the manifests of a store; none of its tensors is opened."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from xai.core.entries import FORMAT, KEY, MANIFEST, UNREADABLE, keys_in
from xai.core.files import read_text

_LARGEST = 2**22
"""Bytes; a manifest is a page of text, and what is larger is none."""


@dataclass(frozen=True)
class Made:
    """An artifact, as its manifest has it: bytes of its files by name, keys of what it was made from.

    `created` is in ISO 8601, UTC; `metric` is set where it holds scores.
    """

    kind: str
    key: str
    path: Path
    created: str
    seconds: float
    files: dict[str, int]
    parents: tuple[str, ...]
    metric: str = ""


class Lineage:
    """Artifacts of some stores, by key; what cannot be read is as if it were not there.

    Args:
        stores: Root folders of stores.
    """

    def __init__(self, stores: Iterable[Path]) -> None:
        self._stores = [Path(store) for store in stores]

    def of(self, keys: Iterable[str]) -> dict[str, Made]:
        """These artifacts and all that they were made from, as far as they are there."""
        found: dict[str, Made] = {}
        left = list(dict.fromkeys(keys))
        while left:
            key = left.pop()
            if key in found or (made := self._made(key)) is None:
                continue
            found[key] = made
            left.extend(made.parents)
        return found

    def scores_of(self, maps: str) -> dict[str, str]:
        """By metric the key of the scores that these maps have; the last one made, where there are several."""
        mine = sorted((self._by_maps.get(maps, [])), key=lambda made: made.created)
        return {made.metric: made.key for made in mine}

    @cached_property
    def _folders(self) -> dict[str, Path]:
        """Where each key lies; a store has thousands, of which a page names a few."""
        paths = (path for store in self._stores for path in sorted(store.glob("*/*")))
        return {path.name: path for path in paths if KEY.fullmatch(path.name)}

    @cached_property
    def _by_maps(self) -> dict[str, list[Made]]:
        found: dict[str, list[Made]] = {}
        for key, path in self._folders.items():
            if path.parent.name == "scores" and (made := self._made(key)) is not None:
                for parent in made.parents[:1]:
                    found.setdefault(parent, []).append(made)
        return found

    def _made(self, key: str) -> Made | None:
        folder = self._folders.get(key)
        if folder is None or folder.is_symlink() or (folder / MANIFEST).is_symlink():
            return None
        try:
            told = json.loads(read_text(folder / MANIFEST, _LARGEST))
            if told["format"] != FORMAT or told["key"] != key:
                return None
            spec = told["spec"]
            parents = dict.fromkeys([*_measured_maps(spec), *keys_in(spec)])
            metric = str(spec["metric"]["name"]) if told["kind"] == "scores" else ""
            files = {str(name): int(about["bytes"]) for name, about in told["files"].items()}
            return Made(
                str(told["kind"]), key, folder, str(told["created"]), float(told["seconds"]), files, (*parents,), metric
            )
        except (OSError, *UNREADABLE):
            return None


def _measured_maps(spec: Any) -> list[str]:
    """The key of the maps that scores are of; it comes before those they were compared with."""
    try:
        return [str(spec["maps"]["maps"]["key"])]
    except UNREADABLE:
        return []
