"""What a configuration names by import path: code of the user's own, found without a fork."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from polybeast_moe.errors import UserError, nearest


def module_of(path: str, key: str) -> tuple[ModuleType, str]:
    """Imports the module of `package.module.name`; returns it with the name.

    Raises:
        UserError: it cannot be imported; the message begins with `key`.
    """
    module_name, _, name = path.rpartition(".")
    if not all(path.split(".")) or not module_name:
        raise UserError(f"{key}: {path!r} is not an import path; write package.module.NAME")
    try:
        return importlib.import_module(module_name), name
    except ImportError as error:
        raise UserError(f"{key}: cannot import {module_name!r} ({error})") from error


def function_at(path: str, key: str) -> Callable[..., Any]:
    """Imports a function by its path, `package.module.function`. Raises UserError as `module_of`."""
    module, name = module_of(path, key)
    found: Callable[..., Any] | None = getattr(module, name, None)
    if found is None or not callable(found):
        functions = [name for name, value in vars(module).items() if callable(value)]
        raise UserError(f"{key}: {module.__name__!r} has no function named {name!r}{nearest(name, functions)}")
    return found
