"""What graph attention has to compute for given rows: integers that depend on lit conditions and on no weight.

So they can be worked out on the host while a device is busy, and sent there with the observations.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class OperatorPlan(NamedTuple):
    """S operator states of layer two, and the S1 states of layer one that they are made of. int64."""

    words: Tensor
    """[S, W]: the packed conditions of each state of layer two."""
    operator: Tensor
    """[S]: whose state it is."""
    near_words: Tensor
    """[S1, W]: the packed conditions of each state of layer one."""
    near: Tensor
    """[S1]: whose state it is."""
    senders: Tensor
    """[S, Jo]: the states of layer one of all operators that send to it, itself among them."""
    own: Tensor
    """[S]: its own state of layer one."""


class GraphPlan(NamedTuple):
    """N rows that show U patterns, in which O operators have S states. int64."""

    number: Tensor
    """[N]: the pattern of each row."""
    row: Tensor
    """[U, O]: the state of each operator in each pattern."""
    states: OperatorPlan
