"""One training step of a learned explainer, as multiples of what it cannot do without.

A step takes a batch of images, passes it forwards and backwards through the explainer, and asks the surrogate for v(S)
of some coalitions of each image. The floor is that pass of the explainer, and plain passes of the surrogate, in timm's
own forward, on as many whole images as there are coalitions. `SALVAGE` and `ViT-Shapley` are the modules of
`xai.methods`. The other two are SALVAGE without one of its savings: `attention masking` computes every token and hides
removed patches from the others, as the authors' code of ViT-Shapley does; `own sizes` draws the sizes of an image's
coalitions for it alone, as Algorithm 3 of SALVAGE has it, where all images of a batch share one size a slot otherwise.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.harness import Benchmark, Contender, Group, Measurement, Report
from benchmarks.host import Work
from benchmarks.learned import (
    CLASSES,
    AttentionMasked,
    Learner,
    OwnSizes,
    SalvageStep,
    VitShapleyStep,
    explainer_of,
    surrogate_of,
)
from benchmarks.setup import Setup
from benchmarks.tables import failed, mebibytes, products, ratio, share, table
from xai.classifiers.params import SalvageParams
from xai.core.composing import shipped
from xai.core.settings import build
from xai.data.module import Batch
from xai.models.explainer import SalvageNetwork
from xai.models.vit import SmallVit, VitParams

ALIKE = 1e-4
"""The most that the losses of `SALVAGE` and `attention masking` may differ by, in float32."""

_SAME = "attention masking"
"""The contender that asks what `SALVAGE` asks, and has to arrive at its loss."""

_TOKENS = {"cpu": 1 << 11, "cuda": 1 << 16}
"""Tokens in a pass of the floor; games of ours decode as many at once."""


@dataclass(frozen=True)
class Case:
    """One setting.

    Args:
        title: What the table is headed by.
        model: The classifier; the surrogate and the backbone of the explainer are of its shape.
        params: The explainer, the coalitions of a step, and its images.
        steps: Training steps in a round.
        rounds: Rounds of everybody.
    """

    title: str
    model: VitParams
    params: SalvageParams
    steps: int
    rounds: int

    @property
    def players(self) -> int:
        """M, the number of patches."""
        return self.model.grid**2


def cases(setup: Setup, small: bool = False) -> list[Case]:
    """The settings of a device; `small` ones are done in a moment and show that everything runs."""
    tiny = build(VitParams, shipped("model/vit_tiny"), "model")
    # Without what concerns a row of a table and no training.
    other = ("name", "reading", "pairs", "network")
    own = {key: value for key, value in shipped("explainer/salvage").items() if key not in other}
    settings = build(SalvageParams, own, "explainers.salvage")
    if small:
        tower = SmallVit(width=16, depth=2, heads=2, mlp_ratio=2.0, registers=1, position_scale=0.3)
        fit = replace(settings.fit, batch_size=4)
        model = replace(tiny, image_size=12, patch_size=4, tower=tower)
        return [Case("two narrow layers", model, replace(settings, masks=4, heads=2, fit=fit), steps=2, rounds=2)]
    batch, masks = (64, 32) if setup.device == "cuda" else (2, 8)
    large = replace(
        tiny, name="vit_s16", image_size=224, patch_size=16, tower=None, architecture="vit_small_patch16_224"
    )
    fit = replace(settings.fit, batch_size=batch)
    published = replace(settings, masks=masks, decoder="mask_transformer", depth=2, heads=6, fit=fit)
    return [
        Case("`vit_tiny` (42 px)", tiny, settings, steps=16, rounds=3),
        Case("ViT-S/16 (224 px)", large, published, steps=4, rounds=3),
    ]


class Step(Work):
    """What all contenders share: images, and what is done with the gradients of a loss."""

    def __init__(self, case: Case, setup: Setup) -> None:
        self.case, self.setup, count = case, setup, case.params.fit.batch_size
        self.images = case.steps * count
        generator, side = torch.Generator().manual_seed(3), case.model.image_size
        pixels = torch.rand(count, 3, side, side, generator=generator)
        labels = torch.randint(CLASSES, (count,), generator=generator)
        self.batch = Batch(pixels.to(setup.device), labels.to(setup.device), None, None)

    @abstractmethod
    def loss(self) -> Tensor:
        """The scalar loss of the next step."""

    def train(self, network: nn.Module) -> None:
        """Name what is trained."""
        fit, self._weights = self.case.params.fit, list(network.parameters())
        self._optimiser = torch.optim.AdamW(self._weights, lr=fit.learning_rate, weight_decay=fit.weight_decay)

    def step(self) -> None:
        """One training step."""
        with self.setup.precision():
            loss = self.loss()
        self._optimiser.zero_grad()
        loss.backward()
        if self.case.params.fit.clip:
            nn.utils.clip_grad_norm_(self._weights, self.case.params.fit.clip)
        self._optimiser.step()

    def warm_up(self) -> None:
        """One step; on a card a round, because each new shape costs once more there."""
        if self.setup.device == "cpu":
            self.step()
        else:
            self.round()

    def round(self) -> None:
        """All steps of a round."""
        for _ in range(self.case.steps):
            self.step()

    def part(self) -> int:
        """One step."""
        self.step()
        return self.case.steps


class Floor(Step):
    """The explainer forwards and backwards, and the surrogate on as many whole images as there are coalitions."""

    def __init__(self, case: Case, setup: Setup) -> None:
        super().__init__(case, setup)
        self._surrogate = surrogate_of(case.model).to(setup.device)
        self._network = explainer_of(case.model, case.params, SalvageNetwork, scores=2).to(setup.device)
        self._at_once = max(1, _TOKENS[setup.device] // (self._surrogate.network.num_prefix_tokens + case.players))
        self.train(self._network)

    def loss(self) -> Tensor:
        """Something that has a gradient for every weight."""
        scores: Tensor = self._network(self.batch.pixels)
        with torch.inference_mode():
            images = self._surrogate.normalisation(self.batch.pixels)
            owners = torch.arange(len(images), device=images.device).repeat_interleave(self.case.params.masks)
            for owner in owners.split(self._at_once):
                self._surrogate.network(images[owner])
        return scores.float().square().mean()


class Training(Step):
    """A learned explainer.

    Args:
        method: What is trained.
        case: The setting.
        setup: The device, its precision, and threads.
        masking: Whether v(S) is asked by attention masking.
    """

    def __init__(self, method: type[Learner], case: Case, setup: Setup, masking: bool = False) -> None:
        super().__init__(case, setup)
        plain = surrogate_of(case.model)
        surrogate = AttentionMasked(plain).eval() if masking else plain
        self.module = method.of(case.model, case.params, surrogate.to(setup.device)).to(setup.device)
        self.train(self.module)
        # In float32 whatever precision is measured, and before the networks of two contenders can drift apart.
        with torch.no_grad():
            self._first = self.module.training_step(self.batch, 0).cpu()

    def loss(self) -> Tensor:
        """The method's own, with the coalitions of the next step."""
        loss = self.module.training_step(self.batch, 0)
        self.module.taken += 1
        return loss

    def answer(self) -> Tensor:
        """The loss before any training, a scalar."""
        return self._first


CONTENDERS = (
    Contender("floor", Floor),
    Contender("SALVAGE", partial(Training, SalvageStep)),
    Contender("ViT-Shapley", partial(Training, VitShapleyStep)),
    Contender(_SAME, partial(Training, SalvageStep, masking=True)),
    Contender("own sizes", partial(Training, OwnSizes)),
)
"""Everybody: the floor, SALVAGE, ViT-Shapley, and SALVAGE without one of its savings."""


def report(found: Group, setup: Setup, peak: float | None = None) -> Report:
    """One case as a table; the share of the rate of matrix products [FLOP/s] is shown where that is given."""
    ((case, rows),) = found
    floor, ours, rival = rows[:3]
    head = ["contender", "× floor", "× ViT-Shapley", "steps/s", "peak memory", "first loss"]
    head += [] if peak is None else ["of matmul rate"]
    where = f"{case.title}, {setup.title}"
    lines, faults = [], failed(rows, where)
    for row in rows:
        if row.failure is not None:
            lines.append([row.name, "failed", *["–"] * (len(head) - 2)])
            continue
        ratios = ["1" if row is to else "?" if to.failure is not None else ratio(row, to) for to in (floor, rival)]
        loss = "–" if row.answer is None else f"{float(row.answer):.5f}"
        cells = [row.name, *ratios, f"{case.steps / row.median:.3g}", mebibytes(row), loss]
        lines.append(cells + ([] if peak is None else [share(row, peak)]))
        off = _difference(row, ours) if row.name == _SAME else 0.0
        # Written so that NaN is a fault as well.
        if not off <= ALIKE:
            faults.append(
                f"{where}: the first loss of {row.name} is off by {off:.2g} from that of {ours.name}, and {ALIKE:g} is "
                "the most that rounding explains: they do not do the same work"
            )
    params, count = case.params, case.params.fit.batch_size
    title = f"### Training step, {case.title}, M = {case.players}, {count} images, {params.masks} masks: {setup.title}"
    note = f"First loss: before any training, in float32; that of `{_SAME}` has to be that of `{ours.name}`."
    note += products(peak)
    return Report(f"{title}\n\n{table(head, lines)}\n\n{note}", tuple(faults))


def _difference(row: Measurement, ours: Measurement) -> float:
    """How far the losses of two contenders are apart; 0 where one of them has none because it failed."""
    return 0.0 if row.answer is None or ours.answer is None else float((row.answer - ours.answer).abs())


BENCHMARK = Benchmark(CONTENDERS, cases, report)
