"""Files that are written whole or not at all, disk trouble told in one line; which are pictures, where packages lie."""

import difflib
import errno
import hashlib
import importlib.util
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from xai.core.errors import UserError, visible

TEMPORARY = ".tmp-"
"""How the name of a file begins that is being written."""

_READ = "jpg jpeg jpe jfif jif pjpeg png apng ppm pgm pbm pnm bmp dib gif tif tiff webp avif jp2 j2k tga ico"
_UNREAD = "heic heif hif jxl raw dng cr2 cr3 nef arw orf rw2 raf psd xcf svg eps pdf exr hdr dcm nii npy"
PICTURES, UNREAD_PICTURES = (frozenset(f".{kind}" for kind in kinds.split(" ")) for kinds in (_READ, _UNREAD))
"""Of files that are read as pictures; and of pictures that are refused by name, and not passed over in silence."""

_DISK_TROUBLE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file would be larger than it may be (ulimit -f)",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.ELOOP: "a link stands where a file is needed",
    errno.ENOSYS: "no file locks there (NFS needs a lock manager)",
    errno.ENOLCK: "no file locks there (NFS needs a lock manager)",
}


def fingerprint_file(path: Path) -> str:
    """SHA-256 of the bytes of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_hash(text: str) -> str:
    """Eight letters that tell a text from others."""
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]


def short_name(text: str, most: int) -> str:
    """A name in at most so many bytes: of a longer one its beginning and its end, and between them its hash."""
    content, half = os.fsencode(text), (most - 10) // 2
    if len(content) <= most:
        return text
    begin, end = (part.decode(errors="ignore") for part in (content[:half], content[-half:]))
    return f"{begin}-{short_hash(text)}-{end}"


def read_text(path: Path, most: int = 1 << 24) -> str:
    """The text of a file of at most `most` bytes that anybody may have written, UTF-8 with or without a mark.

    Raises:
        OSError: It cannot be read, or is no file: a pipe would be waited for, and a device read, without end.
        ValueError: It is larger, or no UTF-8.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is no file, but a pipe or a device", str(path))
    if status.st_size > most:
        raise ValueError(f"has {status.st_size:,} bytes, of at most {most:,}")
    return Path(path).read_text(encoding="utf-8").removeprefix("\ufeff")


def check_link(path: Path, label: str = "") -> None:
    """Refuse a link that points at nothing; UserError naming the link and what it should have led to."""
    if path.is_symlink() and not path.exists():
        there = visible(os.readlink(path))
        raise UserError(f"{label or path} is a link to {there}, which is not there: mend or remove the link")


def check_file(path: Path, label: str, wanted: str) -> None:
    """Refuse what is no file with something in it, without reading it.

    Args:
        path: Where it should be.
        label: What begins the line: what it is, and its path.
        wanted: What would be right.

    Raises:
        UserError: It is missing (with what may have been meant), a link to nothing, a folder, a device, or empty.
    """
    check_link(path, label)
    if path.is_dir():
        raise UserError(f"{label} is a folder: give {wanted}")
    if not path.exists():
        raise UserError(f"{label} does not exist: {_near(path)}")
    # It would be waited for without end.
    if not path.is_file():
        raise UserError(f"{label} is a pipe or a device and no regular file: give {wanted}")
    if path.stat().st_size == 0:
        raise UserError(f"{label} is empty (0 bytes): give {wanted}")


def _near(path: Path) -> str:
    """What the user may have meant."""
    if not path.parent.is_dir():
        return visible(f"there is no folder {path.parent}")
    close = difflib.get_close_matches(path.name, os.listdir(path.parent), n=3)
    return visible(f"did you mean {' or '.join(close)}?" if close else f"look into {path.parent}")


def cache_folder() -> Path:
    """The user's, for what can be made anew at any time; a relative one counts for nothing, as XDG has it.

    Raises:
        OSError: There is none.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    folder = given if os.path.isabs(given) else os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(folder):
        raise FileNotFoundError(errno.ENOENT, "there is no home", folder)
    return Path(folder, "xai")


def write_atomically(path: Path, content: bytes | Callable[[Path], object], *, lasting: bool = True) -> None:
    """Write `path` so that it holds either what it held before or all of `content`.

    Where it is `lasting` also after a power cut, for which the disk is waited for. `content` is the bytes, or a
    function that writes them to the path it is given, a temporary one in the same folder. Raises OSError as the file
    system does; see `explain_disk_errors`.
    """
    path = Path(path)
    # Of a name as long as names may be, the temporary one would be too long.
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}-{path.name[-50:]}")
    try:
        content(temporary) if callable(content) else temporary.write_bytes(content)
        if lasting:
            flush(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if lasting:
        flush(path.parent)


def remove(path: Path) -> None:
    """Remove a file, a folder with all in it, or a link; what is not there is gone already."""
    is_folder = path.is_dir() and not path.is_symlink()
    shutil.rmtree(path) if is_folder else path.unlink(missing_ok=True)


@contextmanager
def explain_disk_errors(folder: Path, advice: str) -> Iterator[None]:
    """Turn a full disk, a missing permission or a missing lock at `folder` into a UserError that ends in `advice`.

    An error that names a file elsewhere is another's trouble and passes unchanged, as does every other exception.
    """
    try:
        yield
    except OSError as error:
        reason = _DISK_TROUBLE.get(error.errno or 0)
        home = os.path.realpath(folder)
        at = os.path.realpath(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else ""
        if reason is None or (at and os.path.commonpath([home, at]) not in (home, at)):
            raise
        where = str(folder) if at in ("", home) else f"{folder} (at {at})"
        raise UserError(f"cannot use the folder {where}: {reason}; {advice}") from error


def flush(path: Path) -> None:
    """Wait until the disk holds a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def package_folder(module: str, distribution: str, asked_by: str) -> Path:
    """Where a package lies that holds files of use here; nothing of it is run.

    Raises:
        UserError: It is not installed.
    """
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise UserError(
            f"{asked_by} needs the package {distribution}, which is not installed: pip install {distribution}"
        )
    return Path(found.origin).parent
