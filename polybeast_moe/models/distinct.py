"""Numbers the distinct rows of integer matrices by a hash table, on the CPU."""

# numba infers the types of the kernels' arguments.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
from torch import Tensor

from polybeast_moe.ops.compiled import compiled

_EMPTY = -1


def distinct_rows(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows of integers [N, L] on the CPU.

    Returns:
        For each distinct row the index of one that holds it [U], and for each row the number of its value [N].
    """
    return RowNumbers(keys.shape[1], len(keys)).number(keys)


class RowNumbers:
    """Gives each distinct row of int64 [L] a number, from 0 on, in the order in which rows are met."""

    def __init__(self, length: int, capacity: int = 512) -> None:
        """Has room for `capacity` distinct rows at first, and grows."""
        self._count = 0
        self._keys = torch.empty(max(1, capacity), length, dtype=torch.int64)
        self._slots = _empty_slots(self._keys)

    def __len__(self) -> int:
        """Number of distinct rows met."""
        return self._count

    def number(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """[N, L] -> indices of the rows that bring a new value, in the order of their numbers, and all numbers [N]."""
        if self._count + len(keys) > len(self._keys):
            self._grow(2 * (self._count + len(keys)))
        number = torch.empty(len(keys), dtype=torch.int64)
        fresh = torch.empty(len(keys), dtype=torch.int64)
        before = self._count
        self._count = _number_rows(
            keys.contiguous().numpy(), self._keys.numpy(), self._slots.numpy(), before, number.numpy(), fresh.numpy()
        )
        return fresh[: self._count - before], number

    def _grow(self, capacity: int) -> None:
        keys = self._keys[: self._count]
        self._keys = keys.new_empty(capacity, keys.shape[1])
        self._slots = _empty_slots(self._keys)
        number = torch.empty(len(keys), dtype=torch.int64)
        _number_rows(keys.numpy(), self._keys.numpy(), self._slots.numpy(), 0, number.numpy(), number.numpy())


def _empty_slots(keys: Tensor) -> Tensor:
    """Slots for the numbers of all keys, a power of two, never more than half full."""
    return torch.full((1 << (2 * len(keys) - 1).bit_length(),), _EMPTY, dtype=torch.int32)


@compiled
def _number_rows(keys, known, slots, count, number, fresh):
    """Looks up each row by open addressing, adds what is new; returns the number of known rows."""
    before, mask = count, slots.size - 1
    for n in range(keys.shape[0]):
        mixed = 0
        for j in range(keys.shape[1]):
            # Multiplication by an odd constant (2**64 / golden ratio) and a shift: every bit reaches the low ones.
            mixed = (mixed ^ keys[n, j]) * -7046029254386353131
            mixed ^= (mixed >> 32) & 0xFFFFFFFF
        slot = mixed & mask
        while True:
            at = slots[slot]
            if at < 0:
                for j in range(keys.shape[1]):
                    known[count, j] = keys[n, j]
                slots[slot] = at = count
                fresh[count - before] = n
                count += 1
                break
            same = True
            for j in range(keys.shape[1]):
                same &= known[at, j] == keys[n, j]
            if same:
                break
            slot = (slot + 1) & mask
        number[n] = at
    return count
