"""Test-time refinement of whole splits: maps of every image after 0, 1, ... T gradient steps, kept in the store."""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from xai.core.files import write_atomically
from xai.core.store import Artifact
from xai.data.registry import Images
from xai.metrics.functional.perturbation import enlarge_map
from xai.models.dense import DenseExplainer
from xai.papers.ranking.params import RefinementSettings, numbers_of
from xai.ranking.areas import confidence
from xai.ranking.objective import Question
from xai.ranking.refinement import in_units, refine_maps, refine_network
from xai.stages.perturbation import Draw, Maps, PerturbationExamination

_FILE = "maps.safetensors"
_REVISION = 1


@dataclass(frozen=True)
class Start:
    """What a refinement starts from.

    Args:
        name: What is refined: `ranking` (its maps), `decoder` (its decoder), or maps of another kind.
        made_from: All that determines it.
        draw: Maps to start from; unused where the decoder is refined.
        explainer: Whose decoder is refined, None where maps are.
        scale: Deviation that the maps are brought to before the first step; None leaves them as they are.
    """

    name: str
    made_from: Mapping[str, Any]
    draw: Draw | None = None
    explainer: Callable[[], DenseExplainer] | None = None
    scale: float | None = None


@dataclass
class Refinement:
    """Refined maps of the images of an examination, for both classes of each.

    Args:
        examination: The images and the classifier.
        params: How, and by what objective.
    """

    examination: PerturbationExamination
    params: RefinementSettings

    def maps(self, start: Start, steps: int) -> Maps:
        """The maps after a number of steps, at most as many as `params` has."""
        tensors = load_file(self.refined(start).file(_FILE))
        return Maps(tensors["maps"][:, steps], float(tensors["seconds"][steps]))

    def refined(self, start: Start) -> Artifact:
        """All steps: `maps` [N, T + 1, 2, H, W] and `seconds` [T + 1], what a map took until then."""
        runtime = self.examination.stages.runtime
        spec = {
            "start": start.name,
            "made_from": dict(start.made_from),
            "scale": start.scale,
            "images": self.examination.spec,
            "refinement": numbers_of(self.params),
            "revision": _REVISION,
        }

        def make(workdir: Path) -> None:
            maps, seconds = self._walk(start)
            write_atomically(workdir / _FILE, lambda path: save_file({"maps": maps, "seconds": seconds}, path))

        return runtime.store.get("refined", runtime.with_precision(spec), make, title=f"refinement of {start.name}")

    def _walk(self, start: Start) -> tuple[Tensor, Tensor]:
        examination, clock = self.examination, _Clock(self.params.steps)
        device, found = examination.stages.runtime.trainer.device, []
        explainer = None if start.explainer is None else start.explainer()
        for number, block in enumerate(torch.arange(len(examination.rows)).split(examination.params.block)):
            pixels, logits = examination.images.pixels[block].to(device), examination.logits[block].to(device)
            walked = []
            for targets in examination.targets[block].to(device).unbind(1):
                question = Question(pixels, targets[:, None], confidence(logits, targets[:, None]))
                seed = examination.stages.seed * 1_000_003 + number
                with examination.stages.runtime.trainer.autocast():
                    if explainer is not None:
                        path = self._of_decoder(explainer, question, seed, clock)
                    else:
                        path = self._of_maps(start, question, seed, clock)
                walked.append(torch.stack([step.float().cpu() for step in path], dim=1))
            found.append(torch.stack(walked, dim=2))
        return torch.cat(found), clock.seconds.cumsum(0) / (2 * len(examination.rows))

    def _of_maps(self, start: Start, question: Question, seed: int, clock: "_Clock") -> list[Tensor]:
        images, targets = question.images, question.targets[:, 0]
        clock.begin()
        assert start.draw is not None
        drawn = start.draw(Images(images, None), targets, torch.Generator().manual_seed(seed)).float()
        maps = in_units(enlarge_map(drawn, (images.shape[-2], images.shape[-1])), start.scale)
        return refine_maps(maps, *self._asked(question, seed, clock))

    def _of_decoder(self, explainer: DenseExplainer, question: Question, seed: int, clock: "_Clock") -> list[Tensor]:
        """Each image by itself, with a decoder of its own that starts from the trained one."""
        images = []
        for row in range(len(question.images)):
            one = Question(*(part[row : row + 1] for part in question))
            clock.begin()
            decoder = copy.deepcopy(explainer.decoder).requires_grad_(True)
            explain = partial(decoder, *explainer.seen(one.images, one.targets[:, 0]))
            images.append(refine_network(list(decoder.parameters()), explain, *self._asked(one, seed, clock)))
        return [torch.cat(step) for step in zip(*images, strict=True)]

    def _asked(self, question: Question, seed: int, clock: "_Clock") -> tuple[Any, ...]:
        """What both refinements are told alike."""
        examination = self.examination
        generator = torch.Generator(question.images.device).manual_seed(seed)
        mean = torch.tensor(examination.stages.model.mean)
        return question, examination.classifier, mean, self.params.objective, self.params, generator, clock.tick


class _Clock:
    """Seconds until each of T + 1 maps, added up over blocks."""

    def __init__(self, steps: int) -> None:
        self.seconds = torch.zeros(steps + 1, dtype=torch.float64)
        self._last, self._at = 0.0, 0

    def begin(self) -> None:
        self._last, self._at = time.perf_counter(), 0

    def tick(self) -> None:
        now = time.perf_counter()
        self.seconds[self._at] += now - self._last
        self._last, self._at = now, self._at + 1
