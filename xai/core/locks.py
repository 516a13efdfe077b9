"""Locks between processes: `flock(2)` on a small file, which says who holds it and since when.

The kernel frees them when their holder dies, however it dies. What the file says is for who waits, and decides nothing.
"""

import errno
import fcntl
import json
import logging
import os
import shlex
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import lock_descriptor

from xai.core.errors import visible

NOTE = 31
"""The level at which it is logged that a job waits for another: it is shown as a warning is, but nothing is wrong."""
logging.addLevelName(NOTE, "note")

_POLL_SECONDS = 0.05
_LONGEST = 200
"""Characters of a command that are shown."""

_held: dict[int, tuple[Path, int]] = {}
"""File descriptors of the locks that this process holds or is about to, and of which path and thread each is."""


def acquire(path: Path, patience: float = 0.0, waiting: Callable[[str], None] | None = None) -> int | None:
    """Take a lock; what stands at `path` and is no file is put aside, and a link is not followed.

    Args:
        path: Of the file. Its folder exists; where it has vanished, there is nothing to take.
        patience: Seconds until `waiting` is told.
        waiting: Is told once who holds it. None does not wait.

    Returns:
        What `release` wants; None where it is not to be had.
    """
    limit = time.monotonic() + patience
    while True:
        try:
            descriptor = _open(path)
        except FileNotFoundError:
            return None
        is_mine = False
        try:
            is_free = lock_descriptor(descriptor, blocking=False)
            # Removed between the look and the lock, it is another file than the next one will lock.
            is_mine = is_free and _is_at(descriptor, path)
        finally:
            if not is_mine:
                _close(descriptor)
        if is_mine:
            _held[descriptor] = path, threading.get_ident()
            _sign(descriptor)
            return descriptor
        if is_free:
            continue
        if waiting is None:
            return None
        if (path, threading.get_ident()) in _held.values():
            raise RuntimeError(f"deadlock: {path} is held by who waits for it")
        if time.monotonic() >= limit:
            waiting(holder(path))
            limit = float("inf")
        time.sleep(_POLL_SECONDS)


def release(descriptor: int) -> None:
    """Let go of a lock."""
    if descriptor in _held:
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
        _close(descriptor)


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Hold a lock while the body runs, if it is to be had; yields whether it was."""
    descriptor = acquire(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            release(descriptor)


def is_held(path: Path) -> bool:
    """Whether some process holds a lock. A look writes nothing, so that the file need only be readable.

    Raises:
        OSError: It may not even be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EMLINK):
            return False
        raise
    _held[descriptor] = path, 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a disk without locks, on which nobody holds one
        return False
    finally:
        _close(descriptor)
    return False


def holder(path: Path, *, short: bool = False) -> str:
    """Who holds a lock and, unless it is told `short`, since when and by what command; empty where nobody says."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            said = json.loads(os.read(descriptor, 4096))
        finally:
            os.close(descriptor)
        text = f"process {said['pid']} on {said['host']}"
        if not short:
            text += f", since {said['since']}: {str(said['command'])[:_LONGEST]}"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ""
    return visible(" ".join(text.split()))


def _open(path: Path) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO):
                raise
            _put_aside(path)
            continue
        _held[descriptor] = path, 0
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        _close(descriptor)
        _put_aside(path)


def _put_aside(path: Path) -> None:
    with suppress(FileNotFoundError):
        os.rename(path, path.with_name(f"{path.name}.odd-{os.getpid()}-{time.monotonic_ns()}"))


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    said = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        "command": shlex.join(sys.orig_argv)[:_LONGEST],
    }
    # A full disk is no reason to leave the lock alone.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(said).encode(), 0)


def _close(descriptor: int) -> None:
    _held.pop(descriptor, None)
    os.close(descriptor)


def _let_go() -> None:
    """A forked process may outlive the one that works, and its copies of the descriptors would keep the locks."""
    while _held:
        os.close(_held.popitem()[0])


os.register_at_fork(after_in_child=_let_go)
