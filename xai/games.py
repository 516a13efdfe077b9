"""The second contract: a game whose players are the patches of an image. THE hot path of everything here."""

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.core.launching import own_cores
from xai.models.maskable import PIXELS_A_TOKEN, Encoded, MaskableClassifier, Rows, sort_rows

_TOKENS_AT_ONCE = {"cpu": 1600, "cuda": 1 << 16}
"""Tokens decoded in one pass: on a GPU what keeps it busy, on a CPU what its caches hold. There that is 8 images of 224
px, whose largest activations in a ResNet are 26 MB: pieces of 32 MB or more glibc gives back each time, and gets them
cleared anew, which took a seventh of the time."""

_SECONDS_WORTH_A_THREAD = 0.002
"""A chunk that takes less is not faster on two cores: a CLIP of three layers took a fifth longer there."""

_OUT_OF_MEMORY = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""What errors say that are of memory and of no type of their own."""


OUTPUTS = ("probability", "logit", "centred_logit")


def read_out(logits: Tensor, output: str) -> Tensor:
    """What is explained of logits [..., C], of the same shape.

    `probability` is their softmax, `logit` they themselves; `centred_logit` is less the mean over classes, so that what
    moves all classes alike is no part of it.
    """
    if output == "probability":
        return logits.softmax(-1)
    return logits if output == "logit" else logits - logits.mean(-1, keepdim=True)


def asked_at_once(images: Tensor) -> int:
    """How many images of the size and on the device of `images` [B, 3, H, W] are classified in one pass."""
    budget = _TOKENS_AT_ONCE.get(images.device.type, _TOKENS_AT_ONCE["cuda"])
    return max(1, budget // max(1, images.shape[-2] * images.shape[-1] // PIXELS_A_TOKEN))


class PatchGame:
    """The value function v(S) of many images and many coalitions at once.

    Args:
        classifier: A maskable classifier.
        images: [B, 3, H, W] in [0, 1].
        targets: [B] class indices, [B, K] of several for each image, or None for the values of every class.
        output: `probability`, `logit` or `centred_logit`, see `read_out`.
        tokens: Tokens decoded in one pass; None takes what suits the device. What does not fit into memory is halved
            until it does.
    """

    def __init__(
        self,
        classifier: MaskableClassifier,
        images: Tensor,
        targets: Tensor | None = None,
        *,
        output: str = "probability",
        tokens: int | None = None,
    ) -> None:
        if output not in OUTPUTS:
            raise ValueError(f"output={output!r} is unknown: use one of {', '.join(OUTPUTS)}")
        if targets is not None and (targets.ndim not in (1, 2) or len(targets) != len(images)):
            raise ValueError(
                f"targets are {list(targets.shape)}, the game needs one class for each of {len(images)} images, or "
                "several, [B, K]"
            )
        self._classifier, self._output = classifier, output
        self.players = classifier.players
        self._images, self.device = len(images), images.device
        self._targets = None if targets is None else targets.to(self.device)
        self._tokens = tokens or _TOKENS_AT_ONCE.get(self.device.type, _TOKENS_AT_ONCE["cuda"])
        # A foreign network may keep something while it runs, and is left to one thread.
        alone = classifier.foreign or self.device.type != "cpu"
        self._workers = 1 if alone else max(1, own_cores() // torch.get_num_threads())
        with torch.inference_mode():
            self._encoded = self._encode(images)

    @torch.inference_mode()
    def value(self, coalitions: Tensor) -> Tensor:
        """Values of coalitions.

        Args:
            coalitions: Bool [B, S, M], or [S, M] where all images share them; True is present. Kept on the CPU they
                cost one transfer a call.

        Returns:
            [B, S, C], or of the targets, [B, S] or [B, S, K]. The same numbers, however the work is cut into chunks.

        Raises:
            ValueError: Where shape or type of the coalitions is another.
            UserError: Where memory does not hold a single masked image.
        """
        if coalitions.ndim == 2:
            coalitions = coalitions.expand(self._images, -1, -1)
        fits = coalitions.ndim == 3 and coalitions.shape[0] == self._images and coalitions.shape[2] == self.players
        if not fits or coalitions.dtype != torch.bool or not coalitions.numel():
            given = f"{coalitions.dtype} {list(coalitions.shape)}"
            raise ValueError(
                f"coalitions are {given}, the game needs torch.bool [{self._images}, S, {self.players}], S >= 1"
            )
        keep = coalitions.reshape(-1, self.players)
        # Coalitions of one size lie side by side: no padding is computed.
        order, groups = sort_rows(keep)
        keep, order = keep[order].to(self.device), order.to(self.device)
        rows = Rows(keep, order.div(coalitions.shape[1], rounding_mode="floor"), groups)
        chunks = list(split(rows, self._classifier.cost, self._tokens))
        sorted_values = torch.cat(_map(self._decode, chunks, self._workers))
        values = torch.empty_like(sorted_values)
        values[order] = sorted_values
        return values.reshape(self._images, coalitions.shape[1], *values.shape[1:])

    def _encode(self, images: Tensor) -> Encoded:
        try:
            return self._classifier.encode(images)
        except Exception as error:
            _give_way(error, "encode", halvable=len(images) > 1)
        parts = [self._encode(half) for half in images.chunk(2)]
        return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))

    def _decode(self, rows: Rows) -> Tensor:
        cost = sum(count * self._classifier.cost(size) for count, size in rows.groups)
        # The budget may have shrunk since this chunk was cut.
        if cost <= self._tokens or len(rows.keep) == 1:
            try:
                return self._values(rows)
            except Exception as error:
                _give_way(error, "decode", halvable=len(rows.keep) > 1)
            # Outside the handler: the error holds on to the tensors of the pass that failed.
            self._tokens = min(self._tokens, cost // 2)
        return torch.cat([self._decode(part) for part in split(rows, self._classifier.cost, self._tokens)])

    def _values(self, rows: Rows) -> Tensor:
        logits = self._classifier.decode(self._encoded, rows).float()
        values = read_out(logits, self._output)
        if self._targets is None:
            return values
        targets = self._targets[rows.owner]
        return values.gather(1, targets) if targets.ndim == 2 else values.gather(1, targets[:, None])[:, 0]


class OneClass:
    """One of the K classes of a game, for whoever plays for one: what was asked for another of them is not asked again.

    Args:
        game: With targets [B, K].
        column: Which of the K.
        answers: Of coalitions that were asked; the columns of one game share it.
    """

    def __init__(self, game: PatchGame, column: int, answers: dict[bytes, Tensor]) -> None:
        self.players, self._game, self._column, self._answers = game.players, game, column, answers

    def value(self, coalitions: Tensor) -> Tensor:
        """Values [B, S] of coalitions, as of a game with this class alone."""
        asked = hashlib.sha256(coalitions.cpu().numpy().tobytes()).digest()
        if asked not in self._answers:
            self._answers[asked] = self._game.value(coalitions)
        return self._answers[asked][..., self._column].contiguous()


def split(rows: Rows, cost: Callable[[int], int], budget: int) -> Iterator[Rows]:
    """Cut coalitions into chunks that cost at most `budget`, in order; a chunk holds one coalition at least."""
    start = end = spent = 0
    groups: list[tuple[int, int]] = []
    for count, size in rows.groups:
        each = cost(size)
        while count:
            fitting = max(0, min(count, (budget - spent) // each))
            if not fitting and groups:
                yield Rows(rows.keep[start:end], rows.owner[start:end], groups)
                start, spent, groups = end, 0, []
                continue
            fitting = max(1, fitting)
            groups.append((fitting, size))
            end, spent, count = end + fitting, spent + fitting * each, count - fitting
    yield Rows(rows.keep[start:end], rows.owner[start:end], groups)


def _give_way(error: Exception, what: str, *, halvable: bool) -> None:
    """Return where less work at once may fit into memory; raise otherwise."""
    told = any(sign in str(error) for sign in _OUT_OF_MEMORY)
    if not told and not isinstance(error, torch.OutOfMemoryError | MemoryError):
        raise error
    if not halvable:
        raise UserError(f"not enough memory to {what} a single image: free some, or use a smaller model") from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _map(function: Callable[[Rows], Tensor], chunks: list[Rows], workers: int) -> list[Tensor]:
    """Apply a function to chunks of work, on the processor cores that torch's own threads leave idle.

    A small network does not fill two cores from within: its operations are over before a second thread has started.
    Whole chunks side by side do, unless each is over in a moment: that is Python for the most part, which runs in one
    thread at a time. Inference mode and autocast belong to a thread, so every worker enters them anew.
    """
    if workers == 1 or len(chunks) == 1:
        return [function(chunk) for chunk in chunks]
    start = time.perf_counter()
    first = function(chunks[0])
    if time.perf_counter() - start < _SECONDS_WORTH_A_THREAD:
        return [first, *map(function, chunks[1:])]
    precision, mixed = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")

    @torch.inference_mode()
    def work(chunk: Rows) -> Tensor:
        with torch.autocast("cpu", precision, mixed):
            return function(chunk)

    with ThreadPoolExecutor(workers) as pool:
        return [first, *pool.map(work, chunks[1:])]
