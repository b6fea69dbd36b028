"""Changes do what they say, cost what they say, and leave the policy as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polybeast_moe.envs.scenes import scenes
from polybeast_moe.errors import UserError
from polybeast_moe.evaluation.ablate import ablate, changes
from polybeast_moe.evaluation.interventions import (
    Gauged,
    KnockOut,
    ShuffleGates,
    WithoutGraph,
    all_experts,
    divergence,
    matched_length,
    with_gates,
)
from polybeast_moe.evaluation.play import Moment, Played, play_episodes
from polybeast_moe.evaluation.trained import load_trained
from polybeast_moe.models.action_mask import MASKED


@pytest.fixture(scope="module")
def trained(trained_run):
    """With weights far enough from their beginnings that experts differ and alpha is sparse."""
    found = load_trained(trained_run)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in found.policy.named_parameters():
            if name.startswith(("experts", "router")):
                parameter.add_(torch.randn(parameter.shape, generator=generator))
    return found


def play(trained, change=None, episodes: int = 6) -> tuple[Played, list[Moment]]:
    seen: list[Moment] = []
    with all_experts(trained.policy):
        played = play_episodes(
            trained.policy,
            trained.config.env,
            episodes=episodes,
            seed=4,
            routing=trained.routing,
            temperature=trained.temperature,
            change=change,
            watch=seen.append,
        )
    return played, seen


def test_no_change_is_no_change(trained) -> None:
    plain, _ = play(trained)
    same, _ = play(trained, lambda rows, output, infer: with_gates(output, output.alpha))
    for name in ("score", "return", "length"):
        assert same.column(name).tolist() == plain.column(name).tolist()


def test_every_expert_runs_where_it_is_asked_to(trained) -> None:
    _, seen = play(trained)
    alpha = torch.cat([moment.output.alpha for moment in seen])
    logits = torch.cat([moment.output.expert_logits for moment in seen])
    assert (alpha == 0).any()
    assert (logits[alpha == 0] != 0).any(dim=1).all()
    assert trained.policy.expert_execution == "auto"


@pytest.mark.parametrize("expert", range(4))
def test_a_knocked_out_expert_has_no_weight_and_the_others_keep_their_proportions(trained, expert: int) -> None:
    befores = []

    def change(rows, output, infer):
        befores.append(output)
        return KnockOut(expert, trained.routing, trained.temperature)(rows, output, infer)

    _, seen = play(trained, change)
    for before, moment in zip(befores, seen, strict=True):
        after = moment.output
        assert (after.alpha[:, expert] == 0).all()
        torch.testing.assert_close(after.alpha.sum(dim=1), torch.ones(len(after.alpha)))
        left = before.alpha.clone()
        left[:, expert] = 0
        some = left.sum(dim=1) > 1e-3
        shares = left[some] / left[some].sum(dim=1, keepdim=True)
        torch.testing.assert_close(after.alpha[some], shares)
        mixed = torch.einsum("ne,nea->na", after.alpha, before.expert_logits)
        masked = before.logits == MASKED
        torch.testing.assert_close(after.logits[~masked], mixed[~masked])
        assert (after.logits[masked] == MASKED).all(), "what is impossible stays so"


def test_the_sole_expert_is_replaced_by_the_routers_next_choice(trained) -> None:
    _, seen = play(trained)
    output = seen[0].output
    alone = output._replace(
        alpha=torch.tensor([[1.0, 0, 0, 0]]).repeat(len(output.alpha), 1),
        router_scores=torch.tensor([[1.0, -1.0, 0.9, -1.0]]).repeat(len(output.alpha), 1),
    )
    after = KnockOut(0, "sparsemax", 0.5)(seen[0].rows, alone, lambda policy: output)
    assert after.alpha.tolist() == [[0, 0, 1, 0]] * len(output.alpha)
    after = KnockOut(0, "softmax", 0.5, keep=1)(seen[0].rows, alone, lambda policy: output)
    assert after.alpha.tolist() == [[0, 0, 1, 0]] * len(output.alpha)


@pytest.mark.parametrize("within", [True, False])
def test_shuffled_gates_are_those_of_states_of_the_right_scene(trained, within: bool) -> None:
    origin: dict[bytes, set[int]] = {}
    shuffle = ShuffleGates(within)
    moved = same = 0

    def change(rows, output, infer):
        nonlocal moved, same
        scene = scenes(rows.raw).tolist()
        for kind, alpha in zip(scene, output.alpha, strict=True):
            origin.setdefault(alpha.numpy().tobytes(), set()).add(kind)
        after = shuffle(rows, output, infer)
        for kind, old, new in zip(scene, output.alpha, after.alpha, strict=True):
            kinds = origin[new.numpy().tobytes()]
            moved += not torch.equal(old, new)
            if within:
                assert kind in kinds
            else:
                same += kinds == {kind}
        return after

    play(trained, change, episodes=16)
    assert moved > 200
    assert same < moved / 20  # only before any other scene was met


def test_without_its_graph_a_policy_reads_zeros_and_gets_it_back(trained) -> None:
    reads = []
    handle = trained.policy.value.register_forward_pre_hook(lambda module, given: reads.append(given[0]))
    hidden = trained.config.graph.hidden
    change = WithoutGraph(trained.policy)
    _, seen = play(trained, change)
    assert all((row[:, -hidden:] != 0).any() for row in reads[::2])  # as it is
    assert all((row[:, -hidden:] == 0).all() for row in reads[1::2])  # without
    assert len(reads) == 2 * len(seen)
    reads.clear()
    play(trained)
    assert all((row[:, -hidden:] != 0).any() for row in reads)
    handle.remove()


def test_a_policy_without_a_graph_has_none_to_lose(recurrent_run) -> None:
    trained = load_trained(recurrent_run)
    with pytest.raises(UserError, match="no graph stream"):
        WithoutGraph(trained.policy)
    assert "graph stream off" not in changes(trained)


def test_noise_is_as_long_as_wanted() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(4000, 23)) * generator.uniform(0.1, 4, size=(4000, 1))
    direction = generator.normal(size=(4000, 23))
    wanted = generator.exponential(0.5, size=4000)
    wanted[:50] = 0
    length = matched_length(logits, direction, wanted)
    reached = divergence(logits, logits + length[:, None] * direction)
    assert (length[:50] == 0).all()
    np.testing.assert_allclose(reached, wanted, rtol=1e-6, atol=1e-9)


def test_divergence_is_kullback_and_leiblers() -> None:
    before, after = torch.randn(2, 7, 5, dtype=torch.float64)
    wanted = torch.nn.functional.kl_div(
        after.log_softmax(1), before.log_softmax(1), reduction="none", log_target=True
    ).sum(1)
    np.testing.assert_allclose(divergence(before.numpy(), after.numpy()), wanted.numpy())


def test_a_perturbation_is_as_large_as_the_change_state_by_state(trained) -> None:
    wanted, reached = [], []
    plain = KnockOut(0, trained.routing, trained.temperature)
    gauged = Gauged(plain, perturb=True)

    def change(rows, output, infer):
        after = gauged(rows, output, infer)
        before = output.logits.double().numpy()
        wanted.append(divergence(before, plain(rows, output, infer).logits.double().numpy()))
        reached.append(divergence(before, after.logits.double().numpy()))
        return after

    play(trained, change)
    wanted, reached = np.concatenate(wanted), np.concatenate(reached)
    np.testing.assert_allclose(reached, wanted, rtol=1e-4, atol=1e-6)
    assert gauged.divergence == pytest.approx(reached.mean(), rel=1e-4)
    assert wanted.max() > 0.05


def test_ablation_plays_the_baselines_games_and_tells_losses(trained) -> None:
    baseline, seen = play(trained, episodes=4)
    found = ablate(trained, baseline, games=4)
    names = ["survival", "combat", "exploration", "general"]
    assert list(found) == [
        *(f"without {name}" for name in names),
        "gates shuffled within scenes",
        "gates shuffled between scenes",
        "graph stream off",
    ]
    scenes_met = len(np.unique(np.concatenate([scenes(moment.rows.raw) for moment in seen])))
    acts = [*(baseline.alpha.sum(axis=0) > 0), True, scenes_met > 1, True]
    for figures, acted in zip(found.values(), acts, strict=True):
        assert (figures["divergence"] > 0) == acted
        lost = figures["score_lost"]
        assert lost["value"] == pytest.approx(baseline.column("score").mean() - figures["mean_score"])
        beside = figures["perturbation"]
        beyond = figures["beyond_perturbation"]["value"]
        assert beyond == pytest.approx(beside["mean_score"] - figures["mean_score"])
        assert (beside["divergence"] > 0) == acted
