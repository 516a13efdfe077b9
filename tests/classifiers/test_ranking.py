from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.classifiers.ranked import DECODER, RANKING, networks
from tests.classifiers.studying import MODEL, Trained
from tests.classifiers.tiny import DATA
from tests.toolbox import cases, changed, refusal
from xai.core.errors import UserError
from xai.core.settings import build
from xai.models import files
from xai.models.dense import DenseExplainer
from xai.models.families import seeded
from xai.models.spec import shape_of
from xai.papers.ranking.networks import FILE
from xai.papers.ranking.params import BackboneParams, RankingSettings

TARGETS = torch.tensor([3, 0])
FOREIGN = replace(
    RANKING,
    backbone=BackboneParams("test_resnet", (0.4, 0.4, 0.4), (0.2, 0.2, 0.2), pretrained=False),
    levels=(0, 1),
    decoder=replace(DECODER, resize=(1, 1)),
)


def pictures() -> torch.Tensor:
    return DATA.source.images("test", torch.tensor([0, 1]), 0).pixels


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == key and torch.equal(value, held) for (name, value), (key, held) in pairs)


def altered(path: str, value: Any, params: RankingSettings = RANKING) -> RankingSettings:
    """Settings with the one at a path changed."""
    return build(RankingSettings, changed(asdict(params), path, value))


def test_an_explainer_looks_through_the_classifier_and_is_found_again(tmp_path: Path, trained: Trained) -> None:
    made = networks(tmp_path)
    found, again = made.explainer(), networks(tmp_path).explainer()
    assert trained.names == ["Classifier", "Ranking"]
    assert same(found.features.network, made.stages.network("classifier").network)
    assert same(found, again)
    assert not same(found.decoder, made.untrained(made.stages.network("classifier")).decoder)
    assert not any(part.training for part in found.modules())
    assert not any(value.requires_grad for value in found.parameters())
    maps = found.attribute(pictures(), TARGETS)
    assert maps.shape == (2, 16, 16)
    assert maps.std() > 0


def test_what_changes_numbers_is_trained_anew_and_what_does_not_is_not(tmp_path: Path, trained: Trained) -> None:
    made = networks(tmp_path)
    key = made.trained.key
    others = [
        altered("decoder.pixels", 0),
        altered("decoder.gradient", True),
        altered("objective.steps", 4),
        altered("loss.own_class", 0.5),
        altered("fit.epochs", 3),
        FOREIGN,
    ]
    keys = {key, *(networks(tmp_path, other).trained.key for other in others)}
    keys.add(networks(tmp_path, seed=1).trained.key)
    assert len(keys) == 8
    count = len(trained.journal)
    assert networks(tmp_path, altered("objective.chunk", 3)).trained.key == key
    assert len(trained.journal) == count


def test_weights_before_the_training_are_those_of_the_seed(tmp_path: Path, trained: Trained) -> None:
    for params in (RANKING, FOREIGN):
        made = networks(tmp_path, params)
        blank = made.stages.blank()
        first = made.untrained(blank)
        torch.manual_seed(77)
        state = torch.get_rng_state()
        assert same(first, made.untrained(blank))
        assert torch.equal(torch.get_rng_state(), state)
        assert not same(first.decoder, networks(tmp_path, params, seed=1).untrained(blank).decoder)


def weights(path: Path, seed: int) -> Path:
    """A file of timm's, its head included."""
    with seeded(seed):
        save_file(timm.create_model("test_resnet").state_dict(), path)
    return path


def test_a_backbone_of_ones_own_counts_by_its_content_and_its_head_is_left_out(
    tmp_path: Path, trained: Trained
) -> None:
    files = [weights(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    params = [replace(FOREIGN, backbone=replace(FOREIGN.backbone, weights=str(file))) for file in files]
    keys = [networks(tmp_path, each).trained.key for each in params]
    assert keys[0] == keys[1] != keys[2]
    given = load_file(files[0])
    files[0].unlink()
    seen = networks(tmp_path, params[1]).explainer().features
    body = seen.network.state_dict()
    assert given.keys() - body.keys() == {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, given[name]) for name, value in body.items())
    torch.testing.assert_close(seen.normalisation.mean.flatten(), torch.full((3,), 0.4))


def test_published_weights_are_fetched_once(tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    create, fetched = timm.create_model, []

    def fake(name: str, pretrained: bool = False, **settings: Any) -> Any:
        fetched.append(pretrained)
        return create(name, **settings)

    monkeypatch.setattr(timm, "create_model", fake)
    params = replace(FOREIGN, backbone=replace(FOREIGN.backbone, pretrained=True))
    made = networks(tmp_path, params)
    assert made.trained
    assert fetched == [True]
    made.explainer()
    assert fetched == [True, False, False]


def test_the_file_explains_alone(tmp_path: Path, trained: Trained) -> None:
    for params in (RANKING, FOREIGN):
        made = networks(tmp_path, params)
        written = made.trained.file(FILE)
        alone = files.load(written)
        assert (alone.spec.data, alone.spec.classes) == ("shades", DATA.source.classes)
        assert alone.spec.model == shape_of(MODEL)
        assert alone.classifier is not None
        assert same(alone.classifier.network, made.stages.network("classifier").network)  # type: ignore[arg-type]
        assert isinstance(alone.network, DenseExplainer)
        expected = made.explainer().attribute(pictures(), TARGETS)
        torch.testing.assert_close(alone.network.attribute(pictures(), TARGETS), expected)


@pytest.mark.parametrize(("of", "path", "value", "message"), cases(__file__, "unfit.txt"))
def test_what_does_not_fit_is_refused_before_anything_is_trained(
    tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch, of: str, path: str, value: Any, message: str
) -> None:
    params = altered(path, value, {"classifier": RANKING, "backbone": FOREIGN}[of])
    monkeypatch.chdir(tmp_path)
    save_file({"conv1.weight": torch.ones(2)}, tmp_path / "other")
    assert refusal(lambda: networks(tmp_path, params).check()).startswith(message)
    assert trained.journal == []


@pytest.mark.parametrize("change", [{"mean": (123.7, 116.3, 103.5)}, {"std": (0.2, 0.2, 101.0)}])
def test_a_normalisation_that_no_file_may_say_is_refused_before_it_is_trained_with(change: dict[str, Any]) -> None:
    assert "must be at most 100" in refusal(BackboneParams, "test_resnet", **change)


def test_weights_that_cannot_be_fetched_are_refused_in_one_line(
    tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **settings: Any) -> Any:
        if pretrained:
            raise OSError("no hub")
        return create(name, **settings)

    monkeypatch.setattr(timm, "create_model", offline)
    params = replace(FOREIGN, backbone=replace(FOREIGN.backbone, pretrained=True))
    with pytest.raises(UserError, match=r"^ranking.backbone.architecture=test_resnet cannot be fetched .*$"):
        _ = networks(tmp_path, params).trained
    assert "Ranking" not in trained.names
