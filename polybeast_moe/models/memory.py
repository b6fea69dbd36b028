"""What inference remembers of the graph stream while the weights stay the same.

Between two versions of the weights games show the same patterns again and again, and new patterns are made of
neighbourhoods seen before. Both are kept: the results of each pattern, what each operator's neighbourhood adds.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from polybeast_moe.models.distinct import RowNumbers
from polybeast_moe.models.gat import DistinctGraphAttention
from polybeast_moe.models.gat_inference import OperatorInference

StatesOf = Callable[[Tensor, Tensor], Tensor]


class Memory:
    """Results per pattern and terms per neighbourhood, at one version of the weights. No part of a policy's state.

    For policies on the CPU.
    """

    def __init__(self, limit: int = 65_536) -> None:
        self.limit = limit
        self._version: int | None = None
        self._states: StatesOf | None = None
        self._results, self._terms = _Store(), _Store()

    def __len__(self) -> int:
        """Number of patterns."""
        return len(self._results)

    def recall(self, words: Tensor, version: int, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Patterns [N, W] -> results [N, F], calling `compute` for those not met at this version of the weights."""
        if version != self._version or max(len(self._results), len(self._terms)) > self.limit:
            self._version, self._states = version, None
            self._results, self._terms = _Store(), _Store()
        number = self._results.number(words, lambda fresh: compute(words.index_select(0, fresh)))
        return self._results.rows.index_select(0, number)

    def terms(
        self, attention: DistinctGraphAttention, words: Tensor, compute: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Looks up the operators' neighbourhoods in patterns [U, W] and computes those that are new.

        Args:
            attention: whose neighbourhoods they are.
            words: [U, W].
            compute: states [S, hidden] and operators [S] -> terms [S, F].

        Returns:
            All terms kept [R, F], and the row that each operator has in each pattern [U, O].
        """
        if self._states is None:
            self._states = _states_of(attention)
        states_of = self._states

        def terms_of(fresh: Tensor) -> Tensor:
            pattern, operator = fresh // attention.num_operators, fresh % attention.num_operators
            return compute(states_of(words.index_select(0, pattern), operator), operator)

        row = self._terms.number(attention.neighbourhoods(words), terms_of)
        return self._terms.rows, row.view(len(words), -1)


def _states_of(attention: DistinctGraphAttention) -> StatesOf:
    """Packed conditions [S, W] and operators [S] -> states [S, hidden], at the weights of this moment."""
    if attention.identity.dtype == torch.float32:
        return OperatorInference(attention).states
    prepared = attention.prepare()
    return lambda words, operator: attention.states_of(attention.plan_of(words, operator), prepared)


class _Store:
    """One row of results for each distinct key."""

    def __init__(self) -> None:
        self._numbers: RowNumbers | None = None
        self._count = 0
        self.rows = torch.empty(0, 0)

    def __len__(self) -> int:
        return self._count

    def number(self, keys: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Keys [N, L] -> the rows of their results [N]; `compute` makes those of the keys [S] that are new."""
        if self._numbers is None:
            self._numbers = RowNumbers(keys.shape[1])
        fresh, number = self._numbers.number(keys)
        if len(fresh):
            self._append(compute(fresh))
        return number

    def _append(self, results: Tensor) -> None:
        start, self._count = self._count, self._count + len(results)
        if self._count > len(self.rows):
            grown = results.new_empty(max(1024, 2 * self._count), results.shape[1])
            if start:
                grown[:start] = self.rows[:start]
            self.rows = grown
        self.rows[start : self._count] = results
