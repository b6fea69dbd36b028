"""Measures a training system from within: frames over time, memory, and what becomes of it when a worker is killed.

An adapter makes a `Meter`, tells it of frames as the learner consumes them (`learnt`, or `frames`, which is asked), and
starts training. When the time is up the meter prints one line of JSON and ends the process, whatever that is doing;
what is left of its children is the runner's to kill. The meter's thread also outlives a training loop that fails.
"""

from __future__ import annotations

import bisect
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from peers.job import Job
from peers.memory import family_bytes

Progress = Sequence[Sequence[float]]
"""(seconds, frames so far) whenever frames have changed, in order."""

LONGEST_START = 240.0  # seconds until the first update
FEWEST_UPDATES = 3  # after the warm-up: a slow system is measured for longer than was asked,
LONGEST_WAIT = 120.0  # at most by so many seconds
KEPT_POINTS = 240  # of the progress
RECOVERED = 0.9  # of the frames a second before the kill
LOOK_EVERY = 0.05  # seconds


def steady(progress: Progress, since: float) -> float:
    """Frames a second between the first and the last change from `since` on: whole updates, however long one takes."""
    points = [point for point in progress if point[0] >= since]
    if len(points) < 2:
        raise ValueError(f"{len(points)} updates after the warm-up: measure for longer")
    return (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0])


def frames_at(progress: Progress, seconds: float) -> float:
    """Frames consumed by then, between updates on the straight line; the last ones from there on."""
    at = bisect.bisect_right(progress, seconds, key=lambda point: point[0])
    if at == 0:
        return 0.0
    if at == len(progress):
        return progress[-1][1]
    (t0, f0), (t1, f1) = progress[at - 1], progress[at]
    return f0 + (f1 - f0) * (seconds - t0) / (t1 - t0)


def recovery(progress: Progress, killed: float, before: float, end: float, window: float = 5.0) -> float | None:
    """Seconds after a kill from which on a window, and all that is left, go at nearly the speed `before`.

    None: they never do by `end`. All that is left: what was on its way at the kill can fill a window, and then no more.
    """
    steps = int((end - window - killed) / 0.25)
    for step in range(steps + 1):
        t = killed + 0.25 * step
        so_far = frames_at(progress, t)
        enough = RECOVERED * before
        if frames_at(progress, t + window) - so_far >= enough * window and (
            frames_at(progress, end) - so_far >= enough * (end - t)
        ):
            return t - killed
    return None


def thinned(progress: Progress, points: int = KEPT_POINTS) -> list[tuple[float, int]]:
    """As many points at most, the last one among them."""
    every = -(-len(progress) // points) or 1
    kept = [*progress[::every], *progress[-1:]]
    return [(round(seconds, 2), int(frames)) for seconds, frames in dict.fromkeys(kept)]


class Meter:
    """Watches one job.

    Args:
        job: what is to be measured.
        environments: games that are played at once.
        parameters: of the network.
        frames: tells how many frames the learner has consumed; None: `learnt` is called.
        victims: tells the processes of which one may be killed.
        root: the process whose family is measured; None: this one.
        finish: called before this process ends.
    """

    def __init__(
        self,
        job: Job,
        *,
        environments: int,
        parameters: int | None = None,
        frames: Callable[[], int] | None = None,
        victims: Callable[[], Sequence[int]] = list,
        root: int | None = None,
        finish: Callable[[], None] = lambda: None,
    ) -> None:
        self._job = job
        self._known: dict[str, Any] = {"environments": environments, "parameters": parameters}
        self._frames, self._victims, self._finish = frames, victims, finish
        self._root = root or os.getpid()
        self._lock = threading.Lock()
        self._progress: list[tuple[float, float]] = []
        self._memory: list[int] = []

    @property
    def progress(self) -> list[tuple[float, float]]:
        """(seconds since the command, frames consumed) so far."""
        return list(self._progress)

    def start(self) -> None:
        """Begins to watch."""
        threading.Thread(target=self._watch, name="meter").start()

    def learnt(self, frames: int) -> None:
        """Counts frames of an update."""
        with self._lock:
            so_far = self._progress[-1][1] if self._progress else 0
            self._progress.append((self._now(), so_far + frames))

    def _now(self) -> float:
        return time.time() - self._job.began

    def _watch(self) -> None:
        try:
            found = self._measure()
        except Exception as failure:
            traceback.print_exc()
            found = {"failed": f"{type(failure).__name__}: {failure}"}
        print(json.dumps(found), flush=True)
        try:
            self._finish()
        finally:
            os._exit(0)

    def _measure(self) -> dict[str, Any]:
        self._until(LONGEST_START, lambda: bool(self._progress))
        if not self._progress:
            return {"failed": f"no update within {LONGEST_START:.0f} seconds"}
        first = self._progress[0][0]
        since = first + self._job.warm_up
        end = self._job.seconds if self._job.learning else since + self._job.seconds
        samples = [since + (end - since) * part for part in (0.25, 0.5, 0.75)]
        for at in samples:
            self._until(at)
            self._memory.append(family_bytes(self._root))
        self._until(end)
        self._until(end + LONGEST_WAIT, lambda: sum(at >= since for at, _ in self._progress) >= FEWEST_UPDATES)
        found = {
            **self._known,
            "seconds_to_first_update": first,
            "frames": int(self._progress[-1][1]),
            "seconds": self._now() - since,
            "frames_per_second": steady(self._progress, since),
            "pss_bytes": sorted(self._memory)[1],
            "pss_bytes_per_environment": sorted(self._memory)[1] / self._known["environments"],
        }
        if self._job.kill:
            found["kill"] = self._kill(found["frames_per_second"])
        return {**found, "progress": thinned(self._progress)}

    def _kill(self, before: float) -> dict[str, Any]:
        """Kills the first worker and watches."""
        victims = list(self._victims())
        if not victims:
            return {"workers": 0}
        os.kill(victims[0], signal.SIGKILL)
        killed = self._now()
        end = killed + self._job.kill
        self._until(end)
        last = self._job.kill / 3
        after = (frames_at(self._progress, end) - frames_at(self._progress, end - last)) / last
        return {
            "workers": len(victims),
            "workers_at_the_end": len(self._victims()),
            "seconds": recovery(self._progress, killed, before, end),
            "watched": self._job.kill,
            "share_at_the_end": after / before,
        }

    def _until(self, seconds: float, done: Callable[[], bool] = lambda: False) -> None:
        while self._now() < seconds and not done():
            if self._frames is not None:
                frames = self._frames()
                if frames > (self._progress[-1][1] if self._progress else 0):
                    self._progress.append((self._now(), frames))
            time.sleep(LOOK_EVERY)
