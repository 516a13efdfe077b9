"""One smoke run a session, which the tests read and whose store they link."""

import pytest

from tests.end_to_end.jobs import run
from tests.end_to_end.runs import Run


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The undisturbed run that others are compared with; nobody writes into its folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    ended = run(folder, "experiment=smoke")
    return Run(folder, ended)
