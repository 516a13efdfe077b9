"""One smoke run for all processes of a session, which the tests read and whose store they link."""

import json
import os
from dataclasses import asdict

import pytest
from filelock import FileLock

from tests.end_to_end.jobs import Ended, run
from tests.end_to_end.runs import Run


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The undisturbed run that others are compared with; nobody writes into its folder.

    The process that is first makes it, for all that share the tests.
    """
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "undisturbed"
    told = folder / "ended.json"
    with FileLock(f"{folder}.lock"):
        if not told.exists():
            told.write_text(json.dumps(asdict(run(folder, "experiment=smoke"))))
    return Run(folder, Ended(**json.loads(told.read_text())))
