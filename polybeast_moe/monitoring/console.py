"""The live screen of a run: calm at 80 columns in a terminal, a readable line now and then anywhere else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console as RichConsole
from rich.live import Live
from rich.text import Text

from polybeast_moe.monitoring.screen import status_line, status_screen
from polybeast_moe.monitoring.status import Status, TimeLeft

REFRESH_SECONDS = 0.25
LINE_SECONDS = 10.0


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
        """Writes a line past rich, which would wrap it. That nobody reads it any more (`| head`) stops nothing.

        Nor does a full disk under a log file: what the file still holds back comes with a later line.
        """
        file = self._console.file
        encoding = self._console.encoding
        try:
            file.write(line.encode(encoding, "replace").decode(encoding) + "\n")
            file.flush()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, file.fileno())  # where the flush at exit goes too
            os.close(nowhere)
        except OSError:
            pass
