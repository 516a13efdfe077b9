"""What a person can type wrongly, or hand over broken: one line, exit status 2, and nothing made."""

import errno
import json
import logging
import os
import pickle
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from xai import cli, vectors
from xai.app import settings_of
from xai.core.errors import UserError
from xai.core.settings import build
from xai.data.scatter import ScatterParams
from xai.models import files as network_files
from xai.models.clip import SelfExplainingClip, trainable
from xai.models.cnn import CnnParams, build_cnn
from xai.models.factory import build_clip, build_explainer
from xai.models.spec import Spec, TokenDecoder, describe, shape_of
from xai.models.vit import VitParams, build_vit
from xai.models.weights import architecture_hash, read_weights, write_weights
from xai.papers.families import family
from xai.papers.vectors.base import ModelParams
from xai.tasks.registry import TASKS, choose

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SMOKE = ("experiment=smoke", "logger=none")


@dataclass
class Cli:
    """The command line, in this process and in an empty folder."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        self.capsys.readouterr()
        status = cli.main()
        said = self.capsys.readouterr()
        return status, said.out, said.err

    def refused(self, *arguments: str) -> str:
        """The one line that a command is refused with."""
        status, _, err = self(*arguments, "logger=none") if "logger" not in " ".join(arguments) else self(*arguments)
        assert status == 2
        assert err.startswith("error: "), err
        assert err.endswith("\n")
        assert err.count("\n") == 1, err
        assert self.made() == []
        return err[len("error: ") : -1]

    def made(self) -> list[Path]:
        """Whatever lies in the store under a final name."""
        return [path for path in self.folder.glob("**/store/[a-z]*/*") if not path.name.endswith(".partial")]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # main sets it; this puts it back
    yield Cli(tmp_path, monkeypatch, capsys)
    for handler in root.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.close()
    root.handlers[:], root.level = handlers, level
    torch.use_deterministic_algorithms(False)


@dataclass(frozen=True)
class Files:
    """A classifier of the default model with random weights, a vector for it, and what belongs to them."""

    folder: Path
    model: ModelParams
    network: SelfExplainingClip
    spec: Spec
    vector_info: vectors.VectorInfo

    @property
    def checkpoint(self) -> Path:
        return self.folder / "classifier.safetensors"

    @property
    def vector(self) -> Path:
        return self.folder / "vector.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("files")
    with hydra.initialize_config_dir(str(cli.CONF), version_base="1.3"):
        config = hydra.compose("config")
    model = build(ModelParams, OmegaConf.to_container(config.model, resolve=True), "model")
    head = torch.randn(64, len(CLASSES), generator=torch.Generator().manual_seed(0))
    network = build_explainer(model, build_clip(model, seed=1), head)
    theta = trainable(network)
    spec = describe(model, "self_explaining", "mnist_scattered", CLASSES, base="b" * 20)
    network_files.write(folder / "classifier.safetensors", network, spec)
    vector_info = vectors.VectorInfo(
        model="clip_tiny",
        architecture=architecture_hash(theta),
        base=spec.made_by.base,
        source="digits_scattered",
        alpha=0.8,
        seed=0,
        ft="f" * 20,
        ft_star="e" * 20,
        xai_version="0",
    )
    vectors.save_vector(folder / "vector.safetensors", theta, vector_info)
    return Files(folder, model, network, spec, vector_info)


# Names, numbers and types.


def test_a_published_vit_that_cannot_be_fetched(run: Cli) -> None:
    chosen = ("model=vit_b14_dinov2", "model.architecture=vit_tiny_patch16_224", "model.patch_size=16")
    line = run.refused("task=train", *chosen, "model.pretrained=true")
    assert "could not be fetched" in line
    assert "model.weights=" in line


def test_a_gpu_that_is_not_there(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "trainer=cpu" in run.refused("trainer=gpu")


@pytest.mark.parametrize("name", ["source", "target", "validation"])
def test_images_asked_for_that_do_not_exist(run: Cli, name: str) -> None:
    split = {"source": "train", "target": "train"}.get(name, name)
    assert f"100000 images were asked for, the {split} split has" in run.refused(f"transfer.{name}_images=100000")


def test_images_to_explain_that_do_not_exist(run: Cli) -> None:
    assert "images=100000: the test split of data=mnist_scattered has 600 images" in run.refused("case.images=100000")


def test_class_names_that_clash(run: Cli) -> None:
    for name in ("Cat", "cat ", "dog"):
        (run.folder / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(run.folder / "pictures" / name / "1.png")
    line = run.refused("data=folder", "data.root=pictures")
    assert "'Cat'" in line
    assert "'cat'" in line
    assert "clash" in line


def test_pictures_without_regions(run: Cli) -> None:
    for number, name in enumerate("ab" * 10):
        (run.folder / "pictures" / name).mkdir(parents=True, exist_ok=True)
        colours().save(run.folder / "pictures" / name / f"{number}.png")
    study = ("study=salvage", "data=folder", "data.root=pictures", "case.images=null")
    line = run.refused(*study)
    assert line.startswith("classifier.focus=0.6 needs the regions of the objects, and data=folder has none")


def test_help_explains_itself(run: Cli) -> None:
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    for words in ("Usage: python run.py", "mnist_scattered", "clip_vit_b32", "lambda2", "task=apply_vector", "-m"):
        assert words in out
    for words in (*TASKS, "study=salvage", "task=train method=salvage", "explainers.rise.masks", "checkpoint="):
        assert words in out


def composed(*overrides: str) -> dict[str, Any]:
    """What Hydra makes of a command line."""
    with hydra.initialize_config_dir(str(cli.CONF), version_base="1.3"):
        values = OmegaConf.to_container(hydra.compose("config", overrides=list(overrides)), resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (cli.CONF / group).glob("*.yaml"))


def test_every_task_has_a_configuration() -> None:
    assert choices("task") == sorted(TASKS)


@pytest.mark.parametrize("model", choices("model"))
def test_every_model_is_of_one_family(model: str) -> None:
    settings, families = composed(f"model={model}")["model"], {"vit": VitParams, "clip": ModelParams}
    own = families.get(model.partition("_")[0], CnnParams)
    assert build(own, settings, "model").name == model
    assert family(settings) is own
    for other in {VitParams, ModelParams, CnnParams} - {own}:
        with pytest.raises(UserError, match="is not a known setting"):
            build(other, settings, "model")


@pytest.mark.parametrize("method", ["salvage", "vit_shapley", "ranking", "surrogate", "classifier"])
def test_defaults_of_a_method_are_its_settings(method: str) -> None:
    values = composed("task=train", f"method={method}")
    settings = settings_of(choose(values), values)
    assert settings.method == settings.name == method


def test_every_setting_of_a_scene_is_shown_with_its_default() -> None:
    expected = asdict(ScatterParams())
    with hydra.initialize_config_dir(str(cli.CONF), version_base="1.3"):
        config = hydra.compose("config")
    for scene in (config.data, config.source, config.model.pretraining.scene):
        shown = OmegaConf.to_container(scene, resolve=True)
        assert isinstance(shown, dict)
        assert {key: value for key, value in shown.items() if key not in ("name", "images_per_class")} == expected


def test_an_error_in_a_worker_is_told_in_its_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(torch.utils.data.Dataset[int]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> int:
            try:
                raise UserError("inner")
            except UserError as error:
                raise UserError("picture.png is broken: replace it") from error

    loader = torch.utils.data.DataLoader(Broken(), num_workers=1)
    assert cli.report_errors(lambda: [*loader].clear()) == 2
    assert capsys.readouterr().err == "error: picture.png is broken: replace it\n"


FILES = {
    "a tab": (b"# @package _global_\n\tseed: 1\n", ["mine.yaml", "line 2"]),
    "a key twice": (b"# @package _global_\nseed: 1\nseed: 2\n", ["mine.yaml", "duplicate key seed"]),
    "Latin-1": (b"# @package _global_\nname: caf\xe9\n", ["mine.yaml is not UTF-8"]),
    "no list": (b"# @package _global_\ndefaults: 5\n", ["defaults must be a list"]),
    "no package": (b"seed: 1\n", ["@package _global_"]),
    "a list": (b"# @package _global_\n[1, 2]\n", ["experiment/mine"]),
    "code": (b"# @package _global_\nhydra: {callbacks: {x: {_target_: sympy.sympify}}}\n", ["names code"]),
}


@pytest.mark.parametrize("name", FILES)
def test_an_experiment_of_ones_own_that_cannot_be_read(run: Cli, name: str) -> None:
    content, wanted = FILES[name]
    (run.folder / "conf" / "experiment").mkdir(parents=True)
    (run.folder / "conf" / "experiment" / "mine.yaml").write_bytes(content)
    line = run.refused("--config-dir", "conf", "experiment=mine")
    assert all(word in line for word in wanted), line


@pytest.mark.parametrize(("sent", "status"), [(KeyboardInterrupt, 130), (cli._Terminated, 143)])
def test_a_stop_says_how_to_go_on(capsys: pytest.CaptureFixture[str], sent: type[BaseException], status: int) -> None:
    def job() -> None:
        raise sent

    assert cli.report_errors(job) == status
    assert "the same command goes on" in capsys.readouterr().err


def test_what_steers_a_terminal_is_spelt_out(capsys: pytest.CaptureFixture[str]) -> None:
    def job() -> None:
        raise UserError("class \x1b[31mred\udc80 is unknown")

    assert cli.report_errors(job) == 2
    assert capsys.readouterr().err == "error: class \\x1b[31mred\\udc80 is unknown\n"


# Folders.


@pytest.mark.parametrize("setting", ["name=file/below", "store=file/below", "store=file", "hydra.run.dir=file/x"])
def test_an_output_that_cannot_be_written(run: Cli, setting: str) -> None:
    (run.folder / "outputs").mkdir()
    for place in ("file", "outputs/file"):
        (run.folder / place).write_text("kept")
    line = run.refused(*SMOKE, setting)
    assert "file" in line
    assert (run.folder / "file").read_text() == (run.folder / "outputs" / "file").read_text() == "kept"


def test_a_full_disk_at_the_first_file(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("xai.core.store.os.fsync", full)
    line = run.refused(*SMOKE)
    assert "disk is full" in line
    assert "outputs/smoke" in line


def test_a_full_disk_at_the_weights(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("xai.models.weights.save_file", full)
    small = ("model.pretraining.steps=50", "model.pretraining.focused_steps=50", "model.pretraining.batch_size=1")
    line = run.refused(*SMOKE, *small)
    assert "No space left on device" in line
    assert "store/base/" in line


# Checkpoints and vectors.


class Trap:
    """A pickle of this writes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.write_text, (self.marker, "executed"))


def truncated(files: Files, folder: Path) -> Path:
    path = folder / "cut.safetensors"
    path.write_bytes(files.checkpoint.read_bytes()[:-100])
    return path


def foreign(files: Files, folder: Path) -> Path:
    write_weights(folder / "resnet.safetensors", {"layer1.weight": torch.ones(2)}, {})
    return folder / "resnet.safetensors"


def other_architecture(files: Files, folder: Path) -> Path:
    assert files.model.towers is not None
    model = replace(files.model, towers=replace(files.model.towers, layers=1))
    network = build_explainer(model, build_clip(model), files.network.head)
    network_files.write(folder / "other.safetensors", network, files.spec)
    return folder / "other.safetensors"


def with_nan(files: Files, folder: Path) -> Path:
    weights = read_weights(files.checkpoint)
    weights.tensors["visual.proj"][0, 0] = torch.nan
    write_weights(folder / "nan.safetensors", weights.tensors, weights.metadata)
    return folder / "nan.safetensors"


def bare_pickle(files: Files, folder: Path) -> Path:
    (folder / "pickle.pt").write_bytes(pickle.dumps({"visual.proj": Trap(folder / "marker")}))
    return folder / "pickle.pt"


def torch_pickle(files: Files, folder: Path) -> Path:
    torch.save({"state_dict": Trap(folder / "marker")}, folder / "torch.pt")
    return folder / "torch.pt"


def disguised_pickle(files: Files, folder: Path) -> Path:
    (folder / "pickle.safetensors").write_bytes(pickle.dumps(Trap(folder / "marker"), protocol=0))
    return folder / "pickle.safetensors"


BAD_CHECKPOINTS: list[tuple[Callable[[Files, Path], Path], Any]] = [
    (lambda files, folder: folder / "missing.safetensors", "does not exist"),
    (lambda files, folder: folder, "directory"),
    (truncated, "truncated"),
    (foreign, {"explain": "says nothing of itself", "apply_vector": "no visual tower"}),
    (other_architecture, "does not fit model=clip_tiny"),
    (with_nan, "NaN"),
    (bare_pickle, "nothing was executed"),
    (torch_pickle, "nothing was executed"),
    (disguised_pickle, "nothing was executed"),
    (lambda files, folder: files.vector, "explainability vector, not a classifier"),
]


@pytest.mark.parametrize("task", ["explain", "apply_vector"])
@pytest.mark.parametrize(("prepare", "wanted"), BAD_CHECKPOINTS)
def test_a_bad_checkpoint(run: Cli, files: Files, task: str, prepare: Callable[..., Path], wanted: Any) -> None:
    Image.new("RGB", (50, 50)).save(run.folder / "photo.png")
    path = prepare(files, run.folder)
    given = {"explain": "image=photo.png", "apply_vector": f"vector={files.vector}"}[task]
    line = run.refused(f"task={task}", given, f"checkpoint={path}")
    assert (wanted[task] if isinstance(wanted, dict) else wanted) in line
    assert str(path) in line
    assert not (run.folder / "marker").exists()
    assert not list(run.folder.glob("outputs/**/*.png"))
    assert not list(run.folder.glob("outputs/**/*.safetensors"))


def test_the_trap_would_have_worked(run: Cli, files: Files) -> None:
    pickle.loads(bare_pickle(files, run.folder).read_bytes())
    assert (run.folder / "marker").read_text() == "executed"


@pytest.mark.parametrize("prepare", [bare_pickle, torch_pickle, truncated])
def test_bad_base_weights(run: Cli, files: Files, prepare: Callable[..., Path]) -> None:
    path = prepare(files, run.folder)
    line = run.refused("model=clip_vit_b32", f"model.weights={path}")
    assert str(path) in line
    assert not (run.folder / "marker").exists()


def vector_with(files: Files, folder: Path, tensors: dict[str, torch.Tensor] | None = None, **changes: Any) -> Path:
    """A vector file as nobody should write it, past the checks of save_vector."""
    path = folder / "bad.safetensors"
    metadata = {**vars(files.vector_info), **changes}
    write_weights(path, tensors or trainable(files.network), {vectors.METADATA_KEY: json.dumps(metadata)})
    return path


def vector_of_nan(files: Files, folder: Path) -> Path:
    tensors = {name: value.clone() for name, value in trainable(files.network).items()}
    tensors["visual.proj"][3, 5] = torch.nan
    return vector_with(files, folder, tensors)


def vector_cut(files: Files, folder: Path) -> Path:
    path = folder / "cut.safetensors"
    path.write_bytes(files.vector.read_bytes()[:-7])
    return path


def vector_without_a_tensor(files: Files, folder: Path) -> Path:
    tensors = dict(trainable(files.network))
    del tensors["visual.proj"]
    return vector_with(files, folder, tensors)


BAD_VECTORS: list[tuple[Callable[[Files, Path], Path], str]] = [
    (lambda files, folder: folder / "missing.safetensors", "does not exist"),
    (lambda files, folder: vector_with(files, folder, architecture="a" * 16, model="clip_huge"), "clip_huge"),
    (lambda files, folder: vector_with(files, folder, base="c" * 20), "c" * 20),
    (lambda files, folder: vector_with(files, folder, format_version=99), "99"),
    (vector_of_nan, "NaN"),
    (vector_cut, "truncated"),
    (vector_without_a_tensor, "visual.proj"),
    (lambda files, folder: files.checkpoint, "not an explainability vector"),
    (bare_pickle, "nothing was executed"),
]


@pytest.mark.parametrize(("prepare", "wanted"), BAD_VECTORS)
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


def vit(folder: Path, depth: int = 4, **changes: Any) -> Path:
    """A ViT of the default model with random weights, with what it says of itself changed."""
    model = build(VitParams, composed("task=train", f"model.tower.depth={depth}")["model"], "model")
    said = build(VitParams, composed("task=train")["model"], "model")
    spec = describe(said, "classifier", "mnist_scattered", tuple("0123456789")).model_copy(update=changes)
    network_files.write(folder / "vit.safetensors", build_vit(model, 10, 0), spec)
    return folder / "vit.safetensors"


DECODER = TokenDecoder(kind="linear", depth=1, heads=2)
BAD_VITS: list[tuple[Callable[[Path], Path], str]] = [
    (lambda folder: folder / "missing.safetensors", "does not exist"),
    (lambda folder: vit(folder, depth=3), "does not fit model=vit_tiny"),
    (
        lambda folder: vit(folder, kind="vit_shapley", decoder=TokenDecoder(kind="linear", depth=1, heads=2)),
        "is a vit_shapley of 10 classes of mnist_scattered: a classifier",
    ),
    (lambda folder: vit(folder, classes=tuple("abcdefghij")), "a classifier of the 10 classes of data=mnist_"),
    (lambda folder: vit(folder, classes=("a", "b")), "is a classifier of 2 classes of mnist_scattered"),
    (lambda folder: bare_pickle(None, folder), "nothing was executed"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("asked", ["task=train", "study=salvage"])
@pytest.mark.parametrize(("prepare", "wanted"), BAD_VITS)
def test_a_bad_classifier_to_explain(run: Cli, asked: str, prepare: Callable[[Path], Path], wanted: str) -> None:
    path = prepare(run.folder)
    line = run.refused(asked, f"checkpoint={path}")
    assert wanted in line
    assert str(path) in line
    assert not (run.folder / "marker").exists()
    assert not list(run.folder.glob("outputs/**/*.safetensors"))


def test_a_clip_is_no_classifier_to_explain(run: Cli, files: Files) -> None:
    line = run.refused("study=salvage", f"checkpoint={files.checkpoint}")
    assert f"{files.checkpoint} holds a CLIP, and study=salvage needs a plain vision transformer" in line


def test_a_checkpoint_of_a_model_with_training_settings_of_its_own_asks_for_them(run: Cli) -> None:
    model = build(VitParams, {**composed("task=train")["model"], "name": "vit_b14_dinov2"}, "model")
    network_files.write(run.folder / "mine", build_vit(model, 10, 0), describe(model, "classifier", "x", CLASSES))
    line = run.refused("study=salvage", f"checkpoint={run.folder / 'mine'}")
    assert "is of model=vit_b14_dinov2, which has training settings of its own: add that" in line


# One file, one prediction.


def test_a_checkpoint_alone_is_enough_and_contradictions_are_refused(run: Cli, files: Files) -> None:
    colours().save(run.folder / "photo.png")
    vit_model = build(VitParams, composed("task=train", "model.mean=[0.1,0.2,0.3]")["model"], "model")
    cnn_model = build(CnnParams, composed("model=cnn_tiny", "model.crop=0.8")["model"], "model")
    network_files.write(Path("vit"), build_vit(vit_model, 10, 0), describe(vit_model, "classifier", "x", CLASSES))
    network_files.write(Path("cnn"), build_cnn(cnn_model, 10, 0), describe(cnn_model, "classifier", "x", CLASSES))
    common = ("task=explain", "image=photo.png", "logger=none", "refine=0", "objective.steps=3")
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
    model = build(VitParams, composed("task=train", "model.image_size=84")["model"], "model")
    network_files.write(Path("vit"), build_vit(model, 10, 0), describe(model, "classifier", "x", tuple("0123456789")))
    status, _, err = run("task=train", "checkpoint=vit", "logger=none", "data=mnist_scattered")
    assert (status, err) == (0, "")
    spec = network_files.read_spec(run.folder / "outputs" / "classifier" / "classifier.safetensors")
    assert spec is not None
    assert spec.model == shape_of(model)


# Pictures.


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


def heat_map_of(run: Cli, name: str = "photo") -> Path:
    """The one heat map of a picture."""
    (found,) = (run.folder / "outputs" / "explain").glob(f"{name}.*.png")
    return found


def colours(size: tuple[int, int] = (70, 50)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


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


def test_a_cnn_is_explained_by_an_explainer_and_refined(run: Cli) -> None:
    model = build(CnnParams, composed("model=cnn_tiny")["model"], "model")
    spec = describe(model, "classifier", "mnist_scattered", CLASSES)
    network_files.write(run.folder / "cnn.safetensors", build_cnn(model, 10, 0), spec)
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
