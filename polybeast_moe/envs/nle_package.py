"""Finds the installed `nle` without importing it: its library and game data, and whether its version is supported."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from polybeast_moe.errors import UserError

SUPPORTED = "1.3.0"  # the engine reads this version's structs: csrc/nethack/abi.h


@dataclass(frozen=True)
class NlePackage:
    """Where the installed NetHack Learning Environment keeps its parts."""

    library: Path
    data: Path
    version: str


def check_nle() -> NlePackage:
    """Returns the installed `nle`.

    Raises:
        UserError: it is missing, of another version, or incomplete.
    """
    remedy = f"pip install nle=={SUPPORTED}"
    try:
        version = importlib.metadata.version("nle")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"nle is not installed: {remedy}") from None
    if version != SUPPORTED:
        raise UserError(f"nle {version} is not supported, the engine is built for {SUPPORTED}: {remedy}")
    spec = importlib.util.find_spec("nle")  # a top-level name: found without running its code
    folder = Path(next(iter(spec.submodule_search_locations or ()), "")) if spec is not None else Path()
    for needed in ("libnethack.so", "nethackdir/nhdat"):
        if not (folder / needed).is_file():
            raise UserError(
                f"nle {version} in {folder} has no {needed}: pip install --force-reinstall nle=={SUPPORTED}"
            )
    return NlePackage(folder / "libnethack.so", folder / "nethackdir", version)
