"""Where a network from outside comes in: it is looked at once, here, so that nothing behind has to."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from xai.core.errors import Busy, UserError, check_finite

Output = str | int | Callable[[Any], Tensor] | None
_PROBES = 3
_NO_GRADIENTS = (
    "needs gradients, and the network gives none (torch.no_grad in its forward?): choose an explainer that asks for "
    "none, such as rise"
)


class Answers(nn.Module):
    """Somebody's network as one that maps normalised images [B, 3, H, W] to float32 logits [B, C].

    Args:
        network: The network.
        output: Which part of what it returns are the logits: a key, an attribute, a position, or a function; None where
            it returns nothing else.
        channels: 3, or 1 for a network of grey images, which gets the luminance.
        probabilities: Whether it ends with a softmax (or a sigmoid), which is undone; None where nobody has said.

    Attributes:
        admitted: Whether it has been looked at. From then on it may answer about more rows than there are images: an
            explainer that repeats what a layer returns has it do so.
    """

    admitted = False

    def __init__(self, network: nn.Module, output: Output, channels: int, probabilities: bool | None) -> None:
        super().__init__()
        self.network, self._output, self._channels, self.probabilities = network, output, channels, probabilities

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C], or [B, 1] of a binary classifier.

        Raises:
            UserError: What the network returns is something else.
        """
        found = self.outputs(images)
        if not self.probabilities:
            return found
        tiny = torch.finfo(found.dtype).tiny
        return found.logit(eps=1e-7) if found.shape[1] == 1 else found.clamp(min=tiny).log()

    def outputs(self, images: Tensor) -> Tensor:
        """What the network says, float32 [B, C], as it says it; errors as of `forward`."""
        if self._channels == 1:
            images = (images * images.new_tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)).sum(1, keepdim=True)
        device = next(_held(self.network), images).device
        # What is kept in whole numbers, as of a quantised network, says nothing of what it is fed.
        dtype = next((each.dtype for each in _held(self.network) if each.is_floating_point()), torch.float32)
        given = images.to(device, dtype)
        # Whoever asks has the same images explained once more; some networks normalise theirs in place.
        found = _part(self.network(given.clone() if given is images else given), self._output)
        if not isinstance(found, Tensor):
            raise UserError(
                f"the network returns {_describe(found)}, where logits [B, C] are needed: say which part they are, "
                "with output=<key, attribute, position or function>"
            )
        if found.ndim == 0 and len(images) == 1:  # of a binary network that squeezes
            found = found[None]
        fits = found.ndim > 0 and (self.admitted or len(found) == len(images))
        if found.ndim == 1 and fits:
            found = found[:, None]
        if not found.is_floating_point():
            kind = str(found.dtype).removeprefix("torch.")
            raise UserError(
                f"the network returns {kind} numbers, where logits [{len(images)}, C] are needed: give the one without "
                "its argmax, or whatever makes them of logits"
            )
        if found.ndim != 2 or not fits or not found.shape[1]:
            what = list(found.shape) if found.ndim else "one number"
            raise UserError(
                f"the network returns {what} for {len(images)} images, where logits [{len(images)}, C] "
                "are needed: say how to get them, with output=<function>"
            )
        return found.float()


def admit(
    network: nn.Module, size: int, output: Output, channels: int, probabilities: bool | None, device: torch.device
) -> Answers:
    """Look at a network, by its answers to a few images of noise, and make it one that gives logits.

    A copy is asked from then on, in evaluation mode and frozen, so that the user's own keeps its mode, its statistics
    and its gradients. Where a copy does not answer as the network does, because something of it holds on to the
    original, as hooks may, a warning says so, and the network itself is asked, which is moved to the device for it.

    Args:
        network: Whatever the user has.
        size: Side of its images.
        output: As of `Answers`, like the other two.
        channels: 3 or 1.
        probabilities: What the user says of it.
        device: Where it will be asked.

    Raises:
        UserError: It is no network; it fails on [B, 3, H, W], gives no logits, or NaN, or another answer for the same
            image in another batch; or what the user says of it is not so. In one line that says what would be right.
    """
    if not isinstance(network, nn.Module):
        raise UserError(f"the network is a {type(network).__name__}: give a torch.nn.Module")
    values = (*network.parameters(), *network.buffers())
    if any(is_lazy(each) for each in values):
        raise UserError("the network has layers whose shape is not known yet (Lazy...): let it see a batch first")
    if any(each.is_meta for each in values):
        raise UserError("the network has parameters without values (on the device meta): load its weights first")
    images = torch.randn(_PROBES, 3, size, size, generator=torch.Generator().manual_seed(0))
    twin, fault = _copy(network)
    with _evaluating(network), torch.no_grad():
        try:
            own = Answers(network, output, channels, probabilities)
            expected = own.outputs(images)
        except UserError:
            raise
        except Exception as error:  # whatever a stranger's network raises
            raise UserError(_why(network, size, error)) from error
        _check_answers(own, images, expected)
    if twin is not None:
        answers = Answers(_frozen(twin), output, channels, probabilities).eval()
        if _answers_alike(answers, images, expected):
            answers.admitted = True
            return answers
        fault = "answers otherwise"
    warnings.warn(
        f"a copy of {type(network).__name__} {fault}: the network itself is asked, and from now on it is in evaluation "
        f"mode, without gradients and on {device} (device=...)",
        stacklevel=3,
    )
    answers = Answers(_frozen(network), output, channels, probabilities).eval()
    answers.admitted = True
    return answers


def _copy(network: nn.Module) -> tuple[nn.Module | None, str]:
    """A copy; or None, and why there is none."""
    try:
        with torch.no_grad():  # the parameters of a scripted module would not be leaves otherwise
            return copy.deepcopy(network), ""
    except Exception as error:  # whatever a stranger's module keeps
        return None, f"cannot be made ({type(error).__name__}: {' '.join(str(error).split())[:120]})"


def _frozen(network: nn.Module) -> nn.Module:
    network.eval()
    for parameter in network.parameters():  # not `requires_grad_`, which a scripted module has not
        parameter.requires_grad_(False)
    return network


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a moment, part by part as it was afterwards; UserError: it has none, as what is exported."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        try:
            network.eval()
        except Exception as error:  # whatever a stranger's module makes of it
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            raise UserError(
                f"the network cannot be put into evaluation mode ({reason}): give the one that it was exported from, "
                "with the weights in it"
            ) from error
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def _answers_alike(answers: Answers, images: Tensor, expected: Tensor) -> bool:
    try:
        return alike(answers.outputs(images), expected)
    except Exception:  # whatever a copy lacks
        return False


def _check_answers(answers: Answers, images: Tensor, found: Tensor) -> None:
    """Refuse answers that could not be explained, or are not what the user says they are."""
    check_finite(found, "the network's answers to images of noise", "give one with finite outputs")
    shares = bool(((found >= 0) & (found <= 1)).all())
    # In bfloat16 each share is rounded by up to a five-hundredth.
    whole = found.shape[1] == 1 or torch.allclose(found.sum(1), torch.ones_like(found[:, 0]), atol=5e-3)
    if answers.probabilities and not (shares and whole):
        low, high = float(found.min()), float(found.max())
        several = " of one choice: of several labels explain one at a time, output=lambda found: found[:, [0]]"
        raise UserError(
            f"probabilities=True, and the network returns numbers from {low:.3g} to {high:.3g} that are none"
            + (several if shares else ": leave it out")
        )
    sums = whole and found.shape[1] > 1
    if answers.probabilities is None and shares and _stays_within(answers, images, found, constant=sums):
        if not whole:
            raise UserError(
                "the network returns numbers between 0 and 1 that do not add up to 1: of sigmoids of several labels "
                "explain one at a time, probabilities=True, output=lambda found: found[:, [0]]; say "
                "probabilities=False where they are logits"
            )
        raise UserError(
            "the network returns probabilities: give the one without its softmax (or sigmoid), or say "
            "probabilities=True; probabilities=False where they are logits"
        )
    if not alike(answers.outputs(images[:1]), found[:1], float(found.abs().max())):
        raise UserError(
            "the network gives another answer for an image when it comes in another batch: give one whose answers "
            "depend on the image alone (no batch statistics, no randomness in evaluation mode)"
        )


def _stays_within(answers: Answers, images: Tensor, found: Tensor, *, constant: bool) -> bool:
    """Whether answers between 0 and 1 are no logits, which may lie there by chance.

    Those of images a hundred times as bright do not; but where no image changes anything, as before a training, that
    says nothing, and it is so if `constant` says so, or if something is as sure as a sigmoid can be. One that is sure
    of all noise still differs in its last digits.
    """
    bright = answers.outputs(100 * images)
    if torch.equal(bright, found) and torch.equal(found, found[:1].expand_as(found)):
        return constant or bool((found > 0.98).any())
    # What is too bright for half precision is NaN, and no sign of logits.
    return not bool(((bright < 0) | (bright > 1)).any())


def alike(found: Tensor, expected: Tensor, scale: float | None = None) -> bool:
    """Whether answers [B, C] are those expected, up to rounding in half precision; `scale` of what is large."""
    found, expected = found.cpu(), expected.cpu()
    scale = float(expected.abs().max()) if scale is None else scale
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-2, atol=1e-3 * scale + 1e-6)


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Tell whatever a stranger's code raises in one line."""
    try:
        yield
    except (UserError, Busy):
        raise
    except Exception as error:
        if "does not require grad" in str(error):
            raise UserError(f"{what} {_NO_GRADIENTS}") from error
        raise UserError(f"{what} failed ({type(error).__name__}: {' '.join(str(error).split())[:160]})") from error


def lacking(network: nn.Module, image: Tensor) -> dict[str, str]:
    """By what explainers need (`gradients`, `features`), why a network of images [1, 3, H, W] has none."""
    found = {}
    if any(isinstance(each, torch.jit.ScriptModule) for each in network.modules()):
        found["features"] = "needs what layers return, and of a scripted module nobody can watch them"
    device = next(network.parameters(), image).device
    with torch.enable_grad():
        if not network(image.to(device, copy=True).requires_grad_()).requires_grad:
            found["gradients"] = _NO_GRADIENTS
    return found


def _held(network: nn.Module) -> Iterator[Tensor]:
    """Parameters, then buffers."""
    yield from network.parameters()
    yield from network.buffers()


def _part(found: Any, output: Output) -> Any:
    if output is None:
        return found
    try:
        if callable(output):
            return output(found)
        return getattr(found, output) if isinstance(output, str) and hasattr(found, output) else found[output]
    except Exception:
        asked = "the function" if callable(output) else repr(output)
        raise UserError(f"output={asked} finds no part of what the network returns, {_describe(found)}") from None


def _describe(found: Any) -> str:
    if isinstance(found, dict):
        return f"a dict of {', '.join(map(str, list(found)[:6]))}"
    if isinstance(found, (tuple, list)):
        return f"a {type(found).__name__} of {len(found)}"
    return f"a {type(found).__name__}"


def _why(network: nn.Module, size: int, error: Exception) -> str:
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None and first.in_channels != 3:
        advice = "say channels=1" if first.in_channels == 1 else "give a network of RGB images"
        return f"the network takes images of {first.in_channels} channels: {advice}"
    reason = " ".join(str(error).split())[:160]
    return f"the network fails on images [B, 3, {size}, {size}] ({type(error).__name__}: {reason}): say image_size=..."
