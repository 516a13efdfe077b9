"""Other cases that a metric may want the same row's maps of: images with noise, a classifier whose weights are random.

A metric names its variations when it is registered; whoever runs it makes the maps, keeps them as all other maps are
kept, and hands them over as `Measured.again`. So a metric never calls an explainer, two metrics that vary a case in the
same way share the maps, and a killed run goes on where it was.
"""

import copy
import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from xai.core import plugins
from xai.core.errors import UserError

N = TypeVar("N", bound=nn.Module)

_PRIME = 7919


@dataclass(frozen=True)
class Variation:
    """A case that is explained again: the same images and classes but for what a subclass changes."""

    changes_network: ClassVar[bool] = False
    """Whether it is the network that is another one."""

    def images(self, images: Tensor, seed: int) -> Tensor:
        """What is explained in place of images [B, 3, H, W] in [0, 1]; `seed` is that of the block."""
        return images

    def network(self, network: N) -> N:
        """What is asked in place of a network, which itself stays as it is."""
        return network

    @property
    def spec(self) -> dict[str, Any]:
        """What determines it; of one's own also its code."""
        return {"kind": type(self).__name__, **asdict(self), **plugins.code_of(type(self).__module__)}


@dataclass(frozen=True)
class Noise(Variation):
    """Images with noise, uniform in [-radius, radius] for each number of each pixel and kept within [0, 1].

    Args:
        radius: In shares of the range of a pixel.
        draw: Which of several draws.
    """

    radius: float
    draw: int = 0

    def images(self, images: Tensor, seed: int) -> Tensor:
        """The images with noise of their own."""
        generator = torch.Generator().manual_seed(_PRIME * seed + self.draw + 1)
        noise = torch.rand(images.shape, generator=generator, dtype=images.dtype).to(images.device)
        return (images + self.radius * (2 * noise - 1)).clamp(0, 1)


@dataclass(frozen=True)
class RandomWeights(Variation):
    """A network of which a share of the layers, counted from the output, has lost what it learned; see `randomise`.

    Args:
        share: Of the layers, in (0, 1].
        draw: Which of several draws.
    """

    changes_network: ClassVar[bool] = True
    share: float = 1.0
    draw: int = 0

    def network(self, network: N) -> N:
        """A copy, randomised."""
        return randomise(network, self.share, torch.Generator().manual_seed(self.draw))


def randomise(network: N, share: float, generator: torch.Generator) -> N:
    """A copy of a network whose upper layers have their weights shuffled (Adebayo et al. 2018, section 3).

    Each tensor of weights is shuffled within itself: what was learned is gone, and the sizes of weights, which keep
    activations from dying and exploding, stay. A layer is whatever holds weights of its own, in the order in which the
    network was built; with `share` below 1 the network is randomised from the top down, as in the paper's cascade.

    Args:
        network: It stays as it is.
        share: Of the layers, from the last one on; rounded up to whole layers.
        generator: On the CPU.
    """
    changed = copy.deepcopy(network)
    layers = [module for module in changed.modules() if any(True for _ in module.parameters(recurse=False))]
    seen: set[int] = set()
    with torch.no_grad():
        for layer in layers[len(layers) - math.ceil(share * len(layers)) :]:
            for weight in layer.parameters(recurse=False):
                if id(weight) not in seen:
                    seen.add(id(weight))
                    order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
                    weight.copy_(weight.flatten()[order].reshape(weight.shape))
    return changed


@torch.no_grad()
def calibrate(network: nn.Module, images: Tensor) -> None:
    """Let the batch norms of a network, in place, normalise by what images [B, 3, H, W] give under its weights.

    Means and deviations that were counted under other weights would drive a deep network's answers to one class.

    Raises:
        UserError: A batch norm sees but one value of each channel.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches, of which there is one
        norm.train()
    try:
        network(images)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        what = "the batch norms of a network with random weights cannot be measured by one image of one cell"
        raise UserError(f"{what}: explain two or more in a block (case.block), or leave randomisation out") from error
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
