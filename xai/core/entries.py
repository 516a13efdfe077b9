"""An entry of the store: what its key is made of, and how it lies on the disk, whole and intact or not."""

import json
import logging
import math
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xai.core.errors import UserError
from xai.core.files import fingerprint_file, read_text


def canonical(spec: Any) -> str:
    """One JSON text for each meaning of `spec`: keys sorted, tuples as lists, paths as strings, 1.0 as 1.

    Raises TypeError, naming the place, for NaN, infinity, keys that are not strings, and sets, tensors and the like.
    """
    return json.dumps(_plain(spec, ""), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any, where: str) -> Any:
    """`value` as JSON types only; `where` is the dotted path to it, for the TypeError."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str | os.PathLike):
        return str(value)
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return int(value) if value == int(value) else float(value)
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{where or 'spec'}: key {odd[0]!r} is not a string")
        return {str(key): _plain(item, f"{where}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    shown = value if isinstance(value, float) else type(value).__name__
    raise TypeError(f"{where or 'spec'}: {shown} is not JSON; use numbers, strings, lists and dicts")


log = logging.getLogger(__name__)

MANIFEST = "artifact.json"
FORMAT = 1
KEY = re.compile(r"[0-9a-f]{20}")
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)
"""What becomes of JSON that is not what was written."""
# (size, ctime in ns, inode) of the manifest and of each file when their hashes were last checked, by directory.
_Stamp = tuple[int, int, int]
verified: dict[Path, dict[str, _Stamp]] = {}


@dataclass(frozen=True)
class Artifact:
    """A whole artifact in the store.

    `seconds` counts interrupted tries up to the last thing each of them wrote; where processes shared the work, it is
    the sum of what each of them worked for what was kept.
    """

    kind: str
    key: str
    path: Path
    spec: Mapping[str, Any]
    seconds: float

    def file(self, name: str) -> Path:
        """Path of the file `name` of this artifact; UserError when there is none, or it is not what was checked."""
        path = self.path / name
        if path.is_file() and self.path in verified and not _is_whole(self.path):
            raise UserError(f"{path} has changed since it was checked: give the same command again")
        if not path.is_file():
            raise UserError(f"{self.path} has no file {name}; it has {', '.join(files_in(self.path)) or 'none'}")
        return path


@dataclass(frozen=True)
class Wanted:
    """What is asked for: a kind, the canonical text of its spec, and the key and places that follow from the two."""

    kind: str
    text: str
    key: str
    final: Path
    workdir: Path


class DamageError(Exception):
    """A directory is there but is not the intact artifact it should be; the message says why."""


def keys_in(spec: Any) -> list[str]:
    """Keys of the artifacts that a spec names, each once: whatever reads like one."""
    if isinstance(spec, Mapping | list | tuple):
        parts = spec.values() if isinstance(spec, Mapping) else spec
        return list(dict.fromkeys(key for part in parts for key in keys_in(part)))
    return [spec] if isinstance(spec, str) and KEY.fullmatch(spec) else []


def intact(wanted: Wanted, path: Path) -> Artifact | None:
    """The artifact at `path`; None when there is none that is whole."""
    try:
        return open_entry(wanted, path)
    except DamageError:
        return None


def put_aside(wanted: Wanted, path: Path) -> Path:
    """Give what stands at `path` a name under which nobody looks for it; returns that."""
    number = 1
    while os.path.lexists(aside := wanted.final.with_name(f"{wanted.key}.damaged-{number}")):
        number += 1
    os.rename(path, aside)
    return aside


def forget_removed() -> list[Path]:
    """Artifacts that this process has used and that have been removed or changed; they count as never seen then."""
    removed = [path for path in verified if not _is_whole(path)]
    for path in removed:
        del verified[path]
    return removed


def over_removals(work: Callable[[], None]) -> None:
    """Do work, and again where it has failed and somebody has removed or changed an artifact that it was using."""
    while True:
        try:
            return work()
        except Exception:
            if not (removed := forget_removed()):
                raise
            log.warning("%s was removed or changed while it was in use: it is made anew", removed[0])


def _is_whole(path: Path) -> bool:
    """Whether the files of an artifact are what its manifest says; hashes are taken where something has changed."""
    try:
        _verify(path, json.loads(read_text(path / MANIFEST))["files"])
    except (OSError, DamageError, *UNREADABLE):
        return False
    return True


def open_entry(wanted: Wanted, path: Path) -> Artifact | None:
    """The artifact at `path`; None when nothing is there, DamageError when it is not what was wanted, whole.

    Hashes are checked once per process, and again when a size, a change time or an inode has changed since. Files that
    the manifest does not list are ignored.
    """
    if not os.path.lexists(path):
        return None
    try:
        stamp_of(path, MANIFEST)
        manifest = json.loads(read_text(path / MANIFEST))
        for name, value in (("format", FORMAT), ("kind", wanted.kind), ("key", wanted.key)):
            if manifest[name] != value:
                raise DamageError(f"{MANIFEST}: {name} is {manifest[name]!r} instead of {value!r}")
        if canonical(manifest["spec"]) != wanted.text:
            raise DamageError(f"{MANIFEST}: spec differs")
        artifact = Artifact(wanted.kind, wanted.key, path, manifest["spec"], float(manifest["seconds"]))
        _verify(path, manifest["files"])
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DamageError(f"{os.path.relpath(error.filename, path)}: missing") from None
    except UNREADABLE:
        raise DamageError(f"{MANIFEST}: cannot be read") from None
    return artifact


def _verify(path: Path, files: Mapping[str, Any]) -> None:
    stamps = {name: stamp_of(path, name) for name in (MANIFEST, *files)}
    if verified.get(path) == stamps:
        return
    for name, entry in files.items():
        if stamps[name][0] != entry["bytes"]:
            raise DamageError(f"{name}: {stamps[name][0]} bytes instead of {entry['bytes']}")
        if fingerprint_file(path / name) != entry["sha256"]:
            raise DamageError(f"{name}: checksum differs")
    verified[path] = stamps


def stamp_of(path: Path, name: str) -> _Stamp:
    """What changes when a file does; DamageError where it is none."""
    status = (path / name).stat()
    if not stat.S_ISREG(status.st_mode):
        raise DamageError(f"{name}: not a file")
    return status.st_size, status.st_ctime_ns, status.st_ino


def files_in(folder: Path) -> list[str]:
    """Names, relative to `folder`, of all below it that is no folder, sorted."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path.relative_to(folder).as_posix() for path in paths)
