"""One masked forward pass in four ways, as multiples of a plain one.

`tokens` and `pixels` are games of ours. `attention masking` computes every token and hides the removed ones from the
others. `packed pairs` puts a coalition and its complement into one sequence under a block-diagonal mask: exactly M
patch tokens and two class tokens, so nothing is computed for removed patches, and nothing is spared in the attention.
Coalitions are complementary pairs drawn from the Shapley kernel, the same for everybody.
"""

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.harness import Benchmark, Contender, Group, Measurement, Report
from benchmarks.host import Work
from benchmarks.models import Model, checked_game, configured, images, reference, targets_of
from benchmarks.setup import Setup
from benchmarks.tables import failed, mebibytes, ratio, share, table
from xai.models.factory import ClipParams
from xai.models.maskable import Kind, Removal
from xai.shapley.coalitions import paired

_TOKENS = {"cpu": 1 << 12, "cuda": 1 << 18}
"""Patch tokens in a batch of the contenders that compute all of them."""


@dataclass(frozen=True)
class Case:
    """One number of patches in one tower.

    Args:
        title: The tower.
        model: The network.
        coalitions: S, how many are asked for in a round.
        rounds: Rounds of everybody.
    """

    title: str
    model: Model
    coalitions: int
    rounds: int

    def batch(self, setup: Setup) -> int:
        """Sequences in a batch, an even number."""
        return max(2, _TOKENS[setup.device] // self.model.players // 2 * 2)


def cases(setup: Setup, small: bool = False) -> list[Case]:
    """The settings of a device, tower by tower; `small` ones are done in a moment."""
    grids = (2, 3) if small else (4, 7, 10, 14, 16)
    towers = {"`clip_tiny` (96 wide, 3 layers)": _tiny} | ({} if small else {"384 wide, 6 layers": _vit_small})
    sizes = {"cpu": {_tiny: 512, _vit_small: 64}, "cuda": {_tiny: 16384, _vit_small: 4096}}[setup.device]
    return [
        Case(title, Model(tower(grid), 10), 16 if small else sizes[tower], 2 if tower is _vit_small else 3)
        for title, tower in towers.items()
        for grid in grids
    ]


def _tiny(grid: int) -> ClipParams:
    return configured("clip_tiny", patch_size=6, image_size=6 * grid)


def _vit_small(grid: int) -> ClipParams:
    tower = {"embed_dim": 384, "width": 384, "layers": 6, "head_width": 64, "position_scale": 0.3}
    text = {"text_width": 8, "text_layers": 1, "text_heads": 1}
    return configured("clip_tiny", patch_size=16, image_size=16 * grid, towers=tower | text)


class Answer(Work):
    """What all contenders share: the network, one image, and the coalitions."""

    def __init__(self, case: Case, setup: Setup) -> None:
        self.case, self.setup = case, setup
        self.network = reference(case.model, setup)
        self.picture = images(case.model, 1, setup)
        self.target = targets_of(self.network, self.picture)
        self.images = case.coalitions
        generator = torch.Generator().manual_seed(1)
        self.design = paired(case.model.players, case.coalitions, generator).coalitions.to(setup.device)

    @abstractmethod
    def values(self, design: Tensor) -> None:
        """Ask for the values of coalitions [S, M]."""

    def warm_up(self) -> None:
        """One batch; on a card everything, because each new shape costs once more there."""
        self.values(self.design[: self.case.batch(self.setup)] if self.setup.device == "cpu" else self.design)

    def round(self) -> None:
        """All coalitions."""
        self.values(self.design)


class Plain(Answer):
    """The floor: as many whole images through the library's own forward pass."""

    def values(self, design: Tensor) -> None:
        """Pass one image for each coalition."""
        with torch.inference_mode(), self.setup.precision():
            for rows in design.split(self.case.batch(self.setup)):
                self.network(self.picture.repeat(len(rows), 1, 1, 1))


class Game(Answer):
    """A game of ours."""

    def __init__(self, kind: Kind, case: Case, setup: Setup) -> None:
        super().__init__(case, setup)
        self._begin = checked_game(case.model, self.network, Removal(kind, "mean"), setup)

    def values(self, design: Tensor) -> None:
        """Begin a game, since embedding the image is part of the work, and ask it."""
        with self.setup.precision():
            self._begin(self.picture, self.target).value(design)


class Masked(Answer):
    """All tokens, with an additive mask on every attention of the library's own transformer."""

    def values(self, design: Tensor) -> None:
        """Embed the image once and pass it under the mask of every coalition."""
        with torch.inference_mode(), self.setup.precision():
            tokens = self.network.embed(self.picture)
            for rows in design.split(self.case.batch(self.setup)):
                self.network.masked(tokens.expand(len(rows), -1, -1), rows)


class Packed(Answer):
    """Pairs of complements in one sequence, kept apart by a mask."""

    def __init__(self, case: Case, setup: Setup) -> None:
        super().__init__(case, setup)
        with torch.inference_mode():
            tokens = self.network.embed(self.picture).expand(4, -1, -1)
            pairs = self.network.packed(tokens, self.design[:8:2]).flatten(0, 1)
            expected = self.network.masked(tokens.repeat(2, 1, 1), self.design[:8])
        torch.testing.assert_close(pairs, expected, rtol=1e-3, atol=1e-3)

    def values(self, design: Tensor) -> None:
        """Embed the image once and pass every pair."""
        with torch.inference_mode(), self.setup.precision():
            tokens = self.network.embed(self.picture)
            for rows in design[::2].split(self.case.batch(self.setup)):
                self.network.packed(tokens.expand(len(rows), -1, -1), rows)


CONTENDERS = (
    Contender("plain passes", Plain),
    Contender("tokens", partial(Game, "tokens")),
    Contender("attention masking", Masked),
    Contender("packed pairs", Packed),
    Contender("pixels", partial(Game, "pixels")),
)
"""Everybody, the plain passes first."""


def report(found: Group, setup: Setup, peak: float | None = None) -> Report:
    """One tower as a table: a row for each number of patches, a column for each contender."""
    names = [row.name for row in found[0][1]]
    lines, faults = [], []
    for case, rows in found:
        plain, where = rows[0], f"M = {case.model.players}, {case.title}, {setup.title}"
        faults += failed(rows, where)
        lines.append([str(case.model.players), *(_cell(row, plain, peak) for row in rows)])
    case = found[0][0]
    title = f"### Masked forward passes, {case.title}, {case.coalitions} coalitions: {setup.title}"
    rate = "" if peak is None else f", share of the {peak / 1e12:.3g} TFLOP/s of large matrix products"
    note = f"Multiples of the plain passes (for those: passes/s), peak memory{rate}."
    return Report(f"{title}\n\n{table(['M', *names], lines)}\n\n{note}", tuple(faults))


def _cell(row: Measurement, plain: Measurement, peak: float | None) -> str:
    if row.failure is not None or plain.failure is not None:
        return "failed" if row.failure is not None else "?"
    first = f"{row.images / row.median:.3g}/s" if row is plain else ratio(row, plain)
    return ", ".join([first, mebibytes(row), *([] if peak is None else [share(row, peak)])])


BENCHMARK = Benchmark(CONTENDERS, cases, report, together=lambda case: case.title)
