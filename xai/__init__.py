"""Explain an image classifier: with the methods there are, and with explainers that learn to do it in one pass.

    import xai
    model = xai.load("mine.pt", architecture="resnet18", classes=["cat", "dog"])
    maps = xai.explain(model, images, "rise")
    frame = xai.compare(model, images, explainers=["grad_cam", "rise"], metrics=["difference_auc"])
    figure = xai.show(images, maps)

These names are imported when they are first used, so that `import xai` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xai.api.comparing import compare, explainers, metrics
    from xai.api.explaining import explain
    from xai.api.fitting import fit
    from xai.api.loading import load
    from xai.api.model import Model, wrap
    from xai.api.ready import explainer
    from xai.api.showing import show

__version__ = "0.1.0"

_HOMES = {
    "compare": "comparing",
    "explainers": "comparing",
    "metrics": "comparing",
    "explain": "explaining",
    "explainer": "ready",
    "fit": "fitting",
    "load": "loading",
    "Model": "model",
    "wrap": "model",
    "show": "showing",
}
__all__ = [  # noqa: RUF022 - in the order in which they are used
    "load", "wrap", "Model", "explain", "compare", "show", "fit", "explainer", "explainers", "metrics"
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'xai' has no attribute {name!r}: it has {', '.join(__all__)}")
    if name in ("explainers", "metrics"):
        return import_module(f"xai.{name}")  # a package that can be called
    return getattr(import_module(f"xai.api.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
