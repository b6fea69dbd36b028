"""Where learner and policy worker compute. There is no GPU here: torch's and CUDA's answers are stand-ins."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from polybeast_moe.config import RuntimeConfig
from polybeast_moe.errors import UserError
from polybeast_moe.runtime.defaults import RESERVED_CORES, describe, slots
from polybeast_moe.runtime.device import PinnedMemory, choose_device, device_of, on_this_machine


@pytest.fixture
def gpus(monkeypatch):
    """Says how many GPUs torch finds."""

    def say(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return say


def test_auto_takes_a_gpu_where_there_is_one(gpus) -> None:
    gpus(0)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    gpus(2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", 0)
    assert choose_device("cpu") == torch.device("cpu")


def test_ranks_of_a_machine_have_a_gpu_each(gpus) -> None:
    gpus(2)
    assert [choose_device("auto", rank).index for rank in range(4)] == [0, 1, 0, 1]
    assert [choose_device("cuda:1", rank).index for rank in range(2)] == [1, 1]


@pytest.mark.parametrize(("count", "name", "said"), [
    (0, "cuda", "runtime.device: cuda, but torch finds no GPU"),
    (0, "cuda:0", "runtime.device: cuda:0, but torch finds no GPU"),
    (2, "cuda:2", "runtime.device: cuda:2, but the last GPU here is cuda:1"),
])  # fmt: skip
def test_a_device_that_is_not_here_is_refused(gpus, count: int, name: str, said: str) -> None:
    gpus(count)
    with pytest.raises(UserError, match=said):
        choose_device(name)


def test_graphs_want_a_gpu(gpus) -> None:
    gpus(0)
    with pytest.raises(UserError, match="policy_graphs: cuda_graphs needs a GPU"):
        on_this_machine(RuntimeConfig(policy_graphs="cuda_graphs"), 4)
    assert on_this_machine(RuntimeConfig(policy_graphs="compile"), 4).device == "cpu"


def test_beside_a_gpu_actors_have_the_cores_and_a_batch_waits(gpus) -> None:
    gpus(1)
    chosen = on_this_machine(RuntimeConfig(), 16)
    assert (chosen.device, chosen.actors, chosen.threads) == ("cuda:0", int(16 - RESERVED_CORES), 1)
    assert chosen.prefetch is True
    assert slots(chosen, 2) == chosen.actors * chosen.groups + 2 + 2
    assert describe(chosen, 2, 16).endswith(" on cuda:0")
    assert on_this_machine(RuntimeConfig(mode="inline"), 16).prefetch is False  # each batch by the weights it trains
    assert on_this_machine(RuntimeConfig(prefetch=False), 16).prefetch is False
    gpus(0)
    assert on_this_machine(RuntimeConfig(), 16).prefetch is False


def test_a_policy_says_where_it_computes() -> None:
    assert device_of(nn.Linear(1, 1, device="meta")) == torch.device("meta")
    assert device_of(nn.Identity()) == torch.device("cpu")


class Cudart:
    """Stands in for CUDA's runtime: it writes down what it is asked for, and refuses where it is told to."""

    cudaError = SimpleNamespace(success=0)

    def __init__(self, answer: int = 0) -> None:
        self.answer = answer
        self.locked: dict[int, int] = {}

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        assert flags == 0
        if not self.answer:
            self.locked[address] = size
        return self.answer

    def cudaHostUnregister(self, address: int) -> int:
        del self.locked[address]
        return 0

    def cudaGetErrorString(self, error: int) -> str:
        return f"error {error}"


def test_all_slots_are_pinned_and_nothing_else(make_config, start_inline) -> None:
    runtime = start_inline(make_config("runtime.groups=3", "learner.slots_per_batch=6"))
    cudart = Cudart()
    pinned = PinnedMemory(*runtime.slots_memory(), cudart)
    assert pinned.refused is None
    ((first, size),) = cudart.locked.items()
    fields = [tensor for rollout in runtime._rollouts for tensor in rollout.fields.values() if tensor.numel()]
    assert len(runtime._rollouts) == 6
    assert 0 <= min(tensor.data_ptr() for tensor in fields) - first < 4096  # behind the slot's header
    last = max(tensor.data_ptr() + tensor.nbytes for tensor in fields)
    assert 0 <= first + size - last < 4096  # a slot ends on a page
    pinned.close()
    assert not cudart.locked


def test_memory_that_cannot_be_pinned_is_said_in_a_line_and_stays_as_it_was() -> None:
    cudart = Cudart(answer=2)
    pinned = PinnedMemory(4096, 3 << 20, cudart)
    assert pinned.refused == "runtime.pin_memory: 3 MiB cannot be pinned (error 2): copies are slower"
    pinned.close()
