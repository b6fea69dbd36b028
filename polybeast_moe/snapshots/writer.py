"""Writes snapshots in the background: training waits for copies of its tensors, a thread does the rest.

One thread writes in the order in which snapshots were taken. A failure is kept for whoever asks next, and costs that
snapshot alone.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polybeast_moe.snapshots.contents import Contents, Snapshot, capture, write
from polybeast_moe.snapshots.directory import Verified, notes_of, prune

if TYPE_CHECKING:
    from torch import Tensor

_MOST_WAITING = 2  # snapshots being copied or written: each is a copy of weights and optimiser


class SnapshotWriter:
    """Takes snapshots of one run, keeps the ones that are wanted, and tells of failures through `log`.

    Attributes:
        number: snapshots taken in the whole run.
        kept: names of snapshots that stay for another reason: the best by held-out score, one that is being evaluated.
        newest: the newest one on the disk, None before the first.
        newest_at: when it was taken, by `time.monotonic`.
        waited_seconds: how long training has waited for snapshots in this process.
    """

    def __init__(
        self,
        root: Path,
        *,
        keep_last: int,
        keep_every: int | None = None,
        before: Sequence[Path] = (),
        log: Callable[[str], None] = print,
    ) -> None:
        """Writes under `root`. The files `before` are flushed to the disk first: a snapshot knows their lengths."""
        self.number = 0
        self.kept: frozenset[str] = frozenset()
        self.newest: Path | None = None
        self.newest_at: float | None = None
        self.waited_seconds = 0.0
        self._root = root
        self._keep_last = keep_last
        self._keep_every = keep_every
        self._before = tuple(before)
        self._log = log
        self._is_good = Verified()
        self._pending: deque[tuple[float, Future[Path]]] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="snapshots")

    @property
    def busy(self) -> bool:
        """Whether one is still being written."""
        self.look()
        return bool(self._pending)

    def take(
        self, frames: int, weights: Mapping[str, Tensor], optimizer: Mapping[str, Any], state: Mapping[str, Any]
    ) -> Future[Path]:
        """Copies the contents (see `contents.capture`) and has them written; the future holds the path, or an OSError.

        Waits for earlier ones while two are not written yet.
        """
        began = time.monotonic()
        while len(self._pending) >= _MOST_WAITING:
            self._settle(*self._pending.popleft())
        self.number += 1
        contents = capture(frames, weights, optimizer, {**state, "number": self.number})
        future = self._thread.submit(self._write, contents)
        self._pending.append((began, future))
        self.waited_seconds += time.monotonic() - began
        return future

    def failed(self, error: OSError) -> Future[Path]:
        """Takes note of a snapshot that could not even be taken."""
        future: Future[Path] = Future()
        future.set_exception(error)
        self._settle(time.monotonic(), future)
        return future

    def go_on(self, snapshot: Snapshot) -> None:
        """Counts on from the snapshot that the run goes on with."""
        self.number = int(snapshot.state["number"])
        self.newest, self.newest_at = snapshot.path, time.monotonic()

    def look(self) -> None:
        """Takes note of what has been written, and logs what has failed. Never waits."""
        while self._pending and self._pending[0][1].done():
            self._settle(*self._pending.popleft())

    def close(self) -> None:
        """Waits until everything is written."""
        while self._pending:
            self._settle(*self._pending.popleft())
        self._thread.shutdown()

    def _settle(self, taken_at: float, future: Future[Path]) -> None:
        try:
            self.newest, self.newest_at = future.result(), taken_at
        except OSError as error:
            self._log(f"no snapshot: {error}; the ones before stand, the next try is in due time")

    def _write(self, contents: Contents) -> Path:
        for file in self._before:
            _flush_to_disk(file)
        path = write(self._root, contents)
        self._is_good.trust(path)
        for removed in prune(self._root, self._keep_last, self._is_kept, self._is_good):
            self._is_good.forget(removed)
        return path

    def _is_kept(self, path: Path) -> bool:
        """Whether one that is no longer among the newest stays."""
        notes = notes_of(path)
        number = notes.get("number")
        nth = bool(self._keep_every and isinstance(number, int) and number > 0 and number % self._keep_every == 0)
        return nth or notes.get("kind") == "phase_end" or path.name in self.kept


def _flush_to_disk(file: Path) -> None:
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:  # nothing has been written to it yet
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
