"""Asynchronous runtimes of tiny games with a policy of no cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from counting_policy import CountingPolicy

from polybeast_moe.envs.engine import ACTIONS
from polybeast_moe.envs.nle_package import NlePackage
from polybeast_moe.runtime.asynchronous import AsynchronousRuntime

StartRuntime = Callable[..., AsynchronousRuntime]


@pytest.fixture
def start_runtime(make_config, nle_package, tmp_path: Path, monkeypatch) -> Iterator[StartRuntime]:
    """Starts runtimes from overrides of the tiny configuration and closes them; `messages` is what users were told."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where policy workers find the policy
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    made: list[AsynchronousRuntime] = []

    def start(*overrides: str, package: NlePackage = nle_package) -> AsynchronousRuntime:
        config = make_config(
            "runtime.mode=asynchronous",
            "runtime.actors=2",
            "runtime.policy_threads=1",
            "policy.class=counting_policy.CountingPolicy",
            *overrides,
        )
        directory = tmp_path / f"games-{len(made)}"
        directory.mkdir()
        runtime = AsynchronousRuntime(
            config,
            CountingPolicy(config, None, num_actions=len(ACTIONS)),
            package,
            directory,
            log_path=tmp_path / "run.log",
            log=messages.append,
        )
        runtime.messages = messages
        runtime.set_control(phase=0, routing="softmax", temperature=1.0, policy_version=0)
        made.append(runtime)
        return runtime

    messages: list[str] = []
    yield start
    for runtime in made:
        runtime.close()
