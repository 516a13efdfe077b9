"""A store of its own for each test."""

from pathlib import Path

import pytest

from xai.core.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")
