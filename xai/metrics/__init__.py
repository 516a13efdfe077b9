"""How good an attribution map is: pure functions, a registry of metrics over them, and torchmetrics made from it.

`torchmetric("rma")` is a torchmetric of a column. The package can be called: `xai.metrics()` lists what there is.
"""

from xai.core.callable_module import make_callable
from xai.metrics.registry import columns, entry, metric, metric_of, names
from xai.metrics.streaming import torchmetric

__all__ = ["columns", "entry", "metric", "metric_of", "names", "torchmetric"]

make_callable(__name__)
