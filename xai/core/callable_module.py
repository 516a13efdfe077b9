"""A package that can be called: `xai.explainers` holds the explainers, and `xai.explainers(model)` lists them."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **settings: Any) -> Any:
        home = import_module("xai.api.comparing")
        return getattr(home, self.__name__.rpartition(".")[2])(*args, **settings)


def make_callable(name: str) -> None:
    """Let calls of a package go to the function of its name in `xai.api`.

    The package and the function have one name, because it is the word of the field for both; whichever is imported
    first, `xai.<name>` is the package afterwards.
    """
    sys.modules[name].__class__ = _Callable
