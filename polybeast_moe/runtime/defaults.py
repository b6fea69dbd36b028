"""Settings of the runtime that depend on the machine."""

from __future__ import annotations

from polybeast_moe.config import RuntimeConfig

_ENGINE_SHARE, _POLICY_SHARE = 0.27, 0.28
"""Shares of the work per frame on CPUs: engine, inference; the rest is the update: those of `scaling.QUICKSTART`,
measured on two cores."""
RESERVED_CORES = 1.5
"""Of a GPU's cores, for the Python of its learner and its policy worker: launching kernels, copying, snapshots."""


def with_defaults(runtime: RuntimeConfig, cores: int) -> RuntimeConfig:
    """Returns the settings with every None but `groups_per_batch` chosen for `cores` usable cores.

    Cores are dealt out by what each part costs per frame; where a GPU computes, actors have them. The inline mode has
    one actor and gives torch every core.
    """
    on_gpu = runtime.device.startswith("cuda")
    chosen: dict[str, int] = {}
    if runtime.mode == "inline":
        chosen = {"actors": 1, "threads": cores, "policy_threads": cores}
    elif on_gpu:
        chosen = {"actors": max(1, int(cores - RESERVED_CORES)), "threads": 1, "policy_threads": 1}
    else:
        actors = max(1, round(cores * _ENGINE_SHARE))
        policy_threads = max(1, round(cores * _POLICY_SHARE))
        chosen = {
            "actors": actors,
            "policy_threads": policy_threads,
            "threads": max(1, cores - actors - policy_threads),
        }
    prefetch = on_gpu and runtime.mode == "asynchronous"
    missing = {k: v for k, v in (*chosen.items(), ("prefetch", prefetch)) if getattr(runtime, k) is None}
    return runtime.model_copy(update=missing)


def slots(runtime: RuntimeConfig, slots_per_batch: int) -> int:
    """Returns how many rollout slots a run of these settings has.

    A batch, in the asynchronous mode one a group, and with `prefetch` another batch.
    """
    filling = 0 if runtime.mode == "inline" else (runtime.actors or 1) * runtime.groups
    return filling + slots_per_batch * (2 if runtime.prefetch else 1)


def describe(runtime: RuntimeConfig, slots_per_batch: int, cores: int) -> str:
    """Says in one line what a run with these settings uses on a machine of `cores` usable cores."""
    chosen = with_defaults(runtime, cores)
    actors = chosen.actors or 1
    where = f" on {chosen.device}" if chosen.device.startswith("cuda") else ""
    return (
        f"{actors} actor{'s' if actors > 1 else ''} of {chosen.groups} groups of {chosen.games_per_group} games, "
        f"rollouts of {chosen.unroll} steps in {slots(chosen, slots_per_batch)} slots; torch threads: policy worker "
        f"{chosen.policy_threads}, learner {chosen.threads}{where}"
    )
