import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.models.tiny_clip import classifier, pictures
from tests.stages.bench import DATA, MODEL, explained, runtime
from xai.core.errors import UserError
from xai.core.provenance import peak_memory, provenance
from xai.core.runtime import Runtime
from xai.results import read_result
from xai.stages.evaluation import Examination, Maps, evaluate, self_explanation

ROWS = torch.tensor([0, 2, 3, 5, 8])


def examination(bench: Runtime) -> Examination:
    return Examination(bench, MODEL, DATA, "test", explained(bench, "test", ROWS, seed=3))


def drawn() -> Maps:
    generator = torch.Generator().manual_seed(1)
    return Maps(torch.randn(5, 4, 4, generator=generator), torch.randn(5, 4, generator=generator))


def test_self_explanation_takes_the_column_asked_for_in_batches_of_any_size() -> None:
    model, images = classifier(), pictures(7)
    columns = torch.tensor([0, 4, 2, 2, 1, 3, 0])
    found = self_explanation(model, images, columns)
    assert found.logits is not None
    for row in range(7):
        logits, attributions = model.explain(images[row : row + 1])
        expected = attributions[0, :, columns[row]].reshape(4, 4)
        torch.testing.assert_close(found.attributions[row].double(), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.logits[row].double(), logits[0], rtol=1e-5, atol=1e-5)
    for batch in (1, 3):
        cut = self_explanation(model, images, columns, batch)
        torch.testing.assert_close(cut.attributions, found.attributions)
    assert found.attributions.dtype == torch.float32


def test_an_examination_holds_the_images_of_its_supervision(tmp_path: Path) -> None:
    given = examination(runtime(tmp_path))
    assert torch.equal(given.reference.rows, ROWS)
    assert torch.equal(given.reference.labels, DATA.source.labels("test")[ROWS])
    expected = DATA.source.images("test", ROWS, 0)
    assert torch.equal(given.images.pixels, expected.pixels)
    assert given.images.regions is not None
    assert expected.regions is not None
    assert torch.equal(given.images.regions, expected.regions)


def test_a_result_can_be_recomputed_from_its_tensors(tmp_path: Path) -> None:
    bench = runtime(tmp_path)
    given = examination(bench)
    params = {"alpha": 0.1, "lambda2": 0.8}
    made = evaluate(bench, given, "proposed", {"vector": "v"}, drawn, source="digits", seed=5, params=params)
    result = read_result(made.path)
    assert (result.role, result.data, result.source, result.model) == ("proposed", "shades", "digits", "tiny")
    assert (result.seed, result.split, result.n_images, result.params) == (5, "test", 5, params)
    assert result.lineage["made_from"] == {"vector": "v"}
    assert result.lineage["supervision"] == given.supervision.key
    assert result.lineage["explainer"] == "drawn"
    assert result.peak_memory_bytes > 10**7
    assert result.seconds > 0
    tensors = load_file(made.path / "attributions.safetensors")
    assert set(tensors) == {"attributions", "targets", "labels", "reference", "logits", "regions"}
    assert torch.equal(tensors["reference"], given.reference.attributions)
    assert torch.equal(tensors["labels"], given.reference.labels)
    correct = tensors["logits"].argmax(1) == tensors["labels"]
    assert result.metrics["accuracy"] == pytest.approx(float(correct.float().mean()))
    assert result.metrics["e_rmse"] == pytest.approx(_e_rmse(tensors["attributions"], tensors["reference"]), rel=1e-6)
    assert result.chance["accuracy"] == 0.25
    assert json.loads((made.path / "result.json").read_text())["metrics"]["e_rmse"] == result.metrics["e_rmse"]


def _e_rmse(maps: Tensor, reference: Tensor) -> float:
    errors = []
    for a, b in zip(maps.double().flatten(1), reference.double().flatten(1), strict=True):
        a, b = (a - a.mean()) / a.std(correction=0), (b - b.mean()) / b.std(correction=0)
        errors.append(float(((a - b) ** 2).mean()))
    return math.sqrt(sum(errors) / len(errors))


def test_maps_that_are_no_classifiers_have_no_accuracy(tmp_path: Path) -> None:
    bench = runtime(tmp_path)
    given = examination(bench)

    def constant() -> Maps:
        return Maps(torch.ones(5, 4, 4))

    made = evaluate(bench, given, "constant", {}, constant, source=None, seed=0, params={})
    result = read_result(made.path)
    assert "accuracy" not in result.metrics
    assert "accuracy" not in result.chance
    assert result.metrics["e_rmse"] == pytest.approx(1)
    assert "logits" not in load_file(made.path / "attributions.safetensors")


def test_maps_are_computed_once_and_anew_for_whatever_else_they_are_made_from(tmp_path: Path) -> None:
    bench = runtime(tmp_path)
    given = examination(bench)
    calls = []

    def counted() -> Maps:
        calls.append(1)
        return drawn()

    def asked(made_from: str, seed: int = 0, role: str = "proposed", **params: float) -> str:
        return evaluate(
            bench, given, role, {"vector": made_from}, counted, source="digits", seed=seed, params=params
        ).key

    keys = [asked("a"), asked("a"), asked("b"), asked("a", seed=1), asked("a", role="ink"), asked("a", lambda2=0.4)]
    assert len(set(keys)) == 5
    assert len(calls) == 5


def test_maps_that_are_no_numbers_leave_no_result(tmp_path: Path) -> None:
    bench = runtime(tmp_path)

    def broken() -> Maps:
        maps = drawn()
        maps.attributions[0, 0, 0] = math.nan
        return maps

    with pytest.raises(UserError):
        evaluate(bench, examination(bench), "proposed", {}, broken, source=None, seed=0, params={})
    assert not list((tmp_path / "store").glob("evaluation/*/result.json"))


def test_provenance_names_the_packages_that_make_the_numbers() -> None:
    found = provenance()
    assert torch.__version__.startswith(found["versions"]["torch"].split("+")[0])
    assert {"xai", "open_clip_torch", "pytorch-lightning"} <= set(found["versions"])
    assert found["commit"] is None or len(found["commit"]) == 40


def test_the_peak_is_in_bytes_on_every_system_and_of_the_device_that_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"ru_maxrss": 3000})
    monkeypatch.setattr("xai.core.provenance.resource.getrusage", lambda _: usage)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 7)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for platform, expected in (("linux", 3000 * 1024), ("darwin", 3000)):
        monkeypatch.setattr("xai.core.provenance.sys.platform", platform)
        assert peak_memory(torch.device("cpu")) == expected
    assert peak_memory(torch.device("cuda")) == 7


def test_the_method_is_a_label_and_no_part_of_the_key(tmp_path: Path) -> None:
    for folder, method in (("a", "transfer"), ("b", "baselines")):
        bench = runtime(tmp_path / folder)
        given = examination(bench)
        made = evaluate(bench, given, "ink", {}, drawn, source=None, seed=0, params={}, method=method)
        assert read_result(made.path).method == method
    assert made.key == evaluate(bench, given, "ink", {}, drawn, source=None, seed=0, params={}).key
