"""Short trials of what a run stands on: the engine plays, the kernels agree with their reference, processes train."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from polybeast_moe.doctor.finding import Finding

if TYPE_CHECKING:
    import torch

    from polybeast_moe.config import RunConfig

_ENGINE_SECONDS = 2.0
_TOLERANCE = 1e-5  # float32
_UPDATES = 4
_DEBUG_RUN = ("phases.warmup.until.frames=2_000", "runtime.games_per_group=8", "runtime.actors=1")


def self_tests() -> Sequence[Callable[[], Finding]]:
    """Returns the trials; each takes a few seconds and catches what goes wrong in it."""
    return _guarded("engine", engine), _guarded("kernels", kernels), _guarded("processes", processes)


def _guarded(name: str, test: Callable[[], str]) -> Callable[[], Finding]:
    def run() -> Finding:
        began = time.monotonic()
        try:
            said = test()
        except Exception as error:  # whatever it is, it is what the user wants to know
            what = " ".join(f"{type(error).__name__}: {error}".split())
            return Finding(name, what, "failed", _ADVICE[name])
        return Finding(name, f"{said}, {time.monotonic() - began:.1f} s", "good")

    return run


_ADVICE = {
    "engine": "make install builds it anew; pip install --force-reinstall nle==1.3.0 replaces NetHack",
    "kernels": "policy.mixture_backend=torch goes without the fused kernel",
    "processes": "runtime.mode=inline runtime.groups=1 goes without them; the log above says who ended and why",
}


def engine() -> str:
    """Plays a few games with random actions and asserts that NetHack's turns advance."""
    import numpy as np

    from polybeast_moe.envs import NetHackVectorEnv
    from polybeast_moe.envs.engine import ACTIONS

    games, steps, rng = 8, 0, np.random.default_rng(0)
    environment = NetHackVectorEnv("NetHackScore-v0", games, observation_keys=("glyphs", "blstats", "message"))
    try:
        environment.reset(seed=0)
        turns, began = 0, time.monotonic()
        while time.monotonic() - began < _ENGINE_SECONDS:
            seen, *_ = environment.step(rng.integers(len(ACTIONS), size=games))
            steps += games
            turns = max(turns, int(seen["blstats"][:, 20].max()))
        rate = steps / (time.monotonic() - began)
    finally:
        environment.close()
    if turns < 10:
        raise RuntimeError(f"{steps} steps took only {turns} turns of NetHack: it eats keys and plays nothing")
    return f"{rate:,.0f} steps/s on one core with {games} games"


def kernels() -> str:
    """Runs the expert mixture forward and backward on the fused backend of each device, against the reference."""
    import torch

    devices = [torch.device("cpu")]
    if torch.cuda.is_available():
        devices.append(torch.device("cuda"))
    return "; ".join(_compare(device) for device in devices)


def _compare(device: torch.device) -> str:
    import torch

    from polybeast_moe.ops import expert_mixture

    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(512, 4, generator=generator).to(device)
    logits = torch.randn(512, 4, 23, generator=generator).to(device)
    found = []
    for backend in ("torch", "auto"):
        inputs = scores.clone().requires_grad_(), logits.clone().requires_grad_()
        mixed = expert_mixture(*inputs, 0.7, backend=backend)
        loss = mixed.logits.square().mean() + mixed.entropy.mean()
        found.append((mixed.logits.detach(), mixed.alpha.detach(), *torch.autograd.grad(loss, inputs)))
    for ours, reference in zip(found[1], found[0], strict=True):
        error = float((ours - reference).abs().max())
        if not error < _TOLERANCE:
            raise RuntimeError(f"on {device} the fused mixture is off by {error:.2g}")
    return f"expert mixture on {device} equals its reference, gradients too"


def processes() -> str:
    """Trains a tiny policy for a moment with an actor and a policy worker in processes of their own."""
    from polybeast_moe.config_files import load_config
    from polybeast_moe.envs.games_folder import GamesFolder
    from polybeast_moe.monitoring.resources import usable_cores
    from polybeast_moe.runtime.device import on_this_machine
    from polybeast_moe.runtime.process import torch_cache_in

    config = load_config("debug", _DEBUG_RUN)
    config = config.model_copy(update={"runtime": on_this_machine(config.runtime, usable_cores())})
    said: list[str] = []
    with GamesFolder("polybeast-moe-") as games_folder, torch_cache_in(games_folder.path):
        try:
            return _train(config, games_folder.path, said.append)
        except Exception as error:
            raise RuntimeError("; ".join([str(error), *said[-3:]])) from error


def _train(config: RunConfig, folder: Path, log: Callable[[str], None]) -> str:
    """Makes a few updates; what goes wrong on the way is raised."""
    import torch

    from polybeast_moe.envs.engine import ACTIONS
    from polybeast_moe.envs.nle_package import check_nle
    from polybeast_moe.graph.configured import configured_graph
    from polybeast_moe.learning.learner import Learner
    from polybeast_moe.learning.phases import ControllerState, Counters, advance
    from polybeast_moe.models import build_policy
    from polybeast_moe.runtime.device import use
    from polybeast_moe.runtime.loading import make_feed
    from polybeast_moe.runtime.make import make_runtime

    device = torch.device(config.runtime.device)
    use(device)
    torch.manual_seed(0)
    policy = build_policy(config, configured_graph(config), num_actions=len(ACTIONS)).to(device)
    learner = Learner(policy, config.learner)
    _, settings, _ = advance(config.phases, ControllerState(), Counters(), {})
    runtime = make_runtime(config, policy, check_nle(), folder, starts=0, log_path=folder / "log", log=log)
    frames = 0
    with closing(runtime), closing(make_feed(config, policy, runtime, log)) as feed:
        runtime.set_control(phase=0, routing=settings.routing, temperature=settings.temperature, policy_version=0)
        runtime.start()
        for _ in range(_UPDATES):
            rollouts = feed.collect()
            assert rollouts is not None, "nobody interrupts it"
            batch = feed.batch()
            runtime.give_back(rollouts)
            if not learner.update(batch, settings).applied:
                raise RuntimeError("an update had no finite gradient")
            frames += batch.steps * batch.games
    by = f"an actor and a policy worker, on {device}"
    return f"{_UPDATES} updates from {frames:,} frames by {by}, {runtime.restarts} restarts"
