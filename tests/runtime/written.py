"""Copies of what stands in a slot."""

from __future__ import annotations

from torch import Tensor

from polybeast_moe.runtime.rollouts import Rollout

Fields = dict[str, Tensor]


def written(rollout: Rollout) -> Fields:
    """Copies a rollout's fields, lists cut to their counts: what lies behind was never written."""
    fields = {name: tensor.clone() for name, tensor in rollout.fields.items()}
    for kind in ("final", "record"):
        for name in [name for name in fields if name.startswith(kind) and name != f"{kind}_count"]:
            fields[name] = fields[name][: int(fields[f"{kind}_count"])]
    return fields
