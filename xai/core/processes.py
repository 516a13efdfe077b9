"""The same work in several processes of this machine, joined in a group of torch.distributed."""

import copy
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn

from xai.core.errors import UserError

Tell = Callable[[Any], None]
"""How a process says something to the one that started it."""

_ECHO_SECONDS = 1.0
"""How long to wait for more, once a process has failed."""


@dataclass(frozen=True)
class _Post:
    """The place of one process in the group, and what of torch's state it takes over from the parent."""

    rank: int
    ranks: int
    backend: str
    meeting: str
    threads: int = field(default_factory=torch.get_num_threads)
    deterministic: int = field(default_factory=torch.get_deterministic_debug_mode)


def run_group(work: Callable[..., None], arguments: tuple[Any, ...], ranks: int, backend: str, hear: Tell) -> None:
    """Call `work(rank, tell, *arguments)` in `ranks` new processes that form one group, and wait for all of them.

    The processes are spawned: a fork of a process that has used a GPU cannot use it. They find each other by a file,
    so no port has to be free, and die with this process, however it dies; the rest of them dies with the first that
    fails.

    Args:
        work: A function of a module; in it, `torch.distributed` is ready and LOCAL_RANK is set.
        arguments: What can be pickled; networks as a `Parcel`.
        ranks: How many processes.
        backend: `gloo` or `nccl`.
        hear: Called here with what the processes tell.

    Raises:
        UserError: As raised in a process, or where one has died without a word.
        OSError, MemoryError, torch.OutOfMemoryError: As raised in a process.
        RuntimeError: For any other error of a process, with its traceback.
    """
    context = get_context("spawn")
    # DDP's advice on its settings, from C++, where no filter of Python's is asked; read when a process imports torch.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with tempfile.TemporaryDirectory(prefix="xai-") as folder:
        members: list[Any] = []
        ears: dict[Any, str] = {}
        try:
            for rank in range(ranks):
                ear, mouth = context.Pipe(duplex=False)
                post = _Post(rank, ranks, backend, f"file://{folder}/meeting")
                # No daemon: those may not start processes of their own, which loaders do.
                member = context.Process(target=_member, args=(post, mouth, work, arguments))
                member.start()
                mouth.close()
                members.append(member)
                ears[ear] = f"process {rank} of {ranks}"
            _listen(ears, hear)
        finally:
            for member in members:
                member.kill()
                member.join()


def _listen(ears: dict[Any, str], hear: Tell) -> None:
    """Hear what processes tell until all are done, or one has failed: then its error is raised, the earliest of all."""
    failures: list[tuple[float, Exception]] = []
    # A process that fails makes those fail that wait for it, and their errors may be read before its own.
    while ears and (ready := wait(list(ears), timeout=_ECHO_SECONDS if failures else None)):
        for ear in ready:
            kind, content = _heard(ear, ears[ear])
            if kind == "told":
                hear(content)
                continue
            del ears[ear]
            if kind == "failed":
                failures.append(content)
    if failures:
        raise min(failures, key=lambda failure: failure[0])[1]


def _heard(ear: Any, name: str) -> tuple[str, Any]:
    try:
        kind, content = ear.recv()
    except EOFError:
        died = f"{name} died, perhaps because memory ran out: lower batch_size or trainer.devices"
        return "failed", (0.0, UserError(died))
    return kind, content


def _member(post: _Post, mouth: Connection, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_die_with_the_parent, daemon=True).start()
    # Ctrl-C reaches every process of a terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["LOCAL_RANK"] = str(post.rank)
    _share_the_cores(post)
    torch.set_deterministic_debug_mode(post.deterministic)
    # The name of this machine may lead to an address that it does not listen on.
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    try:
        distributed.init_process_group(post.backend, init_method=post.meeting, rank=post.rank, world_size=post.ranks)
        work(post.rank, lambda content: mouth.send(("told", content)), *arguments)
        # Nobody leaves while another still waits for an answer.
        distributed.barrier()
        distributed.destroy_process_group()
        mouth.send(("done", None))
    except (UserError, OSError, MemoryError, torch.OutOfMemoryError) as error:
        mouth.send(("failed", (time.monotonic(), error)))
    except Exception:
        told = RuntimeError(f"in process {post.rank} of {post.ranks}:\n{traceback.format_exc()}")
        mouth.send(("failed", (time.monotonic(), told)))
    # The parent kills what is left. Threads of C++ that an orderly end finds running complain of it now and then.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _die_with_the_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _share_the_cores(post: _Post) -> None:
    threads = max(1, post.threads // post.ranks)
    torch.set_num_threads(threads)
    # Lightning sets the number itself where this is not set.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))


class Parcel:
    """A network on its way to other processes: its structure goes through the pipe, its tensors through a file.

    Sent as they are, hundreds of tensors would each keep a file open and a part of shared memory in use, and those of a
    GPU would make every process work on that GPU.

    Args:
        network: What to send, with the networks in its lists; it stays as it is.
        file: Where to put the tensors, a file that stays until every process has opened the parcel.
    """

    def __init__(self, network: nn.Module, file: Path) -> None:
        tensors = list({id(tensor): tensor for tensor in _tensors(network)}.values())
        # Copied, for those that share memory or have gaps are refused.
        plain = torch.contiguous_format
        save_file({str(n): tensor.detach().cpu().clone(memory_format=plain) for n, tensor in enumerate(tensors)}, file)
        self._file, self._places = file, [_placeholder(tensor) for tensor in tensors]
        # What a deep copy finds in its memo it takes from there: no tensor is copied.
        self._network = copy.deepcopy(network, dict(zip(map(id, tensors), self._places, strict=True)))

    def open(self) -> Any:
        """The network, on the CPU; its tensors are this process's own."""
        tensors = load_file(self._file)
        for n, place in enumerate(self._places):
            place.data = tensors[str(n)]
        return self._network


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers of a network and of all that it keeps in lists, where they do not count as its own."""
    yield from network.parameters()
    yield from network.buffers()
    for part in network.modules():
        for kept in vars(part).values():
            for item in kept if isinstance(kept, list) else ():
                if isinstance(item, nn.Module):
                    yield from _tensors(item)


def _placeholder(tensor: Tensor) -> Tensor:
    empty = torch.empty(0, dtype=tensor.dtype)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
