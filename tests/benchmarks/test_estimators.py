import re
from pathlib import Path

import pytest
import torch

from benchmarks import estimators
from benchmarks.estimators import ESTIMATORS, Question, Study, error
from benchmarks.trained import classifier, digits
from xai.shapley.exact import exact_shapley


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> Question:
    model = classifier(14, 3, tmp_path_factory.mktemp("weights"), lambda _: None)
    seen = digits("test")
    return Question(model, seen.images[:2], seen.labels[:2])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_is_right_where_it_has_coalitions_in_plenty(name: str, question: Question) -> None:
    truth = exact_shapley(question.game())
    found = ESTIMATORS[name](question, 4000, torch.Generator().manual_seed(0))
    assert found.shape == (2, 4)
    assert float(error(found, truth).max()) < 0.1


def test_the_error_is_a_root_mean_square_in_deviations_of_the_truth() -> None:
    truth = torch.tensor([[1.0, 3.0, 1.0, 3.0], [0.0, 20.0, 0.0, 20.0]])
    estimate = truth + torch.tensor([[2.0, -2.0, 2.0, -2.0], [5.0, 5.0, -5.0, -5.0]])
    torch.testing.assert_close(error(estimate, truth), torch.tensor([2.0, 0.5]))


def test_a_classifier_is_trained_once(tmp_path: Path) -> None:
    said: list[str] = []
    first = classifier(14, 3, tmp_path, said.append)
    again = classifier(14, 3, tmp_path, said.append)
    assert len(said) == 1
    assert all(map(torch.equal, first.state_dict().values(), again.state_dict().values()))


def test_the_tables_have_a_row_for_each_estimator(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(estimators, "_WEIGHTS", tmp_path)
    monkeypatch.setattr(estimators, "SMALL", (Study(14, 3, 1, (10,), 1, 0, 50), Study(7, 3, 1, (40,), 1, 200, 0)))
    assert estimators.main(["--small"]) == 0
    shown = capsys.readouterr().out
    for name in ESTIMATORS:
        assert len(re.findall(rf"^\| {re.escape(name)} +\| +\d+\.\d{{3}} \|$", shown, re.MULTILINE)) == 2
    assert shown.count("against the exact values") == 1
    assert shown.count("against 200 coalitions") == 1
    assert shown.count("with the proxy") == 2
