"""The policy worker: a process that batches requests from actors, runs the policy and writes actions back.

Started by the supervisor as ``python -m polybeast_moe.runtime.policy_worker REGION_FD WEIGHTS_FD RANK
FIRST_EPISODE PARENT_PID`` with the run's configuration as JSON on standard input.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from typing import TYPE_CHECKING

from polybeast_moe.runtime.process import die_with, keep_freed_memory, name_process

if TYPE_CHECKING:
    from polybeast_moe import _C
    from polybeast_moe.config import RunConfig
    from polybeast_moe.models import Policy
    from polybeast_moe.runtime.weights import SharedWeights

_LONGEST_SLEEP_MS = 200
_NO_GAME = 1 << 48  # a number that no game has: its seeds are the policy worker's


def main(arguments: list[str]) -> int:
    """Serves until the control block says stop; returns the exit code.

    It belongs to its learner before torch is imported, which takes seconds.
    """
    region_fd, weights_fd, rank, first_episode, parent = map(int, arguments)
    die_with(parent)
    name = f"pbm-policy-{rank}"
    name_process(name)
    for number in (signal.SIGINT, signal.SIGUSR1):  # Ctrl-C and a scheduler's warning are the learner's
        signal.signal(number, signal.SIG_IGN)
    keep_freed_memory()
    try:
        _work(json.load(sys.stdin), region_fd, weights_fd, first_episode)
    except Exception as error:
        traceback.print_exc()
        summary = " ".join(str(error).split())
        print(f"{name}: {type(error).__name__}: {summary}", file=sys.stderr)  # the supervisor looks for this line
        return 1
    return 0


def _work(settings: object, region_fd: int, weights_fd: int, first_episode: int) -> None:
    import torch

    from polybeast_moe import _C
    from polybeast_moe.config import RunConfig
    from polybeast_moe.envs.engine import ACTIONS
    from polybeast_moe.graph.configured import configured_graph
    from polybeast_moe.models import build_policy
    from polybeast_moe.runtime.device import choose_device, use
    from polybeast_moe.runtime.weights import SharedWeights

    config = RunConfig.model_validate(settings)
    torch.set_num_threads(config.runtime.policy_threads or 1)
    device = choose_device(config.runtime.device)
    use(device)
    if config.runtime.policy_graphs != "none":  # whose shapes are fixed
        config = config.model_copy(update={"graph": config.graph.model_copy(update={"deduplicate": False})})
    policy = build_policy(config, configured_graph(config), num_actions=len(ACTIONS)).to(device)
    policy.eval()
    serve(_C.Region.attach(region_fd), SharedWeights(policy, weights_fd), policy, config, first_episode)


def serve(region: _C.Region, weights: SharedWeights, policy: Policy, config: RunConfig, first_episode: int) -> None:
    """Answers whoever waits, with the newest weights, until the run stops.

    Actions are drawn from the run's seed and `first_episode`, which no other start of a policy worker in the run has.
    """
    import torch

    from polybeast_moe import _C
    from polybeast_moe.runtime.inference import make_infer
    from polybeast_moe.runtime.policy_server import PolicyServer

    seed, _ = _C.episode_seeds(config.seed, _NO_GAME, first_episode)
    infer = make_infer(policy, config, region.groups)
    server = PolicyServer(region, infer, torch.Generator().manual_seed(seed), config.runtime.groups_per_batch)
    version = weights.load(policy)
    while not region.control["stopped"]:
        region.wait_requests(_LONGEST_SLEEP_MS)
        if weights.version != version:
            version = weights.load(policy)
        server.serve(version)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
