"""Trained networks as explainers: what they give is their network's own, in one pass, whoever asks."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.methods import tiny_salvage
from tests.models import test_dense, tiny_clip
from tests.ranking import toys
from tests.shapley.tables import all_rows, shapley_by_permutations
from tests.toolbox import seeded, there
from xai.explainers.block import Block, explain
from xai.explainers.learned.networks import Classifies, Salvage, SalvageAdjusted, SelfExplaining, VitShapleyExplainer
from xai.explainers.learned.refined import RefinedDecoder, RefinedMaps
from xai.games import PatchGame
from xai.methods.salvage import shapley_distribution
from xai.metrics.functional.perturbation import enlarge_map
from xai.models.explainer import SalvageNetwork, ShapleyNetwork
from xai.models.maskable import MaskableClassifier, PaintedClassifier
from xai.ranking.areas import confidence
from xai.ranking.objective import Question
from xai.ranking.refinement import Refinement, RefinementParams, in_units
from xai.shapley.exact import exact_shapley
from xai.shapley.kernel_shap import kernel_shap

TARGETS = torch.tensor([2, 0, 1])
MEAN = torch.tensor([0.5, 0.5, 0.5])
OBJECTIVE = toys.params(steps=3, grid_min=2, grid_max=4, references=("black", "mean"), iterations=5)
REFINEMENT = RefinementParams(steps=2, draws=1, size=0.5, sigma=1.0, temperature=0.3, learning_rate=0.01)


def pictures(size: int) -> Tensor:
    return torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))


def block(size: int, seed: int = 5) -> Block:
    return Block(pictures(size), TARGETS, None, None, torch.arange(3), torch.Generator().manual_seed(seed))


def salvage(temperature: float = 1.0) -> tuple[SalvageNetwork, Any]:
    network = tiny_salvage.speaking(tiny_salvage.explainer(SalvageNetwork)).eval().requires_grad_(True)
    network.temperature = temperature
    return network, Salvage(network)


def vit_shapley() -> tuple[ShapleyNetwork, Any]:
    network = tiny_salvage.speaking(tiny_salvage.explainer(ShapleyNetwork, parts=1)).eval().requires_grad_(True)
    return network, VitShapleyExplainer(network, tiny_salvage.classifier(seed=1))


@pytest.mark.parametrize("made", [salvage, partial(salvage, 3.0), vit_shapley])
def test_maps_and_logits_come_from_one_pass_without_gradients(
    made: Callable[[], tuple[SalvageNetwork | ShapleyNetwork, Any]],
) -> None:
    network, ours = made()
    passes: list[int] = []
    with network.register_forward_hook(lambda *_: passes.append(1)):
        maps, logits = map(there, explain(ours, block(8)))
    assert passes == [1]
    assert maps.shape == (3, 2, 2)
    assert not maps.requires_grad
    salvages = isinstance(network, SalvageNetwork)
    expected = network.classify(pictures(8)) if salvages else network.values(pictures(8)).sum(1)
    torch.testing.assert_close(logits, expected.detach())
    torch.testing.assert_close(maps, ours.attribute(pictures(8), TARGETS))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_salvage_in_probability_is_the_game_of_its_own_distribution(temperature: float) -> None:
    network, _ = salvage(temperature)
    found, logits = map(there, explain(Salvage(network, pairs=400), block(8)))
    parts, rows = network.parts(pictures(8)), all_rows(4)[None].expand(3, -1, -1)
    u = shapley_distribution(*parts, rows, temperature).exp().detach()
    table = u.gather(2, TARGETS[:, None, None].expand(-1, 16, 1))[..., 0].double()
    # Four patches have 24 orders: so many draws are close to all of them.
    expected = shapley_by_permutations(table)
    assert (found.flatten(1) - expected).norm() < 0.05 * expected.norm()
    torch.testing.assert_close(logits, network.classify(pictures(8)).detach())
    torch.testing.assert_close(logits.softmax(-1), u[:, -1])


def test_salvage_adjusted_is_exact_where_every_mask_is_asked() -> None:
    network, _ = salvage()
    surrogate = tiny_salvage.classifier(seed=1)
    found = SalvageAdjusted(network, surrogate, 14, 50_000).attribute(pictures(8), TARGETS)
    exact = exact_shapley(PatchGame(surrogate, pictures(8), TARGETS)).reshape(3, 2, 2)
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-3)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_salvage_adjusted_is_nearer_than_kernel_shap_where_the_network_has_learned(
    monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    network, _ = salvage(temperature)
    surrogate = tiny_salvage.classifier(seed=1)

    def foreseen(game: PatchGame, coalitions: Tensor) -> Tensor:
        """An answer that the network has foreseen up to a little."""
        keep = coalitions.expand(3, -1, -1)
        u = shapley_distribution(*network.parts(pictures(8)), keep, temperature).exp().detach()
        return u.gather(2, TARGETS[:, None, None].expand(-1, keep.shape[1], 1))[..., 0] + 0.001 * keep[..., 0]

    monkeypatch.setattr(PatchGame, "value", foreseen)
    exact = exact_shapley(PatchGame(surrogate, pictures(8), TARGETS)).reshape(3, 2, 2)
    ours = SalvageAdjusted(network, surrogate, 4, 2000).attribute(pictures(8), TARGETS)
    plain = kernel_shap(PatchGame(surrogate, pictures(8), TARGETS), 4, seeded()).reshape(3, 2, 2)
    assert (ours - exact).norm() < 0.2 * (plain - exact).norm()


def test_vit_shapley_as_its_authors_read_it_classifies_as_the_surrogate() -> None:
    network, _ = vit_shapley()
    surrogate = tiny_salvage.classifier(seed=1)
    raw, read = (explain(VitShapleyExplainer(network, surrogate, how), block(8)) for how in (False, True))
    assert torch.equal(there(raw.maps), there(read.maps))
    torch.testing.assert_close(read.logits, surrogate(pictures(8)).softmax(1))
    assert not torch.allclose(there(read.logits), there(raw.logits))


def test_a_self_explaining_clip_gives_the_column_of_the_class_and_its_logits() -> None:
    network = tiny_clip.classifier()
    images = pictures(16).double()
    maps, logits = map(there, explain(SelfExplaining(network), block(16)._replace(images=images)))
    expected = network.explain(images)
    torch.testing.assert_close(logits, expected.logits)
    for image, target in enumerate(TARGETS.tolist()):
        torch.testing.assert_close(maps[image].flatten(), expected.attributions[image, :, target])


def test_a_classifier_has_logits_and_no_maps() -> None:
    classifier = tiny_salvage.classifier().requires_grad_(True)
    maps, found = explain(Classifies(classifier), block(8))
    assert maps is None
    logits = there(found)
    assert not logits.requires_grad
    assert torch.equal(logits, classifier(pictures(8)).detach())


def colours() -> MaskableClassifier:
    """Three classes that depend smoothly on all pixels of 16 x 16."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 8, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(392, 3))
    return PaintedClassifier(network, (4, 4), (0.5,) * 3, (0.5,) * 3).eval().requires_grad_(False)


def question(classifier: MaskableClassifier, rows: slice = slice(None)) -> Question:
    images, targets = pictures(16)[rows], TARGETS[rows, None]
    return Question(images, targets, confidence(classifier(images), targets))


def refinement(classifier: MaskableClassifier) -> Refinement:
    return Refinement(classifier, MEAN, OBJECTIVE, REFINEMENT)


class Drawn:
    """Maps of patches drawn with the generator of the block."""

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(len(images), 4, 4, generator=generator)


@pytest.mark.parametrize("scale", [None, 4.0])
def test_refined_maps_are_the_walk_from_where_another_explainer_is(scale: float | None) -> None:
    classifier = colours()
    found = there(explain(RefinedMaps(Drawn(), refinement(classifier), scale), block(16)).maps)
    drawn = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(5))
    start, generator = in_units(enlarge_map(drawn, (16, 16)), scale), torch.Generator().manual_seed(5)
    walk = refinement(classifier).of_maps(question(classifier), start, generator)
    assert found.shape == (3, 3, 16, 16)
    assert torch.equal(found, torch.stack(walk, dim=1))
    assert (found[:, 1] - found[:, 0]).flatten(1).abs().amax(1).min() > 0.01


def test_what_only_classifies_cannot_be_refined() -> None:
    with pytest.raises(ValueError, match="no maps to refine"):
        explain(RefinedMaps(Classifies(colours()), refinement(colours())), block(16))


def test_each_image_refines_a_decoder_of_its_own_and_the_trained_one_stays() -> None:
    classifier, network = colours(), test_dense.explainer().requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        found = there(explain(RefinedDecoder(network, refinement(classifier)), block(16)).maps)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(value.requires_grad for value in network.parameters())
    expected = []
    for row in range(3):
        own, asked = copy.deepcopy(network), question(classifier, slice(row, row + 1))
        moved = list(own.decoder.requires_grad_(True).parameters())

        def draw(own: nn.Module = own, asked: Question = asked) -> Tensor:
            maps: Tensor = own(asked.images, asked.targets[:, 0])
            return maps

        expected.append(torch.stack(refinement(classifier).of_network(asked, moved, draw, seeded(5)), dim=1))
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-5)
    assert (found[:, 1:] - found[:, :1]).flatten(2).abs().amax(2).min() > 1e-4
