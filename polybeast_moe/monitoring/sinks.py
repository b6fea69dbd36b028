"""Where metrics rows, finished episodes and events go: one small interface, CSV files behind it, and a fan-out.

A sink's state is what a snapshot records of it, so that a resumed run takes back what was written after the snapshot.
The TensorBoard sink lives in `polybeast_moe.monitoring.tensorboard`.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from polybeast_moe.errors import UserError
from polybeast_moe.monitoring.columns import EPISODE_COLUMNS, metric_columns

Row = Mapping[str, Any]  # column -> float, int (of Python or NumPy), string, or None for unknown


class Sink(Protocol):
    """A place that keeps what a run tells about itself.

    `state` flushes and returns what `restore` needs, as JSON holds it; `restore` forgets everything that
    came after that state and is called once, before anything is written.
    """

    name: str

    def metrics(self, row: Row) -> None:
        """Keeps one row of `metrics.csv`."""

    def episodes(self, rows: Sequence[Row]) -> None:
        """Keeps finished episodes, rows of `episodes.csv`."""

    def event(self, event: Mapping[str, Any]) -> None:
        """Keeps one change made by the phase controller or an operator, a line of `phases.jsonl`."""

    def flush(self) -> None:
        """Makes everything so far visible to readers."""

    def close(self) -> None:
        """Flushes and lets go of files. Safe to call twice."""

    def state(self) -> dict[str, Any]:
        """Returns what `restore` needs to come back to this point."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Comes back to `state`. Raises UserError where that is impossible, with nothing changed."""


def to_plain(value: Any) -> Any:
    """Returns a NumPy or torch scalar as Python's own, anything else as it is."""
    return value.item() if hasattr(value, "item") else value


def event_text(event: Mapping[str, Any]) -> str:
    """Returns an event as one line, ``phase: key old → new (by whom)``."""
    by = f" (by {event['by']})" if "by" in event else ""
    return f"{event.get('phase', '')}: {event.get('key', 'event')} {event.get('old')} → {event.get('new')}{by}"


def csv_line(columns: Sequence[str], row: Row) -> str:
    """Returns one line of CSV (RFC 4180, but ending in a bare newline).

    Floats are written by `repr`, the shortest text that reads back to the same double. A missing key or None leaves
    its field empty. Raises KeyError for a key that is no column.
    """
    unknown = row.keys() - set(columns)
    if unknown:
        raise KeyError(f"no such columns: {', '.join(sorted(unknown))}")
    fields = []
    for column in columns:
        value = to_plain(row.get(column))
        fields.append("" if value is None else repr(value) if isinstance(value, float) else str(value))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue()


class AppendFile:
    """A text file that grows by whole lines and can be cut back to a recorded length.

    It is created, with its header, at the first write; an existing file must begin with the same header.
    """

    def __init__(self, path: Path, header: str = "") -> None:
        self.path = path
        self._header = header.encode()
        self._file: BinaryIO | None = None
        self._pending = bytearray()  # ours, because a buffered file drops a line that a full disk refuses

    def append(self, text: str) -> None:
        """Adds whole lines, kept until `flush`."""
        self._pending += text.encode()

    def offset(self) -> int:
        """Returns the length in bytes, all of it handed to the operating system."""
        file = self._open()
        self.flush()
        return file.tell()

    def check(self, offset: int) -> None:
        """Raises UserError unless the file can be cut back to `offset`."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < offset:
            raise UserError(
                f"{self.path} holds {size} bytes but the snapshot recorded {offset}: put the file back, or start a "
                "new run"
            )
        if size:
            self._check_header()

    def truncate(self, offset: int) -> None:
        """Cuts the file back to `offset` bytes."""
        self.check(offset)
        self.close()
        if self.path.exists():
            os.truncate(self.path, offset)

    def flush(self) -> None:
        """Writes what was added. On OSError (a full disk) the rest is kept for the next try."""
        if self._pending:
            file = self._open()
            while self._pending:
                del self._pending[: file.write(self._pending)]

    def close(self) -> None:
        """Flushes and closes, also when the flush fails; a later write opens the file again."""
        try:
            self.flush()
        finally:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _open(self) -> BinaryIO:
        if self._file is None:
            if self.path.exists() and self.path.stat().st_size:
                self._check_header()
            self._file = self.path.open("ab", buffering=0)
            if self._file.tell() == 0 and not self._pending.startswith(self._header):
                self._pending[:0] = self._header
        return self._file

    def _check_header(self) -> None:
        with self.path.open("rb") as file:
            if file.read(len(self._header)) != self._header:
                raise UserError(f"{self.path} has other columns than this run's: start a new run directory")


class CsvSink:
    """`metrics.csv`, `episodes.csv` and `phases.jsonl` of a run directory (docs/run_directory.md)."""

    name = "csv"

    def __init__(self, run_dir: Path, experts: Sequence[str]) -> None:
        self._metric_columns = metric_columns(experts)
        self._metrics = AppendFile(run_dir / "metrics.csv", _header(self._metric_columns))
        self._episodes = AppendFile(run_dir / "episodes.csv", _header(EPISODE_COLUMNS))
        self._events = AppendFile(run_dir / "phases.jsonl")
        self._files = (self._metrics, self._episodes, self._events)

    def metrics(self, row: Row) -> None:
        """Writes one row, and whatever episodes came before it, for readers to see."""
        self._metrics.append(csv_line(self._metric_columns, row))
        self.flush()

    def episodes(self, rows: Sequence[Row]) -> None:
        """Writes episodes; readers see them at the next metrics row or `flush`."""
        self._episodes.append("".join(csv_line(EPISODE_COLUMNS, row) for row in rows))

    def event(self, event: Mapping[str, Any]) -> None:
        """Writes one JSON object on a line of its own."""
        self._events.append(json.dumps({key: to_plain(value) for key, value in event.items()}) + "\n")
        self._events.flush()

    def flush(self) -> None:
        """Makes everything so far visible to readers."""
        for file in self._files:
            file.flush()

    def close(self) -> None:
        """Flushes and closes the files."""
        for file in self._files:
            file.close()

    def state(self) -> dict[str, Any]:
        """Returns the length in bytes of each file; whoever relies on it flushes them to the disk (SnapshotWriter)."""
        return {file.path.name: file.offset() for file in self._files}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Cuts each file back to its recorded length. Raises UserError, changing none, if one is shorter."""
        for file in self._files:
            if not isinstance(state.get(file.path.name), int):
                raise UserError(f"the snapshot records no length of {file.path.name}: choose another snapshot")
            file.check(state[file.path.name])
        for file in self._files:
            file.truncate(state[file.path.name])


class Sinks:
    """Several sinks behind the interface of one. One that cannot write (a full disk) is told of, and stops nothing."""

    name = "sinks"

    def __init__(self, sinks: Sequence[Sink], log: Callable[[str], None] = print) -> None:
        self._sinks = tuple(sinks)
        self._log = log
        self._failing: set[str] = set()

    def metrics(self, row: Row) -> None:
        """Hands the row to every sink."""
        self._each(lambda sink: sink.metrics(row))

    def episodes(self, rows: Sequence[Row]) -> None:
        """Hands the episodes to every sink."""
        self._each(lambda sink: sink.episodes(rows))

    def event(self, event: Mapping[str, Any]) -> None:
        """Hands the event to every sink."""
        self._each(lambda sink: sink.event(event))

    def flush(self) -> None:
        """Flushes every sink."""
        self._each(lambda sink: sink.flush())

    def close(self) -> None:
        """Closes every sink."""
        self._each(lambda sink: sink.close())

    def _each(self, call: Callable[[Sink], None]) -> None:
        for sink in self._sinks:
            try:
                call(sink)
            except OSError as error:
                if sink.name not in self._failing:
                    self._log(f"{sink.name} cannot be written: {error}; training goes on")
                self._failing.add(sink.name)
            else:
                self._failing.discard(sink.name)

    def state(self) -> dict[str, Any]:
        """Returns each sink's state under its name."""
        return {sink.name: sink.state() for sink in self._sinks}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores the sinks that the state knows; one that is new to the run begins here."""
        for sink in self._sinks:
            if sink.name in state:
                sink.restore(state[sink.name])


def _header(columns: Sequence[str]) -> str:
    return ",".join(columns) + "\n"
