"""How far Shapley estimates are off after so many forward passes: our samplers, shap's and captum's.

`make bench-estimators`, or `python -m benchmarks.estimators --help`. All estimators play the same game, so that only
their choice of coalitions and what they make of the answers differs.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import captum.attr
import numpy as np
import shap
import torch
from torch import Tensor

from benchmarks.machine import description
from benchmarks.tables import table
from benchmarks.trained import Digits, Say, amortised, classifier, digits
from xai.games import PatchGame
from xai.models.timm_vit import MaskableVit
from xai.shapley.exact import exact_shapley
from xai.shapley.kernel_shap import kernel_shap, kernel_shap_with_error

_WEIGHTS = Path("outputs/benchmarks")


@dataclass(frozen=True)
class Study:
    """What is measured on one grid.

    Args:
        patch: Side of a patch; M = (28 / patch)^2.
        steps: Training steps of the classifier.
        images: Test images explained.
        budgets: Numbers P of coalitions.
        repeats: Designs drawn for each P.
        reference: Coalitions of the reference where M is too large for the exact values.
        labelled: Training images that the proxy is fitted to; 0 leaves the proxy out.
    """

    patch: int
    steps: int
    images: int
    budgets: tuple[int, ...]
    repeats: int
    reference: int
    labelled: int

    @property
    def players(self) -> int:
        """M."""
        return (28 // self.patch) ** 2


STUDIES = (
    Study(7, 2500, 8, (24, 32, 64, 128, 256, 512, 1024, 2048, 4096), 8, 0, 0),
    Study(4, 2500, 8, (64, 96, 128, 256, 512, 1024, 2048, 4096), 6, 1 << 17, 3600),
    Study(2, 1500, 2, (256, 512, 1024, 2048, 4096), 2, 1 << 15, 0),
)
SMALL = (Study(7, 20, 2, (32, 64), 2, 0, 64), Study(4, 20, 2, (128,), 2, 512, 0))


@dataclass(frozen=True)
class Question:
    """What is to be explained: images [B, 3, 28, 28] of classes `labels` [B], by a classifier."""

    model: MaskableVit
    images: Tensor
    labels: Tensor

    def game(self) -> PatchGame:
        """All games at once."""
        return PatchGame(self.model, self.images, self.labels, output="logit")

    def games(self) -> list[Callable[[np.ndarray], np.ndarray]]:
        """Each image's game by itself, a function of presence [S, M] in {0, 1}."""
        rows = range(len(self.images))
        return [Question(self.model, self.images[row, None], self.labels[row, None])._values for row in rows]

    def _values(self, present: np.ndarray) -> np.ndarray:
        return self.game().value(torch.from_numpy(present > 0.5))[0].numpy()


Estimator = Callable[[Question, int, torch.Generator], Tensor]
"""Estimates the Shapley values [B, M] from P coalitions."""


def ours(sampler: str, solver: str = "least_squares") -> Estimator:
    """Kernel SHAP as it is here."""
    return lambda asked, number, generator: kernel_shap(asked.game(), number, generator, sampler=sampler, solver=solver)


def shap_package(asked: Question, number: int, generator: torch.Generator) -> Tensor:
    """`shap.KernelExplainer`, one game after another, without its feature selection."""
    maps, players = [], asked.model.players
    for values in asked.games():
        explainer = shap.KernelExplainer(values, np.zeros((1, players)), silent=True)
        np.random.seed(int(torch.randint(2**31, (), generator=generator)))
        with warnings.catch_warnings():
            # It warns where its regression is singular, and goes on.
            warnings.simplefilter("ignore")
            maps.append(explainer.shap_values(np.ones((1, players)), nsamples=number, l1_reg=False, silent=True)[0])
    return torch.from_numpy(np.stack(maps))


def captum_package(asked: Question, number: int, generator: torch.Generator) -> Tensor:
    """`captum.attr.KernelShap`, one game after another; two of its samples are the empty and the full coalition."""
    maps = []
    for values in asked.games():

        def forward(present: Tensor, values: Callable[[np.ndarray], np.ndarray] = values) -> Tensor:
            return torch.from_numpy(values(present.numpy()))

        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        explainer, ones = captum.attr.KernelShap(forward), torch.ones(1, asked.model.players)
        maps.append(explainer.attribute(ones, n_samples=number + 2, perturbations_per_eval=256)[0])
    return torch.stack(maps)


ESTIMATORS: dict[str, Estimator] = {
    "paired": ours("paired"),
    "without replacement": ours("without_replacement"),
    "leverage": ours("leverage"),
    "shapley kernel": ours("shapley_kernel"),
    "paired, unbiased": ours("paired", "unbiased"),
    "shap": shap_package,
    "captum": captum_package,
}


def error(estimate: Tensor, truth: Tensor) -> Tensor:
    """Root mean squared error over patches as a multiple of the reference's standard deviation over them, [B]."""
    return (estimate - truth).square().mean(1).sqrt() / truth.std(1, correction=0)


def run(study: Study, say: Say) -> str:
    """The tables of one grid, in markdown."""
    model = classifier(study.patch, study.steps, _WEIGHTS, say)
    seen = digits("test")
    chosen = torch.randperm(len(seen.labels), generator=torch.Generator().manual_seed(0))[: study.images]
    asked = Question(model, seen.images[chosen], seen.labels[chosen])
    truth, about = _truth(asked.game(), study, say)
    rows = []
    for name, estimator in ESTIMATORS.items():
        cells = []
        for number in study.budgets:
            found = [estimator(asked, number, _seed(number, turn)) for turn in range(study.repeats)]
            cells.append(_shown(statistics.mean(float(error(phi, truth).mean()) for phi in found)))
        say(f"M = {study.players}, {name}: {' '.join(cells)}")
        rows.append([name, *cells])
    rows.append(["paired, its own standard error", *_own_errors(asked.game(), study, truth)])
    head = [f"M = {study.players}", *(f"P = {number}" for number in study.budgets)]
    proxied = f"\n\n{_proxied(asked, truth, study, say)}" if study.labelled else ""
    return f"{about}\n\n{table(head, rows)}{proxied}"


def _truth(game: PatchGame, study: Study, say: Say) -> tuple[Tensor, str]:
    start = time.perf_counter()
    if not study.reference:
        truth, about = exact_shapley(game), f"M = {study.players}, against the exact values."
    else:
        estimate = kernel_shap_with_error(game, study.reference, _seed(0, -1), sampler="paired")
        truth, spread = estimate.values, truth_error(estimate.values, estimate.standard_error)
        about = (
            f"M = {study.players}, against {study.reference} coalitions, whose own standard error is {spread:.3f} "
            "in the table's unit."
        )
    say(f"{about} ({time.perf_counter() - start:.0f} s)")
    return truth, f"{about} {study.images} images, {study.repeats} designs for each P."


def truth_error(values: Tensor, standard_error: Tensor) -> float:
    """Estimated standard error in the unit of `error`, mean over images."""
    return float((standard_error.square().mean(1).sqrt() / values.std(1, correction=0)).mean())


def _own_errors(game: PatchGame, study: Study, truth: Tensor) -> list[str]:
    cells = []
    for number in study.budgets:
        estimate = kernel_shap_with_error(game, number, _seed(number, 0), sampler="paired")
        cells.append(_shown(truth_error(truth, estimate.standard_error)))
    return cells


def _proxied(asked: Question, truth: Tensor, study: Study, say: Say) -> str:
    """What an amortised explainer as a proxy saves."""
    train = digits("train")
    number, labelled = 4 * study.players, study.labelled
    guesses = []
    for block in torch.arange(labelled).split(50):
        known = Question(asked.model, train.images[block], train.labels[block])
        guesses.append(kernel_shap(known.game(), number, _seed(number, int(block[0]))))
    seen = Digits(train.images[:labelled], train.labels[:labelled])
    network = amortised(asked.model, torch.cat(guesses), seen, study.steps // 2, say)
    game, proxy = asked.game(), network(asked.images, asked.labels)
    budgets, rows = _small_budgets(study), []
    for solver in ("least_squares", "unbiased"):
        for name, guess in (("alone", None), ("with the proxy", proxy)):
            cells = []
            for budget in budgets:
                found = [
                    kernel_shap(game, budget, _seed(budget, turn), solver=solver, proxy=guess)
                    for turn in range(study.repeats)
                ]
                cells.append(_shown(statistics.mean(float(error(phi, truth).mean()) for phi in found)))
            rows.append([f"{solver.replace('_', ' ')}, {name}", *cells])
            say(f"M = {study.players}, {rows[-1][0]}: {' '.join(cells)}")
    alone = float(error(proxy, truth).mean())
    text = (
        f"The proxy, an amortised explainer fitted to {labelled} training images with P = {number} each, is off by "
        f"{alone:.3f} on its own."
    )
    return f"{text}\n\n{table([f'M = {study.players}', *(f'P = {budget}' for budget in budgets)], rows)}"


def _shown(error: float) -> str:
    """Three digits; only the magnitude of what has no meaning."""
    return f"{error:.3f}" if error < 100 or error == float("inf") else f"{error:.0e}"


def _small_budgets(study: Study) -> list[int]:
    """From far fewer coalitions than patches to far more."""
    return [max(2, 2 * round(study.players * share / 2)) for share in (0.25, 0.5, 1, 1.5, 2, 3, 4, 8, 16)]


def _seed(number: int, turn: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000_003 * (turn + 2) + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the studies; the exit status is 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimators", description="Error against passes.")
    parser.add_argument(
        "--players", type=int, choices=[study.players for study in STUDIES], help="one M instead of all"
    )
    parser.add_argument("--small", action="store_true", help="sizes that mean nothing but are done in a moment")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    start = time.perf_counter()

    def say(line: str) -> None:
        print(f"[{time.perf_counter() - start:5.0f} s] {line}", file=sys.stderr, flush=True)

    print(description(), flush=True)
    for study in SMALL if options.small else STUDIES:
        if options.players in (None, study.players):
            print(f"\n{run(study, say)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
