"""Fixtures that many folders share: a tiny configuration, and the installed NetHack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from polybeast_moe.config import RunConfig
from polybeast_moe.config_files import load_config
from polybeast_moe.envs.nle_package import NlePackage, check_nle

settings.register_profile("untimed", deadline=None)  # how fast an example runs is the machine's affair, not the test's
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


@pytest.fixture
def one_thread():
    """Keeps torch on one thread: tiny tensors are slower on more, and tests share the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
