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
_registering: list[str] = []
"""Modules of others, one for each thing that they have registered."""
_codes: dict[str, dict[str, str]] = {}
"""By module, what `code_of` says of it."""


def registered() -> str:
    """Note who registers something, and say so: the module that called the function of a registry that calls this."""
    module = str(sys._getframe(2).f_globals.get("__name__"))
    if module.partition(".")[0] != "xai":
        _registering.append(module)
        _codes[module] = _code(module)  # now: what is edited later is not what this process runs
    return module


def load(names: Iterable[str] = ()) -> None:
    """Import the plug-ins of installed packages, and modules by name; each is imported once.

    Raises:
        UserError: Where a module cannot be imported, registers nothing, or registers a name that is taken.
    """
    global _installed_loaded
    _imported_before()
    if not _installed_loaded:
        # Before the imports, because a plug-in may look at a registry, which loads plug-ins, while it is imported.
        _installed_loaded = True
        try:
            for point in entry_points(group=GROUP):
                whose = f" of the package {point.dist.name}" if point.dist else ""
                _import(point.module, f"the entry point {point.name} of {GROUP}", f"mend it, or remove it{whose}")
        except BaseException:
            _installed_loaded = False
            raise
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise UserError(f"plugins: {name} is no name of a module: ideas/mine.py is given as plugins=[ideas.mine]")
        _import(name, f"plugins: {name}", "mend it, or leave it out")


def code_of(module: str) -> dict[str, str]:
    """What a key of the store says of the code of a plug-in: the hash of its file, so that an edit makes anew.

    It is the file as it was when the plug-in registered something. The code of the framework, which has revisions, and
    what stands in no file have none; what a plug-in imports is not looked at.
    """
    if module not in _codes:
        _codes[module] = _code(module)
    return _codes[module]


def _code(module: str) -> dict[str, str]:
    file = getattr(sys.modules.get(module), "__file__", None)
    is_own = module.partition(".")[0] in ("xai", "__main__") or file is None or not Path(file).is_file()
    return {} if is_own else {"code": fingerprint_file(Path(str(file)))[:20]}


@functools.cache
def _imported_before() -> frozenset[str]:
    """What was imported before the first plug-in; a later module may have been imported by one that registers."""
    return frozenset(sys.modules)


def _import(name: str, asked_by: str, advice: str) -> None:
    count, known = len(_registering), set(sys.modules)
    try:
        import_module(name)
    except UserError as error:
        raise UserError(f"{asked_by}: {error}") from error
    except (Exception, SystemExit) as error:
        # Whatever a foreign module raises: the user has to hear which module it was.
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{asked_by} cannot be imported ({reason}): {advice}") from error
    is_empty = len(_registering) == count and (name not in known or name in _imported_before())
    if is_empty and name not in _registering:
        if name not in known:
            sys.modules.pop(name, None)  # asked for once more in this process, it is refused once more
        raise UserError(
            f"{asked_by} registers nothing, neither itself nor by what it imports (explainers, metrics, data sets, "
            f"models or figures): {advice}"
        )
