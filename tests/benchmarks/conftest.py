import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def cores_and_threads_are_given_back() -> Iterator[None]:
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    yield
    torch.set_num_threads(threads)
    if cores is not None:
        os.sched_setaffinity(0, cores)
