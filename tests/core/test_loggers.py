import json
import struct
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import wandb
import yaml
from lightning_fabric.utilities.rank_zero import rank_zero_only
from PIL import Image
from safetensors.torch import save_file
from wandb.proto.wandb_internal_pb2 import Record

from tests.toolbox import cases, seeded
from xai.app import closing_logger
from xai.core.errors import UserError
from xai.core.loggers import LoggerParams, _has_key, build_logger
from xai.core.optimisation import FitParams
from xai.core.publish import _of_artifact, lineage, publish
from xai.core.store import Store
from xai.core.training import TrainerParams, fit
from xai.data.module import Batch, ImageDataModule
from xai.data.registry import Images
from xai.methods.learner import Learner

_BLOCK = 1 << 15
"""Bytes of a block of W&B's file."""


class Run:
    """What W&B holds while a job runs."""


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []
    monkeypatch.setattr(wandb, "run", Run())
    monkeypatch.setattr(wandb, "finish", lambda exit_code: codes.append(exit_code))
    return codes


def test_a_job_that_ends_well_finishes_its_run(finished: list[int]) -> None:
    with closing_logger():
        assert finished == []
    assert finished == [0]


@pytest.mark.parametrize("error", [UserError("wrong"), KeyboardInterrupt()])
def test_a_job_that_fails_finishes_its_run_and_keeps_its_error(finished: list[int], error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, closing_logger():
        raise error
    assert caught.value is error
    assert finished == [1]


def test_without_a_run_nothing_is_finished(finished: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "run", None)
    with closing_logger():
        pass
    assert finished == []


def test_what_wandb_refuses_is_told_with_a_way_out(finished: list[int]) -> None:
    with pytest.raises(UserError, match=r"no key.*WANDB_MODE=offline or logger=csv"), closing_logger():
        raise wandb.errors.UsageError("no key")
    assert finished == [1]


@pytest.mark.parametrize(("server", "known", "expected"), cases(__file__, "keys.txt"))
def test_a_key_counts_for_the_server_that_it_is_of(
    server: str, known: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", server)
    if known is not None:
        (tmp_path / "netrc").write_text(known)
    try:
        assert str(_has_key()) == expected
    finally:
        wandb.teardown()  # it has read the environment of this test


def test_without_a_key_nothing_leaves_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wandb.teardown()
    try:
        logger = build_logger(LoggerParams("wandb", group="g" * 200, tags=("é" * 65, "")), tmp_path, "имя" * 60, CONFIG)
        assert logger
        run = logger.experiment
        assert run.offline
        assert max(map(len, run.tags)) <= 64
        assert len(run.group) == 128 > len(run.name) > 64
    finally:
        wandb.finish(exit_code=0)
        wandb.teardown()


def test_disabled_means_no_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert build_logger(LoggerParams("wandb"), tmp_path, "job") is False
    assert build_logger(LoggerParams("csv"), tmp_path, "job") is not False


def records(folder: Path) -> list[Record]:
    """What an offline run of W&B has written, whose own process may be writing for a moment after the run's end."""
    (path,) = folder.rglob("*.wandb")
    found: list[Record] = []
    deadline = time.monotonic() + 60
    while not any(each.WhichOneof("record_type") == "exit" for each in found):
        assert time.monotonic() < deadline, "W&B has not written the end of the run"
        time.sleep(0.1)
        found = _read(path.read_bytes())
    return found


def _read(content: bytes) -> list[Record]:
    """Records in the log format of LevelDB, around protocol buffers."""
    at, found, parts = 7, [], b""
    while at + 7 <= len(content):
        if _BLOCK - at % _BLOCK < 7:  # what is left of a block holds no header
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(Record.FromString(parts))
            parts = b""
    return found


SPEC = {"network": {"seed": 3}}


def written(outputs: Path) -> tuple[Path, Store]:
    """The folder of a run with a table, a picture and a network, and a store: one artifact found, two made from it."""
    folder = outputs / "outputs" / "night" / "seed=3"
    (folder / "figures").mkdir(parents=True)
    (folder / "salvage_table1.csv").write_text("row,srg\nsalvage,0.5\n")
    (folder / "empty.csv").write_text("")
    Image.new("RGB", (8, 8), "red").save(folder / "figures" / "one.png")
    save_file({"a": torch.ones(2)}, folder / "explainability_vector.safetensors")

    def make(workdir: Path) -> None:
        (workdir / "network.bin").write_bytes(b"weights")

    Store(outputs / "store").get("classifier", SPEC, make)
    store = Store(outputs / "store")
    classifier = store.get("classifier", SPEC, make)
    for kind in ("explainer", "scores"):
        store.get(kind, {"classifier": classifier.key}, make)
    return folder, store


@pytest.fixture
def results(tmp_path: Path) -> tuple[Path, Store]:
    return written(tmp_path)


CONFIG = {
    "task": "study",
    "study": "salvage",
    "seed": 3,
    "data": {"name": "mnist"},
    "model": {"name": "vit"},
    "tables": ("salvage_table1",),
    "commit": "c0",
    "command": "python run.py",
}


class Line(Learner):
    """Three classes told apart by the mean of each channel."""

    def __init__(self, params: FitParams) -> None:
        super().__init__(params, 0, "salvage")
        self.body = torch.nn.Linear(3, 3)

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self.body(batch.pixels.mean((2, 3))), batch.labels)


class Colours:
    classes, templates, varies = ("a", "b", "c"), ("{}",), False

    def labels(self, split: str) -> torch.Tensor:
        return torch.arange(12) % 3

    def images(self, split: str, indices: torch.Tensor, epoch: int) -> Images:
        return Images(torch.rand(12, 3, 4, 4, generator=seeded())[indices], None)


def train(logger: Any, workdir: Path) -> None:
    """Two epochs of twelve steps, the best one kept."""
    params = FitParams(2, 1, learning_rate=1e-2, weight_decay=0.0, warmup=0.0, clip=1e-3, keep="best")
    data = ImageDataModule(Colours(), 4, 1, seed=0)
    fit(Line(params), data, params, TrainerParams(accelerator="cpu"), workdir, "training", logger)


CURVES = ("loss", "validation_loss", "best_validation_loss", "learning_rate", "gradient_norm")


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Store, list[Record]]:
    """What W&B has written of a run that trains and ends."""
    folder = tmp_path_factory.mktemp("wandb")
    results, store = written(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_X_STATS_SAMPLING_INTERVAL", "0.1")
        logger = build_logger(LoggerParams("wandb", entity="lab", tags=("mine",)), results, "night", CONFIG)
        assert logger
        train(logger, folder / "work")
        publish(logger, results, store)
        time.sleep(2)  # for a look at the machine
        wandb.finish(exit_code=0)
    return results, store, records(results)


def of_kind(found: list[Record], kind: str) -> list[Any]:
    return [getattr(each, kind) for each in found if each.WhichOneof("record_type") == kind]


def test_wandb_hears_of_the_configuration_the_sweep_and_the_kind_of_job(heard: Any) -> None:
    run = of_kind(heard[2], "run")[0]
    assert (run.display_name, run.run_group, run.job_type, run.entity) == ("night/seed=3", "night", "study", "lab")
    assert list(run.tags) == ["study", "salvage", "salvage_table1", "mnist", "vit", "seed=3", "mine"]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert {key: config[key] for key in CONFIG} == {**CONFIG, "tables": ["salvage_table1"]}


def test_wandb_hears_of_curves_tables_pictures_and_the_machine(heard: Any) -> None:
    history = {
        ".".join(item.nested_key) or item.key: json.loads(item.value_json)
        for each in of_kind(heard[2], "history")
        for item in each.item
    }
    for name in CURVES:
        assert history[f"salvage/{name}"] > 0, name
    assert history["salvage/best_validation_loss"] <= history["salvage/validation_loss"]
    assert history["salvage/gradient_norm"] > 1e-3  # as it was before it is clipped
    assert {history[f"tables/{name}._type"] for name in ("salvage_table1", "lineage")} == {"table-file"}
    assert history["figures/one._type"] == "image-file"
    assert "tables/empty._type" not in history
    measured = {item.key for each in of_kind(heard[2], "stats") for item in each.item}
    assert any("memory" in name for name in measured), measured


def test_wandb_hears_what_was_used_and_what_was_made_of_it(heard: Any) -> None:
    _, store, found = heard
    artifacts = {each.name: each for each in of_kind(found, "artifact") if not each.name.startswith("run-")}
    (classifier,), (explainer, _) = store.found, store.made
    used, made = artifacts[f"classifier-{classifier.key}"], artifacts[f"explainer-{explainer.key}"]
    assert (used.type, used.use_after_commit) == ("classifier", True)
    assert (made.type, made.use_after_commit) == ("explainer", False)
    assert json.loads(made.metadata)["made_from"] == [classifier.key]
    assert [entry.path for entry in made.manifest.contents] == ["artifact.json"]
    vector = artifacts["night-seed-3-explainability_vector"]
    assert (vector.type, vector.use_after_commit) == ("vector", False)
    assert [entry.path for entry in vector.manifest.contents] == ["explainability_vector.safetensors"]
    assert not any(name.startswith("scores-") for name in artifacts)


def told_to(kind: Any, folder: Path, store: Store) -> Any:
    """A logger that has heard of a run which trains and ends."""
    logger = build_logger(LoggerParams(kind), folder, "night", CONFIG)
    assert logger
    train(logger, folder.parent / "work")
    publish(logger, folder, store)
    return logger


def test_mlflow_hears_of_the_same(results: tuple[Path, Store]) -> None:
    pytest.importorskip("mlflow", reason="needs pip install -e '.[mlflow]'")
    folder, store = results
    told_to("mlflow", folder, store)
    (kept,) = (path.parent for path in folder.rglob("artifacts/salvage_table1.csv"))
    assert (kept / "figures" / "one.png").is_file()
    assert (kept / "explainability_vector.safetensors").is_file()
    assert (kept / "lineage.csv").read_text() == lineage(store).to_csv(index=False)
    run = kept.parent
    assert (run / "params" / "data" / "name").read_text() == "mnist"
    assert float((run / "metrics" / "salvage" / "loss").read_text().split()[1]) > 0
    assert {path.name for path in (run / "metrics" / "salvage").iterdir()} >= set(CURVES)
    told = {name: (run / "tags" / name).read_text() for name in ("mlflow.runName", "group", "commit", "job_type")}
    assert told == {"mlflow.runName": "night/seed=3", "group": "night", "commit": "c0", "job_type": "study"}
    assert "salvage_table1" in (run / "tags" / "tags").read_text()


def test_tensorboard_hears_of_the_same(results: tuple[Path, Store]) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder, store = results
    told_to("tensorboard", folder, store).finalize("success")
    read = accumulator.EventAccumulator(str(folder / "tensorboard"))
    read.Reload()
    assert read.Tags()["images"] == ["figures/one"]
    assert set(read.Tags()["scalars"]) >= {f"salvage/{name}" for name in CURVES}
    told = {name: read.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode()
            for name in ("salvage_table1", "lineage", "config")}  # fmt: skip
    assert "0.5" in told["salvage_table1"]
    assert store.found[0].key in told["lineage"]
    assert "commit: c0" in told["config"]
    assert yaml.safe_load((folder / "tensorboard" / "hparams.yaml").read_text())["data"] == {"name": "mnist"}


@pytest.mark.parametrize("rank", [0, 3])
def test_csv_files_hear_of_the_same(results: tuple[Path, Store], rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", rank)  # as Lightning finds it in what torchrun says
    folder, store = results
    told_to("csv", folder, store)
    assert set(pd.read_csv(folder / "csv" / "metrics.csv")) >= {f"salvage/{name}" for name in CURVES}
    assert yaml.safe_load((folder / "csv" / "hparams.yaml").read_text()) == {**CONFIG, "tables": ["salvage_table1"]}
    told = pd.read_csv(folder / "csv" / "lineage.csv")
    assert list(told["kind"]) == ["classifier", "explainer", "scores"]
    assert list(told["made"]) == [False, True, True]
    assert set(told["made_from"][1:]) == {told["key"][0]}


def test_a_run_of_a_long_name_has_artifacts_of_wandb() -> None:
    names = [_of_artifact(f"{name}-classifier") for name in ("a" * 200, "b" + "a" * 199, "имя, ()", "short")]
    assert len(set(names)) == 4
    assert names[-1] == "short-classifier"
    for name in names:
        assert name.endswith("-classifier")
        wandb.Artifact(name, type="network")  # refuses what is longer than 128 or has other letters
