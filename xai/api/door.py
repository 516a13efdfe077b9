"""Where a network from outside comes in: it is looked at once, here, so that nothing behind has to."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from xai.core.errors import UserError
from xai.core.finite import check_finite

Output = str | int | Callable[[Any], Tensor] | None
_PROBES = 3


class Answers(nn.Module):
    """Somebody's network as one that maps normalised images [B, 3, H, W] to float32 logits [B, C].

    Args:
        network: The network.
        output: Which part of what it returns are the logits: a key, an attribute, a position, or a function; None where
            it returns nothing else.
        channels: 3, or 1 for a network of grey images, which gets the luminance.
        probabilities: Whether it ends with a softmax (or a sigmoid), which is undone.

    Attributes:
        admitted: Whether it has been looked at. From then on it may answer about more rows than there are images: an
            explainer that repeats what a layer returns has it do so.
    """

    admitted = False

    def __init__(self, network: nn.Module, output: Output, channels: int, probabilities: bool) -> None:
        super().__init__()
        self.network, self._output, self._channels, self._probabilities = network, output, channels, probabilities

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C], or [B, 1] of a binary classifier.

        Raises:
            UserError: What the network returns is something else.
        """
        if self._channels == 1:
            images = (images * images.new_tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)).sum(1, keepdim=True)
        parameter = next(self.network.parameters(), images)
        found = _part(self.network(images.to(parameter.dtype)), self._output)
        if not isinstance(found, Tensor):
            raise UserError(
                f"the network returns {_describe(found)}, where logits [B, C] are needed: say which part they are, "
                "with output=<key, attribute, position or function>"
            )
        fits = self.admitted or len(found) == len(images)
        if found.ndim == 1 and fits:
            found = found[:, None]
        if found.ndim != 2 or not fits:
            raise UserError(
                f"the network returns {list(found.shape)} for {len(images)} images, where logits [{len(images)}, C] "
                "are needed: say how to get them, with output=<function>"
            )
        found = found.float()
        if not self._probabilities:
            return found
        tiny = torch.finfo(found.dtype).tiny
        return found.logit(eps=1e-7) if found.shape[1] == 1 else found.clamp(min=tiny).log()


def copied(network: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode, frozen: the user's own keeps its mode, its statistics, its gradients.

    Raises:
        UserError: It is no network, or cannot be copied.
    """
    if not isinstance(network, nn.Module):
        raise UserError(f"the network is a {type(network).__name__}: give a torch.nn.Module")
    try:
        twin = copy.deepcopy(network)
    except Exception as error:  # whatever a stranger's module keeps
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"{type(network).__name__} cannot be copied ({type(error).__name__}: {reason}): give a network that "
            "copy.deepcopy copies"
        ) from error
    return twin.eval().requires_grad_(False)


def admit(answers: Answers, size: int) -> int:
    """Ask a network about a few images of noise, and refuse what could not be explained.

    Args:
        answers: The network, in evaluation mode, on the CPU.
        size: Side of its images.

    Returns:
        C, how many logits it gives; 1 of a binary classifier.

    Raises:
        UserError: It fails on [B, 3, H, W], gives no logits, or NaN, or another answer for the same image in another
            batch; in one line that says what would be right.
    """
    images = torch.randn(_PROBES, 3, size, size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            logits = answers(images)
            alone = answers(images[:1])
    except UserError:
        raise
    except Exception as error:  # whatever a stranger's network raises
        raise UserError(_why(answers.network, size, error)) from error
    check_finite(logits, "the network's answers to images of noise", "give one with finite outputs")
    if logits.shape[1] > 1 and not answers._probabilities and _is_softmax(logits):
        raise UserError(
            "the network returns probabilities: give the one without its softmax, or say probabilities=True"
        )
    if not torch.allclose(logits[:1], alone, rtol=1e-2, atol=1e-3 * float(logits.abs().max()) + 1e-6):
        raise UserError(
            "the network gives another answer for an image when it comes in another batch: give one whose answers "
            "depend on the image alone (no batch statistics, no randomness in evaluation mode)"
        )
    answers.admitted = True
    return logits.shape[1]


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Tell whatever a stranger's code raises in one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} failed ({type(error).__name__}: {' '.join(str(error).split())[:160]})") from error


def _part(found: Any, output: Output) -> Any:
    if output is None:
        return found
    if callable(output):
        return output(found)
    try:
        return getattr(found, output) if isinstance(output, str) and hasattr(found, output) else found[output]
    except Exception:
        raise UserError(f"output={output!r} is no part of what the network returns, {_describe(found)}") from None


def _describe(found: Any) -> str:
    if isinstance(found, dict):
        return f"a dict of {', '.join(map(str, list(found)[:6]))}"
    if isinstance(found, (tuple, list)):
        return f"a {type(found).__name__} of {len(found)}"
    return f"a {type(found).__name__}"


def _is_softmax(outputs: Tensor) -> bool:
    return bool((outputs >= 0).all()) and torch.allclose(outputs.sum(1), torch.ones(len(outputs)), atol=1e-3)


def _why(network: nn.Module, size: int, error: Exception) -> str:
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None and first.in_channels != 3:
        advice = "say channels=1" if first.in_channels == 1 else "give a network of RGB images"
        return f"the network takes images of {first.in_channels} channels: {advice}"
    reason = " ".join(str(error).split())[:160]
    return f"the network fails on images [B, 3, {size}, {size}] ({type(error).__name__}: {reason}): say image_size=..."
