"""Fixtures that many folders share: a tiny configuration, the installed NetHack, runtimes and programs with an end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from polybeast_moe import cli, trainer
from polybeast_moe.config import RunConfig
from polybeast_moe.config_files import load_config
from polybeast_moe.envs.engine import ACTIONS
from polybeast_moe.envs.nle_package import NlePackage, check_nle
from polybeast_moe.graph.configured import configured_graph
from polybeast_moe.models import Policy, build_policy
from polybeast_moe.runtime.inline import InlineRuntime

# How fast an example runs or is drawn is the machine's affair, not the test's.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

TINY = """\
env: {max_episode_steps: 30}
runtime: {mode: inline, groups: 2, games_per_group: 3, unroll: 8, threads: 1}
graph: {enabled: false, hidden: 8, heads: 2}
policy:
  glyph_embedding: 4
  conv_channels: 4
  hidden: 16
  expert_hidden: 8
  mixture_backend: torch
  router: {hidden: 8}
learner: {slots_per_batch: 2}
phases:
  - {name: warmup, until: {frames: 240}, routing: softmax, temperature: 1.0}
  - {name: transition, until: {frames: 480}, routing: sparsemax, temperature: {from: 1.0, to: 0.5}}
snapshots: {every_seconds: 1000}
monitoring: {every_seconds: 1000, tensorboard: false}
"""

MakeConfig = Callable[..., RunConfig]


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration that trains for a dozen updates of 48 frames."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def make_config(tiny_file: Path) -> MakeConfig:
    """Reads the tiny configuration with overrides such as `"env.max_episode_steps=9"`."""
    return lambda *overrides: load_config(tiny_file, overrides)


@pytest.fixture(scope="session")
def nle_package() -> NlePackage:
    return check_nle()


@pytest.fixture(scope="session")
def pinned_clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library to preload: NLE reads the C library's clock, and this one shows what the engine pins."""
    library = tmp_path_factory.mktemp("clock") / "pinned_clock.so"
    source = Path(__file__).parent / "engine" / "pinned_clock.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", source, "-o", library], check=True)
    return library


@pytest.fixture(autouse=True)
def torch_as_ever() -> Iterator[None]:
    """Whatever ran before: the same random numbers, and one thread, for tiny tensors are slower on more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed does not depend on the terminal in which the tests run."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go, of this process and of those that it starts; no run may leave any there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert not list(folder.glob("polybeast-moe*"))


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take longer than these runs; evaluation/test_report.py looks at them."""
    monkeypatch.setattr(trainer, "write_report", lambda path: path)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must be refused, with one line and exit code 2; gives the line."""

    def run(*argv: str) -> str:
        capsys.readouterr()
        assert cli.main(argv) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("polybeast-moe: ")
        assert err.count("\n") == 1
        return err

    return run


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the program in a session of its own, with temporary files in `tmp_path`; ends whatever is left of it."""
    begun: list[subprocess.Popen[str]] = []

    def start(*arguments: object, before: Sequence[str] = (), **environment: object) -> subprocess.Popen[str]:
        own = {"OMP_NUM_THREADS": "1", "TMPDIR": tmp_path, **environment}
        command = [*before, sys.executable, "-m", "polybeast_moe", *map(str, arguments)]
        begun.append(
            subprocess.Popen(
                command,
                env={**os.environ, **{name: str(value) for name, value in own.items()}},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return begun[-1]

    yield start
    for process in begun:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="session")
def make_policy() -> Callable[[RunConfig], Policy]:
    """Builds a configuration's policy, the same weights every time."""

    def make(config: RunConfig) -> Policy:
        torch.manual_seed(0)
        return build_policy(config, configured_graph(config), num_actions=len(ACTIONS))

    return make


@pytest.fixture
def start_inline(nle_package: NlePackage, tmp_path: Path, make_policy) -> Iterator[Callable[..., InlineRuntime]]:
    """Starts inline runtimes, each with a folder of its own and softmax at temperature 1, and closes them."""
    made: list[InlineRuntime] = []

    def start(config: RunConfig, policy: Policy | None = None, **options: int) -> InlineRuntime:
        directory = tmp_path / f"inline-{len(made)}"
        directory.mkdir()
        runtime = InlineRuntime(config, policy or make_policy(config), nle_package, directory, **options)
        runtime.set_control(phase=0, routing="softmax", temperature=1.0, policy_version=0)
        made.append(runtime)
        return runtime

    yield start
    for runtime in made:
        runtime.close()
