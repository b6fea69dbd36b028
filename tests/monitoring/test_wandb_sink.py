"""The W&B sink offline: what a later `wandb sync` would send is what the run told."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_until

from polybeast_moe.monitoring.wandb_sink import WandbSink

pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB__SERVICE_WAIT", "240")  # seconds that its own process may take to start


def records(path: Path) -> Iterator[bytes]:
    """Whole records of a `.wandb` file: LevelDB's log format (its doc/log_format.md) behind seven bytes of header."""
    content, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        if place + 7 + length > len(content):  # it is still being written
            return
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def history(run_dir: Path) -> list[dict[str, object]]:
    rows = []
    for path in sorted(run_dir.glob("wandb/offline-run-*/*.wandb")):
        for content in records(path):
            record = pb.Record.FromString(content)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


def test_rows_and_events_are_kept_for_a_later_sync_and_a_resumed_run_is_the_same_one(tmp_path: Path) -> None:
    sink = WandbSink(tmp_path, ("combat", "general"), "nethack", {"seed": 3})
    sink.event({"frames": 0, "phase": "warmup", "key": "phase", "old": None, "new": "warmup"})
    sink.metrics({"frames": 100, "phase": "warmup", "mean_episode_score": 4.5, "expert_combat_share": 0.25})
    state = sink.state()
    sink.close()
    time.sleep(1.1)  # W&B names a folder by the second
    resumed = WandbSink(tmp_path, ("combat", "general"), "nethack", {"seed": 3})
    resumed.restore(state)
    resumed.metrics({"frames": 200, "phase": "warmup", "mean_episode_score": 5.5, "policy_lag": None})
    assert resumed.state() == state
    resumed.close()

    wait_until(lambda: len(history(tmp_path)) >= 3)  # W&B's own process may still be writing
    rows = [{key: value for key, value in row.items() if not key.startswith("_")} for row in history(tmp_path)]
    assert rows == [
        {"frames": 0, "events/changes": "warmup: phase None → warmup"},
        {"frames": 100, "phase": "warmup", "episodes/mean_score": 4.5, "experts/combat_share": 0.25},
        {"frames": 200, "phase": "warmup", "episodes/mean_score": 5.5},
    ]
    folders = {path.name.rpartition("-")[2] for path in tmp_path.glob("wandb/offline-run-*")}
    assert folders == {state["id"]}


def test_a_missing_package_is_told_of_before_anything_is_written() -> None:
    script = """if True:
        import sys
        sys.modules["wandb"] = None
        from polybeast_moe.errors import UserError
        try:
            import polybeast_moe.monitoring.wandb_sink
        except UserError as error:
            print(error)
    """
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "monitoring.wandb needs the package wandb: pip install wandb, or leave the key out\n"
