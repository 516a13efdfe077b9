from dataclasses import replace
from pathlib import Path

from tests.classifiers.tiny import runtime
from xai.core.training import TrainerParams


def test_several_devices_make_other_numbers_and_one_is_not_worth_a_word(tmp_path: Path) -> None:
    own_runtime = runtime(tmp_path)
    assert own_runtime.with_precision({"seed": 1}) == {"seed": 1, "precision": "32-true"}
    two = replace(own_runtime, trainer=TrainerParams(accelerator="cpu", devices=2))
    assert two.with_precision({"seed": 1}) == {"seed": 1, "precision": "32-true", "devices": 2}
