import dataclasses
import json
import math
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from xai.core.errors import UserError
from xai.results import Result, collect, read_result, read_tensors, write_result


def a_result(**changes):
    values = {
        "method": "transfer",
        "role": "proposed",
        "data": "mnist",
        "source": "digits",
        "model": "clip_tiny",
        "seed": 3,
        "params": {"alpha": 0.8, "lambda2": 0.7},
        "metrics": {"accuracy": 0.9, "e_rmse": 1.25},
        "n_images": 2,
        "seconds": 1.5,
        "peak_memory_bytes": 10**9,
        "split": "test",
        "chance": {"accuracy": 0.1},
        "lineage": {"commit": None, "versions": {"torch": "2"}},
    }
    return Result(**{**values, **changes})


def some_tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "attributions": torch.randn(2, 3, 3, generator=generator),
        "labels": torch.tensor([1, 7]),
        "regions": torch.ones(2, 6, 6, dtype=torch.uint8),
    }


def test_what_is_written_is_read(tmp_path):
    result, tensors = a_result(), some_tensors()
    write_result(tmp_path, result, tensors)
    assert read_result(tmp_path) == result
    read = read_tensors(tmp_path)
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_undefined_metrics_are_null_in_strict_json(tmp_path):
    metrics = {"accuracy": 0.5, "rma": math.nan, "kendall": math.inf}
    write_result(tmp_path, a_result(metrics=metrics, chance={"rma": math.nan}), some_tensors())

    def refuse(name):
        raise AssertionError(name)

    record = json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)
    assert record["metrics"] == {"accuracy": 0.5, "rma": None, "kendall": None}
    assert record["chance"] == {"rma": None}
    read = read_result(tmp_path).metrics
    assert read["accuracy"] == 0.5
    assert math.isnan(read["rma"])


def test_views_are_saved_without_what_they_are_a_view_of(tmp_path):
    large = torch.zeros(1000, 8, 8)
    write_result(
        tmp_path, a_result(), {"attributions": torch.arange(9.0).reshape(3, 3).expand(2, 3, 3), "x": large[:2]}
    )
    assert (tmp_path / "attributions.safetensors").stat().st_size < 2000
    with safe_open(tmp_path / "attributions.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("attributions")[1], torch.arange(9.0).reshape(3, 3))


def test_one_tensor_under_two_names_is_written_twice(tmp_path):
    labels = torch.tensor([1, 7])
    write_result(tmp_path, a_result(), {"attributions": torch.zeros(2, 1, 1), "labels": labels, "targets": labels})
    read = read_tensors(tmp_path)
    assert torch.equal(read["labels"], labels)
    assert torch.equal(read["targets"], labels)


@pytest.mark.parametrize("name", ["result.json", "attributions.safetensors"])
def test_a_failed_write_keeps_the_earlier_file(tmp_path, monkeypatch, name):
    write_result(tmp_path, a_result(), some_tensors())
    before = (tmp_path / name).read_bytes()
    replace = os.replace

    def full(source, target):
        if Path(target).name == name:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write_result(tmp_path, a_result(seed=4), {"attributions": torch.ones(2, 1, 1)})
    assert (tmp_path / name).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attributions.safetensors", "result.json"]


@pytest.mark.parametrize(
    ("result", "tensors", "message"),
    [
        (a_result(), {"labels": torch.zeros(2)}, "needs the tensor attributions"),
        (a_result(), {"attributions": torch.zeros(3, 1, 1)}, r"\(3, 1, 1\)"),
        (a_result(), {"attributions": torch.tensor(1.0)}, "2 images"),
        (a_result(params={"alpha": math.nan}), {"attributions": torch.zeros(2, 1, 1)}, "strict JSON"),
        (a_result(lineage={"made": {1, 2}}), {"attributions": torch.zeros(2, 1, 1)}, "strict JSON"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path, result, tensors, message):
    with pytest.raises(UserError, match=message):
        write_result(tmp_path, result, tensors)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("", "not strict JSON"),
        ("{", "not strict JSON"),
        ("[1]", "holds a list"),
        ("NaN", "NaN"),
        (lambda r: r.pop("seed"), "has no seed"),
        (lambda r: r.update(seed="3"), 'seed is "3"'),
        (lambda r: r.update(seed=True), "seed is true"),
        (lambda r: r.update(role=None), "role is null"),
        (lambda r: r.update(metrics={"accuracy": "high"}), "metrics"),
        (lambda r: r.update(params={"alpha": None}), "params"),
        (lambda r: r.update(lineage=[]), "lineage"),
    ],
)
def test_a_garbled_record_is_one_line(tmp_path, change, message):
    write_result(tmp_path, a_result(), some_tensors())
    path = tmp_path / "result.json"
    if callable(change):
        record = json.loads(path.read_text())
        change(record)
        change = json.dumps(record)
    path.write_text(change)
    with pytest.raises(UserError, match=message) as error:
        read_result(tmp_path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_bytes_that_are_no_text_are_garbled(tmp_path):
    write_result(tmp_path, a_result(), some_tensors())
    (tmp_path / "result.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not strict JSON"):
        read_result(tmp_path)


def test_unknown_keys_of_a_later_version_are_passed_over(tmp_path):
    write_result(tmp_path, a_result(), some_tensors())
    path = tmp_path / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "blue"}))
    assert read_result(tmp_path) == a_result()


@pytest.mark.parametrize("name", ["result.json", "attributions.safetensors"])
def test_a_missing_file_is_named(tmp_path, name):
    write_result(tmp_path, a_result(), some_tensors())
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"holds no {name}"):
        read_result(tmp_path)


def test_tensors_missing_or_truncated(tmp_path):
    with pytest.raises(UserError, match="holds no attributions"):
        read_tensors(tmp_path)
    write_result(tmp_path, a_result(), some_tensors())
    path = tmp_path / "attributions.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match="no whole safetensors"):
        read_tensors(tmp_path)


def test_collect_reads_all_that_is_whole_in_order(tmp_path):
    for name, seed in (("b/x", 1), ("a", 0), ("k.partial", 2), ("k.damaged-1", 3)):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        write_result(folder, a_result(seed=seed), some_tensors())
    assert [result.seed for result in collect(tmp_path)] == [0, 1]
    assert [result.seed for result in collect(tmp_path / "a")] == [0]


def test_collect_of_nothing_is_refused(tmp_path):
    for root in (tmp_path, Path(tmp_path / "missing")):
        with pytest.raises(UserError, match=r"no result\.json"):
            collect(root)


def test_the_record_holds_every_field(tmp_path):
    write_result(tmp_path, a_result(), some_tensors())
    record = json.loads((tmp_path / "result.json").read_text())
    assert set(record) == {field.name for field in dataclasses.fields(Result)}
