"""Pictures of every kind, whole or broken, and the maps that are drawn of them."""

import pickle
import zlib
from collections.abc import Callable
from pathlib import Path

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


def gigantic(path: Path) -> None:
    """A PNG whose header announces more pixels than any memory holds."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    side = (200_000).to_bytes(4, "big")
    header = chunk(b"IHDR", side + side + bytes([8, 2, 0, 0, 0]))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


def broken(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("spoil", "wanted"),
    [
        (broken, "broken"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_text("not a picture"), "not a picture"),
        (lambda path: path.write_bytes(pickle.dumps(Trap(path.with_name("marker")))), "not a picture"),
        (lambda path: path.mkdir(), "folder"),
        (lambda path: None, "does not exist"),
        (gigantic, "too large"),
    ],
)
def test_a_bad_picture(run: Cli, files: Files, spoil: Callable[[Path], None], wanted: str) -> None:
    spoil(run.folder / "photo.png")
    line = run.refused("task=explain", "image=photo.png", f"checkpoint={files.checkpoint}")
    assert "photo.png" in line
    assert wanted in line
    assert not (run.folder / "marker").exists()
    assert not list(run.folder.glob("outputs/**/*.png"))


PICTURES: dict[str, tuple[str, Callable[[], Image.Image]]] = {
    "one pixel": ("png", lambda: Image.new("RGB", (1, 1), "red")),
    "strip": ("png", lambda: colours((3000, 1))),
    "cmyk": ("jpg", lambda: colours().convert("CMYK")),
    "grey": ("png", lambda: colours().convert("L")),
    "black and white": ("png", lambda: colours().convert("1")),
    "palette": ("gif", lambda: colours().convert("P")),
    "16 bit": ("png", lambda: Image.fromarray(np.arange(70 * 50, dtype=np.uint16).reshape(50, 70) * 18)),
    "alpha": ("png", lambda: Image.merge("RGBA", [*colours().split(), colours().convert("L")])),
}


@pytest.mark.parametrize("name", list(PICTURES))
def test_every_kind_of_picture_gets_its_heat_map(run: Cli, files: Files, name: str) -> None:
    suffix, draw = PICTURES[name]
    draw().save(run.folder / f"photo.{suffix}")
    status, out, err = run("task=explain", "logger=none", f"image=photo.{suffix}", f"checkpoint={files.checkpoint}")
    assert (status, err) == (0, "")
    assert heat_map_of(run).name in out
    with Image.open(heat_map_of(run)) as heat_map:
        heat_map.load()
        assert heat_map.format == "PNG"
        assert heat_map.mode == "RGBA"
        assert len(heat_map.getcolors(2**24) or []) > 1
    assert run.made() == []


def test_a_rotated_picture_is_explained_upright(run: Cli, files: Files) -> None:
    upright = colours()
    upright.save(run.folder / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(run.folder / "turned.png", exif=exif)
    for name in ("upright", "turned"):
        assert run("task=explain", "logger=none", f"image={name}.png", f"checkpoint={files.checkpoint}")[0] == 0
    maps = [np.asarray(Image.open(heat_map_of(run, name))) for name in ("upright", "turned")]
    np.testing.assert_array_equal(*maps)


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
    for named, made in (((), "own"), (("explainer=saliency",), "saliency"), (("outside=true",), "grad_cam")):
        assert run("task=explain", *given, *named, f"name={made}")[0] == 0
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


def test_a_heat_map_that_cannot_be_written(run: Cli, files: Files) -> None:
    colours().save(run.folder / "photo.png")
    (run.folder / "outputs").mkdir()
    (run.folder / "outputs" / "explain").write_text("in the way")
    line = run.refused("task=explain", "image=photo.png", f"checkpoint={files.checkpoint}")
    assert "outputs/explain" in line
