"""This project's inline mode: one process plays, infers and learns in turn."""

from __future__ import annotations

from dataclasses import replace

from peers import ours
from peers.job import read_job

INLINE = {"runtime.mode": "inline", "runtime.groups": 1}  # an update takes every group's rollout

if __name__ == "__main__":
    job = read_job()
    ours.main(replace(job, settings={**INLINE, **job.settings}))
