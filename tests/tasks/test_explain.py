"""task=explain: a SALVAGE explainer speaks for itself, any other classifier is explained from outside."""

import json
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from tests.classifiers.ranked import DECODER, RANKING, networks
from tests.classifiers.studying import train_in_no_time
from tests.models.tiny_clip import PARAMS
from tests.toolbox import refusal
from xai.core.errors import UserError
from xai.core.progress import Stopwatch
from xai.core.settings import build
from xai.core.training import TrainerParams
from xai.data.images import read_image, to_tensor
from xai.explainers.learned.networks import Salvage
from xai.explainers.posthoc.one_gradient import Saliency
from xai.explainers.posthoc.rise import Rise
from xai.explainers.rows import open_row
from xai.metrics.functional.perturbation import area, enlarge_map, perturbation_curves
from xai.models import files
from xai.models.cnn import CnnParams
from xai.models.explainer import LinearDecoder, SalvageNetwork, ShapleyNetwork
from xai.models.maskable import Removal, reference_image
from xai.models.spec import describe
from xai.models.vit import SmallVit, VitParams
from xai.papers.ranking.networks import FILE, RankingStages
from xai.papers.ranking.params import BackboneParams
from xai.ranking.objective import ObjectiveParams
from xai.ranking.refinement import RefinementParams
from xai.tasks.explain import Writer, _row, run
from xai.tasks.picture import Explained, Measured, PostHocParams, explain_picture, open_classifier

MODEL = VitParams("tiny", 16, 4, (0.5,) * 3, (0.25,) * 3, tower=SmallVit(8, 1, 2, 2.0, 1, 1.0))
CPU = TrainerParams(accelerator="cpu")
CLASSES = ("cat", "dog", "owl")
CNN = CnnParams("small_cnn", 16, 4, (0.5,) * 3, (0.25,) * 3, "test_efficientnet", output_stride=8)
REFERENCES = ("black", "blur")
POST_HOC = PostHocParams(
    open_row("saliency", {"output": "logit"}),
    ObjectiveParams(5, 2, 4, REFERENCES, 10, 1.0, 0.0, 3),
    RefinementParams(steps=0, draws=2, size=0.25, sigma=1.0, temperature=0.3, learning_rate=1e-3),
    seed=0,
    references=REFERENCES,
)


def explained(model: Any, path: Path | None, photo: Path, target: str | None, trainer: Any, how: Any) -> Explained:
    return explain_picture(open_classifier(model, path, trainer, how), photo, target, trainer, how, Stopwatch())


def explainer(classes: int = 3, outputs: int | None = None) -> SalvageNetwork:
    outputs = outputs or classes
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = LinearDecoder(8, 2 * outputs, 1, 2)
        torch.nn.init.normal_(decoder.head.weight)
    return SalvageNetwork(MODEL.build(outputs, 0), decoder, MODEL.mean, MODEL.std).eval()


def file(tmp_path: Path, network: SalvageNetwork, classes: tuple[str, ...], binary: bool = False) -> Path:
    path = tmp_path / "salvage.safetensors"
    decoder = {"kind": "linear", "depth": 1, "heads": 2}
    files.write(path, network, describe(replace(MODEL, binary=binary), "salvage", "pets", classes, decoder=decoder))
    return path


@pytest.mark.parametrize("target", [None, "dog"])
def test_the_map_and_the_prediction_are_those_of_the_network(tmp_path: Path, photo: Path, target: str | None) -> None:
    network = explainer()
    found = explained(MODEL, file(tmp_path, network, CLASSES), photo, target, CPU, POST_HOC)
    pixels = to_tensor(read_image(photo), 16)[None]
    with torch.no_grad():
        logits = network.classify(pixels)[0]
        column = int(logits.argmax()) if target is None else CLASSES.index(target)
        expected = Salvage(network).attribute(pixels, torch.tensor([column]))[0]
    assert (found.predicted, found.target) == (CLASSES[int(logits.argmax())], CLASSES[column])
    torch.testing.assert_close(found.attributions, expected)
    assert found.probability == pytest.approx(float(logits.softmax(0)[column]))


def test_an_explainer_that_holds_no_classifier_is_not_explained_by_another(tmp_path: Path, photo: Path) -> None:
    always = replace(POST_HOC, outside=True)
    with pytest.raises(UserError, match=r"^explainer=saliency: .*salvage\.safetensors explains itself"):
        explained(MODEL, file(tmp_path, explainer(), CLASSES), photo, None, CPU, always)


def test_a_binary_explainer_has_two_classes_and_opposite_maps(tmp_path: Path, photo: Path) -> None:
    path = file(tmp_path, explainer(2, outputs=1), ("normal", "abnormal"), binary=True)
    maps = [explained(MODEL, path, photo, target, CPU, POST_HOC).attributions for target in ("normal", "abnormal")]
    torch.testing.assert_close(maps[0], -maps[1])
    assert maps[0].std() > 0


def test_the_file_alone_says_what_it_is(tmp_path: Path, photo: Path) -> None:
    path = file(tmp_path, explainer(), CLASSES)
    found = [explained(model, path, photo, "owl", CPU, POST_HOC) for model in (MODEL, PARAMS, CNN)]
    assert all(torch.equal(other.attributions, found[0].attributions) for other in found[1:])
    assert len({other.probability for other in found}) == 1


def test_coalitions_are_those_of_any_picture() -> None:
    for given, expected in (({"coalitions": 20}, 20), ({"coalitions": 20, "evaluation_coalitions": 40}, 40), ({}, 256)):
        rows = {"kernel_shap": given}
        asked: Any = SimpleNamespace(row="kernel_shap", explainers=rows, model=MODEL, checkpoint="file")
        found: Any = _row(asked).params.for_split("test")
        assert found.coalitions == expected


def test_patches_of_a_published_network_are_removed_as_it_does_it() -> None:
    grey = {"kind": "pixels", "reference": "0.9"}
    for given, file, expected in (({}, None, None), ({"removal": grey}, None, "0.9"), ({}, "file", "0.25")):
        asked: Any = SimpleNamespace(row="rise", explainers={"rise": given}, model=CNN, checkpoint=file)
        removal = _row(asked).params.classifier_removal
        assert (removal and removal.reference) == expected


def test_patches_are_removed_by_the_grey_of_the_scattered_sets_where_a_file_was_trained_on_no_photographs(
    tmp_path: Path,
) -> None:
    for name, of in (("photographs", {"fit": "crop"}), ("scattered", {"ground": 0.25})):
        data: Any = SimpleNamespace(name="pets", spec=of)
        files.write(tmp_path / name, CNN.build(3, 0), describe(CNN, "classifier", data, CLASSES))
    grey = {"removal": {"kind": "pixels", "reference": "0.9"}}
    for name, given, expected in (("photographs", {}, None), ("photographs", grey, "0.9"), ("scattered", {}, "0.25")):
        asked: Any = SimpleNamespace(row="rise", explainers={"rise": given}, model=CNN, checkpoint=str(tmp_path / name))
        removal = _row(asked).params.classifier_removal
        assert (removal and removal.reference) == expected


def refining(steps: int) -> PostHocParams:
    return replace(POST_HOC, refinement=replace(POST_HOC.refinement, steps=steps))


def with_explainer(**settings: Any) -> PostHocParams:
    return replace(POST_HOC, row=open_row(settings["name"], settings))


def trained(tmp_path: Path, model: VitParams | CnnParams) -> tuple[Path, Any]:
    """A classifier with larger weights than a random one, that its answers differ; its file, and itself."""
    network: nn.Module = model.build(3, 0)
    with torch.no_grad():
        for value in network.parameters():
            value.mul_((1.3 if isinstance(model, CnnParams) else 2.0) if value.ndim > 1 else 1.0)
    path = tmp_path / "classifier.safetensors"
    files.write(path, network, describe(model, "classifier", "pets", CLASSES))
    made = model.maskable(network)
    return path, made.eval().requires_grad_(False)


def areas(classifier: Any, pixels: Tensor, maps: Tensor, target: int) -> list[float]:
    """Deletion and insertion, by the means over the references."""
    found = []
    for name in REFERENCES:
        behind = reference_image(pixels, Removal("pixels", name), torch.full((3,), 0.5))
        classes, generator = torch.tensor([[target]]), torch.Generator().manual_seed(POST_HOC.seed)
        curves = perturbation_curves(classifier, pixels, enlarge_map(maps, (16, 16)), classes, behind, generator)
        found.append(torch.stack([area(curves.deletion[0, :, 0]), area(curves.insertion[0, :, 0])]))
    return torch.stack(found).mean(0).tolist()


@pytest.mark.parametrize("model", [MODEL, CNN], ids=["vit", "cnn"])
@pytest.mark.parametrize("target", [None, "dog"])
def test_a_classifier_is_explained_from_outside(
    tmp_path: Path, photo: Path, model: VitParams | CnnParams, target: str | None
) -> None:
    path, classifier = trained(tmp_path, model)
    found = explained(model, path, photo, target, CPU, POST_HOC)
    pixels = to_tensor(read_image(photo), 16)[None]
    logits = classifier(pixels)[0]
    column = int(logits.argmax()) if target is None else CLASSES.index(target)
    assert (found.predicted, found.target) == (CLASSES[int(logits.argmax())], CLASSES[column])
    assert found.probability == pytest.approx(float(logits.softmax(0)[column]), rel=1e-3)
    settings: Any = POST_HOC.row.params
    expected = Saliency(classifier, settings).attribute(pixels, torch.tensor([column]))
    torch.testing.assert_close(found.attributions, expected[0], rtol=1e-3, atol=1e-4)
    assert [row.name for row in found.measured] == ["saliency"]
    measured = [found.measured[0].deletion, found.measured[0].insertion]
    assert measured == pytest.approx(areas(classifier, pixels, expected, column), rel=1e-3)


@pytest.mark.parametrize("model", [MODEL, CNN], ids=["vit", "cnn"])
def test_refinement_moves_the_areas_the_right_way(tmp_path: Path, photo: Path, model: VitParams | CnnParams) -> None:
    path, _ = trained(tmp_path, model)
    found = explained(model, path, photo, "owl", CPU, refining(8))
    first, last = found.measured
    assert [first.name, last.name] == ["saliency", "saliency, T = 8"]
    assert last.insertion - last.deletion > first.insertion - first.deletion
    assert found.attributions is first.attributions  # what was asked for; the refined one stands beside it
    assert last.attributions.shape == (16, 16)
    again = explained(model, path, photo, "owl", CPU, refining(8))
    assert torch.equal(again.measured[-1].attributions, last.attributions)


@pytest.mark.parametrize("model", [MODEL, CNN], ids=["vit", "cnn"])
def test_patches_are_removed_as_the_explainer_asks(tmp_path: Path, photo: Path, model: VitParams | CnnParams) -> None:
    path, classifier = trained(tmp_path, model)
    removal = {"kind": "pixels", "reference": "0.9"}
    rise = with_explainer(name="rise", masks=8, output="logit", removal=removal)
    found = explained(model, path, photo, "dog", CPU, rise)
    network, settings = classifier.network, rise.row.params
    white: Any = model.maskable(network, Removal("pixels", 0.9))
    pixels = to_tensor(read_image(photo), 16)[None]
    expected = Rise(white, settings).attribute(pixels, torch.tensor([1]))
    torch.testing.assert_close(found.attributions, expected[0], rtol=1e-3, atol=1e-4)


def test_a_published_network_needs_no_checkpoint_and_sees_the_middle_of_the_picture(tmp_path: Path) -> None:
    from sklearn.datasets import load_sample_image

    conf = Path(__file__).parents[2] / "conf" / "model" / "efficientnet_lite0.yaml"
    model = build(CnnParams, yaml.safe_load(conf.read_text(encoding="utf-8")), "model")
    Image.fromarray(load_sample_image("flower.jpg")).save(tmp_path / "flower.png")
    flat = replace(with_explainer(name="grad_cam"), objective=replace(POST_HOC.objective, references=("black",)))
    found = explained(model, None, tmp_path / "flower.png", None, CPU, flat)
    assert found.predicted == found.target == "daisy"
    assert found.attributions.shape == (14, 14)
    torch.testing.assert_close(found.pixels, to_tensor(read_image(tmp_path / "flower.png"), 256)[:, 16:240, 16:240])
    for asked, near in (
        ("dasy", "did you mean daisy"),
        ("elephant", "did you mean Asian elephant or African bush elephant"),
    ):
        with pytest.raises(UserError, match=f"target={asked} is none of the 1000 classes .*{near}") as caught:
            explained(model, None, tmp_path / "flower.png", asked, CPU, flat)
        assert len(str(caught.value)) < 200


def test_an_explainer_without_its_classifier_is_refused_in_one_line(tmp_path: Path, photo: Path) -> None:
    decoder = {"kind": "linear", "depth": 1, "heads": 2}
    network = ShapleyNetwork(MODEL.build(3, 0), LinearDecoder(8, 3, 1, 2), MODEL.mean, MODEL.std)
    files.write(tmp_path / "x", network, describe(MODEL, "vit_shapley", "pets", CLASSES, decoder=decoder))
    with pytest.raises(UserError, match=r"is a vit_shapley: give the classifier\.safetensors of task=train"):
        explained(MODEL, tmp_path / "x", photo, None, CPU, POST_HOC)


@pytest.mark.parametrize("model", [MODEL, CNN, PARAMS], ids=["vit", "cnn", "clip"])
def test_what_nobody_has_trained_needs_a_checkpoint(photo: Path, model: Any) -> None:
    with pytest.raises(UserError, match=f"model={model.name} needs a checkpoint: .* model=efficientnet_lite0"):
        explained(model, None, photo, None, CPU, POST_HOC)


def test_a_grid_finer_than_the_picture_is_refused(tmp_path: Path, photo: Path) -> None:
    path, _ = trained(tmp_path, CNN)
    fine = replace(POST_HOC, objective=replace(POST_HOC.objective, grid_max=28))
    assert "28 x 28 cells does not fit" in refusal(explained, CNN, path, photo, None, CPU, fine)


def test_a_checkpoint_is_read_once_for_all_pictures(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = trained(tmp_path, MODEL)
    (tmp_path / "other.png").write_bytes(photo.read_bytes())
    read, load = [], files.load
    monkeypatch.setattr(files, "load", lambda *given: read.append(given) or load(*given))
    pictures = (str(photo), str(tmp_path / "other.png"))
    how = {"row": "saliency", "explainers": {}, "objective": POST_HOC.objective, "refinement": POST_HOC.refinement}
    how |= {"refine": None, "classes": None, "areas": None}
    asked: Any = SimpleNamespace(
        model=MODEL, checkpoint=str(path), image=pictures, target=None, trainer=CPU, seed=0, outside=False, **how
    )
    (tmp_path / "output").mkdir()
    run(asked, tmp_path / "output")
    assert len(read) == 1
    assert len(list((tmp_path / "output").glob("*.saliency.*.png"))) == 2
    assert (tmp_path / "output" / "sheet_1.saliency.png").is_file()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, None),
        ({"refine": 0, "areas": ()}, None),
        ({"refine": 3}, "refine: nothing changes, for this classifier explains itself"),
        ({"refine": 3, "areas": ("black",)}, "refine and areas: nothing changes, for this classifier explains itself"),
    ],
)
def test_what_is_for_maps_from_outside_is_told_to_change_nothing_of_others(
    tmp_path: Path,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: dict[str, Any],
    told: str | None,
) -> None:
    monkeypatch.setattr("xai.tasks.explain.to_bytes", lambda figure: b"drawn")
    pictures = tuple(str(tmp_path / f"{number}.png") for number in range(4))
    for picture in pictures:
        Path(picture).write_bytes(photo.read_bytes())
    how = {"row": "saliency", "explainers": {}, "objective": POST_HOC.objective, "outside": False, "seed": 0}
    how |= {"refinement": replace(POST_HOC.refinement, steps=5), "refine": None, "areas": None, "classes": None}
    path = str(file(tmp_path, explainer(), CLASSES))
    asked: Any = SimpleNamespace(model=MODEL, checkpoint=path, image=pictures, target=None, trainer=CPU, **how | given)
    (tmp_path / "output").mkdir()
    run(asked, tmp_path / "output")
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "nothing changes" in line or "not refined" in line] == [told] * (told is not None)


NAMES = [
    "two\nlines",
    "\x1b[31mred\x07",
    "\u202egnp.txt",
    "-rf",
    "a" * 251,
    "'\"`$(id)",
    "<img src=x onerror=alert(1)>",
    "\udcff",
]


def test_a_file_may_have_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("xai.tasks.explain.to_bytes", lambda figure: b"drawn")
    output, pictures = tmp_path / "out", [tmp_path / f"{name}.png" for name in NAMES]
    output.mkdir()
    target = "$\\frac{$ <b>\x1b[2J"
    found = Explained(torch.rand(3, 8, 8), torch.rand(2, 2), target, target, 0.5, ((target, 0.5),))
    writer = Writer(output, "rise", {}, [], pictures)
    for picture in pictures:
        picture.touch()
        writer.add(picture, found)
    writer.end()
    said = capsys.readouterr().out
    assert all(letter.isprintable() or letter == "\n" for letter in said)
    lines = json.loads((output / "predictions.json").read_text(encoding="utf-8"))
    assert [Path(line["picture"]).name for line in lines] == [picture.name for picture in pictures]
    assert len({line["stem"] for line in lines}) == len(NAMES)
    for line in lines:
        assert all((output / name).is_file() and not name.startswith(("-", ".")) for name in line["files"].values())
    assert {path.parent for path in output.rglob("*")} == {output}


def test_classes_whose_names_differ_have_files_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xai.tasks.explain.to_bytes", lambda figure: b"drawn")
    picture = tmp_path / "a.png"
    for target, value in (("<50", 1.0), (">50", 2.0), ("<50", 3.0), (">50", 4.0)):
        writer = Writer(tmp_path, "rise", {}, [], [picture])
        writer.add(picture, Explained(torch.rand(3, 8, 8), torch.full((2, 2), value), target, target, 0.5, ()))
        writer.end()
    lines = json.loads((tmp_path / "predictions.json").read_text(encoding="utf-8"))
    assert {line["explained"]: np.load(tmp_path / line["files"]["map"]).max() for line in lines} == {"<50": 3, ">50": 4}


def test_maps_of_another_class_than_the_predicted_one_say_of_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("xai.tasks.explain.to_bytes", lambda figure: drawn.append(figure) or b"drawn")
    for target in ("cat", "dog"):
        found = Explained(torch.rand(3, 8, 8), torch.rand(2, 2), target, "cat", 0.5, ())
        Writer(tmp_path, "rise", {}, [], [tmp_path / "a.png"]).add(tmp_path / "a.png", found)
    titles = [[axes.get_title() for axes in figure.axes][:2] for figure in drawn]
    assert titles == [["input", "its own"], ["input", "its own, for\ndog"]]


def test_of_many_pictures_only_those_of_a_sheet_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xai.tasks.explain.to_bytes", lambda figure: b"drawn")
    pictures, made = [tmp_path / f"{number}.png" for number in range(14)], []
    writer = Writer(tmp_path, "rise", {}, [], pictures)
    for picture in pictures:
        measured = (Measured("rise", torch.rand(2, 2), None, None, 0.1),)
        found = Explained(torch.rand(3, 8, 8), torch.rand(2, 2), "cat", "cat", 0.5, (), measured)
        made += [weakref.ref(found), weakref.ref(measured[0])]
        writer.add(picture, found)
    del found, measured
    assert sum(each() is not None for each in made) == 2 * 2
    writer.end()
    assert {path.name for path in tmp_path.glob("sheet_*")} == {"sheet_1.rise.png", "sheet_2.rise.png"}


@pytest.mark.parametrize("name", [7, "", "../a", [["a"]], None])
def test_a_list_that_somebody_has_edited_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any) -> None:
    monkeypatch.setattr("xai.tasks.explain.to_bytes", lambda figure: b"drawn")
    picture, found = tmp_path / "a.png", Explained(torch.rand(3, 8, 8), torch.rand(2, 2), "cat", "cat", 0.5, ())
    line = {"picture": str(picture), "stem": "b", "files": {"heat_map": "b.png"}}
    for edited in (line | {"picture": name}, line | {"stem": name}, line | {"files": {"heat_map": name}}):
        if edited["picture"] == "../a":
            continue  # a place like any other
        (tmp_path / "predictions.json").write_text(json.dumps([edited]))
        writer = Writer(tmp_path, "rise", {}, [], [picture])
        writer.add(picture, found)
        writer.end()
        assert [each["stem"] for each in json.loads((tmp_path / "predictions.json").read_text())] == ["a"]


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


def test_the_classifier_beside_an_explainer_is_explained_by_what_is_named(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, made = handed_over(tmp_path, monkeypatch, "own_features")
    found = explained(made.stages.model, path, photo, None, CPU, replace(POST_HOC, outside=True))
    assert [each.name for each in found.measured] == ["saliency"]


def test_a_backbone_of_its_own_comes_out_of_the_file(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, made = handed_over(tmp_path, monkeypatch, "another_backbone")
    found = explained(made.stages.model, path, photo, None, CPU, POST_HOC)
    images = to_tensor(read_image(photo), made.stages.model.image_size)[None]
    target = torch.tensor([made.stages.data.source.classes.index(found.target)])
    torch.testing.assert_close(found.attributions, made.explainer().attribute(images, target)[0])


def test_the_list_has_what_another_run_has_written_meanwhile(tmp_path: Path) -> None:
    aside = tmp_path / ".xai-run-1"
    aside.mkdir()
    writer = Writer(aside, "rise", {}, [], [])
    line = {"picture": "/a.png", "stem": "a", "files": {"heat_map": "a.rise.cat.png"}}
    (tmp_path / "predictions.json").write_text(json.dumps([line]))
    writer.end()
    assert json.loads((aside / "predictions.json").read_text()) == [line]
