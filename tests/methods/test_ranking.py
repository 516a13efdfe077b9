"""Learn to Rank's training: one step by hand, what is trained, that it learns, resumes and runs in two processes."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.end_to_end.jobs import forked_groups
from tests.methods.tiny_salvage import PARAMS, batch, classifier, copied, same, train
from tests.ranking.toys import MEAN, published_step
from tests.ranking.toys import PARAMS as OBJECTIVE
from xai.core.batch_norm import SharedBatchNorm
from xai.core.optimisation import FitParams
from xai.core.training import TrainerParams, fit
from xai.data.module import Batch, ImageDataModule
from xai.data.registry import Images
from xai.methods import ranking
from xai.methods.ranking import Ranking, RankingLoss
from xai.metrics.functional.perturbation import area, perturbation_curves
from xai.models.dense import DenseExplainer
from xai.models.dpt import DecoderParams
from xai.models.evidence import evidence
from xai.models.features import FrozenFeatures
from xai.models.maskable import MaskableClassifier, PaintedClassifier
from xai.ranking.areas import confidence
from xai.ranking.objective import Question, draw

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to .self.log")

DECODER = DecoderParams(8, 4, 2, 4, (1,), "product")
# On so small an image the step that is written out below has no blur.
FLAT = replace(OBJECTIVE, references=("black", "mean"))
FIT = FitParams(epochs=1, batch_size=6, learning_rate=1e-2, weight_decay=1e-3, warmup=0.06, clip=1.0)
LOSS = RankingLoss(own_class=1.0, runner_up=0.3, temperature_start=1.0, temperature_end=0.3)
STEPS = 10
SEED = 3


def explainer(
    network: nn.Module, explained: MaskableClassifier, levels: tuple[int, ...] = (0,), classes: int = 3, **shape: Any
) -> DenseExplainer:
    """Untrained, for images of 8 x 8 pixels."""
    decoder = replace(DECODER, resize=(1,) * len(levels), **shape)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        seen = FrozenFeatures(network, levels, PARAMS.mean, PARAMS.std, 8)
        return DenseExplainer(seen, decoder, classes, explained, MEAN.tolist())


def learner(objective: Any = FLAT, loss: RankingLoss = LOSS, **shape: Any) -> Ranking:
    asked = classifier(seed=1)
    made = explainer(PARAMS.build(3, 0), asked, **shape)
    return Ranking(made, asked, MEAN.tolist(), FIT, objective, loss, SEED, "test")


def at_step(module: Any, step: int, rank: int = 0) -> Any:
    module._trainer = SimpleNamespace(
        global_step=step, global_rank=rank, estimated_stepping_batches=STEPS, barebones=True
    )
    return module


def two_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """The predicted class, and the true one or else the second."""
    pairs = []
    for scores, label in zip(logits, labels, strict=True):
        first, second = scores.argsort(descending=True)[:2]
        pairs.append([int(first), int(second if first == label else label)])
    return torch.tensor(pairs)


@pytest.mark.parametrize(
    ("own_class", "runner_up", "gradient"), [(0.0, 0.3, False), (1.0, 0.0, False), (1.0, 1.0, True)]
)
@pytest.mark.parametrize("step", [0, 7])
def test_a_step_is_the_paper_s_line_by_line(own_class: float, runner_up: float, gradient: bool, step: int) -> None:
    loss, shape = replace(LOSS, own_class=own_class, runner_up=runner_up), {"pixels": 2, "gradient": gradient}
    module, given = at_step(learner(loss=loss, **shape), step), batch()
    generator = torch.Generator().manual_seed(SEED * 1_000_003 + step)
    drawn = draw(FLAT, 6, generator)
    torch.rand(2, 6, generator=generator)
    of_dropout = int(torch.randint(2**62, (), generator=generator))
    asked = classifier(seed=1)
    pair = two_classes(asked(given.pixels), given.labels)
    judged_by = pair if own_class == 0 else pair[:, int(runner_up), None].expand(-1, 2)
    targets, features = judged_by[:, 0], module._frozen[0](given.pixels)
    shown = evidence(gradient, asked, given.pixels, targets, MEAN)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(of_dropout)
        maps = module.decoder(features, targets, given.pixels, shown)
    asked, images = asked.double(), given.pixels.double()
    question = Question(images, judged_by, confidence(asked(images), judged_by))
    random = drawn._replace(noise=drawn.noise.double())
    tau = 1.0 - 0.7 * step / (STEPS - 1)
    expected = published_step(maps.double(), question, asked, FLAT, random, tau, exact_end=True).loss.mean()
    found = module.training_step(given, 0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_a_map_is_for_one_class_and_judged_by_it_or_by_both() -> None:
    pair = torch.stack([torch.arange(4000) % 3, (torch.arange(4000) + 1) % 3], dim=1)

    def targets(own_class: float, runner_up: float) -> tuple[Tensor, Tensor]:
        module = learner(loss=replace(LOSS, own_class=own_class, runner_up=runner_up))
        return module._targets(pair, torch.Generator().manual_seed(0))

    drawn_for, judged_by = targets(0.0, 0.9)
    assert torch.equal(drawn_for, pair[:, 0])
    assert torch.equal(judged_by, pair)
    for runner_up in (0.0, 0.3, 1.0):
        drawn_for, judged_by = targets(1.0, runner_up)
        assert torch.equal(judged_by, drawn_for[:, None].expand(-1, 2))
        second = drawn_for == pair[:, 1]
        assert torch.equal(drawn_for[~second], pair[~second, 0])
        assert float(second.float().mean()) == pytest.approx(runner_up, abs=0.03)
    drawn_for, judged_by = targets(0.5, 1.0)
    alone = judged_by[:, 0] == judged_by[:, 1]
    assert float(alone.float().mean()) == pytest.approx(0.5, abs=0.03)
    assert torch.equal(drawn_for, torch.where(alone, pair[:, 1], pair[:, 0]))


def test_the_temperature_goes_linearly_from_the_first_step_to_the_last() -> None:
    assert [LOSS.temperature(step, 8) for step in range(8)] == pytest.approx([1 - 0.1 * step for step in range(8)])
    assert LOSS.temperature(0, 1) == 1.0
    assert LOSS.temperature(9, 8) == pytest.approx(0.3)


def test_the_rate_rises_linearly_and_falls_as_torch_s_one_cycle() -> None:
    module: Any = LightningModule()
    module.layer, module._params = nn.Linear(2, 2), FIT
    module._trainer = SimpleNamespace(estimated_stepping_batches=100)
    made = Ranking.configure_optimizers(module)
    optimiser, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    other = torch.optim.AdamW(module.parameters())
    cycle = torch.optim.lr_scheduler.OneCycleLR(other, 1e-2, 100, pct_start=0.06, div_factor=25, final_div_factor=1e4)
    rates, published = [], []
    for _ in range(100):
        rates.append(optimiser.param_groups[0]["lr"])
        published.append(other.param_groups[0]["lr"])
        for each in (optimiser, schedule, other, cycle):
            each.step()
    rise = [1e-2 / 25 + (1e-2 - 1e-2 / 25) * step / 6 for step in range(1, 7)]
    assert rates[:6] == pytest.approx(rise)
    # Torch is at its peak with the last step of the rise, and so are we; it has no step left at the very end.
    assert rates[6:] == pytest.approx(published[5:-1])
    assert optimiser.param_groups[0]["lr"] == pytest.approx(published[-1])
    assert published[-1] == pytest.approx(1e-2 / 25 / 1e4)
    assert optimiser.param_groups[0]["weight_decay"] == FIT.weight_decay


def test_only_the_decoder_is_trained_and_kept() -> None:
    module = learner()
    features, asked = module._frozen
    before = [copied(features), copied(asked), copied(module.decoder)]
    losses, checkpoint = train(module, [batch()] * 3)
    assert all(math.isfinite(loss) for loss in losses)
    assert same(before[0], features)
    assert same(before[1], asked)
    assert not same(before[2], module.decoder)
    assert all(value.grad is None for part in (features, asked) for value in part.parameters())
    assert set(checkpoint["state_dict"]) == {f"decoder.{name}" for name in module.decoder.state_dict()}


def test_a_step_is_a_function_of_its_seed_though_dropout_draws() -> None:
    losses = []
    with torch.random.fork_rng():
        for other, (step, dropout) in enumerate([(2, 0.5), (2, 0.5), (3, 0.5), (2, 0.0)]):
            module = at_step(learner(dropout=dropout), step)
            torch.manual_seed(other)
            state = torch.get_rng_state()
            losses.append(module.training_step(batch(), 0).item())
            assert torch.equal(torch.get_rng_state(), state)
    assert losses[0] == losses[1] != losses[2]
    assert losses[0] != losses[3]


def test_ranks_agree_on_grid_and_reference_and_not_on_their_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(ranking, "draw", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    for step in range(8):
        for rank in (0, 1):
            at_step(learner(), step, rank).training_step(batch(), 0)
    first, second = drawn[::2], drawn[1::2]
    assert [one[:2] for one in first] == [other[:2] for other in second]
    assert len({one[:2] for one in first}) > 2
    assert all((one.noise != other.noise).all() for one, other in zip(first, second, strict=True))


def test_a_convolutional_classifier_is_explained_through_its_own_stages() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("test_resnet", num_classes=3)
    asked = PaintedClassifier(network, (2, 2), PARAMS.mean, PARAMS.std)
    seen = explainer(timm.create_model("test_resnet", num_classes=0), asked, (0, 1), pixels=2, gradient=True)
    module = Ranking(seen, asked, PARAMS.mean, FIT, OBJECTIVE, LOSS, SEED, "test")
    before = copied(asked)
    losses, _ = train(module, [batch()] * 2)
    assert all(math.isfinite(loss) for loss in losses)
    assert same(before, asked)
    assert module.decoder.embedding.weight.grad.any()


def test_steps_in_mixed_precision_are_finite() -> None:
    losses, _ = train(learner(), [batch()] * 2, precision="bf16-mixed")
    assert all(math.isfinite(loss) for loss in losses)


class Brightest(MaskableClassifier):
    """Says which quarter of an image is the brightest."""

    grid = (2, 2)

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        return 20 * F.avg_pool2d(images.mean(1, keepdim=True), 4).flatten(1)

    encode = decode = cost = None  # type: ignore[assignment]


class KilledError(Exception):
    """What stands in for kill -9."""


class Quarters:
    """Eight noisy images, others in each epoch, with one bright quarter: their class."""

    classes = ("north", "east", "south", "west")
    templates = ("{}",)
    varies = True

    def __init__(self, deadline: int | None = None) -> None:
        self.deadline = deadline

    def labels(self, split: str) -> Tensor:
        return torch.arange(8) % 4

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        if epoch == self.deadline:
            raise KilledError
        generator = torch.Generator().manual_seed(epoch)
        bright = F.one_hot(self.labels(split), 4).reshape(-1, 1, 2, 2).repeat_interleave(4, 2).repeat_interleave(4, 3)
        return Images((0.3 * torch.rand(8, 3, 8, 8, generator=generator) + 0.6 * bright)[indices], None)


def quarters(params: FitParams = FIT, module: Any = Ranking, seed: int = 0, **more: Any) -> Any:
    made = explainer(PARAMS.build(4, seed=0), Brightest(), classes=4, scale=4.0)
    if seed:
        made.decoder.last.weight.data += 1
    return module(made, Brightest(), PARAMS.mean, params, FLAT, LOSS, SEED, "test", **more)


def deletion(module: Ranking) -> float:
    """Mean area under the deletion curves of images that the training has not seen."""
    pixels, labels = Quarters().images("test", torch.arange(8), 999).pixels, Quarters().labels("test")
    with torch.no_grad():
        maps = module.decoder.eval()(module._frozen[0](pixels), labels, pixels)
    generator = torch.Generator().manual_seed(0)
    curves = perturbation_curves(Brightest(), pixels, maps, labels[:, None], pixels[:1] * 0, generator)
    return float(area(curves.deletion[..., 0]).mean())


def test_training_finds_what_decides_the_class() -> None:
    module, source = quarters(), Quarters()
    untrained = deletion(module)
    shown = [
        Batch(source.images("train", torch.arange(8), n).pixels, source.labels("train"), None, None) for n in range(60)
    ]
    losses, _ = train(module, shown)
    assert sum(losses[-10:]) < sum(losses[:10]) - 1
    assert deletion(module) < untrained - 0.1


def trained(folder: Path, source: Quarters, devices: int = 1, module: Any = Ranking, **more: Any) -> Any:
    """Two epochs of two steps."""
    params = replace(FIT, epochs=2, batch_size=4 // devices)
    made, trainer = quarters(params, module, **more), TrainerParams(accelerator="cpu", devices=devices)
    fit(made, ImageDataModule(source, 8, params.batch_size, seed=3), params, trainer, folder, "training", False)
    return made.decoder.state_dict()


def test_a_run_that_was_interrupted_ends_with_the_same_numbers(tmp_path: Path) -> None:
    expected = trained(tmp_path / "undisturbed", Quarters())
    with pytest.raises(KilledError):
        trained(tmp_path / "killed", Quarters(deadline=1))
    # What a resumed run starts from must not matter.
    found = trained(tmp_path / "killed", Quarters(), seed=1)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


class Noting(Ranking):
    """Notes what it has drawn, where it has arrived, and how many norms it shares with other processes."""

    def __init__(self, *given: Any, notes: Path) -> None:
        super().__init__(*given)
        self._notes, self._drawn = notes, []  # type: ignore[var-annotated]

    def on_fit_start(self) -> None:
        super().on_fit_start()

        def noted(*given: Any) -> Any:
            drawn = draw(*given)
            self._drawn.append([float(drawn.grid), float(drawn.noise.flatten()[0])])
            return drawn

        ranking.draw = noted  # type: ignore[attr-defined]

    def on_train_end(self) -> None:
        shared = sum(isinstance(part, SharedBatchNorm) for part in self.decoder.modules())
        found = {**self.decoder.state_dict(), "drawn": torch.tensor(self._drawn), "shared": torch.tensor(shared)}
        save_file(found, self._notes / f"rank{self.global_rank}")


@pytest.mark.slow
def test_two_processes_end_with_one_decoder(tmp_path: Path) -> None:
    with forked_groups():
        arrived = trained(tmp_path / "two", Quarters(), 2, Noting, notes=tmp_path)
    first, second = (load_file(tmp_path / f"rank{rank}") for rank in (0, 1))
    assert all(torch.equal(first[name], value) and torch.equal(second[name], value) for name, value in arrived.items())
    assert torch.equal(first["drawn"][:, 0], second["drawn"][:, 0])
    assert (first["drawn"][:, 1] != second["drawn"][:, 1]).all()
    norms = sum(isinstance(part, nn.BatchNorm2d) for part in quarters().decoder.modules())
    assert first["shared"] == second["shared"] == norms == 5
