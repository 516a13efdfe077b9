"""Checkpoints and vectors that are broken, of something else, or enough by themselves."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cli.shared import CLASSES, Cli, Files, bare_pickle, colours, heat_map_of
from tests.composed import plain
from tests.toolbox import there
from xai import vectors
from xai.core.settings import build
from xai.models import files as network_files
from xai.models.clip import trainable
from xai.models.cnn import CnnParams
from xai.models.spec import describe, shape_of
from xai.models.vit import VitParams
from xai.models.weights import write_weights

# Checkpoints and vectors.


@pytest.mark.parametrize("task", ["explain", "apply_vector"])
@pytest.mark.parametrize(
    ("prepare", "wanted"),
    [
        (bare_pickle, "nothing was executed"),
        (lambda files, folder: files.vector, "explainability vector, not a classifier"),
    ],
)
def test_a_bad_checkpoint(run: Cli, files: Files, task: str, prepare: Callable[..., Path], wanted: str) -> None:
    Image.new("RGB", (50, 50)).save(run.folder / "photo.png")
    path = prepare(files, run.folder)
    given = {"explain": "image=photo.png", "apply_vector": f"vector={files.vector}"}[task]
    line = run.refused(f"task={task}", given, f"checkpoint={path}")
    assert wanted in line
    assert str(path) in line
    assert not (run.folder / "marker").exists()
    assert not list(run.folder.glob("outputs/**/*.png"))
    assert not list(run.folder.glob("outputs/**/*.safetensors"))


def test_the_trap_would_have_worked(run: Cli, files: Files) -> None:
    pickle.loads(bare_pickle(files, run.folder).read_bytes())
    assert (run.folder / "marker").is_dir()


def test_base_weights_that_are_a_pickle(run: Cli, files: Files) -> None:
    path = bare_pickle(files, run.folder)
    line = run.refused("model=clip_vit_b32", "data.canvas=224", "source.canvas=224", f"model.weights={path}")
    assert str(path) in line
    assert not (run.folder / "marker").exists()


def vector_with(files: Files, folder: Path, **changes: Any) -> Path:
    """A vector file as nobody should write it, past the checks of save_vector."""
    path = folder / "bad.safetensors"
    metadata = {**vars(files.vector_info), **changes}
    write_weights(path, trainable(files.network), {vectors.METADATA_KEY: json.dumps(metadata)})
    return path


@pytest.mark.parametrize(
    ("prepare", "wanted"),
    [
        (lambda files, folder: vector_with(files, folder, base="c" * 20), "c" * 20),
        (bare_pickle, "nothing was executed"),
    ],
)
def test_a_bad_vector(run: Cli, files: Files, prepare: Callable[..., Path], wanted: str) -> None:
    path = prepare(files, run.folder)
    line = run.refused("task=apply_vector", f"vector={path}", f"checkpoint={files.checkpoint}")
    assert wanted in line
    assert not (run.folder / "marker").exists()
    assert not list(run.folder.glob("outputs/**/*.safetensors"))


def test_a_classifier_of_other_classes(run: Cli, files: Files) -> None:
    spec = files.spec.model_copy(update={"classes": tuple("abcdefghij")})
    network_files.write(run.folder / "ab.safetensors", files.network, spec)
    line = run.refused("task=apply_vector", f"vector={files.vector}", "checkpoint=ab.safetensors")
    assert "a, b, c" in line
    assert "mnist_scattered" in line


def test_a_clip_is_no_classifier_to_explain(run: Cli, files: Files) -> None:
    line = run.refused("study=salvage", f"checkpoint={files.checkpoint}")
    assert f"{files.checkpoint} holds a CLIP, and study=salvage needs a plain vision transformer" in line


def test_a_checkpoint_of_a_model_with_training_settings_of_its_own_asks_for_them(run: Cli) -> None:
    model = build(VitParams, {**plain("task=train")["model"], "name": "vit_b14_dinov2"}, "model")
    network_files.write(run.folder / "mine", model.build(10, 0), describe(model, "classifier", "x", CLASSES))
    line = run.refused("study=salvage", f"checkpoint={run.folder / 'mine'}")
    assert "is of model=vit_b14_dinov2, which has training settings of its own: add that" in line


# One file, one prediction.


def test_a_checkpoint_alone_is_enough_and_contradictions_are_refused(run: Cli, files: Files) -> None:
    colours().save(run.folder / "photo.png")
    vit_model = build(VitParams, plain("task=train", "model.mean=[0.1,0.2,0.3]")["model"], "model")
    cnn_model = build(CnnParams, plain("model=cnn_tiny", "model.crop=0.8")["model"], "model")
    network_files.write(Path("vit"), vit_model.build(10, 0), describe(vit_model, "classifier", "x", CLASSES))
    network_files.write(Path("cnn"), cnn_model.build(10, 0), describe(cnn_model, "classifier", "x", CLASSES))
    common = ("task=explain", "image=photo.png", "logger=none", "refine=0", "areas=[]", "objective.steps=3")
    for file, right, wrong in (
        ("vit", "model.patch_size=7", ["model=vit_tiny", "model=cnn_tiny", "model.mean=[0.5,0.5,0.5]"]),
        ("cnn", "model.patch_size=7", ["model=cnn_tiny", "model=vit_tiny", "model.image_size=84"]),
        (str(files.checkpoint), "model=clip_tiny", ["model=vit_tiny", "model.std=[1,1,1]", "model.towers.layers=9"]),
    ):
        drawn = []
        for given in ([], [right]):
            status, _, err = run(*common, f"checkpoint={file}", *given)
            assert (status, err) == (0, "")
            drawn.append(heat_map_of(run).read_bytes())
            shutil.rmtree(run.folder / "outputs" / "explain")
        assert drawn[0] == drawn[1]
        for given in wrong:
            line = run.refused(*common, f"checkpoint={file}", given)
            assert f"{file} is a " in line
            assert "as was asked for: leave model out" in line


def test_a_classifier_to_explain_brings_its_model(run: Cli) -> None:
    model = build(VitParams, plain("task=train", "model.image_size=84")["model"], "model")
    network_files.write(Path("vit"), model.build(10, 0), describe(model, "classifier", "x", tuple("0123456789")))
    status, _, err = run("task=train", "checkpoint=vit", "logger=none", "data=mnist_scattered")
    assert (status, err) == (0, "")
    spec = there(network_files.read_spec(run.folder / "outputs" / "classifier" / "classifier.safetensors"))
    assert spec.model == shape_of(model)
