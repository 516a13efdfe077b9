"""FastSHAP of a convolutional network: where it starts, what its file says, what does not fit, and that it learns."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.classifiers.studying import CLASSIFIER, STEP, SURROGATE, Trained
from tests.classifiers.test_cnn import CLASSES, MODEL, TEST
from tests.classifiers.tiny import DATA, FIT, runtime
from tests.toolbox import refusal, seeded, there
from xai.classifiers.learned import CnnStages
from xai.classifiers.params import FastShapParams
from xai.explainers.learned.networks import VitShapleyExplainer
from xai.explainers.registry import entry
from xai.games import PatchGame
from xai.models import files
from xai.models.maskable import Removal
from xai.models.spec import describe
from xai.models.unet import FastShapNetwork, UNetDecoder
from xai.papers.salvage.explainers import FastShapSettings
from xai.shapley.kernel_shap import kernel_shap

PARAMS = FastShapParams(4, 8, FIT)


def stages(folder: Path, **changes: Any) -> CnnStages:
    return replace(CnnStages(runtime(folder), MODEL, DATA, CLASSIFIER, 0, SURROGATE), **changes)


def network(seed: int = 0) -> FastShapNetwork:
    torch.manual_seed(seed)
    return FastShapNetwork(MODEL.build(4, 0), 8, 4, (4, 4), 16, MODEL.mean, MODEL.std)


def test_it_starts_where_the_surrogate_has_arrived(tmp_path: Path, trained: Trained) -> None:
    stage = stages(tmp_path)
    found = load_file(stage.learned(PARAMS).file("fast_shap.safetensors"))
    start = MODEL.build(4, 0).state_dict()
    assert trained.names == ["Classifier", "Surrogate", "VitShapley"]
    body = {name.removeprefix("backbone."): value for name, value in found.items() if name.startswith("backbone.")}
    assert {"classifier.weight", "conv_head.weight"}.isdisjoint(body)
    for name, value in body.items():
        statistic = "running" in name or "tracked" in name
        torch.testing.assert_close(value, start[name] if statistic else start[name] + 3 * STEP, msg=name)
    assert stages(tmp_path).learned(replace(PARAMS, width=4)).key != stage.learned(PARAMS).key


def test_its_file_says_what_it_is(tmp_path: Path, trained: Trained) -> None:
    stage = stages(tmp_path)
    artifact = stage.learned(PARAMS)
    path = artifact.file("fast_shap.safetensors")
    said = describe(MODEL, "fast_shap", "shades", CLASSES, seed=0, unet={"width": 8})
    assert files.read_spec(path) == said
    made = files.load(path).network
    assert isinstance(made, FastShapNetwork)
    torch.testing.assert_close(made.values(TEST), stage.explainer(PARAMS, artifact).values(TEST))
    surrogate = there(files.read_spec(stage.surrogate.file("surrogate.safetensors")))
    assert surrogate.removal == Removal("pixels", "mean")


def test_values_are_of_patches_and_nothing_is_in_it_that_is_never_asked() -> None:
    made = network()
    values = made.values(TEST)
    assert values.shape == (len(TEST), 16, 4)
    assert values.abs().max() == 0, "nothing is said before anything is learned"
    nn.init.normal_(made.decoder.head.weight)
    made.values(TEST).square().sum().backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in made.parameters())
    told = refusal(made.values, torch.zeros(1, 3, 20, 20))
    assert told.startswith("images of 20 x 20 px do not fit a network of 16 x 16")


def test_the_way_up_joins_each_level_with_what_came_from_below() -> None:
    torch.manual_seed(0)
    decoder = UNetDecoder([3, 5, 7], 6, 2, (2, 3)).eval()
    nn.init.normal_(decoder.head.weight)
    levels = [torch.randn(2, d, *size) for d, size in ((3, (8, 12)), (5, (4, 6)), (7, (2, 3)))]
    scores = decoder(levels)
    assert scores.shape == (2, 6, 2)
    for index in range(3):
        changed = [level + (number == index) for number, level in enumerate(levels)]
        assert not torch.allclose(decoder(changed), scores)
    # A patch says most of its own place: numbered row by row.
    moved = [levels[0].clone(), *levels[1:]]
    moved[0][:, :, 4:, 8:] += 5
    assert (decoder(moved) - scores).abs().sum((0, 2)).argmax() == 5


def test_what_it_does_not_fit_is_refused_before_anything_is_trained(tmp_path: Path, trained: Trained) -> None:
    row = FastShapSettings(4, 8, FIT)
    vit = SimpleNamespace(model=SimpleNamespace(networks=None, name="vit_tiny"))
    told = refusal(entry("fast_shap").check, vit, row)
    assert told.startswith("it starts from a convolutional network, and model=vit_tiny is none: use vit_shapley")
    plain = SimpleNamespace(model=SimpleNamespace(networks=stages(tmp_path), name="tiny"))
    entry("fast_shap").check(plain, row)
    told = refusal(FastShapNetwork, nn.Conv2d(3, 4, 3), 8, 4, (4, 4), 16, MODEL.mean, MODEL.std)
    assert told == "Conv2d gives no intermediate features: use a network of timm that does"
    assert trained.names == []


def test_it_learns_the_shapley_values_of_the_surrogate(tmp_path: Path) -> None:
    stage = stages(tmp_path, classifier_params=replace(CLASSIFIER, fit=replace(FIT, epochs=5)))
    params = replace(PARAMS, masks=16, fit=replace(FIT, epochs=6, learning_rate=1e-2))
    surrogate = stage.network("surrogate")
    learned = VitShapleyExplainer(stage.explainer(params, stage.learned(params)), surrogate)
    targets = DATA.source.labels("test")[:9]
    exact = kernel_shap(PatchGame(surrogate, TEST, targets), 500, seeded())

    def error(maps: Tensor) -> float:
        return float((maps.flatten(1) - exact).square().mean())

    found = learned.attribute(TEST, targets)
    torch.testing.assert_close(found.flatten(1).sum(1), exact.sum(1), rtol=1e-3, atol=1e-4)
    even = exact.mean(1, keepdim=True).expand_as(exact)
    assert error(found) < 0.9 * error(even)


def test_most_networks_of_timm_give_what_it_looks_at() -> None:
    with torch.device("meta"):
        for name in ("resnet18", "convnext_atto", "mobilenetv3_small_050"):
            backbone = timm.create_model(name)
            made = FastShapNetwork(backbone, 8, 5, (7, 7), 224, (0.5,) * 3, (0.5,) * 3)
            assert made.values(torch.zeros(2, 3, 224, 224)).shape == (2, 49, 5)
