"""`import xai`: load, wrap, explain, compare, show, fit."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import Tensor

import xai
from tests.api.networks import MEAN, SIZE, STD, Frozen, Plain, images, vit
from tests.toolbox import cases, refusal
from xai.api.comparing import _row
from xai.api.fitting import _of_timm
from xai.api.loading import as_torchvision_has_them
from xai.core.composing import shipped
from xai.core.errors import UserError
from xai.core.settings import settings
from xai.explainers import registry
from xai.explainers.params import GameParams
from xai.explainers.registry import ExplainerParams
from xai.models import files
from xai.models.named import torchvisions
from xai.models.spec import describe
from xai.models.vit import SmallVit, VitParams

SHORT = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-4, "weight_decay": 0.05, "warmup": 0.1, "clip": 1.0}


class Brightness:
    """An explainer of somebody's own."""

    def attribute(self, pixels: Tensor, targets: Tensor) -> Tensor:
        return pixels.mean(1)


class Fails(Brightness):
    def attribute(self, pixels: Tensor, targets: Tensor) -> Tensor:
        raise KeyError("boo")


@pytest.fixture(scope="module")
def model() -> Any:
    return xai.wrap(Plain(), mean=MEAN, std=STD, image_size=SIZE, grid=(4, 4), classes=["cat", "cow", "fox"])


def test_the_package_is_imported_at_once_and_the_rest_when_it_is_used() -> None:
    code = "import sys, xai; assert 'torch' not in sys.modules and 'hydra' not in sys.modules; print(dir(xai))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "explain" in run.stdout
    with pytest.raises(AttributeError, match="explane"):
        xai.explane  # noqa: B018


def test_what_modules_of_ones_own_register_with_is_the_registries_own() -> None:
    assert xai.register_explainer is xai.explainers.registry.explainer
    assert xai.register_metric is xai.metrics.registry.metric
    assert xai.register_data is xai.data.registry.register
    assert xai.register_model is xai.models.families.register


@pytest.mark.parametrize("builder", [timm.create_model, torchvision.models.get_model])
@pytest.mark.parametrize("wrap", [dict, lambda state: {"model": {f"_orig_mod.{name}": state[name] for name in state}}])
def test_a_state_dict_of_a_named_architecture_is_loaded(builder: Any, wrap: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = builder("resnet18", num_classes=2).eval()
    torch.save(wrap(network.state_dict()), tmp_path / "mine.pt")
    model = xai.load(tmp_path / "mine.pt", architecture="resnet18", classes=["cat", "dog"], image_size=64)
    pixels = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(each).reshape(3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(model.predict(pixels), network((pixels - mean) / std).softmax(1), atol=1e-5, rtol=1e-4)
    assert model.classes == ("cat", "dog")


@pytest.mark.parametrize("architecture", ["shufflenet_v2_x0_5", "mnasnet0_5"])
def test_an_architecture_of_torchvision_alone_is_loaded(architecture: str, tmp_path: Path) -> None:
    network = torchvision.models.get_model(architecture, num_classes=4)
    torch.save(network.state_dict(), tmp_path / "mine.pt")
    state = torch.get_rng_state()
    assert len(xai.load(tmp_path / "mine.pt", architecture=architecture, image_size=64).classes) == 4
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("size", [SIZE, np.int64(SIZE), (SIZE, SIZE), [SIZE, SIZE]])
def test_a_transformer_is_made_for_the_size_that_is_said(size: Any, tmp_path: Path) -> None:
    network = vit()
    torch.save(network.state_dict(), tmp_path / "mine.pt")
    model = xai.load(tmp_path / "mine.pt", architecture="vit_tiny_patch16_224", image_size=size)
    assert model.image_size == SIZE
    torch.testing.assert_close(model.predict(images()), network(2 * images() - 1).softmax(1), atol=1e-5, rtol=1e-4)
    assert "pos_embed is [1,5,192] here" in refusal(xai.load, tmp_path / "mine.pt", architecture="vit_tiny_patch16_224")
    with pytest.raises(UserError, match=r"image_size=\(32, 64\) must be .*images are square"):
        xai.load(tmp_path / "mine.pt", architecture="vit_tiny_patch16_224", image_size=(32, 64))
    with torch.device("meta"):
        other: Any = torchvisions("vit_b_16", 2, 64)
    assert other.encoder.pos_embedding.shape == (1, 17, 768)


@pytest.mark.parametrize("beside", [0, 7])
def test_heads_that_only_a_training_asks_are_left_out(beside: int, tmp_path: Path) -> None:
    """They are not always as wide as the head; torchvision takes them off a network with published weights."""
    torch.manual_seed(0)
    network = torchvision.models.GoogLeNet(num_classes=4, aux_logits=beside > 0, init_weights=False).eval()
    if beside:
        network.aux1.fc2 = torch.nn.Linear(1024, beside)
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, tmp_path / "mine.pt")
    model = xai.load(tmp_path / "mine.pt", architecture="googlenet", image_size=64)
    pixels = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(model.predict(pixels), network(2 * pixels - 1).softmax(1), atol=1e-5, rtol=1e-4)


def _as_published(name: str) -> str:
    name = re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name)
    name = re.sub(r"(encoder_layer_\d+\.mlp)\.0\.", r"\1.linear_1.", name)
    return re.sub(r"(encoder_layer_\d+\.mlp)\.3\.", r"\1.linear_2.", name)


@pytest.mark.parametrize(
    ("architecture", "network"),
    [
        ("densenet121", torchvision.models.DenseNet(4, (1, 1), 8, num_classes=2)),
        ("vit_b_16", torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 16, num_classes=2)),
    ],
)
def test_names_of_torchvisions_files_are_those_of_today(architecture: str, network: torch.nn.Module) -> None:
    today = network.state_dict()
    earlier = {f"module.{_as_published(name)}": value for name, value in today.items()}
    assert set(earlier) != {f"module.{name}" for name in today}
    for given in (earlier, {f"module.{name}": value for name, value in today.items()}):
        assert as_torchvision_has_them(architecture, given).keys() == {f"module.{name}" for name in today}


def test_a_picture_is_cut_as_the_network_was_evaluated(tmp_path: Path) -> None:
    model = xai.load(architecture="efficientnet_lite0")
    picture = Image.new("RGB", (640, 480), "red")
    assert model.crop == 0.875
    assert model.pixels(picture).shape == (1, 3, 224, 224)
    assert len(model.classes) == 1000


@pytest.mark.parametrize(("settings", "said"), cases(__file__, "refused_loads.txt"))
def test_a_file_and_an_architecture_that_do_not_fit_are_refused(
    settings: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(timm.create_model("resnet18", num_classes=3).state_dict(), tmp_path / "mine.pt")
    assert said in refusal(xai.load, tmp_path / "mine.pt", **settings)


@pytest.mark.parametrize("given", [Plain(), Plain().state_dict()])
def test_what_is_no_file_is_not_loaded(given: Any) -> None:
    told = refusal(xai.load, given, architecture="resnet18")
    assert f"was given a {type(given).__name__}: a network goes to xai.wrap" in told


@pytest.mark.parametrize("given", [{"classes": ["dog", "cat"]}, {"architecture": "resnet18"}, {"crop": 0.9}])
def test_what_a_checkpoint_of_ours_says_itself_is_left_out(given: Any, tmp_path: Path) -> None:
    tower = SmallVit(width=16, depth=1, heads=2, mlp_ratio=2.0, registers=0, position_scale=1.0)
    params = VitParams(name="small", image_size=SIZE, patch_size=16, mean=MEAN, std=STD, tower=tower)
    files.write(tmp_path / "ours", params.build(2), describe(params, "classifier", "pets", ("cat", "dog")))
    assert xai.load(tmp_path / "ours").classes == ("cat", "dog")
    assert f"leave {next(iter(given))} out" in refusal(xai.load, tmp_path / "ours", **given)


def test_a_model_stays_what_was_loaded_though_its_file_is_another_one_by_now(tmp_path: Path) -> None:
    tower = SmallVit(width=16, depth=1, heads=2, mlp_ratio=2.0, registers=0, position_scale=1.0)
    params = VitParams(name="small", image_size=SIZE, patch_size=16, mean=MEAN, std=STD, tower=tower)
    said = describe(params, "classifier", "pets", ("cat", "dog"))
    files.write(tmp_path / "ours", params.build(2, 0), said)
    loaded = xai.load(tmp_path / "ours")
    before = loaded.predict(images())
    files.write(tmp_path / "ours", params.build(2, 1), said)
    assert torch.equal(loaded.predict(images()), before)
    assert not torch.equal(xai.load(tmp_path / "ours").predict(images()), before)


def test_a_file_that_is_missing_or_damaged_is_told_so_and_not_asked_for_its_architecture(tmp_path: Path) -> None:
    assert "nowhere does not exist" in refusal(xai.load, tmp_path / "nowhere")
    tower = SmallVit(width=16, depth=1, heads=2, mlp_ratio=2.0, registers=0, position_scale=1.0)
    params = VitParams(name="small", image_size=SIZE, patch_size=16, mean=MEAN, std=STD, tower=tower)
    files.write(tmp_path / "ours", params.build(2), describe(params, "classifier", "pets", ("cat", "dog")))
    (tmp_path / "ours").write_bytes((tmp_path / "ours").read_bytes()[:-7])
    assert "ours is truncated or damaged" in refusal(xai.load, tmp_path / "ours")


@pytest.mark.parametrize("name", ["rise", "kernel_shap", "grad_cam", "saliency", "input_x_gradient_pixels", "random"])
def test_maps_are_the_same_whoever_asks_and_whenever(model: Any, name: str) -> None:
    maps = xai.explain(model, images(), name)
    side = SIZE if name.endswith("pixels") else 4
    assert maps.shape == (2, side, side)
    assert torch.equal(maps, xai.explain(model, images(), name))
    assert torch.equal(maps, xai.explain(model, images(), name, targets=model.predict(images()).argmax(1)))


def test_settings_are_the_explainers_own(model: Any) -> None:
    assert not torch.equal(
        xai.explain(model, images(), "rise", masks=20), xai.explain(model, images(), "rise", masks=40)
    )
    assert "maks" in refusal(xai.explain, model, images(), "rise", maks=20)
    assert "rise" in refusal(xai.explain, model, images(), "ryse")
    # There are no training images here, which could cost less.
    few, many = (xai.explain(model, images(), "kernel_shap", coalitions=number) for number in (20, 40))
    assert not torch.equal(few, many)
    row: Any = _row(model, "kernel_shap", {"coalitions": 20}, shipped("task/compare"), {})
    assert row.params.for_split("test").coalitions == 20


def test_what_is_made_from_another_explainer_removes_patches_as_the_model_does() -> None:
    model = xai.wrap(Plain(outputs=2), mean=MEAN, std=STD, image_size=SIZE, grid=2)
    wrong = xai.explain(model, images(), "wrong_class", targets=0)  # of kernel_shap
    torch.testing.assert_close(wrong, xai.explain(model, images(), "kernel_shap", targets=1))


def test_an_explainer_that_does_not_fit_says_why(model: Any) -> None:
    assert "attention" in refusal(xai.explain, model, images(), "attention_rollout")
    listed = xai.explainers(model)
    assert listed.loc["rise", "fits"]
    assert not listed.loc["attention_rollout", "fits"]
    assert "attention" in listed.loc["attention_rollout", "why_not"]
    assert "rise" in xai.explainers().index
    assert listed["level"][["rise", "guided_backprop"]].tolist() == ["patch", "either"]


def test_an_explainer_of_ones_own_fits_where_its_settings_have_defaults(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.names()
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    for name, params in (("mine", ExplainerParams), ("asking", GameParams)):

        @xai.register_explainer(name, label=name, about="for tests", params=params)
        class Mine:
            def __init__(self, classifier: Any, params: Any) -> None:
                pass

            def attribute(self, pixels: Tensor, targets: Tensor, generator: Any = None) -> Tensor:
                return pixels.mean(1)

    listed = xai.explainers(model).loc[["mine", "asking"]]
    assert listed.fits.tolist() == [True, False]
    assert listed.level.tolist() == ["patch", ""]
    assert "settings are needed" in listed.why_not["asking"]
    assert set(xai.compare(model, images(), explainers=["mine"], metrics=["deletion"]).explainer) == {"mine"}


def test_an_explainer_of_ones_own_that_trains_itself_is_asked_as_any_other(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    @settings
    class Trained(ExplainerParams):
        fit: int = 1

    class Bright:
        def attribute(self, pixels: Tensor, targets: Tensor, generator: Any = None) -> Tensor:
            return pixels.mean(1)

    registry.names()
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))

    @xai.register_explainer("taught", label="Taught", about="for tests", params=Trained, kind="trained")
    def taught(context: Any, params: Trained) -> registry.Prepared:
        return registry.Prepared({"taught": params.fit}, Bright)

    torch.testing.assert_close(xai.explain(model, images(2), "taught"), images(2).mean(1))


def test_a_comparison_has_a_line_for_explainer_metric_and_image(model: Any) -> None:
    frame = xai.compare(model, images(3), explainers=["saliency", "random"], metrics=["srg", "deletion"])
    assert sorted(frame.groupby(["explainer", "metric"]).size().items()) == [
        ((explainer, metric), 3) for explainer in ("random", "saliency") for metric in ("deletion_auc", "srg")
    ]
    assert frame.value.between(-1, 1).all()
    assert set(frame.attrs["milliseconds"]) == {"saliency", "random"}
    assert {"srg", "deletion_auc"} <= set(xai.metrics().index)


def test_labels_are_what_is_explained_where_they_are_known(model: Any) -> None:
    wrong = (model.predict(images()).argmax(1) + 1) % 3
    frames = [
        xai.compare(model, images(), labels, explainers=["saliency"], metrics=["deletion"]) for labels in (None, wrong)
    ]
    assert not frames[0].value.equals(frames[1].value)


def test_an_object_of_ones_own_is_an_explainer(model: Any) -> None:
    class Corner:
        def attribute(self, images: Any, targets: Any, generator: Any = None) -> Any:
            maps = torch.zeros(len(images), 4, 4)
            maps[:, 0, 0] = 1
            return maps

    assert xai.explain(model, images(), Corner())[0, 0, 0] == 1
    assert set(xai.compare(model, images(), explainers=[Corner()], metrics=["deletion"]).explainer) == {"Corner"}


def test_what_cannot_be_measured_is_said(model: Any) -> None:
    assert "objects" in refusal(xai.compare, model, images(), explainers=["saliency"], metrics=["rma"])
    assert "attention" in refusal(xai.compare, model, images(), explainers=["attention_last"], metrics=["deletion"])
    with pytest.raises(UserError, match="saliency"):
        xai.compare(model, images(), explainers=["random"], settings={"saliency": {}}, metrics=["deletion"])


@pytest.mark.parametrize(
    ("network", "said"),
    [(Frozen, "needs gradients"), (lambda: torch.jit.script(Plain().eval()), "of a scripted module")],
    ids=["no_grad", "scripted"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_what_fails_on_a_network_is_left_out_and_the_rest_compared(network: Any, said: str) -> None:
    fragile = xai.wrap(network(), mean=MEAN, std=STD, image_size=SIZE, grid=(4, 4))
    frame = xai.compare(fragile, images(1), metrics=["deletion"])
    assert {"rise", "random"} <= set(frame.explainer)
    assert "grad_cam on" in frame.attrs["left_out"]["grad_cam"]
    listed = xai.explainers(fragile)
    assert said in listed.loc["grad_cam", "why_not"]
    assert listed.loc["rise", "fits"]


def test_explainers_are_compared_under_names_of_ones_own(model: Any) -> None:
    few = xai.explainer(model, "rise", masks=4)
    asked = {"few": few, "rise": {"masks": 6}, "plain": "random"}
    frame = xai.compare(model, images(), explainers=asked, metrics="deletion")
    assert list(dict.fromkeys(frame.explainer)) == ["few", "rise", "plain"]
    for name, masks in (("few", 4), ("rise", 6)):
        alone = xai.compare(model, images(), explainers=xai.explainer(model, "rise", masks=masks), metrics="deletion")
        np.testing.assert_allclose(frame.value[frame.explainer == name], alone.value, rtol=1e-5)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"explainers": Brightness(), "settings": {"Brightness": {"masks": 5}}}, "is ready made"),
        ({"explainers": {"mine": Brightness()}, "settings": {"mine": {"masks": 5}}}, "is ready made"),
        ({"explainers": ["random", Fails()]}, "Fails on Plain failed (KeyError: 'boo')"),
        *cases(__file__, "refused_comparisons.txt"),
    ],
)
def test_what_cannot_be_compared_is_told(model: Any, asked: Any, said: str) -> None:
    assert said in refusal(xai.compare, model, images(), **{"explainers": "random", "metrics": "deletion", **asked})


@pytest.mark.parametrize(
    "form", [list, lambda maps: maps.numpy()[:, ::-1], lambda maps: [each.numpy() for each in maps]]
)
@pytest.mark.parametrize("given", [lambda pixels: pixels.permute(0, 2, 3, 1).numpy(), lambda pixels: list(pixels)])
def test_arrays_are_shown_as_they_are(form: Any, given: Any) -> None:
    figure = xai.show(given(images()), form(torch.rand(2, 4, 4)))
    assert len(figure.axes) >= 4
    assert "several by label" in refusal(xai.show, given(images()), [torch.rand(2, 4, 4), "map"])


def test_maps_are_shown_over_what_they_are_of(model: Any) -> None:
    pictures = [Image.new("RGB", (50, 40), colour) for colour in ("red", "blue")]
    maps = xai.explain(model, pictures, "saliency")
    assert isinstance(xai.show(pictures, maps), matplotlib.figure.Figure)
    assert isinstance(xai.show(pictures, {"one": maps / 2}, model=model), matplotlib.figure.Figure)
    assert "model=" in refusal(xai.show, pictures, maps / 2)
    with pytest.raises(UserError, match="the images are normalised: say model="):
        xai.show(2 * images() - 1, torch.rand(2, 4, 4), normalised=True)


@pytest.mark.parametrize(("name", "more"), [("salvage", {}), ("vit_shapley", {"heads": 3})])
def test_an_explainer_is_trained_and_then_known_by_name_and_as_an_object(name: str, more: Any) -> None:
    model = xai.wrap(vit(), image_size=SIZE, classes=["a", "b", "c"])
    mine = xai.fit(name, model, images(8), surrogate={"fit": SHORT}, fit=SHORT, masks=4, **more)
    by_name, as_object = xai.explain(model, images(), name), xai.explain(model, images(), mine)
    assert by_name.shape == (2, 2, 2)
    assert torch.equal(by_name, as_object)
    assert set(xai.compare(model, images(), explainers=[name, "random"], metrics=["deletion"]).explainer) == {
        name,
        "random",
    }


def test_what_is_made_from_a_trained_explainer_is_made_from_the_one_that_was_fitted() -> None:
    model = xai.wrap(Plain(), mean=MEAN, std=STD, image_size=SIZE, grid=(4, 4))
    with pytest.raises(UserError, match="kernel_shap_proxy is made from salvage, which cannot be had here"):
        xai.explain(model, images(), "kernel_shap_proxy")
    # As xai.fit leaves them there.
    patches, pixels = (xai.explainer(model, f"saliency{of}", output="logit", sigma=0.0) for of in ("", "_pixels"))
    model.fitted.update(salvage=patches, ranking=replace(pixels, name="ranking"))
    maps = xai.explain(model, images(), "kernel_shap_proxy", coalitions=12)
    assert torch.equal(maps, xai.explain(model, images(), "kernel_shap_proxy", coalitions=12, of="saliency"))
    torch.testing.assert_close(xai.explain(model, images(), "pooled"), xai.explain(model, images(), "saliency"))
    listed = xai.explainers(model)
    assert listed.fits["kernel_shap_proxy"]
    assert listed.level[["ranking", "salvage"]].tolist() == ["pixel", "patch"]
    frame = xai.compare(model, images(), explainers=["kernel_shap_proxy_16"], metrics=["sensitivity", "randomisation"])
    assert set(frame.metric) == {"sensitivity_max"}
    assert "nobody knows the network" in frame.attrs["left_out"]["kernel_shap_proxy_16, randomisation"]
    for name, said in (("decoder_t1", "none that can be reached"), ("salvage_adjusted", "which is ready made here")):
        assert said in refusal(xai.explain, model, images(), name)


def test_a_network_of_torchvision_that_timm_has_too_is_trained_for_as_timms() -> None:
    shape = {"mean": MEAN, "std": STD, "image_size": SIZE, "grid": 2}
    network = torchvision.models.resnet18(num_classes=3).eval()
    model = xai.wrap(network, **shape)
    mine = xai.fit("fast_shap", model, images(4), surrogate={"fit": SHORT}, fit=SHORT, masks=4, width=8)
    # A training that moves nothing leaves the classifier in the explainer's backbone.
    assert xai.explain(model, images(), mine).shape == (2, 2, 2)
    twin = _of_timm(model)
    with torch.no_grad():
        torch.testing.assert_close(twin(images(1)), network(images(1)))
    for other, more in (
        (torchvision.models.squeezenet1_1(num_classes=3), {}),
        (timm.create_model("test_resnet", num_classes=3), {"output": lambda logits: -logits}),
    ):
        assert _of_timm(xai.wrap(other, **{**shape, **more})) is None
    with pytest.raises(UserError, match=r"grid=\(4, 2\)"):
        xai.fit(
            "fast_shap",
            xai.wrap(timm.create_model("test_resnet", num_classes=3), **{**shape, "grid": (4, 2)}),
            images(4),
        )


def test_what_cannot_be_trained_is_refused(model: Any) -> None:
    assert "timm" in refusal(xai.fit, "ranking", model, images(4))
    assert "learns nothing" in refusal(xai.fit, "rise", model, images(4))


def test_a_second_classifier_is_asked_and_a_reference_held_against(model: Any) -> None:
    how = {"mean": MEAN, "std": STD, "grid": (4, 4), "classes": ["cat", "cow", "fox"]}
    network = Plain()
    torch.nn.init.normal_(network.head.weight)
    second = xai.wrap(network, **how, image_size=SIZE)
    asked = {"explainers": ["saliency", "occlusion"], "metric": {"transfer": {"references": ["black"]}}}
    frame = xai.compare(model, images(), metrics=["transfer", "kendall"], **asked, judge=second, reference="occlusion")
    found = frame.groupby(["explainer", "metric"]).value.mean().unstack()
    assert found.kendall["occlusion"] == pytest.approx(1.0)
    assert abs(found.kendall["saliency"]) < 1
    own = xai.compare(model, images(), metrics=["transfer"], **asked, judge=model)
    assert not found.transfer.equals(own[own.metric == "transfer"].groupby("explainer").value.mean())
    with pytest.raises(UserError, match="other classes"):
        xai.compare(model, images(), judge=xai.wrap(Plain(), **{**how, "classes": list("abc")}, image_size=SIZE))
    assert "px" in refusal(xai.compare, model, images(), judge=xai.wrap(Plain(), **how, image_size=2 * SIZE))
