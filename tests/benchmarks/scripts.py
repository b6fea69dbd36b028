"""The scripts of benchmarks/: imported while a test runs and forgotten afterwards, or run in a process of their own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
GOALS = BENCHMARKS.parent / "docs" / "results" / "goals.yaml"


def imported(monkeypatch: pytest.MonkeyPatch, *names: str) -> Iterator[SimpleNamespace]:
    """Yields the modules by the last parts of their names."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield SimpleNamespace(**{name.rpartition(".")[2]: importlib.import_module(name) for name in names})
    for name in set(sys.modules) - before:
        specification = sys.modules[name].__spec__
        file = specification.origin if specification is not None else None
        if file and Path(file).is_relative_to(BENCHMARKS):
            del sys.modules[name]


def carried_out(folder: Path, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `python WORDS` said and did, the scripts on its path, its temporary files in `folder`."""
    own = {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(BENCHMARKS), **environment}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **own})


def ends_well(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
