"""An operator and a real run: what is asked for happens, is recorded, and is still so after a resume."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_files import events, rows
from waiting import PATIENCE, wait_until

from polybeast_moe import cli
from polybeast_moe.control.client import send
from polybeast_moe.control.command import command_of
from polybeast_moe.errors import UserError
from polybeast_moe.snapshots import load, newest_good

LONG = "phases.transition.until.frames=100_000_000"
FIELDS = {"frames", "episodes", "phase", "router_temperature", "routing", "alpha_entropy", "usage_entropy"}
FIELDS |= {"frames_per_second", "actors", "restarts", "snapshot"}


def ask(run: Path, words: str, **options: bool) -> dict[str, Any]:
    return send(run, command_of(words.split()), **options)


def until(done: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    """Waits for something that a run which may still be starting tells."""

    def told() -> Any:
        try:
            return done()
        except UserError:
            return None

    return wait_until(told, process)


@pytest.mark.parametrize("mode", ["asynchronous", "inline"])
def test_an_operator_changes_a_run_that_goes_on(tiny_file: Path, tmp_path: Path, begin, capsys, mode: str) -> None:
    run = tmp_path / "run"
    overrides = [LONG, f"runtime.mode={mode}", "runtime.policy_threads=1", "monitoring.every_seconds=0.2"]
    process = begin("train", tiny_file, "--run-dir", run, *overrides)
    status = until(lambda: (now := ask(run, "status"))["phase"] == "transition" and now, process)
    assert status.keys() >= FIELDS
    assert (type(status["frames"]), status["paused"], status["holds"]) == (int, False, {})

    # Held against a falling schedule, read back to the bit, in the metrics soon, and in the inbox's answer too.
    assert ask(run, "set router_temperature 0.30000000000000004")["holds"] == {"router_temperature": 0.1 + 0.2}
    assert ask(run, "set losses.entropy 0.125", use_inbox=True)["holds"]["losses.entropy"] == 0.125
    on_disk, _ = newest_good(run / "snapshots")  # an answer says that a run which dies now goes on with it
    assert load(on_disk).state["controller"]["holds"] == {"temperature": 0.1 + 0.2, "losses.entropy": 0.125}
    assert ask(run, "status")["router_temperature"] == 0.1 + 0.2
    until(lambda: float(rows(run)[-1]["router_temperature"]) == 0.1 + 0.2, process)
    senseless = ["set temperatur 1", "release learning_rate", "set reward.score 1"]
    for refused in ["set router_temperature -1", "set learning_rate -0.1", *senseless]:
        with pytest.raises(UserError):
            ask(run, refused)
    assert cli.main(["control", str(run), "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["holds"]["losses.entropy"] == 0.125

    # Paused, nothing moves; a snapshot taken then has what was changed since the last update.
    assert ask(run, "pause") == {"paused": True}
    before = ask(run, "status")["frames"]
    ask(run, "set learning_rate 0.0001220703125")
    time.sleep(1.0)
    assert ask(run, "status")["frames"] == before
    path = ask(run, "snapshot")["snapshot"]
    holds = {"temperature": 0.1 + 0.2, "losses.entropy": 0.125, "learning_rate": 0.0001220703125}
    assert load(Path(path)).state["controller"]["holds"] == holds
    assert ask(run, "resume") == {"paused": False}
    until(lambda: ask(run, "status")["frames"] > before, process)

    assert ask(run, "stop") == {"stopping": True}
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "Traceback" in err) == (0, False), err
    assert f"Stopped by an operator. Go on with: polybeast-moe resume {run}" in out
    assert sorted(path.name for path in run.glob("control*")) == []

    # All of it is there after a resume, until the phase ends.
    process = begin("resume", run)
    status = until(lambda: ask(run, "status"), process)
    assert status["holds"].keys() == {"router_temperature", "losses.entropy", "learning_rate"}
    assert (status["router_temperature"], status["learning_rate"]) == (0.1 + 0.2, 0.0001220703125)
    assert ask(run, "release router_temperature")["holds"].keys() == {"losses.entropy", "learning_rate"}
    assert ask(run, "status")["router_temperature"] > 0.9
    ask(run, "next-phase")
    assert process.wait(timeout=PATIENCE) == 0  # it was the last one
    by_hand = [(event["key"], event["new"]) for event in events(run) if event["by"] == "operator"]
    assert by_hand == [
        ("temperature", 0.1 + 0.2),
        ("losses.entropy", 0.125),
        ("paused", "true"),
        ("learning_rate", 0.0001220703125),
        ("paused", "false"),
        ("temperature", "linear 1 to 0.5"),
        ("next_phase", "the end"),
    ]


def test_a_schedulers_warning_ends_in_a_snapshot_and_its_code(tiny_file: Path, tmp_path: Path, begin) -> None:
    run = tmp_path / "run"
    line = ["train", str(tiny_file), "--run-dir", str(run), "--resume-or-start", LONG]
    frames = 0
    for _ in range(2):
        process = begin(*line)
        reached = frames
        until(lambda: ask(run, "status")["frames"] > reached, process)  # noqa: B023
        process.send_signal(signal.SIGUSR1)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 75, err
        assert "Stopped to be requeued" in out
        snapshot, passed_over = newest_good(run / "snapshots")
        assert passed_over == []
        assert load(snapshot).state["counters"]["frames"] > frames
        frames = load(snapshot).state["counters"]["frames"]
    assert [int(row["frames"]) for row in rows(run)] == sorted({int(row["frames"]) for row in rows(run)})


def test_a_full_disk_costs_snapshots_and_nothing_else(tiny_file: Path, tmp_path: Path, begin) -> None:
    """A real file system of sixteen mebibytes, full while the run goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("only root can mount a small file system here")
    try:
        run, filler = disk / "run", disk / "filler"
        process = begin("train", tiny_file, "--run-dir", run, LONG, "monitoring.every_seconds=0.2")
        until(lambda: ask(run, "status")["phase"] == "transition", process)
        good = Path(ask(run, "snapshot")["snapshot"])
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(bytes(32 << 20))
        with pytest.raises(UserError, match="No space left on device"):
            ask(run, "snapshot")
        before = ask(run, "status")
        assert before["snapshot"] == str(good)
        until(lambda: ask(run, "status")["frames"] > before["frames"], process)
        assert newest_good(run / "snapshots") == (good, [])
        filler.unlink()
        better = Path(ask(run, "snapshot")["snapshot"])
        assert load(better).state["counters"]["frames"] > before["frames"]
        ask(run, "stop")
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, "Traceback" in err) == (0, False), err
        assert "no snapshot: [Errno 28] No space left on device" in out
        episodes = [int(row["episode"]) for row in rows(run, "episodes.csv")]
        assert episodes == list(range(1, len(episodes) + 1)), "what the disk refused was kept for later"
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
