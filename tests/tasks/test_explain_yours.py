"""task=explain and task=compare of somebody's classifier and pictures, by the command line."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from PIL import Image
from torchvision.transforms.functional import center_crop, normalize, pil_to_tensor, resize

import xai
from tests.cli.shared import Cli
from tests.toolbox import cases, refusal
from xai.core.composing import CONF
from xai.core.errors import UserError
from xai.models.families import open_model
from xai.models.files import shipped_settings
from xai.models.named import NamedParams, named_settings
from xai.report.album import FOLDER, LIST
from xai.tasks import compare
from xai.tasks.explain import stems
from xai.tasks.picture import explain_picture, says_nothing

TINY = "model.architecture=test_resnet"
QUICK = ("logger=none", "trainer=cpu", "objective.steps=3", "objective.references=[black]")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # main sets it; this puts it back
    weights(tmp_path / "mine.pt", "test_resnet", 3)
    (tmp_path / "names.txt").write_text("cat\ndog\npotter's wheel\n")
    for number, name in enumerate(("a/one.png", "a/two.png", "b/one.png")):
        draw(tmp_path / "photos" / name, number)
    return Cli(tmp_path, monkeypatch, capsys)


def weights(path: Path, architecture: str, classes: int) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(architecture, num_classes=classes).eval()
        for value in network.parameters():
            value.data *= 1.3 if value.ndim > 1 else 1.0
    torch.save({"state_dict": {f"module.{key}": value for key, value in network.state_dict().items()}}, path)
    return network


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    Image.fromarray(coarse).resize((200, 200), Image.Resampling.BICUBIC).save(path)


def explain(run: Cli, *arguments: str) -> str:
    status, out, err = run("task=explain", *QUICK, "checkpoint=mine.pt", TINY, *arguments)
    assert (status, err) == (0, "")
    return out


def said(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
    return found


def below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_state_dict_and_a_folder_need_nothing_else(run: Cli, tmp_path: Path) -> None:
    network = weights(tmp_path / "mine.pt", "resnet18", 3)
    before = below(tmp_path / "photos")
    given = ("task=explain", *QUICK, "image=photos", "checkpoint=mine.pt", "model.architecture=resnet18", "refine=0")
    status, _out, err = run(*given, "classes=names.txt")
    assert (status, err) == (0, "")
    assert below(tmp_path / "photos") == before  # what is written beside pictures becomes data
    output = tmp_path / "outputs" / "explain"
    lines = said(output)
    assert [Path(line["picture"]).relative_to(tmp_path).as_posix() for line in lines] == [
        "photos/a/one.png",
        "photos/a/two.png",
        "photos/b/one.png",
    ]
    assert (output / "sheet_1.grad_cam.png").is_file()
    model = xai.load("mine.pt", architecture="resnet18", classes="names.txt")
    for line in lines:
        with Image.open(line["picture"]) as picture:
            # As timm's configuration has it: 224 px of a short side of 224 / 0.95.
            seen = center_crop(resize(picture, [236], interpolation=3), [224])  # type: ignore[arg-type]
        pixels = normalize(pil_to_tensor(seen)[None] / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        with torch.no_grad():
            probabilities = network(pixels)[0].softmax(0)
        names = ["cat", "dog", "potter's wheel"]
        assert line["predicted"] == line["explained"] == names[int(probabilities.argmax())]
        assert line["probability"] == pytest.approx(float(probabilities.max()), rel=1e-3)
        assert dict(line["top"]) == pytest.approx(dict(zip(names, probabilities.tolist(), strict=True)), rel=1e-3)
        assert line["explainer"] == "grad_cam"
        assert set(line["areas"]["map"]) == {"deletion", "insertion", "seconds"}
        with Image.open(output / line["files"]["heat_map"]) as heat_map:
            assert heat_map.format == "PNG"
        assert line["files"]["heat_map"].endswith(
            f".grad_cam.{line['explained'].replace(chr(39), '_')}.png".replace(" ", "_")
        )
        expected = xai.explain(model, line["picture"], "grad_cam")[0]
        found = np.load(output / line["files"]["map"], allow_pickle=False)
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-6)
    # Two pictures of one name have files of their own.
    assert len({name for line in lines for name in line["files"].values()}) == 6


@pytest.mark.parametrize(
    ("image", "names"),
    [
        ("photos/a/one.png", ["a/one"]),
        ("photos/*/one.png", ["a/one", "b/one"]),
        ("[photos/b/one.png,photos/a]", ["b/one", "a/one", "a/two"]),
    ],
)
def test_which_pictures_are_meant(run: Cli, tmp_path: Path, image: str, names: list[str]) -> None:
    out = explain(run, f"image={image}", "explainer=saliency", "refine=0")
    found = [Path(line["picture"]).relative_to(tmp_path / "photos").with_suffix("").as_posix() for line in said_here()]
    assert found == names
    assert "the classes are numbered, 0 to 2: classes=names.txt says what they are" in out


def said_here() -> list[dict[str, Any]]:
    return said(Path("outputs/explain"))


def test_the_map_asked_for_is_drawn_and_the_refined_one_beside_it(run: Cli, tmp_path: Path) -> None:
    settings = ("explainer=rise", "explainers.rise.masks=16", "classes=[cat,dog,owl]", "target=dog")
    explain(run, "image=photos/a/one.png", *settings, "refine=1", "refinement.draws=1")
    (line,) = said_here()
    assert (line["explained"], line["settings"]["masks"], line["settings"]["removal"]) == ("dog", 16, None)
    assert line["refined"] == ["rise, T = 1"]
    assert list(line["areas"]) == ["map", "refined"]
    output = tmp_path / "outputs" / "explain"
    first, refined = (np.load(output / line["files"][kind], allow_pickle=False) for kind in ("map", "refined"))
    model = xai.load("mine.pt", architecture="test_resnet", classes=["cat", "dog", "owl"])
    expected = xai.explain(model, line["picture"], "rise", targets="dog", masks=16)[0]
    np.testing.assert_allclose(first, expected.numpy(), rtol=1e-4, atol=1e-6)
    assert refined.shape == (160, 160)
    wide = Image.open(output / line["files"]["heat_map"]).size[0]
    explain(run, "image=photos/a/one.png", *settings, "refine=0", "name=plain")
    assert Image.open(tmp_path / "outputs" / "plain" / line["files"]["heat_map"]).size[0] < 0.8 * wide


@pytest.mark.parametrize(("typed", "expected"), [((), []), (("trainer.threads=2",), [2])])
def test_threads_are_as_many_as_are_asked_for(
    run: Cli, monkeypatch: pytest.MonkeyPatch, typed: tuple[str, ...], expected: list[int]
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    explain(run, "image=photos/a/one.png", "explainer=saliency", "refine=0", "areas=[]", *typed)
    assert seen == expected


def test_what_earlier_runs_wrote_stays_and_is_listed(run: Cli, tmp_path: Path) -> None:
    output = tmp_path / "outputs" / "explain"
    explain(run, "image=photos/a/one.png", "explainer=saliency", "refine=0")
    first = {name: (output / name).read_bytes() for name in said_here()[0]["files"].values()}
    # A picture of the same name, another explainer.
    explain(run, "image=photos/b/one.png", "explainer=saliency", "refine=0")
    out = explain(run, "image=photos/a/one.png", "explainer=grad_cam", "refine=0")
    assert "2 maps of earlier runs kept" in out
    assert {name: (output / name).read_bytes() for name in first} == first
    lines = said_here()
    assert [(Path(line["picture"]).parent.name, line["explainer"]) for line in lines] == [
        ("a", "saliency"),
        ("b", "saliency"),
        ("a", "grad_cam"),
    ]
    assert all((output / name).is_file() for line in lines for name in line["files"].values())
    assert {line["classifier"] for line in lines} == {str((tmp_path / "mine.pt").resolve())}
    out = explain(run, "image=photos/a/one.png", "explainer=saliency", "refine=0")
    assert "1 map of the same name replaced; 2 maps of earlier runs kept (name=" in out
    assert len(said_here()) == 3


def test_what_is_done_stays_of_a_run_that_is_stopped(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    explain(run, "image=photos/b/one.png", "explainer=saliency", "refine=0")

    def until(opened: Any, picture: Path, *given: Any) -> Any:
        if picture.name == "two.png":
            raise KeyboardInterrupt
        return explain_picture(opened, picture, *given)

    monkeypatch.setattr("xai.tasks.explain.explain_picture", until)
    asked = ("image=photos/a", "explainer=saliency", "refine=0")
    status, out, err = run("task=explain", *QUICK, "checkpoint=mine.pt", TINY, *asked)
    assert (status, "1 of 2 pictures are done, their maps stay: outputs/explain" in out) == (130, True)
    assert err.strip() == "stopped; the same command begins with the first picture again"
    assert [Path(line["picture"]).parent.name for line in said_here()] == ["b", "a"]
    assert all(Path("outputs/explain", name).is_file() for line in said_here() for name in line["files"].values())


def test_a_folder_with_somebody_elses_list_is_refused_before_work(run: Cli, tmp_path: Path) -> None:
    own = tmp_path / "outputs" / "explain" / "predictions.json"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    status, out, err = run("task=explain", *QUICK, "checkpoint=mine.pt", TINY, "image=photos/a/one.png")
    assert (status, "predicted" in out, own.read_text()) == (2, False, "mine")
    assert "no run has written it" in err


@pytest.mark.parametrize(("given", "wanted"), cases(__file__, "refused.txt"))
def test_what_does_not_fit_is_refused_in_one_line(run: Cli, tmp_path: Path, given: str, wanted: str) -> None:
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    draw(tmp_path / "broken" / "a.png", 0)
    for name in ("c.png", "d.jpg"):
        (tmp_path / "broken" / name).write_bytes(b"no picture")
    key = given.partition("=")[0]
    default = [each for each in ("image=photos/a", "checkpoint=mine.pt", TINY) if each.partition("=")[0] != key]
    status, out, err = run("task=explain", *QUICK, *default, given)
    assert status == 2, out
    assert err.count("\n") == 1, err
    assert all(word in err for word in wanted.split(" ... ")), err
    assert "predicted" not in out
    assert not (tmp_path / "outputs" / "explain").exists()


@pytest.mark.parametrize(
    ("task", "given"), [("explain", ["classes=names.txt"]), ("compare", ["classes=names.txt"]), ("compare", [])]
)
@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("vit_b14_dinov2", "model.architecture=vit_base_patch14_reg4_dinov2 model.image_size=224"),
        ("efficientnet_lite0", "model.architecture=tf_efficientnet_lite0,"),
        ("cnn_tiny", "model.architecture=NAME"),
    ],
)
def test_a_file_whose_classes_nobody_names_is_told_how_they_are(
    run: Cli, task: str, given: list[str], model: str, wanted: str
) -> None:
    said = run.refused(f"task={task}", "trainer=cpu", "image=photos", "checkpoint=mine.pt", f"model={model}", *given)
    assert all(word in said for word in ("mine.pt says nothing of itself", wanted, "classes=names.txt")), said
    assert ("data.classes=names.txt" in said) == (task == "compare")


@pytest.mark.parametrize(
    ("positions", "wanted"),
    [
        (37 * 37, "vit_base_patch14_reg4_dinov2,"),  # 518 px, as timm has it
        (1 + 32 * 32, "vit_base_patch14_reg4_dinov2 model.image_size=448,"),
        (7, "vit_base_patch14_reg4_dinov2 model.image_size=224,"),
    ],
)
def test_a_file_is_told_the_size_that_its_positions_are_of(tmp_path: Path, positions: int, wanted: str) -> None:
    torch.save({"module.pos_embed": torch.zeros(1, positions, 2)}, tmp_path / "mine.pt")
    model = open_model(shipped_settings("vit_b14_dinov2"))
    assert f"model.architecture={wanted}" in says_nothing(tmp_path / "mine.pt", model)


def test_a_damaged_file_is_not_told_to_name_its_classes(run: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_bytes(b"PK\x03\x04 no weights")
    given = ("task=compare", "trainer=cpu", "image=photos", "checkpoint=mine.pt", "model=cnn_tiny", "classes=names.txt")
    assert "truncated or damaged" in run.refused(*given)


def test_no_two_pictures_share_a_name(tmp_path: Path) -> None:
    places = [
        "a/x.png",
        "a/x.jpg",
        "b/x.png",
        "c/b_x.png",
        "c/X.PNG",
        "d/a/x.png",
        "x" * 200 + ".png",
        "\u732b" * 80 + ".png",
    ]
    pictures = [tmp_path / place for place in places]
    found = stems(pictures, {})
    assert len({name.lower() for name in found.values()}) == len(places)
    assert max(len(name.encode()) for name in found.values()) <= 100
    assert stems(pictures[:1], found) == {str(pictures[0]): found[str(pictures[0])]}
    assert stems([tmp_path / "e/b_x.png"], found) != {str(tmp_path / "e/b_x.png"): "b_x"}


@pytest.mark.parametrize(
    ("architecture", "size", "crop"),
    [("resnet18", 224, 0.95), ("vit_base_patch14_reg4_dinov2", 518, 1.0), ("vit_b_16", 224, 0.875)],
)
def test_settings_come_from_timm_or_torchvision(architecture: str, size: int, crop: float) -> None:
    values = named_settings(architecture, {"mean": [0.1, 0.2, 0.3]})
    params = NamedParams(
        **{key: tuple(v) if isinstance(v, list) else v for key, v in values.items() if key != "family"}
    )
    assert (params.image_size, params.crop, params.mean, params.resized) == (
        size,
        crop,
        (0.1, 0.2, 0.3),
        math.floor(size / crop),
    )


def test_many_pictures_are_measured_by_one_reference_and_the_time_is_told(run: Cli, tmp_path: Path) -> None:
    draw(tmp_path / "photos" / "c.png", 5)
    out = explain(run, "image=photos", "explainer=saliency", "objective.references=[black,blur]")
    assert [line["references"] for line in said_here()] == [["mean"]] * 4
    # What took less than a twentieth of a second has no place in it.
    told = re.search(r"^time: start (\S+) s, .*; (\d+) s in all$", out, re.M)
    assert told is not None, out
    assert 0 < float(told[1]) <= float(told[2]) + 1
    explain(run, "image=photos", "explainer=saliency", "areas=[black]", "name=black")
    explain(run, "image=photos/c.png", "explainer=saliency", "objective.references=[black]", "refine=0", "name=one")
    black, one = said(tmp_path / "outputs" / "black")[-1], said(tmp_path / "outputs" / "one")[0]
    assert (one["references"], black["stem"], one["stem"]) == (["black"], "c", "c")
    for key in ("deletion", "insertion"):
        assert one["areas"]["map"][key] == pytest.approx(black["areas"]["map"][key])
    out = explain(run, "image=photos/c.png", "explainer=saliency", "areas=[]", "refine=0", "name=none")
    assert "deletion" not in out
    assert said(tmp_path / "outputs" / "none")[0]["areas"]["map"]["deletion"] is None


@pytest.mark.parametrize("explainer", ["rise", "kernel_shap"])
def test_what_is_said_to_ask_less_can_be_typed(run: Cli, monkeypatch: pytest.MonkeyPatch, explainer: str) -> None:
    told: list[tuple[float, str]] = []
    monkeypatch.setattr("xai.tasks.explain.say_cost", lambda asked, *given: told.append((asked[0].total, given[-1])))
    asked = ("image=photos/a/one.png", f"explainer={explainer}", "refine=0", "areas=[]")
    explain(run, *asked)
    explain(run, *asked, told[0][1].removesuffix(" asks less"))
    assert told[1][0] < 110 < told[0][0]
    assert told[1][1] == ""


def test_few_pictures_are_compared_quickly_unless_it_is_said_otherwise() -> None:
    shipped = yaml.safe_load((CONF / "task" / "compare.yaml").read_text(encoding="utf-8"))
    values = {
        **shipped,
        "image": "photos/*.png",
        "data": {"name": "digits"},
        "logger": {"kind": "wandb", "mode": "auto"},
    }

    def settled(pictures: int, typed: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("xai.tasks.compare.find_pictures", lambda *_: [Path()] * pictures)
            return compare.TASK.settle({**values, **more}, typed)  # type: ignore[misc]

    few, many = settled(20), settled(21)
    assert (few["effort"], few["rows"], few["metric"]["perturbation"]["steps"]) == (
        "quick",
        shipped["quick"]["rows"],
        9,
    )
    assert few["logger"] == {"kind": "none", "mode": "auto"}
    assert settled(3, ("logger.mode",))["logger"] == values["logger"]
    assert few["explainers"]["rise"] == {"output": "probability", "removal": None, "masks": 100}
    assert many == {**values, "effort": "full"}
    assert settled(3, effort="full") == many
    assert settled(21, effort="quick") == few
    assert settled(3, image=None) == {**many, "image": None}  # a data set
    typed = {"explainers": {**shipped["explainers"], "rise": {"masks": 7}}, "rows": ["rise"]}
    own = settled(3, ("explainers.rise.masks", "rows"), **typed)
    assert (own["rows"], own["explainers"]["rise"], own["explainers"]["kernel_shap"]["coalitions"]) == (
        ["rise"],
        {"masks": 7},
        100,
    )
    assert "effort=fast" in refusal(settled, 3, effort="fast")


def test_a_size_that_no_patches_divide_is_refused_with_one_that_is_fine() -> None:
    with pytest.raises(UserError, match=r"one patch of image_size=331, .*: use image_size=329$"):
        open_model(named_settings("nasnetalarge", {}))
    assert open_model(named_settings("nasnetalarge", {"image_size": 329})).grid == 7


@pytest.mark.parametrize(
    ("architecture", "wanted"),
    [
        ("resnet18", {"resize": 235, "fit": "crop", "interpolation": "bicubic"}),
        ("swin_t", {"resize": 232, "fit": "crop", "interpolation": "bicubic"}),
        ("convnextv2_huge", {"resize": None, "fit": "squash", "interpolation": "bicubic"}),
        ("shufflenet_v2_x1_0", {"resize": 256, "fit": "crop", "interpolation": "bilinear"}),
    ],
)
def test_labelled_pictures_are_cut_as_the_classifier_sees_them(architecture: str, wanted: dict[str, Any]) -> None:
    shipped = yaml.safe_load((CONF / "task" / "compare.yaml").read_text(encoding="utf-8"))
    model = named_settings(architecture, {})
    data = {
        "name": "folder",
        "size": model["image_size"],
        "fit": "crop",
        "resize": None,
        "interpolation": "bicubic",
    }
    values = {**shipped, "data": data, "model": model, "checkpoint": None}
    settle: Any = compare.TASK.settle
    assert settle(values, ())["data"] == {**data, **wanted}
    assert settle(values, ("data.fit",))["data"] == data
    assert settle({**values, "data": {**data, "resize": 300}}, ())["data"] == {**data, "resize": 300}


@pytest.mark.parametrize("given", [["image=photos", "classes=names.txt"], ["data=pictures", "data.path=photos"]])
def test_explainers_are_compared_on_the_same(run: Cli, tmp_path: Path, given: list[str]) -> None:
    few = ("rows=[grad_cam,saliency,random]", "metrics=[difference_auc]", "pictures=2", "figures=[]", "logger=none")
    status, out, err = run("task=compare", "checkpoint=mine.pt", TINY, "trainer=cpu", *few, *given)
    assert (status, err) == (0, "")
    assert "time: start" in out
    assert "effort=full" in (tmp_path / "outputs" / "compare" / "report.html").read_text(encoding="utf-8")
    tiles = json.loads((tmp_path / "outputs" / "compare" / FOLDER / LIST).read_text(encoding="utf-8"))["tiles"]
    assert [tile["second"] for tile in tiles] == [False] * 4  # maps of a second class would cost as many passes again
    frame = pd.read_csv(tmp_path / "outputs" / "compare" / "scores.csv")
    values = frame[(frame.explainer == "grad_cam") & (frame.metric == "difference_auc")].value
    assert len(values) == 3
    model = xai.load("mine.pt", architecture="test_resnet")
    pictures = sorted((tmp_path / "photos").rglob("*.png"))
    own = xai.compare(model, pictures, explainers=["grad_cam"], metrics=["difference"])
    np.testing.assert_allclose(values, own.value, rtol=1e-3, atol=1e-4)
