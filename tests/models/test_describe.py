"""What a policy consists of, in a table that adds up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from small import ACTIONS, policy_of

from polybeast_moe.config import RunConfig
from polybeast_moe.models import describe

MakeConfig = Callable[..., RunConfig]


def test_describe_accounts_for_every_parameter(make_config: MakeConfig) -> None:
    policy = policy_of(make_config(policy={"lstm": 8}))
    lines = [line.split() for line in describe(policy).splitlines()[1:]]
    parameters = {name: int(number.replace(",", "")) for name, number, *_ in lines}
    assert parameters["total"] == sum(p.numel() for p in policy.parameters())
    assert parameters["total"] == sum(number for name, number in parameters.items() if name != "total")
    assert set(parameters) >= {"visual", "graph", "core", "router", "experts", "value"}
    costs = {name: float(per_row.replace(",", "")) for name, _, per_row, _ in lines}
    hidden, features = 12, 8 + 16  # experts: two products over the core's units and the intent
    assert costs["experts"] == pytest.approx(2 * 4 * (features * hidden + hidden * ACTIONS) / 1e3, abs=0.05)
