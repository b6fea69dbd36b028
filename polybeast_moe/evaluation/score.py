"""What NetHack's score in play is made of. Pure.

It is (`botl_score` of its botl.c) the gold gained, if that is no loss, plus 50 points for each level below the first
that was reached (from level 21 on 1,000 more each, beyond 30 a flat 10,000), plus score experience. Gold and depth are
on record; experience is the rest: points for kills and deeds, and gold within containers, which nobody sees.
"""

from __future__ import annotations

import numpy as np

from polybeast_moe.evaluation.statistics import Floats

SCORE_PARTS = ("experience", "depth", "gold")


def score_parts(score: Floats, depth: Floats, gold: Floats) -> dict[str, Floats]:
    """Takes scores [n] apart by `SCORE_PARTS`, [n] each, from the deepest level reached [n] and the gold gained [n]."""
    of_depth, of_gold = depth_score(depth), np.maximum(gold, 0.0)
    return {"experience": score - of_depth - of_gold, "depth": of_depth, "gold": of_gold}


def depth_score(depth: Floats) -> Floats:
    """Returns the points that the deepest level reached is worth: [n] -> [n]."""
    extra = np.where(depth > 30, 10_000.0, np.where(depth > 20, 1000.0 * (depth - 20), 0.0))
    points: Floats = 50.0 * (depth - 1) + extra
    return points
