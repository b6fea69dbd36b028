"""What inference remembers of the graph stream while the weights stay the same.

Between two versions of the weights games show the same patterns again and again, and new patterns are made of
neighbourhoods seen before. Both are kept: the results of each pattern, the states of each operator's neighbourhoods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from polybeast_moe.models.distinct import distinct_rows
from polybeast_moe.models.gat import DistinctGraphAttention, GraphAttentionStack, OperatorStates, Prepared


class Memory:
    """Results per pattern and states per neighbourhood, at one version of the weights. No part of a policy's state."""

    def __init__(self, limit: int = 65_536) -> None:
        self.limit = limit
        self._version: int | None = None
        self._rows: dict[tuple[int, ...], int]  # of the results, by pattern
        self._results: Tensor
        self._prepared: Prepared | None
        self._numbers: Tensor  # of the neighbourhoods, ascending
        self._states: Tensor
        self._forget()

    def __len__(self) -> int:
        """Number of patterns."""
        return len(self._rows)

    def recall(self, words: Tensor, version: int, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Patterns [N, W] -> results [N, F], calling `compute` for those not met at this version of the weights."""
        if version != self._version or len(self._rows) > self.limit or len(self._states) > self.limit:
            self._version = version
            self._forget()
        patterns = [tuple(pattern) for pattern in words.tolist()]
        fresh = {pattern: row for row, pattern in enumerate(patterns) if pattern not in self._rows}
        if fresh:
            self._append(fresh, compute(words[list(fresh.values())]))
        return self._results[[self._rows[pattern] for pattern in patterns]]

    def operator_states(self, attention: GraphAttentionStack, lit: Tensor) -> OperatorStates:
        """As `attention(lit)`, computing only the neighbourhoods not met at this version of the weights."""
        if not isinstance(attention, DistinctGraphAttention):
            return attention.operator_states(lit)
        numbers, *more = attention.neighbourhoods(lit)
        if more:  # a neighbourhood takes more than one number: not worth remembering
            return attention.operator_states(lit)
        place = self._places(numbers)
        if place is None:
            if self._prepared is None:
                self._prepared = attention.prepare()
                self._numbers, self._states = numbers.new_empty(0), lit.new_empty(0, self._prepared.nodes.shape[1])
            unknown = ~torch.isin(numbers, self._numbers)
            pattern, operator = unknown.nonzero(as_tuple=True)
            found, _ = distinct_rows([numbers[unknown]])
            states = attention.states_of(lit[pattern[found]], operator[found], self._prepared)
            self._numbers, order = torch.cat([self._numbers, numbers[unknown][found]]).sort()
            self._states = torch.cat([self._states, states])[order]
            place = torch.searchsorted(self._numbers, numbers)
        return OperatorStates(self._states, self._numbers % attention.num_operators, place)

    def _places(self, numbers: Tensor) -> Tensor | None:
        """Where the numbers of neighbourhoods are kept; None unless all are."""
        if not len(self._numbers):
            return None
        place = torch.searchsorted(self._numbers, numbers).clamp_(max=len(self._numbers) - 1)
        return place if torch.equal(self._numbers[place], numbers) else None

    def _forget(self) -> None:
        self._rows = {}
        self._results = torch.empty(0, 0)
        self._prepared = None
        self._numbers, self._states = torch.empty(0, dtype=torch.int64), torch.empty(0, 0)

    def _append(self, patterns: Iterable[tuple[int, ...]], results: Tensor) -> None:
        start, end = len(self._rows), len(self._rows) + len(results)
        if end > len(self._results):
            grown = results.new_empty(max(1024, 2 * end), results.shape[1])
            if start:
                grown[:start] = self._results[:start]
            self._results = grown
        self._results[start:end] = results
        self._rows.update(zip(patterns, range(start, end), strict=True))
