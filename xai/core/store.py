"""The store: what a run made, found again by what it was made from.

An artifact is a directory `<root>/<kind>/<key>/` whose key is a hash of the spec that determines it. Its manifest
`artifact.json` lists every file with size and SHA-256. While it is being made it is called `<key>.partial`, and only a
whole, flushed directory is renamed to its final name, so a final name never holds anything half-made.

Locks are `flock(2)` locks: the kernel frees them when their holder dies, however it dies. On NFS they need a server
with a lock manager (NFSv4 has one) and a mount without `nolock` and `local_lock`; where there are no locks the store
refuses to make anything rather than let two jobs write the same directory.
"""

import errno
import hashlib
import json
import logging
import math
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xai.core import locks
from xai.core.entries import (
    FORMAT,
    MANIFEST,
    UNREADABLE,
    Artifact,
    DamageError,
    Wanted,
    canonical,
    files_in,
    intact,
    open_entry,
    put_aside,
    stamp_of,
    verified,
)
from xai.core.errors import Busy
from xai.core.files import TEMPORARY, explain_disk_errors, fingerprint_file, flush, remove, write_atomically

log = logging.getLogger(__name__)

SPEC = "spec.json"
SCRATCH = "scratch"
PATIENCE_SECONDS = 2.0
_TRIES = 10
"""How often an artifact is begun anew that somebody else removes while it is being made."""

PROMISE = "nothing half-made is kept under a final name, and the same command resumes once that is mended"


_KIND = re.compile(r"[a-z0-9][a-z0-9_-]*")


class Store:
    """Artifacts under one root folder, shared by any number of processes.

    `made` and `found` list once what `get` of this object had to make, and what it found made before or elsewhere.
    """

    def __init__(self, root: Path) -> None:
        """Create `root` where it is missing; UserError when it is not a folder, or is missing and cannot be made.

        What is in it can be read without being able to write.
        """
        self.root = Path(root).absolute()
        self.is_patient = True
        self.made: list[Artifact] = []
        self.found: list[Artifact] = []
        with explain_disk_errors(self.root, "choose a folder that can be written"):
            try:
                self.root.mkdir(parents=True, exist_ok=True)
            except FileExistsError as error:
                raise NotADirectoryError(errno.ENOTDIR, "not a folder", error.filename) from None

    @contextmanager
    def impatient(self) -> Iterator[None]:
        """While this is entered, what another process is making raises `Busy` instead of being waited for."""
        before, self.is_patient = self.is_patient, False
        try:
            yield
        finally:
            self.is_patient = before

    def summary(self) -> str:
        """How much was re-used and how much was made, for example "9 re-used, 2 made"."""
        return f"{len(self.found)} re-used, {len(self.made)} made"

    def key(self, kind: str, spec: Mapping[str, Any]) -> str:
        """First 20 hexadecimal digits of the SHA-256 of the canonical JSON of `kind` and `spec`."""
        return self._wanted(kind, spec).key

    def find(self, kind: str, spec: Mapping[str, Any]) -> Artifact | None:
        """The artifact when it is present and intact, else None. Changes nothing on disk."""
        wanted = self._wanted(kind, spec)
        with explain_disk_errors(self.root, "the store has to be readable"):
            return intact(wanted, wanted.final)

    def scratch(self, kind: str, spec: Mapping[str, Any]) -> Path | None:
        """The folder `scratch` that the maker of `get` will find in its workdir; None where nothing is left to make.

        For work that processes share before one of them asks `get` to put it together: nobody holds the artifact's
        lock meanwhile, so they have to agree on who does what (see `xai.core.shards`). What earlier ones left there
        stays.
        The folder goes in one step when the artifact is whole, so whoever no longer finds it need not make it again.

        Raises UserError when the disk is full, the store cannot be written, or there are no locks.
        """
        wanted = self._wanted(kind, spec)
        with explain_disk_errors(self.root, PROMISE):
            if intact(wanted, wanted.final) is not None:
                return None
            with self._lock(wanted, f"{kind} {wanted.key}"):
                if any(intact(wanted, path) is not None for path in (wanted.final, wanted.workdir)):
                    return None
                # Others may be at work in a folder that is in order, so nothing in it is touched.
                if _left_behind(wanted) is None:
                    _prepare(wanted)
                scratch_folder(wanted.workdir)
        return wanted.workdir / SCRATCH

    def get(
        self, kind: str, spec: Mapping[str, Any], make: Callable[[Path], float | None], *, title: str = ""
    ) -> Artifact:
        """The artifact, found or made.

        `make(workdir)` is called under an inter-process lock: of many jobs one makes it, the others wait. The workdir
        survives a kill or an exception and the next call gets it back as it was left, so a maker may keep checkpoints
        and shards there and resume from them. Once `make` has returned, top-level names starting with "checkpoint", the
        folder `scratch` and unfinished files of `write_atomically` are removed; every other file becomes part of the
        artifact. `artifact.json` and `spec.json` at the top belong to the store. A maker that put together what several
        processes made returns their seconds; otherwise the store's own clock counts. The log calls it by `title`.
        Removed by somebody else while it is being made, it is made anew.

        Raises Busy where the store is impatient and another job holds the lock, UserError when the disk is full or the
        store cannot be written, RuntimeError when `make` left no file or
        something that is neither a file nor a folder, and whatever `make` raises.
        """
        wanted = self._wanted(kind, spec)
        title = title or f"{kind} {wanted.key}"
        with explain_disk_errors(self.root, PROMISE):
            artifact = intact(wanted, wanted.final)
            for _ in range(_TRIES):
                if artifact is not None:
                    break
                with self._lock(wanted, title):
                    _set_damaged_aside(wanted)
                    artifact = intact(wanted, wanted.final)
                    if artifact is None and (artifact := _make(wanted, make, title)):
                        self.made.append(artifact)
            if artifact is None:
                raise RuntimeError(f"{wanted.final} was changed while it was being made, {_TRIES} times")
        if artifact not in self.made and artifact not in self.found:
            self.found.append(artifact)
        return artifact

    @contextmanager
    def _lock(self, wanted: Wanted, title: str) -> Iterator[None]:
        path = self.root / ".locks" / f"{wanted.kind}-{wanted.key}.lock"

        def waiting(who: str) -> None:
            log.log(locks.NOTE, "waiting for another job that is making %s%s", title, f" ({who})" * bool(who))

        hold, patient = None, self.is_patient
        advice = f"{title} is not in it and has to be made, for which a folder that can be written is needed: store=..."
        with explain_disk_errors(self.root, advice):
            while hold is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                hold = locks.acquire(path, PATIENCE_SECONDS, waiting if patient else None)
                if hold is None and not patient:
                    who = locks.holder(path)
                    raise Busy(title + f" ({who})" * bool(who))
        try:
            yield
        finally:
            locks.release(hold)

    def _wanted(self, kind: str, spec: Mapping[str, Any]) -> Wanted:
        if not _KIND.fullmatch(kind):
            raise ValueError(f"kind {kind!r} is not a name of a-z, 0-9, _ and -")
        key = hashlib.sha256(canonical({"kind": kind, "spec": spec}).encode()).hexdigest()[:20]
        final = self.root / kind / key
        return Wanted(kind, canonical(spec), key, final, final.with_name(f"{key}.partial"))


def _make(wanted: Wanted, make: Callable[[Path], float | None], title: str) -> Artifact | None:
    """Make, seal and name the artifact; the caller holds its lock and has seen that there is none.

    None where somebody has removed it meanwhile, or what was left of an earlier try stood in the way.
    """
    begun: list[str] = []
    try:
        return _sealed(wanted, make, title, begun)
    except DamageError as damage:
        log.warning("%s %s: it is made anew", wanted.workdir, damage)
    except Exception as error:
        if begun and _try_of(wanted) not in begun:
            log.warning("%s was removed while it was being made: it is made anew", wanted.workdir)
        elif begun and _is_in_the_way(error, wanted.workdir):
            aside = put_aside(wanted, wanted.workdir)
            log.warning("%s is odd (%s): it is made anew, and the old is kept at %s", wanted.workdir, error, aside)
        else:
            raise
    return None


def _is_in_the_way(error: Exception, workdir: Path) -> bool:
    """Whether a file is where a folder belongs in a workdir, or a folder where a file does."""
    named = [getattr(error, "filename", None), getattr(error, "filename2", None)]
    inside = any(isinstance(name, str) and Path(name).is_relative_to(workdir) for name in named)
    return inside and isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError)


def _sealed(wanted: Wanted, make: Callable[[Path], float | None], title: str, begun: list[str]) -> Artifact:
    workdir, final = wanted.workdir, wanted.final
    # Killed between its manifest and its rename, a partial is whole and lacks only its name.
    if intact(wanted, workdir) is None:
        seconds_before = _prepare(wanted)
        begun.append(_try_of(wanted))
        log.info("making %s", title)
        start = time.perf_counter()
        shared = make(workdir)
        alone = seconds_before + time.perf_counter() - start
        if _try_of(wanted) not in begun:
            raise FileNotFoundError(f"{workdir} is of another try")
        _write_manifest(wanted, alone if shared is None else shared)
    if (workdir / SCRATCH).is_dir():
        # In one step, lest a process that looks for work to share finds a folder that is half removed.
        os.rename(workdir / SCRATCH, workdir / f"{TEMPORARY}{SCRATCH}")
    for path in sorted(workdir.rglob("*")):
        if _is_disposable(path.relative_to(workdir)):
            # NFS keeps what another process of this machine has open, and its folder with it; nobody looks there.
            with suppress(OSError):
                remove(path)
    os.rename(workdir, final)
    flush(final.parent)
    flush(final.parent.parent)
    verified[final] = verified.pop(workdir)
    artifact = intact(wanted, final)
    if artifact is None:
        raise DamageError("was changed while it was being made")
    log.info("made %s in %.1f s", title, artifact.seconds)
    return artifact


def _prepare(wanted: Wanted) -> float:
    """Make the workdir ready for a try, kept when the same spec left it; returns the seconds of earlier tries."""
    workdir, left, seconds = wanted.workdir, _left_behind(wanted), 0.0
    if left is None:
        remove(workdir)
        workdir.mkdir(parents=True)
    else:
        # A killed try cannot say when it ended, so it is taken to have ended when it last wrote something.
        # A clock that was set, or a file from the future, says nothing of how long it took.
        ended = min(_last_write(workdir), time.time())
        seconds = left["seconds"] + max(0.0, ended - left["started"])
    (workdir / MANIFEST).unlink(missing_ok=True)
    for path in list(workdir.rglob("*")):
        if not os.path.lexists(path):
            continue  # it went with its folder
        is_odd = path.is_symlink() or not (path.is_file() or path.is_dir())
        if is_odd:
            log.warning("%s is neither a file nor a folder, and no part of an artifact: it is removed", path)
        if is_odd or path.name.startswith(TEMPORARY):
            remove(path)
    started = {"identity": _identity(wanted), "seconds": seconds, "started": time.time(), "try": secrets.token_hex(8)}
    write_atomically(workdir / SPEC, canonical(started).encode())
    return seconds


def _left_behind(wanted: Wanted) -> dict[str, float] | None:
    """When the last try of this spec started, and the seconds of those before it; None where none left its workdir."""
    left = _said_in(wanted.workdir)
    try:
        if wanted.workdir.is_symlink() or canonical(left["identity"]) != canonical(_identity(wanted)):
            return None
        seconds = {name: float(left[name]) for name in ("seconds", "started")}
        return seconds if all(map(math.isfinite, seconds.values())) else None
    except UNREADABLE:
        return None


def _try_of(wanted: Wanted) -> str:
    """Which try a workdir is of; empty where it is of none."""
    return str(_said_in(wanted.workdir).get("try", ""))


def _said_in(workdir: Path) -> dict[str, Any]:
    """What a try says of itself in its workdir; nothing where there is none, or what is there cannot be read."""
    path = workdir / SPEC
    try:
        # Of what is no file, such as a pipe, to read would never end.
        return dict(json.loads(path.read_bytes())) if stat.S_ISREG(path.lstat().st_mode) else {}
    except (FileNotFoundError, NotADirectoryError, *UNREADABLE):
        return {}


def scratch_folder(workdir: Path) -> Path:
    """The folder for shared work in a workdir, made where it is missing; what is odd there is removed."""
    scratch = workdir / SCRATCH
    if os.path.lexists(scratch) and (scratch.is_symlink() or not scratch.is_dir()):
        log.warning("%s is no folder: it is removed", scratch)
        remove(scratch)
    scratch.mkdir(exist_ok=True)
    return scratch


def _last_write(folder: Path) -> float:
    times = [0.0]
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            times.append(path.lstat().st_mtime)
    return max(times)


def _identity(wanted: Wanted) -> dict[str, Any]:
    return {"kind": wanted.kind, "spec": json.loads(wanted.text)}


def _write_manifest(wanted: Wanted, seconds: float) -> None:
    """Flush everything and write the manifest over it; what is disposable stays until then, lest a kill lose it."""
    workdir = wanted.workdir
    if os.path.lexists(workdir / MANIFEST):
        raise RuntimeError(f"the maker of {wanted.kind} wrote {MANIFEST}, a name that belongs to the store")
    files = {}
    for name in files_in(workdir):
        path = workdir / name
        if _is_disposable(Path(name)):
            continue
        if path.is_symlink() or not path.is_file():
            raise RuntimeError(f"{path} is neither a file nor a folder; an artifact may hold nothing else")
        flush(path)
        files[name] = {"bytes": path.stat().st_size, "sha256": fingerprint_file(path)}
    if not files:
        raise RuntimeError(f"the maker of {wanted.kind} left no file in {workdir}")
    for folder, _, _ in os.walk(workdir):
        flush(Path(folder))
    created = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = {"format": FORMAT, "kind": wanted.kind, "key": wanted.key, "spec": json.loads(wanted.text)}
    manifest |= {"seconds": round(seconds, 3), "created": created, "files": files}
    write_atomically(workdir / MANIFEST, (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode())
    verified[workdir] = {name: stamp_of(workdir, name) for name in (MANIFEST, *files)}


def _set_damaged_aside(wanted: Wanted) -> None:
    try:
        open_entry(wanted, wanted.final)
    except DamageError as damage:
        aside = put_aside(wanted, wanted.final)
        kept = f"making it anew; the old one is kept at {aside}"
        log.warning("store entry %s is damaged (%s); %s", wanted.final, damage, kept)


def _is_disposable(name: Path) -> bool:
    """Whether a path, relative to the workdir, is dropped when the artifact is whole."""
    top = name.parts[0]
    return top in (SCRATCH, SPEC) or top.startswith("checkpoint") or name.name.startswith(TEMPORARY)
