import os
import subprocess
import sys
import time
from multiprocessing import Pipe
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn

from tests.core.artifacts import wait_for
from tests.end_to_end.jobs import forked_groups
from tests.toolbox import refusal
from xai.core.errors import UserError
from xai.core.processes import Parcel, Tell, _listen, run_group


def add_up(rank: int, tell: Tell, term: int) -> None:
    total = torch.tensor(term + rank)
    distributed.all_reduce(total)
    flags = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    tell((rank, int(total), os.environ["LOCAL_RANK"], *flags))


def stumble(rank: int, tell: Tell) -> None:
    tell("on my way")
    raise ZeroDivisionError("no way")


def outgrow(rank: int, tell: Tell) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def vanish(rank: int, tell: Tell) -> None:
    if rank:
        os._exit(3)
    distributed.barrier()


def sleep(rank: int, tell: Tell) -> None:
    tell(os.getpid())
    time.sleep(600)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_processes_form_a_group_and_tell_the_parent_what_they_like() -> None:
    before = torch.get_deterministic_debug_mode()
    heard: list[Any] = []
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        run_group(add_up, (10,), 2, "gloo", heard.append)
    finally:
        torch.set_deterministic_debug_mode(before)
    assert sorted(heard) == [(0, 21, "0", True, True), (1, 21, "1", True, True)]
    assert "LOCAL_RANK" not in os.environ


def test_an_error_of_a_process_reaches_the_parent_with_its_place() -> None:
    heard: list[Any] = []
    said = r"(?s)in process 0 of 1:.*in stumble.*ZeroDivisionError: no way"
    with forked_groups(), pytest.raises(RuntimeError, match=said):
        run_group(stumble, (), 1, "gloo", heard.append)
    assert heard == ["on my way"]


def test_that_a_process_has_no_memory_is_told_without_its_place() -> None:
    said = r"^CUDA out of memory\. Tried to allocate 20\.00 GiB\.$"
    with forked_groups(), pytest.raises(torch.OutOfMemoryError, match=said):
        run_group(outgrow, (), 1, "gloo", print)


def test_a_process_that_dies_ends_those_that_wait_for_it() -> None:
    said = r"process 1 of 2 died, perhaps because memory ran out: lower batch_size or"
    with forked_groups(), pytest.raises(UserError, match=said):
        run_group(vanish, (), 2, "gloo", print)


@pytest.mark.parametrize("first", [0, 1])
def test_what_failed_first_is_told_and_not_what_failed_because_of_it(first: int) -> None:
    heard: list[Any] = []
    ears, mouths = zip(*(Pipe(duplex=False) for _ in range(2)), strict=True)
    mouths[first].send(("told", 5))
    mouths[first].send(("failed", (1.0, UserError("the cause"))))
    mouths[1 - first].send(("failed", (2.0, RuntimeError("connection closed by peer"))))
    assert "the cause" in refusal(_listen, {ear: "" for ear in ears}, heard.append)
    assert heard == [5]


def test_processes_die_with_a_parent_that_is_killed() -> None:
    work = "run_group(sleep, (), 1, 'gloo', lambda pid: print(pid, flush=True))"
    command = f"from tests.core.test_processes import *; {work}"
    with subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as parent:
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.kill()
    wait_for(lambda: not is_alive(child))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.first.weight
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("views", torch.arange(6.0).reshape(2, 3).T)
        self._frozen = [nn.Linear(3, 2).requires_grad_(False).half(), "a word"]


def test_a_network_arrives_as_it_was_sent(tmp_path: Path) -> None:
    network = Net()
    network.norm(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
    sent = ForkingPickler.dumps(Parcel(network, tmp_path / "tensors"))
    assert len(sent) < 5000
    arrived = ForkingPickler.loads(sent).open()
    pairs = [(network, arrived), (network._frozen[0], arrived._frozen[0])]
    for there, here in pairs:
        assert there.state_dict().keys() == here.state_dict().keys()
        for name, value in there.state_dict().items():
            assert torch.equal(value, here.state_dict()[name])
            assert value.dtype == here.state_dict()[name].dtype
        assert [p.requires_grad for p in there.parameters()] == [p.requires_grad for p in here.parameters()]
    assert arrived.tied.weight is arrived.first.weight
    assert arrived._frozen[1] == "a word"


def test_what_arrives_is_ones_own(tmp_path: Path) -> None:
    network = Net()
    kept = network.first.weight.detach().clone()
    parcel = ForkingPickler.dumps(Parcel(network, tmp_path / "tensors"))
    first, second = (ForkingPickler.loads(parcel).open() for _ in range(2))
    with torch.no_grad():
        first.first.weight += 1
    assert torch.equal(second.first.weight, kept)
    assert torch.equal(network.first.weight, kept)
    assert torch.equal(ForkingPickler.loads(parcel).open().first.weight, kept)
