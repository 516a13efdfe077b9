"""task=explain with the file that method=ranking writes: explainer and classifier in one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.classifiers.ranked import DECODER, RANKING, networks
from tests.classifiers.studying import train_in_no_time
from tests.tasks.test_explain import CPU, POST_HOC, explained
from xai.data.images import read_image, to_tensor
from xai.papers.ranking.networks import FILE, RankingStages
from xai.papers.ranking.params import BackboneParams

VIT = "vit_tiny_patch16_224"
SETTINGS = {
    "own_features": RANKING,
    "gradient": replace(RANKING, decoder=replace(DECODER, gradient=True)),
    "another_backbone": replace(RANKING, backbone=BackboneParams(VIT, pretrained=False), levels=(1,)),
}


def handed_over(folder: Path, monkeypatch: pytest.MonkeyPatch, settings: str) -> tuple[Path, RankingStages]:
    train_in_no_time(monkeypatch)
    made = networks(folder, SETTINGS[settings])
    return made.trained.file(FILE), made


@pytest.mark.parametrize("settings", ["own_features", "gradient"])
@pytest.mark.parametrize("target", [None, "west"])
def test_the_map_is_the_explainers_and_the_prediction_the_classifiers(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch, settings: str, target: str | None
) -> None:
    path, made = handed_over(tmp_path, monkeypatch, settings)
    model = made.stages.model
    found = explained(model, path, photo, target, CPU, POST_HOC)
    images = to_tensor(read_image(photo), model.image_size)[None]
    probabilities = made.stages.network("classifier")(images)[0].softmax(0)
    classes = made.stages.data.source.classes
    chosen = int(probabilities.argmax()) if target is None else classes.index(target)
    assert (found.predicted, found.target) == (classes[int(probabilities.argmax())], classes[chosen])
    assert found.probability == pytest.approx(float(probabilities[chosen]), abs=1e-6)
    expected = made.explainer().attribute(images, torch.tensor([chosen]))[0]
    torch.testing.assert_close(found.attributions, expected)
    assert [made.name for made in found.measured] == ["ranking"]


def test_a_backbone_of_its_own_comes_out_of_the_file(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, made = handed_over(tmp_path, monkeypatch, "another_backbone")
    found = explained(made.stages.model, path, photo, None, CPU, POST_HOC)
    images = to_tensor(read_image(photo), made.stages.model.image_size)[None]
    target = torch.tensor([made.stages.data.source.classes.index(found.target)])
    torch.testing.assert_close(found.attributions, made.explainer().attribute(images, target)[0])


def test_refined_it_has_two_maps(tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, made = handed_over(tmp_path, monkeypatch, "own_features")
    params = replace(POST_HOC, refinement=replace(POST_HOC.refinement, steps=2))
    found = explained(made.stages.model, path, photo, None, CPU, params)
    assert [part.name for part in found.measured] == ["ranking", "ranking, T = 2"]
    assert not torch.equal(found.measured[0].attributions, found.measured[1].attributions)
