"""Inference on a device for observations of the host: as they come, or in a few fixed sizes that can be replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from polybeast_moe.config import RunConfig
from polybeast_moe.models import Observation, Policy, PolicyOutput
from polybeast_moe.models.interface import moved
from polybeast_moe.ops.mixture import Routing
from polybeast_moe.runtime.device import device_of

_WARM_UPS = 3  # runs before a capture: libraries and compilers make what they need
_MOST_PROGRAMS = 64  # that torch.compile keeps, one for each size and routing


class Answer(NamedTuple):
    """What is wanted of a `PolicyOutput`, by its names; on the host when it comes out of an `Infer`."""

    logits: Tensor
    alpha: Tensor
    state: Tensor | None


class Infer(Protocol):
    """`Policy.infer` for tensors on the host, wherever the policy is."""

    def __call__(
        self,
        observation: Observation,
        state: Tensor,
        *,
        routing: Routing,
        temperature: float,
        first: Tensor,
        weights_version: int,
    ) -> Answer | PolicyOutput:
        """One step of B games."""


def make_infer(policy: Policy, config: RunConfig, groups: int) -> Infer:
    """How a policy answers at most so many groups at once, where it is, by `runtime.policy_graphs`."""
    device, execution = device_of(policy), config.runtime.policy_graphs
    if execution == "none":
        return policy.infer if device.type == "cpu" else _Eager(policy, device)
    sizes = bucket_sizes(min(groups, config.runtime.groups_per_batch or groups))
    rows = [config.runtime.games_per_group * size for size in sizes]
    return BucketedInference(policy, device, rows, captured if execution == "cuda_graphs" else compiled)


def bucket_sizes(most: int) -> list[int]:
    """Powers of two below `most`, and `most`: what is filled up at most doubles."""
    return [*(1 << power for power in range(most.bit_length()) if 1 << power < most), most]


class _Eager:
    """The policy as it is, its graph's plan from the host: nothing waits for the device but the answer."""

    def __init__(self, policy: Policy, device: torch.device) -> None:
        self._policy, self._device = policy, device

    def __call__(self, observation: Observation, state: Tensor, *, first: Tensor, **settings: Any) -> Answer:
        planned = observation._replace(graph_plan=self._policy.plan(observation.conditions))

        def onto(tensor: Tensor) -> Tensor:
            return tensor.to(self._device, non_blocking=True)

        output = self._policy.infer(moved(planned, onto), onto(state), first=onto(first), **settings)
        return moved(_answer(output), Tensor.cpu)


class _Inputs(NamedTuple):
    """What one inference reads."""

    observation: Observation
    state: Tensor
    first: Tensor
    temperature: Tensor
    """0-d."""


class BucketedInference:
    """Inference in a few sizes: rows go into the smallest that holds them, into the same memory every time.

    Behind them stands what an earlier call left there: rows do not know of each other. For each size and routing
    `capture` makes one run something that can be repeated; it reads that memory, and the weights where they are.
    """

    def __init__(
        self,
        policy: Policy,
        device: torch.device,
        sizes: list[int],
        capture: Callable[[Callable[[], Answer]], Callable[[], Answer]],
    ) -> None:
        """`sizes` in rows, ascending; the largest holds every call."""
        self._policy, self._device, self._sizes, self._capture = policy, device, sizes, capture
        self._memory: dict[int, tuple[_Inputs, _Inputs]] = {}
        self._runs: dict[tuple[int, Routing], Callable[[], Answer]] = {}

    def __call__(
        self,
        observation: Observation,
        state: Tensor,
        *,
        routing: Routing,
        temperature: float,
        first: Tensor,
        weights_version: int,  # noqa: ARG002
    ) -> Answer:
        """As `Policy.infer`; nothing is kept for a version of the weights."""
        rows = len(state)
        size = next(size for size in self._sizes if size >= rows)
        given = _Inputs(observation, state, first, torch.tensor(temperature, dtype=torch.float64))
        if size not in self._memory:
            self._memory[size] = self._make_memory(given, size)
        host, device = self._memory[size]
        for source, staged, target in zip(_leaves(given), _leaves(host), _leaves(device), strict=True):
            (staged[:rows] if source.ndim else staged).copy_(source)
            target.copy_(staged, non_blocking=True)
        if (size, routing) not in self._runs:
            self._runs[size, routing] = self._capture(lambda: self._run(device, routing))
        return moved(self._runs[size, routing](), lambda part: part[:rows].cpu())  # which waits, also for the copies

    def _run(self, inputs: _Inputs, routing: Routing) -> Answer:
        observation, state, first, temperature = inputs
        return _answer(self._policy.infer(observation, state, routing=routing, temperature=temperature, first=first))

    def _make_memory(self, given: _Inputs, size: int) -> tuple[_Inputs, _Inputs]:
        on_gpu = self._device.type == "cuda"

        def staged(tensor: Tensor) -> Tensor:
            shape = (size, *tensor.shape[1:]) if tensor.ndim else ()
            return torch.zeros(shape, dtype=tensor.dtype, pin_memory=on_gpu)

        host = moved(given, staged)
        return host, moved(host, lambda tensor: tensor.to(self._device, copy=True))


def captured(run: Callable[[], Answer]) -> Callable[[], Answer]:
    """Records the kernels of a run as a CUDA graph, which replays them with a single launch."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer = run()

    def replay() -> Answer:
        graph.replay()
        return answer

    return replay


def compiled(run: Callable[[], Answer]) -> Callable[[], Answer]:
    """Compiles a run, with CUDA graphs where there is a GPU."""
    import torch._dynamo.config

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_PROGRAMS)
    program: Callable[[], Answer] = torch.compile(run, mode="reduce-overhead", dynamic=False)

    def step() -> Answer:
        # The last answer has been copied: its memory may be used again.
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return program()

    return step


def _answer(output: PolicyOutput) -> Answer:
    return Answer(output.logits, output.alpha, output.state)


def _leaves(parts: Any) -> Iterator[Tensor]:
    if isinstance(parts, Tensor):
        yield parts
    elif isinstance(parts, tuple):
        for part in parts:
            yield from _leaves(part)
