from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.classifiers.tiny import DATA, MODEL, base, runtime
from tests.study.shades import Unseen
from xai import vectors
from xai.core.common import LoggerParams
from xai.core.errors import UserError
from xai.data.catalogue import OpenData
from xai.models import files
from xai.models.clip import trainable
from xai.models.spec import describe
from xai.models.weights import architecture_hash
from xai.papers.vectors import base as base_stage
from xai.papers.vectors.fine_tuning import Domain
from xai.tasks.apply_vector import Applied, ApplyParams, ApplySettings, apply_vector

TAG = "b" * 20


class Folder:
    """A classifier, the same as a stranger's file, and a vector."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.own_runtime = root, runtime(root)
        theta_base = base(self.own_runtime)
        monkeypatch.setattr(base_stage, "base_weights", lambda *_: theta_base.artifact)
        network = Domain(self.own_runtime, MODEL, theta_base, DATA).assemble(None)
        self.theta = trainable(network)
        architecture = architecture_hash(self.theta)
        self.spec = describe(MODEL, "classifier", DATA.name, DATA.source.classes, base=TAG)
        self.own, self.foreign = root / "own.safetensors", root / "foreign.safetensors"
        files.write(self.own, network, self.spec)
        explains = self.spec.model_copy(update={"kind": "self_explaining"})
        files.write(root / "explains.safetensors", network, explains)
        save_file({name: value.contiguous() for name, value in self.theta.items()}, self.foreign)
        tau = vectors.random_like(self.theta, torch.Generator().manual_seed(0))
        labels = {"source": "s", "alpha": 0.1, "seed": 0, "ft": "f", "ft_star": "e", "xai_version": "0"}
        info = vectors.VectorInfo(model=MODEL.name, architecture=architecture, base=TAG, **labels)  # type: ignore[arg-type]
        self.tau = tau
        vectors.save_vector(root / "vector.safetensors", tau, info)

    def apply(self, checkpoint: Path, output: str, again: bool = False, data: OpenData = DATA) -> Applied:
        folder = self.root / output
        folder.mkdir()
        how, vector = ApplyParams(1.0, 0.5, again), str(self.root / "vector.safetensors")
        common = ("apply_vector", output, 0, str(self.root), self.own_runtime.trainer, LoggerParams("none"), ())
        asked = ApplySettings(*common, MODEL, None, vector, str(checkpoint), how)
        return apply_vector(asked, self.own_runtime, data, folder)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return Folder(tmp_path, monkeypatch)


def test_the_vector_is_added_and_the_base_kept(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    applied = folder.apply(folder.own, "out")
    assert files.load(applied.file).spec == folder.spec.model_copy(update={"kind": "self_explaining"})
    written = load_file(applied.file)
    for name, value in folder.theta.items():
        torch.testing.assert_close(written[name], value + 0.5 * folder.tau[name])
    assert not caplog.records


def test_the_base_of_a_strangers_file_stays_unknown(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    applied = folder.apply(folder.foreign, "out")
    assert files.load(applied.file).spec.made_by.base == ""
    caplog.clear()
    folder.apply(applied.file, "again", again=True)
    messages = [record.getMessage() for record in caplog.records]
    assert any("nobody knows what this model=tiny was fine-tuned from" in message for message in messages)


def test_a_classifier_that_explains_gets_another_vector_only_where_it_is_asked_for(folder: Folder) -> None:
    once = folder.root / "explains.safetensors"
    with pytest.raises(UserError, match=r"explains itself already: .*apply_vector\.again=true"):
        folder.apply(once, "out")
    before, after = load_file(once), load_file(folder.apply(once, "twice", again=True).file)
    for name, value in folder.tau.items():
        torch.testing.assert_close(after[name], before[name] + 0.5 * value)


def test_a_data_set_without_images_to_measure_on_is_refused(folder: Folder) -> None:
    unseen = replace(DATA, source=Unseen())
    with pytest.raises(UserError, match="the test split of data=shades has no images to measure on"):
        folder.apply(folder.own, "out", data=unseen)


def test_a_file_without_its_head_is_refused_in_a_line(folder: Folder) -> None:
    with safe_open(folder.own, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(folder.own)
    del tensors["head"]
    save_file(tensors, folder.own, metadata)
    with pytest.raises(UserError, match=r"1 of its .* missing \(head\)"):
        folder.apply(folder.own, "out")
