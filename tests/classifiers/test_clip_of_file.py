from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.classifiers.studying import MODEL as VIT
from tests.classifiers.tiny import DATA, MODEL, Shades, runtime
from tests.toolbox import refusal
from xai.classifiers.clip import clip_of_file
from xai.core.errors import UserError
from xai.data.catalogue import OpenData
from xai.models import files
from xai.models.clip import SelfExplainingClip
from xai.models.factory import build_clip, build_explainer
from xai.models.maskable import Removal
from xai.models.spec import describe
from xai.papers.vectors.base import ModelParams
from xai.study.case import ExplainedModel

CLASSES = Shades.classes


def written(path: Path, model: ModelParams = MODEL, seed: int = 0) -> SelfExplainingClip:
    head = torch.randn(12, len(CLASSES), generator=torch.Generator().manual_seed(seed))
    network = build_explainer(model, build_clip(model, seed), head)
    files.write(path, network, describe(model, "classifier", DATA.name, CLASSES))
    return network.eval()


def opened(path: Path, model: ModelParams = MODEL) -> ExplainedModel:
    return clip_of_file(runtime(path.parent), model, DATA, path)


@pytest.mark.parametrize("removal", [None, Removal("pixels", "black")])
def test_the_classifier_of_a_file_answers_as_what_was_written(tmp_path: Path, removal: Removal | None) -> None:
    network = written(tmp_path / "c")
    found = opened(tmp_path / "c")
    assert (found.name, found.image_size, found.mean, found.classes) == (MODEL.name, 16, MODEL.mean, CLASSES)
    made, images = found.make(removal), DATA.source.images("test", torch.arange(5), 0).pixels
    assert not made.training
    assert not any(value.requires_grad for value in made.parameters())
    with torch.no_grad():
        torch.testing.assert_close(made(images), network(images))
        keep = torch.rand(5, made.players, generator=torch.Generator().manual_seed(1)) < 0.5
        asked = build_explainer(MODEL, build_clip(MODEL), network.head, removal).eval()
        asked.load_state_dict(network.state_dict())
        torch.testing.assert_close(made(images, keep), asked(images, keep))


def test_a_classifier_is_told_by_what_its_file_holds_and_not_by_its_place(tmp_path: Path) -> None:
    written(tmp_path / "c")
    same = opened(tmp_path / "c").identity
    assert opened(tmp_path / "c", replace(MODEL, mean=(0.1, 0.2, 0.3))).identity == same
    written(tmp_path / "copy")
    assert opened(tmp_path / "copy").identity == same
    others = [{"seed": 1}, {"model": replace(MODEL, mean=(0.1, 0.2, 0.3))}, {"model": replace(MODEL, quick_gelu=True)}]
    for change in others:
        written(tmp_path / "other", **change)  # type: ignore[arg-type]
        assert opened(tmp_path / "other").identity != same, change


def test_what_was_read_is_asked_though_the_file_is_another_one_by_now(tmp_path: Path) -> None:
    network = written(tmp_path / "c")
    found = opened(tmp_path / "c")
    written(tmp_path / "c", seed=1)
    images = DATA.source.images("test", torch.arange(5), 0).pixels
    with torch.no_grad():
        torch.testing.assert_close(found.make(Removal("tokens"))(images), network(images))


class Reversed(Shades):
    classes = CLASSES[::-1]


def test_what_is_no_clip_of_these_classes_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "c")
    other = OpenData("reversed", {}, Reversed())
    with pytest.raises(UserError, match=r"4 classes of shades apart \(north, .*data=reversed has others \(west, "):
        clip_of_file(runtime(tmp_path), MODEL, other, tmp_path / "c")
    files.write(tmp_path / "vit", VIT.build(4, 0), describe(VIT, "classifier", DATA.name, CLASSES))
    assert "vit is no CLIP classifier" in refusal(opened, tmp_path / "vit")
