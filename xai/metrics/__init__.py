"""How good an attribution map is: pure functions, a registry of metrics over them, and torchmetrics made from it.

`torchmetric("rma")` is a torchmetric of a column. The package can be called: `xai.metrics()` lists what there is.
"""

from typing import TYPE_CHECKING, Any

from xai.core.calling import make_callable
from xai.metrics.registry import columns, entry, metric, metric_of, names

if TYPE_CHECKING:
    from xai.metrics.streaming import torchmetric

__all__ = ["columns", "entry", "metric", "metric_of", "names", "torchmetric"]

make_callable(__name__)


def __getattr__(name: str) -> Any:
    if name != "torchmetric":
        raise AttributeError(f"module 'xai.metrics' has no attribute {name!r}: it has {', '.join(__all__)}")
    from xai.metrics.streaming import torchmetric  # with torchmetrics, which takes as long as all else

    return torchmetric
