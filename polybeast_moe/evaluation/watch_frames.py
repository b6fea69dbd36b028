"""What there is to watch: games that a policy plays, or stored episodes, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from nle import nethack
from numpy.typing import NDArray

from polybeast_moe import _C
from polybeast_moe.envs import NetHackVectorEnv, Replay
from polybeast_moe.envs.engine import ACTION_LABELS, ACTIONS, task_options
from polybeast_moe.envs.replay import given_options
from polybeast_moe.envs.scenes import SCENES, scenes
from polybeast_moe.envs.tasks import TaskOptions
from polybeast_moe.evaluation.agent import Agent, AgentState
from polybeast_moe.evaluation.draws import episode_seeds
from polybeast_moe.evaluation.endings import ending
from polybeast_moe.evaluation.observe import RAW_KEYS, observe
from polybeast_moe.models import PolicyOutput

KEYS = (*RAW_KEYS, "tty_chars", "tty_colors", "tty_cursor")
_KEYS_NAMED = {10: "RETURN"}  # what nle calls MORE


@dataclass(frozen=True)
class Opinion:
    """What a policy makes of one observation."""

    experts: dict[str, float]
    """Alpha by name."""
    actions: list[tuple[str, float]]
    """Names and probabilities, the likeliest first."""
    value: float
    conditions: list[str]
    """Those of its knowledge graph that are lit."""


@dataclass(frozen=True)
class Frame:
    """One moment of a game as it is shown."""

    title: str
    chars: NDArray[np.uint8]
    """[24, 80]"""
    colours: NDArray[np.int8]
    """[24, 80]: NetHack's, 0 to 15."""
    cursor: tuple[int, int]
    """Row, column."""
    step: int
    turn: int
    score: int
    total: float
    """Return so far."""
    scene: str
    opinion: Opinion | None
    action: str | None
    """What is done next; None at the end."""
    ended: str = ""
    """How the game ended; empty while it goes on."""


def played(agent: Agent, seed: int, episode: int) -> Iterator[Frame]:
    """Plays episode `episode` of the evaluation `seed`: the same game, the same actions."""
    env_config = agent.trained.config.env
    env = NetHackVectorEnv(
        env_config.task,
        1,
        observation_keys=KEYS,
        autoreset_mode="Disabled",
        clock=env_config.clock,
        **given_options(task_options(env_config)),
    )
    title = f"seed {seed}, episode {episode}"
    try:
        env.set_seeds([episode_seeds(seed, episode)])
        arrays, _ = env.reset()
        state, total, ended, score_and_turn = agent.initial_state(seed, episode), 0.0, "", (0, 0)
        while True:
            raw = {key: array[0] for key, array in arrays.items()}
            score_and_turn = score_and_turn if ended else _score_and_turn(raw)
            action, state, output = agent.look(raw, state)
            opinion = opinion_of(agent, raw, output, state)
            name = None if ended else action_name(ACTIONS[action])
            yield _frame(title, raw, state.step - 1, score_and_turn, total, opinion, name, ended)
            if ended:
                return
            arrays, reward, terminated, truncated, info = env.step(np.array([action]))
            total += float(reward[0])
            if terminated[0] or truncated[0]:
                record = info["episode_record"]
                ended = record["death"][0] or ending(int(record["how_done"][0]))
    finally:
        env.close()


def replayed(replay: Replay, title: str, agent: Agent | None) -> Iterator[Frame]:
    """Plays a stored episode again, `agent` (if there is one) saying what it would make of it."""
    state = None if agent is None else agent.initial_state(0)
    actions = [*replay.actions.tolist(), None]
    keys = _keys(replay)
    total, ended, score_and_turn = 0.0, "", (0, 0)
    for step, (played_step, action) in enumerate(zip(replay.play(KEYS), actions, strict=True)):
        raw, opinion = played_step.observation, None
        total += played_step.reward
        if action is None:
            ended = str(replay.record.get("death", "")) or ending(int(replay.record.get("how_done", -1)))
        else:
            score_and_turn = _score_and_turn(raw)
        if agent is not None and state is not None:
            _, state, output = agent.look(raw, state)
            opinion = opinion_of(agent, raw, output, state)
            state = state._replace(previous_action=len(ACTIONS) if action is None else _as_ours(keys[action]))
        name = None if action is None else action_name(keys[action])
        yield _frame(title, raw, step, score_and_turn, total, opinion, name, ended)


def opinion_of(agent: Agent, raw: dict[str, NDArray[Any]], output: PolicyOutput, state: AgentState) -> Opinion:
    """Puts a policy's output of one row into names; `state` is the agent's after it."""
    logits = output.logits[0].double()
    probabilities = (logits - logits.logsumexp(0)).exp()
    order = probabilities.argsort(descending=True).tolist()
    row = {key: raw[key][None] for key in RAW_KEYS}
    words = observe(row, np.array([0]), agent.trained.config.env, [state.stairs]).conditions[0].numpy().view(np.uint64)
    names = _C.condition_names()
    lit = [name for bit, name in enumerate(names) if int(words[bit // 64]) >> (bit % 64) & 1]
    experts = agent.trained.config.policy.expert_names
    return Opinion(
        dict(zip(experts, output.alpha[0].tolist(), strict=False)),
        [(action_name(ACTIONS[action]), float(probabilities[action])) for action in order],
        float(output.value[0]),
        lit,
    )


def action_name(key: int) -> str:
    """What an action's key does, in words: `N`, `run N`, `SEARCH`."""
    return ACTION_LABELS[ACTIONS.index(key)] if key in ACTIONS else _KEYS_NAMED.get(key, repr(chr(key)))


def _frame(
    title: str,
    raw: dict[str, NDArray[Any]],
    step: int,
    score_and_turn: tuple[int, int],
    total: float,
    opinion: Opinion | None,
    action: str | None,
    ended: str,
) -> Frame:
    scene = SCENES[int(scenes({key: raw[key][None] for key in ("glyphs", "blstats")})[0])]
    row, column = (int(value) for value in raw["tty_cursor"])
    chars, colours = raw["tty_chars"].copy(), raw["tty_colors"].copy()
    score, turn = score_and_turn
    return Frame(title, chars, colours, (row, column), step, turn, score, total, scene, opinion, action, ended)


def _score_and_turn(raw: dict[str, NDArray[Any]]) -> tuple[int, int]:
    """NLE shows neither after a death."""
    return int(raw["blstats"][nethack.NLE_BL_SCORE]), int(raw["blstats"][nethack.NLE_BL_TIME])


def _keys(replay: Replay) -> tuple[int, ...]:
    return TaskOptions.of(replay.task, replay.options).keys(replay.task)


def _as_ours(key: int) -> int:
    return ACTIONS.index(key) if key in ACTIONS else len(ACTIONS)
