"""A training that takes no time, for the tests of what is trained when."""

import pytest

from tests.classifiers.studying import Trained, train_in_no_time


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    """What was trained in a test, by name."""
    return train_in_no_time(monkeypatch)
