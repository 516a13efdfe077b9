"""method=explain with a SALVAGE explainer: the file alone classifies and explains."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.models.tiny_clip import PARAMS
from xai.data.images import read_image, to_tensor
from xai.errors import UserError
from xai.models.explainer import SalvageNetwork
from xai.models.segmenter import LinearDecoder
from xai.models.vit import SmallVit, VitParams, build_vit
from xai.models.vit_file import VitInfo, write_vit
from xai.stages.explain import explain_image
from xai.training import TrainerParams

MODEL = VitParams("tiny", 16, 4, (0.5,) * 3, (0.25,) * 3, tower=SmallVit(8, 1, 2, 2.0, 1, 1.0))
CPU = TrainerParams(accelerator="cpu")
CLASSES = ("cat", "dog", "owl")


def explainer(classes: int = 3, outputs: int | None = None) -> SalvageNetwork:
    outputs = outputs or classes
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = LinearDecoder(8, 2 * outputs, 1, 2)
        torch.nn.init.normal_(decoder.head.weight)
    return SalvageNetwork(build_vit(MODEL, outputs, 0), decoder, MODEL.mean, MODEL.std).eval()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = (torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(1)) * 255).to(torch.uint8)
    Image.fromarray(pixels.numpy()).save(path)
    return path


def file(tmp_path: Path, network: SalvageNetwork, classes: tuple[str, ...], binary: bool = False) -> Path:
    path = tmp_path / "salvage.safetensors"
    write_vit(path, network, VitInfo("salvage", "tiny_vit", "pets", classes, binary, "linear", 1, 2))
    return path


@pytest.mark.parametrize("target", [None, "dog"])
def test_the_map_and_the_prediction_are_those_of_the_network(tmp_path: Path, photo: Path, target: str | None) -> None:
    network = explainer()
    found = explain_image(MODEL, file(tmp_path, network, CLASSES), photo, target, CPU)
    pixels = to_tensor(read_image(photo), 16)[None]
    with torch.no_grad():
        logits = network.classify(pixels)[0]
        column = int(logits.argmax()) if target is None else CLASSES.index(target)
        expected = network.attribute(pixels, torch.tensor([column]))[0]
    assert (found.predicted, found.target) == (CLASSES[int(logits.argmax())], CLASSES[column])
    torch.testing.assert_close(found.attributions, expected)
    assert found.probability == pytest.approx(float(logits.softmax(0)[column]))
    assert found.explains


def test_a_binary_explainer_has_two_classes_and_opposite_maps(tmp_path: Path, photo: Path) -> None:
    path = file(tmp_path, explainer(2, outputs=1), ("normal", "abnormal"), binary=True)
    maps = [explain_image(MODEL, path, photo, target, CPU).attributions for target in ("normal", "abnormal")]
    torch.testing.assert_close(maps[0], -maps[1])
    assert maps[0].std() > 0


def test_another_kind_of_file_is_refused_in_one_line(tmp_path: Path, photo: Path) -> None:
    path = tmp_path / "classifier.safetensors"
    write_vit(path, build_vit(MODEL, 3, 0), VitInfo("classifier", "tiny", "pets", CLASSES, False))
    with pytest.raises(UserError, match=r"is a classifier: give the salvage\.safetensors"):
        explain_image(MODEL, path, photo, None, CPU)


def test_an_unknown_class_is_refused_with_the_nearest(tmp_path: Path, photo: Path) -> None:
    with pytest.raises(UserError, match=r"target=dgo .* did you mean dog"):
        explain_image(MODEL, file(tmp_path, explainer(), CLASSES), photo, "dgo", CPU)


def test_a_salvage_explainer_is_not_taken_for_a_clip(tmp_path: Path, photo: Path) -> None:
    with pytest.raises(UserError, match=r"is a salvage of model=tiny_vit, not of tiny: add model=tiny_vit"):
        explain_image(PARAMS, file(tmp_path, explainer(), CLASSES), photo, None, CPU)
