"""A run's directory: what is where in it, who may use it, and the configuration it was made with.

A directory holds a run once `config.yaml` is in it. Whoever trains holds an flock on `.lock` from beginning to end; the
kernel lets go of it with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from polybeast_moe import snapshots, yaml_text
from polybeast_moe.config import RunConfig
from polybeast_moe.config_files import flattened, load_config
from polybeast_moe.errors import UserError
from polybeast_moe.snapshots.directory import sync_directory

_LOCK = ".lock"


class RunDirectory:
    """Paths of a run's files. Made by `create` or `open`; both give a context manager that lets go of the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.metrics = path / "metrics.csv"
        self.episodes = path / "episodes.csv"
        self.phases = path / "phases.jsonl"
        self.log = path / "run.log"
        self.snapshots = path / "snapshots"
        self.replays = path / "replays"
        self.report = path / "report"
        self._lock: IO[str] | None = None
        self._made: list[Path] = []  # directories that `create` made, innermost first

    @classmethod
    def create(cls, path: str | Path, config: RunConfig) -> RunDirectory:
        """Makes a directory for a new run, writes its `config.yaml` and locks it.

        Raises:
            UserError: it already holds a run, is in use, or cannot be written.
        """
        run = cls(Path(path))
        run._refuse_run()
        try:
            run._made = [path for path in (run.path, *run.path.parents) if not path.exists()]
            run.path.mkdir(parents=True, exist_ok=True)
            run._acquire()
            run._refuse_run()  # somebody may have been quicker
            run.write_config(config)
        except OSError as error:
            run.close()
            raise UserError(f"run directory {path}: cannot be written: {error.strerror}") from None
        except UserError:
            run.close()
            raise
        return run

    @classmethod
    def open(cls, path: str | Path, *, lock: bool = True) -> RunDirectory:
        """Opens the directory of a run that exists. Without `lock` it may only be read.

        Raises:
            UserError: there is no run in it, or another process uses it.
        """
        run = cls(Path(path))
        if not holds_run(path):
            what = "holds no run (no config.yaml)" if run.path.is_dir() else "does not exist"
            raise UserError(f"run directory {path}: {what}")
        if lock:
            try:
                run._acquire()
                snapshots.sweep(run.snapshots)
            except OSError as error:
                raise UserError(f"run directory {path}: cannot be written: {error.strerror}") from None
        return run

    def config(self, overrides: Sequence[str] = ()) -> RunConfig:
        """Returns the run's configuration, with `overrides` applied (not recorded: see `write_config`)."""
        return load_config(self.config_file, overrides)

    def write_config(self, config: RunConfig) -> None:
        """Writes `config.yaml`, the old one standing until the new one is on the disk."""
        aside = self.path / ".config.yaml"
        with aside.open("w", encoding="utf-8") as file:
            file.write(yaml_text.dump(config.to_plain()))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.config_file)
        sync_directory(self.path)

    def refuse_other_network(self, config: RunConfig) -> None:
        """Checks that `config` describes the network that this run's snapshots hold.

        Raises:
            UserError: it changes a key that weights or the optimiser's state depend on.
        """
        refuse_other_network(
            self.config(), config, f"run directory {self.path}", "in a run that has begun", "start a new run instead"
        )

    def clear_records(self) -> None:
        """Removes what a run wrote before its first snapshot, so that it can begin again in the same directory."""
        for file in (self.metrics, self.episodes, self.phases, *self.path.glob("events.out.tfevents.*")):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.replays, ignore_errors=True)

    def withdraw(self) -> None:
        """Undoes `create` for a run that was refused before its first snapshot."""
        if self.snapshots.exists():
            return
        self.clear_records()
        for file in (self.config_file, self.log, self.path / _LOCK):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something of the user's own is in it
            for folder in self._made:
                folder.rmdir()

    def close(self) -> None:
        """Lets go of the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets go of the lock. A failure leaves its reason in `run.log`; a mistake in what was given is told alone."""
        if isinstance(error, Exception) and not isinstance(error, UserError):
            with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8") as log:
                log.writelines(traceback.format_exception(error))
        self.close()

    def _refuse_run(self) -> None:
        try:
            if self.path.exists() and not self.path.is_dir():
                raise UserError(f"run directory {self.path}: is a file")
            # Whatever `withdraw` and the keeping of replays would remove must be this run's own.
            own = (self.config_file, self.metrics, self.episodes, self.phases, self.snapshots, self.replays)
            taken = any(file.exists() for file in own)
        except (OSError, ValueError) as error:
            raise UserError(f"run directory {self.path}: {error}") from None
        if taken:
            raise UserError(
                f"run directory {self.path}: already holds a run; choose another with --run-dir, or go on with: "
                f"polybeast-moe resume {self.path}"
            )

    def _acquire(self) -> None:
        lock = (self.path / _LOCK).open("a+", encoding="ascii")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise UserError(f"run directory {self.path}: in use by process {holder}") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock


def changes(before: RunConfig, after: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Returns the keys in which two configurations differ, with old and new value."""
    old, new = flattened(before.to_plain()), flattened(after.to_plain())
    keys = [*new, *(key for key in old if key not in new)]
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def refuse_other_network(before: RunConfig, config: RunConfig, place: str, when: str, way_out: str) -> None:
    """Checks that `config` describes the same network as `before`.

    Raises:
        UserError: it changes a key that weights or the optimiser's state depend on.
    """
    known = _what_weights_depend_on(before)
    for key, value in _what_weights_depend_on(config).items():
        if value != known.get(key):
            raise UserError(
                f"{place}: {key} cannot change {when} (it is {known.get(key)!r}, asked for {value!r}); {way_out}"
            )


def _what_weights_depend_on(config: RunConfig) -> dict[str, object]:
    plain = config.to_plain()
    free = ("policy.mixture_backend", "graph.implementation")  # other ways to compute the same
    keys = {f"{section}.{key}": value for section in ("policy", "graph") for key, value in plain[section].items()}
    fixed: dict[str, object] = {key: value for key, value in keys.items() if key not in free}
    return fixed | {
        "env.task": config.env.task,
        "env.crop_size": config.env.crop_size,
        "learner.optimizer.name": config.learner.optimizer.name,
    }


def holds_run(path: str | Path) -> bool:
    """Tells whether there is a run in a directory."""
    try:
        return (Path(path) / "config.yaml").is_file()
    except (OSError, ValueError):
        return False
