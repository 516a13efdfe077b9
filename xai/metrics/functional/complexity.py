"""How many places a map needs to say what it says; [N, ...] to float64 [N], NaN where it says nothing."""

import torch
from torch import Tensor


def gini(maps: Tensor) -> Tensor:
    """Gini index of the sizes of attributions (Chalasani et al. 2020, section 5; Hurley and Rickard 2009).

    0 where all are equal; 1 - 1 / M where one of M has everything.
    """
    sizes = _sizes(maps).sort(dim=1).values
    places = sizes.shape[1]
    order = torch.arange(1, places + 1, dtype=torch.float64, device=sizes.device)
    return 1 - 2 * (sizes / sizes.sum(1, keepdim=True) * (places - order + 0.5) / places).sum(1)


def entropy(maps: Tensor) -> Tensor:
    """Entropy of the sizes of attributions (Bhatt et al. 2020, definition 4), of the largest there can be.

    In [0, 1]: a division by ln M, so that maps of patches and of pixels can be compared.
    """
    sizes = _sizes(maps)
    shares = sizes / sizes.sum(1, keepdim=True)
    largest = torch.tensor(float(max(sizes.shape[1], 2)), dtype=torch.float64, device=sizes.device).log()
    return torch.special.entr(shares).sum(1) / largest


def _sizes(maps: Tensor) -> Tensor:
    return maps.detach().flatten(1).double().abs()
