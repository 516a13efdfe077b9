from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.classifiers.studying import (
    CLASSIFIER,
    MODEL,
    PHOTOGRAPHS,
    SALVAGE,
    STEP,
    SURROGATE,
    VIT_SHAPLEY,
    Trained,
    stages,
    train_in_no_time,
)
from tests.classifiers.tiny import DATA, FIT, runtime
from tests.models.tiny_vit import devices_of_vits
from tests.study.shades import BORDERLESS, Unseen
from tests.toolbox import refusal
from xai.classifiers.learned import VitStages
from xai.classifiers.networks import ClassifierStages
from xai.classifiers.params import ClassifierParams
from xai.core.errors import UserError
from xai.data.catalogue import OpenData
from xai.methods.salvage import Salvage, log_predictions, shapley_distribution
from xai.models import files
from xai.models.explainer import AnchoredSalvageNetwork, SalvageNetwork, ShapleyNetwork
from xai.models.families import seeded
from xai.models.maskable import Removal
from xai.models.spec import TokenDecoder, describe
from xai.models.vit import SmallVit, VitParams
from xai.models.weights import read_weights

TEST = DATA.source.images("test", torch.arange(9), 0).pixels


def tensors(stage: VitStages, kind: str, *params: Any) -> dict[str, Tensor]:
    artifact = stage.learned(*params) if params else getattr(stage, kind)
    return load_file(artifact.file(f"{kind}.safetensors"))


def shifted(state: dict[str, Tensor], steps: int) -> dict[str, Tensor]:
    return {name: value + steps * STEP for name, value in state.items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)


def test_each_network_starts_where_the_one_before_it_has_arrived(tmp_path: Path, trained: Trained) -> None:
    stage = stages(tmp_path)
    start = MODEL.build(4, 0).state_dict()
    assert_same(tensors(stage, "classifier"), shifted(start, 1))
    assert_same(tensors(stage, "surrogate"), shifted(start, 2))
    for kind, params, scores in (("salvage", SALVAGE, 8), ("vit_shapley", VIT_SHAPLEY, 4)):
        found = tensors(stage, kind, params)
        own = {name[9:]: value for name, value in found.items() if name.startswith("backbone.")}
        assert_same(own, {name: value for name, value in shifted(start, 3).items() if not name.startswith("head.")})
        assert found["decoder.class_tokens"].shape == (1, scores, 8)
    assert_same(tensors(stage, "classifier"), shifted(start, 1))  # the one that was asked was not moved
    assert trained.names == ["Classifier", "Surrogate", "Salvage", "VitShapley"]


def test_what_is_made_is_read_again_as_it_was(tmp_path: Path, trained: Trained) -> None:
    made, again = stages(tmp_path), stages(tmp_path)
    pairs = [(stage.learned(SALVAGE), stage.learned(VIT_SHAPLEY)) for stage in (made, again)]
    assert [artifact.key for artifact in pairs[0]] == [artifact.key for artifact in pairs[1]]
    assert len(trained.journal) == 4
    salvage = again.explainer(SALVAGE, pairs[1][0])
    shapley = again.explainer(VIT_SHAPLEY, pairs[1][1])
    assert isinstance(salvage, SalvageNetwork)
    assert isinstance(shapley, ShapleyNetwork)
    assert_same(dict(salvage.state_dict()), tensors(again, "salvage", SALVAGE))
    network = MODEL.build(4, 5)
    network.load_state_dict(tensors(again, "classifier"))
    expected = network.eval()((TEST - 0.5) / 0.25)
    torch.testing.assert_close(again.network("classifier")(TEST), expected, rtol=1e-4, atol=1e-5)
    assert not any(value.requires_grad for value in again.network("surrogate").parameters())
    assert not again.network("surrogate").training


def test_the_network_after_a_share_of_the_training_lies_beside_the_trained_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, dict[str, Tensor]] = {}

    def remember(module: Salvage, *_: Any) -> None:
        seen[module.global_step] = {name: value.clone() for name, value in module.network.state_dict().items()}

    monkeypatch.setattr(Salvage, "on_train_batch_end", remember)
    params = replace(SALVAGE, fit=replace(FIT, epochs=2), snapshots=(0.5,))
    stage = stages(tmp_path)
    artifact = stage.learned(params)
    steps = max(seen)
    assert steps >= 4
    for share in (0.5, 1.0):
        found = stage.explainer(params, artifact, share).state_dict()
        assert found.keys() == seen[steps].keys()
        assert all(torch.equal(value, seen[round(share * steps)][name]) for name, value in found.items())


CHANGES: list[tuple[dict[str, Any], list[str]]] = [
    ({"seed": 1}, ["Classifier", "Surrogate", "Salvage"]),
    ({"model": replace(MODEL, tower=SmallVit(8, 2, 2, 2.0, 1, 1.0))}, ["Classifier", "Surrogate", "Salvage"]),
    ({"model": replace(MODEL, name="called otherwise")}, []),
    ({"data": replace(DATA, spec={"name": "shades", "fingerprint": "f"})}, ["Classifier", "Surrogate", "Salvage"]),
    ({"classifier_params": replace(CLASSIFIER, focus=0.25)}, ["Classifier", "Surrogate", "Salvage"]),
    ({"classifier_params": replace(CLASSIFIER, fit=replace(FIT, warmup=0.5))}, ["Classifier", "Surrogate", "Salvage"]),
    ({"surrogate_params": replace(SURROGATE, teacher="labels")}, ["Surrogate", "Salvage"]),
    ({"surrogate_params": replace(SURROGATE, sizes=3)}, ["Surrogate", "Salvage"]),
]


@pytest.mark.parametrize(("changes", "anew"), CHANGES)
def test_what_differs_and_what_follows_from_it_is_trained_anew(
    tmp_path: Path, trained: Trained, changes: dict[str, Any], anew: list[str]
) -> None:
    stages(tmp_path).learned(SALVAGE)
    del trained.journal[:]
    stages(tmp_path, **changes).learned(SALVAGE)
    assert trained.names == anew


@pytest.mark.parametrize("change", [{"sampling": "uniform"}, {"temperature": 2.0}, {"masks": 6}, {"decoder": "linear"}])
def test_every_setting_of_an_explainer_makes_another_one(
    tmp_path: Path, trained: Trained, change: dict[str, Any]
) -> None:
    stage = stages(tmp_path)
    assert stage.learned(replace(SALVAGE, **change)).key != stage.learned(SALVAGE).key
    assert trained.names == ["Classifier", "Surrogate", "Salvage", "Salvage"]


@pytest.mark.parametrize("change", [{"depth": 65}, {"heads": 257}])
def test_a_decoder_that_no_file_may_say_is_refused_before_it_is_trained(change: dict[str, int]) -> None:
    ((name, value),) = change.items()
    assert f"{name}={value} must be at most {value - 1}" in refusal(replace, SALVAGE, **change)


def test_the_masks_of_vit_shapley_make_another_network_and_weights_only_where_there_are_any(
    tmp_path: Path, trained: Trained
) -> None:
    stage = stages(tmp_path)
    kinds = [("paired", True), ("shapley_kernel", True), ("informed", True), ("informed", False), ("mixed", True)]
    keys = [stage.learned(replace(VIT_SHAPLEY, sampling=how, weighted=by)).key for how, by in kinds]
    assert len(set(keys)) == len(kinds)
    assert trained.names[2:] == ["VitShapley"] * len(kinds)
    assert stage.learned(replace(VIT_SHAPLEY, weighted=False)).key == keys[0]


def test_networks_of_before_masks_could_be_chosen_keep_their_keys(tmp_path: Path, trained: Trained) -> None:
    of_before = {name: value for name, value in asdict(VIT_SHAPLEY).items() if name not in ("sampling", "weighted")}
    stage, asked = stages(tmp_path), []
    assert stage.surrogate
    stage.get = lambda kind, spec, make: asked.append(spec)  # type: ignore[method-assign, assignment, func-returns-value]
    stage.learned(VIT_SHAPLEY)
    assert of_before.items() <= asked[-1].items()
    assert asked[-1].keys() - of_before.keys() == {"surrogate", "seed", "revision"}


def test_another_precision_makes_other_networks(tmp_path: Path, trained: Trained) -> None:
    own_runtime = runtime(tmp_path)
    half = replace(own_runtime, trainer=replace(own_runtime.trainer, precision="bf16-mixed"))
    assert stages(tmp_path).classifier.key != stages(tmp_path, runtime=half).classifier.key


def test_the_training_itself(tmp_path: Path) -> None:
    stage = stages(tmp_path, classifier_params=ClassifierParams(0.5, replace(FIT, epochs=25)))
    accuracy = stage.validation_accuracy("classifier")
    by_hand = stage.network("classifier")(DATA.source.images("validation", torch.arange(8), 0).pixels).argmax(1)
    assert accuracy["whole images"] == (by_hand == DATA.source.labels("validation")).double().mean() > 0.5
    stage.learned(SALVAGE), stage.learned(VIT_SHAPLEY)
    for kind, params in (("salvage", SALVAGE), ("vit_shapley", VIT_SHAPLEY)):
        assert tensors(stage, kind, params)["decoder.patch_projection.weight"].abs().max() > 0
    frozen, student = tensors(stage, "classifier"), tensors(stage, "surrogate")
    assert any(not torch.equal(value, student[name]) for name, value in frozen.items())


def test_validation_accuracy_shows_all_patches_and_half_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Tensor | None] = []

    class Seer:
        """Right about the first three images, and of masked ones about the first."""

        players = 16

        def __call__(self, pixels: Tensor, keep: Tensor | None) -> Tensor:
            shown.append(keep)
            wrong = torch.arange(len(pixels)) >= (3 if keep is None else 1)
            predicted = (DATA.source.labels("validation") + wrong) % 4
            return torch.nn.functional.one_hot(predicted, 4).float()

    stage = stages(tmp_path)
    monkeypatch.setattr(stage, "network", lambda kind: Seer())
    assert stage.validation_accuracy("surrogate") == {"whole images": 3 / 8, "half of the patches": 1 / 8}
    whole, half = shown
    assert whole is None
    assert half.sum(1).tolist() == [8] * 8
    assert len(half.unique(dim=0)) > 4
    monkeypatch.setattr(stage, "data", replace(DATA, source=Unseen()))
    assert stage.validation_accuracy("surrogate") == {}


def test_a_file_to_hold_says_what_it_is(tmp_path: Path, trained: Trained) -> None:
    stage = stages(tmp_path)
    held = stage.hand_over("surrogate", tmp_path), stage.learned(SALVAGE).file("salvage.safetensors")
    assert [path.name for path in held] == ["surrogate.safetensors", "salvage.safetensors"]
    assert held[0].read_bytes() == stage.surrogate.file("surrogate.safetensors").read_bytes()
    classes = ("north", "east", "south", "west")
    removal, decoder = Removal("tokens"), {"kind": "mask_transformer", "depth": 1, "heads": 2}
    seed = stage.seed
    assert files.read_spec(held[0]) == describe(MODEL, "surrogate", "shades", classes, seed=seed, removal=removal)
    assert files.read_spec(held[1]) == describe(MODEL, "salvage", "shades", classes, seed=seed, decoder=decoder)
    assert isinstance(files.load(held[1]).network, SalvageNetwork)
    # A file of a temperature of 1 is, to the byte, what it was before others said theirs.
    assert "temperature" not in read_weights(held[1]).metadata["xai.file"]


DECODER = TokenDecoder(kind="linear", depth=1, heads=2)


def own(folder: Path, **changes: Any) -> Path:
    """A classifier of the user's, with what it says of itself changed."""
    spec = describe(MODEL, "classifier", "elsewhere", ("north", "east", "south", "west"))
    files.write(folder / "own.safetensors", MODEL.build(4, 9), spec.model_copy(update=changes))
    return folder / "own.safetensors"


def test_a_classifier_of_the_users_own_is_taken_as_it_is(tmp_path: Path, trained: Trained) -> None:
    theirs = MODEL.build(4, 9).state_dict()
    save_file(theirs, tmp_path / "timm.safetensors")
    for path in (own(tmp_path), own(tmp_path, kind="surrogate"), tmp_path / "timm.safetensors"):
        stage = stages(tmp_path, classifier_params=replace(CLASSIFIER, checkpoint=str(path)))
        assert_same(tensors(stage, "classifier"), theirs)
        assert trained.journal == []
    stage = stages(tmp_path, classifier_params=replace(CLASSIFIER, checkpoint=str(tmp_path / "timm.safetensors")))
    before = stage.classifier.key
    save_file(shifted(theirs, 1), tmp_path / "timm.safetensors")
    assert replace(stage).classifier.key != before
    assert_same(tensors(replace(stage), "surrogate"), shifted(theirs, 2))


def other_architecture(folder: Path) -> Path:
    deeper = replace(MODEL, tower=SmallVit(8, 2, 2, 2.0, 1, 1.0))
    save_file(deeper.build(4, 0).state_dict(), folder / "deeper.safetensors")
    return folder / "deeper.safetensors"


@pytest.mark.parametrize(
    ("prepare", "wanted"),
    [
        (other_architecture, "does not fit model=tiny"),
        (
            lambda folder: own(folder, kind="salvage", decoder=DECODER),
            "is a salvage of 4 classes of elsewhere",
        ),
        (lambda folder: own(folder, classes=("a", "b", "c", "d")), "a classifier of the 4 classes of data=shades"),
        (lambda folder: own(folder, classes=("north", "east")), "is a classifier of 2 classes of elsewhere"),
        (lambda folder: folder / "missing.safetensors", "does not exist"),
    ],
)
def test_a_checkpoint_that_is_no_classifier_of_these_classes_is_refused(
    tmp_path: Path, trained: Trained, prepare: Any, wanted: str
) -> None:
    path = prepare(tmp_path)
    stage = stages(tmp_path, classifier_params=replace(CLASSIFIER, checkpoint=str(path)))
    told = refusal(stage.learned, SALVAGE)
    assert wanted in told
    assert str(path) in told
    assert trained.journal == []


def test_a_curriculum_needs_regions_unless_the_classifier_is_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"focus=0\.5 needs the regions.* data=borderless has none: set classifier"):
        stages(tmp_path, data=BORDERLESS)
    stages(tmp_path, data=BORDERLESS, classifier_params=replace(CLASSIFIER, focus=0.0))
    stages(tmp_path, data=BORDERLESS, classifier_params=replace(CLASSIFIER, checkpoint="own.safetensors"))


def test_a_binary_head_is_for_two_classes(tmp_path: Path, trained: Trained) -> None:
    binary = replace(MODEL, binary=True)
    assert "needs a data set of two classes, this one has 4" in refusal(stages, tmp_path, model=binary)

    class Halves(type(DATA.source)):  # type: ignore[misc]
        classes = ("north", "south")

        def labels(self, split: str) -> Tensor:
            return super().labels(split) // 2

    stage = stages(tmp_path, model=binary, data=OpenData("halves", {"name": "halves"}, Halves()))
    assert tensors(stage, "classifier")["head.weight"].shape == (1, 8)
    assert stage.network("classifier")(TEST).shape == (9, 2)
    network = stage.explainer(SALVAGE, stage.learned(SALVAGE))
    present, absent = network.parts(TEST)
    assert present.shape == absent.shape == (9, 16, 2)
    torch.testing.assert_close(present[..., 0], -present[..., 1])


def test_start_weights_that_are_not_there(tmp_path: Path) -> None:
    model = replace(MODEL, tower=None, architecture="vit_tiny_patch16_224", patch_size=16, image_size=32)
    stage = stages(tmp_path, model=replace(model, weights="missing.safetensors"))
    with pytest.raises(UserError, match=r"model\.weights=missing\.safetensors cannot be read \(No such file"):
        stage.classifier  # noqa: B018


def test_a_published_vit_is_the_classifier_where_it_knows_the_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = train_in_no_time(monkeypatch)
    model = VitParams("published", 16, 4, (0.5,) * 3, (0.5,) * 3, "vit_tiny_patch16_224", pretrained=True)
    asked: list[tuple[int, bool]] = []

    def build(params: VitParams, outputs: int, seed: int, *, published: bool = False) -> Any:
        asked.append((outputs, published))
        with seeded(1 + published):
            return timm.create_model("vit_tiny_patch16_224", num_classes=outputs, img_size=16, patch_size=4)

    monkeypatch.setattr("xai.models.vit._build", build)
    stage = stages(tmp_path, model=model, data=PHOTOGRAPHS, classifier_params=replace(CLASSIFIER, focus=0.0))
    assert stage.is_published
    found = stage.network("classifier").network.state_dict()
    expected = build(model, 1000, 0, published=True).state_dict()
    torch.testing.assert_close(found, expected)
    assert (1000, True) in asked
    assert not trained.names
    assert not stages(tmp_path, model=replace(model, pretrained=False), data=PHOTOGRAPHS).is_published
    assert not stages(tmp_path, model=model, classifier_params=replace(CLASSIFIER, focus=0.0)).is_published


def test_a_file_that_says_it_is_giant_is_compared_before_it_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    giant = replace(MODEL, tower=SmallVit(2**14, 200, 2, 2.0, 1, 1.0))
    spec = describe(giant, "classifier", "elsewhere", ("north", "east", "south", "west"))
    files.write(tmp_path / "giant", MODEL.build(4, 9), spec)
    devices = devices_of_vits(monkeypatch)
    asked = replace(CLASSIFIER, checkpoint=str(tmp_path / "giant"))
    with pytest.raises(UserError, match=r"checkpoint .*giant does not fit model=tiny"):
        stages(tmp_path, model=giant, classifier_params=asked).classifier  # noqa: B018
    assert set(devices) == {"meta"}


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_an_anchored_explainer_says_of_no_patch_what_the_surrogate_says(tmp_path: Path, temperature: float) -> None:
    stage = stages(tmp_path)
    params = replace(SALVAGE, anchored=True, sampling="informed_paired", temperature=temperature)
    artifact = stage.learned(params)
    network = stage.explainer(params, artifact)
    assert isinstance(network, AnchoredSalvageNetwork)
    parts, surrogate = network.parts(TEST), stage.network("surrogate")
    keep = torch.rand(len(TEST), 5, surrogate.players, generator=torch.Generator().manual_seed(0)) < 0.5
    keep[:, 0] = False
    found = shapley_distribution(*parts, keep, temperature)
    torch.testing.assert_close(found[:, 0], log_predictions(surrogate, TEST, keep[:, :1])[:, 0])
    # What a shown patch adds stands in its map and nowhere else.
    phi = parts.present - parts.absent
    expected = ((network.empty + torch.einsum("bsm,bmc->bsc", keep.float(), phi)) / temperature).log_softmax(-1)
    torch.testing.assert_close(found, expected)
    assert parts.absent.std(1).max() < 1e-6 < parts.present.std(1).max()
    # Its file says so, and a file that does not is of the published form.
    loaded = files.load(artifact.file("salvage.safetensors"))
    torch.testing.assert_close(loaded.network.parts(TEST), parts)
    torch.testing.assert_close(loaded.network.classify(TEST), network.classify(TEST))
    assert artifact.key != stage.learned(replace(params, anchored=False)).key


def test_salvage_of_before_there_was_an_anchor_keeps_its_key(
    tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    stage = stages(tmp_path)
    assert stage.surrogate
    monkeypatch.setattr(ClassifierStages, "get", lambda stages, kind, spec, make: asked.append(spec))
    for anchored, temperature in ((False, 1.0), (False, 3.0), (True, 1.0), (True, 3.0)):
        stage.learned(replace(SALVAGE, anchored=anchored, temperature=temperature))
    more = [set(spec) - set(asked[0]) for spec in asked]
    assert more == [set(), set(), {"anchored"}, {"anchored", "anchor"}]
