"""Which actions the graph rules out, and that no figure of the learner suffers from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polybeast_moe import _C
from polybeast_moe.envs.engine import ACTION_NAMES, ACTIONS
from polybeast_moe.errors import UserError
from polybeast_moe.graph import KnowledgeGraph, Operator, load_graph
from polybeast_moe.graph.actions import action_indices
from polybeast_moe.graph.configured import configured_graph
from polybeast_moe.learning import losses
from polybeast_moe.models import build_policy
from polybeast_moe.models.action_mask import MASKED, ActionMask, masked_alike
from polybeast_moe.ops import vtrace

GRAPH = load_graph(Path(__file__).resolve().parents[2] / "configs" / "graphs" / "nethack.yaml")
NAMES = _C.condition_names()
UP, DOWN, EAT = (ACTION_NAMES.index(name) for name in ("UP", "DOWN", "EAT"))


@pytest.fixture(scope="module")
def mask() -> ActionMask:
    return ActionMask(GRAPH, len(ACTIONS))


def lit(*conditions: str) -> torch.Tensor:
    """[1, W]"""
    words = torch.zeros(1, _C.condition_words(), dtype=torch.int64)
    for name in conditions:
        bit = NAMES.index(name)
        words[0, bit // 64] |= torch.tensor(1) << (bit % 64)
    return words


def ruled_out(mask: ActionMask, *conditions: str) -> set[int]:
    return set((~mask.allowed(lit(*conditions))[0]).nonzero().flatten().tolist())


def test_the_stairs_open_what_they_lead_to(mask: ActionMask) -> None:
    assert ruled_out(mask) == {UP, DOWN}
    assert ruled_out(mask, "stairs_down_underfoot") == {UP}
    assert ruled_out(mask, "dropping_trap_known") == {UP}
    assert ruled_out(mask, "stairs_up_underfoot") == {DOWN}
    assert ruled_out(mask, "stairs_up_underfoot", "depth_1") == {UP, DOWN}, "the way out of the dungeon"
    assert ruled_out(mask, "stairs_down_known", "stairs_down_adjacent") == {UP, DOWN}


@pytest.mark.parametrize("sated", ["not_hungry", "satiated"])
def test_only_the_hungry_eat(mask: ActionMask, sated: str) -> None:
    assert ruled_out(mask, sated) == {UP, DOWN, EAT}
    assert ruled_out(mask, sated, "prompt_choice", "prompt_eat") == set(), "there, `e` is a letter"
    for hungry in ("hungry", "weak", "fainting"):
        assert ruled_out(mask, hungry, "has_food") == {UP, DOWN}


@pytest.mark.parametrize("prompt", ["prompt_choice", "prompt_text_or_more"])
def test_at_a_prompt_keys_mean_something_else(mask: ActionMask, prompt: str) -> None:
    assert ruled_out(mask, prompt) == set()
    assert ruled_out(mask, prompt, "depth_1") == set()


def with_operators(*operators: Operator) -> KnowledgeGraph:
    return dataclasses.replace(GRAPH, operators=operators)


def test_one_operator_without_gates_frees_its_actions() -> None:
    gated = Operator("kick", "combat", ("Command.KICK", "MiscDirection"), requires=("monster_adjacent",))
    free = Operator("wait", "general", ("MiscDirection.WAIT",))
    kick, wait = ACTION_NAMES.index("KICK"), ACTION_NAMES.index("WAIT")
    alone, both = (ActionMask(with_operators(*some), len(ACTIONS)) for some in ((gated,), (gated, free)))
    assert ruled_out(alone) == {kick, UP, DOWN, wait}
    assert ruled_out(both) == {kick, UP, DOWN}
    assert ruled_out(both, "monster_adjacent") == set()


def test_a_graph_without_gates_masks_nothing() -> None:
    plain = [dataclasses.replace(operator, requires=(), excludes=()) for operator in GRAPH.operators]
    mask = ActionMask(with_operators(*plain), len(ACTIONS))
    logits = torch.randn(5, len(ACTIONS))
    assert torch.equal(mask(logits, lit().repeat(5, 1)), logits)


def test_a_graph_that_could_leave_no_action_is_refused() -> None:
    actions = ("CompassDirection", "CompassDirectionLonger", "MiscDirection", "MiscAction", "Command")
    with pytest.raises(UserError, match="leave one without"):
        ActionMask(with_operators(Operator("all", "general", actions, requires=("hungry",))), len(ACTIONS))


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=_C.condition_words(), max_size=_C.condition_words()))
def test_any_state_is_masked_by_the_definition(mask: ActionMask, words: list[int]) -> None:
    conditions = {name for bit, name in enumerate(NAMES) if words[bit // 64] >> (bit % 64) & 1}
    bound: dict[int, list[Operator]] = {action: [] for action in range(len(ACTIONS))}
    for operator in GRAPH.operators:
        for action in action_indices(operator.actions, ACTIONS):
            bound[action].append(operator)

    def possible(operator: Operator) -> bool:
        return set(operator.requires) <= conditions and not set(operator.excludes) & conditions

    prompt = bool(conditions & {"prompt_choice", "prompt_text_or_more"})
    wanted = [prompt or not bound[action] or any(map(possible, bound[action])) for action in range(len(ACTIONS))]
    assert mask.allowed(torch.tensor([words]))[0].tolist() == wanted
    assert any(wanted)


def test_ratios_entropy_and_gradients_stay_finite(mask: ActionMask) -> None:
    """And a masked action is never drawn."""
    torch.manual_seed(0)
    steps, games = 6, 4
    conditions = torch.cat([lit(), lit("stairs_down_underfoot"), lit("prompt_choice")]).repeat(steps * games // 3, 1)
    raw = torch.randn(steps * games, len(ACTIONS), requires_grad=True)
    logits = mask(raw, conditions)
    behaviour = mask(torch.randn(steps * games, len(ACTIONS)), conditions)
    assert not torch.softmax(behaviour, -1)[~mask.allowed(conditions)].any()
    action = torch.multinomial(torch.softmax(behaviour, -1), 1)
    assert mask.allowed(conditions).gather(1, action).all()
    log_policy, log_behaviour = torch.log_softmax(logits, -1), torch.log_softmax(behaviour, -1)
    taken, before = (each.gather(1, action).view(steps, games) for each in (log_policy, log_behaviour))
    value = torch.zeros(steps, games)
    traced = vtrace(before, taken.detach(), value + 0.9, value + 1, value, value[0])
    loss = losses.policy_gradient_loss(taken, traced.pg_advantages) - losses.policy_entropy(log_policy)
    loss.backward()
    assert traced.vs.isfinite().all()
    assert raw.grad.isfinite().all()
    assert not raw.grad[~mask.allowed(conditions)].any(), "what is impossible is not learnt from"
    assert (log_policy.exp() * (log_policy - log_behaviour)).sum(-1).isfinite().all()
    # The entropy is that of the actions that are left.
    row = torch.log_softmax(raw[0][mask.allowed(conditions)[0]], -1)
    assert losses.policy_entropy(log_policy[:1]).item() == pytest.approx(
        losses.policy_entropy(row[None]).item(), rel=1e-5
    )


def test_other_logits_are_masked_alike(mask: ActionMask) -> None:
    logits = mask(torch.randn(2, len(ACTIONS)), lit().repeat(2, 1))
    other = torch.randn(2, len(ACTIONS))
    again = masked_alike(other, logits)
    assert (again[:, [UP, DOWN]] == MASKED).all()
    assert torch.equal(masked_alike(other, other), other)


def test_a_policy_masks_the_same_in_inference_and_in_training(make_config, observe) -> None:
    config = make_config(policy={"action_mask": True})
    policy = build_policy(config, GRAPH, num_actions=len(ACTIONS))
    states = torch.cat([lit("depth_1"), lit("stairs_down_underfoot", "depth_1"), lit("prompt_choice")])
    observation = observe(3)._replace(conditions=states)
    played, learnt = policy.infer(observation, weights_version=1), policy(observation)
    for output in (played, learnt):
        impossible = (output.logits == MASKED).nonzero().tolist()
        assert impossible == [[0, UP], [0, DOWN], [1, UP]]
    torch.testing.assert_close(played.logits, learnt.logits.detach(), rtol=1e-4, atol=1e-5)


def test_a_policy_without_a_graph_stream_masks_by_the_graph_all_the_same(make_config, observe) -> None:
    config = make_config(policy={"action_mask": True}, graph={"enabled": False})
    policy = build_policy(config, configured_graph(config), num_actions=len(ACTIONS))
    observation = observe(2)._replace(conditions=torch.cat([lit("depth_1"), lit("stairs_down_underfoot")]))
    assert (policy(observation).logits[:, DOWN] == MASKED).tolist() == [True, False]
    with pytest.raises(ValueError, match=r"action_mask is true: this policy needs its knowledge graph"):
        build_policy(config, None, num_actions=len(ACTIONS))
