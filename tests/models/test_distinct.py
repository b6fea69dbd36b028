"""Numbers of distinct rows: like sorting would find them, in the order in which they are met."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from polybeast_moe.models.distinct import RowNumbers, distinct_rows

ROWS = arrays.arrays(
    np.int64,
    st.tuples(st.integers(0, 40), st.just(3)),
    elements=st.sampled_from([0, 1, -1, 2**62, -(2**63), 2**63 - 1]),
)


@given(ROWS)
def test_a_row_is_found_again_by_its_number(rows: np.ndarray) -> None:
    keys = torch.from_numpy(rows)
    first, number = distinct_rows(keys)
    assert torch.equal(keys[first][number], keys)
    assert len(first) == len(np.unique(rows, axis=0))
    _, sorted_number = torch.unique(keys, dim=0, return_inverse=True)
    assert torch.equal(sorted_number[first][number], sorted_number)  # the same rows share a number


@given(st.lists(ROWS, max_size=5))
def test_numbers_stay_while_the_table_grows(batches: list[np.ndarray]) -> None:
    numbers = RowNumbers(3, capacity=1)
    known: dict[tuple[int, ...], int] = {}
    for batch in batches:
        fresh, number = numbers.number(torch.from_numpy(batch))
        for row in fresh.tolist():
            assert known.setdefault(tuple(batch[row].tolist()), len(known)) == len(known) - 1
        assert number.tolist() == [known[tuple(row)] for row in batch.tolist()]
        assert len(numbers) == len(known)


def test_many_rows_that_differ_in_one_bit() -> None:
    bits = torch.ones(63, dtype=torch.int64) << torch.arange(63)
    keys = torch.stack([bits[:, None].expand(-1, 63), bits.expand(63, -1)], dim=2).flatten(0, 1)
    first, number = distinct_rows(keys)
    assert torch.equal(first, torch.arange(63 * 63))
    assert torch.equal(number, first)
