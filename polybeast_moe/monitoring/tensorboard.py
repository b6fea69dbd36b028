"""The TensorBoard sink: event files written with tensorboard's own protocol buffers, without torch or TensorFlow."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from polybeast_moe.monitoring.columns import metric_tags
from polybeast_moe.monitoring.sinks import Row, event_text

# Pages of the tab "Custom Scalars": page -> chart -> the tags it draws, as regular expressions.
LAYOUT: Mapping[str, Mapping[str, Sequence[str]]] = {
    "1 score": {
        "score and return, last 100 episodes": ["episodes/mean_(score|return)"],
        "score in held-out games, standard error": ["held_out/(mean_score|standard_error)"],
        "episodes": ["progress/episodes"],
    },
    "2 routing": {
        "entropies and information (nats)": ["router/((target_)?alpha_entropy|usage_entropy|routing_information)"],
        "expert shares": ["experts/.*_share", "router/smallest_share"],
        "router temperature": ["schedule/router_temperature", "router/matching_temperature"],
    },
    "3 learning": {
        "losses, weights applied": ["loss/(policy|baseline|entropy|alpha_entropy|load_balance)"],
        "policy entropy (nats)": ["policy/entropy"],
        "explained variance and clipped ratios": ["learner/explained_variance", "policy/rho_clip_share"],
        "gradient norm": ["learner/grad_norm"],
        "learning rate": ["schedule/learning_rate"],
    },
    "4 speed": {
        "frames/s": ["throughput/frames_per_second"],
        "how busy": ["throughput/(engine|inference|update)_share"],
        "policy lag (updates)": ["policy/lag"],
        "memory (bytes)": ["machine/memory_bytes"],
        "restarts": ["machine/restarts"],
    },
}
_LAYOUT_TAG = "custom_scalars__config__"  # what the plug-in looks for
_CUSTOM_SCALARS = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="custom_scalars"))
_TEXT = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))


class TensorBoardSink:
    """Curves over frames in groups (router, experts, episodes, policy, learner, loss, throughput), events as text.

    The tab Custom Scalars has them on four pages, what belongs together in one chart (`LAYOUT`).

    Every start of the run writes an event file of its own. After `restore` TensorBoard is told to drop the points
    that an earlier file holds beyond the restored frames (a SessionLog START, what other writers call purge_step).
    """

    name = "tensorboard"

    def __init__(self, run_dir: Path, experts: Sequence[str]) -> None:
        self._run_dir = run_dir
        self._tags = metric_tags(experts)
        self._frames = 0
        self._purge_after: int | None = None
        self._file: BinaryIO | None = None

    def metrics(self, row: Row) -> None:
        """Adds a point at ``row["frames"]`` to the curve of every number in the row."""
        self._frames = int(row["frames"])
        values = [
            Summary.Value(tag=self._tags[column], simple_value=float(value))
            for column, value in row.items()
            if column in self._tags and value is not None
        ]
        self._write(Event(step=self._frames, summary=Summary(value=values)))
        self.flush()

    def episodes(self, rows: Sequence[Row]) -> None:
        """Adds nothing: their means are in the metrics row."""

    def event(self, event: Mapping[str, Any]) -> None:
        """Adds the event as text at its frames."""
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        text = TensorProto(dtype=DT_STRING, string_val=[event_text(event).encode()], tensor_shape=shape)
        value = Summary.Value(tag="events/changes", metadata=_TEXT, tensor=text)
        self._write(Event(step=int(event.get("frames", self._frames)), summary=Summary(value=[value])))

    def flush(self) -> None:
        """Hands what was written to the operating system."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Flushes and closes the event file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def state(self) -> dict[str, Any]:
        """Returns the frames of the last point."""
        self.flush()
        return {"frames": self._frames}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Makes TensorBoard drop every point beyond ``state["frames"]``."""
        self.close()
        self._frames = int(state["frames"])
        self._purge_after = self._frames

    def _write(self, event: Event) -> None:
        if self._file is None:
            self._file = _new_event_file(self._run_dir)
            self._record(Event(file_version="brain.Event:2"))
            self._record(Event(summary=Summary(value=[_layout()])))
            if self._purge_after is not None:
                self._record(Event(step=self._purge_after + 1, session_log=SessionLog(status=SessionLog.START)))
        self._record(event)

    def _record(self, event: Event) -> None:
        event.wall_time = time.time()
        RecordWriter(self._file).write(event.SerializeToString())


def _layout() -> Summary.Value:
    layout = layout_pb2.Layout(
        category=[
            layout_pb2.Category(
                title=page,
                chart=[
                    layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))
                    for title, tags in charts.items()
                ],
            )
            for page, charts in LAYOUT.items()
        ]
    )
    text = TensorProto(dtype=DT_STRING, string_val=[layout.SerializeToString()], tensor_shape=TensorShapeProto())
    return Summary.Value(tag=_LAYOUT_TAG, metadata=_CUSTOM_SCALARS, tensor=text)


def _new_event_file(run_dir: Path) -> BinaryIO:
    """Creates the next event file: TensorBoard reads a directory's files in the order of their names."""
    for number in itertools.count():
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{number}"
        try:
            return (run_dir / name).open("xb")
        except FileExistsError:
            continue
    raise AssertionError("unreachable")
