"""Distinct rows of integer matrices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def distinct_rows(columns: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Distinct rows of a matrix of integers given by its columns, each [N].

    Returns:
        For each distinct row the index of one that holds it [U], and for each row the number of its value [N].
    """
    number = columns[0]
    for column in columns[1:]:
        # Numbers of values are below N, so that their pairs fit in one integer.
        values, number = torch.unique(number, return_inverse=True)
        others, column_number = torch.unique(column, return_inverse=True)
        number = number * len(others) + column_number
    values, number = torch.unique(number, return_inverse=True)
    rows = torch.arange(len(number), device=number.device)
    return torch.zeros_like(values).scatter_(0, number, rows), number
