"""One training step of Learn to Rank, beside the same step done as published.

`ours` is `xai.ranking.objective.judge`: one pass of the classifier for both classes, the ends of the paths looked up,
Sinkhorn by scaling one kernel, and each pass differentiated before the next one comes. `as published` is
`benchmarks.published`. The floor is plain passes of the classifier, in timm's own forward, forwards and backwards to
the pixels, on as many images as lie between the ends of the paths. All have the same images, maps, grids, references
and noise. Without a decoder the maps are leaves, and the step ends at their gradient; with one they come from the
explainer of `task=train method=ranking`, and the step ends with new weights of it.
"""

import copy
import statistics
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness import Benchmark, Contender, Group, Measurement, Report
from benchmarks.host import Work
from benchmarks.learned import CLASSES, surrogate_of
from benchmarks.published import published_loss
from benchmarks.setup import Setup
from benchmarks.tables import failed, mebibytes, products, ratio, share, table
from xai.core.composing import shipped
from xai.core.settings import build
from xai.models.dense import DenseExplainer
from xai.models.dpt import DecoderParams
from xai.models.features import FrozenFeatures
from xai.models.vit import SmallVit, VitParams
from xai.ranking.areas import confidence
from xai.ranking.objective import Draw, ObjectiveParams, Question, judge, training_targets
from xai.ranking.sorting import gumbel_noise

ALIKE, ALIKE_GRADIENT = 1e-4, 1e-2
"""The most that losses may differ by, and gradients of maps as a share of their norm, in float32.

The published masks end with the sums of all rows of P, which Sinkhorn brings close to 1 and not to 1; ours end with 1.
"""

FASTER, SMALLER = 1 / 1.8, 1 / 2
"""The goals: time and peak memory as shares of the published step's."""

_CHECKED = 4
"""Images on which the first losses and gradients are compared."""

_TEMPERATURE = 0.65
"""Of the soft order: the middle of the training."""

_PAPER = ObjectiveParams(
    steps=16,
    grid_min=7,
    grid_max=28,
    references=("black", "mean", "blur"),
    iterations=30,
    sigma=1.0,
    peak_weight=0.0025,
    peak_window=15,
)


@dataclass(frozen=True)
class Case:
    """One setting.

    Args:
        title: What the table is headed by.
        model: The classifier.
        images: B, of a step.
        grids: A round has one step at each.
        chunk: Perturbed images that `ours, in chunks` and the floor pass at once.
        rounds: Rounds of everybody.
        levels: Features of the classifier that the explainer sees.
        decoder: Of the explainer; None takes maps as they are.
        objective: What maps are judged by.
    """

    title: str
    model: VitParams
    images: int
    grids: tuple[int, ...]
    chunk: int
    rounds: int
    levels: tuple[int, ...] = ()
    decoder: DecoderParams | None = None
    objective: ObjectiveParams = _PAPER


def cases(setup: Setup, small: bool = False) -> list[Case]:
    """The settings of a device; `small` ones are done in a moment and show that everything runs."""
    tiny = build(VitParams, shipped("model/vit_tiny"), "model")
    narrow = DecoderParams(channels=32, fusion=32, head=16, refinement=16, resize=(4, 2, 1, 0.5), dropout=0)
    if small:
        tower = SmallVit(width=16, depth=4, heads=2, mlp_ratio=2.0, registers=1, position_scale=0.3)
        model = replace(tiny, image_size=16, patch_size=4, tower=tower)
        both = Case("four narrow layers", model, 2, (3, 5), 5, 2, objective=replace(_PAPER, steps=5))
        return [both, replace(both, title="four narrow layers and a decoder", levels=(0, 1, 2, 3), decoder=narrow)]
    large = partial(replace, tiny, image_size=224, tower=None)
    paper = replace(narrow, channels=256, fusion=128, head=32, refinement=64)
    embedded = Case("`vit_tiny` (42 px)", tiny, 32, (4, 9, 14), 256, 3)
    if setup.device == "cuda":
        vit = large(name="vit_b16", patch_size=16, architecture="vit_base_patch16_224")
        published = Case("ViT-B/16 (224 px)", vit, 32, (7, 14, 28), 64, 3)
    else:
        vit = large(name="vit_b32", patch_size=32, architecture="vit_base_patch32_224")
        published = Case("ViT-B/32 (224 px)", vit, 1, (7, 14, 28), 7, 2)
    return [
        embedded,
        replace(embedded, title=f"{embedded.title} and a decoder", levels=(0, 1, 2, 3), decoder=narrow),
        published,
        replace(
            published,
            title=f"{published.title} and the paper's decoder",
            grids=(14,),
            levels=(2, 5, 8, 11),
            decoder=paper,
        ),
    ]


class Step(Work):
    """What all contenders share: the classifier, images, maps or an explainer that draws them, and all that is random.

    Args:
        case: The setting.
        setup: The device, its precision, and threads.
    """

    def __init__(self, case: Case, setup: Setup) -> None:
        self.case, self.setup, self.images = case, setup, case.images * len(case.grids)
        self.params, side, count = case.objective, case.model.image_size, case.images
        self.classifier = surrogate_of(case.model).to(setup.device)
        generator = torch.Generator().manual_seed(3)
        colours = F.interpolate(torch.rand(count, 3, 6, 6, generator=generator), (side, side))
        self.pixels = (0.6 * colours + 0.4 * torch.rand(count, 3, side, side, generator=generator)).to(setup.device)
        self.labels = torch.randint(CLASSES, (count,), generator=generator).to(setup.device)
        self.mean = torch.tensor(case.model.mean, device=setup.device)
        self.leaves = F.interpolate(torch.randn(count, 1, 8, 8, generator=generator), (side, side))[:, 0]
        self.leaves += 0.3 * torch.randn(count, side, side, generator=generator)
        self.leaves = self.leaves.to(setup.device).requires_grad_()
        self.draws = [self._draw(number) for number in range(len(case.grids))]
        self._explainer = None if case.decoder is None else self._train(case.decoder)

    def _draw(self, number: int) -> Draw:
        grid, names = self.case.grids[number], self.params.references
        noise = gumbel_noise(2 * self.case.images, grid * grid, torch.Generator().manual_seed(number))
        noise = noise.unflatten(0, (2, -1)).to(self.setup.device)
        return Draw(grid, names[number % len(names)], noise)

    def _train(self, decoder: DecoderParams) -> DenseExplainer:
        model, network = self.case.model, copy.deepcopy(self.classifier.network)
        features = FrozenFeatures(network, self.case.levels, model.mean, model.std, model.image_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            explainer = DenseExplainer(features, decoder, CLASSES).to(self.setup.device)
        self._weights = list(explainer.decoder.parameters())
        self._optimiser = torch.optim.AdamW(self._weights, lr=3e-4, weight_decay=1e-3)
        return explainer

    @abstractmethod
    def loss(self, maps: Tensor, question: Question, drawn: Draw) -> Tensor:
        """The loss [B] of maps [B, H, W]."""

    def classify(self, images: Tensor) -> Tensor:
        """Logits [N, C] of images [N, 3, H, W] in [0, 1], in timm's own forward."""
        logits: Tensor = self.classifier.network(self.classifier.normalisation(images))
        return logits

    def forward(self, drawn: Draw, count: int) -> tuple[Tensor, Tensor]:
        """Loss [B] and maps [B, H, W] of the first images."""
        pixels, noise = self.pixels[:count], drawn.noise[:, :count]
        with torch.no_grad():
            logits = self.classify(pixels)
        targets = training_targets(logits, self.labels[:count])
        maps = self.leaves[:count] if self._explainer is None else self._explainer(pixels, targets[:, 0])
        question = Question(pixels, targets, confidence(logits, targets))
        return self.loss(maps, question, drawn._replace(noise=noise)), maps

    def step(self, drawn: Draw) -> None:
        """One training step, or the gradient of the maps where nothing is trained."""
        with self.setup.precision():
            loss, _ = self.forward(drawn, self.case.images)
        if self._explainer is None:
            self.leaves.grad = None
            loss.mean().backward()
            return
        self._optimiser.zero_grad()
        loss.mean().backward()
        nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._optimiser.step()

    def warm_up(self) -> None:
        """A step with the shortest paths; on a card a round, because each new shape costs once more there."""
        if self.setup.device == "cuda":
            self.round()
            return
        kept, self.params = self.params, replace(self.params, steps=3)
        self.step(self.draws[0])
        self.params = kept

    def round(self) -> None:
        """A step at each grid."""
        for drawn in self.draws:
            self.step(drawn)


class Floor(Step):
    """Plain passes of the classifier, forwards and backwards, on as many images as lie between the ends."""

    def loss(self, maps: Tensor, question: Question, drawn: Draw) -> Tensor:
        """Something that has a gradient for every map; the passes have been differentiated by then."""
        owners = torch.arange(len(maps), device=maps.device).repeat_interleave(2 * (self.params.steps - 2))
        for owner in owners.split(self.case.chunk):
            pixels = question.images[owner].requires_grad_()
            torch.autograd.grad(self.classify(pixels).float().sum(), pixels)
        return maps.float().square().mean((1, 2))


class Ranked(Step):
    """A contender that judges maps, and is compared with the others before any clock starts."""

    def __init__(self, case: Case, setup: Setup) -> None:
        super().__init__(case, setup)
        # In float32 whatever precision is measured, and before the networks of two contenders can drift apart.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            loss, maps = self.forward(self.draws[-1], min(_CHECKED, case.images))
            (gradient,) = torch.autograd.grad(loss.sum(), maps)
        self._first = torch.cat([loss.detach()[:, None], gradient.flatten(1)], 1).cpu()

    def answer(self) -> Tensor:
        """Loss and gradient of the first maps at the largest grid, [B, 1 + H * W]."""
        return self._first


class Ours(Ranked):
    """`judge`, asking the classifier as `task=train method=ranking` does.

    Args:
        chunked: Whether perturbed images pass a few at a time.
        case: The setting.
        setup: The device, its precision, and threads.
    """

    def __init__(self, chunked: bool, case: Case, setup: Setup) -> None:
        self._chunk = case.chunk if chunked else 0
        super().__init__(case, setup)

    def loss(self, maps: Tensor, question: Question, drawn: Draw) -> Tensor:
        """The objective."""
        params = replace(self.params, chunk=self._chunk)
        return judge(maps, question, self.classifier, self.mean, params, drawn, _TEMPERATURE).loss


class Published(Ranked):
    """The same in the plain way, by timm's own forward."""

    def loss(self, maps: Tensor, question: Question, drawn: Draw) -> Tensor:
        """The objective."""
        return published_loss(maps, question, self.classify, self.mean, self.params, drawn, _TEMPERATURE)


CONTENDERS = (
    Contender("floor", Floor),
    Contender("as published", Published),
    Contender("ours", partial(Ours, False)),
    Contender("ours, in chunks", partial(Ours, True)),
)
"""Everybody: the floor, the published way, and ours."""

_OURS = ("ours", "ours, in chunks")


def report(found: Group, setup: Setup, peak: float | None = None) -> Report:
    """One case as a table; the share of the rate of matrix products [FLOP/s] is shown where that is given."""
    ((case, rows),) = found
    floor, published = rows[:2]
    head = ["contender", "× floor", "× published", "steps/s", "goal", "peak memory", "of published", "goal", "loss"]
    head += ["gradient off", *([] if peak is None else ["of matmul rate"])]
    where = f"{case.title}, {setup.title}"
    lines, faults = [], failed(rows, where)
    for row in rows:
        if row.failure is not None:
            lines.append([row.name, "failed", *["–"] * (len(head) - 2)])
            continue
        times = ["1" if row is to else "?" if to.failure is not None else ratio(row, to) for to in (floor, published)]
        cells = [row.name, *times, f"{len(case.grids) / row.median:.3g}", *_compared(row, published)]
        lines.append(cells + ([] if peak is None else [share(row, peak)]))
        faults += [f"{where}: {fault}" for fault in _faults(row, published)]
    grids = ", ".join(map(str, case.grids))
    title = (
        f"### Training step of Learn to Rank, {case.title}, {case.images} image{'s' if case.images > 1 else ''}, "
        f"S = {case.objective.steps}, grids {grids}: {setup.title}"
    )
    note = (
        f"Goals: {1 / FASTER:.1f} times faster, half the memory. Loss and gradient: of the first maps, in float32. "
        f"Chunks of {case.chunk} for the floor and `ours, in chunks`."
    )
    note += products(peak)
    return Report(f"{title}\n\n{table(head, lines)}\n\n{note}", tuple(faults))


def _compared(row: Measurement, published: Measurement) -> list[str]:
    """The cells that say how a contender of ours stands beside the published way."""
    loss = "–" if row.answer is None else f"{float(row.answer[:, 0].mean()):.5f}"
    if row.name not in _OURS or published.failure is not None:
        return ["–", mebibytes(row), "1" if row is published else "–", "–", loss, "–"]
    time, memory = statistics.median(row.ratios(published)), row.peak / max(published.peak, 1)
    goals = [_goal(time, FASTER), mebibytes(row), f"{memory:.2f}", _goal(memory, SMALLER)]
    return [*goals, loss, f"{_off(row, published)[1]:.1e}"]


def _goal(found: float, most: float) -> str:
    return f"≤ {most:.2f}: {'met' if found <= most else 'missed'}"


def _off(row: Measurement, published: Measurement) -> tuple[float, float]:
    """Largest difference of a loss, and that of the gradients as a share of the published one's norm."""
    assert row.answer is not None
    assert published.answer is not None
    (loss, gradient), (expected, theirs) = (a.tensor_split([1], dim=1) for a in (row.answer, published.answer))
    return float((loss - expected).abs().max()), float((gradient - theirs).norm() / theirs.norm())


def _faults(row: Measurement, published: Measurement) -> Iterator[str]:
    """What shows that a contender of ours does not do the published work."""
    if row.name not in _OURS or published.failure is not None:
        return
    for what, off, most in zip(("loss", "gradient"), _off(row, published), (ALIKE, ALIKE_GRADIENT), strict=True):
        # Written so that NaN is a fault as well.
        if not off <= most:
            yield (
                f"the first {what} of {row.name} is off by {off:.2g} from that of {published.name}, and {most:g} is "
                "the most expected: they do not do the same work"
            )


BENCHMARK = Benchmark(CONTENDERS, cases, report)
