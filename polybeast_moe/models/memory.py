"""What inference remembers of the graph stream while the weights stay the same.

Between two versions of the weights games show the same patterns again and again, and new patterns are made of
neighbourhoods seen before. Both are kept: the results of each pattern, what each operator's neighbourhood adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from polybeast_moe.models.distinct import distinct_rows
from polybeast_moe.models.gat import DistinctGraphAttention, Prepared


class Memory:
    """Results per pattern and terms per neighbourhood, at one version of the weights. No part of a policy's state."""

    def __init__(self, limit: int = 65_536) -> None:
        self.limit = limit
        self._version: int | None = None
        self._rows: dict[tuple[int, ...], int]  # of the results, by pattern
        self._results: Tensor
        self._prepared: Prepared | None
        self._numbers: Tensor  # of the neighbourhoods, ascending
        self._terms: Tensor
        self._forget()

    def __len__(self) -> int:
        """Number of patterns."""
        return len(self._rows)

    def recall(self, words: Tensor, version: int, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Patterns [N, W] -> results [N, F], calling `compute` for those not met at this version of the weights."""
        if version != self._version or len(self._rows) > self.limit or len(self._numbers) > self.limit:
            self._version = version
            self._forget()
        patterns = [tuple(pattern) for pattern in words.tolist()]
        fresh = {pattern: row for row, pattern in enumerate(patterns) if pattern not in self._rows}
        if fresh:
            self._append(fresh, compute(words[list(fresh.values())]))
        return self._results[[self._rows[pattern] for pattern in patterns]]

    def terms(
        self, attention: DistinctGraphAttention, lit: Tensor, compute: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Looks up the operators' neighbourhoods in lit conditions [U, P] and computes those that are new.

        Args:
            attention: whose neighbourhoods take one number each.
            lit: [U, P].
            compute: states [S, hidden] and operators [S] -> terms [S, F].

        Returns:
            All terms kept [R, F], and the row that each operator has in each pattern [U, O].
        """
        (numbers,) = attention.neighbourhoods(lit)
        if self._prepared is None:
            self._prepared = attention.prepare()
            self._numbers = numbers.new_full((1,), -1)  # no neighbourhood's: something to compare with
            self._terms = lit.new_zeros(1, 1)
        row = torch.searchsorted(self._numbers, numbers).clamp_(max=len(self._numbers) - 1)
        new = self._numbers[row] != numbers
        if new.any():
            pattern, operator = new.nonzero(as_tuple=True)
            found, _ = distinct_rows([numbers[new]])
            pattern, operator = pattern[found], operator[found]
            terms = compute(attention.states_of(lit[pattern], operator, self._prepared), operator)
            self._numbers, order = torch.cat([self._numbers, numbers[pattern, operator]]).sort()
            self._terms = torch.cat([self._terms.expand(-1, terms.shape[1]), terms])[order]
            row = torch.searchsorted(self._numbers, numbers)
        return self._terms, row

    def _forget(self) -> None:
        self._rows = {}
        self._results = torch.empty(0, 0)
        self._prepared = None
        self._numbers, self._terms = torch.empty(0, dtype=torch.int64), torch.empty(0, 0)

    def _append(self, patterns: Iterable[tuple[int, ...]], results: Tensor) -> None:
        start, end = len(self._rows), len(self._rows) + len(results)
        if end > len(self._results):
            grown = results.new_empty(max(1024, 2 * end), results.shape[1])
            if start:
                grown[:start] = self._results[:start]
            self._results = grown
        self._results[start:end] = results
        self._rows.update(zip(patterns, range(start, end), strict=True))
