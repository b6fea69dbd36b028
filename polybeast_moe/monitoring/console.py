"""The live screen of a run: calm at 80 columns in a terminal, a readable line now and then anywhere else."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from polybeast_moe.monitoring.columns import PARTS, expert_column

REFRESH_SECONDS = 0.25
LINE_SECONDS = 10.0
WIDTH = 80
# Okabe and Ito (2008), "Color universal design": told apart with every common kind of colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")


@dataclass(frozen=True)
class Status:
    """What the screen shows of a run at one moment. None: not known yet.

    Fractions and shares lie in [0, 1], entropies are in nats, times in seconds, memory in bytes. `fraction` is of the
    whole run, `phase_fraction` of the phase, `wall_seconds` the run's time over all its resumptions.
    """

    frames: int
    episodes: int
    fraction: float
    wall_seconds: float
    phase: str
    phase_fraction: float
    routing: str
    router_temperature: float
    learning_rate: float | None = None
    frames_per_second: float | None = None
    part_shares: Mapping[str, float] = field(default_factory=dict)  # engine, inference, update: shares of wall time
    mean_score: float | None = None
    median_score: float | None = None
    alpha_entropy: float | None = None
    usage_entropy: float | None = None
    routing_information: float | None = None
    expert_shares: Mapping[str, float] = field(default_factory=dict)  # expert -> share of the mean alpha
    losses: Mapping[str, float] = field(default_factory=dict)  # name -> value, weights applied
    memory_bytes: int | None = None
    snapshot_age_seconds: float | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any], experts: Sequence[str], **rest: Any) -> Status:
        """Returns a status with the figures of a row of `metrics.csv`; `rest` gives the fields that no row holds."""
        copied = ("frames", "episodes", "wall_seconds", "phase", "routing", "router_temperature", "learning_rate")
        figures = ("frames_per_second", "alpha_entropy", "usage_entropy", "routing_information")
        fields: dict[str, Any] = {name: row.get(name) for name in (*copied, *figures)}
        fields["mean_score"] = row.get("mean_episode_score")
        fields["part_shares"] = {part: row[f"{part}_share"] for part in PARTS if f"{part}_share" in row}
        fields["expert_shares"] = {name: row.get(expert_column(name), 0.0) for name in experts}
        fields["losses"] = {name.removeprefix("loss_"): row[name] for name in row if name.startswith("loss_")}
        return cls(**{**fields, **rest})


class TimeLeft:
    """Estimates the time left from how fast the run went lately, for early phases may be faster than late ones."""

    def __init__(self, window_seconds: float = 60.0) -> None:
        self._window_seconds = window_seconds
        self._readings: deque[tuple[float, float]] = deque()

    def read(self, fraction: float, wall_seconds: float) -> float | None:
        """Takes in a reading and returns the seconds left; None while nothing can be said."""
        readings = self._readings
        readings.append((wall_seconds, fraction))
        while len(readings) > 2 and wall_seconds - readings[1][0] > self._window_seconds:
            readings.popleft()
        (begin, before), (end, after) = readings[0], readings[-1]
        if after <= before or end <= begin:
            return None
        return (1.0 - after) * (end - begin) / (after - before)


class Console:
    """Shows a run while it goes on. `stop` leaves the terminal as it was, also after an exception or Ctrl-C.

    In a terminal: one live screen, redrawn at most four times a second, with `log` lines scrolling above it. Elsewhere
    (a pipe, a log file): one plain line at most every ten seconds.
    """

    def __init__(self, rich_console: RichConsole | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = rich_console or RichConsole(highlight=False)
        self._clock = clock
        self._shown_at: float | None = None
        self._pending: Status | None = None  # given since, not shown
        self._time_left = TimeLeft()
        self._live: Live | None = None

    def start(self) -> None:
        """Takes the terminal."""
        if self._console.is_terminal and self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=False, redirect_stderr=False)
            self._live.start()

    def update(self, status: Status) -> None:
        """Shows the run's state, or keeps it for later if one was shown a moment ago. Cheap enough for every update."""
        now = self._clock()
        self._pending = status
        pause = LINE_SECONDS if self._live is None else REFRESH_SECONDS
        if self._shown_at is None or now - self._shown_at >= pause:
            self._shown_at = now
            self._show()

    def log(self, line: str) -> None:
        """Prints a line above the live screen, or as it is where there is none."""
        if self._live is None:
            self._plain(line)
        else:
            self._live.console.print(Text(line))
            self._live.refresh()

    def stop(self) -> None:
        """Shows the last state and gives the terminal back, that screen still on it. Safe to call twice."""
        self._show()
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _show(self) -> None:
        status, self._pending = self._pending, None
        if status is None:
            return
        left = self._time_left.read(status.fraction, status.wall_seconds)
        if self._live is None:
            self._plain(status_line(status, left))
        else:
            self._live.update(status_screen(status, left), refresh=True)

    def _plain(self, line: str) -> None:
        """Writes a line past rich, which would wrap it; a reader that went away (`| head`) is no reason to stop."""
        file = self._console.file
        encoding = self._console.encoding
        try:
            file.write(line.encode(encoding, "replace").decode(encoding) + "\n")
            file.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())  # where the flush at exit goes too


def status_line(status: Status, seconds_left: float | None) -> str:
    """Returns the run's state as one plain line of ASCII."""
    parts = [
        f"{100 * status.fraction:5.1f} %",
        f"left {clock_text(seconds_left)}" if seconds_left is not None else f"after {clock_text(status.wall_seconds)}",
        f"frames {status.frames:,}",
        f"episodes {status.episodes:,}",
        f"{status.phase} ({status.routing}, temperature {status.router_temperature:.3g})",
        f"{_number(status.frames_per_second, ',.0f')} frames/s",
        f"score mean {_number(status.mean_score, '.1f')} median {_number(status.median_score, '.0f')}",
        f"alpha entropy {_number(status.alpha_entropy, '.3f')}",
        f"usage entropy {_number(status.usage_entropy, '.3f')}",
    ]
    return " | ".join(parts)


def status_screen(status: Status, seconds_left: float | None) -> RenderableType:
    """Returns the live screen, at most 80 columns wide and of a height that never changes during a run."""
    left = "estimating" if seconds_left is None else f"left {clock_text(seconds_left)}"
    body = Group(
        _bar("run", status.fraction, f"{left}, ran {clock_text(status.wall_seconds)}", COLOURS[0]),
        _bar("phase", status.phase_fraction, f"{status.phase}, {status.routing}", COLOURS[2]),
        Text(""),
        _facts(status),
        Text(""),
        *(
            _bar(name, share, "", COLOURS[index % len(COLOURS)])
            for index, (name, share) in enumerate(status.expert_shares.items())
        ),
    )
    return Panel(body, title="polybeast_moe", width=WIDTH, padding=(0, 1))


def clock_text(seconds: float) -> str:
    """Returns a duration as ``1:02:03``, or ``4d 1:02:03``."""
    days, rest = divmod(round(seconds), 86_400)
    return f"{days}d " * (days > 0) + str(timedelta(seconds=rest))


def _bar(name: str, fraction: float, note: str, colour: str) -> Table:
    row = Table.grid(padding=(0, 1))
    row.add_column(width=13, no_wrap=True, overflow="crop")
    row.add_column(width=20)
    row.add_column(width=7, justify="right")
    row.add_column(width=33, no_wrap=True, overflow="crop")
    bar = ProgressBar(total=1.0, completed=min(max(fraction, 0.0), 1.0), complete_style=colour, finished_style=colour)
    row.add_row(Text(name, overflow="crop"), bar, f"{100 * fraction:.1f} %", Text(note, overflow="crop"))
    return row


def _facts(status: Status) -> Table:
    """Names and values in two columns."""
    table = Table.grid(padding=(0, 1))
    for width, style in ((13, "dim"), (20, ""), (13, "dim"), (26, "")):
        table.add_column(width=width, style=style, no_wrap=True, overflow="crop")
    run = [
        ("frames", f"{status.frames:,}"),
        ("episodes", f"{status.episodes:,}"),
        ("frames/s", _number(status.frames_per_second, ",.0f")),
        *((f"  {part}", _percent(status.part_shares.get(part))) for part in PARTS),
        ("learning rate", _number(status.learning_rate, ".3g")),
        ("memory", "-" if status.memory_bytes is None else f"{status.memory_bytes / 2**20:,.0f} MiB"),
        ("snapshot", "none yet" if status.snapshot_age_seconds is None else f"{status.snapshot_age_seconds:.0f} s old"),
    ]
    policy = [
        ("temperature", f"{status.router_temperature:.4f}"),
        ("score", f"{_number(status.mean_score, '.1f')} mean, {_number(status.median_score, '.0f')} median"),
        ("alpha entropy", f"{_number(status.alpha_entropy, '.3f')} nats"),
        ("usage entropy", f"{_number(status.usage_entropy, '.3f')} nats"),
        ("information", f"{_number(status.routing_information, '.3f')} nats"),
        ("loss", _number(status.losses.get("total"), ".4f")),
        *((f"  {name}", _number(status.losses.get(name), ".4f")) for name in ("policy", "baseline", "entropy")),
    ]
    for (name, value), (other, its_value) in zip(run, policy, strict=True):
        table.add_row(name, value, other, its_value)
    return table


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} % of wall time"
