"""The second contract: a game whose players are the patches of an image. THE hot path of everything here."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from xai.models.maskable import MaskableClassifier

_TOKENS_AT_ONCE = 1 << 14
"""Patches decoded in one pass on a CPU; more only spills the caches."""


class PatchGame:
    """The value function v(S) of many images and many coalitions at once.

    Args:
        classifier: A maskable classifier.
        images: [B, 3, H, W] in [0, 1].
        targets: [B] class indices, or None for the values of every class.
        output: `probability` (softmax) or `logit`.
        rows: Coalitions decoded in one pass; None chooses.
    """

    def __init__(
        self,
        classifier: MaskableClassifier,
        images: Tensor,
        targets: Tensor | None = None,
        *,
        output: str = "probability",
        rows: int | None = None,
    ) -> None:
        if output not in ("probability", "logit"):
            raise ValueError(f"output={output!r} is unknown: use 'probability' or 'logit'")
        if targets is not None and targets.shape != (len(images),):
            raise ValueError(
                f"targets are {list(targets.shape)}, the game needs one class for each of {len(images)} images"
            )
        self._classifier, self._targets, self._output = classifier, targets, output
        self.players = classifier.grid[0] * classifier.grid[1]
        self._rows = rows or max(1, _TOKENS_AT_ONCE // self.players)
        with torch.inference_mode():
            self._encoded = classifier.encode(images)

    @torch.inference_mode()
    def value(self, coalitions: Tensor) -> Tensor:
        """Values of coalitions.

        Args:
            coalitions: Bool [B, S, M], or [S, M] where all images share them; True is present.

        Returns:
            [B, S, C], or [B, S] where targets were given. The same numbers, however the work is cut into chunks.

        Raises:
            ValueError: Where shape or type of the coalitions is another.
        """
        images = len(self._encoded)
        if coalitions.ndim == 2:
            coalitions = coalitions.expand(images, -1, -1)
        fits = coalitions.ndim == 3 and coalitions.shape[0] == images and coalitions.shape[2] == self.players
        if not fits or coalitions.dtype != torch.bool or not coalitions.numel():
            given = f"{coalitions.dtype} {list(coalitions.shape)}"
            raise ValueError(f"coalitions are {given}, the game needs torch.bool [{images}, S, {self.players}], S >= 1")
        keep = coalitions.reshape(-1, self.players).to(self._encoded.device)
        owner = torch.arange(images, device=keep.device).repeat_interleave(coalitions.shape[1])
        # Coalitions of one size make one dense batch: no padding is computed.
        order = keep.sum(1).argsort(stable=True)
        parts = _map(lambda rows: self._decode(owner[rows], keep[rows]), self._chunks(order, keep))
        values = torch.empty(len(keep), *parts[0].shape[1:], device=keep.device, dtype=parts[0].dtype)
        values[order] = torch.cat(parts)
        return values.reshape(images, coalitions.shape[1], *values.shape[1:])

    def _chunks(self, order: Tensor, keep: Tensor) -> list[Tensor]:
        sizes = keep.sum(1)[order]
        groups = order.split(torch.unique_consecutive(sizes, return_counts=True)[1].tolist())
        return [chunk for group in groups for chunk in group.split(self._rows)]

    def _decode(self, owner: Tensor, keep: Tensor) -> Tensor:
        logits = self._classifier.decode(self._encoded[owner], keep).float()
        values = logits.softmax(-1) if self._output == "probability" else logits
        if self._targets is None:
            return values
        return values.gather(1, self._targets.to(owner)[owner][:, None])[:, 0]


def _cores() -> int:
    # Only Linux tells which of the machine's cores this process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _map(function: Callable[[Tensor], Tensor], chunks: list[Tensor]) -> list[Tensor]:
    """Apply a function to chunks of work, on the processor cores that torch's own threads leave idle.

    A small network does not fill two cores from within: its operations are over before a second thread has started.
    Whole chunks side by side do. Inference mode and autocast belong to a thread, so every worker enters them anew.
    """
    device = chunks[0].device.type
    workers = 1 if device != "cpu" else max(1, _cores() // torch.get_num_threads())
    if workers == 1 or len(chunks) == 1:
        return [function(chunk) for chunk in chunks]
    precision, mixed = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)

    @torch.inference_mode()
    def work(chunk: Tensor) -> Tensor:
        with torch.autocast(device, precision, mixed):
            return function(chunk)

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, chunks))
