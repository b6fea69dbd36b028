"""The policy worker: a process that batches requests from actors, runs the policy and writes actions back.

Started by the supervisor as ``python -m polybeast_moe.runtime.policy_worker REGION_FD WEIGHTS_FD RANK INCARNATION
PARENT_PID`` with the run's configuration as JSON on standard input.
"""

from __future__ import annotations

import json
import signal
import sys
import time

import torch

from polybeast_moe import _C
from polybeast_moe.config import RunConfig
from polybeast_moe.config_files import resolve_data_file
from polybeast_moe.envs.engine import ACTIONS
from polybeast_moe.graph import load_graph
from polybeast_moe.models import Policy, build_policy
from polybeast_moe.runtime.policy_server import PolicyServer
from polybeast_moe.runtime.process import die_with, keep_freed_memory, name_process
from polybeast_moe.runtime.weights import SharedWeights

_LONGEST_SLEEP_MS = 200


def main(arguments: list[str]) -> int:
    """Serves until the control block says stop."""
    region_fd, weights_fd, rank, incarnation, parent = map(int, arguments)
    die_with(parent)
    name_process(f"pbm-policy-{rank}")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the learner's
    keep_freed_memory()
    config = RunConfig.model_validate(json.load(sys.stdin))
    torch.set_num_threads(config.runtime.policy_threads or 1)
    graph = load_graph(resolve_data_file(config.graph.file)) if config.graph.enabled else None
    policy = build_policy(config, graph, num_actions=len(ACTIONS))
    policy.eval()
    serve(_C.Region.attach(region_fd), SharedWeights(policy, weights_fd), policy, config, incarnation)
    return 0


def serve(region: _C.Region, weights: SharedWeights, policy: Policy, config: RunConfig, incarnation: int) -> None:
    """Answers whoever waits, with the newest weights, until the run stops. A later incarnation draws other actions."""
    generator = torch.Generator().manual_seed(config.seed + (incarnation << 32))
    server = PolicyServer(region, policy, generator)
    limit = config.runtime.groups_per_batch or region.groups
    version = weights.load(policy)
    while not region.control["stopped"]:
        region.wait_requests(_LONGEST_SLEEP_MS)
        began = time.perf_counter()
        if weights.version != version:
            version = weights.load(policy)
        if server.serve(limit, version):
            region.add_policy_busy(time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
