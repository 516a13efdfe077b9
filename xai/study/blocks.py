"""One loop over blocks of images, for every map and every score: shared by processes, resumed after a kill."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xai.core.files import explain_disk_errors
from xai.core.progress import bar
from xai.core.runtime import Runtime
from xai.core.shards import Shards
from xai.core.store import PROMISE, Artifact, scratch_folder
from xai.models.weights import read_weights, write_weights

PRIME = 1_000_003
"""Keeps the draws of one seed's blocks apart from those of the next seed."""
_WORTH_A_LINE = 10.0
"""Seconds; what takes less is told of all rows together, by the study."""


def block_generator(seed: int, number: int) -> torch.Generator:
    """The source of randomness of a block: the same for every explainer and every metric, whoever computes it."""
    return torch.Generator().manual_seed(seed * PRIME + number)


def fill_blocks(
    runtime: Runtime,
    kind: str,
    spec: Mapping[str, Any],
    blocks: Sequence[Tensor],
    compute: Callable[[int], Mapping[str, Tensor]],
    title: str,
    *,
    whole: Mapping[str, Tensor] | None = None,
    after: Callable[[int], object] = lambda _: None,
    before: Callable[[int], object] = lambda _: None,
) -> Artifact:
    """Compute something of every block together with all processes that want the same, or find it.

    The bytes depend neither on who computed what nor on who was killed when; a kill costs the block that was being
    computed. The artifact's seconds are those that its blocks took, in all processes together.

    Args:
        runtime: Store and devices.
        kind: Of the artifact; its tensors lie in `<kind>.safetensors`.
        spec: What determines the numbers.
        blocks: Row numbers [B] of each block.
        compute: Makes the tensors of a block, [B, ...] each, from its number.
        title: What progress and logs call it.
        whole: Tensors of all rows that are written beside them.
        after: Is told of each block that was computed here, once it is written.
        before: Is told of each block that is to be computed here; what it does takes none of the block's seconds.

    Raises:
        Busy: Only where the store is impatient: another process holds all blocks that are left.
    """
    spec = runtime.with_precision(dict(spec))
    key = runtime.store.key(kind, spec)

    def merge(workdir: Path) -> float:
        together = Shards(scratch_folder(workdir), key, blocks, patient=runtime.store.is_patient)
        together.fill(compute, lambda _: None, before=before)
        tensors, seconds = together.collect()
        write_weights(workdir / f"{kind}.safetensors", {**(whole or {}), **tensors}, {f"xai.{kind}": key})
        return seconds

    left = open_blocks(runtime, kind, spec, blocks)
    if left is not None:
        images = sum(map(len, blocks))
        with explain_disk_errors(runtime.store.root, PROMISE), bar(title, images, "images", _WORTH_A_LINE) as advance:
            left.fill(compute, advance, after, before)
    return runtime.store.get(kind, spec, merge, title=title)


def open_blocks(runtime: Runtime, kind: str, spec: Mapping[str, Any], blocks: Sequence[Tensor]) -> Shards | None:
    """The blocks of something that is not whole yet, which other work may also put there on its way; None: it is."""
    spec = runtime.with_precision(dict(spec))
    scratch = runtime.store.scratch(kind, spec)
    if scratch is None:
        return None
    return Shards(scratch, runtime.store.key(kind, spec), blocks, patient=runtime.store.is_patient)


def read_blocks(artifact: Artifact) -> dict[str, Tensor]:
    """The tensors of an artifact that `fill_blocks` made."""
    return read_weights(artifact.file(f"{artifact.kind}.safetensors"), what=artifact.kind).tensors
