"""Soft masks of scores, forwards and backwards: `xai.ranking.masks` beside a loop that autograd follows."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.harness import Benchmark, Contender, Group, Measurement, Report
from benchmarks.host import Work
from benchmarks.setup import Setup
from benchmarks.tables import failed, mebibytes, ratio, table
from xai.ranking.masks import order_masks, soft_masks
from xai.ranking.sorting import assignment_scores, gumbel_noise, plain_sinkhorn

ALIKE = 1e-4
"""The most that an entry of the masks or of the gradient may differ by, as a share of the largest."""

_ITERATIONS, _TEMPERATURE, _SHARES = 30, 0.65, torch.linspace(0, 1, 16)[1:-1]
"""The paper's, the middle of its training, and the points of its paths that a step differentiates."""


@dataclass(frozen=True)
class Case:
    """One size.

    Args:
        cells: d, rows and columns of a matrix.
        batch: B, matrices.
        passes: Forward and backward passes in a round.
        rounds: Rounds of everybody.
    """

    cells: int
    batch: int
    passes: int
    rounds: int


def cases(setup: Setup, small: bool = False) -> list[Case]:
    """The settings of a device; `small` ones are done in a moment. None in bfloat16, which changes nothing here."""
    if setup.bf16:
        return []
    if small:
        return [Case(4, 2, 2, 2), Case(9, 2, 1, 2)]
    many = 16 if setup.device == "cuda" else 1
    return [Case(49, 8, 64 * many, 5), Case(196, 8, 8 * many, 5), Case(784, 8, many, 5)]


class Sort(Work):
    """Scores and noise to masks and back, in float32: Sinkhorn leaves autocast.

    Args:
        case: The size.
        setup: The device and threads.
    """

    masks: Callable[[Tensor, Tensor], Tensor]

    def __init__(self, case: Case, setup: Setup) -> None:
        self.case, self.images, generator = case, case.batch * case.passes, torch.Generator().manual_seed(0)
        self.scores = torch.randn(case.batch, case.cells, generator=generator).to(setup.device).requires_grad_()
        self.noise = gumbel_noise(case.batch, case.cells, generator).to(setup.device)
        self.weights = torch.rand(case.batch, len(_SHARES), case.cells, generator=generator).to(setup.device)
        self._found: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))

    def once(self) -> None:
        """Forwards and backwards."""
        masks = type(self).masks(self.scores, self.noise)
        (gradient,) = torch.autograd.grad(masks, self.scores, self.weights)
        self._found = masks.detach(), gradient

    def warm_up(self) -> None:
        """One pass."""
        self.once()

    def round(self) -> None:
        """All passes."""
        for _ in range(self.case.passes):
            self.once()

    def answer(self) -> Tensor:
        """Masks and the gradient of their weighted sum, beside each other [B, S + 1, d]."""
        masks, gradient = self._found
        return torch.cat([masks, gradient[:, None]], 1).cpu()


class Plain(Sort):
    """A loop, a copy of the matrix for each normalisation."""

    @staticmethod
    def masks(scores: Tensor, noise: Tensor) -> Tensor:
        """Of the order itself."""
        order = plain_sinkhorn(assignment_scores(scores, noise, _TEMPERATURE), _ITERATIONS)
        return soft_masks(order, _SHARES.to(scores.device))


class Ours(Sort):
    """Scalings of one kernel, and no order."""

    @staticmethod
    def masks(scores: Tensor, noise: Tensor) -> Tensor:
        """As training asks for them."""
        return order_masks(scores, noise, _SHARES.to(scores.device), _TEMPERATURE, _ITERATIONS)


CONTENDERS = (Contender("plain", Plain), Contender("ours", Ours))
"""The loop and ours."""


def report(found: Group, setup: Setup, peak: float | None = None) -> Report:
    """All sizes as one table."""
    head = ["d", "plain, passes/s", "ours × plain", "plain, memory", "ours, memory", "value off", "gradient off"]
    lines, faults = [], []
    for case, (plain, ours) in found:
        where = f"Soft masks, d = {case.cells}, {setup.title}"
        faults += failed((plain, ours), where)
        if any(row.failure for row in (plain, ours)):
            said = ["failed" if row.failure else "?" for row in (plain, ours)]
            lines.append([str(case.cells), *said, *["–"] * 4])
            continue
        off = _off(ours, plain)
        # Written so that NaN is a fault as well.
        faults += [
            f"{where}: {what} off by {value:.2g} of the largest, and {ALIKE:g} is the most that rounding explains"
            for what, value in zip(("value", "gradient"), off, strict=True)
            if not value <= ALIKE
        ]
        speed = f"{case.passes / plain.median:.3g}"
        cells = [speed, ratio(ours, plain), mebibytes(plain), mebibytes(ours), *(f"{value:.1e}" for value in off)]
        lines.append([str(case.cells), *cells])
    size = f"{_ITERATIONS} iterations of Sinkhorn, B = {found[0][0].batch}"
    title = f"### Soft masks, {size}, forwards and backwards: {setup.title}"
    note = "Off: largest difference of an entry, as a share of the largest entry."
    return Report(f"{title}\n\n{table(head, lines)}\n\n{note}", tuple(faults))


def _off(ours: Measurement, plain: Measurement) -> list[float]:
    """Largest difference of masks and of the gradient, each as a share of its largest entry."""
    assert ours.answer is not None
    assert plain.answer is not None
    both = zip(ours.answer.split([len(_SHARES), 1], 1), plain.answer.split([len(_SHARES), 1], 1), strict=True)
    return [float((mine - its).abs().max() / its.abs().max()) for mine, its in both]


BENCHMARK = Benchmark(CONTENDERS, cases, report, together=lambda case: None)
