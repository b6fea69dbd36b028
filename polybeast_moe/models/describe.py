"""What a policy is made of and what it costs."""

from __future__ import annotations

import torch
from nle import nethack
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from polybeast_moe import _C
from polybeast_moe.models.interface import Observation
from polybeast_moe.models.policy import GraphMoEPolicy

_ROWS = 64
_STACKS = 55  # of the inventory


def describe(policy: nn.Module) -> str:
    """A table of parameters and of the forward pass's floating-point operations, per part of the policy.

    Costs are counted by torch over two batches in which every pattern of conditions is distinct, and split into what
    grows with the rows and what is paid once a pass. A multiply-add is two operations; elementwise work does not count.
    For a policy of the user's own only the parameters are listed.
    """
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in policy.named_children()}
    parts = {name: parameters for name, parameters in parts.items() if parameters}
    costs = _costs(policy) if isinstance(policy, GraphMoEPolicy) else {}
    lines = [f"{'part':<12}{'parameters':>14}" + (f"{'kflop a row':>14}{'kflop a pass':>14}" if costs else "")]
    total = type(policy).__name__
    for name, parameters in [*parts.items(), (total, sum(p.numel() for p in policy.parameters()))]:
        per_row, per_pass = costs.get(name, (0.0, 0.0))
        cost = f"{per_row / 1e3:>14,.1f}{per_pass / 1e3:>14,.1f}" if costs else ""
        lines.append(f"{'total' if name == total else name:<12}{parameters:>14,}{cost}")
    return "\n".join(lines)


def _costs(policy: GraphMoEPolicy) -> dict[str, tuple[float, float]]:
    """Floating-point operations a row and a pass, by part and under the class's name for the whole."""
    once, twice = _flops(policy, _ROWS), _flops(policy, 2 * _ROWS)
    per_row = {name: (twice[name] - once[name]) / _ROWS for name in once}
    return {name: (per_row[name], once[name] - _ROWS * per_row[name]) for name in once}


def _flops(policy: GraphMoEPolicy, rows: int) -> dict[str, int]:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        policy(_observation(policy, rows), first=torch.zeros(1, rows, dtype=torch.bool))
    return {
        name.rpartition(".")[2]: sum(flops.values())
        for name, flops in counter.get_flop_counts().items()
        if name.count(".") <= 1
    }


def _observation(policy: GraphMoEPolicy, rows: int) -> Observation:
    """Rows of which no two light the same conditions."""
    side = policy.visual.glyphs.crop_size
    return Observation(
        glyph_crop=torch.zeros(rows, side, side, dtype=torch.int16),
        blstats=torch.zeros(rows, 27, dtype=torch.int64),
        conditions=_distinct_conditions(policy, rows),
        previous_action=torch.zeros(rows, dtype=torch.int64),
        message=torch.zeros(rows, 256, dtype=torch.uint8),
        glyphs=torch.zeros(rows, *nethack.DUNGEON_SHAPE, dtype=torch.int16),
        inv_glyphs=torch.zeros(rows, _STACKS, dtype=torch.int16),
        inv_letters=torch.zeros(rows, _STACKS, dtype=torch.uint8),
        inv_oclasses=torch.zeros(rows, _STACKS, dtype=torch.uint8),
    )


def _distinct_conditions(policy: GraphMoEPolicy, rows: int) -> Tensor:
    """Row r lights the bits of the number r."""
    words = torch.zeros(rows, _C.condition_words(), dtype=torch.int64)
    if policy.graph is None:
        return words
    conditions = policy.graph.conditions
    numbers = torch.arange(rows)[:, None] >> torch.arange(len(conditions.bit)).clamp(max=62)
    packed = conditions.pack(numbers & 1)
    words[:, : packed.shape[1]] = packed
    return words
