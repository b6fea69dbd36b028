"""Random numbers that depend on where they are used alone: one for each step of each episode of each seed.

So an episode plays the same beside any others and in any order, and `load_policy` can repeat what `evaluate` did.
The mixing function is splitmix64 (Steele, Lea and Flood 2014), as in the seeds of games (docs/engine.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from polybeast_moe import _C

_GAMES = 0x6576616C  # games of an evaluation are not those of a run with the same seed
_MASK = (1 << 64) - 1

Unsigned = NDArray[np.uint64]


def episode_seeds(seed: int, episode: int) -> tuple[int, int]:
    """Returns the seeds (core, disp) of an episode of an evaluation; they do not depend on policy or character."""
    return _C.episode_seeds((seed + _GAMES) & _MASK, 0, episode)


def uniform(seed: int, episode: NDArray[np.int64], step: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns a number in [0, 1) for each pair of episode [N] and step [N]."""
    root = _mixed(np.array([seed & _MASK], dtype=np.uint64))
    mixed = _mixed(_mixed(root ^ episode.astype(np.uint64)) ^ step.astype(np.uint64))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw(logits: NDArray[np.floating], uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
    """Draws an action from softmax(logits) [N, A] for each number in [0, 1) [N], by inversion."""
    scaled = logits.astype(np.float64)
    heights = np.cumsum(np.exp(scaled - scaled.max(axis=1, keepdims=True)), axis=1)
    drawn: NDArray[np.int64] = (heights <= (uniforms * heights[:, -1])[:, None]).sum(axis=1)
    return drawn.clip(max=logits.shape[1] - 1)


def _mixed(x: Unsigned) -> Unsigned:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
