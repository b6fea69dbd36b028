"""The running scale of the training reward."""

from __future__ import annotations

import math

from torch import Tensor

_DECAY = 0.99  # of what is remembered, an update
_SMALLEST = 1e-8


class RewardScale:
    """Root mean square of rewards over about the last hundred updates, without the bias of its beginning.

    A mean square and not a variance: a reward of 0 must stay 0. Corrected as Adam corrects its averages (Kingma & Ba
    2015).
    """

    def __init__(self) -> None:
        self._mean_square = self._weight = 0.0

    def normalised(self, rewards: Tensor) -> Tensor:
        """Returns rewards [T, B] divided by the scale of what was taken in; as they are before anything was."""
        if not self._weight:
            return rewards
        scaled: Tensor = rewards / max(self._mean_square / self._weight, _SMALLEST) ** 0.5
        return scaled

    def take(self, mean_square: float) -> None:
        """Takes in the mean square of one update's rewards; one that is not finite is left out."""
        if math.isfinite(mean_square):
            self._mean_square = _DECAY * self._mean_square + (1 - _DECAY) * mean_square
            self._weight = _DECAY * self._weight + (1 - _DECAY)

    def state(self) -> dict[str, float]:
        """Returns what `restore` goes on from."""
        return {"mean_square": self._mean_square, "weight": self._weight}

    def restore(self, state: dict[str, float]) -> None:
        """Goes on from `state()`."""
        self._mean_square, self._weight = state["mean_square"], state["weight"]
