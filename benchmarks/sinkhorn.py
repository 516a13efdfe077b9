"""Sinkhorn's normalisation, forwards and backwards: `xai.ranking.sorting` beside the loop that autograd follows."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.harness import Benchmark, Contender, Group, Measurement, Report
from benchmarks.host import Work
from benchmarks.setup import Setup
from benchmarks.tables import failed, mebibytes, ratio, table
from xai.ranking.sorting import assignment_scores, gumbel_noise, plain_sinkhorn, sinkhorn

ALIKE = 1e-4
"""The most that an entry of P or of the gradient may differ by, as a share of the largest."""

_ITERATIONS, _TEMPERATURE = 30, 0.65
"""The paper's, and the middle of its training."""


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
    """Scores with noise to P and back, in float32: Sinkhorn leaves autocast.

    Args:
        case: The size.
        setup: The device and threads.
    """

    normalise: Callable[[Tensor, int], Tensor]

    def __init__(self, case: Case, setup: Setup) -> None:
        self.case, self.images, generator = case, case.batch * case.passes, torch.Generator().manual_seed(0)
        scores = torch.randn(case.batch, case.cells, generator=generator)
        noise = gumbel_noise(case.batch, case.cells, generator)
        weights = torch.rand(case.batch, case.cells, case.cells, generator=generator)
        self.scores = assignment_scores(scores, noise, _TEMPERATURE).to(setup.device).requires_grad_()
        self.weights = weights.to(setup.device)
        self._found = torch.empty(0)

    def once(self) -> None:
        """Forwards and backwards."""
        matrix = type(self).normalise(self.scores, _ITERATIONS)
        (gradient,) = torch.autograd.grad(matrix, self.scores, self.weights)
        self._found = torch.stack([matrix.detach(), gradient])

    def warm_up(self) -> None:
        """One pass."""
        self.once()

    def round(self) -> None:
        """All passes."""
        for _ in range(self.case.passes):
            self.once()

    def answer(self) -> Tensor:
        """P and the gradient of its weighted sum, [2, B, d, d]."""
        return self._found.cpu()


class Plain(Sort):
    """A loop, a copy of the matrix for each normalisation."""

    normalise = staticmethod(plain_sinkhorn)


class Ours(Sort):
    """Potentials of each iteration, and one kernel."""

    normalise = staticmethod(sinkhorn)


CONTENDERS = (Contender("plain", Plain), Contender("ours", Ours))
"""The loop and ours."""


def report(found: Group, setup: Setup, peak: float | None = None) -> Report:
    """All sizes as one table."""
    head = ["d", "plain, passes/s", "ours × plain", "plain, memory", "ours, memory", "value off", "gradient off"]
    lines, faults = [], []
    for case, (plain, ours) in found:
        where = f"Sinkhorn, d = {case.cells}, {setup.title}"
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
    title = f"### Sinkhorn, {_ITERATIONS} iterations, B = {found[0][0].batch}, forwards and backwards: {setup.title}"
    note = "Off: largest difference of an entry, as a share of the largest entry."
    return Report(f"{title}\n\n{table(head, lines)}\n\n{note}", tuple(faults))


def _off(ours: Measurement, plain: Measurement) -> list[float]:
    """Largest difference of P and of the gradient, each as a share of its largest entry."""
    assert ours.answer is not None
    assert plain.answer is not None
    difference = (ours.answer - plain.answer).abs().flatten(1).amax(1)
    return (difference / plain.answer.abs().flatten(1).amax(1)).tolist()


BENCHMARK = Benchmark(CONTENDERS, cases, report, together=lambda case: None)
