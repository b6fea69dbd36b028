"""A plain loop in the manner of the reference experiment: one process, one game, PPO, graphs in a Python loop.

Glyph crop and status line through the shared trunk; two layers of graph attention (PyG's `GATConv`, hidden 256, 4
heads) over this project's knowledge graph, run once for every state and every epoch; a router and four experts under
softmax. Nothing is batched across graphs: that is what it stands for. Settings: `rollout`, `epochs`, `minibatch`,
`learning_rate`, `torch_threads`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn
from torch_geometric.nn import GATConv

from peers.games import Game
from peers.job import read_job
from peers.meter import Meter
from peers.network import HIDDEN, SharedTrunk, size
from polybeast_moe import _C
from polybeast_moe.config import GraphConfig
from polybeast_moe.config_files import resolve_data_file
from polybeast_moe.graph import load_graph
from polybeast_moe.models.conditions import PackedConditions

SCREEN = ("glyphs", "blstats", "message", "inv_glyphs", "inv_oclasses", "inv_letters", "misc")
VIEWS = ("crop", "blstats", "lit")
EXPERTS, HEADS, EXPERT_HIDDEN = 4, 4, 128
DISCOUNT, LAMBDA, CLIP, VALUE, ENTROPY = 0.995, 0.95, 0.2, 0.5, 0.01

GRAPH = load_graph(resolve_data_file(GraphConfig().file))


def lit_view() -> tuple[tuple[str, ...], tuple[Any, Any]]:
    """Which conditions of the graph hold: [conditions] of 0 and 1."""
    packed = PackedConditions(GRAPH.condition_bits)

    def evaluate(seen: dict[str, Any]) -> Any:
        words = _C.evaluate_conditions(*(np.ascontiguousarray(seen[key][None]) for key in SCREEN))
        return packed.unpack(torch.from_numpy(words.view(np.int64)))[0].numpy()

    return SCREEN, (spaces.Box(0, 1, (len(GRAPH.conditions),), np.float32), evaluate)


class GraphExperts(nn.Module):
    """(crop [N, 9, 9], blstats [N, 27], lit [N, conditions]) -> action logits [N, A], value [N]."""

    edges: Tensor

    def __init__(self, num_actions: int) -> None:
        super().__init__()
        self.trunk = SharedTrunk()
        self.nodes = nn.Parameter(torch.randn(GRAPH.num_nodes, HIDDEN) / 16)
        self.first = GATConv(HIDDEN, HIDDEN // HEADS, HEADS)
        self.second = GATConv(HIDDEN, HIDDEN // HEADS, HEADS)
        self.router = nn.Linear(2 * HIDDEN, EXPERTS)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * HIDDEN, EXPERT_HIDDEN), nn.ReLU(), nn.Linear(EXPERT_HIDDEN, num_actions))
            for _ in range(EXPERTS)
        )
        self.value = nn.Linear(2 * HIDDEN, 1)
        pairs = np.stack([GRAPH.edges.source, GRAPH.edges.target])
        self.register_buffer("edges", torch.from_numpy(pairs), persistent=False)
        self.operators = slice(len(GRAPH.conditions), len(GRAPH.conditions) + len(GRAPH.operators))

    def forward(self, crop: Tensor, blstats: Tensor, lit: Tensor) -> tuple[Tensor, Tensor]:
        """As the class says."""
        intents = torch.stack([self._intent(row) for row in lit])  # state after state
        features = torch.cat([self.trunk(crop, blstats), intents], dim=1)
        alpha = torch.softmax(self.router(features), dim=1)
        logits = torch.stack([expert(features) for expert in self.experts], dim=1)
        return (alpha[:, :, None] * logits).sum(1), self.value(features).squeeze(1)

    def _intent(self, lit: Tensor) -> Tensor:
        """[hidden] of one state: its lit conditions send, its operators are averaged."""
        silent = torch.ones(GRAPH.num_nodes - len(lit))
        states = self.nodes * torch.cat([lit, silent])[:, None]
        states = F.elu(self.first(states, self.edges))
        states = F.elu(self.second(states, self.edges))
        return states[self.operators].mean(0)


def advantages(rewards: Tensor, values: Tensor, ends: Tensor, after: Tensor) -> Tensor:
    """Generalised advantage estimates [T] (Schulman et al. 2016); `after` is the value behind the last step."""
    found, last = torch.zeros_like(rewards), torch.zeros(())
    following = torch.cat([values[1:], after[None]])
    deltas = rewards + DISCOUNT * following * ~ends - values
    for t in reversed(range(len(rewards))):
        last = found[t] = deltas[t] + DISCOUNT * LAMBDA * last * ~ends[t]
    return found


def rows(seen: list[dict[str, Any]]) -> tuple[Tensor, ...]:
    """Observations as the network's arguments."""
    return tuple(torch.from_numpy(np.stack([one[name] for one in seen])) for name in VIEWS)


class Loop:
    """Plays `rollout` steps with the newest weights, learns from them, and so on."""

    def __init__(self, game: Game, settings: dict[str, Any]) -> None:
        self.rollout = settings.get("rollout", 128)
        self.epochs = settings.get("epochs", 4)
        self.minibatch = settings.get("minibatch", 64)
        self.game = game
        self.network = GraphExperts(int(game.action_space.n))
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.get("learning_rate", 3e-4))
        self.seen, _ = game.reset()

    def turn(self) -> int:
        """One rollout and its update; returns its frames."""
        seen, actions, log_probs, values, rewards, ends = [], [], [], [], [], []
        with torch.no_grad():
            for _ in range(self.rollout):
                logits, value = self.network(*rows([self.seen]))
                chosen = torch.distributions.Categorical(logits=logits[0])
                action = chosen.sample()
                seen.append(self.seen)
                actions.append(action)
                log_probs.append(chosen.log_prob(action))
                values.append(value[0])
                self.seen, reward, terminated, truncated, _ = self.game.step(action.item())
                rewards.append(reward)
                ends.append(terminated or truncated)
                if ends[-1]:
                    self.seen, _ = self.game.reset()
            after = self.network(*rows([self.seen]))[1][0]
        known = torch.stack(values)
        gains = advantages(torch.tensor(rewards), known, torch.tensor(ends), after)
        self._learn(rows(seen), torch.stack(actions), torch.stack(log_probs), gains, gains + known)
        return self.rollout

    def _learn(self, seen: tuple[Tensor, ...], actions: Tensor, before: Tensor, gains: Tensor, returns: Tensor) -> None:
        """PPO's clipped objective (Schulman et al. 2017)."""
        gains = (gains - gains.mean()) / (gains.std() + 1e-8)
        for _ in range(self.epochs):
            for part in torch.randperm(self.rollout).split(self.minibatch):
                logits, value = self.network(*(field[part] for field in seen))
                now = torch.distributions.Categorical(logits=logits)
                ratio = torch.exp(now.log_prob(actions[part]) - before[part])
                gain = torch.minimum(ratio * gains[part], ratio.clamp(1 - CLIP, 1 + CLIP) * gains[part]).mean()
                loss = VALUE * F.mse_loss(value, returns[part]) - gain - ENTROPY * now.entropy().mean()
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.network.parameters(), 0.5)
                self.optimizer.step()


def main() -> None:
    job = read_job()
    torch.manual_seed(job.seed)
    torch.set_num_threads(job.settings.get("torch_threads", 1))  # graphs of one state are too small for more
    loop = Loop(Game(job, VIEWS, {"lit": lit_view()}), job.settings)
    meter = Meter(job, environments=1, parameters=size(loop.network))
    meter.start()
    while True:
        meter.learnt(loop.turn())


if __name__ == "__main__":
    main()
