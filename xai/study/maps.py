"""Maps: what an explainer says of the images of a case, made once and kept in the store."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from xai.core.errors import check_finite
from xai.core.shards import Shards
from xai.core.store import Artifact
from xai.data.registry import Images
from xai.explainers import block as blocks
from xai.explainers.block import Block, BlockExplainer, Explainer, Explanation, ManyClassExplainer
from xai.explainers.registry import Prepared, Row
from xai.study.blocks import block_generator, fill_blocks, open_blocks, read_blocks
from xai.study.case import Case

_REVISION = 1
_ADVICE = "give a classifier with finite outputs, or use trainer.precision=32-true"


@dataclass(frozen=True)
class Maps:
    """What an explainer says of N images.

    Args:
        artifact: Where it lies.
        attributions: [N, h, w] on the patch grid or [N, H, W] of pixels; None for a row that only classifies.
        logits: [N, C], where the explainer is a classifier too.
        prepared: What they were made by: which stage of a path this is, what it cost, notes for the frame. It builds
            nothing any more, for what builds an explainer holds the networks that it is built from.
    """

    artifact: Artifact
    attributions: Tensor | None
    logits: Tensor | None
    prepared: Prepared

    @property
    def milliseconds(self) -> float:
        """What explaining an image took; of a path, what its passes up to this stage are of all of them."""
        values = self.attributions if self.attributions is not None else self.logits
        assert values is not None
        return 1000 * self.artifact.seconds * self.prepared.share / len(values)


def explain(case: Case, row: Row, beside: Case | None = None) -> Maps:
    """The maps of a row, from the store or made.

    They are kept by what they are made from: another metric, another table, another name of the row make none anew.

    Args:
        case: What is explained.
        row: By what.
        beside: The same images and draws with other classes, whose maps by this row are wanted as well. An explainer
            that asks once for several classes makes them on the way: the same bytes as by themselves.

    Raises:
        UserError: The explainer does not fit the model or the data, or gives NaN or infinity.
        Busy: Only where the store is impatient, and another process is at work on what is left.
    """
    prepared = row.entry.prepare(case, row.params)
    again = "" if case.varied_from is None else f" again ({type(case.varied_from[1]).__name__})"
    title = f"{row.label} of {case.data.name} {case.split}{again}"
    rows = [case.rows[block] for block in case.blocks]
    whole = {"rows": case.rows, "targets": case.targets, "labels": case.labels}
    work = _Explaining(case, row, prepared, beside)
    spec = _spec(case, prepared)
    artifact = fill_blocks(
        case.runtime, "maps", spec, rows, work, title, whole=whole, after=work.put_beside, before=work.begin
    )
    tensors = read_blocks(artifact)
    attributions = tensors.get("attributions")
    if attributions is not None:
        # Of a path of maps the stage that the row is about, and in patches where it says so.
        attributions = prepared.chosen(attributions)
    return Maps(artifact, attributions, tensors.get("logits"), replace(prepared, build=_made))


def key(case: Case, row: Row) -> str:
    """The key that the maps of a row have in the store, or will have."""
    spec = case.runtime.with_precision(_spec(case, row.entry.prepare(case, row.params)))
    return case.runtime.store.key("maps", spec)


def _spec(case: Case, prepared: Prepared) -> dict[str, Any]:
    return {"explainer": dict(prepared.made_from), "case": case.spec, "revision": _REVISION}


def _made() -> Explainer:
    raise RuntimeError("the maps are made: prepare the row anew for its explainer")


def with_networks(explainer: nn.Module | Explainer | BlockExplainer, change: Callable[[nn.Module], nn.Module]) -> Any:
    """A copy of an explainer that was trained, with networks that are changed; it stays as it is."""
    if isinstance(explainer, nn.Module):
        return change(explainer)
    changed = copy.copy(explainer)
    for name, value in vars(explainer).items():
        if isinstance(value, (nn.Module, Explainer, BlockExplainer)):
            object.__setattr__(changed, name, with_networks(value, change))  # also in a copy of what is frozen
    return changed


class _Explaining:
    """Computes a block from its number, once it has begun; the explainer is built for the first one."""

    _images: Images

    def __init__(self, case: Case, row: Row, prepared: Prepared, beside: Case | None) -> None:
        self._case, self._row, self._prepared, self._beside = case, row, prepared, beside
        self._built: Explainer | BlockExplainer | None = None
        self._others: Shards | None = None
        self._rest: tuple[Block, Iterator[Tensor]] | None = None

    def begin(self, number: int) -> None:
        """Do what is no part of the time that maps take: build the explainer, and read the images."""
        case = self._case
        if self._built is None:
            self._built = self._prepared.build()
            if case.varied_from is not None and self._row.entry.of_context is not None:
                self._built = with_networks(self._built, case.vary)
            self._others = self._open_beside()
        self._images = case.images(number)

    def __call__(self, number: int) -> dict[str, Tensor]:
        case, device = self._case, self._case.runtime.trainer.device
        assert self._built is not None
        positions = case.blocks[number]
        pixels, regions = self._images
        block = Block(
            images=pixels.to(device),
            targets=case.targets[positions].to(device),
            labels=case.labels[positions].to(device) if case.is_labelled else None,
            regions=None if regions is None else regions.to(device),
            rows=case.rows[positions],
            generator=block_generator(case.seed, number),
        )
        with case.runtime.trainer.autocast():
            if self._others is None or not isinstance(self._built, ManyClassExplainer):
                return self._checked(block, blocks.explain(self._built, block))
            assert self._beside is not None
            other = block._replace(targets=self._beside.targets[positions].to(device))
            classes = torch.stack([block.targets, other.targets], 1)
            columns = self._built.attribute_classes(block.images, classes, block.generator)
            self._rest = other, columns
            return self._checked(block, Explanation(next(columns)))

    def put_beside(self, number: int) -> None:
        """What is left to compute of a block for the other classes, if it was begun with those of the case."""
        if self._others is None or self._rest is None:
            return
        (block, columns), self._rest = self._rest, None
        with self._case.runtime.trainer.autocast():
            self._others.put(number, lambda _: self._checked(block, Explanation(next(columns))))

    def _open_beside(self) -> Shards | None:
        if self._beside is None or not isinstance(self._built, ManyClassExplainer):
            return None
        case = self._beside
        spec = _spec(case, self._row.entry.prepare(case, self._row.params))
        return open_blocks(case.runtime, "maps", spec, [case.rows[block] for block in case.blocks])

    def _checked(self, block: Block, found: Explanation) -> dict[str, Tensor]:
        tensors: dict[str, Any] = {"attributions": found.maps, "logits": found.logits}
        tensors = {name: value.detach().float().cpu() for name, value in tensors.items() if value is not None}
        for name, value in tensors.items():
            if len(value) != len(block.images):
                raise ValueError(f"{self._row.name} gave {name} {list(value.shape)} for {len(block.images)} images")
            case = self._case
            what = f"{name} of {self._row.name} for {case.data.name} {case.split}"
            check_finite(value, what, _ADVICE, block.rows)
        return tensors
