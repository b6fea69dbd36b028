"""How well play covers the conditions: the share of steps on which each holds, and pairs that are nearly one.

Pure: `benchmarks/conditions.py` plays (or reads recorded play) and hands over the words that the engine wrote.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

LOWEST_SHARE, HIGHEST_SHARE = 0.001, 0.999
HIGHEST_OVERLAP = 0.95  # Jaccard
HIGHEST_RARE_SHARE = 0.15

# Conditions that early or random play hardly meets, and why they are worth a node all the same.
RARE = {
    "experience_level_5_up": "only play that fights well gets there",
    "depth_10_down": "only play that descends far gets there",
    "burdened": "random play carries little",
    "stressed": "random play carries little",
    "turning_to_stone": "deadly within turns: the cure must be tried at once",
    "turning_to_slime": "deadly within turns: the cure must be tried at once",
    "strangled": "deadly within turns: the cure must be tried at once",
    "sick": "deadly within turns: the cure must be tried at once",
    "stunned": "comes of few monsters and traps",
    "confused": "comes of few monsters, potions, traps and forgotten spells",
    "hallucinating": "comes of few monsters, potions and traps",
    "airborne": "needs magic",
    "riding": "needs a saddled steed and the will to mount it",
    "swallowed": "needs an engulfing monster, deeper than random play goes",
    "gnome_or_dwarf_shown": "they live in the Mines and deeper: friends of some heroes, the first armed foes of others",
    "unseen_monster_adjacent": "its mark shows only after a blow out of the dark",
    "petrifying_monster_shown": "touching it bare-handed kills: rare and decisive",
    "passive_monster_shown": "striking a floating eye is the best-known way to die: rare and decisive",
    "passive_monster_adjacent": "striking a floating eye is the best-known way to die: rare and decisive",
    "shopkeeper_shown": "shops start at depth 2",
    "water_or_lava_known": "lakes and moats lie deeper",
    "said_shop": "shops start at depth 2",
    "said_hero_hits": "a message of one step, of heroes with a weapon: a Monk strikes and kicks",
    "said_stuck": "pits, bear traps and webs are few on the first levels",
    "said_ate": "a message of one step, and a meal lasts a thousand turns",
    "said_god_angry": "a message of one step, and only a prayer too many brings it",
    "stairs_down_underfoot": "one step a level, and only of play that finds them",
    "magic_item_underfoot": "autopickup takes most of them before the message tells",
}


@dataclasses.dataclass(frozen=True)
class Coverage:
    """What play shows of the conditions.

    Attributes:
        names: the conditions, in bit order.
        sources: the names of the kinds of play.
        shares: shape [conditions, sources]: the share of a source's steps on which a condition holds.
        overlaps: pairs (name, name, Jaccard overlap over all steps) above HIGHEST_OVERLAP.
        distinct: for each source the share of distinct patterns among 2,048 rows, 64 stretches of 32 steps.
        lit: for each source the mean number of conditions that hold.
    """

    names: tuple[str, ...]
    sources: tuple[str, ...]
    shares: npt.NDArray[np.float64]
    overlaps: tuple[tuple[str, str, float], ...]
    distinct: tuple[float, ...]
    lit: tuple[float, ...]

    @property
    def pooled(self) -> npt.NDArray[np.float64]:
        """Shape [conditions]: the share on which a condition holds where every kind of play counts alike."""
        pooled: npt.NDArray[np.float64] = self.shares.mean(axis=1)
        return pooled

    def uncovered(self) -> tuple[str, ...]:
        """Conditions whose pooled share is out of bounds, not named in RARE."""
        inside = (self.pooled >= LOWEST_SHARE) & (self.pooled <= HIGHEST_SHARE)
        return tuple(self.names[i] for i in np.flatnonzero(~inside).tolist() if self.names[i] not in RARE)

    def unseen(self) -> tuple[str, ...]:
        """Conditions whose share is out of bounds in every kind of play, named in RARE or not."""
        inside = ((self.shares >= LOWEST_SHARE) & (self.shares <= HIGHEST_SHARE)).any(axis=1)
        return tuple(self.names[i] for i in np.flatnonzero(~inside).tolist())

    def rare(self) -> tuple[str, ...]:
        """Conditions that are justified as rare."""
        return tuple(name for name in self.names if name in RARE)


def unpack(words: npt.NDArray[np.uint64], count: int) -> npt.NDArray[np.bool_]:
    """Returns bool [steps, count] from uint64 [steps, words]: bit i % 64 of word i // 64 is condition i."""
    bits = np.unpackbits(np.ascontiguousarray(words, dtype="<u8").view(np.uint8), axis=1, bitorder="little")
    return bits[:, :count].astype(np.bool_)


def measure(names: Sequence[str], words: Mapping[str, npt.NDArray[np.uint64]]) -> Coverage:
    """Measures coverage.

    Args:
        names: the conditions in bit order.
        words: for each kind of play, uint64 [steps, words] in the order of play.
    """
    lit = {source: unpack(rows, len(names)) for source, rows in words.items()}
    return Coverage(
        names=tuple(names),
        sources=tuple(lit),
        shares=np.stack([rows.mean(axis=0) for rows in lit.values()], axis=1),
        overlaps=_overlaps(names, np.concatenate(list(lit.values()))),
        distinct=tuple(_distinct_share(rows) for rows in words.values()),
        lit=tuple(float(rows.sum(axis=1).mean()) for rows in lit.values()),
    )


def _overlaps(names: Sequence[str], rows: npt.NDArray[np.bool_]) -> tuple[tuple[str, str, float], ...]:
    both = rows.T.astype(np.float32) @ rows.astype(np.float32)
    count = np.diag(both)
    either = np.maximum(count[:, None] + count[None, :] - both, 1)
    first, second = np.nonzero(np.triu(both / either, 1) > HIGHEST_OVERLAP)
    return tuple(
        (names[i], names[j], float(both[i, j] / either[i, j]))
        for i, j in zip(first.tolist(), second.tolist(), strict=True)
    )


def _distinct_share(words: npt.NDArray[np.uint64], stretches: int = 64, length: int = 32) -> float:
    """The share of distinct rows in a batch as training sees it: many games, a stretch of consecutive steps each."""
    starts = np.linspace(0, max(len(words) - length, 0), stretches).astype(int)
    batch = np.concatenate([words[start : start + length] for start in starts])
    return len(np.unique(batch, axis=0)) / len(batch)


def render(coverage: Coverage, microseconds: Mapping[str, float]) -> str:
    """Returns the report as Markdown without a title: totals, verdicts, and the table of shares in percent."""
    rare = len(coverage.rare()) / len(coverage.names)
    lines = [f"{len(coverage.names)} conditions. Pooled: every kind of play counts alike.", ""]
    lines += ["| play | us an observation | conditions lit | distinct patterns in 2,048 rows |", "|---|---|---|---|"]
    for source, distinct, lit in zip(coverage.sources, coverage.distinct, coverage.lit, strict=True):
        cost = f"{microseconds[source]:.2f}" if source in microseconds else ""
        lines.append(f"| {source} | {cost} | {lit:.1f} | {100 * distinct:.0f} % |")
    overlaps = ", ".join(f"{a} and {b} ({overlap:.3f})" for a, b, overlap in coverage.overlaps)
    lines += [
        "",
        f"- out of 0.1-99.9 % of pooled play, without a reason: {', '.join(coverage.uncovered()) or 'none'}",
        f"- out of 0.1-99.9 % in every kind of play, with or without a reason: {len(coverage.unseen())}",
        f"- justified as rare: {len(coverage.rare())} ({100 * rare:.1f} %, at most {100 * HIGHEST_RARE_SHARE:.0f} %)",
        f"- pairs with a Jaccard overlap above {HIGHEST_OVERLAP}: {overlaps or 'none'}",
        "",
        f"| condition | pooled % | {' | '.join(f'{source} %' for source in coverage.sources)} | rare because |",
        f"|---|---|{'---|' * len(coverage.sources)}---|",
    ]
    for name, pooled, shares in zip(coverage.names, coverage.pooled, coverage.shares, strict=True):
        cells = " | ".join(f"{100 * share:.3f}" for share in (pooled, *shares))
        lines.append(f"| {name} | {cells} | {RARE.get(name, '')} |")
    return "\n".join(lines)
