"""The ranks of a run: processes that torchrun starts, each with a learner, a policy worker and actors of its own.

The only module that reads rank variables (https://pytorch.org/docs/stable/elastic/run.html#environment-variables).
Every collective is called by all ranks in the same order; docs/scaling.md says when.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.distributed.elastic.multiprocessing.errors import get_error_handler
from torch.nn.parallel import DistributedDataParallel

from polybeast_moe import _C
from polybeast_moe.errors import RunFailed

T = TypeVar("T")

_LONGEST_SILENCE = datetime.timedelta(minutes=10)  # of a rank in a collective, before the others give it up
_LONGEST_START = datetime.timedelta(minutes=5)  # between the first rank and the last
_LAST_WORDS = datetime.timedelta(seconds=3)  # to wait for the reason that a rank is gone
_NO_GAME = (1 << 48) + 1  # a number that no game has: the seeds of ranks
_HELLO = "polybeast_moe/hello"
_FAILURE = "polybeast_moe/failure"  # where a rank that fails leaves its last words


@dataclass(frozen=True)
class Ranks:
    """All ranks, seen from one. Alone, every method is the identity and nothing of torch.distributed is used.

    Attributes:
        rank: of this process, 0 leads: it decides, writes and shows.
        size: how many ranks there are.
        local_rank: of this process among those of its machine; picks the GPU.
        local_size: how many ranks share this machine's cores.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    _store: Any = field(default=None, repr=False, compare=False)

    @property
    def lead(self) -> bool:
        """Whether this rank decides, writes and shows."""
        return self.rank == 0

    def cores(self, usable: int) -> int:
        """Returns this rank's share of a machine's cores."""
        return max(1, usable // self.local_size)

    def seed(self, run_seed: int) -> int:
        """Returns the seed of this rank's games and actions: the run's own on rank 0, another one on every other."""
        return run_seed if self.rank == 0 else _C.episode_seeds(run_seed, _NO_GAME, self.rank)[0]

    # Plain values.

    def everyone(self, value: T) -> list[T]:
        """Returns the values of all ranks, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_lead(self, value: T) -> T:
        """Returns what rank 0 gave; the other ranks' own values do not matter."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def to_lead(self, value: T) -> list[T]:
        """Returns the values of all ranks on rank 0, and nothing on the others."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.lead else None
        dist.gather_object(value, values, dst=0)
        return values or []

    # Tensors.

    def mean(self, local: Tensor, share: float) -> Tensor:
        """Returns the sum over ranks of share · local, of any shape, differentiably; shares sum to 1.

        It is for figures that every rank's loss uses alike, as an advantage's mean or the experts' usage: with L(mean)
        in each rank's loss, that loss multiplied by the rank's share and gradients summed over ranks (`GradientStep`),
        each rank's own part gets exactly dL/dmean. So the backward pass is the identity and exchanges nothing, which
        keeps its collectives, DDP's buckets, in one order on all ranks.
        """
        if self.size == 1:
            return local
        mean: Tensor = _SharedMean.apply(local, share)  # type: ignore[no-untyped-call]
        return mean

    def explain(self, error: Exception) -> Exception:
        """Leaves this rank's exception where the others find it; one that broke a collective gives way to theirs."""
        if not _is_of_a_collective(error):
            with contextlib.suppress(RuntimeError, ValueError):  # whoever keeps the store may be gone already
                self._store.set(_FAILURE, f"rank {self.rank}: {type(error).__name__}: {error}")
            return error
        try:
            self._store.wait([_FAILURE], _LAST_WORDS)
            return RunFailed(f"another rank failed: {self._store.get(_FAILURE).decode()}")
        except (RuntimeError, ValueError):  # it was killed, or whoever keeps the store is gone too
            return RunFailed(f"another rank is gone without a word ({' '.join(str(error).split())[:100]})")


ALONE = Ranks()


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Joins the ranks that torchrun has started; without torchrun this process is alone.

    Raises:
        RunFailed: another rank has ended; the message has the reason that it left.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        yield Ranks()
        return
    rank, size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    store = _fresh_store(rank, size)
    dist.init_process_group(backend, timeout=_LONGEST_SILENCE, store=store, rank=rank, world_size=size)
    ranks = Ranks(rank, size, local_rank, int(os.environ["LOCAL_WORLD_SIZE"]), store)
    try:
        yield ranks
    except Exception as error:
        explained = ranks.explain(error)
        get_error_handler().record_exception(explained)  # torchrun's own summary shows it
        if explained is error:
            raise
        raise explained from None
    finally:
        dist.destroy_process_group()


def leave(code: int) -> NoReturn:
    """Ends the process of one of several ranks, all its work done and closed.

    Not by Python's own end: DDP keeps the process group, and with it Gloo's threads, alive until there, and a thread
    that then lets go of its last tensor waits for an interpreter that is gone and aborts the process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _fresh_store(rank: int, size: int) -> Store:
    """Returns a part of torchrun's store that belongs to this start of the ranks alone.

    torchrun keeps one store over all restarts, where addresses of ranks that are gone would be found. So rank 0 draws a
    name, and tells it together with what each of the others has just drawn: who finds its own knows that it is not old.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    serves = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and rank == 0
    store = TCPStore(address, port, size, is_master=serves, timeout=_LONGEST_START, multi_tenant=True)
    own, others = uuid.uuid4().hex, range(1, size)
    deadline = time.monotonic() + _LONGEST_START.total_seconds()
    while time.monotonic() < deadline:
        if rank == 0:
            drawn = [_read(store, f"{_HELLO}/{other}") for other in others]
            store.set(_HELLO, " ".join([own, *drawn]))
            if store.check([f"{own}/{other}" for other in others]):
                return PrefixStore(own, store)
        else:
            store.set(f"{_HELLO}/{rank}", own)
            name, *drawn = _read(store, _HELLO).split(" ")
            if drawn[rank - 1 : rank] == [own]:
                store.set(f"{name}/{rank}", "here")
                return PrefixStore(name, store)
        time.sleep(0.02)
    raise RunFailed(f"rank {rank}: the others have not come within {_LONGEST_START.total_seconds():.0f} s")


def _read(store: Store, key: str) -> str:
    return store.get(key).decode() if store.check([key]) else "-"


class _SharedMean(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, local: Tensor, share: float) -> Tensor:
        total = local.detach() * share
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream, None


class Backward:
    """Fills the gradients of parameters from a loss: the sum over ranks of each rank's share of its loss.

    Beyond one rank DistributedDataParallel does so, its buckets exchanged while the backward pass goes on.
    """

    def __init__(self, parameters: nn.Module, ranks: Ranks) -> None:
        """`parameters` is whose gradients are filled; DDP gives them rank 0's values first."""
        self._ranks = ranks
        self._module = _Losses(parameters)
        if ranks.size > 1:
            device = next(parameters.parameters()).device
            devices = [device] if device.type == "cuda" else None
            self._ddp = DistributedDataParallel(self._module, device_ids=devices, forward_sync_buffers=False)

    def __call__(self, loss: Callable[[], Tensor | None], share: float = 1.0) -> None:
        """Calls `loss` and goes backward. A rank without a batch (share 0, loss None) gives zeros."""
        if self._ranks.size == 1:
            value = loss()
            assert value is not None, "nothing to learn from"
            torch.autograd.backward(value)
            return
        # DDP takes the mean over ranks.
        torch.autograd.backward(self._ddp(loss, share * self._ranks.size))


class _Losses(nn.Module):
    """What DDP wraps: one call a rank and update, whatever the loss calls inside."""

    def __init__(self, parameters: nn.Module) -> None:
        super().__init__()
        self.of = parameters

    def forward(self, loss: Callable[[], Tensor | None], scale: float) -> Tensor:
        """Every parameter is part of the graph, an idle expert's too: DDP waits for all of them."""
        idle = torch.stack([parameter.sum() for parameter in self.of.parameters()]).sum() * 0.0
        value = loss()
        return idle if value is None else idle + scale * value


def _is_of_a_collective(error: Exception) -> bool:
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())
