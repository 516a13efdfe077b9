import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.classifiers.tiny import DATA, FIT, MODEL, Shades, of_a_job, runtime
from tests.papers.vectors.test_transfer import PARAMS
from tests.study.explaining import register, row
from tests.toolbox import refusal
from xai.core.errors import UserError
from xai.data.catalogue import OpenData
from xai.explainers.registry import Row
from xai.explainers.rows import open_row
from xai.models import files as networks
from xai.models.factory import build_clip, build_explainer
from xai.models.spec import describe
from xai.models.weights import write_weights
from xai.papers.vectors import base as base_stage
from xai.papers.vectors.base import ModelParams
from xai.papers.vectors.fine_tuning import Domain
from xai.papers.vectors.transfer import TransferParams
from xai.study.case import Case
from xai.study.maps import Maps, explain
from xai.tasks import supervise
from xai.tasks.supervise import Supervise, SuperviseSettings, _row

OUTPUT = ("supervision.json", "supervision.safetensors")


class Reversed(Shades):
    """The same images, with the classes in another order."""

    classes = Shades.classes[::-1]


def classifier(path: Path, seed: int = 0, model: ModelParams = MODEL) -> Path:
    """A classifier file of the data set, with random weights."""
    head = torch.randn(12, 4, generator=torch.Generator().manual_seed(seed))
    spec = describe(model, "classifier", DATA.name, DATA.source.classes, base="b")
    networks.write(path, build_explainer(model, build_clip(model, seed), head), spec)
    return path


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the explainer called `drawn` writes down; beside it a classifier to explain."""
    register(monkeypatch, tmp_path / "journal")
    classifier(tmp_path / "classifier.safetensors")
    return tmp_path / "journal"


def job(folder: Path, data: OpenData = DATA, drawn: Row | None = None, **changes: Any) -> Supervise:
    """A job that explains the test split of a classifier file, with the explainer called `drawn`."""
    asked = {
        **of_a_job("supervise", folder),
        "supervision": "drawn",
        "explainers": {},
        "transfer": fitted_for(2),
        "checkpoint": str(folder / "classifier.safetensors"),
        "split": "test",
        "images": None,
        "block": 2,
    }
    return Supervise(SuperviseSettings(**(asked | changes)), runtime(folder), data, drawn or row(1.5))


def fitted_for(epochs: int) -> TransferParams:
    return replace(PARAMS, target_fit=replace(FIT, epochs=epochs), target_images=8)


def run(folder: Path, **changes: Any) -> tuple[int, ...]:
    (folder / "out").mkdir(exist_ok=True)
    return job(folder, **changes).run(folder / "out")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


def test_the_folder_holds_the_attributions_and_what_they_are(tmp_path: Path, journal: Path) -> None:
    assert run(tmp_path) == (9, 4, 4)
    (artifact,) = (tmp_path / "store" / "maps").iterdir()
    files = content(tmp_path)
    assert tuple(sorted(files)) == OUTPUT
    written, kept = load_file(tmp_path / "out" / OUTPUT[1]), load_file(artifact / "maps.safetensors")
    assert sorted(written) == ["attributions", "labels", "rows"]
    assert all(torch.equal(kept[name], value) for name, value in written.items())
    about = json.loads(files[OUTPUT[0]])
    made_from = about["made_from"]
    assert made_from["data"] == {"name": "shades"}
    assert (made_from["split"], made_from["images"], made_from["block"]) == ("test", None, 2)
    assert (made_from["seed"], made_from["precision"]) == (3, "32-true")
    assert made_from["explainers"] == {"drawn": {"name": "drawn", "gain": 3.0}}
    assert (about["key"], about["n_images"], about["grid"]) == (artifact.name, 9, [4, 4])
    assert about["seconds"] == json.loads((artifact / "artifact.json").read_text())["seconds"] > 0
    assert "torch" in about["versions"]


def test_a_second_run_reads(tmp_path: Path, journal: Path) -> None:
    run(tmp_path)
    files, begun = content(tmp_path), journal.read_text()
    (tmp_path / "out" / OUTPUT[1]).unlink()
    run(tmp_path)
    assert content(tmp_path) == files
    assert journal.read_text() == begun


def test_what_a_user_does_to_the_folder_leaves_the_store_whole(tmp_path: Path, journal: Path) -> None:
    run(tmp_path)
    file = tmp_path / "out" / OUTPUT[1]
    with open(file, "r+b") as open_file:
        open_file.write(b"mine")
    begun = journal.read_text()
    run(tmp_path)
    assert load_file(file)["attributions"].shape == (9, 4, 4)
    assert journal.read_text() == begun


def test_without_a_checkpoint_the_classifier_is_the_one_that_a_transfer_fine_tunes(tmp_path: Path) -> None:
    removal = {"kind": "tokens", "reference": "mean"}
    settings = {"coalitions": 40, "evaluation_coalitions": 40, "output": "logit", "removal": removal}
    params = open_row("kernel_shap", settings)
    run(tmp_path, checkpoint=None, drawn=params)
    own_runtime = runtime(tmp_path)
    theta = base_stage.load(MODEL, base_stage.base_weights(own_runtime, MODEL, 3))
    found = Domain(own_runtime, MODEL, theta, DATA).fine_tune(FIT, 3, images=8)
    assert own_runtime.store.made == []
    assert json.loads(content(tmp_path)[OUTPUT[0]])["classifier"] == found.key
    with pytest.raises(UserError, match=r"classifier\.fit\.epochs=2, this run asks for 3: choose"):
        run(tmp_path, checkpoint=None, drawn=params, transfer=fitted_for(3))
    # The file of that classifier is the same classifier.
    other = tmp_path / "other"
    other.mkdir()
    run(other, checkpoint=str(found.file("classifier.safetensors")), drawn=params)
    for name, tensor in load_file(tmp_path / "out" / OUTPUT[1]).items():
        assert torch.equal(load_file(other / "out" / OUTPUT[1])[name], tensor)


@pytest.mark.parametrize(
    ("spec", "file", "given", "expected"),
    [
        ({"fit": "crop"}, "file", {}, None),
        ({"fit": "crop"}, "file", {"removal": {"kind": "pixels", "reference": "0.25"}}, "0.25"),
        ({"fit": "crop"}, None, {}, "0.25"),  # as study=vectors has it
        ({"fit": "crop"}, None, {"removal": {"reference": "mean"}}, "mean"),
        ({"ground": 0.25}, None, {}, "0.25"),
        ({"ground": 0.25}, "file", {}, "0.25"),
    ],
)
def test_patches_of_photographs_are_removed_as_the_classifier_of_a_file_does_it(
    spec: dict[str, Any],
    file: str | None,
    given: dict[str, Any],
    expected: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked: Any = SimpleNamespace(supervision="kernel_shap", explainers={"kernel_shap": given}, checkpoint=file)
    removal = _row(asked, OpenData("pets", spec, Shades())).params.classifier_removal
    assert (removal and removal.reference) == expected
    grey_unasked = file is None and "fit" in spec and not given
    assert ("explainers.kernel_shap.removal.reference=mean" in caplog.text) == grey_unasked


BRIGHTER = replace(MODEL, mean=(0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gain": 2.0}, "explainers.drawn.gain=3, this run asks for 4: choose"),
        ({"block": 3}, "block=2, this run asks for 3:"),
        ({"data": OpenData("shapes", {"name": "shapes"}, Shades())}, 'data.name="shades", this run asks for "shapes"'),
        (
            {"data": OpenData("shades", {"name": "shades", "fingerprint": "f"}, Shades())},
            'data.fingerprint=nothing, this run asks for "f"',
        ),
        ({"split": "train"}, 'split="test", this run asks for "train" (settings that differ: 2): choose'),
        ({"images": 4}, "images=null, this run asks for 4"),
        ({"seed": 4}, "seed=3, this run asks for 4"),
        ({"model": BRIGHTER}, "model.mean=[0.5,0.4,0.3], this run asks for [0.5,0.5,0.5]"),
        ({"checkpoint": None}, "this run asks for null"),
    ],
)
def test_a_folder_made_from_something_else_is_refused_before_any_work(
    tmp_path: Path, journal: Path, changes: dict[str, Any], message: str
) -> None:
    run(tmp_path)
    files, begun = content(tmp_path), journal.read_text()
    store = sorted((tmp_path / "store").rglob("*"))
    said = refusal(run, tmp_path, drawn=row(changes.pop("gain", 1.5)), **changes)
    assert "out holds attributions with " in said
    assert message in said
    assert said.endswith(": choose another name=... or remove supervision.json there")
    assert content(tmp_path) == files
    assert journal.read_text() == begun
    assert sorted((tmp_path / "store").rglob("*")) == store


def test_another_classifier_under_the_same_name_is_refused(tmp_path: Path, journal: Path) -> None:
    run(tmp_path)
    classifier(tmp_path / "classifier.safetensors", 1)
    assert "holds attributions with classifier.checkpoint=" in refusal(run, tmp_path)
    (tmp_path / "out" / OUTPUT[0]).unlink()
    before = journal.read_text()
    run(tmp_path)
    assert journal.read_text() == 2 * before


def test_other_base_weights_behind_the_same_settings_are_refused(tmp_path: Path, journal: Path) -> None:
    run(tmp_path)
    about = json.loads(content(tmp_path)[OUTPUT[0]])
    (tmp_path / "out" / OUTPUT[0]).write_text(json.dumps(about | {"key": "0" * 20}))
    shutil.rmtree(tmp_path / "store")
    before = journal.read_text()
    with pytest.raises(UserError, match=rf"attributions of another classifier \(0+, this run makes {about['key']}\)"):
        run(tmp_path)
    assert journal.read_text() == before


def test_a_folder_that_another_run_has_taken_meanwhile_is_left_to_it(
    tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(case: Case, asked: Row) -> Maps:
        monkeypatch.setattr(supervise, "explain", explain)
        run(tmp_path, seed=4)
        return explain(case, asked)

    monkeypatch.setattr(supervise, "explain", overtaken)
    assert "holds attributions with seed=4, this run asks for 3" in refusal(run, tmp_path)
    assert json.loads(content(tmp_path)[OUTPUT[0]])["made_from"]["seed"] == 4
    assert len(list((tmp_path / "store" / "maps").iterdir())) == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"made_from": 3, "key": "k"}', '{"made_from": {}}'])
def test_a_folder_that_does_not_say_what_it_holds_is_refused(tmp_path: Path, journal: Path, text: str) -> None:
    run(tmp_path)
    (tmp_path / "out" / OUTPUT[0]).write_text(text)
    with pytest.raises(
        UserError, match=r"supervision\.json does not say what .*: choose another name=\.\.\. or remove"
    ):
        run(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 10, "checkpoint": None}, "10 images were asked for, the test split has 9"),
        ({"data": OpenData("reversed", {"name": "reversed"}, Reversed())}, "tells 4 classes of shades apart"),
        ({"checkpoint": "nowhere.safetensors"}, "nowhere.safetensors does not exist"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    tmp_path: Path, journal: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path, **changes)
    assert content(tmp_path) == {}
    assert not list((tmp_path / "store").glob("[a-z]*"))


def test_a_file_that_says_nothing_of_itself_is_refused(tmp_path: Path, journal: Path) -> None:
    write_weights(tmp_path / "classifier.safetensors", build_clip(MODEL).state_dict(), {})
    assert "classifier.safetensors says nothing of itself" in refusal(run, tmp_path)


def test_models_that_differ_beyond_their_tensors_do_not_share_attributions(tmp_path: Path, journal: Path) -> None:
    run(tmp_path)
    before = journal.read_text()
    (tmp_path / "out" / OUTPUT[0]).unlink()
    classifier(tmp_path / "classifier.safetensors", model=BRIGHTER)
    run(tmp_path, model=BRIGHTER)
    assert journal.read_text() == 2 * before
