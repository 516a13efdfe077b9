import json
import struct
import time
from pathlib import Path

import pytest
import torch
import wandb
from PIL import Image
from safetensors.torch import save_file
from wandb.proto.wandb_internal_pb2 import Record

from xai.core.errors import UserError
from xai.core.loggers import LoggerParams, build_logger, close_logger, closing_logger, publish

_BLOCK = 1 << 15
"""Bytes of a block of W&B's file."""


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


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


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "night" / "seed=3"
    (folder / "figures").mkdir(parents=True)
    (folder / "salvage_table1.csv").write_text("row,srg\nsalvage,0.5\n")
    (folder / "empty.csv").write_text("")
    Image.new("RGB", (8, 8), "red").save(folder / "figures" / "one.png")
    save_file({"a": torch.ones(2)}, folder / "explainability_vector.safetensors")
    return folder


CONFIG = {
    "task": "study",
    "study": "salvage",
    "seed": 3,
    "data": {"name": "mnist"},
    "model": {"name": "vit"},
    "commit": "c0",
}


def test_wandb_hears_of_the_configuration_the_tables_the_pictures_and_the_networks(results: Path) -> None:
    logger = build_logger(LoggerParams("wandb", entity="lab", tags=("mine",)), results, "night", CONFIG)
    assert logger
    logger.log_metrics({"salvage/loss": 0.25}, 0)
    publish(logger, results)
    close_logger(True)
    found = records(results)
    (run,) = [each.run for each in found if each.WhichOneof("record_type") == "run"][:1]
    assert (run.display_name, run.run_group, run.job_type, run.entity) == ("night/seed=3", "night", "study", "lab")
    assert list(run.tags) == ["study", "salvage", "mnist", "vit", "seed=3", "mine"]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["data"] == {"name": "mnist"}
    assert config["commit"] == "c0"
    history = {
        ".".join(item.nested_key) or item.key: json.loads(item.value_json)
        for each in found
        if each.WhichOneof("record_type") == "history"
        for item in each.history.item
    }
    assert history.get("salvage/loss") == 0.25, sorted(history)
    assert history["tables/salvage_table1._type"] == "table-file"
    assert history["figures/one._type"] == "image-file"
    assert "tables/empty._type" not in history
    assert any("vector" in str(each) and "artifact" in str(each.WhichOneof("record_type")) for each in found)


def test_mlflow_hears_of_the_same(results: Path) -> None:
    pytest.importorskip("mlflow", reason="needs pip install -e '.[mlflow]'")
    logger = build_logger(LoggerParams("mlflow"), results, "night", CONFIG)
    assert logger
    logger.log_metrics({"salvage/loss": 0.25}, 0)
    publish(logger, results)
    (kept,) = (path.parent for path in results.rglob("artifacts/salvage_table1.csv"))
    assert (kept / "figures" / "one.png").is_file()
    assert (kept / "explainability_vector.safetensors").is_file()
    assert (kept.parent / "params" / "data" / "name").read_text() == "mnist"
    assert (kept.parent / "metrics" / "salvage" / "loss").read_text().split()[1] == "0.25"
    assert (kept.parent / "tags" / "mlflow.runName").read_text() == "night/seed=3"


def test_tensorboard_hears_of_tables_and_pictures(results: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = build_logger(LoggerParams("tensorboard"), results, "night", CONFIG)
    assert logger
    publish(logger, results)
    logger.finalize("success")
    read = accumulator.EventAccumulator(str(results / "tensorboard"))
    read.Reload()
    assert read.Tags()["images"] == ["figures/one"]
    assert "salvage_table1/text_summary" in read.Tags()["tensors"]
