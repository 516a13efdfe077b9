"""How good an attribution map is: pure functions, a registry of metrics over them, and torchmetrics made from it.

`torchmetric("rma")` is a torchmetric of a column.
"""

from xai.metrics.registry import columns, entry, metric, metric_of, names
from xai.metrics.streaming import torchmetric

__all__ = ["columns", "entry", "metric", "metric_of", "names", "torchmetric"]
