"""How games end: NetHack's own numbers in words, and what heroes died of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

ALIVE = -1
HOW_DONE = {
    -2: "NetHack gave up",
    ALIVE: "alive at the step limit",
    0: "killed",
    1: "choked",
    2: "poisoned",
    3: "starved",
    4: "drowned",
    5: "burned",
    6: "dissolved",
    7: "crushed",
    8: "turned to stone",
    9: "turned to slime",
    10: "genocided",
    11: "panic",
    12: "tricked",
    13: "quit",
    14: "escaped",
    15: "ascended",
}
"""NetHack's `game_end_types` (hack.h), and what the engine adds."""

_LAST_DEATH = 10


def ending(how_done: int) -> str:
    """Returns the kind of an end: ``killed``; ``end 99`` for a number that NetHack does not have."""
    return HOW_DONE.get(how_done, f"end {how_done}")


def count_deaths(ends: Iterable[tuple[int, str]]) -> dict[str, int]:
    """Returns how many died of what, the most frequent first; other ends do not count.

    Args:
        ends: `how_done` and `death` of each episode, the latter in NetHack's words ("killed by a jackal").
    """
    return dict(Counter(death for how, death in ends if 0 <= how <= _LAST_DEATH and death).most_common())
