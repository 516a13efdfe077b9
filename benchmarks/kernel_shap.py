"""Kernel SHAP: ours, shap's and captum's on one network, as multiples of the plain forward passes it cannot do without.

Every contender explains the logit of the predicted class of the same images with the same number of perturbed images.
All but `ours, tokens` remove a patch by painting it with the mean that the model normalises with; `tokens` drops it
from the sequence. shap and captum are given open_clip's forward pass in batches of the size that suits it best.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Benchmark, Contender, Group, Measurement, Process, Report, in_child
from benchmarks.host import Prepare, Work
from benchmarks.models import Model, best_batches, checked_game, configured, images, paint, reference, targets_of
from benchmarks.setup import Setup
from benchmarks.tables import failed, mebibytes, products, ratio, share, table
from xai.models.maskable import Kind, Removal
from xai.shapley.kernel_shap import kernel_shap

GOALS = {"ours, pixels": 1.05, "ours, tokens": 0.60}
"""The most that the median ratio to the plain passes may be."""

ALIKE = 0.9
"""Attributions of two samples of coalitions have to correlate by more, or they are not of the same game."""

_BATCHES = {"cpu": (4, 16, 64), "cuda": (128, 512, 2048)}
"""Sizes that are tried on the plain passes."""


@dataclass(frozen=True)
class Case:
    """One setting.

    Args:
        title: What the table is headed by.
        model: The network.
        coalitions: P, perturbed images evaluated for each image; the empty and the full one come on top.
        images: B, images explained in a round.
        rounds: Rounds of the plain passes and of ours.
        batch: Images in a forward pass of the contenders that are told.
    """

    title: str
    model: Model
    coalitions: int
    images: int
    rounds: int
    batch: int = 32


def cases(setup: Setup, small: bool = False) -> list[Case]:
    """The settings of a device; `small` ones are done in a moment and show that everything runs."""
    if small:
        tower = {"embed_dim": 16, "width": 32, "layers": 2, "head_width": 16, "position_scale": 0.3}
        text = {"text_width": 8, "text_layers": 1, "text_heads": 2}
        params = configured("clip_tiny", image_size=12, patch_size=4, towers=tower | text)
        return [Case("two narrow layers", Model(params, classes=5), coalitions=200, images=2, rounds=2)]
    tiny, large = Model(configured("clip_tiny", patch_size=6), 10), Model(configured("clip_vit_b32"), 1000)
    images, rounds = (16, 5) if setup.device == "cuda" else (1, 2)
    return [
        Case("`clip_tiny`", tiny, coalitions=256, images=64, rounds=rounds + 1),
        Case("ViT-B/32", large, coalitions=500, images=images, rounds=rounds),
    ]


class Explain(Work):
    """What all contenders share: the network, the images, and the classes they are taken for."""

    def __init__(self, case: Case, setup: Setup) -> None:
        self.case, self.setup, self.images = case, setup, case.images
        self.network = reference(case.model, setup)
        self.pictures = images(case.model, case.images, setup)
        self.targets = targets_of(self.network, self.pictures)
        self.phi: Tensor | None = None

    def explain(self, coalitions: int, count: int) -> Tensor | None:
        """Attributions [count, M] of the first images from so many coalitions; None of the plain passes."""
        raise NotImplementedError

    def warm_up(self) -> None:
        """One image, as few coalitions as still make a batch."""
        self.explain(min(self.case.batch, self.case.coalitions), 1)

    def round(self) -> None:
        """All images, all coalitions."""
        self.phi = self.explain(self.case.coalitions, self.case.images)

    def part(self) -> int:
        """One of the images."""
        self.explain(self.case.coalitions, 1)
        return self.case.images

    def answer(self) -> Tensor | None:
        """Attributions [B, M]."""
        return None if self.phi is None else self.phi.float().cpu()


class Plain(Explain):
    """The floor: as many images through the network as all explanations need, in batches of the best size."""

    def __init__(self, case: Case, setup: Setup) -> None:
        super().__init__(case, setup)
        self._batch = images(case.model, case.batch, setup)

    def explain(self, coalitions: int, count: int) -> None:
        """Pass `count * coalitions` images."""
        full, rest = divmod(coalitions * count, self.case.batch)
        with torch.inference_mode(), self.setup.precision():
            for size in [self.case.batch] * full + [rest] * (rest > 0):
                self.network(self._batch[:size])


class Ours(Explain):
    """`xai.shapley.kernel_shap`, all images in one call."""

    def __init__(self, kind: Kind, case: Case, setup: Setup) -> None:
        super().__init__(case, setup)
        self._begin = checked_game(case.model, self.network, Removal(kind, "mean"), setup)
        del self.network

    def warm_up(self) -> None:
        """On a card everything, because each new shape costs once more there."""
        if self.setup.device == "cpu":
            super().warm_up()
        else:
            self.round()

    def explain(self, coalitions: int, count: int) -> Tensor:
        """Attributions [count, M]. The game is begun anew, since embedding the images is part of the work."""
        with self.setup.precision():
            game = self._begin(self.pictures[:count], self.targets[:count])
            return kernel_shap(game, coalitions, torch.Generator().manual_seed(0))


class Shap(Explain):
    """`shap.KernelExplainer` on a function of coalitions that paints and classifies them in batches."""

    def __init__(self, case: Case, setup: Setup) -> None:
        super().__init__(case, setup)
        import shap  # here, so that what it takes to import counts neither as time nor as memory

        self._explainer = shap.KernelExplainer

    def warm_up(self) -> None:
        """One image, and three coalitions for each patch: from fewer shap warns that it cannot solve."""
        self.explain(3 * self.case.model.players, 1)

    def explain(self, coalitions: int, count: int) -> Tensor:
        """Attributions [count, M], one image at a time."""
        players = self.case.model.players
        found = []
        for picture, target in zip(self.pictures[:count], self.targets[:count].tolist(), strict=True):
            explainer = self._explainer(partial(self._values, picture, target), np.zeros((1, players)))
            found.append(explainer.shap_values(np.ones((1, players)), nsamples=coalitions, l1_reg=False, silent=True))
        return torch.from_numpy(np.concatenate(found))

    @torch.inference_mode()
    def _values(self, picture: Tensor, target: int, coalitions: np.ndarray) -> np.ndarray:
        keep = torch.from_numpy(coalitions > 0.5).to(picture.device)
        with self.setup.precision():
            parts = [
                self.network(paint(self.case.model, picture.expand(len(rows), -1, -1, -1), rows))[:, target]
                for rows in keep.split(self.case.batch)
            ]
        return torch.cat(parts).double().cpu().numpy()


class Captum(Explain):
    """`captum.attr.KernelShap` with patches as features; `batched` sends several perturbed images at once."""

    def __init__(self, batched: bool, case: Case, setup: Setup) -> None:
        super().__init__(case, setup)
        import sklearn.linear_model  # noqa: F401  # captum does when it first solves, and then it would count
        from captum.attr import KernelShap

        self._explainer = KernelShap(self._logits)
        torch.manual_seed(0)  # captum draws from the global generator
        grid, patch = case.model.params.grid, case.model.params.patch_size
        cells = torch.arange(grid * grid).reshape(1, 1, grid, grid)
        self._features = cells.repeat_interleave(patch, 2).repeat_interleave(patch, 3).to(setup.device)
        self._blank = paint(case.model, self.pictures[:1], torch.zeros(1, grid**2, dtype=torch.bool))
        self._settings = {"perturbations_per_eval": case.batch} if batched else {}

    def explain(self, coalitions: int, count: int) -> Tensor:
        """Attributions [count, M], one image at a time; captum counts the empty and the full image as samples."""
        grid, patch, found = self.case.model.params.grid, self.case.model.params.patch_size, []
        for picture, target in zip(self.pictures[:count], self.targets[:count].tolist(), strict=True):
            pixels = self._explainer.attribute(
                picture[None],
                baselines=self._blank,
                target=target,
                feature_mask=self._features,
                n_samples=coalitions + 2,
                **self._settings,
            )
            found.append(pixels[:, 0, ::patch, ::patch].reshape(1, grid * grid))
        return torch.cat(found)

    @torch.inference_mode()
    def _logits(self, pictures: Tensor) -> Tensor:
        with self.setup.precision():
            return self.network(pictures)


def contenders(peer_rounds: int | None) -> list[Contender]:
    """Everybody, the plain passes first; the public packages take part in so many rounds."""
    return [
        Contender("plain", Plain),
        Contender("ours, pixels", partial(Ours, "pixels")),
        Contender("ours, tokens", partial(Ours, "tokens")),
        Contender("shap", Shap, peer_rounds),
        Contender("captum, batched", partial(Captum, True), peer_rounds),
        Contender("captum", partial(Captum, False), peer_rounds),
    ]


def run(
    setup: Setup,
    rounds: int | None,
    small: bool,
    say: Callable[[str], None],
    start: Callable[[Prepare], Process] | None = None,
) -> Iterator[Report]:
    """`Benchmark.run` with the best batches; the public packages do one round, where no number is asked for."""
    chosen = cases(setup, small)
    if not small:
        say("which batches suit the plain passes best?")
        batches = in_child(setup, best_batches, [case.model for case in chosen], _BATCHES[setup.device], setup)
        chosen = [replace(case, batch=batch) for case, batch in zip(chosen, batches, strict=True)]
    benchmark = Benchmark(contenders(rounds or 1), lambda setup, small: chosen, report)
    return benchmark.run(setup, rounds, small, say, start)


def report(found: Group, setup: Setup, peak: float | None = None) -> Report:
    """One case as a table; the share of the rate of matrix products [FLOP/s] is shown where that is given."""
    ((case, rows),) = found
    plain, ours, model = rows[0], rows[1], case.model
    head = ["contender", "× plain passes", "goal", "explained images/s", "peak memory", "agreement"]
    head += [] if peak is None else ["of matmul rate"]
    where = f"{case.title}, {setup.title}"
    lines, faults = [], failed(rows, where)
    for row in rows:
        if row.failure is not None:
            lines.append([row.name, "failed", *["–"] * (len(head) - 2)])
            continue
        agreement = _agreement(row, ours)
        # Written so that NaN is a fault as well.
        if agreement is not None and not agreement > ALIKE:
            faults.append(
                f"{where}: attributions of {row.name} correlate {agreement:.2f} with those of "
                f"{ours.name}, and above {ALIKE} is expected: they do not do the same work"
            )
        compared = ["?", "?"] if plain.failure is not None else [ratio(row, plain), _goal(row, plain)]
        cells = [row.name, *(["1", "–"] if row is plain else compared), f"{row.images / row.median:.3g}"]
        cells += [mebibytes(row), "–" if agreement is None else f"{agreement:.3f}"]
        lines.append(cells + ([] if peak is None else [share(row, peak)]))
    title = (
        f"### Kernel SHAP, {case.title} ({model.params.image_size} px), M = {model.players}, P = {case.coalitions}, "
        f"{case.images} image{'s' if case.images > 1 else ''}: {setup.title}"
    )
    note = (
        f"Agreement: correlation of the attributions with those of `{ours.name}`. "
        f"Batches of {case.batch} for the plain passes, shap and captum, batched."
    )
    note += products(peak)
    return Report(f"{title}\n\n{table(head, lines)}\n\n{note}", tuple(faults))


def _goal(row: Measurement, plain: Measurement) -> str:
    if row.name not in GOALS:
        return "–"
    met = statistics.median(row.ratios(plain)) <= GOALS[row.name]
    return f"≤ {GOALS[row.name]:.2f}: {'met' if met else 'missed'}"


def _agreement(row: Measurement, ours: Measurement) -> float | None:
    """Median over images of the correlation with ours, where patches are removed in the same way."""
    if row.name in ("ours, pixels", "ours, tokens") or row.answer is None or ours.answer is None:
        return None
    pairs = zip(row.answer.double(), ours.answer.double(), strict=True)
    return statistics.median(float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs)
