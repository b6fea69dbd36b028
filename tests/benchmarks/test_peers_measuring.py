"""What adapters measure with: frames over time, memory of a family of processes, and the runner that ends them."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from pathlib import Path

import pytest
from scripts import BENCHMARKS, carried_out, ends_well, imported

MIB = 2**20


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch):
    names = ("meter", "memory", "launch", "job", "scores")
    yield from imported(monkeypatch, *(f"peers.{name}" for name in names))


def every(seconds: float, frames: int, begin: float, end: float, so_far: float = 0) -> list[tuple[float, float]]:
    """An update of so many frames every so many seconds."""
    count = int((end - begin) / seconds)
    return [(begin + i * seconds, so_far + (i + 1) * frames) for i in range(count)]


def test_steady_speed_counts_whole_updates_only(modules) -> None:
    progress = [(1.0, 640), (7.0, 1280), (13.5, 1920), (20.0, 2560)]
    assert modules.meter.steady(progress, 5.0) == pytest.approx(1280 / 13)
    with pytest.raises(ValueError, match="1 updates after the warm-up"):
        modules.meter.steady(progress, 15.0)


def test_frames_between_updates_lie_on_the_line(modules) -> None:
    progress = [(10.0, 100.0), (20.0, 300.0)]
    at = [modules.meter.frames_at(progress, seconds) for seconds in (5, 10, 15, 20, 99)]
    assert at == [0, 100, 200, 300, 300]


@pytest.mark.parametrize(("pause", "expected"), [(0.0, 0.0), (7.0, 7.0)])
def test_recovery_is_where_a_whole_window_goes_at_the_old_speed(modules, pause: float, expected: float) -> None:
    before = every(0.1, 10, 0, 20)
    progress = before + every(0.1, 10, 20 + pause, 60, before[-1][1])
    assert modules.meter.recovery(progress, 20.0, 100.0, 60.0) == pytest.approx(expected, abs=0.8)


def test_a_system_that_hangs_or_goes_on_at_half_its_speed_has_not_recovered(modules) -> None:
    before = every(0.1, 10, 0, 20)
    half = before + every(0.1, 5, 20, 60, before[-1][1])
    on_its_way = before + every(0.1, 10, 20, 27, before[-1][1])
    assert modules.meter.recovery(before, 20.0, 100.0, 60.0) is None
    assert modules.meter.recovery(half, 20.0, 100.0, 60.0) is None
    assert modules.meter.recovery(on_its_way, 20.0, 100.0, 60.0) is None


def test_thinning_keeps_the_ends(modules) -> None:
    kept = modules.meter.thinned([(float(i), 2.0 * i) for i in range(10_001)], 100)
    assert len(kept) <= 101
    assert (kept[0], kept[-1]) == ((0.0, 0), (10_000.0, 20_000))


def fake_process(proc: Path, pid: int, parent: int, smaps: str) -> None:
    folder = proc / str(pid)
    (folder / "fd").mkdir(parents=True)
    (folder / "stat").write_text(f"{pid} (a (very) odd name) S {parent} 1 1")
    (folder / "smaps").write_text(textwrap.dedent(smaps))


def test_memory_sums_a_family_and_nobody_else(modules, tmp_path: Path) -> None:
    anonymous = "1000-2000 rw-p 0 00:00 0\nRss: 8 kB\nPss: {} kB\nAnonymous: 8 kB\n"
    for pid, parent, pss in ((10, 1, 100), (11, 10, 20), (12, 11, 3), (13, 1, 5000)):
        fake_process(tmp_path, pid, parent, anonymous.format(pss))
    assert modules.memory.family(10, tmp_path) == [10, 11, 12]
    assert modules.memory.family_bytes(10, tmp_path) == 123 * 1024


MEMORY_FILE = """
import mmap, os
from peers.memory import family_bytes

before = family_bytes(os.getpid())
file = os.memfd_create("test")
os.write(file, bytes(8 << 20))
again = os.dup(file)
unmapped = family_bytes(os.getpid())
with mmap.mmap(file, 8 << 20) as block:
    sum(block[::4096])
    print(unmapped - before, family_bytes(os.getpid()) - before)
"""


def test_pages_of_memory_files_count_once_whether_they_are_mapped_or_not(tmp_path: Path) -> None:
    """In a process of its own: other processes' beginnings and ends change who pays for what is shared."""
    done = carried_out(tmp_path, "-c", MEMORY_FILE)
    ends_well(done)
    for grown in map(int, done.stdout.split()):
        assert 7.5 * MIB < grown < 12 * MIB


def test_the_last_line_of_json_is_the_result(modules) -> None:
    assert modules.launch.last_result('{"a": 1}\nnoise {\n{"b": 2}\n{broken\n') == {"b": 2}
    assert modules.launch.last_result("nothing") is None


TRAINING = """
import subprocess, sys, time
from pathlib import Path
from peers.job import read_job
from peers.meter import Meter

job = read_job()
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path(job.folder / "left").write_text(str(left.pid))
meter = Meter(job, environments=4, parameters=7, victims=lambda: [worker.pid] * (worker.poll() is None))
meter.start()
while worker.poll() is None:  # whoever loses a worker hangs here
    meter.learnt(100)
    time.sleep(0.02)
time.sleep(600)
"""


def test_a_job_is_measured_to_its_end_and_leaves_no_process(modules, tmp_path: Path, monkeypatch) -> None:
    script = tmp_path / "training.py"
    script.write_text(TRAINING)
    monkeypatch.setattr(modules.launch, "command", lambda _, file: [sys.executable, str(script), str(file)])
    job = modules.job.Job(tmp_path, time.time(), seconds=1.0, kill=5.5)
    found = modules.launch.run_adapter("training", job)
    assert found["environments"] == 4
    assert 0 < found["frames_per_second"] <= 100 / 0.02  # it cannot have been faster than it was told to be
    assert found["pss_bytes"] > 5 * MIB
    assert found["kill"] == {
        "workers": 1,
        "workers_at_the_end": 0,
        "seconds": None,
        "watched": 5.5,
        "share_at_the_end": 0.0,
    }
    assert not modules.memory.is_alive(int((tmp_path / "left").read_text()))


def test_a_failure_says_what_the_system_said(modules, tmp_path: Path, monkeypatch) -> None:
    words = [sys.executable, "-c", "import sys; print('almost {'); sys.exit('no such game')"]
    monkeypatch.setattr(modules.launch, "command", lambda *_: words)
    with pytest.raises(modules.launch.Failed, match="no result, exit code 1: no such game"):
        modules.launch.run_adapter("training", modules.job.Job(tmp_path, time.time(), seconds=1.0))


def test_adapters_share_nothing_that_a_peers_environment_lacks(tmp_path: Path) -> None:
    code = "import peers.meter, peers.games, peers.network, sys; print(*sys.modules)"
    said = carried_out(tmp_path, "-c", code)
    ends_well(said)
    loaded = set(said.stdout.split())
    assert not {"polybeast_moe", "psutil", "yaml", "scipy", "results"} & loaded


def test_a_curve_is_of_recent_episodes(modules) -> None:
    episodes = [(float(second), 0.0 if second < 60 else 10.0, 5) for second in range(1, 121)]
    curve = modules.scores.learning_curve(episodes, [[0.0, 0], [120.0, 1200]], 120)  # pairs as JSON has them
    assert [point["frames"] for point in curve] == [600, 1200]
    assert curve[0]["score"] == pytest.approx(10 / 31)
    assert curve[1] == {"seconds": 120.0, "frames": 1200.0, "score": 10.0, "episodes": 61}
    assert modules.scores.score_at(curve, 900) == pytest.approx((curve[0]["score"] + 10) / 2)
    assert modules.scores.score_at(curve, 5000) == 10.0
    assert json.dumps(curve)


def test_last_words_tell_no_places(modules, tmp_path: Path) -> None:
    said = f'\x1b[31mFile "{BENCHMARKS}/peers/x.py"\x1b[0m in {tmp_path}/run, {Path.home()}/y'
    assert modules.launch.last_words(said, tmp_path) == 'File "./benchmarks/peers/x.py" in FOLDER/run, ~/y'


def test_environments_are_those_that_have_requirements(monkeypatch) -> None:
    for modules in imported(monkeypatch, "peers.environments"):
        environments = modules.environments
        assert environments.names() == ["monobeast", "sample_factory", "stable_baselines3"]
        assert environments.python_of("ours") == Path(sys.executable)
        assert environments.is_ready("plain_loop")
        for name in environments.names():
            pins = [line for line in environments.requirements(name).splitlines() if not line.startswith("#")]
            assert all(line.count("==") == 1 for line in pins)
            assert {"nle==1.3.0", "torch==2.13.0"} <= set(pins)
