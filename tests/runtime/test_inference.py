"""Inference in fixed sizes gives what inference of the rows alone gives. Captures are stand-ins: no GPU is needed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from polybeast_moe.envs.engine import ACTIONS
from polybeast_moe.models import Observation, Policy
from polybeast_moe.runtime.inference import Answer, BucketedInference, bucket_sizes, compiled, make_infer

GAMES = 3
CPU = torch.device("cpu")


@pytest.fixture
def policy(make_config, make_policy) -> Policy:
    made = make_policy(make_config("graph.enabled=true", "graph.deduplicate=false", "policy.lstm=4"))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


def asked(policy: Policy, rows: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, (rows, *shape), generator=generator)

    seen = Observation(
        glyph_crop=draw(5977, 9, 9).short(),
        blstats=draw(30, 27),
        conditions=draw(2**62, 8) & draw(2**62, 8),
        previous_action=draw(len(ACTIONS)),
        message=draw(127, 256).byte(),
    )
    state = torch.randn(policy.initial_state(rows).shape, generator=generator)
    return {"observation": seen, "state": state, "first": draw(2).bool()}


class Captures:
    """Stands in for CUDA graphs: a capture runs once, and a replay runs the same on what is in the same memory now."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, run: Callable[[], Answer]) -> Callable[[], Answer]:
        self.number += 1
        kept = run()

        def replay() -> Answer:
            for old, new in zip(kept, run(), strict=True):
                if old is not None:
                    old.copy_(new)
            return kept

        return torch.inference_mode()(replay)


def test_sizes_double_up_to_the_most() -> None:
    assert bucket_sizes(1) == [1]
    assert bucket_sizes(2) == [1, 2]
    assert bucket_sizes(8) == [1, 2, 4, 8]
    assert bucket_sizes(11) == [1, 2, 4, 8, 11]


def test_rows_in_a_bucket_get_the_answers_that_they_would_get_alone(policy: Policy) -> None:
    """Whatever an earlier call left behind them, with weights, temperatures and routings that change."""
    captures = Captures()
    infer = BucketedInference(policy, CPU, [GAMES * size for size in bucket_sizes(5)], captures)
    for turn, groups in enumerate((5, 3, 1, 2, 4, 5, 3)):
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.mul_(1.01)
        settings = {"routing": "softmax" if turn % 2 else "sparsemax", "temperature": 0.3 + 0.1 * turn}
        given = asked(policy, GAMES * groups, seed=turn)
        answer = infer(**given, **settings, weights_version=turn)
        alone = policy.infer(**given, **settings)
        for name in Answer._fields:
            torch.testing.assert_close(getattr(answer, name), getattr(alone, name), rtol=1e-4, atol=1e-5)
    assert captures.number == 6  # of sizes 15, 12, 3, 6, by routing; the last two calls found theirs


def test_without_graphs_the_cpu_policy_is_asked_itself(make_config, policy: Policy) -> None:
    assert make_infer(policy, make_config(), 4) == policy.infer
    bucketed = make_infer(policy, make_config("runtime.mode=asynchronous", "runtime.policy_graphs=compile"), 6)
    assert bucketed._sizes == [3, 6, 12, 18]
    limited = ("runtime.mode=asynchronous", "runtime.policy_graphs=compile", "runtime.groups_per_batch=2")
    assert make_infer(policy, make_config(*limited), 6)._sizes == [3, 6]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # the compiler's own, when it is imported
def test_a_compiled_run_reads_the_memory_as_it_is(monkeypatch) -> None:
    """The program is traced; machine code, which takes a minute, is left out."""
    genuine = torch.compile

    def traced(run: Callable[[], Answer], *, mode: str, dynamic: bool) -> Callable[[], Answer]:
        assert mode == "reduce-overhead"
        return genuine(run, backend="aot_eager", dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", traced)
    memory = torch.zeros(4)
    run = compiled(lambda: Answer(memory * 2, memory + 1, None))
    for value in (1.0, 3.0):
        memory.fill_(value)
        answer = run()
        assert answer.logits.tolist() == [2 * value] * 4
        assert answer.alpha.tolist() == [value + 1] * 4
