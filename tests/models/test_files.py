"""Files that say all of themselves: written, read back, edited by strangers, and of earlier versions."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.models.test_dpt import TINY
from tests.models.tiny_clip import PARAMS as CLIP
from tests.models.tiny_clip import classifier, pictures
from tests.models.tiny_vit import devices_of_vits
from tests.toolbox import cases, refusal
from xai.core.settings import build
from xai.models import files
from xai.models.backbone import headless
from xai.models.clip import trainable
from xai.models.cnn import CnnParams
from xai.models.dense import DenseExplainer
from xai.models.explainer import LinearDecoder, MaskTransformer, SalvageNetwork, ShapleyNetwork
from xai.models.families import Geometry
from xai.models.features import FrozenFeatures
from xai.models.maskable import Removal
from xai.models.spec import Spec, describe, said_of, shape_of
from xai.models.vit import SmallVit, VitParams
from xai.models.weights import architecture_hash, read_weights

VIT = VitParams("tiny", 16, 4, (0.5, 0.4, 0.3), (0.25, 0.3, 0.2), tower=SmallVit(8, 1, 2, 2.0, 1, 1.0))
CNN = CnnParams("small", 16, 4, (0.5,) * 3, (0.25,) * 3, "test_efficientnet", output_stride=8, crop=0.9)
CLASSES = ("cat", "dog", "owl")
DECODER = {"kind": "linear", "depth": 1, "heads": 2}
IMAGES = pictures(2).float()
TARGETS = torch.tensor([2, 0])
PIXELS = replace(TINY, resize=(1.0,))


def random(network: Any) -> Any:
    """With other weights than those that are drawn by seed 0."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return network.eval()


def dense(params: Geometry, inner: nn.Module, seen: nn.Module | None = None) -> tuple[Any, Mapping[str, nn.Module]]:
    features = FrozenFeatures(seen or inner, (0,), params.mean, params.std, 16)
    explainer = random(DenseExplainer(features, PIXELS, 3))
    return explainer, {"classifier": inner, "decoder": explainer.decoder, **({"backbone": seen} if seen else {})}


def made(kind: str) -> tuple[Spec, nn.Module | Mapping[str, nn.Module], Callable[[Any], Tensor], nn.Module]:
    """What a file of a kind says, what is written, what is asked of a network, and the network to compare with."""
    torch.manual_seed(3)
    vit = random(VIT.build(3, 1))
    if kind == "clip":
        clip = classifier().float()
        return describe(CLIP, "self_explaining", "x", tuple("abcde"), base="f"), clip, lambda net: net(IMAGES), clip
    if kind == "cnn":
        cnn = random(CNN.build(3, 1))
        return describe(CNN, "classifier", "x", CLASSES), cnn, lambda net: net(IMAGES), CNN.maskable(cnn)
    if kind in ("classifier", "surrogate"):
        more = {"removal": Removal("tokens")} if kind == "surrogate" else {}
        return describe(VIT, kind, "x", CLASSES, **more), vit, lambda net: net(IMAGES), VIT.maskable(vit)
    if kind == "salvage":
        salvage = random(SalvageNetwork(vit, LinearDecoder(8, 6, 1, 2), VIT.mean, VIT.std))
        spec = describe(VIT, kind, "x", CLASSES, decoder=DECODER)
        return spec, salvage, lambda net: net(IMAGES), salvage
    if kind == "vit_shapley":
        shapley = random(ShapleyNetwork(vit, MaskTransformer(8, 3, 1, 2), VIT.mean, VIT.std))
        spec = describe(VIT, kind, "x", CLASSES, decoder={**DECODER, "kind": "mask_transformer"})
        return spec, shapley, lambda net: net.values(IMAGES), shapley
    seen = random(headless("test_resnet", 16)) if kind == "ranking with a backbone" else None
    explainer, written = dense(VIT, vit, seen)
    backbone = {"architecture": "test_resnet", "mean": VIT.mean, "std": VIT.std} if seen else None
    ranking = {"levels": (0,), "decoder": PIXELS, "backbone": backbone}
    spec = describe(VIT, "ranking", "x", CLASSES, ranking=ranking)
    return spec, written, lambda net: net.attribute(IMAGES, TARGETS), explainer


KINDS = ("clip", "cnn", "classifier", "surrogate", "salvage", "vit_shapley", "ranking", "ranking with a backbone")


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_alone_gives_back_the_network(tmp_path: Path, kind: str) -> None:
    path, (spec, written, ask, network) = tmp_path / "new" / "x", made(kind)
    files.write(path, written, spec)
    state = torch.get_rng_state()
    loaded = files.load(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert loaded.spec == spec == files.read_spec(path)
    torch.testing.assert_close(ask(loaded.network), ask(network))
    assert not loaded.network.training
    assert not any(value.requires_grad for value in loaded.network.parameters())
    assert set(read_weights(path).metadata) == {"xai.file"}
    if loaded.classifier is not None and loaded.classifier is not loaded.network:
        assert torch.equal(loaded.classifier(IMAGES), VIT.maskable(written["classifier"])(IMAGES))  # type: ignore[index, arg-type]


def test_patches_are_removed_as_asked_else_as_the_file_says(tmp_path: Path) -> None:
    spec, written, _, _ = made("classifier")
    for said, asked, expected in (
        (None, None, Removal("tokens")),
        (Removal("pixels", "blur"), None, Removal("pixels", "blur")),
        (Removal("pixels", "blur"), Removal("pixels", 0.5), Removal("pixels", 0.5)),
    ):
        files.write(tmp_path / "x", written, Spec.model_validate({**dict(spec), "removal": said}))
        assert files.load(tmp_path / "x", removal=asked).classifier.removal == expected  # type: ignore[union-attr]


def said(spec: Spec, *path: str, value: Any) -> str:
    """The JSON of a spec with one value of it changed; `...` takes the key out."""
    whole: Any = json.loads(spec.model_dump_json())
    place = whole
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(whole)


S = made("salvage")[0]
R = made("ranking with a backbone")[0]
EDITED = {
    "empty": "",
    "no JSON": "{",
    "null": "null",
    "a list": "[1]",
    "NaN": "NaN",
    "deep": "[" * 100_000,
    "long": " " * 2**25,
    "a key less": said(S, "data", value=...),
    "another family": said(S, "model", value={**said_of(CNN), "resize": "bicubic"}),
    "a million classes": said(S, "classes", value=["x"] * 10**6),
    "digits": said(S, "model", "tower", "width", value=1).replace('"width": 1', '"width": ' + "1" * 5000),
    "a temperature of ViT-Shapley": said(made("vit_shapley")[0], "decoder", "temperature", value=2.0),
    "two explainers": said(S, "ranking", value=json.loads(R.model_dump_json())["ranking"]),
    "a hub as architecture": said(
        Spec.model_validate({**dict(S), "model": shape_of(VIT)}), "model", "architecture", value="hf-hub:a/b"
    ),
    "many levels": said(R, "ranking", "levels", value=list(range(100))),
    **{
        f"{kind} {path}: {value}": said({"salvage": S, "ranking": R}[kind], *path, value=yaml.safe_load(value))
        for kind, path, value in cases(__file__, "edited.txt")
    },
}


@pytest.mark.parametrize("text", EDITED.values(), ids=EDITED.keys())
def test_metadata_that_make_no_sense_are_refused_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(files, "build", lambda *_: pytest.fail("something was built"))
    save_file({"x": torch.zeros(1)}, tmp_path / "x", metadata={"xai.file": text})
    line = refusal(lambda: files.load(tmp_path / "x"))
    unreadable = "was written by another version of this framework, or edited ("
    assert line.startswith(
        tuple(f"{tmp_path / 'x'} {why}" for why in (unreadable, "cannot be read here: model.family"))
    )
    assert len(line) < 500


def test_an_architecture_is_compared_before_it_is_allocated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, written, _, _ = made("classifier")
    devices = devices_of_vits(monkeypatch)
    giant = replace(VIT, tower=replace(VIT.tower, width=2**14, depth=200))  # type: ignore[type-var]
    files.write(tmp_path / "x", written, describe(giant, "classifier", "x", CLASSES))
    assert "does not fit model=tiny" in refusal(lambda: files.load(tmp_path / "x"))
    assert devices == ["meta"]
    files.write(tmp_path / "x", written, spec)
    files.load(tmp_path / "x")
    assert devices == ["meta", "meta", "cpu"]


def test_tensors_that_are_not_those_the_file_says_are_refused(tmp_path: Path) -> None:
    path, (spec, network, _, _) = tmp_path / "x", made("clip")
    files.write(path, network, spec)
    tensors, metadata = load_file(path), read_weights(path).metadata

    def after(**changes: Tensor | None) -> str:
        kept = {name: value for name, value in {**tensors, **changes}.items() if value is not None}
        save_file(kept, path, metadata)
        return refusal(lambda: files.load(path))

    assert "missing (head)" in after(head=None)
    assert "head is [12,2] here, model=tiny needs [12,5]" in after(head=torch.zeros(12, 2))
    assert "logit_scale is [2] here" in after(logit_scale=torch.ones(2))
    assert "unexpected (more)" in after(more=torch.ones(2))
    assert "NaN or infinite values in head" in after(head=torch.full((12, 5), torch.nan))
    path.write_bytes(path.read_bytes()[:-7])
    assert refusal(lambda: files.load(path)).startswith("checkpoint ")
    assert "does not exist" in refusal(lambda: files.load(tmp_path / "nowhere"))


def test_what_cannot_be_said_is_not_written() -> None:
    assert "image_size=16384 must be at most 4096" in refusal(lambda: replace(VIT, image_size=4**7))
    with pytest.raises(ValueError, match="no salvage of family cnn"):
        describe(CNN, "salvage", "x", CLASSES)
    with pytest.raises(ValueError, match="a fast_shap and a U-Net do not go together"):
        describe(CNN, "fast_shap", "x", CLASSES)


def test_files_of_others_say_nothing_of_themselves(tmp_path: Path) -> None:
    state = VIT.build(3, 0).state_dict()
    save_file(state, tmp_path / "plain", metadata={"format": "pt"})
    torch.save(state, tmp_path / "torch.pth")
    for path in (tmp_path / "plain", tmp_path / "torch.pth"):
        spec, tensors = files.read(path)
        assert spec is None is files.read_spec(path)
        assert set(tensors) == set(state)
        assert "says nothing of itself" in refusal(lambda path=path: files.load(path))  # type: ignore[misc]


# CLIP checkpoints, ours or not, as parameters theta.


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_parameters_are_the_visual_tower_of_anyones_file(tmp_path: Path, prefix: str) -> None:
    spec, network, _, _ = made("clip")
    files.write(tmp_path / "own", network, spec)
    expected = trainable(network)  # type: ignore[arg-type]
    state = {**expected, "text_projection": torch.zeros(2), "logit_scale": torch.tensor(1.0)}
    torch.save({"state_dict": {prefix + name: value for name, value in state.items()}}, tmp_path / "foreign.pt")
    for name, known in (("own", spec), ("foreign.pt", None)):
        parameters, found = files.read_parameters(tmp_path / name, CLIP)
        assert found == known
        assert parameters.keys() == expected.keys()
        assert all(torch.equal(parameters[key], value) for key, value in expected.items())


def test_what_is_no_visual_tower_is_refused(tmp_path: Path) -> None:
    save_file({"text_projection": torch.zeros(2)}, tmp_path / "text")
    assert "no visual tower" in refusal(lambda: files.read_parameters(tmp_path / "text", CLIP))
    save_file({"w": torch.zeros(2)}, tmp_path / "vector", {"xai.vector": "{}"})
    assert "is an explainability vector, not a classifier" in refusal(lambda: files.load(tmp_path / "vector"))
    spec, network, _, _ = made("clip")
    files.write(tmp_path / "x", network, spec)
    deep = replace(CLIP, towers=replace(CLIP.towers, layers=3))  # type: ignore[type-var]
    assert "missing" in refusal(lambda: files.read_parameters(tmp_path / "x", deep))
    spec, vit, _, _ = made("classifier")
    files.write(tmp_path / "x", vit, spec)
    assert "is no CLIP classifier" in refusal(lambda: files.load_classifier(tmp_path / "x"))


def test_models_of_the_same_shapes_share_their_architecture_hash() -> None:
    theta = trainable(classifier().float())
    assert architecture_hash(theta) == architecture_hash(dict(reversed([(n, v + 1) for n, v in theta.items()])))
    assert len(architecture_hash(theta)) == 16
    assert architecture_hash(theta) != architecture_hash({**theta, "visual.more": torch.zeros(1)})
    assert architecture_hash(theta) != architecture_hash({**theta, "visual.proj": theta["visual.proj"].T})


# What earlier versions wrote.

OLD_CLIP = {
    "model": "tiny",
    "data": "digits",
    "classes": list("abcde"),
    "architecture": "0" * 16,
    "base": "f" * 16,
    "explains": True,
}
OLD_COMMON = {"model": "tiny", "data": "digits", "classes": list(CLASSES), "binary": False}
OLD_VIT = {**OLD_COMMON, "kind": "salvage", "decoder": "linear", "decoder_depth": 1, "decoder_heads": 2}
OLD_DECODER = json.loads(R.model_dump_json())["ranking"]["decoder"]
OLD_RANKING = {
    **OLD_COMMON,
    "backbone": "",
    "mean": VIT.mean,
    "std": VIT.std,
    "levels": [0],
    "decoder": OLD_DECODER,
}
OLD = {
    "clip": ("xai.classifier", OLD_CLIP, CLIP),
    "salvage": ("xai.vit", OLD_VIT, VIT),
    "ranking": ("xai.ranking", OLD_RANKING, VIT),
    "ranking with a backbone": ("xai.ranking", {**OLD_RANKING, "backbone": "test_resnet"}, VIT),
}


@pytest.mark.parametrize("kind", OLD)
def test_a_file_of_an_earlier_version_gives_its_network(tmp_path: Path, kind: str) -> None:
    path, (spec, written, ask, network), (key, old, params) = tmp_path / "x", made(kind), OLD[kind]
    files.write(path, written, spec)
    save_file(load_file(path), path, {key: json.dumps(old)})
    loaded = files.load(path, params)
    assert torch.equal(ask(loaded.network), ask(network))
    assert (loaded.spec.kind, loaded.spec.data, list(loaded.spec.classes)) == (spec.kind, "digits", old["classes"])
    assert loaded.spec.model == spec.model


def test_a_file_of_an_earlier_version_takes_the_settings_shipped_under_its_name(tmp_path: Path) -> None:
    params = build(VitParams, dict(files.shipped_settings("vit_tiny")), "model")
    network = random(params.build(3, 1))
    plain = {**OLD_COMMON, "kind": "classifier", "model": "vit_tiny"}
    plain |= {"decoder": "", "decoder_depth": 0, "decoder_heads": 0}
    save_file(network.state_dict(), tmp_path / "x", {"xai.vit": json.dumps(plain)})
    for given in (None, VIT, CLIP):
        loaded = files.load(tmp_path / "x", given)
        assert loaded.spec.model == shape_of(params)
        images = torch.rand(2, 3, 42, 42)
        assert torch.equal(loaded.network(images), params.maskable(network)(images))
    save_file(network.state_dict(), tmp_path / "x", {"xai.vit": json.dumps({**plain, "model": "../vit_tiny"})})
    assert "was written when files did not say what that is" in refusal(lambda: files.load(tmp_path / "x"))


EARLIER = {"xai.classifier": OLD_CLIP, "xai.vit": OLD_VIT, "xai.ranking": OLD_RANKING}
EDITED_EARLIER = {
    "no JSON": ("xai.vit", "{"),
    "a list": ("xai.classifier", "[]"),
    "null": ("xai.ranking", "null"),
    "deep": ("xai.classifier", "[" * 100_000),
    "a key less": ("xai.classifier", json.dumps({key: value for key, value in OLD_CLIP.items() if key != "base"})),
    **{
        f"{key} {name}: {value}": (key, json.dumps({**EARLIER[key], name: yaml.safe_load(value)}))
        for key, name, value in cases(__file__, "edited_earlier.txt")
    },
}


@pytest.mark.parametrize(("key", "text"), EDITED_EARLIER.values(), ids=EDITED_EARLIER.keys())
def test_edited_metadata_of_earlier_versions_are_refused(tmp_path: Path, key: str, text: str) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x", {key: text})
    params = CLIP if key == "xai.classifier" else VIT
    assert "was written by another version of this framework, or edited (" in refusal(
        lambda: files.load(tmp_path / "x", params)
    )
