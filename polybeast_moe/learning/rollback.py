"""The way back from weights that no update can be made from."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from polybeast_moe.config import RollbackConfig
from polybeast_moe.errors import RunFailed


class _Copy(NamedTuple):
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]


class Rollback:
    """Counts skipped updates, and after a run of them puts back the last good weights.

    A copy of weights and optimiser is taken every `copy_every` updates applied. It counts as good when as many again
    have been applied since: what ends in infinities was on its way there before. Every rank does the same.
    """

    def __init__(self, policy: nn.Module, optimizer: torch.optim.Optimizer, config: RollbackConfig) -> None:
        self._policy, self._optimizer, self._config = policy, optimizer, config
        self._good: _Copy | None = None
        self._newest: _Copy | None = None
        self._applied = self._in_a_row = self._returns = 0

    def watch(self, applied: bool) -> bool:
        """Takes note of one update; returns whether the last good weights were put back.

        Raises:
            RunFailed: they were, `give_up_after` times, and nothing could be learnt from them.
        """
        if self._good is None:
            self._good = self._newest = self._copy()
        if applied:
            self._in_a_row = self._returns = 0
            self._applied += 1
            if self._applied % self._config.copy_every == 0:
                self._good, self._newest = self._newest, self._copy()
            return False
        self._in_a_row += 1
        return self._in_a_row % self._config.after == 0 and self._put_back()

    def _put_back(self) -> bool:
        assert self._good is not None
        if self._returns == self._config.give_up_after:
            raise RunFailed(
                f"{self._in_a_row} updates in a row had no finite gradient, from the last good weights too: lower "
                "learning_rate and resume from a snapshot before that"
            )
        self._returns += 1
        self._newest = self._good
        self._policy.load_state_dict(self._good.weights)
        self._optimizer.load_state_dict(copy.deepcopy(self._good.optimizer))
        return True

    def _copy(self) -> _Copy:
        weights = {name: value.detach().clone() for name, value in self._policy.state_dict().items()}
        return _Copy(weights, copy.deepcopy(self._optimizer.state_dict()))
