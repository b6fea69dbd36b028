"""The names of actions are those of NLE."""

from __future__ import annotations

import pytest
from nle import nethack
from nle.env.tasks import TASK_ACTIONS

from polybeast_moe.errors import UserError
from polybeast_moe.graph import actions


def test_the_table_repeats_nle() -> None:
    for group, members in actions.KEYS.items():
        enumeration = getattr(nethack, group)
        assert members == {name: int(value) for name, value in enumeration.__members__.items()}
    assert {key for members in actions.KEYS.values() for key in members.values()} == {int(a) for a in nethack.ACTIONS}


def test_a_name_stands_for_one_action_or_for_all_of_an_enumeration() -> None:
    assert actions.keys_of("Command.EAT") == (ord("e"),)
    assert actions.keys_of("CompassDirection") == tuple(int(key) for key in nethack.CompassDirection)


@pytest.mark.parametrize("name", ["Command.", "Command.EATT", "Eat", "", "command.EAT", ".EAT"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="unknown action"):
        actions.keys_of(name)


def test_indices_point_into_the_environment_s_own_actions() -> None:
    keys = tuple(int(action) for action in TASK_ACTIONS)
    indices = actions.action_indices(("Command.EAT", "CompassDirection", "Command.PRAY"), keys)
    assert [keys[index] for index in indices] == [int(key) for key in nethack.CompassDirection] + [ord("e")]
