from pathlib import Path

import pytest
import torch

from tests.stages.bench import DATA, MODEL, base, lab
from xai.artifacts import Artifact
from xai.models.checkpoint import ClassifierInfo, write_classifier
from xai.models.maskable import Removal
from xai.stages import supervision
from xai.stages.classifier import assemble
from xai.stages.context import Lab
from xai.stages.supervision import SupervisionParams, load, supervise

PARAMS = SupervisionParams("kernel_shap", 40, 40, "logit", Removal("tokens"), 4)


def run(bench: Lab) -> Artifact:
    theta = base(bench)

    def make(work: Path) -> None:
        network = assemble(bench, MODEL, theta, DATA, None)
        info = ClassifierInfo(MODEL.name, "a", "b", DATA.name, tuple(DATA.source.classes), False)
        write_classifier(work / "classifier.safetensors", network, info)

    classifier = bench.store.get("classifier", {}, make)
    return supervise(bench, MODEL, theta, classifier, DATA, "test", PARAMS, 0)


def test_a_block_cut_short_by_a_kill_is_computed_anew_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = load(run(lab(tmp_path / "whole")))
    bench, calls, real = lab(tmp_path / "killed"), [], supervision.kernel_shap

    def counted(*arguments: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(supervision, "kernel_shap", counted)
    with pytest.raises(KeyboardInterrupt):
        run(bench)
    first, _ = sorted((tmp_path / "killed").rglob("scratch/00000*.safetensors"))
    first.write_bytes(first.read_bytes()[:-20])
    found = load(run(bench))
    assert len(calls) == 5  # the broken block and the missing one
    assert torch.equal(found.attributions, expected.attributions)
    assert torch.equal(found.rows, expected.rows)
    warnings = [record.getMessage() for record in caplog.records if "computed anew" in record.getMessage()]
    assert len(warnings) == 1
    assert str(first) in warnings[0]
