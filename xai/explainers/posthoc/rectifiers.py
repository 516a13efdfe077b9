"""Networks that are linear but for their rectifiers, which two explainers by gradients are about."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from xai.core.errors import UserError
from xai.models.maskable import MaskableClassifier
from xai.models.packed import TransformerClassifier

_RECTIFIERS = (nn.ReLU, nn.ReLU6)
_CURVED = (
    *(nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.ELU, nn.CELU, nn.SELU),
    *(nn.LeakyReLU, nn.PReLU, nn.Softplus, nn.Tanh),
)


class Rectified:
    """An explainer of convolutional networks whose activations are all ReLU; stands before the base it is mixed into.

    Gates by a sigmoid, as of squeeze and excitation, are no activations.

    Raises:
        UserError: Where there is no ReLU, or another activation beside it.
    """

    name: str

    def __init__(self, classifier: MaskableClassifier, params: Any) -> None:
        network = type(getattr(classifier, "network", classifier)).__name__
        parts = list(classifier.modules())
        others = sorted({type(part).__name__ for part in parts if isinstance(part, _CURVED)})
        reason = None
        if isinstance(classifier, TransformerClassifier):
            reason = f"{network} is a transformer"
        elif others:
            reason = f"{network} has {', '.join(others)}"
        elif not any(isinstance(part, _RECTIFIERS) for part in parts):
            reason = f"{network} has no layer nn.ReLU or nn.ReLU6"
        if reason is not None:
            raise UserError(
                f"{self.name} is for convolutional networks whose activations are all ReLU, and {reason}: use "
                "smoothgrad or integrated_gradients"
            )
        super().__init__(classifier, params)  # type: ignore[call-arg]


class Guided(TorchFunctionMode):
    """While it is entered, no rectifier lets a negative gradient pass (Springenberg et al. 2015, section 3.4).

    It looks at the functions that are called and leaves modules alone: rectifiers that are no modules, modules that
    run twice and those that work in place are all the same to it.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function, and if it is a rectifier stop what is negative of its gradient."""
        named = dict(kwargs or {})
        if not _rectifies(function, args, named):
            return function(*args, **named)
        values, *more = args or (named.pop("input"),)
        copy = _positive_gradient(values)
        found = function(copy, *more, **named)
        # In place it is the network's own tensor that changes, whether what is returned is taken or not.
        return values.copy_(found) if found is copy else found


def _rectifies(function: Any, args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    if function is F.hardtanh:
        # As which nn.ReLU6 is written.
        return (args[1] if len(args) > 1 else named.get("min_val", -1.0)) == 0
    return function in (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6)


def _positive_gradient(values: Tensor) -> Tensor:
    """The same values, with only the positive part of their gradient."""
    copy = values.clone()
    if copy.requires_grad:
        copy.register_hook(torch.relu)
    return copy
