"""What is chosen for the machine where the configuration says nothing, and how doctor tells it."""

from __future__ import annotations

import pytest

from polybeast_moe.config import RuntimeConfig
from polybeast_moe.runtime.defaults import describe, slots, with_defaults
from polybeast_moe.scaling import QUICKSTART, plan_cpu


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 8, 16, 64, 256])
def test_every_core_is_dealt_out_and_none_twice(cores: int) -> None:
    chosen = with_defaults(RuntimeConfig(), cores)
    dealt = [chosen.actors, chosen.policy_threads, chosen.threads]
    assert min(dealt) >= 1
    assert sum(dealt) == max(3, cores)  # three processes need a core each, even where there are fewer


def test_cores_are_dealt_out_by_what_a_quickstart_costs() -> None:
    """The measured costs allow every part, with the threads that it gets, about as many frames a second."""
    limits = plan_cpu(64, QUICKSTART).limits
    assert max(limits.values()) < 1.1 * min(limits.values())


def test_inline_has_one_actor_and_gives_torch_every_core() -> None:
    chosen = with_defaults(RuntimeConfig(mode="inline"), 8)
    assert (chosen.actors, chosen.threads, chosen.policy_threads) == (1, 8, 8)


def test_what_is_configured_stands() -> None:
    given = RuntimeConfig(actors=5, threads=3)
    chosen = with_defaults(given, 8)
    assert (chosen.actors, chosen.threads) == (5, 3)
    assert chosen.policy_threads == 2


def test_a_slot_for_every_group_and_those_that_wait() -> None:
    assert slots(with_defaults(RuntimeConfig(groups=3), 16), 2) == 4 * 3 + 2
    assert slots(RuntimeConfig(mode="inline"), 2) == 2


def test_doctor_says_all_of_it_in_one_line() -> None:
    assert describe(RuntimeConfig(groups=3, games_per_group=16, unroll=20), 2, 16) == (
        "4 actors of 3 groups of 16 games, rollouts of 20 steps in 14 slots; torch threads: policy worker 4, learner 8"
    )
