"""FullGrad as an explainer (Srinivas and Fleuret 2019): the gradients of the input and of every bias."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from xai.explainers.posthoc.baselines import BaselineExplainer, BaselineParams
from xai.explainers.posthoc.cams import stretch
from xai.explainers.posthoc.gradients import PixelGradients
from xai.explainers.posthoc.rectifiers import Rectified
from xai.explainers.registry import explainer


@explainer(
    "full_grad",
    label="FullGrad",
    about="gradients with respect to the pixels and to the bias of every convolution, times what they are gradients of",
    params=BaselineParams,
    needs={"gradients"},
    passes=lambda params, patches: 3,
)
class FullGrad(Rectified, BaselineExplainer[BaselineParams]):
    """Explains with one forward and one backward pass.

    A network of rectifiers answers with what its input and its biases, times their gradients, add up to (the paper's
    equation 2). The map is their magnitudes, each channel stretched to [0, 1], scaled up to the pixels and added up
    (equation 9); the sum is stretched again, as in pytorch-grad-cam. Evidence against a class looks like evidence for
    it. Biases of linear layers have no place in the image and are left out, as in the paper.
    """

    name, within = "full_grad", torch.mean

    def pixels(self, gradients: PixelGradients, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Equation 9, stretched to [0, 1] image by image."""
        with Biases() as biases:
            of_input, *of_biases = gradients.within(images, targets, biases.outputs)
        total = stretch((of_input * (images - self.baseline(images))).abs()).sum(1)
        for gradient, bias in zip(of_biases, biases.values, strict=True):
            # Scaling up is linear: the sum over the channels may go before it.
            cells = stretch((gradient * bias.to(gradient)[:, None, None]).abs()).sum(1, keepdim=True)
            total = total + F.interpolate(cells, images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        return stretch(total)


class Biases(TorchFunctionMode):
    """While it is entered, it keeps the biases of convolutions and batch norms, and what they were added to.

    A batch norm in evaluation mode adds beta - mean gamma / sqrt(variance + eps): its implicit bias (the paper's
    appendix C). Functions are watched and not modules: activations fused into a norm, layers that run twice and what
    goes on in place are all seen at the right place.

    Attributes:
        values: [D] each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Tensor] = []
        self._outputs: list[Tensor] = []

    def outputs(self) -> list[Tensor]:
        """[B, D, h, w] each, with the bias in them."""
        return self._outputs

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function, and keep its output if a bias was added to it."""
        named = kwargs or {}
        found = function(*args, **named)
        bias = _BIASES[function](*args, **named) if function in _BIASES else None
        if bias is None or not found.requires_grad:
            return found
        self.values.append(bias)
        self._outputs.append(found)
        # A copy, because networks go on in place.
        return found.clone()


def _of_convolution(input: Tensor, weight: Tensor, bias: Tensor | None = None, *_: Any, **__: Any) -> Tensor | None:
    return bias


def _of_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    if input.ndim != 4 or training or running_mean is None or running_var is None:
        return None
    scale = (running_var + eps).rsqrt() * (1 if weight is None else weight)
    return (0 if bias is None else bias) - running_mean * scale


_BIASES: dict[Any, Callable[..., Tensor | None]] = {F.conv2d: _of_convolution, F.batch_norm: _of_batch_norm}
