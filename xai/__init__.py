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
    from xai.api.explaining import explain, explainer
    from xai.api.fitting import fit
    from xai.api.loading import load
    from xai.api.model import Model, wrap
    from xai.api.showing import show
    from xai.data.registry import register as register_data
    from xai.explainers.registry import explainer as register_explainer
    from xai.metrics.registry import metric as register_metric
    from xai.models.families import register as register_model

__version__ = "0.1.0"

_HOMES = {
    "compare": "api.comparing.compare",
    "explain": "api.explaining.explain",
    "explainer": "api.explaining.explainer",
    "fit": "api.fitting.fit",
    "load": "api.loading.load",
    "Model": "api.model.Model",
    "wrap": "api.model.wrap",
    "show": "api.showing.show",
    "register_explainer": "explainers.registry.explainer",
    "register_metric": "metrics.registry.metric",
    "register_data": "data.registry.register",
    "register_model": "models.families.register",
}
__all__ = [  # noqa: RUF022 - in the order in which they are used
    "load", "wrap", "Model", "explain", "compare", "show", "fit", "explainer", "explainers", "metrics",
    "register_explainer", "register_metric", "register_data", "register_model",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'xai' has no attribute {name!r}: it has {', '.join(__all__)}")
    if name not in _HOMES:
        return import_module(f"xai.{name}")  # a package that can be called
    home, _, own = _HOMES[name].rpartition(".")
    return getattr(import_module(f"xai.{home}"), own)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
