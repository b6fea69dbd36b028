"""Coverage of the graph's conditions over play: how often each holds, which two are nearly one, what they cost.

    python benchmarks/conditions.py --steps 40000
    python benchmarks/conditions.py --recorded trained.pt --results  # and a policy's play, recorded by play.py --run
    python benchmarks/conditions.py --observations recorded.npz      # arrays named as NLE names them, instead

Four players make the observations, each on several characters: `task` draws uniformly from the 23 actions of
NetHackScore, `useful` from NLE's useful actions, `challenge` from those of NetHackChallenge, which leaves prompts open,
and escapes from a prompt half of the time (else games stand in one for ever), and `explorer` is a small script that
walks to unseen squares, picks things up, fights and descends: it shows what a policy that plays would see.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import pathlib
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import results
from nle import nethack
from nle.env.tasks import TASK_ACTIONS, NetHackChallenge, NetHackScore
from play import GAMES

from polybeast_moe.graph import coverage

KEYS = ("glyphs", "blstats", "message", "inv_glyphs", "inv_oclasses", "inv_letters", "misc")
CHARACTERS = (
    "mon-hum-neu-mal", "val-dwa-law-fem", "wiz-elf-cha-mal", "sam-hum-law-mal", "pri-hum-cha-fem", "arc-gno-neu-fem",
    "cav-dwa-law-mal", "hea-gno-neu-mal", "kni-hum-law-fem", "ran-elf-cha-mal", "rog-orc-cha-mal", "tou-hum-neu-fem",
    "bar-orc-cha-mal",
)  # fmt: skip
STEP = {
    int(direction): offset
    for direction, offset in zip(
        nethack.CompassDirection,
        [(0, -1), (1, 0), (0, 1), (-1, 0), (1, -1), (1, 1), (-1, 1), (-1, -1)],
        strict=True,
    )
}
ESCAPE = int(nethack.Command.ESC)
Observation = dict[str, Any]
Player = Callable[[Observation, np.random.Generator], int]


def symbols(*names: str) -> np.ndarray:
    """The glyphs of the map symbols with these explanations."""
    wanted = [i for i in range(1, nethack.MAXPCHARS) if nethack.symdef.from_idx(i).explanation in names]
    return np.array(wanted) + nethack.GLYPH_CMAP_OFF


DOORS = symbols("open door", "closed door")
STAIRS_DOWN = symbols("staircase down", "ladder down")
GROUND = symbols(
    "doorway", "open door", "closed door", "floor of a room", "dark part of a room", "corridor", "lit corridor",
    "staircase up", "staircase down", "ladder up", "ladder down", "altar", "grave", "sink", "fountain", "ice",
)  # fmt: skip
STONE = nethack.GLYPH_CMAP_OFF
BOULDER = nethack.GLYPH_OBJ_OFF + next(
    i for i in range(nethack.NUM_OBJECTS) if nethack.OBJ_NAME(nethack.objclass(i)) == "boulder"
)


class Explorer:
    """Walks to stairs, objects and unseen squares by breadth-first search, strikes what stands in the way."""

    def __init__(self, boldness: float) -> None:
        """Boldness is the probability, at each step with stairs in sight, to go for them."""
        self.boldness = boldness
        self.level: tuple[int, int] | None = None
        self.doors = self.visits = np.zeros(nethack.DUNGEON_SHAPE, int)
        self.stairs: set[tuple[int, int]] = set()
        self.last_move = 0

    def __call__(self, observation: Observation, rng: np.random.Generator) -> int:
        """Returns the key to press."""
        glyphs, blstats = observation["glyphs"], observation["blstats"]
        message = bytes(observation["message"])
        here = int(blstats[nethack.NLE_BL_X]), int(blstats[nethack.NLE_BL_Y])
        if observation["misc"].any():
            return self.answer(message, rng)
        self.remember(glyphs, blstats, here)
        chance = rng.random()
        if b"locked" in message and chance < 0.7:
            return int(nethack.Command.KICK)
        if chance < 0.02:
            return int(rng.choice([int(action) for action in nethack.USEFUL_ACTIONS]))
        if blstats[nethack.NLE_BL_HUNGER] >= 2 and chance < 0.3:
            return int(nethack.Command.EAT)
        enemy = self.enemy(glyphs, here)
        if enemy:
            return enemy
        if here in self.stairs and rng.random() < self.boldness:
            return int(nethack.MiscDirection.DOWN)
        if b"see here" in message and rng.random() < 0.5:
            return int(nethack.Command.PICKUP)
        self.last_move = self.explore(glyphs, here, rng) or int(rng.choice(list(STEP)))
        return self.last_move if rng.random() < 0.97 else int(nethack.Command.SEARCH)

    def answer(self, message: bytes, rng: np.random.Generator) -> int:
        """Answers a prompt: a direction, something to eat, or no."""
        if b"direction" in message and self.last_move:
            return self.last_move
        if b"eat" in message:
            return int(rng.choice([ord(c) for c in "ydefgh"]))
        return int(rng.choice([ESCAPE, ord("y"), ord("n")]))

    def remember(self, glyphs: np.ndarray, blstats: np.ndarray, here: tuple[int, int]) -> None:
        """Notes doors and stairs, which the hero's glyph hides once they are reached."""
        level = int(blstats[nethack.NLE_BL_DNUM]), int(blstats[nethack.NLE_BL_DLEVEL])
        if level != self.level:
            self.level, self.stairs = level, set()
            self.doors, self.visits = (np.zeros(nethack.DUNGEON_SHAPE, int) for _ in range(2))
        self.doors |= np.isin(glyphs, DOORS)
        self.stairs |= {(int(x), int(y)) for y, x in np.argwhere(np.isin(glyphs, STAIRS_DOWN))}
        self.visits[here[1], here[0]] += 1

    def enemy(self, glyphs: np.ndarray, here: tuple[int, int]) -> int | None:
        """The direction of a monster next to the hero that is no pet, if any."""
        for key, (x, y) in neighbours(here):
            if glyphs[y, x] < nethack.NUMMONS:
                return key
        return None

    def explore(self, glyphs: np.ndarray, here: tuple[int, int], rng: np.random.Generator) -> int | None:
        """The first step towards stairs, objects or squares that border on unseen ones."""
        objects = (glyphs >= nethack.GLYPH_BODY_OFF) & (glyphs < nethack.GLYPH_CMAP_OFF) & (glyphs != BOULDER)
        ground = np.isin(glyphs, GROUND) | objects | (glyphs < nethack.GLYPH_BODY_OFF)
        padded = np.pad(glyphs == STONE, 1)
        unseen = sum(padded[1 + dy : 22 + dy, 1 + dx : 80 + dx].astype(int) for dx, dy in STEP.values()) > 0
        goals = [ground & unseen & (self.visits < 2), objects & (self.visits < 2), ground & (self.visits < 1)]
        if rng.random() < 0.2:
            goals.insert(0, goals.pop(1))
        if self.stairs and rng.random() < self.boldness:
            stairs = np.zeros_like(ground)
            for x, y in self.stairs:
                stairs[y, x] = True
            goals.insert(0, stairs)
        for goal in goals:
            step = self.first_step(here, goal, ground)
            if step:
                return step
        return None

    def first_step(self, here: tuple[int, int], goal: np.ndarray, ground: np.ndarray) -> int | None:
        """Breadth-first search; no diagonal steps through doors."""
        seen = {here}
        queue: collections.deque[tuple[tuple[int, int], int]] = collections.deque([(here, 0)])
        while queue:
            place, first = queue.popleft()
            if first and goal[place[1], place[0]]:
                return first
            for key, (x, y) in neighbours(place):
                diagonal = x != place[0] and y != place[1]
                if (x, y) in seen or not ground[y, x]:
                    continue
                if diagonal and (self.doors[y, x] or self.doors[place[1], place[0]]):
                    continue
                seen.add((x, y))
                queue.append(((x, y), first or key))
        return None


def neighbours(place: tuple[int, int]) -> Iterator[tuple[int, tuple[int, int]]]:
    """The eight neighbours on the map, each with the key that leads there."""
    rows, columns = nethack.DUNGEON_SHAPE
    for key, (dx, dy) in STEP.items():
        x, y = place[0] + dx, place[1] + dy
        if 0 <= x < columns and 0 <= y < rows:
            yield key, (x, y)


def uniform(keys: list[int]) -> Player:
    """A player that draws keys uniformly."""
    return lambda _, rng: keys[rng.integers(len(keys))]


def escaping(player: Player) -> Player:
    """That player, but at a prompt it presses ESC half of the time."""
    return lambda seen, rng: ESCAPE if seen["misc"].any() and rng.random() < 0.5 else player(seen, rng)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Who plays what: an environment class, its actions (None: its own) and a player made for each episode."""

    environment: type[NetHackScore]
    actions: tuple[Any, ...] | None
    player: Callable[[np.random.Generator], Player]


USEFUL = [int(action) for action in nethack.USEFUL_ACTIONS]
PROTOCOLS = {
    "task": Protocol(NetHackScore, None, lambda _: uniform([int(action) for action in TASK_ACTIONS])),
    "useful": Protocol(NetHackScore, nethack.ACTIONS, lambda _: uniform(USEFUL)),
    "challenge": Protocol(NetHackChallenge, None, lambda _: escaping(uniform(USEFUL))),
    "explorer": Protocol(NetHackScore, nethack.ACTIONS, lambda rng: Explorer(float(rng.choice([0.02, 0.3, 1.0])))),
}


def record(protocol: Protocol, steps: int, seed: int, episode_steps: int) -> dict[str, np.ndarray]:
    """Plays and returns the observations, one array [steps, ...] a key."""
    rng = np.random.default_rng(seed)
    out = {
        key: np.empty((steps, *nethack.OBSERVATION_DESC[key]["shape"]), nethack.OBSERVATION_DESC[key]["dtype"])
        for key in KEYS
    }
    step = episode = 0
    while step < steps:
        arguments: dict[str, Any] = {"actions": protocol.actions} if protocol.actions else {}
        environment = protocol.environment(
            character=CHARACTERS[episode % len(CHARACTERS)], observation_keys=KEYS, save_ttyrec_every=0, **arguments
        )
        # Through the class: NetHackChallenge blocks the method on its instance.
        nethack.Nethack.set_initial_seeds(environment.nethack, seed * 100_000 + episode, seed, False)
        index = {int(action): i for i, action in enumerate(environment.actions)}
        player, (observation, _) = protocol.player(rng), environment.reset()
        for _ in range(min(episode_steps, steps - step)):
            for key in KEYS:
                out[key][step] = observation[key]
            step += 1
            observation, _, ended, cut, _ = environment.step(index[player(observation, rng)])
            if ended or cut:
                break
        environment.close()
        episode += 1
    return out


def evaluate(observations: dict[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """The condition words [steps, words] and the processor time of one observation in microseconds (best of five)."""
    from polybeast_moe import _C

    arrays = [np.ascontiguousarray(observations[key]) for key in KEYS]
    seconds = []
    for _ in range(5):
        memories = stairs_memories(observations["blstats"][:, nethack.NLE_BL_TIME])
        start = time.thread_time()
        words = _C.evaluate_conditions(*arrays, memories)
        seconds.append(time.thread_time() - start)
    return np.asarray(words), 1e6 * min(seconds) / len(words)


def stairs_memories(turns: np.ndarray) -> list[Any]:
    """What is remembered of stairs at each step: an object for each episode, which begins where turns [steps] fall."""
    from polybeast_moe import _C

    episodes = np.cumsum(np.diff(turns, prepend=0) < 0)
    memories = [_C.StairsMemory() for _ in range(int(episodes[-1]) + 1)]
    return [memories[episode] for episode in episodes.tolist()]


def game_after_game(words: np.ndarray) -> np.ndarray:
    """Recordings of play.py hold step after step of all games: here the steps of a game follow each other."""
    by_step = words[: len(words) // GAMES * GAMES].reshape(-1, GAMES, words.shape[1])
    return by_step.swapaxes(0, 1).reshape(-1, words.shape[1])


def main() -> None:
    """Plays or reads observations and prints the coverage report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=40_000, help="steps a player")
    parser.add_argument("--episode-steps", type=int, default=2_500, help="steps an episode at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--observations", type=pathlib.Path, nargs="*", help="npz files to use instead of playing")
    parser.add_argument("--recorded", type=pathlib.Path, nargs="*", default=[], help="recordings of play.py, added")
    parser.add_argument("--results", action="store_true", help="write docs/results/coverage.md and coverage.json")
    arguments = parser.parse_args()
    about = results.machine()
    warnings.simplefilter("ignore")
    if arguments.observations:
        sources = {path.stem: dict(np.load(path)) for path in arguments.observations}
    else:
        sources = {
            name: record(protocol, arguments.steps, arguments.seed, arguments.episode_steps)
            for name, protocol in PROTOCOLS.items()
        }
    import torch

    from polybeast_moe import _C

    words, costs = {}, {}
    for name, observations in sources.items():
        words[name], costs[name] = evaluate(observations)
    for path in arguments.recorded:
        words[path.stem] = game_after_game(torch.load(path)["conditions"].numpy().view(np.uint64))
    found = coverage.measure(_C.condition_names(), words)
    report = coverage.render(found, costs)
    print(report)
    if arguments.results:
        slowest, quickest = max(costs.values()), min(costs.values())
        exact = {
            "conditions_uncovered": len(found.uncovered()),
            "conditions_rare": len(found.rare()) / len(found.names),
            "conditions_overlapping": len(found.overlaps),
        }
        measured = {"conditions_us": results.Measured(slowest, quickest, slowest)}
        measured |= {name: results.Measured(value, value, value) for name, value in exact.items()}
        shares = {
            name: dict(zip(found.sources, row, strict=True))
            for name, row in zip(found.names, found.shares.tolist(), strict=True)
        }
        results.write(
            "coverage",
            title="Coverage of the conditions",
            measured=measured,
            sections=[report],
            raw={"steps": {name: len(rows) for name, rows in words.items()}, "shares": shares},
            commands=[shlex.join(["python", "benchmarks/conditions.py", *sys.argv[1:]])],
            about=about,
        )


if __name__ == "__main__":
    main()
