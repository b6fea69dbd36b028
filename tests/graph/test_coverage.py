"""The coverage report counts right."""

from __future__ import annotations

import numpy as np

from polybeast_moe import _C
from polybeast_moe.graph import coverage

NAMES = ("always", "half", "same_as_half", "never", "stunned")


def pack(rows: np.ndarray) -> np.ndarray:
    padded = np.zeros((len(rows), 64), np.uint8)
    padded[:, : rows.shape[1]] = rows
    return np.packbits(padded, axis=1, bitorder="little").view(np.uint64)


def made() -> np.ndarray:
    half = np.arange(4_000) % 2
    return np.stack([np.ones(4_000), half, half, np.zeros(4_000), np.zeros(4_000)], axis=1).astype(np.uint8)


def test_unpack_is_the_inverse_of_the_engine_s_packing() -> None:
    rows = np.random.default_rng(0).random((50, 64)) < 0.5
    assert (coverage.unpack(pack(rows.astype(np.uint8)), 60) == rows[:, :60]).all()


def test_shares_overlaps_and_verdicts() -> None:
    measured = coverage.measure(NAMES, {"play": pack(made())})
    assert measured.shares[:, 0].tolist() == [1, 0.5, 0.5, 0, 0]
    assert measured.overlaps == (("half", "same_as_half", 1.0),)
    assert measured.uncovered() == ("always", "never")
    assert measured.unseen() == ("always", "never", "stunned")
    assert measured.rare() == ("stunned",)
    assert measured.lit == (2.0,)
    assert measured.distinct == (2 / 2048,)


def test_kinds_of_play_count_alike_however_long_they_are() -> None:
    other = made()[:400]
    other[0, 3], other[0, 0] = 1, 0  # 0.25 % of this play, 0.125 % of both
    both = coverage.measure(NAMES, {"a": pack(made()), "b": pack(other)})
    assert both.pooled[3] == 0.00125
    assert both.uncovered() == ()
    three = coverage.measure(NAMES, {"a": pack(made()), "b": pack(other), "c": pack(made())})
    assert three.uncovered() == ("always", "never")


def test_the_report_names_everything() -> None:
    text = coverage.render(coverage.measure(NAMES, {"play": pack(made())}), {"play": 2.5})
    assert all(name in text for name in NAMES)
    assert "| play | 2.50 | 2.0 |" in text
    assert "half and same_as_half (1.000)" in text


def test_rare_conditions_exist_and_are_few() -> None:
    names = _C.condition_names()
    assert set(coverage.RARE) <= set(names)
    assert len(coverage.RARE) <= coverage.HIGHEST_RARE_SHARE * len(names)
