"""Episodes that can be played again: a few kilobytes of seeds, options and actions under a pinned clock."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode, VectorWrapper
from numpy.typing import NDArray

from polybeast_moe.envs.tasks import InvalidOptionError, TaskOptions
from polybeast_moe.envs.vector_env import Info, NetHackVectorEnv, Observations, Seeds
from polybeast_moe.errors import UserError
from polybeast_moe.files import replace_file

SUFFIX = ".replay"
_MAGIC = b"polybeast_moe replay 1\n"
_NAME = re.compile(r"score-(-?\d+)-core-\d+" + re.escape(SUFFIX))


class ReplayError(UserError):
    """A file that is no replay, or an episode that did not come out as it was recorded."""


class ReplayStep(NamedTuple):
    """One step played again. The first has no action: it is the reset."""

    action: int | None
    observation: Observations
    """Of the one game, without the leading dimension; views that hold until the next step."""
    reward: float
    terminated: bool
    truncated: bool
    info: Info


@dataclass(frozen=True)
class Replay:
    """One episode: what it takes to play it again, and what came of it."""

    task: str
    options: dict[str, Any]
    seeds: Seeds
    clock: int
    actions: NDArray[np.uint8]
    """[length]"""
    frozen_steps: int = 0
    """NLE's count of frozen steps at the start: penalties other than `constant` carry it over from the last episode."""
    record: dict[str, float | str] = field(default_factory=dict)
    """The episode's record (`info["episode_record"]`), held against what is played."""

    def save(self, path: Path | str) -> None:
        """Writes the file, whole or not at all. Raises OSError when it cannot be written."""
        header = {key: value for key, value in asdict(self).items() if key != "actions"}
        packed = zlib.compress(self.actions.astype(np.uint8).tobytes(), 9)
        replace_file(Path(path), _MAGIC + json.dumps(header).encode() + b"\n" + packed)

    @classmethod
    def load(cls, path: Path | str) -> Replay:
        """Reads a file that `save` wrote.

        Raises:
            ReplayError: it is missing, or not such a file.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise ReplayError(f"{path}: {error.strerror}") from None
        if not data.startswith(_MAGIC):
            raise ReplayError(f"{path}: not a replay of this version")
        try:
            header, packed = data[len(_MAGIC) :].split(b"\n", 1)
            fields = json.loads(header)
            actions = np.frombuffer(zlib.decompress(packed), dtype=np.uint8)
            core, disp, lgen = fields.pop("seeds")
            return cls(seeds=(core, disp, lgen), actions=actions, **fields)
        except (ValueError, TypeError, KeyError, AttributeError, zlib.error) as error:
            raise ReplayError(f"{path}: a broken replay: {error}") from None

    def play(self, observation_keys: Sequence[str] | None = None) -> Iterator[ReplayStep]:
        """Plays the episode step by step, beginning with its reset.

        Args:
            observation_keys: what to observe, as in `NetHackVectorEnv`.

        Raises:
            ReplayError: after the last step, when the record differs from the one saved.
        """
        env = NetHackVectorEnv(
            self.task,
            1,
            observation_keys=observation_keys,
            autoreset_mode=AutoresetMode.DISABLED,
            clock=self.clock,
            **self.options,
        )
        try:
            env.set_seeds([self.seeds])
            env.set_frozen_steps([self.frozen_steps])
            observation, info = env.reset()
            yield ReplayStep(None, _only(observation), 0.0, False, False, info)
            for action in self.actions.tolist():
                observation, reward, terminated, truncated, info = env.step(np.array([action]))
                yield ReplayStep(
                    action, _only(observation), float(reward[0]), bool(terminated[0]), bool(truncated[0]), info
                )
            self._check(info)
        finally:
            env.close()

    def _check(self, info: Info) -> None:
        played = _record_of(info, 0) if "episode_record" in info else {}
        for name, value in self.record.items():
            if played.get(name) != value:
                raise ReplayError(f"the replay of {self.task} gave {name} {played.get(name)} instead of {value}")


def _only(observation: Observations) -> Observations:
    return {key: array[0] for key, array in observation.items()}


def _record_of(info: Info, game: int) -> dict[str, float | str]:
    return {k: v.tolist()[game] for k, v in info["episode_record"].items() if not k.startswith(("_", "seed_"))}


class BestReplays:
    """Keeps files named `score-0000123-core-SEED.replay`; those that an earlier start left there count as well."""

    def __init__(self, directory: Path, keep: int) -> None:
        """Keeps at most `keep` files in `directory`, which is made with the first one."""
        self._directory = directory
        self._keep = keep
        found = ((_NAME.fullmatch(path.name), path) for path in directory.glob(f"*{SUFFIX}"))
        self._best = sorted((int(match[1]), path) for match, path in found if match)

    def wants(self, score: int) -> bool:
        """Whether an episode of that score would be among the best."""
        return len(self._best) < self._keep or (bool(self._best) and score > self._best[0][0])

    def add(self, replay: Replay) -> None:
        """Saves the replay of an episode that is wanted, by its record's score, and drops the worst of too many.

        Raises OSError when it cannot be written.
        """
        score, (core, _, _) = int(replay.record["score"]), replay.seeds
        path = self._directory / f"score-{score:07d}-core-{core}{SUFFIX}"
        self._directory.mkdir(parents=True, exist_ok=True)
        replay.save(path)
        self._best = sorted([*(entry for entry in self._best if entry[1] != path), (score, path)])
        while len(self._best) > self._keep:
            self._best.pop(0)[1].unlink(missing_ok=True)


class RecordReplays(VectorWrapper):
    """Writes replays of the best episodes that a `NetHackVectorEnv` plays: those of the highest scores.

    Files are named `score-0000123-core-SEED.replay`. Actions are kept in memory while an episode runs, one byte a step.
    """

    def __init__(self, env: Any, directory: Path | str, keep: int = 10) -> None:
        """Records into `directory`, which is made, at most `keep` files.

        Raises:
            InvalidOptionError: the clock is the real one, so that no episode can be played again.
        """
        super().__init__(env)
        base = env.unwrapped
        if not isinstance(base, NetHackVectorEnv):
            raise InvalidOptionError(f"RecordReplays needs a NetHackVectorEnv, not a {type(base).__name__}")
        if base.clock == "real":
            raise InvalidOptionError("RecordReplays needs a pinned clock: NetHackVectorEnv(..., clock=1_600_000_000)")
        self._base = base
        Path(directory).mkdir(parents=True, exist_ok=True)
        self._best = BestReplays(Path(directory), keep)
        self._actions: list[bytearray] = [bytearray() for _ in range(base.num_envs)]
        self._begun: list[tuple[Seeds, int]] = []

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Begins the recordings of the games that are reset."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._begin(info["_end_status"])
        return observation, info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Info]:
        """Records the step, and writes a replay for each episode that ended among the best."""
        waiting = self._base.waiting_for_reset()
        result = self.env.step(actions)
        info = result[4]
        for game, action in enumerate(np.asarray(actions).tolist()):
            if not waiting[game]:
                self._actions[game].append(action)
        ended = info.get("_episode_record", np.zeros(self._base.num_envs, dtype=np.bool_))
        for game in np.flatnonzero(ended).tolist():
            if "fatal_reason" not in info or not info["_fatal_reason"][game]:
                self._write(game, _record_of(info, game))
        self._begin(waiting | ended if self._base.autoreset_mode is AutoresetMode.SAME_STEP else waiting)
        return result

    def _begin(self, games: NDArray[np.bool_]) -> None:
        if not games.any():
            return
        seeds, frozen = self._base.seeds(), self._base.frozen_steps().tolist()
        self._begun = self._begun or [(seed, 0) for seed in seeds]
        for game in np.flatnonzero(games).tolist():
            self._begun[game] = (seeds[game], frozen[game])
            self._actions[game] = bytearray()

    def _write(self, game: int, record: dict[str, float | str]) -> None:
        if not self._best.wants(int(record["score"])):
            return
        (core, disp, lgen), frozen = self._begun[game]
        replay = Replay(
            self._base.task,
            given_options(self._base.task_options),
            (core, disp, lgen),
            int(self._base.clock),
            np.frombuffer(bytes(self._actions[game]), dtype=np.uint8),
            frozen,
            record,
        )
        self._best.add(replay)


def given_options(options: TaskOptions) -> dict[str, Any]:
    """Returns the options that differ from the defaults, as JSON can hold them."""
    given = {key: value for key, value in asdict(options).items() if value != getattr(TaskOptions(), key)}
    for key in ("actions", "options"):
        if key in given:
            given[key] = [item if isinstance(item, str) else int(item) for item in given[key]]
    return given
