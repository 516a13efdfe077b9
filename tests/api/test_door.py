"""What comes in from outside is understood when it is said what it is, and refused in one line otherwise."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

import xai
from tests.api.networks import MEAN, SIZE, STD, Frozen, Plain, Returns, images, normalised, vit
from tests.toolbox import cases, refusal
from xai.api.model import _drops_tokens
from xai.models.maskable import Removal
from xai.models.timm_vit import MaskableVit


def wrapped(network: nn.Module, **settings: Any) -> Any:
    return xai.wrap(network, **{"mean": MEAN, "std": STD, "image_size": SIZE, "grid": (4, 4), **settings})


def test_a_network_is_asked_as_it_was_trained_and_stays_as_it_is() -> None:
    network = Plain().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = wrapped(network).predict(images())
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    torch.testing.assert_close(found, network.eval()(normalised(images())).softmax(1))


@pytest.mark.parametrize(
    ("form", "output"),
    [
        (lambda logits: {"logits": logits, "loss": logits.sum()}, "logits"),
        (lambda logits: (logits, None), 0),
        (lambda logits: [None, {"deep": logits}], lambda found: found[1]["deep"]),
    ],
)
def test_logits_within_what_is_returned_are_found_where_it_is_said(form: Any, output: Any) -> None:
    expected = Plain().eval()(normalised(images())).softmax(1)
    torch.testing.assert_close(wrapped(Returns(form), output=output).predict(images()), expected)


def test_probabilities_that_are_said_to_be_are_undone() -> None:
    expected = Plain().eval()(normalised(images())).softmax(1)
    model = wrapped(Returns(lambda logits: logits.softmax(1)), probabilities=True)
    torch.testing.assert_close(model.predict(images()), expected)


@pytest.mark.parametrize("form", [lambda logits: logits, lambda logits: logits[:, 0], torch.squeeze])
def test_one_logit_is_a_binary_classifier_whose_second_class_is_the_positive_one(form: Any) -> None:
    positive = Plain(outputs=1).eval()(normalised(images()))[:, 0].sigmoid()
    model = wrapped(Returns(form, outputs=1), classes=["no", "yes"])
    torch.testing.assert_close(model.predict(images()), torch.stack([1 - positive, positive], 1))
    maps = {name: xai.explain(model, images(), "saliency", targets=name) for name in ("no", "yes")}
    torch.testing.assert_close(maps["no"], maps["yes"])  # sizes of gradients of z / 2 and - z / 2
    torch.testing.assert_close(model.predict(images(1))[:, 1], positive[:1])
    model = wrapped(Returns(form, outputs=1), classes=["no", "yes"], grid=2)
    shapley = {name: xai.explain(model, images(), "exact_shapley", targets=name) for name in ("no", "yes")}
    torch.testing.assert_close(shapley["no"], -shapley["yes"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("form", "more"), [(torch.sigmoid, {"probabilities": True}), (torch.clone, {})])
def test_one_of_several_labels_is_a_binary_classifier(form: Any, more: Any) -> None:
    expected = Plain().eval()(normalised(images())).sigmoid()[:, 2]
    model = wrapped(Returns(form), output=lambda found: found[:, [2]], **more)
    torch.testing.assert_close(model.predict(images())[:, 1], expected)


def test_a_network_of_grey_images_gets_the_luminance() -> None:
    model = wrapped(Plain(channels=1), channels=1, mean=0.0 * torch.ones(3), std=(1, 1, 1))
    grey = (images() * torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(model.predict(images()), Plain(channels=1).eval()(grey).softmax(1))
    torch.testing.assert_close(model.predict(grey.expand(-1, 3, -1, -1)), model.predict(images()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("build", [Plain, vit])
def test_another_precision_is_asked_in_its_own(build: Any, dtype: torch.dtype) -> None:
    model = wrapped(build().to(dtype))
    torch.testing.assert_close(model.predict(images()), wrapped(build()).predict(images()), atol=0.05, rtol=0.05)
    assert xai.explain(model, images(), "saliency").shape == (2, 4, 4)
    assert {each.dtype for each in model.network().parameters()} == {dtype}


class WholeFirst(Plain):
    """A network whose first parameter is of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor([0], dtype=torch.int8), requires_grad=False)

    def forward(self, images: Tensor) -> Any:
        return super().forward(images) + self.shift


class OfBuffers(nn.Module):
    """A network without parameters, which computes in the precision of its buffer."""

    weight: Tensor

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", torch.eye(3, dtype=dtype))

    def forward(self, images: Tensor) -> Any:
        return images.mean((2, 3)) @ self.weight


def test_images_are_floats_whatever_a_network_keeps_first() -> None:
    torch.testing.assert_close(wrapped(WholeFirst()).predict(images()), wrapped(Plain()).predict(images()))
    single, double = (wrapped(OfBuffers(dtype)).predict(images()) for dtype in (torch.float32, torch.float64))
    torch.testing.assert_close(single, double)


def test_a_transformer_is_looked_at_where_it_is() -> None:
    assert _drops_tokens(vit().to("meta"), MEAN, STD, SIZE)


@pytest.mark.parametrize(
    ("network", "settings", "said"),
    [
        (Returns(lambda logits: {"logits": logits}), {}, "dict of logits"),
        (Returns(lambda logits: {"logits": logits}), {"output": "scores"}, "scores"),
        (Returns(lambda logits: logits[:, :, None]), {}, r"3, 1"),
        (Returns(lambda logits: logits.softmax(1)), {}, "probabilities=True"),
        (Returns(lambda logits: logits * float("nan")), {}, "NaN"),
        (Returns(lambda logits: logits.argmax(1)), {}, "int64 numbers"),
        (Returns(lambda logits: logits + 0j), {}, "complex64 numbers"),
        (Returns(lambda logits: logits[:, :0]), {}, "3, 0"),
        (Returns(lambda logits: logits - logits.mean(0)), {}, "another batch"),
        (Returns(torch.mean), {}, "returns one number for 3 images"),
        (vit().bfloat16(), {"removal": "tokens"}, "in float32"),
        (Plain(channels=1), {}, "channels=1"),
        (Plain(channels=4), {}, "4 channels"),
        ("a network", {}, "Module"),
        (Returns(lambda logits: logits.sigmoid(), outputs=1), {}, "probabilities=True"),
        (Returns(lambda logits: logits.sigmoid()), {}, "several labels"),
        (Returns(lambda logits: logits.sigmoid()), {"probabilities": True}, "none of one choice: of several labels"),
        (Plain().to("meta"), {}, "load its weights first"),
        (nn.LazyConv2d(3, 3), {}, "let it see a batch first"),
        (Plain(), {"classes": {"a", "b", "c"}}, "is a set: give a list"),  # in no order at all
        (Plain(outputs=1), {"classes": ["sick"]}, "1 classes for a network of 1 outputs: give 2 names, of the class"),
        (Plain(), {"output": lambda logits: logits.scores}, "output=the function finds no part"),
        (timm.create_model("test_resnet", num_classes=0), {}, "ResNet has no head, and features are no logits"),
        *((Plain(), settings, said) for settings, said in cases(__file__, "refused_settings.txt")),
    ],
)
def test_what_cannot_be_explained_is_refused_in_a_line(network: Any, settings: dict[str, Any], said: str) -> None:
    assert said in refusal(lambda: wrapped(network, **settings))


def test_features_are_logits_where_a_function_or_a_new_head_makes_them_so() -> None:
    network: Any = timm.create_model("test_resnet", num_classes=0).eval()
    model = wrapped(network, output=lambda features: -1 - features[:, :3])
    expected = (-network(normalised(images()))[:, :3]).softmax(1)
    torch.testing.assert_close(model.predict(images()), expected, atol=1e-5, rtol=1e-4)
    network.fc = nn.Linear(network.num_features, 2)
    assert len(wrapped(network, probabilities=False).classes) == 2


def test_the_fast_pass_of_a_transformer_is_taken_only_where_it_is_the_networks_own() -> None:
    network = vit()
    assert type(xai.wrap(network, image_size=SIZE).network()).__name__ == "MaskableVit"
    network.blocks[3].register_forward_hook(lambda module, inputs, output: 2 * output)
    model = xai.wrap(network, image_size=SIZE)
    pixels = normalised(images(), model.mean, model.std)
    torch.testing.assert_close(model.predict(images()), network(pixels).softmax(1))
    keep = torch.rand(2, model.network().players) < 0.5
    grey = model.network(Removal("pixels", "mean"))
    assert not torch.allclose(grey(images(), keep), grey(images()))


def test_a_transformer_that_is_more_than_its_blocks_and_its_head_is_painted_over_and_it_is_said() -> None:
    network = vit()
    network.register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.warns(UserWarning, match="fast pass of VisionTransformer is not taken .* its blocks and its head give"):
        model = xai.wrap(network, image_size=SIZE, grid=(4, 4))
    assert not isinstance(model.network(), MaskableVit)
    pixels = normalised(images(), model.mean, model.std)
    torch.testing.assert_close(model.predict(images()), network(pixels).softmax(1))


@pytest.mark.parametrize(
    "given",
    [
        lambda pixels: pixels,
        lambda pixels: (255 * pixels).round().to(torch.uint8),
        lambda pixels: (255 * pixels).round().to(torch.uint8).permute(0, 2, 3, 1).numpy(),
        lambda pixels: [
            Image.fromarray(each) for each in (255 * pixels.permute(0, 2, 3, 1).numpy() + 0.5).astype("uint8")
        ],
        lambda pixels: list((255 * pixels).round().to(torch.uint8)),
        lambda pixels: pixels.double().numpy(),
        lambda pixels: pixels.to_sparse(),
        lambda pixels: pixels.flip(0).numpy()[::-1],
        lambda pixels: pixels.numpy().astype(">f4"),
    ],
)
def test_images_of_any_kind_are_the_same_images(given: Callable[[Tensor], Any]) -> None:
    model = wrapped(Plain())
    found = model.pixels(given(images()))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, images(), atol=0.5 / 255 + 1e-6, rtol=0)


def test_normalised_floats_are_brought_back() -> None:
    model = wrapped(Plain())
    torch.testing.assert_close(model.pixels(normalised(images()), normalised=True), images(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (normalised(images()), "normalised=True"),
        (255 * images(), "255"),
        (65535 * images(), "65535"),
        (images().to("meta"), "meta"),
        (images().to(torch.int64), "int64"),
        (images()[:, :1], "three channels are needed (of grey, one three times)"),
        (images()[..., :16], "32 x 32"),
        (images() * float("nan"), "NaN"),
        ([], "no images"),
        (images()[:0], "give"),
        ("nowhere.png", "nowhere.png"),
        (3, "int"),
        ([1, 2], "list of int"),
        (Image.new("RGB", (0, 0)), "0 x 0 px"),
        (Image.new("La", (40, 40)), "mode La"),
        (np.array([object()]), "array of object"),
        ("nowhere/*.png", "nowhere"),
    ],
)
def test_images_that_would_be_misread_are_refused(given: Any, said: str) -> None:
    assert said in refusal(lambda: wrapped(Plain()).pixels(given))


@pytest.mark.parametrize("target", [99, -1, 1.5, True, "dog", [0], [0, 1, 2], torch.tensor([0, 3])])
def test_targets_that_there_are_not_are_refused(target: Any) -> None:
    model = wrapped(Plain(), classes=["cat", "cow", "fox"])
    refusal(lambda: xai.explain(model, images(), "saliency", targets=target))


def test_numbers_and_names_of_targets_are_the_same() -> None:
    model = wrapped(Plain(), classes=["cat", "cow", "fox"])
    lists = [2, 2], torch.tensor([2, 2]), list(np.array([2, 2])), list(torch.tensor([2, 2]))
    maps = [xai.explain(model, images(), "saliency", targets=each) for each in (2, "fox", np.int64(2), *lists)]
    assert all(torch.equal(each, maps[0]) for each in maps)


class Holds(nn.Module):
    """A network with a hook that holds on to it: in a copy, the hook stores where nobody looks."""

    def __init__(self, seen: bool) -> None:
        super().__init__()
        self.inner, self.kept = Plain(), None
        self.inner.features.register_forward_hook(lambda module, inputs, output: setattr(self, "kept", output))
        if seen:
            self.eval()
            with torch.no_grad():
                self(normalised(images(1)))

    def forward(self, pixels: Tensor) -> Any:
        self.inner.features(pixels)
        return self.inner.head(self.kept.mean((2, 3)))  # type: ignore[attr-defined]


@pytest.mark.parametrize("seen", [False, True])
def test_a_network_whose_copy_answers_otherwise_is_asked_itself(seen: bool) -> None:
    network = Holds(seen)
    with pytest.warns(UserWarning, match=r"the network itself is asked.* without gradients and on cpu \(device="):
        model = wrapped(network)
    expected = Plain().eval()(normalised(images())).softmax(1)
    torch.testing.assert_close(model.predict(images()), expected)
    maps = xai.explain(model, images(), "rise", masks=64)
    torch.testing.assert_close(maps, xai.explain(wrapped(Plain()), images(), "rise", masks=64))


@pytest.mark.parametrize("form", [torch.jit.script, lambda network: torch.jit.trace(network, images())])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_network_is_a_network(form: Any) -> None:
    found = wrapped(form(Plain().eval())).predict(images())
    torch.testing.assert_close(found, wrapped(Plain()).predict(images()))


def test_a_network_that_is_divided_among_devices_is_the_one_within() -> None:
    network = timm.create_model("test_resnet", num_classes=3)
    expected, found = (xai.wrap(each, probabilities=False) for each in (network, nn.DataParallel(network)))
    assert (found.name, found.image_size, found.mean) == (expected.name, expected.image_size, expected.mean)
    grey = torch.full((1, 3, found.image_size, found.image_size), 0.3)
    torch.testing.assert_close(found.predict(grey), expected.predict(grey))


def test_a_network_that_has_no_evaluation_mode_is_refused() -> None:
    class Exported(Plain):
        """As torch.export gives a network back."""

        def train(self, mode: bool = True) -> Any:
            raise NotImplementedError("Calling train() is not supported yet.")

    assert "evaluation mode (NotImplementedError: Calling train()" in refusal(wrapped, Exported())


def test_a_network_that_writes_into_its_images_spoils_nobodys() -> None:
    class Halves(Plain):
        def forward(self, given: Tensor) -> Any:
            return super().forward(given.mul_(0.5))

    class Half(Plain):
        def forward(self, given: Tensor) -> Any:
            return super().forward(given * 0.5)

    given = images()
    maps = [xai.explain(wrapped(kind()), given, "rise", masks=8) for kind in (Halves, Half)]
    torch.testing.assert_close(*maps)
    torch.testing.assert_close(given, images())


def test_whole_numbers_may_be_numpys_and_a_side_may_be_two_alike() -> None:
    model = wrapped(Plain(), grid=(np.int64(2), np.int64(4)), image_size=(SIZE, np.int64(SIZE)))
    assert (model.image_size, model.network().grid) == (SIZE, (2, 4))


@pytest.mark.parametrize("seed", ["x", 2**70, -1, 1.5])
def test_a_seed_that_is_none_is_refused(seed: Any) -> None:
    assert "seed=" in refusal(xai.explain, wrapped(Plain()), images(), "random", seed=seed)


def test_maps_that_are_not_finite_are_not_drawn_and_one_alone_is() -> None:
    assert len(xai.show(images(1)[0], torch.rand(4, 4)).axes) > 1
    assert "the maps (map) hold NaN" in refusal(xai.show, images(1), torch.full((1, 4, 4), torch.inf))


def test_logits_between_0_and_1_are_logits_where_it_is_said() -> None:
    form = Returns(lambda logits: logits.sigmoid(), outputs=1)
    assert wrapped(form, probabilities=False).predict(images()).shape == (2, 2)
    positive = Plain(outputs=1).eval()(normalised(images()))[:, 0].sigmoid()
    torch.testing.assert_close(wrapped(form, probabilities=True).predict(images())[:, 1], positive)


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.4])
def test_answers_that_no_image_changes_are_not_taken_for_sigmoids(share: float) -> None:
    network = Returns(lambda logits: 0 * logits + share)
    torch.testing.assert_close(wrapped(network).predict(images()), torch.full((2, 3), 1 / 3))


@pytest.mark.parametrize("sure", [8.0, 30.0, -20.0])
def test_a_sigmoid_that_is_sure_of_all_noise_is_no_logit(sure: float) -> None:
    network = Returns(lambda logits: (logits.clamp(-2, 2) + sure).sigmoid(), outputs=1)
    assert "the network returns probabilities" in refusal(wrapped, network)


def test_shares_that_are_rounded_or_overflow_are_shares() -> None:
    half = Returns(lambda logits: logits.softmax(1)).bfloat16()
    rounded = Returns(lambda logits: 0.998 * logits.softmax(1))
    overflowing = Returns(lambda logits: (logits + torch.where(logits.abs() > 2, torch.nan, 0.0)).softmax(1))
    for network in (half, rounded, overflowing):
        assert "the network returns probabilities" in refusal(wrapped, network)
    assert wrapped(half, probabilities=True).predict(images()).shape == (2, 3)


def test_a_network_without_gradients_says_so() -> None:
    told = refusal(xai.explain, wrapped(Frozen()), images(), "saliency")
    assert "choose an explainer that asks for none" in told


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"]
)
def test_a_picture_of_any_mode_is_read(mode: str) -> None:
    assert wrapped(Plain()).pixels(Image.new(mode, (40, 30))).shape == (1, 3, SIZE, SIZE)


def test_a_picture_is_as_upright_as_its_file(tmp_path: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.linear_gradient("L").save(tmp_path / "turned.png", exif=exif)
    model = wrapped(Plain())
    assert torch.equal(model.pixels(Image.open(tmp_path / "turned.png")), model.pixels(tmp_path / "turned.png"))


def test_a_picture_that_cannot_be_read_any_more_is_told_so(tmp_path: Any) -> None:
    path = tmp_path / "cut.jpg"
    Image.effect_noise((80, 80), 50).save(path)
    with Image.open(path) as closed:
        pass
    path.write_bytes(path.read_bytes()[:1000])
    with Image.open(path) as cut:
        for picture in (cut, closed):
            assert "cut.jpg cannot be read" in refusal(wrapped(Plain()).pixels, [picture])


def test_floats_may_have_their_channels_last() -> None:
    model, last = wrapped(Plain()), images().permute(0, 2, 3, 1)
    assert torch.equal(model.pixels(last.numpy()), images())
    assert torch.equal(model.pixels(last[0]), images()[:1])


def test_a_folder_and_a_glob_are_pictures(tmp_path: Any) -> None:
    for name, colour in (("b (1).png", "white"), ("a.png", "black")):
        Image.new("RGB", (40, 40), colour).save(tmp_path / name)
    model = wrapped(Plain())
    for given in (tmp_path, f"{tmp_path}/*.png"):
        assert model.pixels(given).mean((1, 2, 3)).tolist() == [0, 1]  # sorted by their paths


@pytest.mark.parametrize(
    "call",
    [
        xai.explain,
        xai.compare,
        lambda *given: xai.fit("salvage", *given),
        xai.explainer,
        lambda network, _: xai.explainers(network),
        lambda network, given: xai.show(given, torch.rand(2, 4, 4), model=network),
    ],
)
def test_a_network_is_no_model(call: Any) -> None:
    assert "xai.wrap(network" in refusal(lambda: call(Plain(), images()))
