"""The way back from weights that no update can be made from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from polybeast_moe.config import RollbackConfig
from polybeast_moe.errors import RunFailed
from polybeast_moe.learning.learner import Learner
from polybeast_moe.models import Policy


class _Copy(NamedTuple):
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]


class Rollback:
    """Counts skipped updates, and after a run of them puts back the last good weights.

    A copy of weights and optimiser is taken every `copy_every` updates applied. It counts as good when as many again
    have been applied since: what ends in infinities was on its way there before.
    """

    def __init__(self, policy: Policy, learner: Learner, config: RollbackConfig) -> None:
        self._policy, self._learner, self._config = policy, learner, config
        self._good = self._newest = self._copy()
        self._applied = self._in_a_row = self._returns = 0
        self.skipped = 0
        """Updates skipped since this process began."""

    def watch(self, applied: bool, log: Callable[[str], None]) -> None:
        """Takes note of one update.

        Raises:
            RunFailed: the good weights were put back `give_up_after` times, and nothing could be learnt from them.
        """
        if applied:
            self._in_a_row = self._returns = 0
            self._applied += 1
            if self._applied % self._config.copy_every == 0:
                self._good, self._newest = self._newest, self._copy()
            return
        self.skipped += 1
        self._in_a_row += 1
        log(f"an update was skipped: its loss or gradient was not finite ({self.skipped} so far)")
        if self._in_a_row % self._config.after == 0:
            self._return(log)

    def _return(self, log: Callable[[str], None]) -> None:
        if self._returns == self._config.give_up_after:
            raise RunFailed(
                f"{self._in_a_row} updates in a row had no finite gradient, from the last good weights too: lower "
                "learning_rate and resume from a snapshot before that"
            )
        self._returns += 1
        self._newest = self._good
        self._policy.load_state_dict(self._good.weights)
        self._learner.restore(copy.deepcopy(self._good.optimizer), self._learner.version + 1)  # others take them over
        log(f"{self._in_a_row} updates in a row were skipped: the last good weights are back")

    def _copy(self) -> _Copy:
        weights = {name: value.detach().clone() for name, value in self._policy.state_dict().items()}
        return _Copy(weights, copy.deepcopy(self._learner.optimizer_state()))
