"""Metrics that have a row explained again: the maps are artifacts like all others, of a case that is varied."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models.tiny_clip import classifier
from tests.study.engine import asked, lines, made, register, stored, study
from tests.toolbox import there
from xai.api.case import row_of
from xai.explainers.block import Block, Explanation
from xai.explainers.registry import ExplainerParams, Prepared, explainer
from xai.explainers.rows import open_row
from xai.metrics.registry import Column, Measured, given, metric
from xai.metrics.variations import Noise, RandomWeights
from xai.study.maps import explain
from xai.study.scores import missing
from xai.study.study import open_metrics


@pytest.fixture(autouse=True)
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    register(monkeypatch, tmp_path / "journal")
    asked.clear()
    return tmp_path / "journal"


def test_maps_made_again_are_kept_and_shared_by_metrics_that_vary_alike(tmp_path: Path, journal: Path) -> None:
    @metric(
        "steady",
        columns=[Column("steady", "Steady", "")],
        needs={"maps"},
        again=lambda params: [Noise(0.02, 0), Noise(0.02, 2)],
    )
    def steady(block: Measured, params: object) -> dict[str, Tensor]:
        first, third = given(block.again)
        return {"steady": (first - third).flatten(1).abs().amax(1)}

    before = study(tmp_path, ["noted"], ["peak"])
    before.run()
    first = study(tmp_path, ["noted"], ["sensitivity"])
    scores = first.run().scores
    # Three draws; the map they are compared with is there.
    assert made(first) == ["maps", "maps", "maps", "scores"]
    second = study(tmp_path, ["noted"], ["sensitivity", "steady"])
    second.run()
    assert made(second) == ["scores"]
    assert sum(line.startswith("maps") for line in lines(journal)) == 4 * 3
    case = second.cases[0][0]
    maps = there(explain(case, second.rows[0]).attributions)
    again = [explain(case.varied(Noise(0.02, draw)), second.rows[0]).attributions for draw in range(3)]
    changes = [(maps - other).flatten(1).norm(dim=1) / maps.flatten(1).norm(dim=1) for other in again]  # type: ignore[operator]
    expected = torch.stack(changes).amax(0)
    assert expected.min() > 0
    torch.testing.assert_close(torch.tensor(scores.value), expected.double(), rtol=1e-5, atol=1e-7)


def test_scores_of_metrics_that_explain_nothing_again_keep_their_place_in_the_store(tmp_path: Path) -> None:
    study(tmp_path, ["noted"], ["peak"]).run()
    before = set(stored(tmp_path))
    study(tmp_path, ["noted"], ["peak", "sensitivity"]).run()
    assert before < set(stored(tmp_path))


def test_noise_is_that_of_the_block_and_classes_draws_and_classifier_stay(tmp_path: Path) -> None:
    case = study(tmp_path, ["rise"], targets="predicted").cases[0][0]
    noisy = case.varied(Noise(0.1))
    assert noisy is case.varied(Noise(0.1))
    images, changed = case.images(1).pixels, noisy.images(1).pixels
    assert torch.equal(changed, Noise(0.1).images(images, 3 * 1_000_003 + 1))
    assert torch.equal(noisy.targets, case.targets)
    assert noisy.network() is case.network()
    assert noisy.spec != case.spec


def test_random_weights_are_those_of_the_classifier_and_the_map_changes_with_them(tmp_path: Path) -> None:
    found = study(tmp_path, ["saliency", "brightness"], ["randomisation"])
    scores = found.run().scores
    case = found.cases[0][0]
    weights = dict(case.varied(RandomWeights()).network().named_parameters())
    expected = dict(RandomWeights().network(classifier().float()).named_parameters())
    assert all(torch.equal(value, expected[name]) for name, value in weights.items())
    torch.testing.assert_close(case.network().state_dict(), classifier().float().state_dict(), rtol=0, atol=0)
    by = scores[scores.metric == "randomisation"].groupby("explainer").value.mean()
    assert by["brightness"] == pytest.approx(1)
    assert by["saliency"] < 0.9
    assert scores[scores.metric == "randomisation"].chance.between(0.2, 0.21).all()


class Brought:
    """An explainer with a network of its own, which was trained elsewhere: its map is that network's weights."""

    def __init__(self) -> None:
        self.network, self.inner = nn.Linear(4, 4), None
        nn.init.constant_(self.network.bias, 0)
        self.network.weight.data = torch.arange(16.0).reshape(4, 4)

    def explain(self, block: Block) -> Explanation:
        return Explanation(self.network.weight.detach().expand(len(block.images), -1, -1))


def test_of_a_trained_explainer_it_is_its_own_network_that_is_random(tmp_path: Path) -> None:
    brought = Brought()

    @explainer("brought", label="Brought", about="for tests", kind="trained")
    def prepare(context: Any, params: ExplainerParams) -> Prepared:
        return Prepared({"brought": 1}, lambda: brought)

    found = study(tmp_path, ["noted"], ["randomisation"])
    row = open_row("brought", {"name": "brought"})
    case = found.cases[0][0]
    same, random = (explain(each, row).attributions for each in (case, case.varied(RandomWeights())))
    assert torch.equal(same[0].flatten(), torch.arange(16.0))
    assert torch.equal(random[0].flatten().sort().values, torch.arange(16.0))
    assert not torch.equal(random[0], same[0])
    assert torch.equal(brought.network.weight.flatten(), torch.arange(16.0))


def test_an_object_of_the_users_may_be_given_noise_but_no_random_weights(tmp_path: Path) -> None:
    class Own:
        name = "own"

        def attribute(self, images: Tensor, targets: Tensor, generator: Any = None) -> Tensor:
            return images.mean(1)

    row = row_of(Own(), {}, {})  # type: ignore[arg-type]
    case = study(tmp_path, ["noted"]).cases[0][0]
    maps = explain(case, row)
    chosen = {each.metric.name: each for each in open_metrics(["sensitivity", "randomisation"], {})}
    assert missing(case, row, maps, chosen["sensitivity"], None) is None
    reason = there(missing(case, row, maps, chosen["randomisation"], None))
    assert "nobody knows the network that the maps are made by" in reason


def test_what_is_the_same_for_every_row_is_asked_once(tmp_path: Path) -> None:
    study(tmp_path, ["noted", "noted@1"], ["infidelity"]).run()
    # Of nine images the predictions, v(N), and the sets of removed patches; of two rows no more than of one.
    assert sum(asked) == 3 * 9
