"""How the experts share the work: entropies of the router's weights."""

from __future__ import annotations

import math

import pytest

from polybeast_moe.learning.usage import entropy, usage


def test_entropy_of_certainty_and_of_ignorance() -> None:
    assert entropy([1.0, 0.0, 0.0]) == 0.0
    assert entropy([0.25] * 4) == pytest.approx(math.log(4))


def test_a_router_that_deals_states_out_for_sure_tells_all_of_them_apart() -> None:
    """Each state to one expert, a quarter of them to each: alpha has no entropy, its mean all that there is."""
    assert usage([0.25] * 4, alpha_entropy=0.0) == pytest.approx(
        {"smallest_share": 0.25, "usage_entropy": math.log(4), "routing_information": math.log(4)}
    )
