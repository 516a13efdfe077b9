import os
import subprocess
import sys

import pytest
import torch

from benchmarks.setup import Setup, setups, small_pools


def test_a_card_is_measured_in_both_precisions_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    card = [Setup("cuda", False, 2), Setup("cuda", True, 2)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert setups("all", 2) == [Setup("cpu", threads=2)]
    assert setups("cuda", 2) == card
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert setups("all", 2) == [Setup("cpu", threads=2), *card]
    assert setups("cpu", 2) == [Setup("cpu", threads=2)]


@pytest.mark.parametrize(("bf16", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_products_have_the_precision_asked_for(bf16: bool, dtype: torch.dtype) -> None:
    with Setup(bf16=bf16).precision():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_processes_have_small_pools_of_threads_and_later_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    shown = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ.get('OPENBLAS_NUM_THREADS'))"

    def child() -> str:
        return subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True).stdout.strip()

    with small_pools(2):
        assert child() == "2 2"
    assert child() == "5 None"


def test_a_confined_process_has_its_threads_and_as_many_cores() -> None:
    Setup(threads=2).confine()
    assert torch.get_num_threads() == 2
    Setup(threads=1).confine()
    assert torch.get_num_threads() == 1
    if hasattr(os, "sched_getaffinity"):
        assert len(os.sched_getaffinity(0)) == 1
