"""The optional recurrent core: an LSTM that forgets at the start of an episode."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RecurrentCore(nn.Module):
    """An LSTM (Hochreiter & Schmidhuber 1997) over [T, B] rows; h and c of a game are one vector of 2 x units."""

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(features, units)
        self.state_size = 2 * units

    def forward(self, features: Tensor, state: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """Runs T steps.

        Args:
            features: [T, B, F].
            state: [B, S], the state before step 0.
            first: [T, B] bool, True where a step is the first of its episode: the state is zero before it.

        Returns:
            The hidden units [T, B, units] and the state after each step [T, B, S].
        """
        going_on = (~first).to(features.dtype)[..., None]
        states = []
        for step, keep in zip(features.unbind(), going_on.unbind(), strict=True):
            hidden, memory = (state * keep).chunk(2, dim=-1)
            state = torch.cat(self.cell(step, (hidden, memory)), dim=-1)
            states.append(state)
        after = torch.stack(states)
        return after[..., : self.state_size // 2], after
