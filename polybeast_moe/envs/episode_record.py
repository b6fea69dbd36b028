"""What is kept of an episode that has ended, by the names that `episodes.csv` gives its columns."""

from __future__ import annotations

EpisodeRecord = dict[str, float | int | str]

GAME_FIGURES = ("score", "score_after_end", "return", "length", "depth", "turns", "how_done")
"""Numbers that every game has, whoever plays it."""

EPISODE_FIELDS = (*GAME_FIGURES, "alpha_entropy", "seed_core", "seed_disp", "gold", "death")
"""All that training and evaluation keep: numbers, but for `death`."""
