"""Fixtures: the backends that run on this machine's CPU."""

from __future__ import annotations

import os

import pytest

FUSED = ["triton"] if os.environ.get("TRITON_INTERPRET") == "1" else ["numba"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `backend` runs with each; `fused_backend` leaves out the reference."""
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", ["torch", *FUSED])
    if "fused_backend" in metafunc.fixturenames:
        metafunc.parametrize("fused_backend", FUSED)
