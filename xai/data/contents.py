"""What files hold, in 128 bits: read once, and remembered until a file's size, time of change or inode is another."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from xai.core.errors import UserError
from xai.core.files import cache_folder, check_link, read_text, write_atomically
from xai.core.progress import bar

_THREADS = 8
_WORTH_A_LINE = 5.0
_LARGEST = 1 << 30
_SETTLED = 2_000_000_000
"""Nanoseconds since its last change after which a file is remembered: a clock's tick may hide a second change."""


def memory_of(folder: Path) -> Path:
    """Where the hashes of a folder's files are remembered: below the user's cache folder; OSError: there is none."""
    name = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:20]
    return cache_folder() / "contents" / f"{name}.json"


def hashes(folder: Path, names: Sequence[str]) -> list[str]:
    """The hash of the bytes of each file of a folder; UserError: a file that is not there or cannot be read."""
    known = _remembered(folder)
    stamps = {name: _stamp(folder / name) for name in names}
    changed = [name for name, stamp in stamps.items() if known.get(name, [None])[0] != stamp]
    if changed:
        title = f"hashes of {folder}"
        with ThreadPoolExecutor(_THREADS) as pool, bar(title, len(changed), "files", _WORTH_A_LINE) as on:
            found = pool.map(lambda name: _hash(folder / name), changed)
            for done, (name, digest) in enumerate(zip(changed, found, strict=True), start=1):
                known[name] = [stamps[name], digest]
                on(done)
        try:
            memory = memory_of(folder)
            memory.parent.mkdir(parents=True, exist_ok=True)
            settled = time.time_ns() - _SETTLED
            kept = {name: entry for name, entry in known.items() if max(entry[0][1:3]) < settled}
            write_atomically(memory, json.dumps(kept).encode())
        except OSError:
            pass  # a home that cannot be written to costs time, and nothing else
    return [known[name][1] for name in names]


def _remembered(folder: Path) -> dict[str, Any]:
    """By name, the stamp of a file and its hash; what somebody has spoilt is not remembered."""
    try:
        found = json.loads(read_text(memory_of(folder), _LARGEST))
        return {name: entry for name, entry in found.items() if _is_entry(*entry)}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _is_entry(stamp: Any, digest: Any) -> bool:
    return isinstance(digest, str) and isinstance(stamp, list) and [type(each) for each in stamp] == [int] * 4


def _stamp(path: Path) -> list[int]:
    """What changes when a file does; a program can set back the time of change of the content, but not of the inode."""
    try:
        found = os.stat(path)
    except OSError as error:
        check_link(path)
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _hash(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
