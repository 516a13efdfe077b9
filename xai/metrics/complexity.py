"""How concentrated maps are: by the Gini index and by their entropy. Neither end is the right one."""

from torch import Tensor

from xai.metrics import functional
from xai.metrics.registry import Column, Measured, given, metric


@metric(
    "complexity",
    columns=(
        Column(
            "sparseness",
            "Sparseness",
            "Gini index of the sizes of attributions: 0 where all are equal, near 1 where one has everything.",
            better=None,
        ),
        Column(
            "entropy",
            "Complexity",
            "Entropy of the sizes of attributions, of the largest there can be: 1 where all are equal, 0 where one has "
            "everything.",
            better=None,
        ),
    ),
    needs={"maps"},
)
def complexity(block: Measured, params: object) -> dict[str, Tensor]:
    """Sparseness (Chalasani et al. 2020) and complexity (Bhatt et al. 2020)."""
    maps = given(block.maps)
    return {"sparseness": functional.gini(maps), "entropy": functional.entropy(maps)}
