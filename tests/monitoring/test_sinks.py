"""Sinks keep rows exactly, and a resumed run takes back what was written after its snapshot."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from polybeast_moe.errors import UserError
from polybeast_moe.monitoring.columns import EPISODE_COLUMNS, metric_columns, metric_tags
from polybeast_moe.monitoring.sinks import CsvSink, Sinks, csv_line
from polybeast_moe.monitoring.tensorboard import LAYOUT, TensorBoardSink

EXPERTS = ("survival", "combat")
FILES = ("metrics.csv", "episodes.csv", "phases.jsonl")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(run_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run_dir.iterdir()}


def write_some(sink: Any, start: int, count: int = 3) -> None:
    for frames in range(start, start + count):
        sink.event(
            {"frames": frames, "key": "temperature", "old": 1.0, "new": 0.5, "phase": "warmup", "by": "schedule"}
        )
        sink.episodes([{"episode": frames, "score": 3, "phase": "warmup"}])
        sink.metrics({"frames": frames, "phase": "warmup", "loss_total": frames / 7})


@given(
    st.floats(allow_nan=False),
    st.floats(width=32, allow_nan=False),
    st.integers(-(2**63), 2**63 - 1),
    st.text(st.characters(exclude_categories=["C"])),
)
def test_values_read_back_exactly(double: float, single: float, integer: int, text: str) -> None:
    row = {"a": double, "b": np.float32(single), "c": np.int64(integer), "d": text, "f": np.float64(double)}
    a, b, c, d, e, f = next(csv.reader([csv_line(("a", "b", "c", "d", "e", "f"), row)]))
    assert (float(a), float(b), int(c), d, e, float(f)) == (double, single, integer, text, "", double)


def test_an_unknown_column_is_an_error() -> None:
    with pytest.raises(KeyError, match="no such columns: scores"):
        csv_line(EPISODE_COLUMNS, {"scores": 1})


def test_headers_are_the_contract(tmp_path: Path) -> None:
    sink = CsvSink(tmp_path, EXPERTS)
    write_some(sink, 0, 1)
    sink.close()
    assert tuple(read(tmp_path / "metrics.csv")[0]) == metric_columns(EXPERTS)
    assert tuple(read(tmp_path / "episodes.csv")[0]) == EPISODE_COLUMNS
    assert {"expert_survival_share", "expert_combat_share", "frames", "rho_clip_share"} < set(metric_columns(EXPERTS))
    assert json.loads((tmp_path / "phases.jsonl").read_text())["new"] == 0.5


def test_rows_are_there_to_read_as_soon_as_metrics_returns(tmp_path: Path) -> None:
    sink = CsvSink(tmp_path, EXPERTS)
    write_some(sink, 5, 2)
    assert [row["frames"] for row in read(tmp_path / "metrics.csv")] == ["5", "6"]
    assert len(read(tmp_path / "episodes.csv")) == 2


def test_restoring_drops_exactly_what_came_later(tmp_path: Path) -> None:
    sink = CsvSink(tmp_path, EXPERTS)
    write_some(sink, 0)
    state = json.loads(json.dumps(sink.state()))
    before = contents(tmp_path)
    write_some(sink, 3)
    sink.close()
    (tmp_path / "metrics.csv").open("a").write("77,half a li")

    resumed = CsvSink(tmp_path, EXPERTS)
    resumed.restore(state)
    assert contents(tmp_path) == before
    write_some(resumed, 3, 1)
    resumed.close()
    assert [row["frames"] for row in read(tmp_path / "metrics.csv")] == ["0", "1", "2", "3"]
    assert [row["episode"] for row in read(tmp_path / "episodes.csv")] == ["0", "1", "2", "3"]


def test_a_state_before_anything_was_written_restores_to_empty_tables(tmp_path: Path) -> None:
    sink = CsvSink(tmp_path, EXPERTS)
    state = sink.state()
    write_some(sink, 0)
    sink.restore(state)
    sink.close()
    assert read(tmp_path / "metrics.csv") == []
    assert (tmp_path / "phases.jsonl").read_bytes() == b""


@pytest.mark.parametrize("name", FILES)
def test_a_file_shorter_than_recorded_is_refused_and_nothing_changes(tmp_path: Path, name: str) -> None:
    sink = CsvSink(tmp_path, EXPERTS)
    write_some(sink, 0)
    state = sink.state()
    write_some(sink, 3)
    sink.close()
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[: state[name] - 1])
    before = contents(tmp_path)
    with pytest.raises(
        UserError, match=f"{name} holds {state[name] - 1} bytes but the snapshot recorded {state[name]}"
    ):
        CsvSink(tmp_path, EXPERTS).restore(state)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match="holds 0 bytes"):
        CsvSink(tmp_path, EXPERTS).restore(state)
    assert contents(tmp_path) == {other: content for other, content in before.items() if other != name}


def test_other_experts_cannot_continue_a_file(tmp_path: Path) -> None:
    sink = CsvSink(tmp_path, EXPERTS)
    write_some(sink, 0)
    state = sink.state()
    sink.close()
    before = contents(tmp_path)
    other = CsvSink(tmp_path, ("survival", "general"))
    with pytest.raises(UserError, match="other columns"):
        other.restore(state)
    with pytest.raises(UserError, match="other columns"):
        other.metrics({"frames": 9})
    assert contents(tmp_path) == before


def test_a_state_of_other_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no length of metrics\.csv"):
        CsvSink(tmp_path, EXPERTS).restore({})


def curves(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_the_curves_under_grouped_tags(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path, EXPERTS)
    row = {column: float(index) for index, column in enumerate(metric_columns(EXPERTS))}
    sink.metrics({**row, "frames": 2**33, "phase": "warmup", "routing": "softmax", "policy_lag": None})
    sink.event({"frames": 2**33, "phase": "warmup", "key": "temperature", "old": 1.0, "new": 0.5, "by": "schedule"})
    sink.close()
    tags = metric_tags(EXPERTS)
    assert curves(tmp_path) == {tag: [(2**33, row[column])] for column, tag in tags.items() if column != "policy_lag"}
    assert all(tag.count("/") == 1 for tag in tags.values())
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (event,) = events.Tensors("events/changes")
    assert event.tensor_proto.string_val[0].decode() == "warmup: temperature 1.0 → 0.5 (by schedule)"


def test_tensorboards_custom_pages_show_every_kind_of_curve(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path, EXPERTS)
    sink.metrics({"frames": 10})
    sink.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    stored = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    layout = Layout.FromString(stored)
    charts = {chart.title: list(chart.multiline.tag) for page in layout.category for chart in page.chart}
    assert list(charts) == [title for page in LAYOUT.values() for title in page]
    tags = set(metric_tags(EXPERTS).values())
    drawn = {tag for patterns in charts.values() for tag in tags if any(re.fullmatch(p, tag) for p in patterns)}
    for patterns in charts.values():
        for pattern in patterns:
            assert any(re.fullmatch(pattern, tag) for tag in tags), f"{pattern} draws nothing"
    assert {tag.partition("/")[0] for tag in drawn} == {tag.partition("/")[0] for tag in tags}  # of each group some


def test_after_restoring_tensorboard_shows_no_point_twice(tmp_path: Path) -> None:
    sinks = Sinks([CsvSink(tmp_path, EXPERTS), TensorBoardSink(tmp_path, EXPERTS)])
    for frames in (10, 20):
        sinks.metrics({"frames": frames, "loss_total": 1.0})
    state = json.loads(json.dumps(sinks.state()))
    for frames in (30, 40):
        sinks.metrics({"frames": frames, "loss_total": 2.0})
    sinks.close()
    resumed = Sinks([CsvSink(tmp_path, EXPERTS), TensorBoardSink(tmp_path, EXPERTS)])
    resumed.restore(state)
    resumed.metrics({"frames": 35, "loss_total": 3.0})
    resumed.close()
    resumed.close()
    expected = [(10, 1.0), (20, 1.0), (35, 3.0)]
    assert curves(tmp_path)["loss/total"] == expected
    assert [(int(row["frames"]), float(row["loss_total"])) for row in read(tmp_path / "metrics.csv")] == expected


def test_a_sink_that_is_new_to_a_resumed_run_begins_there(tmp_path: Path) -> None:
    first = Sinks([CsvSink(tmp_path, EXPERTS)])
    first.metrics({"frames": 10})
    state = first.state()
    first.close()
    resumed = Sinks([CsvSink(tmp_path, EXPERTS), TensorBoardSink(tmp_path, EXPERTS)])
    resumed.restore(state)
    resumed.metrics({"frames": 20, "loss_total": 1.0})
    resumed.close()
    assert curves(tmp_path)["loss/total"] == [(20, 1.0)]


def test_a_full_disk_loses_no_row_and_stops_nothing(tmp_path: Path) -> None:
    """A real small file system, full and then emptied: what could not be written comes when there is space again."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system takes privileges that this user lacks")
    try:
        lines: list[str] = []
        sinks = Sinks([CsvSink(disk, ("one",))], lines.append)
        (disk / "ballast").write_bytes(bytes(60 << 10))
        for frames in range(200):
            sinks.metrics({"frames": frames, "phase": "p" * 30})
        assert len(lines) == 1
        assert "cannot be written" in lines[0]
        (disk / "ballast").unlink()
        for frames in range(200, 203):
            sinks.metrics({"frames": frames, "phase": "p"})
        sinks.close()
        assert [int(row["frames"]) for row in read(disk / "metrics.csv")] == list(range(203))
    finally:
        subprocess.run(["umount", disk], check=True)
