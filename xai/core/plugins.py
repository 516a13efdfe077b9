"""Plug-ins: modules of a user's own that register explainers, metrics, data sets or models by being imported."""

import functools
import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from xai.core.errors import UserError
from xai.core.files import fingerprint_file

GROUP = "xai.plugins"
"""The group of entry points under which an installed package names its modules."""

_installed_loaded = False


def load(names: Iterable[str] = ()) -> None:
    """Import the plug-ins of installed packages, and modules by name; each is imported once.

    Raises:
        UserError: Where a module cannot be imported, or registers a name that is taken.
    """
    global _installed_loaded
    if not _installed_loaded:
        # Before the imports, because a plug-in may look at a registry, which loads plug-ins, while it is imported.
        _installed_loaded = True
        for point in entry_points(group=GROUP):
            _import(point.module, f"the entry point {point.name} of {GROUP}")
    for name in names:
        _import(name, f"plugins: {name}")


@functools.cache
def code_of(module: str) -> dict[str, str]:
    """What a key of the store says of the code of a plug-in: the hash of its file, so that an edit makes anew.

    The code of the framework, which has revisions, and what stands in no file have none; what a plug-in imports is not
    looked at.
    """
    file = getattr(sys.modules.get(module), "__file__", None)
    is_own = module.partition(".")[0] in ("xai", "__main__") or file is None or not Path(file).is_file()
    return {} if is_own else {"code": fingerprint_file(Path(str(file)))[:20]}


def _import(name: str, asked_by: str) -> None:
    try:
        import_module(name)
    except UserError as error:
        raise UserError(f"{asked_by}: {error}") from error
    except Exception as error:
        # Whatever a foreign module raises: the user has to hear which module it was.
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{asked_by} cannot be imported ({reason}): mend it, or leave it out") from error
