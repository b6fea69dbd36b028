"""Saved games of an actor as JSON holds them: a few kilobytes of seeds and actions for each."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from typing import Any

from polybeast_moe import _C

_MOST_STEPS = 1 << 24


def games_to_plain(groups: Sequence[Sequence[_C.SavedGame]]) -> list[list[dict[str, Any]]]:
    """Returns the games of every group; actions packed, for they are most of it."""
    return [[_to_plain(game) for game in group] for group in groups]


def games_from_plain(groups: Sequence[Sequence[Any]], shape: tuple[int, int]) -> list[list[_C.SavedGame]] | None:
    """Reverses `games_to_plain`; None when there are not `shape` = (groups, games of each) of them."""
    if (len(groups), *{len(group) for group in groups}) != shape:
        return None
    return [[_from_plain(game) for game in group] for group in groups]


def _to_plain(game: _C.SavedGame) -> dict[str, Any]:
    if not game.begun:
        return {"next_episode": game.next_episode}
    return {
        "next_episode": game.next_episode,
        "seeds": [game.core, game.disp],
        "frozen_steps": game.frozen_steps,
        "actions": base64.b64encode(zlib.compress(game.actions, 6)).decode("ascii") if game.whole else None,
        "alpha_entropy_sum": game.alpha_entropy_sum,
        "fingerprint": game.fingerprint,
    }


def _from_plain(game: dict[str, Any]) -> _C.SavedGame:
    begun = "seeds" in game
    core, disp = game["seeds"] if begun else (0, 0)
    packed = game.get("actions")
    return _C.SavedGame(
        next_episode=game["next_episode"],
        begun=begun,
        whole=packed is not None,
        core=core,
        disp=disp,
        frozen_steps=game.get("frozen_steps", 0),
        actions=_unpacked(packed) if packed is not None else b"",
        alpha_entropy_sum=game.get("alpha_entropy_sum", 0.0),
        fingerprint=game.get("fingerprint", 0),
    )


def _unpacked(text: str) -> bytes:
    """Actions as they were; no more of them than any episode has, whatever somebody wrote there."""
    return zlib.decompressobj().decompress(base64.b64decode(text, validate=True), _MOST_STEPS)
