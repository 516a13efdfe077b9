"""Pictures of several shapes, one that is none, and the maps that are drawn of them."""

import pickle
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tests.cli.shared import CLASSES, Cli, Files, colours, heat_map_of
from tests.composed import plain
from tests.toolbox import Trap
from xai.core.settings import build
from xai.models import files as network_files
from xai.models.cnn import CnnParams
from xai.models.spec import describe
from xai.models.weights import read_weights, write_weights


def test_a_picture_that_is_a_pickle_runs_nothing(run: Cli, files: Files) -> None:
    (run.folder / "photo.png").write_bytes(pickle.dumps(Trap(run.folder / "marker")))
    line = run.refused("task=explain", "image=photo.png", f"checkpoint={files.checkpoint}")
    assert "photo.png" in line
    assert "not a picture" in line
    assert not (run.folder / "marker").exists()
    assert not list(run.folder.glob("outputs/**/*.png"))


PICTURES: dict[str, Callable[[], Image.Image]] = {
    "one pixel": lambda: Image.new("RGB", (1, 1), "red"),
    "strip": lambda: colours((3000, 1)),
    "16 bit": lambda: Image.fromarray(np.arange(70 * 50, dtype=np.uint16).reshape(50, 70) * 18),
}


@pytest.mark.parametrize("name", list(PICTURES))
def test_a_picture_of_any_shape_and_depth_gets_its_heat_map(run: Cli, files: Files, name: str) -> None:
    PICTURES[name]().save(run.folder / "photo.png")
    status, out, err = run("task=explain", "logger=none", "image=photo.png", f"checkpoint={files.checkpoint}")
    assert (status, err) == (0, "")
    assert heat_map_of(run).name in out
    with Image.open(heat_map_of(run)) as heat_map:
        heat_map.load()
        assert heat_map.format == "PNG"
        assert heat_map.mode == "RGBA"
        assert len(heat_map.getcolors(2**24) or []) > 1
    assert run.made() == []


def test_finite_weights_whose_answers_are_not(run: Cli, files: Files) -> None:
    colours().save(run.folder / "photo.png")
    weights = read_weights(files.checkpoint)
    huge = {name: value * 1e37 if name.startswith("visual") else value for name, value in weights.tensors.items()}
    write_weights(run.folder / "huge.safetensors", huge, weights.metadata)
    line = run.refused("task=explain", "image=photo.png", "checkpoint=huge.safetensors")
    assert "answers to photo.png hold NaN or infinity" in line
    assert not (run.folder / "photo.explained.png").exists()


def test_the_class_that_is_asked_for(run: Cli, files: Files) -> None:
    colours().save(run.folder / "photo.png")
    common = ("task=explain", "image=photo.png", f"checkpoint={files.checkpoint}")
    assert "explained: seven" in run(*common, "logger=none", "target=seven")[1]
    line = run.refused(*common, "target=elephant")
    assert "target=elephant" in line
    assert "seven" in line


def test_a_classifier_that_explains_itself_is_explained_by_what_is_named(run: Cli, files: Files) -> None:
    colours().save(run.folder / "photo.png")
    given = ("image=photo.png", f"checkpoint={files.checkpoint}", "logger=none", "refine=0", "areas=[]")
    ways = {"": "own", "explainer=saliency": "saliency", "row=edges": "edges", "outside=true": "grad_cam"}
    for named, made in ways.items():
        assert run("task=explain", *given, *filter(None, [named]), f"name={made}")[0] == 0
        assert [path.name.split(".")[1] for path in (run.folder / "outputs" / made).glob("photo.*.npy")] == [made]


def test_a_cnn_is_explained_by_an_explainer_and_refined(run: Cli) -> None:
    model = build(CnnParams, plain("model=cnn_tiny")["model"], "model")
    spec = describe(model, "classifier", "mnist_scattered", CLASSES)
    network_files.write(run.folder / "cnn.safetensors", model.build(10, 0), spec)
    colours().save(run.folder / "photo.png")
    given = ("task=explain", "model=cnn_tiny", "checkpoint=cnn.safetensors", "image=photo.png", "logger=none")
    status, out, err = run(*given, "target=seven", "refine=1", "refinement.draws=1")
    assert (status, err) == (0, "")
    assert all(words in out for words in ("explained: seven", "deletion", "insertion", "grad_cam", "grad_cam, T = 1"))
    with Image.open(heat_map_of(run)) as heat_map:
        assert len(heat_map.convert("RGB").getcolors(2**24) or []) > 1
