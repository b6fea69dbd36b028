"""What torchrun starts in test_distributed.py: one rank that trains on recorded batches and writes down what it has.

python -m torch.distributed.run ... ranks_program.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import nn

from polybeast_moe.config import RunConfig
from polybeast_moe.config_files import resolve_data_file
from polybeast_moe.envs.engine import ACTIONS
from polybeast_moe.graph import load_graph
from polybeast_moe.learning.distributed import Ranks, joined, leave
from polybeast_moe.learning.learner import Learner
from polybeast_moe.models import Policy, build_policy
from polybeast_moe.runtime.process import StopRequests


def make_learner(config: RunConfig, ranks: Ranks, seed: int) -> tuple[Policy, Learner]:
    torch.manual_seed(seed)
    policy = build_policy(config, load_graph(resolve_data_file(config.graph.file)), num_actions=len(ACTIONS))
    for parameter in policy.parameters():
        nn.init.normal_(parameter, std=0.2)  # rows that differ in their experts
    sizes = {"experts": len(config.policy.expert_names), "graph_hidden": config.graph.hidden}
    return policy, Learner(policy, config.learner, ranks, **sizes)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with joined() as ranks:
        recorded = torch.load(folder / "recorded.pt", weights_only=False)
        config = RunConfig.model_validate(recorded["config"])
        policy, learner = make_learner(config, ranks, seed=ranks.rank)  # rank 0's weights are everybody's
        norms = []
        for update in recorded["updates"]:
            batch, share = update["parts"][ranks.rank]
            norms.append(learner.update(batch, update["settings"], share).diagnostics["grad_norm"])
        torch.save({"weights": policy.state_dict(), "norms": norms}, folder / f"rank-{ranks.rank}.pt")

        said = {
            "everyone": ranks.everyone(ranks.rank * 10),
            "from_lead": ranks.from_lead(f"said by {ranks.rank}"),
            "to_lead": ranks.to_lead(ranks.rank),
            "seed": ranks.seed(7),
        }
        (folder / f"rank-{ranks.rank}.json").write_text(json.dumps(said))
        if (folder / "fail").exists():
            if ranks.rank == 1:
                raise ValueError("rank 1 has had enough")
            ranks.everyone(None)  # waits for one that never comes


if __name__ == "__main__":
    with StopRequests():  # as a run does: torchrun's SIGTERM, when another rank has failed, cuts no last words short
        main(Path(sys.argv[1]))
    leave(0)
