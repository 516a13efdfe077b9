"""The command line in this process and in an empty folder; a classifier and a vector."""

from pathlib import Path

import pytest
import torch

from tests.cli.shared import CLASSES, Cli, Files
from tests.composed import plain
from xai import vectors
from xai.core.entries import forget_removed
from xai.core.settings import build
from xai.models import files as network_files
from xai.models.clip import trainable
from xai.models.factory import build_clip, build_explainer
from xai.models.spec import describe
from xai.models.weights import architecture_hash
from xai.papers.vectors.base import ModelParams


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    forget_removed()  # stores of earlier tests of the process
    monkeypatch.chdir(tmp_path)
    return Cli(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("files")
    model = build(ModelParams, plain()["model"], "model")
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
