"""NLE's own Monobeast agent (`nle.agent`): IMPALA with one game an actor process, inference in the actors.

Settings are the agent's own arguments (`num_actors`, `batch_size`, ...) and `torch_threads` of the learner.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

import torch
from nle.agent import agent

from peers.games import Game
from peers.job import Job, read_job
from peers.meter import Meter
from peers.network import SharedNetwork, size

SHARED = ("crop", "blstats")
OWN = ("glyphs", "blstats")
FOREVER = 10**12  # frames: the agent's learning rate falls to zero over its length, and nobody else's does


class SharedAgent(torch.nn.Module):
    """The shared network behind the interface of the agent's own."""

    def __init__(self, observation_space: Any, num_actions: int, use_lstm: bool) -> None:  # noqa: ARG002
        super().__init__()
        self.num_actions = num_actions
        self.network = SharedNetwork(num_actions)

    def initial_state(self, batch_size: int = 1) -> tuple[()]:  # noqa: ARG002
        """There is none."""
        return ()

    def forward(self, seen: dict[str, torch.Tensor], state: tuple[()]) -> tuple[dict[str, torch.Tensor], tuple[()]]:
        """[T, B] rows -> logits, value and a drawn action."""
        time, batch = seen["crop"].shape[:2]
        logits, value = self.network(seen["crop"].flatten(0, 1), seen["blstats"].flatten(0, 1))
        action = torch.multinomial(torch.softmax(logits, dim=1), 1)
        shaped = {"policy_logits": logits, "baseline": value, "action": action}
        return {
            name: x.view(time, batch, -1) if name == "policy_logits" else x.view(time, batch)
            for name, x in shaped.items()
        }, state


def arguments(job: Job) -> list[str]:
    """The agent's command line."""
    given = {"savedir": job.folder / "run", "total_steps": FOREVER, "disable_cuda": True, "disable_checkpoint": True}
    if job.learning:
        given["reward_clipping"] = "none"  # tanh(reward / 10) has been taken already
    given |= {name: value for name, value in job.settings.items() if name != "torch_threads"}
    words = []
    for name, value in given.items():
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words


def main() -> None:
    job = read_job()
    torch.manual_seed(job.seed)
    torch.set_num_threads(job.settings.get("torch_threads", 1))
    shared = job.network == "shared"
    flags = agent.parser.parse_args(arguments(job))

    def game(*_: Any, **__: Any) -> Any:
        if job.engine == "ours":
            from peers.engine_games import EngineGame

            return EngineGame(job, merge_ends=True)
        return Game(job, SHARED if shared else OWN, merge_ends=True)

    formatted, learn = agent._format_observations, agent.learn

    def learn_and_count(*given: Any, **named: Any) -> Any:
        done = learn(*given, **named)
        meter.learnt(flags.unroll_length * flags.batch_size)
        return done

    agent.create_env = game
    agent.learn = learn_and_count
    if shared:
        agent.Net = SharedAgent
        agent._format_observations = lambda seen: formatted(seen, SHARED)
    probe = game()
    network = agent.Net(probe.observation_space, probe.action_space.n, flags.use_lstm)
    probe.close()
    meter = Meter(
        job,
        environments=flags.num_actors,
        parameters=size(network),
        victims=lambda: [child.pid for child in multiprocessing.active_children() if child.pid],
    )
    meter.start()
    agent.train(flags)


if __name__ == "__main__":
    main()
