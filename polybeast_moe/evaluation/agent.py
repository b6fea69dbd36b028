"""A trained policy as an agent for anybody's environment: stock Gymnasium NLE, one game at a time."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polybeast_moe import _C
from polybeast_moe.envs.engine import ACTIONS
from polybeast_moe.evaluation.draws import draw, uniform
from polybeast_moe.evaluation.observe import RAW_KEYS, observe
from polybeast_moe.evaluation.trained import TrainedPolicy, load_trained
from polybeast_moe.models import PolicyOutput


class AgentState(NamedTuple):
    """What an agent remembers of a game between two steps."""

    hidden: Tensor
    """[1, S]: the policy's recurrent state."""
    previous_action: int
    """The number of actions before the first step."""
    step: int
    """Steps taken."""
    seed: int
    episode: int
    """Seed and episode give the random numbers that actions are drawn with, as in `evaluate`."""
    stairs: _C.StairsMemory
    """Where stairs were seen."""


class Agent:
    """Chooses actions for `NetHackScore-v0` as a snapshot's policy does. Made by `polybeast_moe.load_policy`.

    Attributes:
        trained: the policy with its configuration, routing and temperature.
    """

    def __init__(self, trained: TrainedPolicy, greedy: bool = False) -> None:
        self.trained = trained
        self._greedy = greedy

    def initial_state(self, seed: int | None = None, episode: int = 0) -> AgentState:
        """Returns the state before an episode's first step.

        With the seed and the episode's number of an evaluation, the agent does in the same game what it did there.
        `seed` None draws one.
        """
        seed = secrets.randbits(63) if seed is None else seed
        hidden = self.trained.policy.initial_state(1)
        return AgentState(hidden, len(ACTIONS), 0, seed, episode, _C.StairsMemory())

    def act(self, observation: Mapping[str, Any], state: AgentState | None = None) -> tuple[int, AgentState]:
        """Chooses an action.

        Args:
            observation: one observation of NLE: arrays by key, without a leading dimension. Needed are `glyphs`,
                `blstats`, `message`, `inv_glyphs`, `inv_letters` and `inv_oclasses`, which NLE shows by default.
            state: what the last call returned; None at an episode's first step.

        Returns:
            An index into `nle.env.tasks.TASK_ACTIONS`, and the state for the next call.

        Raises:
            UserError: the observation lacks a key.
        """
        action, state, _ = self.look(observation, state)
        return action, state

    def look(
        self, observation: Mapping[str, Any], state: AgentState | None = None
    ) -> tuple[int, AgentState, PolicyOutput]:
        """As `act`, and says what the policy made of the observation: one row of a `PolicyOutput`."""
        trained, state = self.trained, self.initial_state() if state is None else state
        raw: dict[str, NDArray[Any]] = {
            key: np.asarray(observation[key])[None] for key in RAW_KEYS if key in observation
        }
        stairs = state.stairs.copy()  # whoever holds the old state may go on from it
        row = observe(raw, np.array([state.previous_action], dtype=np.int64), trained.config.env, [stairs])
        output = trained.policy.infer(
            row,
            state.hidden,
            routing=trained.routing,
            temperature=trained.temperature,
            first=torch.tensor([state.step == 0]),
            weights_version=0,
        )
        logits = output.logits.float().numpy()
        number, step = np.array([state.episode]), np.array([state.step])
        action = int(logits.argmax()) if self._greedy else int(draw(logits, uniform(state.seed, number, step))[0])
        hidden = state.hidden if output.state is None else output.state
        return action, AgentState(hidden, action, state.step + 1, state.seed, state.episode, stairs), output


def load_policy(snapshot: str | Path, *, greedy: bool = False) -> Agent:
    """Returns an agent that plays as a snapshot's policy does, or that of a run directory's newest good snapshot.

    Args:
        snapshot: a snapshot's directory or a run's.
        greedy: take the likeliest action instead of drawing one.

    Raises:
        UserError: there is no such snapshot, it does not verify, or its policy cannot be built any more.
    """
    return Agent(load_trained(snapshot), greedy)
