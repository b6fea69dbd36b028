"""Facts about the machine: versions, cores, memory, descriptors, disks, GPUs, and the defaults chosen for them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from polybeast_moe.config import LearnerConfig, RuntimeConfig
from polybeast_moe.doctor.finding import Finding
from polybeast_moe.envs.nle_package import check_nle
from polybeast_moe.errors import UserError
from polybeast_moe.monitoring.resources import cgroup_cores, cgroup_memory, usable_cores
from polybeast_moe.runtime.defaults import describe

_RUN_MEMORY = 1.5 * 2**30  # bytes that the quickstart's processes take, with room
_GAME_MEMORY = 3.5 * 2**20  # bytes a game takes beside its process
_GAME_DISK = 0.5 * 2**20  # bytes of files that a game makes
_OWN_DESCRIPTORS = 64  # that a process opens beside one for each of its games
_RUN_DISK = 2**30


def machine_findings() -> Iterator[Finding]:
    """Yields what there is, in the order in which it matters. Imports torch to ask it for GPUs."""
    yield from _software()
    yield from _processors()
    yield _memory()
    yield _descriptors()
    yield from _disks()
    yield from _gpus()
    yield from _defaults()


def _software() -> Iterator[Finding]:
    import torch

    yield Finding("python", platform.python_version())
    threads, capability = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    yield Finding("torch", f"{torch.__version__}, {threads} threads, {capability}")
    try:
        package = check_nle()
        yield Finding("nle", f"{package.version}, {package.library}", "good")
    except UserError as error:
        text, _, remedy = str(error).rpartition(": ")
        yield Finding("nle", text, "failed", remedy)
    others = ("gymnasium", "numpy", "numba", "triton", "tensorboard", "wandb")
    yield Finding("packages", ", ".join(f"{name} {_version(name)}" for name in others))
    yield _programs()


def _programs() -> Finding:
    folder = Path(__file__).parents[1]
    missing = [name for name in ("pbm-actor", "pbm-games") if not os.access(folder / name, os.X_OK)]
    if missing:
        return Finding("programs", f"no {' and no '.join(missing)} in {folder}", "failed", "make install")
    return Finding("programs", f"pbm-actor and pbm-games in {folder}", "good")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processors() -> Iterator[Finding]:
    cores, quota = usable_cores(), cgroup_cores()
    limits = [] if quota is None else [f"control group: {quota:g}"]
    allowed = len(os.sched_getaffinity(0))
    if allowed != os.cpu_count():
        limits.append(f"affinity: {allowed}")
    reason = f" ({', '.join(limits)})" if limits else ""
    yield Finding("cores", f"{cores} usable of {os.cpu_count()}{reason}")
    load = os.getloadavg()[0]
    if load > 0.5 * (os.cpu_count() or 1):
        advice = "frames/s suffer: wait for the others, or set runtime.actors and runtime.threads lower"
        yield Finding("load", f"{load:.1f} processes want the {os.cpu_count()} cores already", "warning", advice)


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    free, limit = memory.available, cgroup_memory()
    text = f"{free / 2**30:.1f} GiB free of {memory.total / 2**30:.1f}"
    if limit is not None and limit < memory.total:
        text += f", control group: {limit / 2**30:.1f}"
        free = min(free, limit)
    if free < _RUN_MEMORY:
        return Finding("memory", text, "warning", "lower runtime.games_per_group and runtime.unroll, or free some")
    games = int((free - _RUN_MEMORY) / _GAME_MEMORY)
    return Finding("memory", f"{text}; room for about {games:,} games", "good")


def _descriptors() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    runtime = RuntimeConfig()
    games = runtime.groups * runtime.games_per_group
    text = (
        f"{soft:,} open files a process, at most {hard:,}; an actor of {games} games needs {games + _OWN_DESCRIPTORS}"
    )
    if soft < games + _OWN_DESCRIPTORS:
        return Finding("descriptors", text, "failed", f"ulimit -n {games + 4 * _OWN_DESCRIPTORS} before starting")
    return Finding("descriptors", text, "good")


def _disks() -> Iterator[Finding]:
    for name, folder, needed, key in (
        ("disk", Path.cwd(), _RUN_DISK, "--run-dir"),
        ("games' files", Path(tempfile.gettempdir()), int(64 * _GAME_DISK), "TMPDIR"),
    ):
        free = shutil.disk_usage(folder).free
        text = f"{free / 2**30:.1f} GiB free in {folder}"
        if not os.access(folder, os.W_OK):
            yield Finding(name, f"{folder} cannot be written to", "failed", f"point {key} to a folder that can")
        elif free < needed:
            yield Finding(name, text, "warning", f"make room, or point {key} elsewhere")
        else:
            yield Finding(name, text, "good")


def _gpus() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        if Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi"):
            what = f"there is an NVIDIA driver, but torch {torch.__version__} cannot use it"
            advice = "install torch's CUDA build of this version; python -c 'import torch; torch.cuda.init()' says why"
            yield Finding("GPU", what, "warning", advice)
        else:
            yield Finding("GPU", "none; training runs on the CPU")
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        memory = f"{device.total_memory / 2**30:.0f} GiB"
        yield Finding(f"GPU {index}", f"{device.name}, {memory}, compute capability {device.major}.{device.minor}")


def _defaults() -> Iterator[Finding]:
    from polybeast_moe.runtime.device import on_this_machine

    cores = usable_cores()
    said = describe(on_this_machine(RuntimeConfig(), cores), LearnerConfig().slots_per_batch, cores)
    dealt = f"{cores} cores dealt out by what engine, policy worker and learner cost a frame"
    yield Finding("defaults", f"{said} ({dealt}; each can be set under runtime)")
