"""Many NetHack games behind Gymnasium's vector interface, over the C++ engine."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from polybeast_moe import _C
from polybeast_moe.envs.episode_record import GAME_FIGURES
from polybeast_moe.envs.nle_package import check_nle
from polybeast_moe.envs.tasks import InvalidOptionError, InvalidTypeError, TaskOptions, chosen_keys
from polybeast_moe.envs.workers import Inline, Processes

Seeds = tuple[int, int, int | None]
"""Of the core and the display random numbers, and of the level generator (None: it has none of its own)."""

Observations = dict[str, NDArray[Any]]
Info = dict[str, Any]

_MAX_SEED = 2**64 - 1


class NetHackVectorEnv(VectorEnv[Observations, ArrayLike, NDArray[Any]]):
    """`num_envs` games of one NLE task, equal to NLE's own environments step by step.

    Observations are views `[num_envs, ...]` of the engine's memory: they hold until the next `step` or `reset`, and are
    not to be written to. Copy what must last. Rewards, ends and info are arrays of the caller's own.

    One deviation from NLE: where NLE aborts an episode (its step limit, NetHackChallenge's time-out) it plays a quit
    into the observation; here the last observation is the one before that quit.

    Attributes:
        reward_term_names: names of the columns of `info["reward_terms"]`.
        fatal_games: episodes so far that ended because NetHack, or the process that played it, gave up.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own annotation

    reward_term_names: tuple[str, ...] = _C.REWARD_TERMS

    def __init__(
        self,
        task: str = "NetHackScore-v0",
        num_envs: int = 1,
        *,
        observation_keys: Sequence[str] | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        num_processes: int = 1,
        clock: int | Literal["real"] = "real",
        reward_terms: bool = False,
        **task_options: Any,
    ) -> None:
        """Makes the games; none is played before `reset`.

        Args:
            task: an id of NLE's: `NetHack-v0`, `NetHackScore-v0`, ..., `NetHackChallenge-v0`.
            num_envs: games.
            observation_keys: what to observe (`nle.nethack.OBSERVATION_DESC`); NLE's defaults of the task. A key that
                is not asked for costs nothing.
            autoreset_mode: Gymnasium's modes, all three.
            num_processes: 1 plays the games in this process; more play them in processes of their own, which also keeps
                a crash of NetHack out of this one.
            clock: what NetHack's clock shows: `"real"`, as in NLE, or seconds since 1970, read in UTC.
            reward_terms: put `info["reward_terms"]` beside the reward, one column each of `reward_term_names`.
            **task_options: NLE's own options (`TaskOptions`): character, max_episode_steps, penalty_mode, ...

        Raises:
            InvalidOptionError: unknown task, key or option, or a value that it cannot have (a ValueError).
            UserError: the installed nle is missing or of another version.
        """
        self.closed = True  # until there is something to close
        self.task = task
        self.task_options = TaskOptions.of(task, task_options)
        keys = chosen_keys(task, observation_keys)
        self.num_envs = _whole("num_envs", num_envs, 1)
        processes = _whole("num_processes", num_processes, 1)
        if processes > num_envs:
            raise InvalidOptionError(f"num_processes: {processes} processes for {num_envs} games")
        self.clock = _checked_clock(clock)
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError as error:
            raise InvalidOptionError(f"autoreset_mode: {error}") from None
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}

        self.single_observation_space = spaces.Dict({key: space for key, space in _nle_spaces().items() if key in keys})
        self._num_actions = len(self.task_options.keys(task))
        self.single_action_space = spaces.Discrete(self._num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

        settings = self.task_options.game_settings(task, None if clock == "real" else int(clock), check_nle())
        self._block = _C.GameBlock(settings, num_envs, processes if processes > 1 else 0, list(keys), reward_terms)
        fields = self._block.fields()
        self._observations = {key: fields[key] for key in keys}
        self._fields = fields
        self._reward_terms = fields.get("reward_terms")
        self._stepper = Processes(self._block, processes) if processes > 1 else Inline(self._block, num_envs)
        self.closed = False

        self.fatal_games = 0
        self._everybody = np.ones(num_envs, dtype=np.bool_)
        self._everybody.flags.writeable = False  # info shares it
        self._started = np.zeros(num_envs, dtype=np.bool_)
        self._ended = np.zeros(num_envs, dtype=np.bool_)
        self._all_started = self._anyone_ended = False
        self._next_seeds: list[Seeds | None] = [None] * num_envs
        self._roots: list[tuple[int, int] | None] = [None] * num_envs  # seed and game number that episodes follow from
        self._episodes = [0] * num_envs

    def set_seeds(self, seeds: Sequence[Sequence[int | None] | None]) -> None:
        """Gives each game the seeds of its next reset, with NetHack's reseeding off.

        Args:
            seeds: one entry a game: `(core, disp)`, `(core, disp, lgen)` with lgen None for a level generator without
                numbers of its own, or None for fresh entropy.

        Raises:
            InvalidOptionError: not one entry a game, or a seed that is not an unsigned 64-bit number.
        """
        self._check_open()
        if len(seeds) != self.num_envs:
            raise InvalidOptionError(f"set_seeds: {len(seeds)} entries for {self.num_envs} games")
        checked = [None if entry is None else _checked_seeds(i, entry) for i, entry in enumerate(seeds)]
        self._next_seeds = [_fresh_seeds() if entry is None else entry for entry in checked]

    def seeds(self) -> list[Seeds]:
        """Returns the seeds that each game's episode was started with."""
        f = self._fields
        return [
            (int(core), int(disp), int(lgen) if has else None)
            for core, disp, lgen, has in zip(f["seed_core"], f["seed_disp"], f["seed_lgen"], f["has_lgen"], strict=True)
        ]

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observations, Info]:
        """Starts a new episode in every game, or in those of `options["reset_mask"]`.

        Args:
            seed: an int s seeds all episodes to come: episode e of game i gets `_C.episode_seeds(s, i, e)`
                (docs/engine.md). A list gives game i the seed s_i: `_C.episode_seeds(s_i, 0, e)`; None there draws
                fresh entropy. None leaves earlier seeds in force; without any, the system draws them. Seeds of
                `set_seeds` come first.
            options: `{"reset_mask": bool array [num_envs]}`: only these games; the others stay as they are.
        """
        self._check_open()
        mask = self._everybody if options is None or "reset_mask" not in options else self._checked_mask(options)
        if not (mask | self._started).all():
            raise ResetNeeded("reset: the first reset must start every game, without a reset_mask")
        if seed is not None:
            self._seed(seed)
        self._start_episodes(mask)
        self._run()
        return dict(self._observations), self._info(mask.copy())

    def step(
        self, actions: ArrayLike
    ) -> tuple[Observations, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Info]:
        """Plays one action in every game, and starts new episodes as the autoreset mode says.

        Args:
            actions: `[num_envs]`, whole numbers in [0, number of actions).

        Returns:
            Observations (views), rewards, terminations and truncations as NLE reports them (a step limit terminates,
            with `end_status` ABORTED), and info: `end_status`, `is_ascended`, and for games that ended
            `episode_record`, `fatal_reason` where NetHack gave up; `final_obs`, `final_info` in the same-step mode.

        Raises:
            InvalidTypeError: actions are not whole numbers (a TypeError).
            InvalidOptionError: wrong shape, or an action that does not exist (a ValueError).
            ResetNeeded: before the first reset, or in the disabled mode after an end.
        """
        self._check_open()
        checked = self._checked_actions(actions)
        if not self._all_started:
            raise ResetNeeded("step: call reset before the first step")
        fields = self._fields
        fields["todo"].fill(_C.TODO_STEP)
        if self._anyone_ended:
            again = self._ended
            if self.autoreset_mode is AutoresetMode.DISABLED:
                games = np.flatnonzero(again).tolist()
                raise ResetNeeded(f'step: games {games} have ended: call reset(options={{"reset_mask": ...}}) first')
            self._start_episodes(again)
            fields["todo"][~again] = _C.TODO_STEP
        fields["action"][...] = checked
        self._run()
        rewards, terminated, truncated = (
            fields["reward"].copy(),
            fields["terminated"].copy(),
            fields["truncated"].copy(),
        )
        ended = terminated | truncated
        info = self._info(self._everybody)
        if ended.any():
            self._add_records(info, ended)
            if self.autoreset_mode is AutoresetMode.SAME_STEP:
                info = self._reset_now(ended, info)
            else:
                self._ended, self._anyone_ended = ended, True
        return dict(self._observations), rewards, terminated, truncated, info

    def close_extras(self, **_kwargs: Any) -> None:
        """Ends the games."""
        self._stepper.close()

    def frozen_steps(self) -> NDArray[np.int64]:
        """Returns [num_envs], for each game, the steps in a row in which time stood still, which penalties count."""
        return np.array(self._fields["frozen_steps"])

    def set_frozen_steps(self, steps: Sequence[int]) -> None:
        """Sets that count, one number a game; the next reset takes it over. NLE's is 0 before the first episode."""
        self._fields["frozen_steps"][...] = steps

    def waiting_for_reset(self) -> NDArray[np.bool_]:
        """Returns [num_envs], which games have ended and not begun again; in the next-step mode they do so next."""
        return self._ended.copy()

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError("this NetHackVectorEnv is closed")

    def _run(self) -> None:
        try:
            self._stepper.run()
        except BaseException:
            self.close()  # some games have made the step and some have not: nothing can go on from here
            raise

    def _checked_actions(self, actions: ArrayLike) -> NDArray[Any]:
        array = np.asarray(actions)
        if array.dtype.kind not in "iu":
            raise InvalidTypeError(f"step: actions must be whole numbers, not {array.dtype}")
        if array.shape != (self.num_envs,):
            raise InvalidOptionError(f"step: actions have shape {array.shape} instead of ({self.num_envs},)")
        if array.min() < 0 or array.max() >= self._num_actions:
            game = int(np.flatnonzero((array < 0) | (array >= self._num_actions))[0])
            raise InvalidOptionError(f"step: action {array[game]} of game {game} is not in [0, {self._num_actions})")
        return array

    def _checked_mask(self, options: dict[str, Any]) -> NDArray[np.bool_]:
        mask = options["reset_mask"]
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            raise InvalidOptionError(f"reset: reset_mask must be a bool array of shape ({self.num_envs},)")
        if not mask.any():
            raise InvalidOptionError("reset: reset_mask names no game")
        return mask

    def _seed(self, seed: int | Sequence[int | None]) -> None:
        if isinstance(seed, (int, np.integer)):
            root = _checked_seed("reset: seed", seed)
            super().reset(seed=root)
            self._roots = [(root, game) for game in range(self.num_envs)]
        else:
            if len(seed) != self.num_envs:
                raise InvalidOptionError(f"reset: {len(seed)} seeds for {self.num_envs} games")
            self._roots = [None if one is None else (_checked_seed("reset: seed", one), 0) for one in seed]
        self._episodes = [0] * self.num_envs

    def _start_episodes(self, mask: NDArray[np.bool_]) -> None:
        """Asks for a reset of the games in the mask, each with its next seeds; and of nothing else."""
        fields = self._fields
        fields["todo"][...] = np.where(mask, _C.TODO_RESET, _C.TODO_NOTHING)
        for game in np.flatnonzero(mask).tolist():
            core, disp, lgen = self._take_seeds(game)
            fields["seed_core"][game], fields["seed_disp"][game] = core, disp
            fields["seed_lgen"][game], fields["has_lgen"][game] = lgen or 0, lgen is not None
        self._started = self._started | mask
        self._ended = self._ended & ~mask
        self._anyone_ended = bool(self._ended.any())
        self._all_started = bool(self._started.all())

    def _take_seeds(self, game: int) -> Seeds:
        chosen, self._next_seeds[game] = self._next_seeds[game], None
        root = self._roots[game]
        if chosen is None:
            chosen = _fresh_seeds() if root is None else (*_C.episode_seeds(*root, self._episodes[game]), None)
        self._episodes[game] += 1
        return chosen

    def _info(self, mask: NDArray[np.bool_]) -> Info:
        info: Info = {
            "end_status": self._fields["end_status"].copy(),
            "_end_status": mask,
            "is_ascended": self._fields["is_ascended"].copy(),
            "_is_ascended": mask,
        }
        if self._reward_terms is not None:
            info |= {"reward_terms": self._reward_terms.copy(), "_reward_terms": mask}
        return info

    def _add_records(self, info: Info, ended: NDArray[np.bool_]) -> None:
        record: Info = {}
        for name in GAME_FIGURES:
            record[name] = np.where(ended, self._fields["record_" + name], 0)
            record["_" + name] = ended.copy()
        for name in ("seed_core", "seed_disp"):
            record[name] = np.where(ended, self._fields[name], np.uint64(0))
            record["_" + name] = ended.copy()
        deaths = [death.decode("latin-1") for death in np.where(ended, self._fields["record_death"], b"").tolist()]
        record["death"], record["_death"] = np.array(deaths, dtype=object), ended.copy()
        info["episode_record"], info["_episode_record"] = record, ended.copy()
        fatal = ended & (self._fields["fatal_reason"] != b"")
        if fatal.any():
            self.fatal_games += int(fatal.sum())
            reasons = [
                reason.decode(errors="replace") if dead else ""
                for reason, dead in zip(self._fields["fatal_reason"].tolist(), fatal.tolist(), strict=True)
            ]
            info["fatal_reason"], info["_fatal_reason"] = np.array(reasons, dtype=object), fatal

    def _reset_now(self, ended: NDArray[np.bool_], last: Info) -> Info:
        """Starts new episodes within the step; what ended goes into `final_obs` and `final_info`."""
        final_obs = np.full(self.num_envs, None, dtype=object)
        for game in np.flatnonzero(ended).tolist():
            final_obs[game] = {key: array[game].copy() for key, array in self._observations.items()}
        final_info = {key: value for key, value in last.items() if not key.startswith("_")}
        final_info |= {key: value & ended for key, value in last.items() if key.startswith("_")}
        self._start_episodes(ended)
        self._run()
        info = self._info(self._everybody)
        for key in ("episode_record", "fatal_reason"):
            if key in last:
                info[key], info["_" + key] = last[key], last["_" + key]
        if self._reward_terms is not None:
            info["reward_terms"] = last["reward_terms"]  # of the step, not of the reset
        info["final_obs"], info["_final_obs"] = final_obs, ended.copy()
        info["final_info"], info["_final_info"] = final_info, ended.copy()
        return info


def _nle_spaces() -> dict[str, spaces.Space[Any]]:
    from nle.env.base import NLE_SPACE_ITEMS

    return dict(NLE_SPACE_ITEMS)


def _whole(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InvalidOptionError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return int(value)


def _checked_clock(clock: int | str) -> int | str:
    if clock == "real" or (isinstance(clock, (int, np.integer)) and not isinstance(clock, bool)):
        return clock
    raise InvalidOptionError(f'clock must be "real" or seconds since 1970, not {clock!r}')


def _checked_seed(what: str, seed: object) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed <= _MAX_SEED:
        raise InvalidOptionError(f"{what} must be a whole number in [0, 2**64), not {seed!r}")
    return int(seed)


def _checked_seeds(game: int, entry: Sequence[int | None]) -> Seeds:
    if not isinstance(entry, Sequence) or len(entry) not in (2, 3):
        raise InvalidOptionError(f"set_seeds: game {game} needs (core, disp) or (core, disp, lgen), not {entry!r}")
    lgen = entry[2] if len(entry) == 3 else None
    what = f"set_seeds: game {game}: a seed"
    return (
        _checked_seed(what, entry[0]),
        _checked_seed(what, entry[1]),
        None if lgen is None else _checked_seed(what, lgen),
    )


def _fresh_seeds() -> Seeds:
    return secrets.randbits(63), secrets.randbits(63), None
