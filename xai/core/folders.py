"""The folder of a run: its record, and whole. What a run writes is put aside until it has ended well."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import NoReturn

from filelock import FileLock, Timeout
from rich.markup import escape

from xai.core.errors import UserError
from xai.core.files import PICTURES, UNREAD_PICTURES, explain_disk_errors, read_text, write_atomically

MARKER = ".xai.json"
"""Says which names in a folder a run has written; nothing else in it is ever replaced or removed."""

_USUAL = (".hydra", "run.log", "report.html", "scores.csv", "figures", "predictions.json")
"""Names that most runs write."""

_SHEET = re.compile(r"sheet_\d+\.")
"""Of these, which stand for several files, those of an earlier run go together, however many they were."""

_PICTURES = PICTURES | UNREAD_PICTURES - {".npy", ".pdf", ".svg", ".eps"}  # what a project keeps beside its results
_LOCK, _ASIDE = ".xai.lock", ".xai-run-"
_ADVICE = "choose another folder with name=..."
_OLD = "move or remove it (what an older version wrote bears no mark), or choose another folder with name=..."


@contextmanager
def run_folder(final: Path, *, adds: bool = False) -> Iterator[Path]:
    """A folder to write into; when the body has ended well, its content takes the place of what the last run wrote.

    Runs that share `final` do not see each other's files: what stands there is of the one that ended last. After an
    exception, and for who looks in after a kill, it is of the last run that ended well.

    Args:
        final: Where the run belongs.
        adds: Whether what earlier runs wrote under other names stays; sheets of one name go together.

    Raises:
        UserError: The folder cannot be written, or holds what no run has written.
    """
    final = Path(final).absolute()
    with explain_disk_errors(final, _ADVICE):
        final.mkdir(parents=True, exist_ok=True)
        is_new = not any(final.iterdir())
        _check_foreign(final)  # a lock would be left in it
        with _lock(final):
            _check(final)
            _sweep(final)
            aside = Path(mkdtemp(prefix=_ASIDE, dir=final))
            hold = FileLock(aside / _LOCK, fallback_to_soft=False)
            hold.acquire()
            here = os.stat(final)
    try:
        with explain_disk_errors(final, _ADVICE):
            yield aside
            if not _is_same(final, here):  # but a link, say, to a user's own folder
                raise UserError(f"{os.path.relpath(final)} was moved or replaced while the run was at work: {_ADVICE}")
            with _lock(final):
                _publish(aside, final, adds)
            is_new = False
    finally:
        hold.release()
        shutil.rmtree(aside, ignore_errors=True)
        if is_new and _is_same(final, here):
            _leave_nothing(final)


def put_now(aside: Path) -> None:
    """Of a run that adds to its folder and ends early, put what it has written where it belongs.

    Raises:
        UserError: As `run_folder`.
    """
    final = final_folder(aside)
    with explain_disk_errors(final, _ADVICE), _lock(final):
        _publish(aside, final, adds=True)


def no_folder(path: Path) -> str | None:
    """Why a place can be no folder, or hold one: what on the way there is a file, or a link to nothing."""
    there = next((each for each in (path, *path.parents) if os.path.lexists(each)), None)
    if there is None or there.is_dir():
        return None
    what = f"a link to {os.readlink(there)}, which is not there" if there.is_symlink() else "a file and no folder"
    return f"{os.path.relpath(there)} is {what}"


def written_in(folder: Path) -> set[str]:
    """The names in a folder that runs have written; all, where its marker does not say so; none, where it has none."""
    try:
        return set(_written(folder)) if (folder / MARKER).is_file() else set()
    except (OSError, UserError):
        return {entry.name for entry in folder.iterdir()}


def holds_pictures(folder: Path) -> Path | None:
    """A picture of a user's own in a folder; None where there is none, or no such folder."""
    ours = written_in(folder)
    try:
        found = (path for path in folder.iterdir() if path.suffix.lower() in _PICTURES and path.name not in ours)
        return next(found, None)
    except OSError:
        return None


def final_folder(folder: Path) -> Path:
    """Where the content of a folder of `run_folder` will stand; other folders are what they are."""
    return folder.parent if folder.name.startswith(_ASIDE) else folder


def shown(path: Path) -> str:
    """A path as a user is to read it, for the terminal: where it will stand, relative to where he is."""
    parts = [part for part in Path(path).absolute().parts if not part.startswith(_ASIDE)]
    return escape(os.path.relpath(Path(*parts)))


def _is_same(final: Path, here: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(final), here)
    except OSError:
        return False


def _lock(final: Path) -> FileLock:
    # Half of a change lasts for some renames, so there is nothing to tell who waits.
    return FileLock(final / _LOCK, fallback_to_soft=False)


def _check(final: Path) -> None:
    """Refuse a folder that holds a user's own files, before anything is done."""
    if (final / MARKER).is_file():
        _written(final)
        return
    _check_foreign(final)
    _mark(final, [])


def _check_foreign(final: Path) -> None:
    if (final / MARKER).is_file():
        return
    # Other names are found when they are written; that is later, and as safe.
    if own := [name for name in _USUAL if os.path.lexists(final / name)]:
        _refuse(final / own[0])
    if beside := holds_pictures(final):
        # What is written beside pictures is taken for pictures, and these for what a run has written.
        raise UserError(f"{os.path.relpath(final)} holds pictures of yours, such as {beside.name}: {_ADVICE}")


def _refuse(path: Path) -> NoReturn:
    raise UserError(f"{os.path.relpath(path)} is there already, and no run has written it: {_OLD}")


def _written(final: Path) -> list[str]:
    """The names in a folder that are a run's."""
    try:
        names = json.loads(read_text(final / MARKER))["written"]
        if all(isinstance(name, str) and name not in ("", "..") and name == Path(name).name for name in names):
            return list(names)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise UserError(f"{os.path.relpath(final / MARKER)} does not say what a run has written: {_OLD}")


def _sweep(final: Path) -> None:
    """Remove what killed runs have left."""
    for aside in final.glob(f"{_ASIDE}*"):
        if aside.is_symlink():  # no run has made it, and a lock would be left where it leads to
            continue
        try:
            with FileLock(aside / _LOCK, timeout=0, fallback_to_soft=False):
                shutil.rmtree(aside, ignore_errors=True)
        except (Timeout, OSError):
            continue


def _publish(aside: Path, final: Path, adds: bool) -> None:
    new = sorted(entry.name for entry in aside.iterdir() if entry.name != _LOCK)
    before = _written(final)
    if foreign := [name for name in new if name not in before and os.path.lexists(final / name)]:
        _refuse(final / foreign[0])
    sheets = {_SHEET.sub("sheet.", name) for name in new if _SHEET.match(name)}
    old = [name for name in before if not adds or name in new or _SHEET.sub("sheet.", name) in sheets]
    kept = [name for name in before if name not in old]
    # Nothing of two runs ever stands side by side: the old goes first, and a kill here leaves less, never a mixture.
    _mark(final, [*before, *new])
    bin_ = Path(mkdtemp(prefix=_ASIDE, dir=final))
    for name in old:
        if os.path.lexists(final / name):
            os.rename(final / name, bin_ / name)
    for name in new:
        os.rename(aside / name, final / name)
    _mark(final, [*kept, *new])
    shutil.rmtree(bin_, ignore_errors=True)


def _mark(final: Path, names: list[str]) -> None:
    write_atomically(final / MARKER, (json.dumps({"written": sorted(set(names))}) + "\n").encode())


def _leave_nothing(final: Path) -> None:
    """Take back a folder that a refused run has made; what somebody else has put there stays."""
    if {entry.name for entry in final.iterdir()} <= {MARKER, _LOCK}:
        shutil.rmtree(final, ignore_errors=True)
