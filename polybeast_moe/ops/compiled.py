"""Machine code by numba, compiled at first call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

_REASSOCIATE = {"reassoc", "contract", "nsz"}  # lets sums be vectorised; NaN and infinity keep their meaning


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles at first call, without the interpreter's lock at run time.

    The machine code is cached beside the package or in the user's cache directory; where neither can be written, every
    process compiles for itself.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": _REASSOCIATE}
    try:
        result: Callable[..., Any] = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        result = numba.njit(**options)(function)
    return result
