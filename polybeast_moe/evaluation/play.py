"""Plays whole episodes with a policy, or with random actions: what every figure of an evaluation comes from.

Deterministic: which games are played follows from `seed`, which actions are drawn from `seed`, episode and step. On the
same machine with the same number of games side by side the same policy plays the same episodes.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polybeast_moe import _C
from polybeast_moe.config import EnvConfig
from polybeast_moe.envs.engine import ACTIONS
from polybeast_moe.envs.episode_record import EpisodeRecord
from polybeast_moe.evaluation.draws import draw, uniform
from polybeast_moe.evaluation.games import GameRows, GameTable
from polybeast_moe.evaluation.observe import observe
from polybeast_moe.models import Observation, PolicyOutput
from polybeast_moe.models.interface import moved
from polybeast_moe.ops.mixture import Routing

GAMES = 64
"""Games side by side, unless the caller says otherwise."""


class ActingPolicy(Protocol):
    """What is needed of a policy: `polybeast_moe.models.Policy` has it."""

    def initial_state(self, batch: int) -> Tensor:
        """Returns [batch, S], the recurrent state before an episode's first step."""

    def infer(
        self,
        observation: Observation,
        state: Tensor | None = None,
        *,
        routing: Routing,
        temperature: float,
        first: Tensor | None = None,
        weights_version: int | None = None,
    ) -> PolicyOutput:
        """One step of N games: see `polybeast_moe.models.Policy.infer`, whose arguments and shapes these are."""


InferWith = Callable[[ActingPolicy], PolicyOutput]
"""What another policy makes of the same rows, in the same recurrent states."""
Change = Callable[[GameRows, PolicyOutput, InferWith], PolicyOutput]
"""What a policy's output becomes before anything is done: see `interventions`."""


@dataclass(frozen=True)
class Moment:
    """One step of N games: what was seen and what the policy made of it. `output` is None for random actions."""

    rows: GameRows
    observation: Observation
    output: PolicyOutput | None
    action: NDArray[np.int64]


@dataclass
class Played:
    """What became of the episodes, in the order of their numbers."""

    seed: int
    records: list[EpisodeRecord] = field(default_factory=list)
    """One an episode, of `EPISODE_FIELDS`; of a policy also `alpha_entropy` (mean)."""
    alpha: NDArray[np.float64] | None = None
    """[episodes, E]: alpha summed over each episode's steps; None for random actions."""
    seconds: float = 0.0

    def column(self, name: str) -> NDArray[np.float64]:
        """Returns one figure of every episode, [episodes]."""
        return np.array([record[name] for record in self.records], dtype=np.float64)


def play_episodes(
    policy: ActingPolicy | None,
    env: EnvConfig,
    *,
    episodes: int,
    seed: int,
    routing: Routing = "sparsemax",
    temperature: float = 1.0,
    greedy: bool = False,
    games: int = GAMES,
    change: Change | None = None,
    watch: Callable[[Moment], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Played | None:
    """Plays episodes 0 to `episodes` - 1 of the evaluation `seed`, each to its end.

    The games step in a thread of their own while the policy looks at the other half of them.

    Args:
        policy: the policy, in the device of its weights; None draws every action with equal probability.
        env: which NetHack, as in training: character, step limit, clock, crop.
        episodes: how many.
        seed: of the games and of the actions.
        routing: the router's.
        temperature: the router's.
        greedy: take the most probable action instead of drawing one.
        games: how many are played side by side.
        change: changes what the policy says before an action is taken; its recurrent state stays.
        watch: gets every moment, episodes interleaved.
        progress: called now and then with the episodes that have ended and the steps played.
        interrupted: asked at every step; once true, nothing is returned.

    Returns:
        The episodes; None when interrupted.
    """
    halves = 2 if episodes > 1 and games > 1 else 1
    each = max(1, games // halves)
    tally = _Tally(episodes)
    with contextlib.ExitStack() as parts, ThreadPoolExecutor(1) as engine:
        tables = [
            parts.enter_context(contextlib.closing(GameTable(env, seed, range(half, episodes, halves), each)))
            for half in range(halves)
        ]
        began = time.perf_counter()
        chooser = _Chooser(policy, env, seed, routing, temperature, greedy, change)
        steps: list[Future[None]] = [engine.submit(table.begin) for table in tables]
        states: list[Tensor | None] = [None] * len(tables)
        stairs = [[_C.StairsMemory() for _ in range(each)] for _ in tables]
        playing = True
        while playing:
            playing = False
            for i, table in enumerate(tables):
                steps[i].result()
                rows = table.rows()
                if rows is None:
                    continue
                if interrupted():
                    return None
                playing = True
                moment, states[i] = chooser.choose(rows, states[i], stairs[i])
                steps[i] = engine.submit(table.play, rows, moment.action)
                tally.count(moment)
                if watch is not None:
                    watch(moment)
                if progress is not None:
                    progress(sum(len(table.records) for table in tables), tally.steps)
        records = {number: record for table in tables for number, record in table.records.items()}
    return tally.played(seed, records, time.perf_counter() - began)


class _Chooser:
    """Chooses actions for the rows of one table."""

    def __init__(
        self,
        policy: ActingPolicy | None,
        env: EnvConfig,
        seed: int,
        routing: Routing,
        temperature: float,
        greedy: bool,
        change: Change | None,
    ) -> None:
        self._policy, self._env, self._seed, self._greedy, self._change = policy, env, seed, greedy, change
        self._settings: dict[str, Any] = {"routing": routing, "temperature": temperature}
        # What a policy keeps between calls holds for weights of one version: these weights have a version of their own.
        self._settings["weights_version"] = -1 - secrets.randbits(62)
        self._device = torch.device("cpu") if policy is None else policy.initial_state(1).device

    def choose(
        self, rows: GameRows, state: Tensor | None, stairs: list[_C.StairsMemory]
    ) -> tuple[Moment, Tensor | None]:
        """Returns what is done, and the recurrent states [rows, S] of the whole table.

        `stairs` is what is remembered of each of the table's games, brought up to date.
        """
        for row in rows.game[rows.step == 0].tolist():
            stairs[row].forget()
        observation = observe(rows.raw, rows.previous_action, self._env, [stairs[row] for row in rows.game.tolist()])
        if self._policy is None:
            logits = np.zeros((len(rows.game), len(ACTIONS)), dtype=np.float32)
            return Moment(rows, observation, None, self._action(rows, logits)), None
        state = self._policy.initial_state(len(stairs)) if state is None else state
        game = torch.from_numpy(rows.game).to(self._device)
        on_device = moved(observation, lambda tensor: tensor.to(self._device))
        first = torch.from_numpy(rows.step == 0).to(self._device)
        states = state[game]

        def infer(policy: ActingPolicy) -> PolicyOutput:
            output = policy.infer(on_device, states, first=first, **self._settings)
            return moved(output, Tensor.cpu)

        output = infer(self._policy)
        if output.state is not None and output.state.shape[1]:
            state = state.index_copy(0, game, output.state.to(self._device))
        if self._change is not None:
            output = self._change(rows, output, infer)
        return Moment(rows, observation, output, self._action(rows, output.logits.float().numpy())), state

    def _action(self, rows: GameRows, logits: NDArray[np.float32]) -> NDArray[np.int64]:
        if self._greedy and self._policy is not None:
            return np.asarray(logits.argmax(axis=1), dtype=np.int64)
        return draw(logits, uniform(self._seed, rows.episode, rows.step))


class _Tally:
    """Sums over the steps of each episode."""

    def __init__(self, episodes: int) -> None:
        self.steps = 0
        self._entropy = np.zeros(episodes)
        self._alpha: NDArray[np.float64] | None = None

    def count(self, moment: Moment) -> None:
        self.steps += len(moment.action)
        if moment.output is None:
            return
        alpha = moment.output.alpha.double().numpy()
        if self._alpha is None:
            self._alpha = np.zeros((len(self._entropy), alpha.shape[1]))
        self._alpha[moment.rows.episode] += alpha  # an episode is at most once in these rows
        self._entropy[moment.rows.episode] += moment.output.alpha_entropy.double().numpy()

    def played(self, seed: int, records: dict[int, EpisodeRecord], seconds: float) -> Played:
        ordered = [records[number] for number in sorted(records)]
        if self._alpha is not None:
            for record, entropy in zip(ordered, self._entropy.tolist(), strict=True):
                record["alpha_entropy"] = entropy / max(1, int(record["length"]))
        return Played(seed, ordered, self._alpha, seconds)
