"""A classifier that other people's code may run, and differentiate, without changing it."""

from collections.abc import Callable
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Frozen(nn.Module):
    """A network behind glass: libraries of explanations reset the gradients and the mode of what they are given.

    It has none of the network's parameters, so gradients flow to images and to activations only. It works on networks
    made in inference mode too, once that mode is left.

    Args:
        network: Maps images [B, 3, H, W] to logits [B, C].
        device: Where the network is.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        tensors = chain(network.named_parameters(), network.named_buffers())
        # What was made in inference mode cannot take part in a graph, not even as a constant.
        state = {name: value.clone() if value.is_inference() else value.detach() for name, value in tensors}
        self._logits: Callable[[tuple[Tensor, ...]], Tensor] = partial(functional_call, network, state)
        # pytorch-grad-cam takes the device from the first parameter.
        self._device = nn.Parameter(torch.empty(0, device=device), requires_grad=False)

    def forward(self, images: Tensor, *more: Tensor) -> Tensor:
        """Logits [B, C] of images [B, 3, H, W]; or whatever the network makes of them and of `more`."""
        return self._logits((images, *more))
